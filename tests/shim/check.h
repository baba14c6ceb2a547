/* SPDX-License-Identifier: MIT */
/*
 * The smallest harness that cannot pass without looking: a program runs the one
 * case that its argument names and says how many checks held; without an
 * argument it lists its cases.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check_case {
	const char *name;
	void (*run)(void);
	struct check_case *next;
};

extern struct check_case *check_cases;
extern unsigned long check_count;

#define CASE(fn)						\
	static void fn(void);					\
	__attribute__((constructor)) static void fn##_add(void)	\
	{							\
		static struct check_case self;			\
								\
		self = (struct check_case){ #fn, fn, check_cases };	\
		check_cases = &self;				\
	}							\
	static void fn(void)

#define CHECK(cond)						\
	do {							\
		if (!(cond))					\
			check_fail(__FILE__, __LINE__, #cond, 0, 0);	\
		check_count++;					\
	} while (0)

#define CHECK_EQ(a, b)						\
	do {							\
		long long a_ = (long long)(a);			\
		long long b_ = (long long)(b);			\
								\
		if (a_ != b_)					\
			check_fail(__FILE__, __LINE__, #a " == " #b, a_, b_);	\
		check_count++;					\
	} while (0)

#define CHECK_TEXT(a, b)	CHECK(strcmp((a), (b)) == 0)

__attribute__((noreturn))
void check_fail(const char *file, int line, const char *what, long long a, long long b);

/* Go on as a process that may not load modules, whoever started it. */
void check_drop_sys_module(void);

#endif /* CHECK_H */
