// SPDX-License-Identifier: GPL-2.0-only
/* A module, but not a livepatch module. */
#include <linux/module.h>

static int __init plain_init(void)
{
	return 0;
}

static void __exit plain_exit(void)
{
}

module_init(plain_init);
module_exit(plain_exit);

MODULE_DESCRIPTION("Test module without a patch");
MODULE_LICENSE("GPL");
