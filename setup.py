# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: the extension, how it is linked, and its abi3 tag."""

import sysconfig

from setuptools import setup
from setuptools.command.build_ext import build_ext


class BuildExtension(build_ext):
    """Links without a search path: that of the Python at hand would be searched on every machine, whoever owns it."""

    def build_extensions(self) -> None:
        """Build them."""
        linker = self.compiler.linker_so
        self.compiler.linker_so = [word for word in linker if not word.startswith(("-Wl,-rpath", "-Wl,-R"))]
        super().build_extensions()


setup(
    cffi_modules=["csrc/build_shim.py:ffibuilder"],
    cmdclass={"build_ext": BuildExtension},
    # One wheel for all versions, but for free-threaded builds, which have no stable ABI.
    options={} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
