// SPDX-License-Identifier: MIT
/*
 * module.c as a process without CAP_SYS_MODULE. The working folder holds what
 * conftest.py put there: module files that are whole, damaged and none at all.
 */
#include <errno.h>
#include <unistd.h>

#include "check.h"
#include "klpctl.h"
#include "plp.h"

/* What the kernel says to those who may not: a kernel without modules has no such call. */
static int refusal(void)
{
	return access("/proc/modules", F_OK) == 0 ? -EPERM : -ENOSYS;
}

/* A file that is not there is -ENOENT, whoever asks. */
CASE(insert_missing)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("missing.ko", ""), -ENOENT);
	CHECK_EQ(plp_module_insert("no/such/folder/missing.ko", NULL), -ENOENT);
}

/* A folder is not a module. */
CASE(insert_directory)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("folder.ko", ""), -EISDIR);
}

/* An empty file is not a module, whatever its name says. */
CASE(insert_empty)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("empty.ko", ""), -ENOEXEC);
	CHECK_EQ(plp_module_insert("empty.ko.xz", ""), -ENOEXEC);
}

/* A file that is not ELF is not a module. */
CASE(insert_text)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("text.ko", ""), -ENOEXEC);
}

/* An ELF file that ends in the middle is not a module. */
CASE(insert_truncated)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("truncated.ko", ""), -ENOEXEC);
}

/* A program is an ELF file, but has no modinfo. */
CASE(insert_program)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("program.ko", ""), -ENOEXEC);
}

/* A damaged .xz is found out before the kernel is asked. */
CASE(insert_damaged_xz)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("damaged.ko.xz", ""), -ENOEXEC);
	CHECK_EQ(plp_module_insert("truncated.ko.xz", ""), -ENOEXEC);
}

/* A damaged .zst is found out before the kernel is asked. */
CASE(insert_damaged_zst)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("damaged.ko.zst", ""), -ENOEXEC);
	CHECK_EQ(plp_module_insert("truncated.ko.zst", ""), -ENOEXEC);
}

/* A module, plain or compressed, gets as far as the kernel, which refuses. */
CASE(insert_refused)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("whole.ko", ""), refusal());
	CHECK_EQ(plp_module_insert("whole.ko", NULL), refusal());
	CHECK_EQ(plp_module_insert("whole.ko", "a=1 b=2"), refusal());
	CHECK_EQ(plp_module_insert("whole.ko.xz", ""), refusal());
	CHECK_EQ(plp_module_insert("whole.ko.zst", ""), refusal());
}

/* A module that it depends on and that is nowhere is told from a missing file. */
CASE(insert_missing_dependency)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_insert("dependent.ko", ""), -ELIBACC);
	CHECK_EQ(plp_module_insert("dependent.ko.xz", ""), -ELIBACC);
	CHECK_EQ(plp_module_insert("dependent.ko.zst", ""), -ELIBACC);
}

static void fill(char *name, size_t len)
{
	memset(name, 'a', len);
	name[len] = '\0';
}

/* A name that nothing bears is -ENOENT, and so is one that is not a name. */
CASE(probe_missing)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_probe("plp_no_such_module"), -ENOENT);
	CHECK_EQ(plp_module_probe(""), -ENOENT);
	CHECK_EQ(plp_module_probe("with space"), -ENOENT);
}

/* Without the capability removing is refused, whatever the name. */
CASE(remove_refused)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_remove("plp_no_such_module"), refusal());
	CHECK_EQ(plp_module_remove("with space"), refusal());
	CHECK_EQ(plp_module_remove(""), -ENOENT);
}

/* libkmod would cut these at the dot, and act on another module or on none. */
CASE(names_with_dots)
{
	check_drop_sys_module();
	CHECK_EQ(plp_module_remove("../whole"), -ENOENT);
	CHECK_EQ(plp_module_remove("whole.ko"), -ENOENT);
	CHECK_EQ(plp_module_remove("a/b"), -ENOENT);
	CHECK_EQ(plp_module_probe("../whole"), -ENOENT);
	CHECK_EQ(plp_module_probe("whole.ko"), -ENOENT);
}

/* The kernel would cut a long name and act on another module: it never gets one. */
CASE(long_names)
{
	char name[302];

	check_drop_sys_module();
	fill(name, KLPCTL_NAME_LEN);
	CHECK_EQ(plp_module_remove(name), refusal());
	CHECK_EQ(plp_module_probe(name), -ENOENT);
	fill(name, KLPCTL_NAME_LEN + 1);
	CHECK_EQ(plp_module_remove(name), -ENAMETOOLONG);
	CHECK_EQ(plp_module_probe(name), -ENAMETOOLONG);
	fill(name, 301);
	CHECK_EQ(plp_module_remove(name), -ENAMETOOLONG);
	CHECK_EQ(plp_module_probe(name), -ENAMETOOLONG);
}
