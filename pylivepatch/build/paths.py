# SPDX-License-Identifier: MIT
"""Files of the kernel that no patch can change, or that no patch needs to: by their path."""

from __future__ import annotations

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """Why a file cannot be patched.

    Attributes:
        pattern: The paths.
        kind: The rule's name.
        reason: Why.
        remedy: What to do instead.
    """

    pattern: re.Pattern[str]
    kind: str
    reason: str
    remedy: str


_OTHERS = "what a patch needs can be done in code that uses it"

RULES = tuple(Rule(re.compile(pattern), kind, reason, remedy) for pattern, kind, reason, remedy in (
    (r"arch/x86/kernel/asm-offsets\w*\.c|kernel/bounds\.c|(?:.*/)[\w-]+-offsets\.c", "assembly",
     "it makes the constants that assembly is built with, and the running kernel is built", "leave it out of the diff"),
    (r"(?:.*/)?(?:Kconfig[^/]*|Makefile[^/]*|Kbuild[^/]*)\Z|scripts/|.*\.(?:lds|lds\.S|tbl|rs|asn1)\Z", "build-system",
     "it decides what is built and how, and the running kernel is built", "leave it out of the diff"),
    (r"arch/x86/(?:entry/vdso|um/vdso)/|.*/vdso/|include/vdso/|lib/vdso/|arch/x86/(?:purgatory|boot|realmode)/", "vdso",
     "its code runs in user space, or before or after this kernel", "it cannot be patched live"),
    (r".*\.S\Z", "assembly", "assembly has no functions that can be traced and replaced",
     "change the C code that calls it"),
    (r"kernel/livepatch/|kernel/trace/(?:ftrace|fgraph|trace_recursion)[^/]*\.c|arch/x86/kernel/"
     r"(?:ftrace|alternative|jump_label|static_call|unwind_orc|unwind_frame|stacktrace|module|kprobes/)[^/]*"
     r"|kernel/(?:jump_label|static_call|static_call_inline|kallsyms|stacktrace|stop_machine)\.c"
     r"|kernel/module/(?:main|livepatch|kallsyms)\.c|arch/x86/mm/(?:pat/set_memory|extable)\.c"
     r"|lib/(?:string|bsearch|sort|ctype|memcpy_\w+|memmove_\w+|memset_\w+)\.c"
     r"|arch/x86/lib/(?:insn|inat|insn-eval|memcpy_\w+|memmove_\w+)\.c",
     "patching-itself", "patching itself runs through it", _OTHERS),
))

_ANYWHERE = frozenset({"build-system", "assembly"})
"""Rules that hold for modules of another source, too."""

_NO_CODE = re.compile(
    r"(?:.*/)?(?:README|COPYING|LICENSE|dkms\.conf)\Z|.*\.(?:rst|txt|yaml|json|md)\Z|(?:.*/)?\.[^/]*\Z")
_IGNORED = re.compile(
    r"(?:Documentation|tools|samples|LICENSES|debian|usr|rust)/|arch/(?!x86/)|(?:MAINTAINERS|CREDITS|README|COPYING)\Z"
    r"|\.[^/]*\Z|.*\.(?:rst|txt|yaml|json|md|dts|dtsi)\Z|.*/(?:selftests|kunit)/")


def refused(path: str, *, is_kernel: bool = True) -> Rule | None:
    """Return the rule by which *path* cannot be patched, or None.

    Args:
        path: From the top of the source.
        is_kernel: Whether that is the kernel's own source, where a path says what a file is.
    """
    rules = RULES if is_kernel else [rule for rule in RULES if rule.kind in _ANYWHERE]
    return next((rule for rule in rules if rule.pattern.match(path)), None)


def ignored(path: str, *, is_kernel: bool = True) -> bool:
    """Tell whether *path* is no code of this kernel."""
    return bool((_IGNORED if is_kernel else _NO_CODE).match(path))
