// SPDX-License-Identifier: MIT
/*
 * Each allocation fails once, by number, in the shim and in the libraries that it uses.
 *
 * Built without the sanitizers, whose allocator this would replace: what is still allocated
 * afterwards is counted here.
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "klpctl.h"
#include "plp_msg.h"

#define MOST 2000

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *at, size_t size);
extern void __libc_free(void *at);

static long fails_at, allocated;
static int failed;

static int fails(void)
{
	if (!fails_at || --fails_at)
		return 0;
	failed = 1;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	void *at = fails() ? NULL : __libc_malloc(size);

	allocated += at != NULL;
	return at;
}

void *calloc(size_t count, size_t size)
{
	void *at = fails() ? NULL : __libc_calloc(count, size);

	allocated += at != NULL;
	return at;
}

void *realloc(void *at, size_t size)
{
	void *moved = fails() ? NULL : __libc_realloc(at, size);

	allocated += moved != NULL && at == NULL;
	return moved;
}

void free(void *at)
{
	allocated -= at != NULL;
	__libc_free(at);
}

/* The controller is a family that each kernel has. */
static int talk(void)
{
	struct plp_attr attr;
	struct plp_nl *nl;
	int ret = plp_nl_open_family(&nl, "nlctrl", NULL, &plp_schema_ctrl);

	if (ret)
		return ret;
	ret = plp_nl_send(nl, CTRL_CMD_GETFAMILY, 1, NULL, 0);
	while (!ret && (ret = plp_nl_receive(nl, -1)) == 1)
		do
			ret = plp_nl_next(nl, &attr);
		while (ret == 1);
	plp_nl_close(nl);
	return ret;
}

static int insert(void)
{
	return plp_module_insert("text.ko", "a=1");
}

static int insert_missing(void)
{
	return plp_module_insert("nothing-here.ko", NULL);
}

static int probe(void)
{
	return plp_module_probe("plp-no-such-module");
}

/* libkmod does not free all that it has when it runs out of memory: that is its own matter. */
static int sweep(const char *name, int (*call)(void), int frees_all)
{
	long at, before;
	int usual, ret, refused = 0;

	/* What the libraries keep for later calls, they take at the first one. */
	usual = call();
	usual = call();
	for (at = 1; at < MOST; at++) {
		before = allocated;
		failed = 0;
		fails_at = at;
		ret = call();
		fails_at = 0;
		if (frees_all && allocated != before) {
			printf("%s, fault %ld: %ld not freed\n", name, at, allocated - before);
			return 1;
		}
		if (!failed) {
			printf("%s: %ld allocations, %d refused\n", name, at - 1, refused);
			return ret != usual;
		}
		/* What can do without goes on; all else says what it lacked. */
		if (ret != usual && ret != -ENOMEM) {
			printf("%s, fault %ld: %s\n", name, at, strerror(-ret));
			return 1;
		}
		refused += ret != usual;
		if (call() != usual) {
			printf("%s, after fault %ld: not as before\n", name, at);
			return 1;
		}
	}
	printf("%s: more than %d allocations\n", name, MOST);
	return 1;
}

int main(void)
{
	/* Before any sweep: stdio has its buffer. */
	puts("faults");
	return sweep("netlink", talk, 1) | sweep("insert", insert, 0) |
	       sweep("insert a missing one", insert_missing, 0) | sweep("probe", probe, 0);
}
