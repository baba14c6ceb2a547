# SPDX-License-Identifier: MIT
"""Build pylivepatch._shim: the C sources beside this file, seen through cffi."""

from pathlib import Path

import cffi

# setup.py runs this from the top of the tree; setuptools wants paths below it.
SOURCES = ["csrc/dev.c", "csrc/module.c", "csrc/msg.c", "csrc/nl.c"]
HEADERS = ["csrc/plp.h", "csrc/plp_msg.h", "kmod/uapi/klpctl.h"]
CDEF = Path(__file__).with_name("shim.cdef")

ffibuilder = cffi.FFI()
ffibuilder.cdef(CDEF.read_text())
ffibuilder.set_source(
    "pylivepatch._shim",
    '#include "klpctl.h"\n#include "plp.h"\n',
    sources=SOURCES,
    depends=[*HEADERS, "csrc/shim.cdef"],
    include_dirs=["csrc", "kmod/uapi"],
    libraries=["mnl", "kmod"],
    define_macros=[("Py_LIMITED_API", "0x030b0000")],
    py_limited_api=True,
    extra_compile_args=["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
