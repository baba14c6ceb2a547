// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: see uapi/klpctl.h for what each message carries. */
#include <linux/capability.h>
#include <net/genetlink.h>

#include "event.h"
#include "feature.h"
#include "kick.h"
#include "netlink.h"
#include "operation.h"
#include "patch.h"
#include "transition.h"

struct genl_family klpctl_netlink_family;

static const struct nla_policy no_policy[KLPCTL_A_MAX + 1] = { };

static const struct nla_policy name_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_NAME] = { .type = NLA_NUL_STRING, .len = KLPCTL_NAME_LEN },
};

static const struct nla_policy task_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_FLAGS] = NLA_POLICY_MASK(NLA_U32, KLPCTL_TASK_PENDING | KLPCTL_TASK_STACK),
};

static const struct nla_policy force_policy[KLPCTL_A_MAX + 1] = {
	[KLPCTL_A_NAME] = { .type = NLA_NUL_STRING, .len = KLPCTL_NAME_LEN },
	[KLPCTL_A_FLAGS] = NLA_POLICY_MASK(NLA_U32, KLPCTL_FORCE_ACCEPT_RISK),
};

/* Refuse who is not root, in the words of the header. 0 or -EPERM. */
int klpctl_netlink_check_root(struct sk_buff *skb, struct netlink_ext_ack *extack)
{
	/* The opener of the socket and the sender: a descriptor may be passed on. */
	if (netlink_capable(skb, CAP_SYS_MODULE))
		return 0;
	NL_SET_ERR_MSG(extack, "CAP_SYS_MODULE in the initial user namespace is needed");
	return -EPERM;
}

/* Refuse a request without a name. 0 or -EINVAL. */
int klpctl_netlink_check_name(struct genl_info *info)
{
	if (info->attrs[KLPCTL_A_NAME])
		return 0;
	NL_SET_ERR_MSG(info->extack, "the name of the patch (KLPCTL_A_NAME) is missing");
	return -EINVAL;
}

/* Into a KLPCTL_A_TRANSITION. 0 or -EMSGSIZE. */
int klpctl_netlink_put_target(struct sk_buff *skb, enum klpctl_target target)
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
	header = genlmsg_put_reply(reply, info, &klpctl_netlink_family, 0, KLPCTL_CMD_FEATURES_GET);
	if (!header)
		goto too_long;

	klpctl_patch_lock();
	seq = klpctl_event_seq();
	klpctl_patch_unlock();
	if (nla_put_u32(reply, KLPCTL_A_VERSION, KLPCTL_VERSION) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_FEATURES, klpctl_features(), KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_SEQ, seq, KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_KICKS, klpctl_kick_count(), KLPCTL_A_PAD) ||
	    nla_put_u64_64bit(reply, KLPCTL_A_REVERSALS, klpctl_transition_reversals(),
			      KLPCTL_A_PAD))
		goto too_long;
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);

too_long:
	nlmsg_free(reply);
	return -EMSGSIZE;
}

/* ---- operations ---- */

static int operate(struct sk_buff *skb, struct genl_info *info,
		   int (*operation)(const char *name, const char **why))
{
	const char *why = NULL;
	int ret;

	ret = klpctl_netlink_check_root(skb, info->extack);
	if (ret)
		return ret;
	ret = klpctl_netlink_check_name(info);
	if (ret)
		return ret;
	ret = operation(nla_data(info->attrs[KLPCTL_A_NAME]), &why);
	if (ret && why && info->extack)
		info->extack->_msg = why;
	/* netlink_rcv_skb() answers nothing at all to -EINTR. */
	return ret == -EINTR ? -EAGAIN : ret;
}

/* Without a confirmation: that needs a descriptor, and so an ioctl. */
static int enable(const char *name, const char **why)
{
	return klpctl_operation_enable(name, 0, NULL, why);
}

static int patch_enable(struct sk_buff *skb, struct genl_info *info)
{
	return operate(skb, info, enable);
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

/* ---- events ---- */

/**
 * klpctl_netlink_has_listeners() - does anybody listen to events?
 *
 * Context: Any.
 * Return: Whether a socket has joined the group.
 */
bool klpctl_netlink_has_listeners(void)
{
	return genl_has_listeners(&klpctl_netlink_family, &init_net, 0);
}

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

	if (!klpctl_netlink_has_listeners())
		return;
	skb = genlmsg_new(NLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!skb)
		return;		/* a gap in the numbers */
	header = genlmsg_put(skb, 0, 0, &klpctl_netlink_family, 0, KLPCTL_CMD_EVENT);
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
		if (!nest || klpctl_netlink_put_target(skb, event->target))
			goto free_skb;
		if (event->action == KLPCTL_ACTION_PROGRESS &&
		    (nla_put_u32(skb, KLPCTL_A_TRANSITION_TOTAL, event->total) ||
		     nla_put_u32(skb, KLPCTL_A_TRANSITION_DONE, event->done)))
			goto free_skb;
		nla_nest_end(skb, nest);
	}
	genlmsg_end(skb, header);
	genlmsg_multicast(&klpctl_netlink_family, skb, 0, 0, GFP_KERNEL);
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
		.doit = klpctl_netlink_patch_get,
		.start = klpctl_netlink_patch_dump_start,
		.dumpit = klpctl_netlink_patch_dump,
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
		.policy = task_policy,
		.maxattr = KLPCTL_A_MAX,
		.start = klpctl_netlink_task_dump_start,
		.dumpit = klpctl_netlink_task_dump,
		.done = klpctl_netlink_task_dump_done,
	},
};

static const struct genl_multicast_group groups[] = {
	{ .name = KLPCTL_GENL_GROUP },
};

struct genl_family klpctl_netlink_family __ro_after_init = {
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
	return genl_register_family(&klpctl_netlink_family);
}

/**
 * klpctl_netlink_exit() - undo klpctl_netlink_init()
 *
 * Context: Process context. May sleep.
 */
void klpctl_netlink_exit(void)
{
	genl_unregister_family(&klpctl_netlink_family);
}
