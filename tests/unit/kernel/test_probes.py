# SPDX-License-Identifier: MIT
"""Who owns a function, as kernels of both series print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pylivepatch.kernel import probes

if TYPE_CHECKING:
    from pathlib import Path

KPROBES = """\
ffffffff81410900  k  loadavg_proc_show+0x0    [FTRACE]
ffffffff8151c784  k  cmdline_proc_show+0x4    [DISABLED][FTRACE]
ffffffff81410917  k  loadavg_proc_show+0x17    [OPTIMIZED]
ffffffffc0398000  r  plp_target_show+0x0  plp_target [FTRACE]
"""
TRACED = (
    "loadavg_proc_show (2) R I     M  ->arch_ftrace_ops_list_func+0x0/0x1d0\n"
    "klp_start_transition (1) R    \ttramp: 0xffffffffc03ac000 (kprobe_ftrace_handler+0x0/0x1b0) "
    "->kprobe_ftrace_handler+0x0/0x1b0\n"
    "plp_target_show [plp_target] (1) R I D\ttramp: ftrace_regs_caller+0x0/0x65\n"
    "\tdirect-->bpf_trampoline_6442+0x0/0x1000\n"
    "seq_show (1)           \n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the tables above."""
    for name, text in {
        "sys/kernel/debug/kprobes/list": KPROBES,
        "sys/kernel/debug/tracing/enabled_functions": TRACED,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_kprobes(root: Path) -> None:
    """Kprobes tell function, module, place, kind and whether they are on."""
    assert probes.kprobes(root) == [
        ("loadavg_proc_show", "", 0, False, False, True),
        ("cmdline_proc_show", "", 4, False, True, True),
        ("loadavg_proc_show", "", 0x17, False, False, False),
        ("plp_target_show", "plp_target", 0, True, False, True),
    ]


def test_traced(root: Path) -> None:
    """Traced functions tell who may change where they go, who is called directly, and by what."""
    assert probes.traced(root) == [
        ("loadavg_proc_show", "", True, False, ("arch_ftrace_ops_list_func",)),
        ("klp_start_transition", "", False, False, ("kprobe_ftrace_handler",)),
        ("plp_target_show", "plp_target", True, True, ("ftrace_regs_caller", "bpf_trampoline_6442")),
        ("seq_show", "", False, False, ()),
    ]
    with pytest.raises(FileNotFoundError):
        probes.traced(root / "proc")
