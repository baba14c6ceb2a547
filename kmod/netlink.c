// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: see uapi/klpctl.h for what each message carries. */
#include <linux/capability.h>
#include <linux/mm.h>
#include <net/genetlink.h>

#include "core.h"
#include "event.h"
#include "feature.h"
#include "kick.h"
#include "netlink.h"
#include "operation.h"
#include "patch.h"
#include "task.h"
#include "transition.h"

static struct genl_family family;

static const struct nla_policy no_policy[KLPCTL_A_MAX + 1] = { };

static const struct nla_policy name_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_NAME] = { .type = NLA_NUL_STRING, .len = KLPCTL_NAME_LEN },
};

static const struct nla_policy force_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_NAME] = { .type = NLA_NUL_STRING, .len = KLPCTL_NAME_LEN },
	[KLPCTL_A_FLAGS] = NLA_POLICY_MASK(NLA_U32, KLPCTL_FORCE_ACCEPT_RISK),
};

static int check_root(struct sk_buff *skb, struct netlink_ext_ack *extack)
{
	/* The opener of the socket and the sender: a descriptor may be passed on. */
	if (netlink_capable(skb, CAP_SYS_MODULE))
		return 0;
	NL_SET_ERR_MSG(extack, "CAP_SYS_MODULE in the initial user namespace is needed");
	return -EPERM;
}

static int check_name(struct genl_info *info)
{
	if (info->attrs[KLPCTL_A_NAME])
		return 0;
	NL_SET_ERR_MSG(info->extack, "the name of the patch (KLPCTL_A_NAME) is missing");
	return -EINVAL;
}

static int put_target(struct sk_buff *skb, enum klpctl_target target)
{
	return nla_put_u32(skb, KLPCTL_A_TRANSITION_TARGET, target);
}

/* ---- features ---- */

static int features_get(struct sk_buff *skb, struct genl_info *info)
{
	struct sk_buff *reply = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	void *header;
	u64 seq;

	if (!reply)
		return -ENOMEM;
	header = genlmsg_put_reply(reply, info, &family, 0, KLPCTL_CMD_FEATURES_GET);
	if (!header)
		goto too_long;

	klpctl_patch_lock();
	seq = klpctl_event_seq();
	klpctl_patch_unlock();
	if (nla_put_u32(reply, KLPCTL_A_VERSION, KLPCTL_VERSION) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_FEATURES, klpctl_features(), KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_SEQ, seq, KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_KICKS, klpctl_kick_count(), KLPCTL_A_PAD))
		goto too_long;
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);

too_long:
	nlmsg_free(reply);
	return -EMSGSIZE;
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

/* A nest's length has 16 bits: an object with many functions goes on in another. */
static struct nlattr *continue_object(struct sk_buff *skb, struct nlattr *nest,
				      const struct klp_object *obj)
{
	if (skb_tail_pointer(skb) - (unsigned char *)nest < SZ_32K)
		return nest;
	nla_nest_end(skb, nest);
	return start_object(skb, obj);
}

static int put_declared(struct sk_buff *skb, const struct klp_patch *decl)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	struct nlattr *nest;

	klp_for_each_object_static(decl, obj) {
		nest = start_object(skb, obj);
		if (!nest)
			return -EMSGSIZE;
		klp_for_each_func_static(obj, func) {
			nest = continue_object(skb, nest, obj);
			if (!nest || put_func(skb, func))
				return -EMSGSIZE;
		}
		nla_nest_end(skb, nest);
	}
	return 0;
}

/* Without the functions that the core adds to an atomic replace ("nops"). */
static int put_foreign(struct sk_buff *skb, const struct klp_patch *patch)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	struct nlattr *nest;

	klp_for_each_object(patch, obj) {
		if (obj->dynamic)
			continue;
		nest = start_object(skb, obj);
		if (!nest)
			return -EMSGSIZE;
		klp_for_each_func(obj, func) {
			if (func->nop)
				continue;
			nest = continue_object(skb, nest, obj);
			if (!nest || put_func(skb, func))
				return -EMSGSIZE;
		}
		nla_nest_end(skb, nest);
	}
	return 0;
}

static int put_objects(struct sk_buff *skb, const struct klpctl_patch *patch)
{
	const struct klp_patch *core;
	int ret = 0;

	if (patch->decl)
		return put_declared(skb, patch->decl);
	if (!klpctl_core_visible())
		return 0;
	klpctl_core_lock();
	core = klpctl_core_find(patch->name);
	if (core)
		ret = put_foreign(skb, core);
	klpctl_core_unlock();
	return ret;
}

static int put_transition(struct sk_buff *skb, const struct klpctl_patch *patch)
{
	struct klpctl_transition running;
	struct nlattr *nest;
	u32 total, done;

	if (!klpctl_transition_running(&running) || strcmp(running.name, patch->name))
		return 0;
	klpctl_task_count(running.target, &total, &done);

	nest = nla_nest_start(skb, KLPCTL_A_TRANSITION);
	if (!nest || put_target(skb, running.target) ||
	    nla_put_u32(skb, KLPCTL_A_TRANSITION_TOTAL, total) ||
	    nla_put_u32(skb, KLPCTL_A_TRANSITION_DONE, done) ||
	    nla_put_u64_64bit(skb, KLPCTL_A_TRANSITION_START, running.time,
			      KLPCTL_A_TRANSITION_PAD))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int put_patch(struct sk_buff *skb, const struct klpctl_patch *patch)
{
	if (nla_put_string(skb, KLPCTL_A_NAME, patch->name) ||
	    nla_put_u32(skb, KLPCTL_A_STATE, patch->state) ||
	    nla_put_u32(skb, KLPCTL_A_FLAGS, patch->flags) ||
	    nla_put_u64_64bit(skb, KLPCTL_A_SEQ, klpctl_event_seq(), KLPCTL_A_PAD) ||
	    put_transition(skb, patch))
		return -EMSGSIZE;
	return put_objects(skb, patch);
}

static size_t object_size(size_t name_len)
{
	return 2 * nla_total_size(name_len + 1);
}

static size_t func_size(const struct klp_func *func)
{
	return nla_total_size(nla_total_size(strlen(func->old_name) + 1) +
			      nla_total_size(sizeof(u32)));
}

static size_t declared_size(const struct klp_patch *decl)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	size_t size = 0;

	klp_for_each_object_static(decl, obj) {
		size += object_size(MODULE_NAME_LEN);
		klp_for_each_func_static(obj, func)
			size += func_size(func);
	}
	return size;
}

static size_t foreign_size(const char *name)
{
	const struct klp_object *obj;
	const struct klp_func *func;
	const struct klp_patch *core;
	size_t size = 0;

	if (!klpctl_core_visible())
		return 0;
	klpctl_core_lock();
	core = klpctl_core_find(name);
	if (core) {
		klp_for_each_object(core, obj) {
			size += object_size(MODULE_NAME_LEN);
			klp_for_each_func(obj, func)
				size += func_size(func);
		}
	}
	klpctl_core_unlock();
	return size;
}

/* What put_patch() takes at the most: its objects, again for each 32 KiB, and the rest. */
static size_t patch_size(const struct klpctl_patch *patch)
{
	size_t size = patch->decl ? declared_size(patch->decl) : foreign_size(patch->name);

	return NLMSG_DEFAULT_SIZE + size + size / SZ_32K * object_size(MODULE_NAME_LEN);
}

static int patch_get(struct sk_buff *skb, struct genl_info *info)
{
	struct klpctl_patch *patch;
	struct sk_buff *reply;
	void *header;
	int ret;

	ret = check_name(info);
	if (ret)
		return ret;

	klpctl_patch_lock();
	patch = klpctl_patch_find(nla_data(info->attrs[KLPCTL_A_NAME]));
	if (!patch) {
		NL_SET_ERR_MSG(info->extack, "no such patch");
		ret = -ENOENT;
		goto unlock;
	}
	ret = -ENOMEM;
	reply = genlmsg_new(patch_size(patch), GFP_KERNEL);
	if (!reply)
		goto unlock;
	ret = -EMSGSIZE;
	header = genlmsg_put_reply(reply, info, &family, 0, KLPCTL_CMD_PATCH_GET);
	if (!header || put_patch(reply, patch))
		goto free_reply;
	genlmsg_end(reply, header);
	klpctl_patch_unlock();
	return genlmsg_reply(reply, info);

free_reply:
	nlmsg_free(reply);
unlock:
	klpctl_patch_unlock();
	return ret;
}

static int patch_dump_start(struct netlink_callback *cb)
{
	struct klpctl_patch *patch;
	size_t size = 0;

	/* Each patch must fit into one message. */
	klpctl_patch_lock();
	list_for_each_entry(patch, klpctl_patch_list(), node)
		size = max(size, patch_size(patch));
	klpctl_patch_unlock();
	cb->min_dump_alloc = max_t(size_t, cb->min_dump_alloc, min_t(size_t, size, SZ_1M));
	return 0;
}

/* cb->args[0]: how many patches have been sent */
static int patch_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct klpctl_patch *patch;
	long index = 0;
	void *header;
	int ret = 0;

	klpctl_patch_lock();
	cb->seq = klpctl_patch_generation();
	list_for_each_entry(patch, klpctl_patch_list(), node) {
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
	klpctl_patch_unlock();
	return ret ?: skb->len;
}

static int operate(struct sk_buff *skb, struct genl_info *info,
		   int (*operation)(const char *name, const char **why))
{
	const char *why = NULL;
	int ret;

	ret = check_root(skb, info->extack);
	if (ret)
		return ret;
	ret = check_name(info);
	if (ret)
		return ret;
	ret = operation(nla_data(info->attrs[KLPCTL_A_NAME]), &why);
	if (ret && why && info->extack)
		info->extack->_msg = why;
	/* netlink_rcv_skb() answers nothing at all to -EINTR. */
	return ret == -EINTR ? -EAGAIN : ret;
}

static int patch_enable(struct sk_buff *skb, struct genl_info *info)
{
	return operate(skb, info, klpctl_operation_enable);
}

static int patch_revert(struct sk_buff *skb, struct genl_info *info)
{
	return operate(skb, info, klpctl_operation_revert);
}

static int patch_force(struct sk_buff *skb, struct genl_info *info)
{
	const struct nlattr *flags = info->attrs[KLPCTL_A_FLAGS];

	if (!flags || !(nla_get_u32(flags) & KLPCTL_FORCE_ACCEPT_RISK)) {
		NL_SET_ERR_MSG(info->extack, "forcing may crash the kernel: KLPCTL_FORCE_ACCEPT_RISK is missing");
		return -EINVAL;
	}
	return operate(skb, info, klpctl_operation_force);
}

/* ---- tasks ---- */

struct task_dump {
	char name[MODULE_NAME_LEN];
	struct klpctl_task *tasks;
	unsigned int len, next;
};

static int task_dump_start(struct netlink_callback *cb)
{
	struct klpctl_transition running;
	struct task_dump *dump;
	int ret;

	ret = check_root(cb->skb, cb->extack);
	if (ret)
		return ret;
	dump = kzalloc(sizeof(*dump), GFP_KERNEL);
	if (!dump)
		return -ENOMEM;
	if (klpctl_transition_running(&running)) {
		strscpy(dump->name, running.name, sizeof(dump->name));
		dump->tasks = klpctl_task_snapshot(running.target, &dump->len);
		if (!dump->tasks) {
			kfree(dump);
			return -ENOMEM;
		}
	}
	cb->args[0] = (long)dump;
	return 0;
}

static int put_task(struct sk_buff *skb, const struct task_dump *dump,
		    const struct klpctl_task *task)
{
	struct nlattr *nest;

	if (nla_put_string(skb, KLPCTL_A_NAME, dump->name))
		return -EMSGSIZE;
	nest = nla_nest_start(skb, KLPCTL_A_TASK);
	if (!nest || nla_put_u32(skb, KLPCTL_A_TASK_PID, task->pid) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_TID, task->tid) ||
	    nla_put_string(skb, KLPCTL_A_TASK_COMM, task->comm) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_PENDING, task->pending) ||
	    (task->idle && nla_put_u32(skb, KLPCTL_A_TASK_CPU, task->cpu)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int task_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct task_dump *dump = (void *)cb->args[0];
	void *header;

	for (; dump->next < dump->len; dump->next++) {
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				     &family, NLM_F_MULTI, KLPCTL_CMD_TASK_GET);
		if (!header)
			break;
		if (put_task(skb, dump, &dump->tasks[dump->next])) {
			genlmsg_cancel(skb, header);
			break;
		}
		genlmsg_end(skb, header);
	}
	return skb->len;
}

static int task_dump_done(struct netlink_callback *cb)
{
	struct task_dump *dump = (void *)cb->args[0];

	kvfree(dump->tasks);
	kfree(dump);
	return 0;
}

/* ---- events ---- */

/**
 * klpctl_netlink_event() - send an event to all who listen
 * @event: what happened
 *
 * Context: Process context, under klpctl_patch_lock(). May sleep.
 */
void klpctl_netlink_event(const struct klpctl_event *event)
{
	struct sk_buff *skb;
	struct nlattr *nest;
	void *header;

	if (!genl_has_listeners(&family, &init_net, 0))
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
	    nla_put_u32(skb, KLPCTL_A_FLAGS, event->patch->flags) ||
	    nla_put_u32(skb, KLPCTL_A_STATE, event->patch->state))
		goto free_skb;
	if (klpctl_event_has_target(event)) {
		nest = nla_nest_start(skb, KLPCTL_A_TRANSITION);
		if (!nest || put_target(skb, event->target))
			goto free_skb;
		nla_nest_end(skb, nest);
	}
	genlmsg_end(skb, header);
	genlmsg_multicast(&family, skb, 0, 0, GFP_KERNEL);
	return;

free_skb:
	nlmsg_free(skb);
}

/* ---- the family ---- */

static const struct genl_ops ops[] = {
	{
		.cmd = KLPCTL_CMD_FEATURES_GET,
		.policy = no_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = features_get,
	}, {
		.cmd = KLPCTL_CMD_PATCH_GET,
		.policy = name_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = patch_get,
		.start = patch_dump_start,
		.dumpit = patch_dump,
	}, {
		.cmd = KLPCTL_CMD_PATCH_ENABLE,
		.policy = name_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = patch_enable,
	}, {
		.cmd = KLPCTL_CMD_PATCH_REVERT,
		.policy = name_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = patch_revert,
	}, {
		.cmd = KLPCTL_CMD_PATCH_FORCE,
		.policy = force_policy,
		.maxattr = KLPCTL_A_MAX,
		.doit = patch_force,
	}, {
		.cmd = KLPCTL_CMD_TASK_GET,
		.policy = no_policy,
		.maxattr = KLPCTL_A_MAX,
		.start = task_dump_start,
		.dumpit = task_dump,
		.done = task_dump_done,
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
	.parallel_ops = true,		/* own locks; an enable may take long */
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
	return genl_register_family(&family);
}

/**
 * klpctl_netlink_exit() - undo klpctl_netlink_init()
 *
 * Context: Process context. May sleep.
 */
void klpctl_netlink_exit(void)
{
	genl_unregister_family(&family);
}
