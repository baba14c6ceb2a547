// SPDX-License-Identifier: GPL-2.0-only
/* A patch that says what it fixes, in its file and when it is loaded, and carries its diff. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

static char *cve = "CVE-2026-1234,CVE-2026-123456";
module_param(cve, charp, 0444);
MODULE_PARM_DESC(cve, "what the patch fixes");

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, "version: fixed\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "version_proc_show", .new_func = show },
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

module_klpctl_patch(patch);

/* As pylivepatch's own builder writes it: not part of what is loaded into memory. */
asm(".pushsection .klpctl.diff, \"\", @progbits\n"
    ".ascii \"--- a/fs/proc/version.c\\n+++ b/fs/proc/version.c\\n\"\n"
    ".popsection");

MODULE_INFO(cve, "CVE-2026-1234");
MODULE_INFO(cve, "CVE-2026-123456");
MODULE_VERSION("1.2");
MODULE_AUTHOR("A. Tester");
MODULE_DESCRIPTION("Test patch that says what it fixes");
MODULE_LICENSE("GPL");
