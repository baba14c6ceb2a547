/* SPDX-License-Identifier: GPL-2.0-only */
static inline unsigned int plp_step(void)
{
	return 2;
}

unsigned int plp_count(void);
