// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: patches, as uapi/klpctl.h has them. */
#include <linux/sizes.h>
#include <net/genetlink.h>

#include "core.h"
#include "event.h"
#include "netlink.h"
#include "patch.h"
#include "symbol.h"
#include "task.h"
#include "transition.h"

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
	if (!nest || klpctl_netlink_put_target(skb, running.target) ||
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
	    (patch->confirm && nla_put_u64_64bit(skb, KLPCTL_A_CONFIRM, patch->confirm_end,
						 KLPCTL_A_PAD)) ||
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

/* KLPCTL_CMD_PATCH_GET, do */
int klpctl_netlink_patch_get(struct sk_buff *skb, struct genl_info *info)
{
	struct klpctl_patch *patch;
	struct sk_buff *reply;
	void *header;
	int ret;

	ret = klpctl_netlink_check_name(info);
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
	header = genlmsg_put_reply(reply, info, &klpctl_netlink_family, 0, KLPCTL_CMD_PATCH_GET);
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

/* KLPCTL_CMD_PATCH_GET, dump: before the first message */
int klpctl_netlink_patch_dump_start(struct netlink_callback *cb)
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

/* KLPCTL_CMD_PATCH_GET, dump. cb->args[0]: how many patches have been sent */
int klpctl_netlink_patch_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct klpctl_patch *patch;
	long index = 0;
	void *header;
	int ret = 0;

	if (!cb->args[0] && nlmsg_attrlen(cb->nlh, GENL_HDRLEN)) {
		NL_SET_ERR_MSG(cb->extack, "a dump of all patches takes no attributes");
		return -EINVAL;
	}

	klpctl_patch_lock();
	cb->seq = klpctl_patch_generation();
	list_for_each_entry(patch, klpctl_patch_list(), node) {
		if (index++ < cb->args[0])
			continue;
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				     &klpctl_netlink_family, NLM_F_MULTI, KLPCTL_CMD_PATCH_GET);
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
