// SPDX-License-Identifier: MIT
/*
 * Who blocks a transition: one netlink dump against a scan of /proc, both in C, both with the
 * stacks; and the threads for them to look at.
 *
 *	blockers threads TOTAL BLOCKING   start them, and stay
 *	blockers dump | scan ROUNDS       print "SECONDS PENDING" for each round
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "klpctl.h"
#include "plp.h"

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* ---- the threads ---- */

static void *sleep_in_target(void *unused)
{
	int fd = open("/proc/plp_target", O_WRONLY);

	(void)unused;
	if (fd < 0 || write(fd, "x", 1) != 1)
		err(1, "/proc/plp_target");
	pause();
	return NULL;
}

static void *sleep_elsewhere(void *unused)
{
	(void)unused;
	pause();
	return NULL;
}

static int threads(int total, int blocking)
{
	pthread_attr_t attr;
	pthread_t thread;
	int error, i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	for (i = 0; i < total; i++) {
		error = pthread_create(&thread, &attr,
				       i < blocking ? sleep_in_target : sleep_elsewhere, NULL);
		if (error)
			errx(1, "thread %d: %s", i, strerror(error));
	}
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}

/* ---- klpctl ---- */

static int dump(struct plp_nl *nl)
{
	struct plp_attr attr;
	int ret, found = 0;

	ret = plp_nl_send(nl, KLPCTL_CMD_TASK_GET, 1, NULL, KLPCTL_TASK_STACK);
	if (ret)
		errx(1, "send: %s", strerror(-ret));
	while ((ret = plp_nl_receive(nl, -1)) == 1)
		while ((ret = plp_nl_next(nl, &attr)) == 1)
			found += attr.depth == 1 && attr.type == KLPCTL_A_TASK_REASON &&
				 attr.number == KLPCTL_REASON_SLEEPING;
	if (ret)
		errx(1, "receive: %s", strerror(-ret));
	return found;
}

/* ---- /proc ---- */

/* Read a file of a directory in one go; its length, or -1 when the task is gone. */
static ssize_t slurp(int dir, const char *name, char *text, size_t size)
{
	int fd = openat(dir, name, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, text, size - 1);
	close(fd);
	if (len >= 0)
		text[len] = '\0';
	return len;
}

static int scan_thread(int dir)
{
	char text[4096];

	/* Being enabled: those that are not at 1 have still to switch. */
	if (slurp(dir, "patch_state", text, sizeof(text)) < 0 || *text != '0')
		return 0;
	return slurp(dir, "comm", text, sizeof(text)) >= 0 &&
	       slurp(dir, "stat", text, sizeof(text)) >= 0 &&
	       slurp(dir, "stack", text, sizeof(text)) >= 0 &&
	       strstr(text, "plp_target_hold+") != NULL;
}

static int each(int parent, const char *path, int (*visit)(int dir))
{
	int fd = openat(parent, path, O_RDONLY | O_DIRECTORY), found = 0, dir;
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!list)
		return 0;
	while ((entry = readdir(list))) {
		if (*entry->d_name < '0' || *entry->d_name > '9')
			continue;
		dir = openat(dirfd(list), entry->d_name, O_PATH | O_DIRECTORY);
		if (dir < 0)
			continue;
		found += visit(dir);
		close(dir);
	}
	closedir(list);
	return found;
}

static int scan_process(int dir)
{
	return each(dir, "task", scan_thread);
}

int main(int argc, char **argv)
{
	struct plp_nl *nl = NULL;
	double start;
	int i, found;

	if (argc == 4 && !strcmp(argv[1], "threads"))
		return threads(atoi(argv[2]), atoi(argv[3]));
	if (argc != 3)
		errx(2, "see the first comment");
	if (!strcmp(argv[1], "dump") && plp_nl_open(&nl))
		errx(1, "no klpctl");
	for (i = 0; i < atoi(argv[2]); i++) {
		start = now();
		found = nl ? dump(nl) : each(AT_FDCWD, "/proc", scan_process);
		printf("%.6f %d\n", now() - start, found);
	}
	plp_nl_close(nl);
	return 0;
}
