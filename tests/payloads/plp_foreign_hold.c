// SPDX-License-Identifier: GPL-2.0-only
/* An ordinary livepatch module whose transition waits for those who sleep. */
#include <linux/livepatch.h>
#include <linux/module.h>

static int sleep(void)
{
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

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int __init foreign_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit foreign_exit(void)
{
}

module_init(foreign_init);
module_exit(foreign_exit);
MODULE_INFO(livepatch, "Y");

MODULE_DESCRIPTION("Test patch that klpctl knows nothing of");
MODULE_LICENSE("GPL");
