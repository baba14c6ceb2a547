# SPDX-License-Identifier: MIT
"""The guest's root file system: an ext4 image of the distribution's packages, made without root."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pylivepatch.lab import apt, archive, cache, lists, rootfs, tools
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.kernel import Kernel
from pylivepatch.lab.sandbox import Sandbox

PACKAGES = (
    "base-files", "bash", "busybox-static", "coreutils", "dash", "findutils", "grep", "iproute2", "kmod", "libkmod2",
    "libmnl0", "mount", "passwd", "procps", "python3", "python3-capstone", "python3-cffi-backend", "python3-click",
    "python3-prometheus-client", "python3-pyelftools", "python3-pytest", "python3-pyudev", "python3-rich",
    "python3-zstandard", "sed", "systemd", "udev", "util-linux", "xz-utils", "zstd",
)  # fmt: skip
"""What the guest has, with what these depend on."""

LEFT_OUT = re.compile(rf"perl.*|libperl.*|libdb5.*|libgdbm.*|{rootfs.LEFT_OUT.pattern}")

FORMAT = 6
"""Raised when the making of the image changes, so that old ones are not used."""

USER = "user"
"""The guest's ordinary user, uid and gid 1000, for what must not be allowed."""

_PASSWD = f"""root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/:/usr/sbin/nologin
{USER}:x:1000:1000:An ordinary user:/home/{USER}:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""

_PAM = "auth sufficient pam_rootok.so\naccount required pam_permit.so\nsession required pam_permit.so\n"

_GROUPS = ("root:0 daemon:1 tty:5 disk:6 lp:7 kmem:15 dialout:20 cdrom:24 tape:26 audio:29 video:44 "
           f"utmp:43 shadow:42 input:104 sgx:105 kvm:106 render:107 {USER}:1000 nogroup:65534")


@dataclass(frozen=True, slots=True)
class Image:
    """The root file system in the cache.

    Attributes:
        path: The cache entry.
        key: Its name, for what is derived from it.
    """

    path: Path
    key: str

    @property
    def disk(self) -> Path:
        """The ext4 image."""
        return self.path / "root.img"

    @property
    def tree(self) -> Path:
        """The same files as a directory."""
        return self.path / "tree"

    @property
    def busybox(self) -> Path:
        """The static busybox that the guest starts with."""
        return next(path for path in (self.tree / "bin/busybox", self.tree / "usr/bin/busybox") if path.exists())


def _settle(tree: Path) -> None:
    """Do what the packages' own scripts would have done, as far as the guest needs it."""
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "opt", "var/tmp", "var/log", f"home/{USER}"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    etc = tree / "etc"
    (etc / "passwd").write_text(_PASSWD)
    pairs = [pair.split(":") for pair in _GROUPS.split()]
    (etc / "group").write_text("".join(f"{name}:x:{number}:\n" for name, number in pairs))
    (etc / "shadow").write_text(f"root:*:19000::::::\n{USER}:*:19000::::::\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
    (etc / "hosts").write_text("127.0.0.1 localhost lab\n::1 localhost\n")
    (etc / "hostname").write_text("lab\n")
    (etc / "machine-id").write_text("6c61626c61626c61626c61626c616200\n")
    for name in ("su", "su-l", "runuser", "runuser-l"):  # debconf would have written what these include
        (etc / "pam.d").mkdir(exist_ok=True)
        (etc / "pam.d" / name).write_text(_PAM)
    for name, target in (("mtab", "../proc/self/mounts"), ("localtime", "/usr/share/zoneinfo/UTC")):
        (etc / name).unlink(missing_ok=True)
        (etc / name).symlink_to(target)


def compile_python(tree: Path, top: Path, *, as_seen: str) -> None:
    """Compile the Python files below *top* with the Python of *tree*, so that the guest need not.

    Args:
        tree: The root file system.
        top: What to compile.
        as_seen: The path of *top* in the guest, for tracebacks.
    """
    command = ["python3", "-s", "-E", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
               "-x", "/(test|tests|idlelib|lib2to3)/", "-s", str(top), "-p", as_seen, str(top)]  # fmt: skip
    done = Sandbox(write=(top,), root=tree).run(command, what=f"compiling the Python files of {as_seen}", cwd=top)
    if done.status:
        raise LabError(f"compiling the Python files of {as_seen} failed:\n{done.output()}")


def _as_root(argv: list[str]) -> list[str]:
    """Return *argv* such that the caller's files look like root's."""
    return argv if os.geteuid() == 0 else ["unshare", "--map-root-user", *argv]


def _fill(packages: Sequence[apt.Package], distribution: str, into: Path) -> None:
    tree = into / "tree"
    rootfs.make(packages, tree, into / "debs", distribution)
    _settle(tree)
    compile_python(tree, tree / "usr/lib/python3", as_seen="/usr/lib/python3")
    library = next((tree / "usr/lib").glob("python3.*"))
    compile_python(tree, library, as_seen=f"/usr/lib/{library.name}")
    size = sum(path.lstat().st_size + 4096 for path in tree.rglob("*"))
    disk = into / "root.img"
    mke2fs = [tools.find("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum,^64bit", "-m", "0",
              "-E", "root_owner=0:0,lazy_itable_init=1", "-U", "clear", "-d", str(tree), str(disk),
              f"{size // 1024 * 11 // 10 + 256 * 1024}k"]
    tools.call(_as_root(mke2fs), what="making the guest's root file system")


def distribution_for(kernel: Kernel) -> str:
    """Return the distribution of the guest's user space for *kernel*.

    It is the kernel's own, or a later one when this machine's C library is later: the guest uses the package as it
    was compiled here.
    """
    names = list(lists.DISTRIBUTIONS)
    here = os.confstr("CS_GNU_LIBC_VERSION") or ""
    later = names.index(kernel.distribution) if kernel.distribution in names else 0
    for name in names[later:]:
        if lists.version_key(_libc(name)) >= lists.version_key(here.removeprefix("glibc ")):
            return name
    return names[-1]


def _libc(distribution: str) -> str:
    """Return the version of the C library of *distribution*."""
    return archive.state().libraries()[distribution]


def resolve(kernel: Kernel) -> Image:
    """Return the root image for *kernel*, of the packages' newest versions, made in the cache if need be.

    Without a network the one that was used last is taken, with a notice.

    Raises:
        LabError: A package cannot be had, and no image is in the cache.
    """
    distribution = distribution_for(kernel)
    prefix = f"{distribution}-{cache.digest([str(FORMAT), *PACKAGES])}-"
    check = ("root.img", "tree/etc/passwd", "tree/usr/bin/python3")
    try:
        packages = rootfs.closure(PACKAGES, distribution, LEFT_OUT)
        path = cache.entry("images", prefix + cache.digest(package.pin for package in packages),
                           lambda into: _fill(packages, distribution, into), check=check,
                           notice=f"making the guest's root file system of {distribution}")
    except LabError as error:
        kept = cache.kept("images", prefix, check)
        if kept is None:
            raise
        cache.say(f"using the cached root file system {kept.name}: {str(error).splitlines()[0]}")
        path = kept
    return Image(path, path.name)
