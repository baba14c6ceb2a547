// SPDX-License-Identifier: GPL-2.0-only
#include <linux/bug.h>
#include <linux/export.h>
#include <linux/kernel.h>
#include "count.h"

static unsigned int count = 10;

static noinline const char *name(unsigned int number)
{
	return number & 1 ? "odd" : "even";
}

static noinline void check(void)
{
	WARN_ON(!count);
}

unsigned int plp_count(void)
{
	check();
	pr_debug("%s in %s\n", name(count), __FILE__);
	count += plp_step();
	return count;
}
EXPORT_SYMBOL_GPL(plp_count);
