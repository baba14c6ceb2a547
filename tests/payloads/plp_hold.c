// SPDX-License-Identifier: GPL-2.0-only
/* A patch of the function that sleeps: its transitions wait for the sleeper, both ways. */
#include <linux/kernel.h>
#include <linux/wait.h>

#include <klpctl/klpctl.h>

static DECLARE_WAIT_QUEUE_HEAD(released);
static bool hold;
static atomic_t sleepers = ATOMIC_INIT(0);

static int sleepers_get(char *buf, const struct kernel_param *param)
{
	return sysfs_emit(buf, "%d\n", atomic_read(&sleepers));
}

/* Without a set, the kernel calls NULL when the parameter is given to insmod. */
static int sleepers_set(const char *val, const struct kernel_param *param)
{
	return -EPERM;
}

static const struct kernel_param_ops sleepers_ops = {
	.set = sleepers_set,
	.get = sleepers_get,
};
module_param_cb(sleepers, &sleepers_ops, NULL, 0444);

static int hold_set(const char *val, const struct kernel_param *param)
{
	int ret = param_set_bool(val, param);

	wake_up_all(&released);
	return ret;
}

static const struct kernel_param_ops hold_ops = {
	.set = hold_set,
	.get = param_get_bool,
};
module_param_cb(hold, &hold_ops, &hold, 0644);

/* Sleeps as the original does, but by this module's own parameter. */
static int sleep(void)
{
	atomic_inc(&sleepers);
	wait_event_idle(released, !READ_ONCE(hold));
	atomic_dec(&sleepers);
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "plp_target_hold", .new_func = sleep },
	{ }
};

static struct klp_object objs[] = {
	{ .name = "plp_target", .funcs = funcs },
	{ }
};

static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

module_klpctl_patch(patch);

MODULE_DESCRIPTION("Test patch of a function that sleeps");
MODULE_LICENSE("GPL");
