# SPDX-License-Identifier: MIT
"""Live-patch a running Linux kernel: register, enable, follow and revert patches.

Start with `Core`.
"""

from pylivepatch.core import Core
from pylivepatch.errors import (
    AccessError,
    BadDataError,
    KernelError,
    LivepatchError,
    ModuleFileError,
    PatchNotFoundError,
    PatchRejectedError,
    PatchStateError,
    SymbolError,
    TransitionBusyError,
    TransitionReversedError,
    TransitionTimeoutError,
    UnsupportedError,
)
from pylivepatch.event import Action, Event
from pylivepatch.features import Features, Missing
from pylivepatch.module import ModuleFile
from pylivepatch.monitor import Monitor
from pylivepatch.patch import Patch
from pylivepatch.state import Func, Object, PatchState, PatchStatus, Progress, Target, Task
from pylivepatch.transition import Transition

__all__ = [
    "AccessError",
    "Action",
    "BadDataError",
    "Core",
    "Event",
    "Features",
    "Func",
    "KernelError",
    "LivepatchError",
    "Missing",
    "ModuleFile",
    "ModuleFileError",
    "Monitor",
    "Object",
    "Patch",
    "PatchNotFoundError",
    "PatchRejectedError",
    "PatchState",
    "PatchStateError",
    "PatchStatus",
    "Progress",
    "SymbolError",
    "Target",
    "Task",
    "Transition",
    "TransitionBusyError",
    "TransitionReversedError",
    "TransitionTimeoutError",
    "UnsupportedError",
]
