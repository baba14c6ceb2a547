# SPDX-License-Identifier: MIT
"""What the system needs to call pylivepatch: a systemd unit, a udev rule, a directory of hooks."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from pylivepatch.boot import files

UNIT = Path("etc/systemd/system/pylivepatch.service")
HOOKS = Path("etc/pylivepatch/hooks.d")
RELOAD = ("systemctl daemon-reload", "udevadm control --reload", "systemctl enable pylivepatch.service")
"""What makes systemd and udevd use the files."""

_HERE = Path(__file__).parents[1]
_FILES = (
    (_HERE / "_systemd/pylivepatch.service", UNIT, 0o644),
    (_HERE / "_udev/90-pylivepatch.rules", Path("etc/udev/rules.d/90-pylivepatch.rules"), 0o644),
    (_HERE / "_udev/pylivepatch-hooks", Path("usr/lib/udev/pylivepatch-hooks"), 0o755),
)
_COMMAND = "ExecStart=pylivepatch "
# Where systemd looks for a command without a path.
_SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")


def install(root: Path = Path("/")) -> list[Path]:
    """Write the files, over older ones, and make the directory of hooks.

    Args:
        root: Where /etc and /usr are.

    Returns:
        The files.

    Raises:
        AccessError: The caller is not root. Some may have been written.
        KernelError: The file system refused it. Some may have been written.
    """
    with files.translate_errors("the system's files", root):
        for source, target, mode in _FILES:
            path = root / target
            text = source.read_text()
            if target == UNIT:
                text = with_command(text)
            files.make_directory(path.parent)
            files.write(path, text.encode())
            path.chmod(mode)
        files.make_directory(root / HOOKS)
    return [root / target for _, target, _ in _FILES]


def uninstall(root: Path = Path("/")) -> list[Path]:
    """Remove the files, and the directory of hooks if it is empty.

    Raises:
        AccessError: The caller is not root. Some may have been removed.
    """
    gone = [root / target for _, target, _ in _FILES if (root / target).is_file()]
    with files.translate_errors("the system's files", root):
        for path in gone:
            files.remove(path)
        hooks = root / HOOKS
        if hooks.is_dir() and not any(hooks.iterdir()):
            hooks.rmdir()
    return gone


def with_command(unit: str) -> str:
    """Have a unit call this very package, when systemd would not find its command by itself."""
    if shutil.which("pylivepatch", path=os.pathsep.join(_SEARCHED)):
        return unit
    command = shlex.join([sys.executable, "-P", "-m", "pylivepatch"])
    return unit.replace(_COMMAND, f"ExecStart={command} ")
