# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: the extension, how it is linked, and its abi3 tag."""

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
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
