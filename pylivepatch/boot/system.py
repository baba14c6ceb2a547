# SPDX-License-Identifier: MIT
"""What the system needs to call pylivepatch: a systemd unit, a udev rule, a directory of hooks."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from pylivepatch.boot import files
from pylivepatch.errors import BadDataError, UnsupportedError

UNIT = Path("etc/systemd/system/pylivepatch.service")
HOOKS = Path("etc/pylivepatch/hooks.d")
RELOAD = ("systemctl daemon-reload", "udevadm control --reload", "journalctl --update-catalog")
"""What makes systemd and udevd see that files were written or removed."""
ENABLE = "systemctl enable pylivepatch.service"

_HERE = Path(__file__).parents[1]
_FILES = (
    (_HERE / "_systemd/pylivepatch.service", UNIT, 0o644),
    (_HERE / "_systemd/pylivepatch.catalog", Path("usr/lib/systemd/catalog/pylivepatch.catalog"), 0o644),
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
        UnsupportedError: This package, or its Python, can be changed by others than root, who
            would have root run their code at each boot. Nothing was written.
        AccessError: The caller is not root. Some may have been written.
        KernelError: The file system refused it. Some may have been written.
    """
    # Below another root nothing runs as root.
    owners = (0,) if root == Path("/") else (0, os.geteuid())
    unit = with_command(_FILES[0][0].read_text(), owners)
    with files.translate_errors("the system's files", root):
        for source, target, mode in _FILES:
            path = root / target
            text = unit if target == UNIT else source.read_text()
            files.make_directory(path.parent)
            files.write(path, text.encode(), mode)
        files.make_directory(root / HOOKS)
    return [root / target for _, target, _ in _FILES]


def uninstall(root: Path = Path("/")) -> list[Path]:
    """Remove the files, what enabled the unit, and the directory of hooks if it is empty.

    Returns:
        What was removed.

    Raises:
        AccessError: The caller is not root. Some may have been removed.
    """
    found = [root / target for _, target, _ in _FILES]
    # The links of systemctl enable, which would lead nowhere.
    found += sorted((root / UNIT).parent.glob(f"*.wants/{UNIT.name}"))
    removed = [path for path in found if path.is_file() or path.is_symlink()]
    with files.translate_errors("the system's files", root):
        for path in removed:
            files.remove(path)
        hooks = root / HOOKS
        if hooks.is_dir() and not any(hooks.iterdir()):
            hooks.rmdir()
    return removed


def with_command(unit: str, owners: tuple[int, ...] = (0,)) -> str:
    """Have a unit call this very package, by its command if that is the one that systemd finds.

    Args:
        unit: The unit's text.
        owners: Who may own the package and its Python.

    Raises:
        UnsupportedError: Others than root can change it.
    """
    python = Path(sys.executable)
    for path in (python, python.resolve(), _HERE):
        _refuse_foreign(path, owners)
    found = shutil.which("pylivepatch", path=os.pathsep.join(_SEARCHED))
    if found and Path(found).resolve().parent == python.parent.resolve():
        return unit
    command = " ".join(_quoted(word) for word in (str(python), "-P", "-m", "pylivepatch"))
    return unit.replace(_COMMAND, f"ExecStart={command} ")


def _refuse_foreign(path: Path, owners: tuple[int, ...]) -> None:
    for each in (path, *path.parents):
        try:
            files.refuse_foreign(each, owners, sticky=True)
        except BadDataError as error:
            raise UnsupportedError(
                f"{path} is not for root to run at each boot: {error.message}",
                feature="system",
                remedy="install pylivepatch where root alone can change it: as a package, or in a venv below /opt",
            ) from None


def _quoted(word: str) -> str:
    """Quote a word as systemd reads it; % and $ would be more than they are.

    Source: systemd.service(5), "Command lines".
    """
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
