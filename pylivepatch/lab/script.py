# SPDX-License-Identifier: MIT
"""What the guest does between its root and the command, and after it; and the run's own files."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pylivepatch.lab import cpio
from pylivepatch.lab.share import Share

PYTHON = "/run/lab/python"
"""Where the guest has the pylivepatch package."""

MODULES = "/run/lab/modules"
"""Where the guest has modules built for the run."""

KERNEL_TAG = "lab.kernel"
"""The share with the kernel's modules."""

START = r"""bb=/run/lab/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount() { $bb mount "$@" || echo "lab: cannot mount $*"; }
mount -t tmpfs tmpfs /tmp
$bb mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
$bb ln -sf /proc/self/fd /dev/fd
$bb ln -sf /proc/self/fd/0 /dev/stdin
$bb ln -sf /proc/self/fd/1 /dev/stdout
$bb ln -sf /proc/self/fd/2 /dev/stderr
$bb hostname lab
$bb ip link set lo up
. /run/lab/settings
for port in /sys/class/virtio-ports/*; do
    read -r name <$port/name
    case $name in
    lab.control) control=/dev/${port##*/} ;;
    lab.stdout) stdout=/dev/${port##*/} ;;
    lab.stderr) stderr=/dev/${port##*/} ;;
    esac
done
exec 9>$control
$bb mkdir -p /run/lab/kernel
mount -t virtiofs -o ro lab.kernel /run/lab/kernel
release=$($bb uname -r)
$bb mkdir -p /lib/modules/$release/updates
for index in /run/lab/kernel/$layer/modules.*; do $bb ln -s $index /lib/modules/$release/; done
$bb ln -s /run/lab/kernel/lib/modules/$release/kernel /lib/modules/$release/kernel
[ -e /run/lab/klpctl.ko ] && $bb ln -s /run/lab/klpctl.ko /lib/modules/$release/updates/klpctl.ko
$bb mkdir -p /usr/local/bin
$bb ln -s /run/lab/pylivepatch /usr/local/bin/pylivepatch
shares
/lib/systemd/systemd-udevd --daemon
$bb mkfifo /run/lab/out /run/lab/err
relay() {
    $bb cat <$1 &
    echo $! >$1.pid
    wait $!
    printf %s $nonce
}
relay /run/lab/out >$stdout 9>&- &
relay_out=$!
relay /run/lab/err >$stderr 9>&- &
relay_err=$!
echo ready >&9
(
    exec 9>&- </dev/null >/run/lab/out 2>/run/lab/err
    export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash TERM=dumb LANG=C.UTF-8 PYLIVEPATCH_LAB=1
    export PYTHONPATH=/run/lab/python PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
    command
)
status=$?
$bb sync
(
    exec 9>&-
    $bb usleep 3000000 # for what still holds the command's output
    kill $($bb cat /run/lab/out.pid /run/lab/err.pid)
) 2>/dev/null &
wait $relay_out $relay_err
echo "exit $status" >&9
$bb sleep 30
$bb poweroff -f
"""

WRAPPER = "#!/bin/sh\nexec python3 -P -m pylivepatch \"$@\"\n"


def settings(
    command: Sequence[str], *, shares: Sequence[Share], cwd: str, environment: Mapping[str, str], layer: str,
    nonce: str,
) -> str:
    """Return the shell text that says what this run is about.

    Args:
        command: Program and arguments.
        shares: What to mount, outer directories first.
        cwd: Working directory of the command.
        environment: Variables for the command.
        layer: Where the indexes of the kernel's modules are, below the kernel's share.
        nonce: What marks the end of each output.
    """
    lines = [f"nonce={shlex.quote(nonce)}", f"layer={shlex.quote(layer)}", "shares() {", "    :"]
    for number, share in enumerate(shares):
        target = shlex.quote(share.target)
        options = "-o ro " if share.readonly else ""
        lines.append(f"    $bb mkdir -p {target}; mount -t virtiofs {options}share{number} {target}")
    lines += ["}", "command() {"]
    lines += [f"    export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # by way of dash, since busybox would run applets of its own instead of the command
    lines += [f"    cd {shlex.quote(cwd)}", f"    exec /bin/dash -c 'exec \"$@\"' lab {shlex.join(command)}", "}", ""]
    return "\n".join(lines)


def archive(settings_text: str, files: Mapping[str, bytes]) -> cpio.Archive:
    """Return the run's own archive: start script, settings, and *files* below /run/lab in the guest."""
    made = cpio.Archive()
    made.file("lab/start", START.encode())
    made.file("lab/settings", settings_text.encode())
    made.file("lab/pylivepatch", WRAPPER.encode(), 0o755)
    for name, data in files.items():
        made.file(f"lab/{name}", data)
    return made
