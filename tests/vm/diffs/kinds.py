# SPDX-License-Identifier: MIT
"""Kinds of code that a patch must not tear apart: each was a way to a patch that loads and is wrong."""

from __future__ import annotations

from case import Case, one

COMPLETION = "kernel/sched/completion.c"
NEIGHBOUR = "net/core/neighbour.c"
NEIGHBOUR_SHOW = "	struct neigh_table *tbl = pde_data(file_inode(seq->file));\n	struct neigh_statistics *st = v;\n"
DCACHE = "fs/dcache.c"
LOADAVG = "fs/proc/loadavg.c"
LOADAVG_SHOW = "	get_avenrun(avnrun, FIXED_1/200, 0);\n"
VERSION = "fs/proc/version.c"
VERSION_SHOW = "static int version_proc_show(struct seq_file *m, void *v)\n{\n"
FILTER = r"""python3 -c '
import ctypes, socket, struct
def run(k):
    code = [(0x00, 0, 0, 100), (0x04, 0, 0, k), (0x16, 0, 0, 0)]  # ld #100; add #k; ret a
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    b.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
    a.send(bytes(500))
    return len(b.recv(500))
open("/proc/sys/net/core/bpf_jit_enable", "w").write("0")
print("kept", run(5))
open("/proc/sys/net/core/bpf_jit_enable", "w").write("1")
'"""
DECIMAL = ("void seq_put_decimal_ull(struct seq_file *m, const char *delimiter,\n"
           "			 unsigned long long num)\n{\n")
WIDTH = "	if (!width)\n		width = 1;\n"
SMAPS, SMAPS_END = "fs/proc/task_mmu.c", "	seq_puts(m, \" kB\\n\");\n}\n\nstatic int show_smap("
SLEEPER = "sleep 3 | cat & sleep 0.5; cat /proc/$(pgrep -nx cat)/stack; wait"

KINDS = (
    Case("explicit_section", "a function of an explicit section, with static neighbours that it jumps to",
         one(COMPLETION, "	wait_for_common(x, MAX_SCHEDULE_TIMEOUT, TASK_UNINTERRUPTIBLE);\n}\nEXPORT_SYMBOL(wait_for_completion);",
             "	if (!x)\n		return;\n	pr_info_ratelimited(\"plp: waits\\n\");\n"
             "	wait_for_common(x, MAX_SCHEDULE_TIMEOUT, TASK_UNINTERRUPTIBLE);\n}\nEXPORT_SYMBOL(wait_for_completion);"),
         frozenset({"wait_for_completion"}), "dmesg -C; modprobe dummy; rmmod dummy; dmesg | grep -c 'plp: waits'", "^[1-9]"),
    Case("sleeping", "a warning in a function in which tasks sleep: their stack is seen through the new code",
         one("fs/pipe.c", "	ssize_t ret;\n\n	/* Null read succeeds. */\n",
             "	ssize_t ret;\n\n	WARN_ON_ONCE(!filp);\n	/* Null read succeeds. */\n"),
         frozenset(), SLEEPER, r"pipe_read\+\S+ \[plp_sleeping\]\n.*\n?.*vfs_read"),  # anon_pipe_read() since 6.15
    Case("percpu_kinds", "per-CPU variables that vmlinux has in places of their own",
         one(LOADAVG, "static int loadavg_proc_show",
             "static DEFINE_PER_CPU_READ_MOSTLY(int, plp_read) = 7;\n"
             "static DEFINE_PER_CPU_SHARED_ALIGNED(unsigned long [8], plp_shared) = { 11 };\n"
             "static DEFINE_PER_CPU_ALIGNED(long, plp_aligned) = 13;\n\nstatic int loadavg_proc_show")
         + one(LOADAVG, LOADAVG_SHOW, LOADAVG_SHOW +
               "	this_cpu_inc(plp_shared[1]);\n"
               '	seq_printf(m, "plp=%d,%lu,%d,%ld ", this_cpu_read(plp_read), this_cpu_read(plp_shared[0]),\n'
               "		   this_cpu_read(plp_shared[1]) > 0, this_cpu_read(plp_aligned));\n"),
         frozenset({"loadavg_proc_show"}), "cat /proc/loadavg", "plp=7,11,1,13 "),
    Case("end_of_array", "a pointer behind the end of an array of the kernel, where a new variable is added",
         one(NEIGHBOUR, "neigh_tables[NEIGH_NR_TABLES] __read_mostly;\n",
             "neigh_tables[NEIGH_NR_TABLES] __read_mostly;\nstatic int plp_after __read_mostly = 5;\n")
         + one(NEIGHBOUR, "static struct neigh_table __rcu *neigh_tables[", "static int plp_before __read_mostly = 6;\n"
               "static struct neigh_table __rcu *neigh_tables[")
         + one(NEIGHBOUR, NEIGHBOUR_SHOW, NEIGHBOUR_SHOW +
               "	void **p = (void **)neigh_tables, **end = (void **)neigh_tables + NEIGH_NR_TABLES;\n	int tables = 0;\n\n"
               "	OPTIMIZER_HIDE_VAR(p);\n	for (; p != end && tables < 99; p++)\n		tables++;\n"
               '	seq_printf(seq, "plp=%d,%d,%d ", tables, plp_before++, plp_after++);\n'),
         frozenset({"neigh_stat_seq_show"}), "cat /proc/net/stat/arp_cache", "^plp=[1-4],"),
    Case("label_table", "a table of labels, whose contents stay as they were",
         one("kernel/bpf/core.c", "	ALU(ADD,  +)\n", "	ALU(ADD,  -)\n"),
         frozenset({"___bpf_prog_run"}), FILTER, "^kept 95$"),
    Case("cold_branch", "a static branch that leads to the cold part of the function",
         one(VERSION, "#include <linux/utsname.h>\n",
             "#include <linux/utsname.h>\n#include <linux/jump_label.h>\nextern struct static_key_false sched_schedstats;\n")
         + one(VERSION, VERSION_SHOW, VERSION_SHOW + '	if (static_branch_unlikely(&sched_schedstats)) {\n'
               '		pr_err_once("plp: cold\\n");\n		seq_puts(m, "plp=cold ");\n	}\n	seq_puts(m, "plp ");\n'),
         frozenset({"version_proc_show"}), "cat /proc/version; echo 1 >/proc/sys/kernel/sched_schedstats; cat /proc/version; "
         "echo 0 >/proc/sys/kernel/sched_schedstats; cat /proc/version", "^plp Linux.*\nplp=cold plp Linux.*\nplp Linux",
         log="plp: cold"),
    Case("runtime_constant", "code into which the kernel writes constants at boot (since 6.11)",
         one(DCACHE, "		if (dentry)\n			break;\n	} while (read_seqretry(&rename_lock, seq));\n	return dentry;\n}\nEXPORT_SYMBOL(d_lookup);",
             "		if (dentry)\n			break;\n	} while (read_seqretry(&rename_lock, seq));\n	plp_found += !!dentry;\n"
             "	return dentry;\n}\nEXPORT_SYMBOL(d_lookup);")
         + one(DCACHE, "static long get_nr_dentry(void)\n{\n", "static unsigned long plp_found;\n\nstatic long get_nr_dentry(void)\n{\n")
         + one(DCACHE, "	dentry_stat.nr_dentry = get_nr_dentry();\n",
               "	dentry_stat.nr_dentry = get_nr_dentry() + (plp_found ? 700000000 : 0);\n")
         + one(DCACHE, "struct dentry *__d_lookup(const struct dentry *parent, const struct qstr *name)\n{\n",
               "struct dentry *__d_lookup(const struct dentry *parent, const struct qstr *name)\n{\n	if (!parent)\n		return NULL;\n"),
         frozenset(),
         "ls -l /proc/self/fd >/dev/null; ls /proc/$$/fd /proc/$$/fd >/dev/null; cat /proc/sys/fs/dentry-state", "^7[0-9]{8}"),
    Case("not_inlined", "a system call whose body is a function of its own, which cannot be traced",
         one("kernel/sys.c", "	struct new_utsname tmp;\n\n	down_read(&uts_sem);\n	memcpy(&tmp, utsname(), sizeof(tmp));\n	up_read(&uts_sem);\n",
             "	struct new_utsname tmp;\n\n	down_read(&uts_sem);\n	memcpy(&tmp, utsname(), sizeof(tmp));\n	up_read(&uts_sem);\n"
             "	strlcat(tmp.sysname, \".plp\", sizeof(tmp.sysname));\n"),
         frozenset({"__x64_sys_newuname", "__ia32_sys_newuname"}), "uname -s", r"^Linux\.plp$"),
    Case("beneath", "a function, and one that calls it: both change",
         one("fs/seq_file.c", WIDTH, "	if (delimiter && delimiter[0] == 'v')\n		seq_puts(m, \"one \");\n" + WIDTH)
         + one("fs/seq_file.c", DECIMAL, DECIMAL + "	if (!m)\n		return;\n"),
         frozenset({"seq_put_decimal_ull_width", "seq_put_decimal_ull"}), "cat /proc/self/status",
         "^voluntary_ctxt_switches:\tone "),
    Case("on_top", "what a patch beneath calls, too, gets the code of the patch on top",
         one("fs/seq_file.c", WIDTH, "	if (delimiter && delimiter[0] == 'v')\n		seq_puts(m, \"two \");\n" + WIDTH),
         frozenset({"seq_put_decimal_ull_width"}), "cat /proc/self/status", "^voluntary_ctxt_switches:\ttwo ",
         below=("beneath",)),
    Case("called_otherwise", "a function that returns something with the diff: its caller needs the new code",
         one(SMAPS, "static void __show_smap(", "static unsigned long __show_smap(")
         + one(SMAPS, SMAPS_END, SMAPS_END.replace("}", "	return mss->resident;\n}", 1))
         + one(SMAPS, "	__show_smap(m, &mss, false);\n",
               "	if (__show_smap(m, &mss, false))\n		seq_puts(m, \"plp: there\\n\");\n"),
         frozenset(), "cat /proc/self/smaps", "^plp: there"),
    Case("no_way_there", "a change of that function, which would have no effect on top",
         one(SMAPS, SMAPS_END, SMAPS_END.replace(" kB", " KB")),
         frozenset({"__show_smap"}), "cat /proc/self/smaps", "^Locked: .* KB", below=("called_otherwise",),
         bypassed="__show_smap"),
    Case("constants", "a table of constants: the functions that use it are replaced",
         one("fs/proc/array.c", "	\"R (running)\",		/* 0x00 */\n", "	\"R (Running)\",		/* 0x00 */\n"),
         frozenset({"do_task_stat", "proc_pid_status"}), "cat /proc/self/status", r"^State:\tR \(Running\)"),
    Case("exported_pointer", "a changed function that is exported, called and pointed to, with a cold part",
         one("fs/seq_file.c", DECIMAL, DECIMAL +
             "	if (unlikely(m->size == 77)) {\n		pr_err(\"plp: cold\\n\");\n		dump_stack();\n	}\n"
             "	if (delimiter && delimiter[0] == 'v')\n		seq_printf(m, \"%ps \", (void *)seq_put_decimal_ull);\n"),
         frozenset({"seq_put_decimal_ull"}), "cat /proc/self/status", "^seq_put_decimal_ull voluntary_ctxt_switches:"),
)
