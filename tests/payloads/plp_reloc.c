// SPDX-License-Identifier: GPL-2.0-only
/* A patch of a module, with what becomes a livepatch relocation for it: see relocating() in tests/vm/guest. */
#include <linux/seq_file.h>

#include <klpctl/klpctl.h>

asm(".pushsection .plp_place, \"a\", @progbits\n"
    "plp_place: .quad 0\n"
    ".popsection\n"
    ".set \".klp.sym.plp_target.plp_target_show,1\", 0\n"
    ".pushsection .klp.rela.plp_target.rodata, \"a\", @progbits\n"
    ".balign 8\n"
    ".quad 0, 0, 0\n"
    ".popsection");

extern const unsigned long plp_place;

static int show(struct seq_file *seq, void *data)
{
	seq_puts(seq, READ_ONCE(plp_place) ? "target: relocated\n" : "target: not relocated\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "plp_target_show", .new_func = show },
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

MODULE_DESCRIPTION("Test patch with a relocation for a module");
MODULE_LICENSE("GPL");
