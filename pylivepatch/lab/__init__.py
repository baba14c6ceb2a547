# SPDX-License-Identifier: MIT
"""Stock kernels in QEMU, to try a live patch on before it meets a machine that matters.

```python
from pylivepatch import lab

status = lab.run(["uname", "-r"], kernel="6.1")
```
"""

from __future__ import annotations

from pylivepatch.lab.errors import GuestLostError, LabError
from pylivepatch.lab.kernel import FLAVOURS, Kernel, resolve
from pylivepatch.lab.module import build_module
from pylivepatch.lab.session import Kept, run

__all__ = ["FLAVOURS", "GuestLostError", "Kept", "Kernel", "LabError", "build_module", "resolve", "run"]
