// SPDX-License-Identifier: GPL-2.0-only
/* Another one, which uses the first. */
#include <linux/module.h>
#include "part/count.h"

static noinline unsigned int twice(void)
{
	return 2 * plp_count();
}

static int show(char *buffer, const struct kernel_param *param)
{
	return sysfs_emit(buffer, "other %u, step %u\n", twice(), plp_step());
}

static const struct kernel_param_ops ops = { .get = show };
module_param_cb(show, &ops, NULL, 0444);
MODULE_DESCRIPTION("a module that uses another one of its own source");
MODULE_LICENSE("GPL");
