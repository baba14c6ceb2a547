# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: the extension and its abi3 tag."""

from setuptools import setup

setup(
    cffi_modules=["csrc/build_shim.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
