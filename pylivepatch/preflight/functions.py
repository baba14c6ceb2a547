# SPDX-License-Identifier: MIT
"""The preflight's checks of the functions that a patch replaces: where they are, who else is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylivepatch.elf.file import Image
from pylivepatch.errors import LivepatchError
from pylivepatch.kernel import probes
from pylivepatch.module.declared import Declared, UnreadableError, code
from pylivepatch.module.info import module_file
from pylivepatch.preflight.candidate import ROOT, Candidate, fatal, info, unchecked, warning
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylivepatch.preflight import Finding

_LIVEPATCH = "klp_ftrace_handler"
# The call at a function's entry follows an ENDBR, which has 4 bytes (CONFIG_X86_KERNEL_IBT, 5.18).
_ENTRY = 4


def look(candidate: Candidate) -> Iterator[Finding]:
    """Look at objects, and at the patches that the kernel has already."""
    if not isinstance(candidate.declared, Declared):
        yield unchecked("functions", f"they cannot be read from the file: {candidate.declared}")
        return
    for each in candidate.declared.objects:
        if not candidate.loaded(each.name):
            yield info("object", each.name, "this module is not loaded; it is patched when it is")
    for part, func in candidate.functions:
        patches = [name for name in candidate.patched_by(part, func) if name != candidate.name]
        if patches and not candidate.declared.replace:
            yield info("stacked", func, f"{', '.join(patches)} replaces it already; this patch comes on top")
    if candidate.declared.replace:
        for status in candidate.patches:
            if status.state is PatchState.ENABLED and status.name != candidate.name:
                yield info("replaces", status.name, "it is enabled, and is replaced when this patch is enabled")


def bypassed(candidate: Candidate) -> Iterator[Finding]:
    """Look for patches that have code of their own of a function, which this patch on top would not reach."""
    if not isinstance(candidate.declared, Declared) or candidate.declared.replace:
        return
    for status in candidate.patches:
        if status.name == candidate.name or status.state is not PatchState.ENABLED:
            continue
        path = module_file(candidate.root, candidate.release, status.name)
        if path is None:
            theirs = {(part.name, func.name) for part in status.objects for func in part.funcs}
            if theirs & candidate.functions.keys() and theirs - candidate.functions.keys():
                yield unchecked(status.name, "whether its code reaches this patch: its file is not installed")
            continue
        try:
            own = code(Image.read(path))
        except (UnreadableError, LivepatchError, ValueError) as error:
            yield unchecked(status.name, f"whether its code reaches this patch: {error}")
            continue
        for part, func in candidate.functions:
            if (part, func) in own.called or func in own.cloned:
                yield fatal(
                    "bypassed",
                    func,
                    f"{status.name}, which is enabled, has code of this function that it calls itself: this patch on "
                    "top would have no effect there",
                    "make one patch of both diffs that replaces it: pylivepatch build --replace",
                )


def owners(candidate: Candidate) -> Iterator[Finding]:
    """Look for kprobes and users of ftrace on the functions."""
    if not candidate.functions:
        return
    try:
        for kprobe in probes.kprobes(candidate.root):
            yield from _kprobe(candidate, kprobe)
    except OSError as error:
        yield _unreadable("kprobes", "/sys/kernel/debug/kprobes/list", error)
    try:
        for traced in probes.traced(candidate.root):
            yield from _traced(candidate, traced)
    except OSError as error:
        yield _unreadable("ftrace", "/sys/kernel/tracing/enabled_functions", error)


def _unreadable(subject: str, path: str, error: OSError) -> Finding:
    if isinstance(error, PermissionError):
        return unchecked(subject, f"only root may read {path}", ROOT)
    return unchecked(subject, f"{path} cannot be read: {error.strerror}", "mount debugfs and tracefs")


def _kprobe(candidate: Candidate, kprobe: probes.Kprobe) -> Iterator[Finding]:
    if (kprobe.module or "vmlinux", kprobe.func) not in candidate.functions or kprobe.disabled:
        return
    kind = "kretprobe" if kprobe.kretprobe else "kprobe"
    if kprobe.offset > _ENTRY:
        yield warning(
            "kprobe",
            kprobe.func,
            f"a {kind} inside it, at +0x{kprobe.offset:x}, is not hit any more when it is replaced",
            "move the probe to the function of the patch",
        )
    else:
        yield info("kprobe", kprobe.func, f"a {kind} is on it, and stays on the old function's entry")


def _traced(candidate: Candidate, traced: probes.Traced) -> Iterator[Finding]:
    part = traced.module or "vmlinux"
    if (part, traced.func) not in candidate.functions:
        return
    mine = _LIVEPATCH in traced.handlers or candidate.patched_by(part, traced.func)
    if traced.ipmodify and not mine:
        by = f" ({', '.join(traced.handlers)})" if traced.handlers else ""
        yield fatal(
            "owner",
            traced.func,
            f"something else decides already where it goes{by}: a kprobe with a post-handler, or another user of "
            "ftrace with IPMODIFY; there can be one",
            "remove that kprobe or tracer first",
            candidate.stage,
        )
    if traced.direct:
        yield warning(
            "direct",
            traced.func,
            "ftrace calls a trampoline directly from it: a BPF program shares it with a patch (since Linux 6.0), "
            "others may not",
            "detach what is attached to it if the patch is refused",
        )
