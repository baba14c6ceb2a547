# SPDX-License-Identifier: MIT
"""Live-patch a running Linux kernel: register, enable, follow and revert patches.

Start with `Core`.
"""

import logging

from pylivepatch.boot import Boot, BootOutcome, BootStep
from pylivepatch.boot.store import Installed, Store
from pylivepatch.core import Core
from pylivepatch.errors import (
    AccessError,
    AlreadyError,
    BadDataError,
    BuildError,
    CheckError,
    ClosedError,
    ConfirmationExpiredError,
    KernelError,
    LivepatchError,
    MismatchError,
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
from pylivepatch.metrics import Metrics
from pylivepatch.module import ModuleFile
from pylivepatch.module.info import Parameter, PatchInfo, Stacked
from pylivepatch.monitor import Action, Event, Monitor
from pylivepatch.patch import Patch
from pylivepatch.preflight import Finding, Severity, Stage
from pylivepatch.sequence import Outcome, PlannedStep, Sequence, Step, StepReport
from pylivepatch.state import (
    Blocker,
    Features,
    Func,
    Missing,
    Object,
    PatchState,
    PatchStatus,
    Progress,
    Reason,
    Target,
    Task,
)
from pylivepatch.transition import Transition

__all__ = [
    "AccessError",
    "Action",
    "AlreadyError",
    "BadDataError",
    "Blocker",
    "Boot",
    "BootOutcome",
    "BootStep",
    "BuildError",
    "CheckError",
    "ClosedError",
    "ConfirmationExpiredError",
    "Core",
    "Event",
    "Features",
    "Finding",
    "Func",
    "Installed",
    "KernelError",
    "LivepatchError",
    "Metrics",
    "MismatchError",
    "Missing",
    "ModuleFile",
    "ModuleFileError",
    "Monitor",
    "Object",
    "Outcome",
    "Parameter",
    "Patch",
    "PatchInfo",
    "PatchNotFoundError",
    "PatchRejectedError",
    "PatchState",
    "PatchStateError",
    "PatchStatus",
    "PlannedStep",
    "Progress",
    "Reason",
    "Sequence",
    "Severity",
    "Stacked",
    "Stage",
    "Step",
    "StepReport",
    "Store",
    "SymbolError",
    "Target",
    "Task",
    "Transition",
    "TransitionBusyError",
    "TransitionReversedError",
    "TransitionTimeoutError",
    "UnsupportedError",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("pylivepatch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# What reads the records is the program's choice.
logging.getLogger(__name__).addHandler(logging.NullHandler())
