// SPDX-License-Identifier: GPL-2.0-only
/*
 * Generic netlink: questions and events, see uapi/klpctl.h for what each message carries.
 *
 * genetlink holds cb_lock around each request, with parallel_ops, too; so a request
 * that takes long would stop all families of the machine as soon as one of them is
 * registered or unregistered. What takes long is asked for by /dev/klpctl.
 */
#include <linux/capability.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <net/genetlink.h>

#include "compat.h"
#include "core.h"
#include "event.h"
#include "netlink.h"
#include "reason.h"
#include "registry.h"
#include "stack.h"
#include "task.h"
#include "watch.h"

static struct genl_family family;

/* ---- features ---- */

static u64 features(void)
{
	return (klpctl_watch_active() ? BIT_ULL(KLPCTL_FEATURE_EVENTS) : 0) |
	       (klpctl_registry_is_fast() ? BIT_ULL(KLPCTL_FEATURE_FAST) : 0) |
	       (klpctl_reason_seen() ? BIT_ULL(KLPCTL_FEATURE_REASONS) : 0) |
	       (klpctl_stack_available() ? BIT_ULL(KLPCTL_FEATURE_STACKS) : 0) |
	       (klpctl_core_clears_relocs() ? BIT_ULL(KLPCTL_FEATURE_RELOC_CLEAR) : 0);
}

static int get_features(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	u64 seq, kicks, reversals;
	void *header;

	if (!reply)
		return -ENOMEM;
	klpctl_registry_lock();
	seq = klpctl_event_seq();
	kicks = klpctl_registry_kicks();
	reversals = klpctl_registry_reversals();
	klpctl_registry_unlock();

	header = genlmsg_put_reply(reply, info, &family, 0, KLPCTL_CMD_FEATURES_GET);
	if (!header || nla_put_u32(reply, KLPCTL_A_VERSION, KLPCTL_VERSION) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_FEATURES, features(), KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_SEQ, seq, KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_KICKS, kicks, KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_REVERSALS, reversals, KLPCTL_A_PAD)) {
		nlmsg_free(reply);
		return -EMSGSIZE;
	}
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);
}

/* ---- patches ---- */

static int put_func(struct sk_buff *skb, const struct klp_func *func)
{
	struct nlattr *nest = nla_nest_start(skb, KLPCTL_A_OBJECT_FUNC);

	if (!nest || nla_put_string(skb, KLPCTL_A_FUNC_NAME, func->old_name) ||
	    nla_put_u32(skb, KLPCTL_A_FUNC_SYMPOS, func->old_sympos))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static struct nlattr *start_object(struct sk_buff *skb, const struct klp_object *obj)
{
	struct nlattr *nest = nla_nest_start(skb, KLPCTL_A_OBJECT);

	if (!nest || nla_put_string(skb, KLPCTL_A_OBJECT_NAME, obj->name ?: "vmlinux"))
		return NULL;
	return nest;
}

static int put_objects(struct sk_buff *skb, const struct klp_patch *decl)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	struct nlattr *nest;

	klp_for_each_object_static(decl, obj) {
		nest = start_object(skb, obj);
		klp_for_each_func_static(obj, func) {
			/* A nest's length has 16 bits: go on in another. */
			if (nest && skb_tail_pointer(skb) - (unsigned char *)nest >= SZ_32K) {
				nla_nest_end(skb, nest);
				nest = start_object(skb, obj);
			}
			if (!nest || put_func(skb, func))
				return -EMSGSIZE;
		}
		if (!nest)
			return -EMSGSIZE;
		nla_nest_end(skb, nest);
	}
	return 0;
}

static int put_transition(struct sk_buff *skb, const struct klpctl_patch *patch)
{
	bool patched = patch->state == KLPCTL_STATE_ENABLING;
	struct klpctl_tasks tasks;
	struct nlattr *nest;

	klpctl_task_count(&tasks);
	nest = nla_nest_start(skb, KLPCTL_A_TRANSITION);
	if (!nest ||
	    nla_put_u32(skb, KLPCTL_A_TRANSITION_TARGET,
			patched ? KLPCTL_TARGET_PATCHED : KLPCTL_TARGET_UNPATCHED) ||
	    nla_put_u32(skb, KLPCTL_A_TRANSITION_TOTAL, tasks.total) ||
	    nla_put_u32(skb, KLPCTL_A_TRANSITION_DONE, tasks.total - tasks.pending) ||
	    nla_put_u64_64bit(skb, KLPCTL_A_TRANSITION_START, patch->started,
			      KLPCTL_A_TRANSITION_PAD) ||
	    (patch->window.awaited && patch->window.deadline &&
	     nla_put_u64_64bit(skb, KLPCTL_A_TRANSITION_DEADLINE, patch->window.end,
			       KLPCTL_A_TRANSITION_PAD)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int put_patch(struct sk_buff *skb, const struct klpctl_patch *patch)
{
	if (nla_put_string(skb, KLPCTL_A_NAME, patch->name) ||
	    nla_put_u32(skb, KLPCTL_A_STATE, patch->state) ||
	    nla_put_u32(skb, KLPCTL_A_FLAGS, klpctl_registry_flags(patch)) ||
	    nla_put_u64_64bit(skb, KLPCTL_A_SEQ, klpctl_event_seq(), KLPCTL_A_PAD) ||
	    (patch->window.awaited && !patch->window.deadline &&
	     nla_put_u64_64bit(skb, KLPCTL_A_CONFIRM, patch->window.end, KLPCTL_A_PAD)) ||
	    (klpctl_in_transition(patch->state) && put_transition(skb, patch)))
		return -EMSGSIZE;
	return patch->decl ? put_objects(skb, patch->decl) : 0;
}

/* What put_patch() takes at the most: objects start again after each 32 KiB. */
static size_t patch_size(const struct klpctl_patch *patch)
{
	const size_t object = nla_total_size(0) + nla_total_size(MODULE_NAME_LEN);
	const struct klp_object *obj;
	const struct klp_func *func;
	size_t size = 0;

	if (!patch->decl)
		return NLMSG_DEFAULT_SIZE;
	klp_for_each_object_static(patch->decl, obj) {
		size += object;
		klp_for_each_func_static(obj, func)
			size += nla_total_size(nla_total_size(strlen(func->old_name) + 1) +
					       nla_total_size(sizeof(u32)));
	}
	return NLMSG_DEFAULT_SIZE + size + size / SZ_32K * object;
}

static int get_patch(struct sk_buff *skb, struct genl_info *info)
{
	const struct nlattr *name = info->attrs[KLPCTL_A_NAME];
	struct klpctl_patch *patch;
	struct sk_buff *reply = NULL;
	void *header;
	int ret;

	if (!name) {
		NL_SET_ERR_MSG(info->extack, "the name of the patch (KLPCTL_A_NAME) is missing");
		return -EINVAL;
	}
	klpctl_registry_lock();
	patch = klpctl_registry_find(nla_data(name));
	if (!patch) {
		NL_SET_ERR_MSG(info->extack, "no such patch");
		ret = -ENOENT;
		goto unlock;
	}
	ret = -ENOMEM;
	reply = genlmsg_new(patch_size(patch), GFP_KERNEL);
	if (!reply)
		goto unlock;
	header = genlmsg_put_reply(reply, info, &family, 0, KLPCTL_CMD_PATCH_GET);
	ret = header ? put_patch(reply, patch) : -EMSGSIZE;
	if (!ret)
		genlmsg_end(reply, header);
unlock:
	klpctl_registry_unlock();
	if (!ret)
		return genlmsg_reply(reply, info);
	nlmsg_free(reply);
	return ret;
}

static int start_patches(struct netlink_callback *cb)
{
	struct klpctl_patch *patch;
	size_t size = 0;

	/* Each patch must fit into one message. */
	klpctl_registry_lock();
	list_for_each_entry(patch, klpctl_registry_list(), node)
		size = max(size, patch_size(patch));
	klpctl_registry_unlock();
	cb->min_dump_alloc = max_t(size_t, cb->min_dump_alloc, min_t(size_t, size, SZ_1M));
	return 0;
}

/* cb->args[0]: how many patches have been sent */
static int dump_patches(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct klpctl_patch *patch;
	long index = 0;
	void *header;
	int ret = 0;

	if (!cb->args[0] && nlmsg_attrlen(cb->nlh, GENL_HDRLEN)) {
		NL_SET_ERR_MSG(cb->extack, "a dump of all patches takes no attributes");
		return -EINVAL;
	}

	klpctl_registry_lock();
	cb->seq = klpctl_event_seq() + 1;	/* 0 is none */
	list_for_each_entry(patch, klpctl_registry_list(), node) {
		if (index++ < cb->args[0])
			continue;
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				     &family, NLM_F_MULTI, KLPCTL_CMD_PATCH_GET);
		if (!header || put_patch(skb, patch)) {
			if (header)
				genlmsg_cancel(skb, header);
			/* One that does not fit into an empty message never will. */
			ret = skb->len ? 0 : -EMSGSIZE;
			break;
		}
		genl_dump_check_consistent(cb, header);
		genlmsg_end(skb, header);
		cb->args[0] = index;
	}
	klpctl_registry_unlock();
	return ret ?: skb->len;
}

/* ---- tasks ---- */

/* cb->args[0] while tasks are dumped */
struct task_dump {
	char name[MODULE_NAME_LEN];
	struct klpctl_tasks tasks;
	unsigned int next;
	bool with_stacks;
	bool refused;
	struct klpctl_stack stack;
};

static int start_tasks(struct netlink_callback *cb)
{
	const struct nlattr *options = klpctl_dump_attrs(cb)[KLPCTL_A_OPTIONS];
	struct klpctl_patch *patch;
	struct task_dump *dump;
	int ret = 0;

	dump = kvzalloc(sizeof(*dump), GFP_KERNEL);
	if (!dump)
		return -ENOMEM;
	dump->with_stacks = options && (nla_get_u32(options) & KLPCTL_TASK_STACK);
	/* On 6.1 nothing that is said here reaches the caller: the dump says it. */
	dump->refused = !netlink_capable(cb->skb, CAP_SYS_MODULE);
	klpctl_registry_lock();
	list_for_each_entry(patch, klpctl_registry_list(), node)
		if (klpctl_in_transition(patch->state))
			strscpy(dump->name, patch->name, sizeof(dump->name));
	klpctl_registry_unlock();
	if (*dump->name && !dump->refused)
		ret = klpctl_task_snapshot(&dump->tasks);
	if (ret)
		kvfree(dump);
	else
		cb->args[0] = (long)dump;
	return ret;
}

static int put_task(struct sk_buff *skb, struct task_dump *dump, struct task_struct *task)
{
	char comm[TASK_COMM_LEN], func[KSYM_NAME_LEN];
	enum klpctl_reason reason = klpctl_reason_get(task, func, sizeof(func));
	struct nlattr *nest;

	/* May be torn by a concurrent prctl(); it always ends in a NUL. */
	strscpy_pad(comm, task->comm, sizeof(comm));
	if (nla_put_string(skb, KLPCTL_A_NAME, dump->name))
		return -EMSGSIZE;
	nest = nla_nest_start(skb, KLPCTL_A_TASK);
	if (!nest || nla_put_u32(skb, KLPCTL_A_TASK_PID, task_tgid_nr(task)) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_TID, task_pid_nr(task)) ||
	    nla_put_string(skb, KLPCTL_A_TASK_COMM, comm) ||
	    (!task->pid && nla_put_u32(skb, KLPCTL_A_TASK_CPU, task_cpu(task))) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_REASON, reason) ||
	    (reason == KLPCTL_REASON_SLEEPING && nla_put_string(skb, KLPCTL_A_TASK_FUNC, func)) ||
	    (dump->with_stacks && klpctl_stack_save(task, &dump->stack) &&
	     nla_put_string(skb, KLPCTL_A_TASK_STACK, dump->stack.text)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int dump_tasks(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct task_dump *dump = (void *)cb->args[0];
	void *header;

	if (dump->refused) {
		NL_SET_ERR_MSG(cb->extack, "CAP_SYS_MODULE in the initial user namespace is needed");
		return -EPERM;
	}
	for (; dump->next < dump->tasks.len; dump->next++) {
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				     &family, NLM_F_MULTI, KLPCTL_CMD_TASK_GET);
		if (!header)
			break;
		if (put_task(skb, dump, dump->tasks.list[dump->next])) {
			genlmsg_cancel(skb, header);
			break;
		}
		genlmsg_end(skb, header);
	}
	return skb->len;
}

static int end_tasks(struct netlink_callback *cb)
{
	struct task_dump *dump = (void *)cb->args[0];

	klpctl_task_free(&dump->tasks);
	kvfree(dump);
	return 0;
}

/* ---- events ---- */

static bool has_listeners(void)
{
	return genl_has_listeners(&family, &init_net, 0);
}

static void send_event(const struct klpctl_event *event)
{
	struct sk_buff *skb;
	struct nlattr *nest;
	void *header;

	if (!has_listeners())
		return;
	skb = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return;		/* a gap in the numbers */
	header = genlmsg_put(skb, 0, 0, &family, 0, KLPCTL_CMD_EVENT);
	if (!header ||
	    nla_put_u64_64bit(skb, KLPCTL_A_SEQ, event->seq, KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(skb, KLPCTL_A_TIME, event->time, KLPCTL_A_PAD) ||
	    nla_put_u32(skb, KLPCTL_A_ACTION, event->action) ||
	    nla_put_string(skb, KLPCTL_A_NAME, event->patch->name) ||
	    nla_put_u32(skb, KLPCTL_A_FLAGS, klpctl_registry_flags(event->patch)) ||
	    nla_put_u32(skb, KLPCTL_A_STATE, event->patch->state))
		goto free_skb;
	if (klpctl_event_has_target(event)) {
		nest = nla_nest_start(skb, KLPCTL_A_TRANSITION);
		if (!nest || nla_put_u32(skb, KLPCTL_A_TRANSITION_TARGET, event->target) ||
		    (event->action == KLPCTL_ACTION_PROGRESS &&
		     (nla_put_u32(skb, KLPCTL_A_TRANSITION_TOTAL, event->total) ||
		      nla_put_u32(skb, KLPCTL_A_TRANSITION_DONE, event->done))))
			goto free_skb;
		nla_nest_end(skb, nest);
	}
	genlmsg_end(skb, header);
	genlmsg_multicast(&family, skb, 0, 0, GFP_KERNEL);
	return;

free_skb:
	nlmsg_free(skb);
}

static struct klpctl_event_sink sink = { .wanted = has_listeners, .send = send_event };

/* ---- the family ---- */

static const struct nla_policy no_policy[KLPCTL_A_MAX + 1] = { };

static const struct nla_policy name_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_NAME] = { .type = NLA_NUL_STRING, .len = KLPCTL_NAME_LEN },
};

static const struct nla_policy task_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_OPTIONS] = NLA_POLICY_MASK(NLA_U32, KLPCTL_TASK_STACK),
};

static const struct genl_ops ops[] = {
	{
		.cmd = KLPCTL_CMD_FEATURES_GET,
		.policy = no_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = get_features,
	}, {
		.cmd = KLPCTL_CMD_PATCH_GET,
		.policy = name_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = get_patch,
		.start = start_patches,
		.dumpit = dump_patches,
	}, {
		.cmd = KLPCTL_CMD_TASK_GET,
		.policy = task_policy,
		.maxattr = KLPCTL_A_MAX,
		.start = start_tasks,
		.dumpit = dump_tasks,
		.done = end_tasks,
	},
};

static const struct genl_multicast_group groups[] = {
	{ .name = KLPCTL_GENL_GROUP },
};

static struct genl_family family __ro_after_init = {
	.name = KLPCTL_GENL_NAME,
	.version = KLPCTL_GENL_VERSION,
	.module = THIS_MODULE,
	.netnsok = false,		/* the kernel is one, and its patches with it */
	.parallel_ops = true,		/* own locks */
	.ops = ops,
	.n_ops = ARRAY_SIZE(ops),
	.resv_start_op = KLPCTL_CMD_UNSPEC + 1,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

/**
 * klpctl_netlink_init() - register the family
 *
 * Context: Process context, module_init(). May sleep.
 * Return: 0 or -errno.
 */
int __init klpctl_netlink_init(void)
{
	klpctl_event_add_sink(&sink);
	return genl_register_family(&family);
}

void klpctl_netlink_exit(void)
{
	genl_unregister_family(&family);
}
