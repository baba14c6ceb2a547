// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink: the tasks of a transition, as uapi/klpctl.h has them. */
#include <linux/mm.h>
#include <net/genetlink.h>

#include "compat.h"
#include "netlink.h"
#include "reason.h"
#include "stack.h"
#include "task.h"
#include "transition.h"

struct dump {
	char name[MODULE_NAME_LEN];
	struct klpctl_tasks tasks;
	unsigned int next;
	bool with_stacks;
	bool refused;
	struct klpctl_stack stack;
};

/* KLPCTL_CMD_TASK_GET: before the first message */
int klpctl_netlink_task_dump_start(struct netlink_callback *cb)
{
	const struct nlattr *flags = klpctl_dump_attrs(cb)[KLPCTL_A_FLAGS];
	u32 wanted = flags ? nla_get_u32(flags) : 0;
	struct klpctl_transition running;
	struct dump *dump;
	int ret;

	dump = kvzalloc(sizeof(*dump), GFP_KERNEL);
	if (!dump)
		return -ENOMEM;
	dump->with_stacks = wanted & KLPCTL_TASK_STACK;
	/* On 6.1 nothing that is said here reaches the caller: the dump says it. */
	dump->refused = klpctl_netlink_check_root(cb->skb, NULL);
	if (!dump->refused && klpctl_transition_running(&running)) {
		strscpy(dump->name, running.name, sizeof(dump->name));
		ret = klpctl_task_snapshot(&dump->tasks, running.target,
					   wanted & KLPCTL_TASK_PENDING);
		if (ret) {
			kvfree(dump);
			return ret;
		}
	}
	cb->args[0] = (long)dump;
	return 0;
}

static int put_why(struct sk_buff *skb, struct dump *dump, const struct klpctl_task *task)
{
	char func[KSYM_NAME_LEN];
	enum klpctl_reason reason = klpctl_reason_get(task->task, func);

	if (nla_put_u32(skb, KLPCTL_A_TASK_REASON, reason) ||
	    (reason == KLPCTL_REASON_SLEEPING &&
	     nla_put_string(skb, KLPCTL_A_TASK_FUNC, func)))
		return -EMSGSIZE;
	if (!dump->with_stacks || !klpctl_stack_save(task->task, &dump->stack))
		return 0;
	return nla_put_string(skb, KLPCTL_A_TASK_STACK, dump->stack.text);
}

static int put_task(struct sk_buff *skb, struct dump *dump, const struct klpctl_task *task)
{
	struct nlattr *nest;

	if (nla_put_string(skb, KLPCTL_A_NAME, dump->name))
		return -EMSGSIZE;
	nest = nla_nest_start(skb, KLPCTL_A_TASK);
	if (!nest || nla_put_u32(skb, KLPCTL_A_TASK_PID, task->pid) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_TID, task->tid) ||
	    nla_put_string(skb, KLPCTL_A_TASK_COMM, task->comm) ||
	    nla_put_u32(skb, KLPCTL_A_TASK_PENDING, task->pending) ||
	    (task->idle && nla_put_u32(skb, KLPCTL_A_TASK_CPU, task->cpu)) ||
	    (task->pending && put_why(skb, dump, task)))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

/* KLPCTL_CMD_TASK_GET */
int klpctl_netlink_task_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct dump *dump = (void *)cb->args[0];
	void *header;

	if (dump->refused)
		return klpctl_netlink_check_root(cb->skb, cb->extack);
	for (; dump->next < dump->tasks.len; dump->next++) {
		header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				     &klpctl_netlink_family, NLM_F_MULTI,
				     KLPCTL_CMD_TASK_GET);
		if (!header)
			break;
		if (put_task(skb, dump, &dump->tasks.entries[dump->next])) {
			genlmsg_cancel(skb, header);
			break;
		}
		genlmsg_end(skb, header);
	}
	return skb->len;
}

/* KLPCTL_CMD_TASK_GET: after the last message, or when nobody reads on */
int klpctl_netlink_task_dump_done(struct netlink_callback *cb)
{
	struct dump *dump = (void *)cb->args[0];

	klpctl_task_free(&dump->tasks);
	kvfree(dump);
	return 0;
}
