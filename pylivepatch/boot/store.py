# SPDX-License-Identifier: MIT
"""Installed patches: kept per kernel release, applied at boot."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pylivepatch.boot import files, marker
from pylivepatch.elf.file import Image
from pylivepatch.errors import BadDataError, LivepatchError, PatchNotFoundError
from pylivepatch.kernel.names import patch_name
from pylivepatch.module import ModuleFile, check_params

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["Installed", "Store"]

_WHERE = "var/lib/pylivepatch"
_INDEX = "installed.json"
_LOCK = ".lock"
_RELEASE = re.compile(r"[A-Za-z0-9_+~][A-Za-z0-9_.+~-]*\Z")
_SUFFIXES = (".xz", ".zst", ".gz")


@dataclasses.dataclass(frozen=True, slots=True)
class Installed:
    """A patch in the store.

    Attributes:
        name: Name of the patch, which is its module's name.
        release: The kernel release that it is for.
        path: The store's copy of the module file.
        params: Module parameters that it is loaded with.
        crashed: Whether the machine crashed while it was on trial. It is not
            applied then until it is installed again.
    """

    name: str
    release: str
    path: Path
    params: Mapping[str, str]
    crashed: bool = False


class Store:
    """The installed patches of all kernel releases, in the order in which they were installed.

    Every change is whole and on the disk when the call returns: after a crash or a
    power cut the store is as it was before the call, or as it was after it.

    Args:
        root: Where /var/lib and /proc are found.

    Source: /var/lib/pylivepatch/<release>/, of this package alone.
    """

    def __init__(self, *, root: str | os.PathLike[str] = "/") -> None:
        self.root: Path = Path(root)
        self._top = self.root / _WHERE

    def __repr__(self) -> str:
        return f"<Store {self._top}>"

    @property
    def release(self) -> str:
        """The running kernel's release.

        Source: /proc/sys/kernel/osrelease.
        """
        return (self.root / "proc/sys/kernel/osrelease").read_text().strip()

    def releases(self) -> list[str]:
        """List the kernel releases that patches are installed for.

        Raises:
            AccessError: The caller may not read the store.
        """
        # Not a pattern: what may not be read is not nothing.
        with files.translate_errors("the installed patches", self._top, "read"), contextlib.suppress(FileNotFoundError):
            return sorted(folder.name for folder in self._top.iterdir() if (folder / _INDEX).is_file())
        return []

    def patches(self, release: str | None = None) -> list[Installed]:
        """List the patches that are installed for a kernel release, in order.

        Args:
            release: The release; None for the running one.

        Raises:
            BadDataError: That is not a release, or the store's own files are damaged.
            AccessError: The caller may not read the store.
        """
        return self._read(self._folder(self.release if release is None else release))

    def patch(self, name: str, release: str | None = None) -> Installed:
        """Find an installed patch.

        Args:
            name: Its name; "-" is the same as "_".
            release: The kernel release; None for the running one.

        Raises:
            PatchNotFoundError: It is not installed for that release; those that it
                is installed for are named.
            BadDataError: That cannot be a name, or a release.
        """
        release = self.release if release is None else release
        name = patch_name(name)
        for found in self.patches(release):
            if found.name == name:
                return found
        others = [other for other in self.releases() if any(each.name == name for each in self.patches(other))]
        remedy = f"it is installed for {', '.join(others)}: give that release" if others else "install its file first"
        raise PatchNotFoundError(
            f"{name} is not installed for kernel {release}", after="nothing has changed", remedy=remedy
        )

    def install(
        self,
        path: str | os.PathLike[str],
        *,
        release: str | None = None,
        params: Mapping[str, str | int | bool] | None = None,
    ) -> Installed:
        """Copy a module file into the store, to be applied at each boot of its kernel.

        Nothing is loaded. A patch of that name keeps its place in the order, and
        gets the new file and the new parameters; that the machine crashed after it
        is forgotten. Installing the same again changes nothing else.

        Args:
            path: The module file: plain, or compressed as .xz, .zst or .gz.
            release: The kernel release that it must be for; None for the one that
                the file was built for.
            params: Module parameters to load it with.

        Returns:
            The installed patch.

        Raises:
            PatchNotFoundError: There is no such file.
            ModuleFileError: It is not a live patch module for that kernel.
            BadDataError: A parameter is unknown, or cannot be passed, or that is not a release.
            AccessError: The caller is not root.
            KernelError: The file system refused it. In all cases the store is as
                it was before.
        """
        image = Image.read(Path(path))
        file = ModuleFile.of(image)
        name = patch_name(file.name)
        release = file.release if release is None else release
        file.check(release, platform.machine())
        folder = self._folder(release)
        given = {key: _spelled(value) for key, value in (params or {}).items()}
        check_params(file, given)
        suffix = next((suffix for suffix in _SUFFIXES if file.path.suffix == suffix), "")
        fresh = Installed(name, release, folder / f"{name}.ko{suffix}", given)
        with self._changing(folder):
            patches = self._read(folder)
            names = [each.name for each in patches]
            # What was checked is what is stored: the file may be another by now.
            if not fresh.path.is_file() or fresh.path.read_bytes() != image.raw:
                files.write(fresh.path, image.raw)
            if name in names:
                patches[names.index(name)] = fresh
            else:
                patches.append(fresh)
            self._write(folder, patches)
        return fresh

    def uninstall(self, name: str, release: str | None = None) -> Installed:
        """Remove a patch from the store. One that is loaded stays as it is.

        Args:
            name: Its name; "-" is the same as "_".
            release: The kernel release; None for the running one.

        Returns:
            What was removed.

        Raises:
            PatchNotFoundError: It is not installed for that release.
            BadDataError: That cannot be a name, or a release.
            AccessError: The caller is not root. The store is as it was before.
            KernelError: The file system refused it. The store is as it was before.
        """
        found = self.patch(name, release)
        folder = self._folder(found.release)
        with self._changing(folder):
            self._write(folder, [each for each in self._read(folder) if each.name != found.name])
        return found

    def remember_crashes(self) -> list[Installed]:
        """Write down which patches of the running kernel were on trial when the machine crashed.

        `patches` knows it without that; it outlives the next trial with it.

        Returns:
            All patches of the running kernel.

        Raises:
            AccessError: The caller is not root.
            KernelError: The file system refused it.
        """
        folder = self._folder(self.release)
        with files.translate_errors(f"the installed patches of kernel {folder.name}", folder, "read"):
            left = marker.read(folder)
        if left is None or left.boot == self._boot:
            return self.patches()
        with self._changing(folder):
            patches = self._read(folder)
            self._write(folder, patches)
        return patches

    @property
    def _boot(self) -> str:
        return (self.root / "proc/sys/kernel/random/boot_id").read_text().strip()

    def _folder(self, release: str) -> Path:
        if not _RELEASE.match(release):
            raise BadDataError(
                f"{release!r} is not a kernel release",
                after="nothing has changed",
                remedy="give it as uname -r prints it",
            )
        return self._top / release

    @contextlib.contextmanager
    def _changing(self, folder: Path) -> Iterator[None]:
        with files.translate_errors(f"the installed patches of kernel {folder.name}", self._top):
            files.make_directory(self._top, 0o700)
            files.refuse_foreign(self._top)
            with files.exclusive_lock(self._top / _LOCK):
                files.make_directory(folder, 0o700)
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):  # unless it is empty now
                        folder.rmdir()

    def _read(self, folder: Path) -> list[Installed]:
        """Read the index, with what a marker of another boot adds to it."""
        path = folder / _INDEX
        try:
            for each in (self._top, folder, path):
                files.refuse_foreign(each)
            entries = json.loads(path.read_bytes())["patches"]
            patches = [
                Installed(
                    name=patch_name(entry["name"]),
                    release=folder.name,
                    path=folder / Path(entry["file"]).name,
                    params={str(key): str(value) for key, value in entry["params"].items()},
                    crashed=bool(entry["crashed"]),
                )
                for entry in entries
            ]
            for patch in patches:
                with contextlib.suppress(FileNotFoundError):
                    files.refuse_foreign(patch.path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except LivepatchError:
            raise
        except PermissionError:
            with files.translate_errors(f"the installed patches of kernel {folder.name}", path, "read"):
                raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadDataError(
                f"{path} is damaged: {error}",
                after="nothing has changed",
                remedy=f"remove {folder} and install the patches again",
            ) from None
        left = marker.read(folder)
        if left is None or left.boot == self._boot:
            return patches
        return [dataclasses.replace(each, crashed=each.crashed or each.name in left.names) for each in patches]

    def _write(self, folder: Path, patches: list[Installed]) -> None:
        """Write the index; then remove what it has taken over, and what it no longer names."""
        index = folder / _INDEX
        left = marker.read(folder)
        if patches:
            entries = [
                {"name": each.name, "file": each.path.name, "params": dict(each.params), "crashed": each.crashed}
                for each in patches
            ]
            files.write(index, json.dumps({"patches": entries}, indent=1).encode() + b"\n")
        else:
            files.remove(index)
        if left is not None and left.boot != self._boot:
            files.remove(folder / marker.MARKER)
        kept = {each.path.name for each in patches} | {_INDEX}
        for path in folder.iterdir():
            # The marker, and a new one that is being written, are another's to remove.
            if path.name not in kept and not path.name.lstrip(".").startswith(marker.MARKER):
                files.remove(path)


def _spelled(value: str | int | bool) -> str:
    return ("Y" if value else "N") if isinstance(value, bool) else str(value)


def crash_marker(store: Store) -> marker.CrashMarker:
    """The crash marker of the running kernel, in this boot."""
    return marker.CrashMarker(store._folder(store.release), store._boot)
