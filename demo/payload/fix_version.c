// SPDX-License-Identifier: GPL-2.0-only
/*
 * A payload, to be copied: a live patch that registers with klpctl.
 *
 * /proc/version tells everybody who built the kernel, and with which compiler.
 * This patch leaves that out. Loading the module changes nothing; enable it and
 * revert it with pylivepatch, as often as you like.
 */
#include <linux/seq_file.h>
#include <linux/utsname.h>

#include <klpctl/klpctl.h>

/*
 * The new function. It has the type of the one that it replaces, which is
 * version_proc_show() in fs/proc/version.c. A payload may use what the kernel
 * exports and what headers define; here that is utsname() and seq_printf().
 */
static int show(struct seq_file *seq, void *data)
{
	seq_printf(seq, "%s version %s %s\n", utsname()->sysname, utsname()->release,
		   utsname()->version);
	return 0;
}

/*
 * What is replaced by what. A name that occurs more than once in its object
 * needs .old_sympos, counted from 1 in the order of /proc/kallsyms.
 */
static struct klp_func funcs[] = {
	{ .old_name = "version_proc_show", .new_func = show },
	{ }
};

/*
 * Where it is replaced: without a name in the kernel image, vmlinux. For a
 * module say .name = "its_name"; it need not be loaded yet.
 */
static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

/* With .replace = true it would take the place of all patches before it. */
static const struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

/* An ordinary livepatch module would call klp_enable_patch() instead. */
module_klpctl_patch(patch);

MODULE_DESCRIPTION("Hide build details in /proc/version");
MODULE_LICENSE("GPL");
