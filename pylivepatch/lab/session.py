# SPDX-License-Identifier: MIT
"""One run of the lab: everything made ready, one guest, one command."""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pylivepatch.errors import BadDataError, LivepatchError
from pylivepatch.lab import accel, cache, image, initramfs, module, package, script, share
from pylivepatch.lab import kernel as kernel_module
from pylivepatch.lab.errors import LabError
from pylivepatch.lab.guest import Guest, Machine, Sink

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TIMEOUT = 1800.0
"""Seconds that a command may take unless told otherwise."""

KEPT = 64 << 20
"""Bytes of a command's output that are kept, where it is kept."""

LEAST_MEMORY = 256 << 20


def parse_size(text: str) -> int:
    """Return the number of bytes that *text* says: a number with K, M or G, or bytes.

    Raises:
        BadDataError: It does not say a size, or one that is too small for a guest.
    """
    match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise BadDataError(f"memory size {text!r}: expected a number with K, M or G, for example 1G")
    size = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2].upper()]
    if size < LEAST_MEMORY:
        raise BadDataError(f"memory size {text!r}: a guest needs {LEAST_MEMORY >> 20}M at least")
    return size


class Kept(io.BytesIO):
    """An output of a guest's command that is kept: `KEPT` bytes at most."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Keep *data*.

        Raises:
            LabError: It becomes too much; the guest is stopped then.
        """
        written = super().write(data)
        if self.tell() > KEPT:
            raise LabError(f"the command in the guest printed more than {KEPT >> 20} MiB, which are not kept")
        return written


def _writer(stream: BinaryIO) -> Sink:
    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write


def _modules(target: kernel_module.Kernel, directories: Sequence[Path], core: module.Built | None) -> dict[str, bytes]:
    """Build the modules of *directories*, or of the directories in them, and return name to content."""
    found: dict[str, bytes] = {}
    for given in directories:
        place = given.resolve()
        if not place.is_dir():
            raise BadDataError(f"no modules to build in {given}: not a directory")
        places = [place]
        if not any((place / name).is_file() for name in ("Kbuild", "Makefile")):
            places = sorted({file.parent for name in ("Kbuild", "Makefile") for file in place.glob(f"*/{name}")})
        if not places:
            raise BadDataError(f"no modules to build in {given}: no Kbuild there or one level below")
        for each in places:
            for path in module.build(target, each, using=[core] if core else []).modules:
                if path.name in found:
                    raise LabError(f"two modules are named {path.name}; the second one is in {each}")
                found[path.name] = path.read_bytes()
    return found


@contextmanager
def _run_folder() -> Iterator[Path]:
    """Give a directory for one run; remove it afterwards, with those that killed runs left behind.

    It is in the cache, where nobody else can put something in the way.
    """
    runs = cache.root() / "runs"
    runs.mkdir(exist_ok=True)
    for left in runs.iterdir():
        with suppress(OSError), open(left / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=runs) as name, open(Path(name) / "new", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (Path(name) / "new").rename(Path(name) / "lock")
        yield Path(name)


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Make a LabError of what the system refuses: a full disk, a file that cannot be written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LivepatchError):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise LabError(f"{error.strerror or error}{where}; the guest, if there was one, was stopped") from error


@_translate_errors()
def run(
    command: Sequence[str],
    *,
    kernel: str,
    flavour: str = "standard",
    suite: str = "",
    cpus: int = 2,
    memory: str = "1G",
    shares: Sequence[str | os.PathLike[str]] = (),
    writable: Sequence[str | os.PathLike[str]] = (),
    modules: Sequence[str | os.PathLike[str]] = (),
    timeout: float = TIMEOUT,
    environment: Mapping[str, str] | None = None,
    klpctl: bool = True,
    kaslr: bool = False,
    parameters: str = "",
    console: str | os.PathLike[str] | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    prepared: Callable[[kernel_module.Kernel], None] | None = None,
) -> int:
    """Run *command* as root in a guest with a stock kernel, and return its exit status.

    The guest has this package importable and its command on PATH, klpctl where modprobe finds it (not
    loaded), udevd running, and `PYLIVEPATCH_LAB=1` in the environment. Its own files are forgotten when it
    ends; shared directories are the host's own.

    Args:
        command: Program and arguments.
        kernel: Series, for example "6.1": the newest stock kernel of it is taken; or a whole release, for
            example "6.1.0-54-amd64".
        flavour: "standard", "cloud" or "rt".
        suite: Suite or distribution of the archive that the kernel is from, for example "bookworm"; by default the
            one that has the newest.
        cpus: Number of CPUs.
        memory: For example "1G" or "512M".
        shares: Directories of the host, mounted read-only at the same path. The command starts in the
            caller's working directory when that lies in a shared directory, and in /root otherwise.
        writable: Likewise, but the guest may change what is in them. Whoever is root there is the caller in them, but
            cannot make devices or programs with privileges.
        modules: Directories of module sources (or directories of such): built for the guest's kernel, they
            are in `$PYLIVEPATCH_LAB_MODULES` there. They may use klpctl's header and functions.
        timeout: Seconds that the command may take; the boot is bounded by itself.
        environment: More variables for the command.
        klpctl: Build klpctl and have it where modprobe finds it.
        kaslr: Boot the compressed image, which randomizes addresses and takes seconds longer.
        parameters: More of the kernel's command line.
        console: File that receives what the guest's console said; the end of it when it is more than a MiB.
        stdout: Where the command's standard output goes; this process's by default.
        stderr: Likewise for its standard error.
        prepared: Called with the kernel just before the boot.

    Returns:
        The command's exit status; 128 + N when signal N killed it, 127 when there is no such command.

    Raises:
        BadDataError: An argument cannot be right; nothing was done.
        LabError: The guest could not be made or started.
        GuestLostError: It died, or hung, before the command ended.
    """
    if not command:
        raise BadDataError("no command to run in the guest")
    if not 1 <= cpus <= 64:
        raise BadDataError(f"{cpus} CPUs: expected 1 to 64")
    if not timeout > 0:
        raise BadDataError(f"timeout of {timeout} s: expected more than 0")
    size = parse_size(memory)
    if console is not None:
        open(console, "wb").close()  # which may not be writable: known before anything is fetched
    plan = share.plan([Path(item) for item in shares], [Path(item) for item in writable])
    target = kernel_module.resolve(kernel, flavour, suite)
    root = image.resolve(target)
    core = module.klpctl(target) if klpctl else None
    layer = module.layer(target, core)
    built = _modules(target, [Path(item) for item in modules], core)
    start = initramfs.resolve(target, root)
    library = package.resolve(root)

    here = os.getcwd()
    inside = any(here == item.target or here.startswith(item.target + "/") for item in plan)
    nonce = secrets.token_hex(16)
    variables = {"PYLIVEPATCH_LAB_MODULES": script.MODULES, **(environment or {})}
    files = {f"modules/{name}": data for name, data in built.items()}
    if core:
        files["klpctl.ko"] = core.modules[0].read_bytes()
    archive = script.archive(
        script.settings(command, shares=plan, cwd=here if inside else "/root", environment=variables,
                        layer=layer, nonce=nonce), files)
    archive.folder("lab/modules")
    archive.tree("lab/python", library)

    accelerator = accel.for_kernel(accel.choose(target.vmlinux, root.busybox), target.vmlinux)
    if prepared:
        prepared(target)
    with ExitStack() as stack:
        folder = stack.enter_context(_run_folder())
        (folder / "initramfs").write_bytes(start.read_bytes() + archive.data())
        tags = [(script.KERNEL_TAG, share.Share(target.path, ""))]
        tags += [(f"share{number}", item) for number, item in enumerate(plan)]
        servers = []
        for tag, item in tags:
            server = share.Server(item, f"{tag}.sock", folder)
            stack.callback(server.close)
            servers.append((tag, server))
        machine = Machine(target.vmlinuz if kaslr else target.vmlinux, folder / "initramfs", root.disk, cpus, size,
                          accelerator, parameters)
        guest = stack.enter_context(Guest(machine, servers, folder))
        try:
            return guest.follow(_writer(stdout or sys.stdout.buffer), _writer(stderr or sys.stderr.buffer),
                                nonce, timeout)
        finally:
            if console is not None:
                Path(console).write_bytes(guest.console)
