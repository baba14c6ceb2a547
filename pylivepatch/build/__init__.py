# SPDX-License-Identifier: MIT
"""From a diff of the kernel's source to a patch module, in seconds, proved against the code that runs.

`build` does it; `for_series` and `for_release` name the kernel.
"""

from pylivepatch.build.builder import build
from pylivepatch.build.result import BuildResult, BuiltFunc
from pylivepatch.build.target import Target, for_release, for_series

__all__ = ["BuildResult", "BuiltFunc", "Target", "build", "for_release", "for_series"]
