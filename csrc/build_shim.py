# SPDX-License-Identifier: MIT
"""Build pylivepatch._shim: the C sources beside this file, seen through cffi."""

import re
import sysconfig
from pathlib import Path

import cffi

# setup.py runs this from the top of the tree; setuptools wants paths below it.
SOURCES = ["csrc/dev.c", "csrc/module.c", "csrc/msg.c", "csrc/nl.c"]
HEADERS = ["csrc/plp.h", "csrc/plp_msg.h", "kmod/uapi/klpctl.h"]
CDEF = Path(__file__).with_name("shim.cdef")
UAPI = Path(__file__).parents[1] / "kmod/uapi/klpctl.h"
# Python.h refuses the limited API in a free-threaded build (3.13, 3.14).
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")


def constants() -> str:
    """Declare what the kernel's header defines: text as such, and numbers that the compiler knows."""
    code = re.sub(r"/\*.*?\*/", "", UAPI.read_text(), flags=re.DOTALL)
    defines = re.findall(r"^#define (KLPCTL_\w+)[ \t]+(\S)", code, re.MULTILINE)
    bodies = re.findall(r"\benum \w+ \{(.*?)\}", code, re.DOTALL)
    numbers = [name for name, first in defines if first != '"']
    numbers += [name for body in bodies for name in re.findall(r"^\s*([A-Z]\w*)", body, re.MULTILINE)]
    texts = [name for name, first in defines if first == '"']
    lines = [f"static char *const {name};" for name in texts] + [f"#define {name} ..." for name in numbers]
    return "\n".join(lines) + "\n"


ffibuilder = cffi.FFI()
ffibuilder.cdef(constants() + CDEF.read_text())
ffibuilder.set_source(
    "pylivepatch._shim",
    '#include "klpctl.h"\n#include "plp.h"\n',
    sources=SOURCES,
    depends=[*HEADERS, "csrc/shim.cdef"],
    include_dirs=["csrc", "kmod/uapi"],
    libraries=["mnl", "kmod"],
    define_macros=[("Py_LIMITED_API", "0x030b0000")] if LIMITED else [],
    py_limited_api=LIMITED,
    extra_compile_args=[
        "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter",
        "-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fstack-clash-protection",
    ],
    extra_link_args=["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
