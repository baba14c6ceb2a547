#!/usr/bin/python
# SPDX-License-Identifier: MIT
# MIT License (see LICENSES/MIT.txt or https://spdx.org/licenses/MIT.html)

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch_build
short_description: Build a live patch from diffs, once for each kernel of an inventory
version_added: 0.1.0
description:
  - Builds a patch module for each of some kernel releases, by C(pylivepatch build). Run it once, where the patches are
    to be built, with C(delegate_to) and C(run_once).
  - A module that is there already is built again when the diffs or the options have changed.
author:
  - The pylivepatch developers (@pylivepatch)
attributes:
  check_mode:
    description: Tells what would be built.
    support: full
  diff_mode:
    description: There is none.
    support: none
options:
  name:
    description: Name of the patch.
    type: str
    required: true
  diffs:
    description: The diffs of the kernel's source, applied one after the other.
    type: list
    elements: path
    required: true
  releases:
    description: The kernel releases, as C(uname -r) prints them; what is named twice is built once.
    type: list
    elements: str
    required: true
  dest:
    description: The directory that gets RELEASE/NAME.ko.
    type: path
    required: true
  cves:
    description: What it fixes; by default what the mails of the diffs name.
    type: list
    elements: str
    default: []
  description:
    description: What it is for.
    type: str
    default: ""
  replace:
    description: Whether it replaces all patches before it.
    type: bool
    default: false
  standalone:
    description: Whether it is one that needs no klpctl, and cannot be confirmed.
    type: bool
    default: false
  sign_key:
    description: Private key to sign the modules with; its passphrase in the environment variable E(KBUILD_SIGN_PIN).
    type: path
  sign_certificate:
    description: The certificate of O(sign_key).
    type: path
  executable:
    description: The command.
    type: path
    default: pylivepatch
"""

EXAMPLES = r"""
- name: Build once for all kernels of the inventory
  pylivepatch.livepatch.livepatch_build:
    name: fix
    diffs: [/srv/fix.diff]
    dest: /srv/patches
    releases: "{{ ansible_play_hosts | map('extract', hostvars, 'ansible_kernel') | unique }}"
  delegate_to: localhost
  run_once: true
  register: built
"""

RETURN = r"""
files:
  description: The module of each release.
  returned: always
  type: dict
  sample: {"6.1.0-50-amd64": "/srv/patches/6.1.0-50-amd64/fix.ko"}
built:
  description: The releases that it was built for now.
  returned: always
  type: list
  elements: str
error:
  description: The error of the command, as its JSON output has it.
  returned: on failure
  type: dict
"""

import hashlib
import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pylivepatch.livepatch.plugins.module_utils.command import EXECUTABLE, Command, RefusedError


def digest(module):
    """Return what tells whether a module was built of the same."""
    kept = ("name", "cves", "description", "replace", "standalone", "sign_key", "sign_certificate")
    found = hashlib.sha256(json.dumps([module.params[key] for key in kept]).encode())
    for path in module.params["diffs"]:
        if os.path.isdir(path):
            module.fail_json(msg=f"{path} is a directory: name the diffs")
        try:
            with open(path, "rb") as file:
                found.update(hashlib.sha256(file.read()).digest())
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be read: {error.strerror}")
    return found.hexdigest()


def words(module, release, output):
    """Return the command that builds it for a release."""
    params = module.params
    found = ["build", "--release", release, "--output", output]
    for cve in params["cves"]:
        found += ["--cve", cve]
    if params["description"]:
        found += ["--describe", params["description"]]
    if params["replace"]:
        found.append("--replace")
    if params["standalone"]:
        found.append("--standalone")
    if params["sign_key"]:
        found += ["--sign", params["sign_key"], params["sign_certificate"]]
    return found + params["diffs"]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "diffs": {"type": "list", "elements": "path", "required": True},
            "releases": {"type": "list", "elements": "str", "required": True},
            "dest": {"type": "path", "required": True},
            "cves": {"type": "list", "elements": "str", "default": []},
            "description": {"type": "str", "default": ""},
            "replace": {"type": "bool", "default": False},
            "standalone": {"type": "bool", "default": False},
            "sign_key": {"type": "path", "no_log": False},
            "sign_certificate": {"type": "path"},
            "executable": EXECUTABLE,
        },
        required_together=[["sign_key", "sign_certificate"]],
        supports_check_mode=True,
    )
    command, same = Command(module), digest(module)
    files, built = {}, []
    for release in sorted(set(module.params["releases"])):
        folder = os.path.join(module.params["dest"], release)
        files[release] = os.path.join(folder, module.params["name"] + ".ko")
        stamp = files[release] + ".of"
        try:
            with open(stamp) as file:
                known = file.read() == same and os.path.exists(files[release])
        except OSError:
            known = False
        if known:
            continue
        built.append(release)
        if module.check_mode:
            continue
        try:
            os.makedirs(folder, exist_ok=True)
            command.run(*words(module, release, files[release]))
            with open(stamp, "w") as file:
                file.write(same)
        except RefusedError as error:
            text = f"for {release}: {error.text()}"
            module.fail_json(msg=text, error=error.error, rc=error.code, files=files, built=built[:-1])
        except OSError as error:
            module.fail_json(msg=f"{folder} cannot be written: {error.strerror}")
    module.exit_json(changed=bool(built), files=files, built=built)


if __name__ == "__main__":
    main()
