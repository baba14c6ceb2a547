# SPDX-License-Identifier: MIT
"""The connection to the kernel: without the shim, closed, and in a forked child."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pylivepatch import ClosedError, Core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WITHOUT_SHIM = """
import sys
sys.modules["pylivepatch._shim"] = None
from pylivepatch import Core, Monitor, PatchInfo, Store, UnsupportedError
file, root = sys.argv[1:]
print(PatchInfo.open(file).name, [patch.name for patch in Store(root=root).patches()], len(Core(root=root)))
for call in (lambda: Core("klpctl"), Monitor):
    try:
        call()
    except UnsupportedError as error:
        print(error.feature, "pip install" in error.remedy)
"""


def test_without_the_shim(enabling: Path, build_module: Callable[..., Path]) -> None:
    """Files, the store and sysfs are read where the extension is not compiled; klpctl is refused with the way out."""
    (enabling / "sys/kernel/livepatch").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SHIM, build_module(), enabling], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() in (
        ["plp_tiny [] 3", "shim True", "shim True"],
        # This machine's kernel has no livepatch core, which is found first.
        ["plp_tiny [] 3", "livepatch False", "shim True"],
    ), done


def test_a_closed_core(enabling: Path) -> None:
    """It raises, whatever is asked of it, and of what came from it; closing it again does nothing."""
    core = Core(root=enabling)
    patch = core["plp_foreign"]
    transition = core["plp_hold"].transition
    assert transition is not None
    for _ in range(2):
        core.close()
    for call in (
        core.status,
        core.patches,
        lambda: core["plp_foreign"],
        lambda: len(core),
        lambda: "plp_foreign" in core,
        lambda: core.backend,
        lambda: core.features,
        core.blockers,
        patch.status,
        patch.revert,
        patch.confirm,
        patch.unload,
        transition.progress,
        transition.wait,
        transition.reverse,
        transition.tasks,
    ):
        with pytest.raises(ClosedError, match="is closed"):
            call()
    assert "sysfs" in repr(core)


def test_a_forked_child(enabling: Path) -> None:
    """What was opened by the parent is closed in the child, and says so; the parent's is not touched."""
    with Core(root=enabling) as core:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                core.status()
            except ClosedError as error:
                status = 0 if "forked" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(core) == 3


def test_connections_are_not_copied(enabling: Path) -> None:
    """Pickling a connection, or what came from it, says why not."""
    with Core(root=enabling) as core:
        for thing in (core, core["plp_foreign"], core["plp_hold"].transition, core.kernel):
            for copied in (pickle.dumps, copy.deepcopy):
                with pytest.raises(TypeError, match="cannot be pickled or copied"):
                    copied(thing)


def test_patches_of_two_trees(enabling: Path, tmp_path: Path) -> None:
    """Patches are equal when name and tree are."""
    other = shutil.copytree(enabling, tmp_path / "other")
    with Core(root=enabling) as first, Core(root=enabling) as again, Core(root=other) as second:
        assert first["plp_foreign"] == again["plp_foreign"]
        assert hash(first["plp_foreign"]) == hash(again["plp_foreign"])
        assert first["plp_foreign"] != second["plp_foreign"]
        assert first["plp_foreign"] != "plp_foreign"
        assert first != again
