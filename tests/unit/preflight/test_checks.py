# SPDX-License-Identifier: MIT
"""The preflight, on captured trees that hold what a test guest cannot."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from pylivepatch import AccessError, Core, Finding, LivepatchError, PatchRejectedError, PatchStateError, Severity
from pylivepatch.module.verdict import SECTION, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = """
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; char rest[99]; };
struct klp_object { const char *name; struct klp_func *funcs; void *callbacks[4]; char rest[99]; };
struct klp_patch { void *mod; struct klp_object *objs; void *states; char replace; char rest[99]; };
__attribute__((section(".gnu.linkonce.this_module"))) char __this_module[64];
static int f(void) { return 0; }
static struct klp_func funcs[] = { { "loadavg_proc_show", f }, { "version_proc_show", f }, { 0 } };
static struct klp_object objs[] = { { 0, funcs }, { 0 } };
__attribute__((used)) static struct klp_patch patch = { __this_module, objs };
"""
RELEASE = "6.1.0-56-amd64"


@pytest.fixture
def patch(build_module: Callable[..., Path]) -> Path:
    """An ordinary patch of two functions, for the captured kernel."""
    return build_module("plp_new", extra=SOURCE, vermagic=f"{RELEASE} SMP", depends="plp_target,nf_tables")


def put(root: Path, name: str, text: str) -> None:
    """Put a file into a tree."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def findings(root: Path, path: Path) -> dict[tuple[str, str], Finding]:
    """All findings by code and subject."""
    with Core(root=root) as core:
        return {(finding.code, finding.subject): finding for finding in core.preflight(path)}


def test_worst_first_and_as_text(enabling: Path, patch: Path) -> None:
    """Findings come worst first, and each reads as one line that ends in what to do."""
    with Core(root=enabling) as core:
        found = core.preflight(patch)
    order = [list(Severity).index(finding.severity) for finding in found]
    assert order == sorted(order)
    assert str(found[0]).startswith("fatal: plp_hold: patch plp_hold is in transition")
    assert str(found[0]).endswith("; try again when it has ended")


def test_what_cannot_be_seen(enabling: Path, patch: Path) -> None:
    """A tree without the kernel's tables is no proof of anything, and each table is named."""
    subjects = {subject for code, subject in findings(enabling, patch) if code == "not-checked"}
    assert subjects == {"lockdown", "kprobes", "ftrace", "symbols", "nf_tables", "plp_target"}


def test_probes_and_tracers(enabling: Path, patch: Path) -> None:
    """A probe inside a function and a direct call are warnings; a patch that is enabled owns its function by right."""
    put(enabling, "sys/kernel/debug/kprobes/list", "ffffffff81410917  k  version_proc_show+0x17    [OPTIMIZED]\n")
    put(
        enabling,
        "sys/kernel/tracing/enabled_functions",
        "version_proc_show (1) R   D\t\n\tdirect-->my_tramp+0x0/0x10\n"
        "loadavg_proc_show (2) R I   ->arch_ftrace_ops_list_func+0x0/0x1d0\n",
    )
    found = findings(enabling, patch)
    assert found["kprobe", "version_proc_show"].severity is Severity.WARNING
    assert found["direct", "version_proc_show"].severity is Severity.WARNING
    assert found["stacked", "loadavg_proc_show"].severity is Severity.INFO
    assert not [code for code, _ in found if code == "owner"]


def test_ftrace(enabling: Path, patch: Path) -> None:
    """While ftrace is switched off nothing can be enabled; while it is on there is nothing to say."""
    put(enabling, "proc/sys/kernel/ftrace_enabled", "1\n")
    assert not [code for code, _ in findings(enabling, patch) if code == "ftrace"]
    put(enabling, "proc/sys/kernel/ftrace_enabled", "0\n")
    finding = findings(enabling, patch)["ftrace", "/proc/sys/kernel/ftrace_enabled"]
    assert finding.severity is Severity.FATAL
    assert "sysctl kernel.ftrace_enabled=1" in finding.remedy


def test_needed_modules(enabling: Path, patch: Path) -> None:
    """A module that it needs is loaded, or installed, or a warning."""
    put(enabling, "sys/module/plp_target/initstate", "live\n")
    put(enabling, f"lib/modules/{RELEASE}/modules.dep", "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2.ko.xz\n")
    assert findings(enabling, patch)["depends", "nf_tables"].severity is Severity.WARNING
    put(enabling, f"lib/modules/{RELEASE}/modules.dep", "kernel/net/netfilter/nf-tables.ko.xz:\n")
    assert ("depends", "nf_tables") not in findings(enabling, patch)


@pytest.mark.parametrize(("options", "subjects"), [("SMP", set()), ("SMP modversions", {"crc"})])
def test_versions_are_compared_where_the_kernel_does(
    enabling: Path, build_module: Callable[..., Path], options: str, subjects: set[str]
) -> None:
    """Debian's 7.x is built without CONFIG_MODVERSIONS, as the modules that come with it tell: nothing is missing."""
    vermagic = f"{RELEASE} {options}"
    put(enabling, "proc/kallsyms", "ffffffff82000000 R __start___ksymtab\n")
    put(enabling, f"lib/modules/{RELEASE}/modules.dep", "kernel/other.ko:\n")
    put(enabling, f"lib/modules/{RELEASE}/kernel/other.ko", "")
    build_module("other", vermagic=vermagic).rename(enabling / f"lib/modules/{RELEASE}/kernel/other.ko")
    patch = build_module("plp_new", extra=SOURCE, vermagic=vermagic)
    unchecked = {subject for code, subject in findings(enabling, patch) if code == "not-checked"}
    assert unchecked & {"crc", "exports", "vermagic"} == subjects


def test_a_name_of_another_module(enabling: Path, build_module: Callable[..., Path]) -> None:
    """A name that a module has which is no live patch is taken."""
    path = build_module("klpctl", extra=SOURCE, vermagic=f"{RELEASE} SMP")
    finding = findings(enabling, path)["loaded", "klpctl"]
    assert finding.severity is Severity.FATAL
    assert "not a live patch" in finding.message


@pytest.mark.parametrize(
    ("name", "text", "code", "kind"),
    [
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality", "lockdown", AccessError),
        ("sys/module/module/parameters/sig_enforce", "Y", "signature", PatchRejectedError),
        ("proc/sys/kernel/modules_disabled", "1", "modules-disabled", AccessError),
        ("sys/module/plp_new/refcnt", "0", "loaded", PatchStateError),
    ],
)
def test_load_refuses_in_the_same_words(
    enabling: Path, patch: Path, name: str, text: str, code: str, kind: type[LivepatchError]
) -> None:
    """What is fatal is refused by `load`: the same words, and the exception that the kernel's refusal would be."""
    (enabling / "sys/kernel/livepatch/plp_hold/transition").write_text("0\n")
    put(enabling, name, text + "\n")
    [finding] = [each for each in findings(enabling, patch).values() if each.severity is Severity.FATAL]
    assert finding.code == code
    with Core(root=enabling) as core, pytest.raises(kind) as info:
        core.load(patch)
    assert finding.message in str(info.value)
    assert info.value.remedy == finding.remedy


def test_another_build(enabling: Path, patch: Path) -> None:
    """Build ids tell builds of one name apart: that of the kernel, and those of modules that are patched."""
    verdict = Verdict(RELEASE, {"vmlinux": "11" * 20, "plp_target": "22" * 20})
    path = patch.with_name("plp_proved.ko")
    content = patch.with_name("verdict")
    content.write_bytes(verdict.pack())
    subprocess.run(["objcopy", "--add-section", f"{SECTION}={content}", patch, path], check=True)
    (enabling / "sys/kernel/notes").write_bytes(_note("11" * 20))
    assert ("build", "vmlinux") not in findings(enabling, path)
    (enabling / "sys/kernel/notes").write_bytes(_note("33" * 20))
    assert ("build", "vmlinux") not in findings(enabling, patch), "nothing is known of it"
    found = findings(enabling, path)["build", "vmlinux"]
    assert found.severity is Severity.FATAL
    assert "11" * 20 in found.message
    assert "33" * 20 in found.message
    with Core(root=enabling) as core, pytest.raises(LivepatchError, match="another build of this kernel"):
        core.load(path)


def _note(build_id: str) -> bytes:
    return struct.pack("<III4s", 4, len(build_id) // 2, 3, b"GNU\0") + bytes.fromhex(build_id)
