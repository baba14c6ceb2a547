# SPDX-License-Identifier: MIT
"""The modules of the Ansible collection, run as Ansible runs them, for tests/fleet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pylivepatch import Core, Store

TOP = Path(__file__).parents[3]
VAR = Path("/var/lib/pylivepatch")
Payload = Callable[[str], Path]
Run = Callable[..., dict[str, object]]


@pytest.fixture
def ansible(tmp_path: Path) -> Iterator[Run]:
    """Run a module: `ansible(module, check=…, diff=…, **arguments)`; a failure has the key "failed"."""
    place = tmp_path / "ansible_collections/pylivepatch/livepatch"
    place.parent.mkdir(parents=True)
    place.symlink_to(TOP / "ansible")
    libraries = [str(path) for path in TOP.glob(".venv/lib/python3*/site-packages")]
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), *libraries])
    shutil.rmtree(VAR, ignore_errors=True)

    def run(
        module: str = "livepatch", *, check: bool = False, diff: bool = False, **arguments: object
    ) -> dict[str, object]:
        words = {**arguments, "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": str(tmp_path)}
        (tmp_path / "arguments").write_text(json.dumps({"ANSIBLE_MODULE_ARGS": words}))
        done = subprocess.run(
            [sys.executable, place / f"plugins/modules/{module}.py", tmp_path / "arguments"],
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    yield run
    shutil.rmtree(VAR, ignore_errors=True)


def test_a_patch_comes_is_kept_and_goes(ansible: Run, core: Core, payload: Payload) -> None:
    """Check mode is the preflight and changes nothing; what is so already is no change; each state is reached."""
    file = str(payload("plp_cmdline"))
    tried = ansible(file=file, check=True, diff=True)
    assert (tried["changed"], tried["state"]) == (True, "enabled")
    assert tried["diff"] == {
        "before": "plp_cmdline: absent\n", "after": "plp_cmdline: enabled\n  replaces vmlinux: cmdline_proc_show\n"
    }  # fmt: skip
    assert core.patches() == []
    done = ansible(file=file, confirm_within=600)
    assert (done["changed"], done["state"]) == (True, "enabled")
    assert done["confirmation"]["left"] > 500  # type: ignore[index]
    assert not ansible(file=file, confirm_within=600)["changed"]
    kept = ansible(name="plp-cmdline", state="confirmed")
    assert (kept["changed"], kept["confirmation"]) == (True, None)
    kept = ansible(file=file, state="confirmed", persistent=True)
    assert kept["changed"]
    assert [each.name for each in Store().patches()] == ["plp_cmdline"]
    assert not ansible(file=file, state="confirmed", persistent=True)["changed"]
    info = ansible("livepatch_info")
    assert [each["name"] for each in info["patches"]] == ["plp_cmdline"]  # type: ignore[attr-defined]
    assert (info["kernel"], info["cves"], info["missing"]) == (core.release, [], [])
    gone = ansible(name="plp_cmdline", state="absent")
    assert (gone["changed"], gone["state"]) == (True, "absent")
    assert (core.patches(), Store().patches()) == ([], [])
    assert not ansible(name="plp_cmdline", state="absent")["changed"]


def test_what_is_refused(ansible: Run, core: Core, payload: Payload) -> None:
    """Nothing has changed then."""
    file = str(payload("plp_cmdline"))
    for words, arguments in (
        ("does not say that it fixes CVE-2026-1", {"file": file, "cves": ["CVE-2026-1"]}),
        ("is not loaded: give its file", {"name": "plp_cmdline"}),
        ("there is nothing to confirm", {"file": file, "state": "confirmed"}),
        ("cannot be confirmed", {"file": str(payload("plp_foreign")), "confirm_within": 600}),
        ("nosuch: the module has no parameter", {"file": file, "params": {"nosuch": 1}, "check": True}),
        ("nosuch", {"file": file, "params": {"nosuch": 1}}),
        ("/nosuch.ko", {"file": "/nosuch.ko"}),
    ):
        done = ansible(**arguments)  # type: ignore[arg-type]
        assert done["failed"], arguments
        assert words in str(done["msg"]), done
        assert core.patches() == []
