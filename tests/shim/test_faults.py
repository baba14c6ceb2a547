# SPDX-License-Identifier: MIT
"""Allocations that fail, one by one."""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parents[1]


def test_each_allocation_fails_once(tmp_path):
    """Whatever fails, a call says so or does without, frees what it has, and the next call is as before."""
    program = tmp_path / "faults"
    sources = [HERE / "faults.c", *sorted((TOP / "csrc").glob("*.c"))]
    command = ["gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{TOP / 'csrc'}"]
    command += [f"-I{TOP / 'kmod/uapi'}", *sources, "-lmnl", "-lkmod", "-o", program]
    subprocess.run(command, check=True)
    (tmp_path / "text.ko").write_text("this is not a module\n")
    done = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    swept = re.findall(r"^([a-z ]+): (\d+) allocations, (\d+) refused$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in swept] == ["netlink", "insert", "insert a missing one", "probe"]
    assert all(int(refused) > 0 for _, _, refused in swept), done.stdout
