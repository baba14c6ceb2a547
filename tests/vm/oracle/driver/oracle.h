/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef ORACLE_H
#define ORACLE_H

#include <linux/kernel.h>
#include <linux/sched.h>

/* A source file of a module under test: functions that are called, and one that sets all its state. */
struct oracle_unit {
	const char *name;
	u64 (*const *entries)(u64 a, u64 b);
	unsigned int count;
	void (*reset)(u64 key);
};

int oracle_register(const char *module, const struct oracle_unit *const *units, unsigned int count);
void oracle_unregister(const char *module);

/* What a function shows of itself goes into the result of the call. */
void oracle_trace(u64 value);
u64 oracle_mix(u64 value);
u64 oracle_text(const char *text);

extern u64 oracle_never;	/* always 0 */
extern u64 oracle_step;		/* the number of the call */

#endif
