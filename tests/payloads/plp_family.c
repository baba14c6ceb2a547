// SPDX-License-Identifier: GPL-2.0-only
/* A generic netlink family, which comes and goes with its module. */
#include <linux/module.h>
#include <net/genetlink.h>

static struct genl_family family = {
	.name = "plp_family",
	.version = 1,
	.module = THIS_MODULE,
};

static int __init family_init(void)
{
	return genl_register_family(&family);
}

static void __exit family_exit(void)
{
	genl_unregister_family(&family);
}

module_init(family_init);
module_exit(family_exit);

MODULE_DESCRIPTION("Test module with a generic netlink family");
MODULE_LICENSE("GPL");
