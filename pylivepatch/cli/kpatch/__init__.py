# SPDX-License-Identifier: MIT
"""``pylivepatch-kpatch``: kpatch's commands, with its arguments, its lines and its exit codes, done by pylivepatch.

For scripts and playbooks that call ``kpatch``: link the program to that name. What
kpatch itself has installed below /var/lib/kpatch is found, loaded, listed and uninstalled
as well; what is installed from now on is in the store of ``pylivepatch install``.
"""

from __future__ import annotations

import getopt
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pylivepatch.boot.store import Store
from pylivepatch.cli.kpatch.change import (
    SYSFS,
    disable,
    in_transition,
    load_module,
    remove,
    show_stalled,
    signal_stalled,
    unload_all,
)
from pylivepatch.cli.kpatch.installed import OLD_STORE, find, installed, module_name
from pylivepatch.cli.kpatch.report import FailedError, Usage, out, warn
from pylivepatch.core import Core
from pylivepatch.errors import LivepatchError
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KPATCH_VERSION = "0.9.11"
"""The kpatch whose habits these are; ``version`` prints it, since callers compare it."""


_USAGE = """\
usage: kpatch <command> [<args>]

Valid commands:
   install [-k|--kernel-version=<kernel version>] <module>
      install patch module to be loaded at boot
   uninstall [-k|--kernel-version=<kernel version>] <module>
      uninstall patch module

   load --all
      load all installed patch modules into the running kernel
   load <module>
      load patch module into the running kernel
   unload --all
      unload all patch modules from the running kernel
   unload <module>
      unload patch module from the running kernel

   info <module>
      show information about a patch module

   list
      list installed patch modules, and the functions that are livepatched now
      where the kernel tells the order of its patches

   signal
      signal any process stalling the current patch transition; the kernel does
      so by itself
   force
      end the current patch transition without waiting for the processes
      stalling it; this may crash the kernel

   version
      display the version of kpatch that this is compatible with
"""


def main() -> NoReturn:
    """Run the program; exits with 0 or 1 as kpatch does, and with 130 after Ctrl-C."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run a command; return its exit code."""
    try:
        command = _COMMANDS.get(words[0]) if words else None
        if command is None:
            if words and words[0] not in ("help", "-h", "--help"):
                out(f"subcommand {words[0]} not recognized")
            raise Usage
        command(list(words[1:]))
    except Usage:
        sys.stderr.write(_USAGE)
    except FailedError as failure:
        warn(str(failure))
    except LivepatchError as error:
        warn(str(error))
    except KeyboardInterrupt:
        warn("interrupted; what has been started goes on: see kpatch list")
        return 130
    else:
        return 0
    return 1


# ---- commands ----


def _load(words: list[str]) -> None:
    [name] = _exactly(1, words)
    with Core() as core:
        if name != "--all":
            path = find(name)
            if path is None:
                raise FailedError(f"can't find {name}")
            load_module(core, path)
            return
        for _, path in installed(os.uname().release):
            load_module(core, path)


def _unload(words: list[str]) -> None:
    [name] = _exactly(1, words)
    with Core() as core:
        if name == "--all":
            unload_all(core)
            return
        module = module_name(name)
        disable(core, module)
        remove(core, module)


def _install(words: list[str]) -> None:
    release, file = _options(words)
    if not file:
        raise FailedError("no module file specified")
    path = Path(file)
    if not path.exists():
        raise FailedError(f"{file} doesn't exist")
    if path.suffix != ".ko":
        raise FailedError(f"{file} isn't a .ko file")
    module = ModuleFile.open(path)
    if module.release != release:
        raise FailedError(f"invalid module version {module.release} for kernel {release}")
    name = patch_name(module.name)
    if any(name == each for each, _ in installed(release)):
        raise FailedError(f"{file} is already installed")
    out(f"installing {file} ({release})")
    Store().install(path, release=release)


def _uninstall(words: list[str]) -> None:
    release, file = _options(words)
    if not file:
        raise FailedError("no module file specified")
    if file != Path(file).name:
        raise FailedError("please supply patch module name without path")
    name = module_name(file)
    paths = [path for each, path in installed(release) if each == name]
    if not paths:
        raise FailedError(f"{file} is not installed for kernel {release}")
    out(f"uninstalling {file} ({release})")
    for path in paths:
        if path.is_relative_to(OLD_STORE):
            path.unlink()
        else:
            Store().uninstall(name, release)


def _list(words: list[str]) -> None:
    _exactly(0, words)
    out("Loaded patch modules:")
    with Core() as core:
        for status in core.status():
            dots = "..." if status.state.in_transition else ""
            word = status.state if status.state in _KPATCH_HAS else PatchState.DISABLED
            out(f"{status.name} [{word}{dots}]")
        show_stalled(core)
    out("")
    out("Installed patch modules:")
    old = {path.name for path in OLD_STORE.glob("*") if path.is_dir()}
    for release in sorted({*Store().releases(), *old}):
        for name, _ in installed(release):
            out(f"{name} ({release})")
    _show_functions()


def _info(words: list[str]) -> None:
    [name] = _exactly(1, words)
    path = find(name)
    if path is None:
        raise FailedError(f"can't find {name}")
    out(f"Patch information for {name}:")
    if subprocess.run(["modinfo", path], check=False).returncode:
        raise FailedError(f"failed to get info for module {name}")


def _signal(words: list[str]) -> None:
    _exactly(0, words)
    with Core() as core:
        if in_transition(core):
            signal_stalled()


def _force(words: list[str]) -> None:
    _exactly(0, words)
    with Core() as core:
        patch = in_transition(core)
        if patch is not None:
            out(f"forcing transition of patch module: {patch.name}")
            patch.force(accept_risk=True)


def _version(words: list[str]) -> None:
    _exactly(0, words)
    out(KPATCH_VERSION)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "load": _load,
    "unload": _unload,
    "install": _install,
    "uninstall": _uninstall,
    "list": _list,
    "info": _info,
    "signal": _signal,
    "force": _force,
    "version": _version,
    "-v": _version,
    "--version": _version,
}

_KPATCH_HAS = (PatchState.ENABLED, PatchState.ENABLING, PatchState.DISABLED, PatchState.DISABLING)


def _show_functions() -> None:
    """Which patch each function that is livepatched now comes from, where the kernel tells the order of patches.

    Source: /sys/kernel/livepatch/<patch>/stack_order (6.14).
    """
    top: dict[tuple[str, str], tuple[int, str]] = {}
    for order in (SYSFS / "kernel/livepatch").glob("*/stack_order"):
        patch = order.parent
        try:
            place = int(order.read_text())
            mark = " (transition)" if (patch / "transition").read_text().strip() == "1" else ""
        except FileNotFoundError:
            continue
        for func in patch.glob("*/*,*/"):
            key = func.parent.name, func.name
            top[key] = max(top.get(key, (0, "")), (place, f"{patch.name}\0{mark}"))
    if not top:
        return
    rows = [("Module", "Object", "Function/Occurrence")]
    for (obj, func_name), (_, text) in sorted(top.items()):
        module, _, mark = text.partition("\0")
        rows.append((module, obj, f"{func_name}{mark}"))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    out("")
    out("Currently livepatched functions:")
    for row in rows:
        out(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")


# ---- arguments ----


def _options(words: list[str]) -> tuple[str, str]:
    """Read ``[-k RELEASE] FILE``; of several files the last counts, as with kpatch."""
    try:
        options, rest = getopt.gnu_getopt(words, "k:", ["kernel-version="])
    except getopt.GetoptError as error:
        warn(str(error))
        raise FailedError("getopt failed") from None
    return (options[-1][1] if options else os.uname().release), (rest[0] if rest else "")


def _exactly(count: int, words: list[str]) -> list[str]:
    if len(words) != count:
        raise Usage
    return words
