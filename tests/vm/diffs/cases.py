# SPDX-License-Identifier: MIT
"""What the builder is shown to do, and to refuse, file by file of the kernel's source."""

from __future__ import annotations

from case import Case, Edit, Refused, one
from kinds import KINDS

VERSION = "fs/proc/version.c"
VERSION_SHOW = "static int version_proc_show(struct seq_file *m, void *v)\n{\n"
CMDLINE = "fs/proc/cmdline.c"
CMDLINE_SHOW = "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n"
LOADAVG = "fs/proc/loadavg.c"
LOADAVG_SHOW = "	get_avenrun(avnrun, FIXED_1/200, 0);\n"
UPTIME = "fs/proc/uptime.c"
UPTIME_SHOW = "	idle_nsec = 0;\n"
DEVICES = "fs/proc/devices.c"
DEVICES_SHOW = '			seq_puts(f, "Character devices:\\n");\n'
DUMMY = "drivers/net/dummy.c"
DUMMY_STATS = "	dev_lstats_read(dev, &stats->tx_packets, &stats->tx_bytes);\n"
GENERIC = "fs/proc/generic.c"
KSYSFS = "kernel/ksysfs.c"


CASES = (
    *KINDS,
    Case("static_local", "a new static local and a new string",
         one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + '	static int reads;\n\n	seq_printf(m, "plp=%d ", ++reads);\n'),
         frozenset({"cmdline_proc_show"}), "cat /proc/cmdline", "plp=[0-9]+ "),
    Case("new_function", "a new function, a new static variable with a value",
         one(VERSION, VERSION_SHOW,
             "static int plp_value = 41;\n\nstatic noinline void plp_mark(struct seq_file *m, int more)\n{\n"
             '	seq_printf(m, "plp=%d ", plp_value + more);\n}\n\n' + VERSION_SHOW + "	plp_mark(m, 1);\n"),
         frozenset({"version_proc_show"}), "cat /proc/version", "plp=42 Linux"),
    Case("percpu", "per-CPU data, of its own and of the kernel",
         one(UPTIME, "static int uptime_proc_show",
             "static DEFINE_PER_CPU(int, plp_reads) = 7;\n\nstatic int uptime_proc_show")
         + one(UPTIME, UPTIME_SHOW, UPTIME_SHOW + '	this_cpu_inc(plp_reads);\n'
               '	seq_printf(m, "plp=%d ", this_cpu_read(plp_reads) > 7 && raw_smp_processor_id() >= 0);\n'),
         frozenset({"uptime_proc_show"}), "cat /proc/uptime", "plp=1 "),
    Case("lines", "lines that shift: nothing else changes, though warnings with their lines follow",
         one(GENERIC, "static int proc_match(const char *name",
             "/*\n * A comment\n * of\n * several lines.\n */\n\nstatic int proc_match(const char *name")
         + one(GENERIC, "static int proc_misc_d_delete(const struct dentry *dentry)\n{\n",
               "static int proc_misc_d_delete(const struct dentry *dentry)\n{\n	static int plp;\n\n	WRITE_ONCE(plp, 1);\n"),
         frozenset({"proc_misc_d_delete"}), "cat /sys/kernel/livepatch/plp_lines/vmlinux/proc_misc_d_delete*/../patched; "
         "ls /sys/kernel/livepatch/plp_lines/vmlinux", "proc_misc_d_delete,"),
    Case("ops_table", "a function that is reached through a table of pointers",
         one(KSYSFS, '"%d\\n", READ_ONCE(rcu_expedited)', '"plp %d\\n", READ_ONCE(rcu_expedited)'),
         frozenset({"rcu_expedited_show"}),
         "cat /sys/kernel/rcu_expedited", "plp [01]"),
    Case("static_data", "static data of the file, which stays the kernel's own",
         one("fs/char_dev.c", '"%3d %s\\n", cd->major, cd->name);', '"%3d plp %s\\n", cd->major, cd->name);'),
         frozenset({"chrdev_show"}), "cat /proc/devices", "  1 plp mem"),
    Case("inlined", "a static function that is inlined: its callers change",
         one("kernel/utsname_sysctl.c", "	which = (which - (char *)&init_uts_ns) + (char *)uts_ns;\n",
             "	which = (which - (char *)&init_uts_ns) + (char *)uts_ns;\n"
             '	if (table->procname && !strcmp(table->procname, "ostype"))\n		which += 1;\n'),
         frozenset({"proc_do_uts_string"}), "cat /proc/sys/kernel/ostype", "^inux"),
    Case("two_functions", "a changed function that calls another one; a static function that several call",
         one("fs/proc/meminfo.c", '	seq_write(m, " kB\\n", 4);\n', '	seq_write(m, " kb\\n", 4);\n')
         + one("fs/proc/meminfo.c", "	si_swapinfo(&i);\n",
               '	si_swapinfo(&i);\n	show_val_kb(m, "Patched:        ", 4096);\n'),
         frozenset(), "head -2 /proc/meminfo", "Patched: +16384 kb\nMemTotal: +[0-9]+ kb"),
    Case("exception", "an exception table: a fault that is handled",
         one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW +
             "	unsigned long value = 0;\n\n	pagefault_disable();\n"
             "	__get_kernel_nofault(&value, (unsigned long *)0xffff800000000000UL, unsigned long, fault);\n"
             '	seq_puts(m, "plp=read ");\n	if (0) {\nfault:\n		seq_puts(m, "plp=fault ");\n	}\n'
             "	pagefault_enable();\n")
         + one(CMDLINE, "#include <linux/seq_file.h>\n", "#include <linux/seq_file.h>\n#include <linux/uaccess.h>\n"),
         frozenset({"cmdline_proc_show"}), "cat /proc/cmdline", "plp=fault "),
    Case("warning", "a warning that fires: a bug table",
         one(VERSION, VERSION_SHOW, VERSION_SHOW + '	WARN(1, "plp: a warning of the patch");\n	seq_puts(m, "plp ");\n'),
         frozenset({"version_proc_show"}), "cat /proc/version; dmesg | grep -c 'plp: a warning'",
         "plp Linux(.|\n)*^[1-9]", warning="plp: a warning of the patch"),
    Case("jump_label", "a static key of vmlinux that is not exported",
         one(LOADAVG, "static int loadavg_proc_show",
             "extern struct static_key_false sched_schedstats;\n\nstatic int loadavg_proc_show")
         + one(LOADAVG, LOADAVG_SHOW, LOADAVG_SHOW +
               '	if (static_branch_unlikely(&sched_schedstats))\n		seq_puts(m, "plp=on ");\n	else\n		seq_puts(m, "plp=off ");\n'),
         frozenset({"loadavg_proc_show"}),
         "cat /proc/loadavg; echo 1 >/proc/sys/kernel/sched_schedstats; cat /proc/loadavg; "
         "echo 0 >/proc/sys/kernel/sched_schedstats; cat /proc/loadavg", "plp=off .*\nplp=on .*\nplp=off "),
    Case("static_call", "a static call: cond_resched() and might_sleep()",
         one(DEVICES, DEVICES_SHOW, '			seq_puts(f, "plp=1 Character devices:\\n");\n')
         + one(DEVICES, "	int i = *(loff_t *) v;\n", "	int i = *(loff_t *) v;\n\n	might_sleep();\n	cond_resched();\n"),
         frozenset({"devinfo_show"}), "cat /proc/devices", "plp=1 Character"),
    Case("tracepoint", "a tracepoint of vmlinux that is not exported, which fires in the new code",
         one(VERSION, "#include <linux/utsname.h>\n",
             "#include <linux/utsname.h>\n#include <linux/sched.h>\n#include <trace/events/task.h>\n")
         + one(VERSION, VERSION_SHOW, VERSION_SHOW + '	trace_task_rename(current, "plp-comm");\n	seq_puts(m, "plp=1 ");\n'),
         frozenset({"version_proc_show"}),
         "cd /sys/kernel/tracing 2>/dev/null && [ -e events ] || { mount -t tracefs t /sys/kernel/tracing; "
         "cd /sys/kernel/tracing; }; echo >trace; echo 1 >events/task/task_rename/enable; cat /proc/version; "
         "echo 0 >events/task/task_rename/enable; cat trace", "plp=1 (.|\n)*newcomm=plp-comm"),
    Case("exported_tracepoint", "a tracepoint of vmlinux that is exported, with the key of its static call",
         one(VERSION, "#include <linux/utsname.h>\n", "#include <linux/utsname.h>\n#include <trace/events/power.h>\n")
         + one(VERSION, VERSION_SHOW, VERSION_SHOW + '	trace_cpu_idle(4242, 0);\n	seq_puts(m, "plp=1 ");\n'),
         frozenset({"version_proc_show"}),
         "cd /sys/kernel/tracing; echo >trace; echo 1 >events/power/cpu_idle/enable; cat /proc/version; "
         "echo 0 >events/power/cpu_idle/enable; cat trace", "plp=1 (.|\n)*state=4242"),
    Case("dynamic_debug", "pr_debug() in a changed function, switched on by dynamic debug",
         one(DEVICES, DEVICES_SHOW, DEVICES_SHOW + '		if (i == 0)\n			pr_debug("plp: dynamic debug\\n");\n'),
         frozenset({"devinfo_show"}),
         "echo 'func devinfo_show +p' >/proc/dynamic_debug/control; dmesg -c >/dev/null; cat /proc/devices >/dev/null; "
         "dmesg", r"\] plp: dynamic debug",
         log="plp: dynamic debug"),
    Case("alternatives", "lock prefixes, alternatives, paravirt: atomics, CPU features, interrupts switched off",
         one(LOADAVG, LOADAVG_SHOW, LOADAVG_SHOW +
             "	{\n		static atomic_t plp_count = ATOMIC_INIT(3);\n		unsigned long flags;\n\n"
             "		local_irq_save(flags);\n		atomic_inc(&plp_count);\n		local_irq_restore(flags);\n"
             '		seq_printf(m, "plp=%d,%d,%d ", atomic_read(&plp_count) > 3, cpu_feature_enabled(X86_FEATURE_TSC),\n'
             "			   cpu_feature_enabled(X86_FEATURE_PN));\n	}\n"),
         frozenset({"loadavg_proc_show"}), "cat /proc/loadavg", "plp=1,1,0 "),
    Case("indirect_call", "a call through a pointer: a retpoline",
         one("fs/proc/consoles.c", '	seq_printf(m, "%s%d", con->name, con->index);', '	seq_printf(m, "plp-%s%d", con->name, con->index);'),
         frozenset({"show_console_dev"}), "cat /proc/consoles", "plp-ttyS0"),
    Case("pointers", "a pointer to a function that existed leads to the original; one to a new function to the new one",
         one(VERSION, VERSION_SHOW,
             "static noinline int plp_new(struct seq_file *m, void *v)\n{\n	barrier();\n	return 0;\n}\n\n" + VERSION_SHOW +
             "	int (*volatile old)(struct seq_file *m, void *v) = version_proc_show;\n"
             "	int (*volatile new)(struct seq_file *m, void *v) = plp_new;\n\n"
             '	seq_printf(m, "old=%ps new=%ps ", old, new);\n'),
         frozenset({"version_proc_show"}), "cat /proc/version", r"old=version_proc_show new=plp_new \[plp_pointers\] Linux"),
    Case("switch", "a switch with many cases",
         one(VERSION, VERSION_SHOW,
             "static noinline const char *plp_name(int which)\n{\n	switch (which) {\n"
             + "".join(f'	case {n}: return "{word}";\n' for n, word in enumerate(
                 ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")))
             + '	}\n	return "many";\n}\n\n' + VERSION_SHOW + '	seq_printf(m, "plp=%s ", plp_name(task_pid_nr(current) % 2 + 7));\n')
         + one(VERSION, "#include <linux/utsname.h>\n", "#include <linux/utsname.h>\n#include <linux/sched.h>\n"),
         frozenset({"version_proc_show"}), "cat /proc/version", "plp=(seven|eight) "),
    Case("cold", "a cold part, which the compiler moves away from its function",
         one(VERSION, VERSION_SHOW, VERSION_SHOW +
             '	seq_puts(m, "plp ");\n	if (unlikely(m->size == 77)) {\n		pr_err("plp: cold\\n");\n		return -EIO;\n	}\n'),
         frozenset({"version_proc_show"}), "cat /proc/version", "plp Linux"),
    Case("syscall", "a system call",
         one("kernel/groups.c", "	const struct cred *cred = current_cred();\n	int i;\n\n	if (gidsetsize < 0)\n		return -EINVAL;\n",
             "	const struct cred *cred = current_cred();\n	int i;\n\n	if (gidsetsize < 0)\n		return -E2BIG;\n"),
         frozenset({"__x64_sys_getgroups", "__ia32_sys_getgroups"}),
         "python3 -c 'import ctypes; l = ctypes.CDLL(None, use_errno=True); l.syscall(115, -1, 0); "
         "print(\"errno\", ctypes.get_errno())'", "errno 7$"),
    Case("equal_names", "a static function whose name several files have",
         one("crypto/proc.c", '	seq_printf(m, "name         : %s\\n", alg->cra_name);',
             '	seq_printf(m, "name     plp : %s\\n", alg->cra_name);'),
         frozenset({"c_show"}), "cat /proc/crypto", "name     plp : "),
    Case("equal_names_2", "another one, with data of equal names around it",
         one("kernel/module/procfs.c", "	unsigned int size;\n\n", '	unsigned int size;\n\n	seq_puts(m, "plp ");\n'),
         frozenset({"m_show"}), "cat /proc/modules", "^plp ", sympos=True),
    Case("header", "a static inline of a private header",
         one("fs/proc/fd.h", "	return PROC_I(inode)->fd;\n", "	return PROC_I(inode)->fd == 9 ? 1 << 30 : PROC_I(inode)->fd;\n"),
         frozenset(), "exec 9</dev/null; readlink /proc/$$/fd/9 || echo plp-gone", "plp-gone"),
    Case("module", "a function of a module that is loaded",
         one(DUMMY, DUMMY_STATS, DUMMY_STATS + "	stats->rx_packets = 4242;\n"),
         frozenset({"dummy_get_stats64"}), "cat /sys/class/net/dummy0/statistics/rx_packets", "^4242$", modules=("dummy numdummies=1",)),
    Case("module_late", "a function of a module that is loaded after the patch",
         one(DUMMY, DUMMY_STATS, DUMMY_STATS + "	stats->rx_packets = 2424;\n"),
         frozenset({"dummy_get_stats64"}), "cat /sys/class/net/dummy0/statistics/rx_packets", "^2424$", late=("dummy numdummies=1",)),
    Case("module_data", "a module's own static data, and its own functions",
         one("drivers/block/zram/zram_drv.c", "	val = init_done(zram);\n",
             "	val = init_done(zram) + 1000 * !strcmp(default_compressor, CONFIG_ZRAM_DEF_COMP);\n"),
         frozenset({"initstate_show"}), "cat /sys/block/zram0/initstate", "^1000$", modules=("zram",)),
    Case("module_to_module", "a function that one module gets, and another one that needs it uses",
         one("mm/zsmalloc.c", "EXPORT_SYMBOL_GPL(zs_get_total_pages);\n",
             "EXPORT_SYMBOL_GPL(zs_get_total_pages);\n\nu32 plp_number(void);\nu32 plp_number(void)\n{\n	return 3000;\n}\n"
             "EXPORT_SYMBOL_GPL(plp_number);\n")
         + one("drivers/block/zram/zram_drv.c", "	val = init_done(zram);\n", "	val = init_done(zram) + plp_number();\n")
         + one("drivers/block/zram/zram_drv.c", "static ssize_t initstate_show(", "u32 plp_number(void);\nstatic ssize_t initstate_show("),
         frozenset({"initstate_show"}), "cat /sys/block/zram0/initstate", "^3000$", modules=("zram",)),
    Case("foreign", "an ordinary livepatch module",
         one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + '	seq_puts(m, "plp=foreign ");\n'),
         frozenset({"cmdline_proc_show"}), "cat /proc/cmdline", "plp=foreign ", foreign=True),
    Case("replace", "a patch that replaces those before it",
         one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + '	seq_puts(m, "plp=replace ");\n'),
         frozenset({"cmdline_proc_show"}), "cat /proc/cmdline", "plp=replace ", replace=True),
    Case("cumulative", "several diffs in one patch",
         one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + '	seq_puts(m, "plp=1 ");\n')
         + one(VERSION, VERSION_SHOW, VERSION_SHOW + '	seq_puts(m, "plp=2 ");\n')
         + one(LOADAVG, LOADAVG_SHOW, LOADAVG_SHOW + '	seq_puts(m, "plp=3 ");\n'),
         frozenset({"cmdline_proc_show", "version_proc_show", "loadavg_proc_show"}),
         "cat /proc/cmdline /proc/version /proc/loadavg", "plp=1 .*\nplp=2 .*\nplp=3 "),
    Case("softirqs", "an array of strings that another file has, and per-CPU data",
         one("fs/proc/softirqs.c", '	seq_puts(p, "                    ");\n', '	seq_puts(p, "plp                 ");\n'),
         frozenset({"show_softirqs"}), "cat /proc/softirqs", "^plp  "),
    Case("unexported", "a call of what only vmlinux has, and nobody exports",
         one(LOADAVG, LOADAVG_SHOW, LOADAVG_SHOW + '	seq_printf(m, "plp=%d ", nr_context_switches() > 0);\n')
         + one(LOADAVG, "#include <linux/sched/stat.h>\n", "#include <linux/sched/stat.h>\n#include <linux/kernel_stat.h>\n"),
         frozenset({"loadavg_proc_show"}), "cat /proc/loadavg", "plp=1 "),
    Case("callbacks", "callbacks, a shadow variable and a state",
         one(VERSION, VERSION_SHOW,
             "static int plp_made;\n\n"
             "static int plp_before(struct klp_object *obj)\n{\n"
             "	int *count = klp_shadow_get_or_alloc(&init_task, 7, sizeof(*count), GFP_KERNEL, NULL, NULL);\n\n"
             "	if (!count)\n		return -ENOMEM;\n	*count = 5;\n	plp_made = obj->name ? 1 : 2;\n	return 0;\n}\n"
             "KLPCTL_PRE_PATCH(plp_before);\n\n"
             "static void plp_after(struct klp_object *obj)\n{\n	klp_shadow_free_all(7, NULL);\n}\n"
             "KLPCTL_POST_UNPATCH(plp_after);\nKLPCTL_STATE(42, 1);\n\n" + VERSION_SHOW +
             "	int *count = klp_shadow_get(&init_task, 7);\n\n"
             '	seq_printf(m, "plp=%d,%d ", plp_made, count ? *count : 0);\n')
         + one(VERSION, "#include <linux/utsname.h>\n",
               "#include <linux/utsname.h>\n#include <linux/sched/task.h>\n#include <klpctl/patch.h>\n"),
         frozenset({"version_proc_show"}), "cat /proc/version", "plp=2,5 Linux"),
    Case("callbacks_only", "callbacks of a source of which no function changes, in kpatch-build's words",
         one(VERSION, VERSION_SHOW,
             "static int plp_set(patch_object *obj)\n{\n	strscpy(init_uts_ns.name.domainname, \"plp\", 9);\n	return 0;\n}\n"
             "KPATCH_PRE_PATCH_CALLBACK(plp_set);\n\n"
             "static void plp_reset(patch_object *obj)\n{\n	strscpy(init_uts_ns.name.domainname, \"(none)\", 9);\n}\n"
             "KPATCH_POST_UNPATCH_CALLBACK(plp_reset);\n\n" + VERSION_SHOW)
         + one(VERSION, "#include <linux/utsname.h>\n", '#include <linux/utsname.h>\n#include "kpatch-macros.h"\n'),
         frozenset(), "cat /proc/sys/kernel/domainname", "^plp$", called=True),
    Case("new_export", "a change with an export that is new, which the patch does without",
         one("fs/filesystems.c", '		seq_printf(m, "%s\\t%s\\n",\n', '		seq_printf(m, "plp_%s\\t%s\\n",\n')
         + one("fs/filesystems.c", "EXPORT_SYMBOL(register_filesystem);", "EXPORT_SYMBOL(register_filesystem);\nEXPORT_SYMBOL(get_filesystem);"),
         frozenset({"filesystems_proc_show"}), "cat /proc/filesystems", "^plp_nodev"),
    Case("wide_header", "a macro of a header that nearly everything includes, and one source mentions",
         one("include/linux/kdev_t.h", 'sprintf((buffer), "%u:%u\\n"', 'sprintf((buffer), "plp %u:%u\\n"'),
         frozenset(), "cat /sys/class/mem/null/dev", "plp 1:3"),
    Case("across_files", "a function and a variable that one source gets, and another one uses",
         one(VERSION, "static int version_proc_show(",
             "int plp_number;\nint plp_next(void);\nint plp_next(void)\n{\n	return plp_number += 3;\n}\n\nstatic int version_proc_show(")
         + one(CMDLINE, CMDLINE_SHOW, "extern int plp_number;\nextern int plp_next(void);\n" + CMDLINE_SHOW
               + '	plp_number = 4;\n	seq_printf(m, "plp=%d ", plp_next());\n'),
         frozenset({"cmdline_proc_show"}), "cat /proc/cmdline", "plp=7 "),
    Case("made_global", "a static function that the diff makes global; a static key, a static call, and data that are "
         "read-only after init in the kernel",
         one(CMDLINE, CMDLINE_SHOW, "int cmdline_proc_show(struct seq_file *m, void *v);\n" + CMDLINE_SHOW.replace("static ", ""))
         + one(VERSION, "#include <linux/utsname.h>\n",
               "#include <linux/utsname.h>\n#include <linux/jump_label.h>\n#include <linux/static_call.h>\n")
         + one(VERSION, VERSION_SHOW,
               "extern int cmdline_proc_show(struct seq_file *m, void *v);\nstatic DEFINE_STATIC_KEY_FALSE(plp_key);\n"
               "static int plp_count __ro_after_init = 4;\n\nstatic void plp_say(struct seq_file *m)\n{\n"
               '	seq_printf(m, "plp=%d ", static_branch_unlikely(&plp_key) ? ++plp_count : 0);\n}\n'
               "DEFINE_STATIC_CALL(plp_call, plp_say);\n\n" + VERSION_SHOW
               + "	static_branch_enable(&plp_key);\n	static_call(plp_call)(m);\n	cmdline_proc_show(m, v);\n"),
         frozenset({"version_proc_show"}), "cat /proc/version", "plp=[5-9] .*="),
    Case("own_debug", "a static function with many callers, which gets dynamic debug and a static local",
         one("fs/proc/meminfo.c", "static void show_val_kb(struct seq_file *m, const char *s, unsigned long num)\n{\n",
             "static noinline void show_val_kb(struct seq_file *m, const char *s, unsigned long num)\n{\n"
             "	static bool told;\n\n	if (!told)\n		pr_debug(\"plp\");\n	told = true;\n")
         + one("fs/proc/meminfo.c", '	seq_write(m, " kB\\n", 4);\n', '	seq_write(m, " KB\\n", 4);\n'),
         frozenset(), "head -1 /proc/meminfo", "MemTotal: +[0-9]+ KB"),
)

_NEW_FILE = """--- /dev/null
+++ b/fs/proc/plp.c
@@ -0,0 +1 @@
+int plp;
"""
_REMOVED = """--- a/fs/proc/cmdline.c
+++ /dev/null
@@ -1 +0,0 @@
-// SPDX-License-Identifier: GPL-2.0
"""
_STALE = """--- a/fs/proc/cmdline.c
+++ b/fs/proc/cmdline.c
@@ -6,3 +6,4 @@
 static int cmdline_proc_show(struct seq_file *m, void *of_another_kernel)
 {
+	seq_puts(m, "plp ");
 	seq_puts(m, saved_command_line);
"""
_OUTSIDE = """--- a/../etc/passwd
+++ b/../etc/passwd
@@ -1 +1 @@
-root
+toor
"""

REFUSED = (
    Refused("data", one(DUMMY, "static int numdummies = 1;", "static int numdummies = 2;"), "data", "numdummies", "initial value"),
    Refused("ops", one(DEVICES, "	.show  = devinfo_show\n", "	.show  = NULL\n"), "data", "devinfo_ops", "initial value"),
    Refused("layout", one("drivers/block/brd.c", "	struct gendisk		*brd_disk;\n", "	struct gendisk		*brd_disk;\n	long plp;\n"),
            "layout", "brd_device", "struct brd_device changes"),
    Refused("layout_header", one("drivers/block/zram/zram_drv.h", "struct zram {\n", "struct zram {\n	long plp;\n"),
            "layout", "zram", "struct zram changes"),
    Refused("init", one(CMDLINE, 'proc_create_single("cmdline", 0, NULL', 'proc_create_single("cmdline", 0400, NULL'), "init",
            "proc_cmdline_init", "at init"),
    Refused("exit", one(DUMMY, "	rtnl_link_unregister(&dummy_link_ops);\n}\n", "	rtnl_link_unregister(&dummy_link_ops);\n	barrier();\n	pr_info(\"plp\");\n}\n"),
            "init", "", "exit"),
    Refused("notrace", one("kernel/trace/trace_clock.c", "u64 notrace trace_clock_local(void)\n{\n	u64 clock;\n",
                           "u64 notrace trace_clock_local(void)\n{\n	u64 clock;\n	static int plp;\n\n	WRITE_ONCE(plp, 1);\n"),
            "untraceable", "trace_clock_local", "cannot be traced"),
    Refused("assembly", one("arch/x86/lib/getuser.S", "#include <linux/linkage.h>\n", "#include <linux/linkage.h>\n/* plp */\n"),
            "assembly", "", "assembly"),
    Refused("vdso", one("arch/x86/entry/vdso/vma.c", "#include <linux/mm.h>\n", "#include <linux/mm.h>\n/* plp */\n"), "vdso", "", "vdso"),
    Refused("livepatch", one("kernel/livepatch/core.c", "#include <linux/module.h>\n", "#include <linux/module.h>\n/* plp */\n"),
            "patching-itself", "", "patching itself"),
    Refused("kconfig", one("fs/proc/Kconfig", "config PROC_FS\n", "# plp\nconfig PROC_FS\n"), "build-system", "", "what is built"),
    Refused("makefile", one("fs/proc/Makefile", "obj-y   += proc.o\n", "# plp\nobj-y   += proc.o\n"), "build-system", "", "what is built"),
    Refused("not_built", one("mm/nommu.c", "#include <linux/mm.h>\n", "#include <linux/mm.h>\n/* plp */\n"), "not-built", "", "not compiled"),
    Refused("static_key", one("net/netfilter/nf_tables_core.c", "	if (static_branch_unlikely(&nft_counters_enabled))\n",
                              "	if (READ_ONCE(jiffies) == 1)\n		return NF_DROP;\n	if (static_branch_unlikely(&nft_counters_enabled))\n"),
            "static-key", "", "static key"),
    Refused("comment", one("include/linux/fs.h", "#define _LINUX_FS_H\n", "#define _LINUX_FS_H\n/* plp */\n"), "nothing", "", "nothing"),
    Refused("prototype",
            one("fs/filesystems.c", "#include <linux/syscalls.h>\n", "#define unregister_filesystem plp_unregister\n#include <linux/syscalls.h>\n")
            + one("fs/filesystems.c", "#include <linux/fs_parser.h>\n", "#include <linux/fs_parser.h>\n#undef unregister_filesystem\n")
            + one("fs/filesystems.c", "int unregister_filesystem(struct file_system_type",
                  "int unregister_filesystem(int plp, struct file_system_type *);\n"
                  "int unregister_filesystem(int plp, struct file_system_type"),
            "export", "unregister_filesystem", "is exported, and changes from"),
    Refused("no_export", one("fs/filesystems.c", "EXPORT_SYMBOL(unregister_filesystem);", ""), "export", "", "exports"),
    Refused("nothing", one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + "	/* plp */\n"), "nothing", "", "changes no code"),
    Refused("compile", one(CMDLINE, CMDLINE_SHOW, CMDLINE_SHOW + "	plp_undefined(m);\n"), "compile", "", "plp_undefined"),
    Refused("unresolved", one(CMDLINE, CMDLINE_SHOW, "extern void plp_nowhere(void);\n" + CMDLINE_SHOW + "	plp_nowhere();\n"),
            "unresolved", "plp_nowhere", "plp_nowhere"),
    Refused("other_module", one(DUMMY, "#include <linux/module.h>\n", "#include <linux/module.h>\n#include <net/mac80211.h>\n")
            + one(DUMMY, DUMMY_STATS, DUMMY_STATS + "	stats->rx_packets = ieee80211_find_sta(NULL, NULL) != NULL;\n"),
            "dependency", "ieee80211_find_sta", "dummy runs without mac80211"),
    Refused("module_of_vmlinux", one(VERSION, VERSION_SHOW, "extern void *ieee80211_find_sta(void *, void *);\n" + VERSION_SHOW
                                     + "	if (ieee80211_find_sta(NULL, NULL))\n		return 0;\n"),
            "dependency", "ieee80211_find_sta", "vmlinux runs without mac80211"),
    Refused("btf_ids", one("kernel/bpf/bpf_lsm.c", "BTF_ID(func, bpf_lsm_file_open)\n", "BTF_ID(func, bpf_lsm_file_receive)\n"),
            "registration", "func__bpf_lsm_file_receive", "a set of BTF ids"),
    Refused("initcall", one(CMDLINE, "fs_initcall(proc_cmdline_init);", "fs_initcall(proc_cmdline_init);\nlate_initcall(proc_cmdline_init);"),
            "registration", "", "registers"),
    Refused("parameter", one(DUMMY, "static int numdummies = 1;", "static int numdummies = 1;\nstatic int plp;\nmodule_param(plp, int, 0);"),
            "registration", "", "registers"),
    Refused("weak", one("fs/proc/meminfo.c", "arch_report_meminfo(struct seq_file *m)\n{\n", "arch_report_meminfo(struct seq_file *m)\n{\n	seq_puts(m, \"plp\");\n"),
            "weak", "arch_report_meminfo", "weak"),
    Refused("moved", one(CMDLINE, CMDLINE_SHOW, "extern long nr_blockdev_pages(void);\nlong nr_blockdev_pages(void)\n{\n	return 0;\n}\n"
                         + CMDLINE_SHOW + "	seq_printf(m, \"%ld\", nr_blockdev_pages());\n"),
            "moved", "nr_blockdev_pages", "has one from another source file"),
    Refused("new_file", _NEW_FILE, "build-system", "", "adds fs/proc/plp.c"),
    Refused("init_data", one(CMDLINE, CMDLINE_SHOW, "extern char boot_command_line[];\n" + CMDLINE_SHOW
                             + '	seq_puts(m, boot_command_line);\n'),
            "init", "boot_command_line", "freed after init"),
    Refused("others_static", one(VERSION, VERSION_SHOW, "extern int cmdline_proc_show(struct seq_file *m, void *v);\n"
                                 + VERSION_SHOW + "	cmdline_proc_show(m, v);\n"),
            "unresolved", "cmdline_proc_show", "for all its sources"),
    Refused("used_by_assembly", one("arch/x86/include/asm/nospec-branch.h", "#define RETPOLINE_THUNK_SIZE	32",
                                    "#define RETPOLINE_THUNK_SIZE	64"),
            "assembly", "RETPOLINE_THUNK_SIZE", "retpoline.S"),
    Refused("not_in_source", _STALE.replace("fs/proc/cmdline.c", "kernel/plp_none.c"), "not-in-source", "", "has no file kernel/plp_none.c"),
    Refused("reads_host", one(VERSION, VERSION_SHOW, '#include "/etc/passwd"\n' + VERSION_SHOW), "compile", "", "/etc/passwd: No such file"),
    Refused("reads_host_by_macro", one(VERSION, VERSION_SHOW, '#define P(x) </etc/x>\n#include P(passwd)\n' + VERSION_SHOW),
            "compile", "", "/etc/passwd: No such file"),
    Refused("takes_host_along", one(VERSION, VERSION_SHOW, VERSION_SHOW + '	asm volatile("jmp 1f\\n.incbin \\"/etc/passwd\\"\\n1:");\n'),
            "compile", "", "file not found: /etc/passwd"),
    Refused("device", one(VERSION, VERSION_SHOW, '#include "/dev/zero"\n' + VERSION_SHOW), "compile", "", "/dev/zero: No such file"),
    Refused("removed", _REMOVED, "build-system", "", "removes"),
    Refused("stale", _STALE, "apply", "", "does not apply"),
)

INVALID = {"outside": (_OUTSIDE, "outside"), "no_diff": ("Hello.\n", "no unified diff"), "empty": ("", "no unified diff")}
"""What is no diff of the kernel's source, with what the message says."""


def named(name: str) -> Case:
    """Return the case *name*."""
    return next(case for case in CASES if case.name == name)


__all__ = ["CASES", "INVALID", "REFUSED", "Case", "Edit", "Refused", "named"]
