// SPDX-License-Identifier: GPL-2.0-only
/*
 * Calls functions of modules under test, with arguments that depend on a seed alone, and shows their results:
 * write "reset MODULE UNIT KEY" or "run MODULE UNIT SEED COUNT" to /proc/oracle, and read it.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "oracle.h"

#define MODULES		16
#define CALLS		4096

static struct {
	const char *name;
	const struct oracle_unit *const *units;
	unsigned int count;
} modules[MODULES];

static DEFINE_MUTEX(lock);
static u64 *results;
static unsigned int made;
static u64 trace;

u64 oracle_never;
EXPORT_SYMBOL_GPL(oracle_never);
u64 oracle_step;
EXPORT_SYMBOL_GPL(oracle_step);

u64 oracle_mix(u64 value)
{
	value += 0x9e3779b97f4a7c15ULL;
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
	return value ^ (value >> 31);
}
EXPORT_SYMBOL_GPL(oracle_mix);

void oracle_trace(u64 value)
{
	trace = oracle_mix(trace ^ value);
}
EXPORT_SYMBOL_GPL(oracle_trace);

u64 oracle_text(const char *text)
{
	u64 sum = 5381;

	while (*text)
		sum = sum * 33 + (u8)*text++;
	return sum;
}
EXPORT_SYMBOL_GPL(oracle_text);

int oracle_register(const char *module, const struct oracle_unit *const *units, unsigned int count)
{
	unsigned int at;
	int status = -ENOSPC;

	mutex_lock(&lock);
	for (at = 0; at < MODULES; at++) {
		if (modules[at].name)
			continue;
		modules[at].name = module;
		modules[at].units = units;
		modules[at].count = count;
		status = 0;
		break;
	}
	mutex_unlock(&lock);
	return status;
}
EXPORT_SYMBOL_GPL(oracle_register);

void oracle_unregister(const char *module)
{
	unsigned int at;

	mutex_lock(&lock);
	for (at = 0; at < MODULES; at++)
		if (modules[at].name == module)
			modules[at].name = NULL;
	mutex_unlock(&lock);
}
EXPORT_SYMBOL_GPL(oracle_unregister);

static const struct oracle_unit *find(const char *module, const char *unit)
{
	unsigned int at, each;

	for (at = 0; at < MODULES; at++) {
		if (!modules[at].name || strcmp(modules[at].name, module))
			continue;
		for (each = 0; each < modules[at].count; each++)
			if (!strcmp(modules[at].units[each]->name, unit))
				return modules[at].units[each];
	}
	return NULL;
}

/* Arguments are often small, since the interesting values are. */
static u64 argument(u64 random)
{
	switch (random & 7) {
	case 0: return (random >> 8) & 7;
	case 1: return (random >> 8) & 0xff;
	case 2: return (random >> 8) & 0xffff;
	case 3: return -((random >> 8) & 0xff);
	default: return random;
	}
}

static void run(const struct oracle_unit *unit, u64 seed, unsigned int count)
{
	unsigned int at;
	u64 a, b, value;

	for (at = 0; at < count; at++) {
		a = argument(oracle_mix(seed + 3 * at));
		b = argument(oracle_mix(seed + 3 * at + 1));
		trace = 0;
		oracle_step = at;
		value = unit->entries[oracle_mix(seed + 3 * at + 2) % unit->count](a, b);
		results[at] = trace ^ value;
		cond_resched();
	}
	made = count;
}

static ssize_t order(struct file *file, const char __user *buffer, size_t size, loff_t *offset)
{
	const struct oracle_unit *unit;
	char line[128], verb[8], module[40], name[40];
	unsigned long long seed;
	unsigned int count = 0;
	int words;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, buffer, size))
		return -EFAULT;
	line[size] = 0;
	words = sscanf(line, "%7s %39s %39s %llx %u", verb, module, name, &seed, &count);
	if (words < 4 || count > CALLS)
		return -EINVAL;
	mutex_lock(&lock);
	made = 0;
	unit = find(module, name);
	if (unit && verb[1] == 'u')
		run(unit, seed, count);
	else if (unit)
		unit->reset(seed);
	mutex_unlock(&lock);
	return unit ? size : -ENOENT;
}

static int show(struct seq_file *file, void *data)
{
	unsigned int at;

	mutex_lock(&lock);
	for (at = 0; at < made; at++)
		seq_printf(file, "%016llx\n", results[at]);
	mutex_unlock(&lock);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static const struct proc_ops operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
	.proc_write = order,
};

static int __init oracle_init(void)
{
	results = vmalloc(CALLS * sizeof(*results));
	if (!results)
		return -ENOMEM;
	if (!proc_create("oracle", 0600, NULL, &operations)) {
		vfree(results);
		return -ENOMEM;
	}
	return 0;
}
module_init(oracle_init);

static void __exit oracle_exit(void)
{
	remove_proc_entry("oracle", NULL);
	vfree(results);
}
module_exit(oracle_exit);

MODULE_DESCRIPTION("calls functions of modules under test and shows their results");
MODULE_LICENSE("GPL");
