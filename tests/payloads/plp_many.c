// SPDX-License-Identifier: GPL-2.0-only
/* A patch of several functions in objects of all forms, one without functions: to be read, never enabled. */
#include <klpctl/klpctl.h>

static int replacement(void)
{
	return 0;
}

static int pre_patch(struct klp_object *obj)
{
	return 0;
}

static struct klp_func vmlinux_funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = replacement },
	{ .old_name = "type_show", .new_func = replacement, .old_sympos = 2 },
	{ .old_name = "type_show", .new_func = replacement, .old_sympos = 3 },
	{ .old_name = "tcp_v4_rcv", .new_func = replacement },
	{ }
};

static struct klp_func target_funcs[] = {
	{ .old_name = "plp_target_show", .new_func = replacement },
	{ }
};

static struct klp_func no_funcs[] = {
	{ }
};

static struct klp_object objs[] = {
	{ .name = "plp_target", .funcs = target_funcs, .callbacks.pre_patch = pre_patch },
	{ .funcs = vmlinux_funcs },
	{ .name = "ext4", .funcs = no_funcs, .callbacks.pre_patch = pre_patch },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.replace = true,
};

module_klpctl_patch(patch);

/* What a livepatch relocation section for a module looks like from outside. */
asm(".pushsection .klp.rela.plp_target.text, \"\", @progbits\n"
    ".quad 0\n"
    ".popsection");

MODULE_DESCRIPTION("Test patch of many functions");
MODULE_LICENSE("GPL");
