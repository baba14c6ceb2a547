// SPDX-License-Identifier: GPL-2.0-only
/* A payload that registers twice: the second call is refused, and its init fails, neatly or not. */
#include <klpctl/klpctl.h>

static bool forget;
module_param(forget, bool, 0444);
MODULE_PARM_DESC(forget, "do not unregister what was registered");

static int replacement(void)
{
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = replacement },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int __init twice_init(void)
{
	int ret;

	ret = klpctl_register_patch(&patch);
	if (ret)
		return ret;
	ret = klpctl_register_patch(&patch);
	if (ret && !forget)
		klpctl_unregister_patch(&patch);
	return ret;
}

static void __exit twice_exit(void)
{
	klpctl_unregister_patch(&patch);
}

module_init(twice_init);
module_exit(twice_exit);
MODULE_INFO(livepatch, "Y");

MODULE_DESCRIPTION("Test patch that registers twice");
MODULE_LICENSE("GPL");
