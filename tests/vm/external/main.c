// SPDX-License-Identifier: GPL-2.0-only
/* A module of its own source: a parameter that shows what its functions say. */
#include <linux/module.h>
#include "part/count.h"

static int show(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "own %u of %s\n", plp_count(), __FILE__);
}

static const struct kernel_param_ops ops = { .get = show };
module_param_cb(show, &ops, NULL, 0444);
MODULE_DESCRIPTION("a module that is not of the kernel's tree");
MODULE_LICENSE("GPL");
