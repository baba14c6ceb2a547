// SPDX-License-Identifier: MIT
#include "check.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

struct check_case *check_cases;
unsigned long check_count;

void check_fail(const char *file, int line, const char *what, long long a, long long b)
{
	fprintf(stderr, "%s:%d: check failed: %s (%lld, %lld)\n", file, line, what, a, b);
	exit(1);
}

void check_drop_sys_module(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	CHECK_EQ(syscall(SYS_capget, &head, data), 0);
	data[0].effective &= ~(1U << CAP_SYS_MODULE);
	data[0].permitted &= ~(1U << CAP_SYS_MODULE);
	data[0].inheritable &= ~(1U << CAP_SYS_MODULE);
	CHECK_EQ(syscall(SYS_capset, &head, data), 0);
}

int main(int argc, char **argv)
{
	struct check_case *c;

	for (c = check_cases; c; c = c->next) {
		if (argc < 2) {
			puts(c->name);
		} else if (strcmp(c->name, argv[1]) == 0) {
			c->run();
			printf("%lu checks\n", check_count);
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}
