# SPDX-License-Identifier: MIT
"""The checker: a proof of the finished module, which shares no code with what compares, extracts and links.

In the order in which it goes:

* `assembly`: the compiler's text, in atoms; `reference`: what each of their references means;
* `kernel`: what runs, and where a source's parts are in it; `closure`: which old code must not run any more;
* `module`: the finished module; `glue`: what it tells the livepatch core; `loader`: what the module loader sees in it;
* `proof` lays the one beside the other, `meaning` says what a reference may lead to; `objtool`: what objtool adds.
"""

from pylivepatch.build.verify.check import Checker, Evidence, Source
from pylivepatch.build.verify.glue import Layouts
from pylivepatch.build.verify.kernel import Kernel, Running, exports

__all__ = ["Checker", "Evidence", "Kernel", "Layouts", "Running", "Source", "exports"]
