# SPDX-License-Identifier: MIT
"""The library through cffi: strings, out-parameters and the GIL."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from pylivepatch._shim import ffi, lib

LOADED = Path("/sys/module/klpctl").exists()


@pytest.mark.skipif(LOADED, reason="klpctl is loaded")
def test_open_without_klpctl():
    """Without klpctl connecting fails with ENOENT and gives no connection."""
    connection = ffi.new("struct plp_nl **")
    assert lib.plp_nl_open(connection) == -errno.ENOENT
    assert connection[0] == ffi.NULL


def test_open_missing_device(tmp_path):
    """A path goes to the C side as bytes."""
    assert lib.plp_dev_open(bytes(tmp_path / "missing")) == -errno.ENOENT


def test_wrong_device():
    """Another device refuses, and there is nothing in the answer."""
    descriptor = lib.plp_dev_open(b"/dev/null")
    answer = ffi.new("struct plp_answer *")
    assert lib.plp_dev_request(descriptor, lib.KLPCTL_IOC_WAIT, b"patch", 0, 0, answer) == -errno.ENOTTY
    assert (answer.state, ffi.string(answer.words)) == (0, b"")
    assert lib.plp_dev_close(descriptor) == 0


def test_long_name():
    """The longest name that is sent is the one that the kernel's header allows."""
    answer = ffi.new("struct plp_answer *")
    for length, expected in ((lib.KLPCTL_NAME_LEN, errno.EBADF), (lib.KLPCTL_NAME_LEN + 1, errno.ENAMETOOLONG)):
        assert lib.plp_dev_request(-1, lib.KLPCTL_IOC_ENABLE, b"a" * length, 0, 0, answer) == -expected


def test_text_is_refused():
    """A str is no C string: what it means in bytes is the caller's decision."""
    with pytest.raises(TypeError):
        lib.plp_module_probe("name")


def test_missing_module(tmp_path):
    """A module file that is not there is ENOENT, with options and without."""
    path = bytes(tmp_path / "missing.ko")
    assert lib.plp_module_insert(path, b"") == -errno.ENOENT
    assert lib.plp_module_insert(path, ffi.NULL) == -errno.ENOENT


# Opening a pipe to read it blocks until somebody opens it to write.
BLOCKED = """
import os, sys, threading
from pylivepatch._shim import lib
fifo = sys.argv[1]
os.mkfifo(fifo)
thread = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_WRONLY)))
thread.start()
print(lib.plp_module_insert(os.fsencode(fifo), b""))
thread.join()
"""


def test_calls_release_the_gil(tmp_path):
    """While a call blocks, another thread runs, and here brings what it waits for."""
    command = [sys.executable, "-c", BLOCKED, tmp_path / "fifo.ko"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(result.stdout) < 0
