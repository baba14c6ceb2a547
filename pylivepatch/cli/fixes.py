# SPDX-License-Identifier: MIT
"""What ``pylivepatch list --cve`` answers: is it fixed in what runs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pylivepatch.errors import PatchNotFoundError
from pylivepatch.module.info import cve_name
from pylivepatch.state import PatchState

if TYPE_CHECKING:
    from pylivepatch.core import Core
    from pylivepatch.state import PatchStatus


def fixes(core: Core, cve: str) -> list[PatchStatus]:
    """Find the enabled patches that fix a CVE.

    Raises:
        PatchNotFoundError: None does. Says which patches would if they were enabled,
            and of which it is not known what they fix.
        BadDataError: That is not the name of a CVE.
    """
    found = [info.status for info in core.fixes(cve) if info.status]
    if found:
        return found
    wanted = cve_name(cve)
    infos = [core.info(status.name) for status in core.status()]
    would = [info.name for info in infos if wanted in (info.cves or ())]
    silent = [
        info.name for info in infos if info.cves is None and info.status and info.status.state is PatchState.ENABLED
    ]
    after = f"of {', '.join(silent)} it is not known what they fix" if silent else ""
    remedy = f"{', '.join(would)} would fix it: enable it" if would else "load and enable a patch that fixes it"
    raise PatchNotFoundError(f"no enabled patch says that it fixes {wanted}", after=after, remedy=remedy)
