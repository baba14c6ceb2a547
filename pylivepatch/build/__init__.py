# SPDX-License-Identifier: MIT
"""From a diff of the kernel's source to a patch module, in seconds, proved against the code that runs.

`build` does it; `prove` looks at what came out, again; `for_series` and `for_release` name the kernel.
"""

from pylivepatch.build.builder import build, prove
from pylivepatch.build.result import BuildResult, BuiltFunc
from pylivepatch.build.target import Target, for_release, for_series
from pylivepatch.module.verdict import Verdict

__all__ = ["BuildResult", "BuiltFunc", "Target", "Verdict", "build", "for_release", "for_series", "prove"]
