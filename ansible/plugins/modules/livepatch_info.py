#!/usr/bin/python
# SPDX-License-Identifier: MIT
# MIT License (see LICENSES/MIT.txt or https://spdx.org/licenses/MIT.html)

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_info
short_description: Tell which kernel live patches a machine has, and which CVEs they fix
version_added: 0.1.0
description:
  - Tells the running kernel, its live patches, the CVEs that the enabled ones fix, and which installed patches the
    kernel lacks after an upgrade.
author:
  - The pylivepatch developers (@pylivepatch)
attributes:
  check_mode:
    description: It changes nothing.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
options:
  executable:
    description: The command.
    type: path
    default: pylivepatch
"""

EXAMPLES = r"""
- name: Ask
  pylivepatch.livepatch.livepatch_info:
  register: livepatch

- name: Insist that a CVE is fixed
  ansible.builtin.assert:
    that: "'CVE-2026-12345' in livepatch.cves"
"""

RETURN = r"""
kernel:
  description: Release of the running kernel.
  returned: always
  type: str
backend:
  description: How the kernel is reached; V(klpctl) or V(sysfs).
  returned: always
  type: str
patches:
  description: The patches, as C(pylivepatch list --json) has them.
  returned: always
  type: list
  elements: dict
cves:
  description: What the enabled patches fix, by their own words.
  returned: always
  type: list
  elements: str
missing:
  description: What is installed for other kernels and not for this one, or a newer one; null when not known.
  returned: always
  type: list
  elements: dict
installed:
  description: What is applied at boot, for all kernels.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pylivepatch.livepatch.plugins.module_utils.command import EXECUTABLE, Command, RefusedError


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec={"executable": EXECUTABLE}, supports_check_mode=True)
    try:
        command = Command(module)
        status = command.run("status")
        cves = set()
        for patch in status["patches"]:
            if patch["state"] == "enabled":
                cves.update(command.run("info", patch["name"])["cves"] or [])
        installed = command.run("install", "--list")["installed"]
    except RefusedError as error:
        module.fail_json(msg=error.text(), error=error.error, rc=error.code)
    module.exit_json(
        changed=False,
        kernel=status["kernel"],
        backend=status["backend"],
        patches=status["patches"],
        cves=sorted(cves),
        missing=status["missing"],
        installed=installed,
    )


if __name__ == "__main__":
    main()
