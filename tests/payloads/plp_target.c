// SPDX-License-Identifier: GPL-2.0-only
/* A module to be patched: it shows something, and it sleeps until it is told to wake up. */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(released);
static bool hold, interruptible;
static atomic_t sleepers = ATOMIC_INIT(0);

/* Patched by plp_module. */
static noinline __noclone int plp_target_show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "target: original\n");
	return 0;
}

/* Patched by plp_hold: whoever writes to /proc/plp_target sleeps in it. */
static noinline __noclone int plp_target_hold(void)
{
	int ret = 0;

	atomic_inc(&sleepers);
	if (interruptible)
		ret = wait_event_interruptible(released, !READ_ONCE(hold));
	else
		wait_event_idle(released, !READ_ONCE(hold));
	atomic_dec(&sleepers);
	return ret;
}

static int target_open(struct inode *inode, struct file *file)
{
	return single_open(file, plp_target_show, NULL);
}

static ssize_t target_write(struct file *file, const char __user *buf, size_t len,
			    loff_t *pos)
{
	return plp_target_hold() ?: len;
}

static const struct proc_ops target_ops = {
	.proc_open = target_open,
	.proc_read = seq_read,
	.proc_write = target_write,
	.proc_release = single_release,
};

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
module_param(interruptible, bool, 0644);
MODULE_PARM_DESC(interruptible, "signals wake the sleepers, those of the livepatch core too");

static int __init target_init(void)
{
	return proc_create("plp_target", 0666, NULL, &target_ops) ? 0 : -ENOMEM;
}

static void __exit target_exit(void)
{
	remove_proc_entry("plp_target", NULL);
}

module_init(target_init);
module_exit(target_exit);

MODULE_DESCRIPTION("Target of test patches");
MODULE_LICENSE("GPL");
