# SPDX-License-Identifier: MIT
"""Build the shim's sources and the C programs beside this file under the sanitizers."""

import lzma
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
HERE = Path(__file__).parent
FLAGS = [
    *("-std=gnu11", "-g", "-O1", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wwrite-strings", "-Werror"),
    *(f"-I{TOP / folder}" for folder in ("csrc", "kmod/uapi", "tests/shim")),
]
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:exitcode=99:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99:print_stacktrace=1",
}
MODULE = """
static const char info[] __attribute__((section(".modinfo"), used)) =
\t"license=GPL\\0" "depends=%s\\0" "name=%s";
"""


def pytest_generate_tests(metafunc):
    """Give tests with a `case` one run for each CASE() in the C programs."""
    if "case" in metafunc.fixturenames:
        cases = [
            (source.stem, name)
            for source in sorted(HERE.glob("test_*.c"))
            for name in re.findall(r"^CASE\((\w+)\)", source.read_text(), re.MULTILINE)
        ]
        metafunc.parametrize("case", cases, ids="-".join)


class Programs:
    """The C programs, each built when it is first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.objects = [self._object(source) for source in sorted((TOP / "csrc").glob("*.c"))]
        self.objects.append(self._object(HERE / "check.c"))

    def _object(self, source):
        target = self.folder / f"{source.parent.name}-{source.stem}.o"
        subprocess.run(["gcc", *FLAGS, "-c", source, "-o", target], check=True)
        return target

    def source(self, name):
        """Return the path of `name`.c."""
        return HERE / f"{name}.c"

    def build(self, name):
        """Return the path of the program made from `name`.c."""
        target = self.folder / name
        if not target.exists():
            command = ["gcc", *FLAGS, self.source(name), *self.objects, "-lmnl", "-lkmod", "-o", target]
            subprocess.run(command, check=True)
        return target

    def run(self, name, *arguments, cwd):
        """Run a program under the sanitizers, and return what came of it."""
        return subprocess.run(
            [self.build(name), *arguments],
            cwd=cwd,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The C programs of this lane."""
    return Programs(tmp_path_factory.mktemp("programs"))


def _compile_module(folder, name, depends=""):
    source = folder / f"{name}.c"
    source.write_text(MODULE % (depends, name))
    subprocess.run(["gcc", "-c", source, "-o", folder / f"{name}.ko"], check=True)
    return (folder / f"{name}.ko").read_bytes()


def _compress(folder, name, data):
    packed = lzma.compress(data, check=lzma.CHECK_CRC32)
    (folder / f"{name}.ko.xz").write_bytes(packed)
    command = ["zstd", "-q", "-f", folder / f"{name}.ko", "-o", folder / f"{name}.ko.zst"]
    subprocess.run(command, check=True)
    return packed, (folder / f"{name}.ko.zst").read_bytes()


def _damage(packed):
    middle = len(packed) // 2
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle:])


@pytest.fixture(scope="session")
def modules(programs, tmp_path_factory):
    """A folder of module files: whole, dependent, damaged in every way, and none at all."""
    folder = tmp_path_factory.mktemp("modules")
    _compress(folder, "dependent", _compile_module(folder, "dependent", "plp_no_such_module"))
    whole = _compile_module(folder, "whole")
    for suffix, packed in zip(("xz", "zst"), _compress(folder, "whole", whole), strict=True):
        (folder / f"damaged.ko.{suffix}").write_bytes(_damage(packed))
        (folder / f"truncated.ko.{suffix}").write_bytes(packed[: len(packed) // 2])
    (folder / "truncated.ko").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.ko").touch()
    (folder / "empty.ko.xz").touch()
    (folder / "text.ko").write_text("this is not a module\n" * 100)
    (folder / "folder.ko").mkdir()
    shutil.copy(programs.build("test_module"), folder / "program.ko")
    return folder
