#!/usr/bin/python
# SPDX-License-Identifier: MIT
# MIT License (see LICENSES/MIT.txt or https://spdx.org/licenses/MIT.html)

from __future__ import annotations

DOCUMENTATION = r"""
module: livepatch
short_description: Enable, confirm, revert and remove kernel live patches
version_added: 0.1.0
description:
  - Has a live patch of the running kernel in a state, by the command C(pylivepatch).
  - With O(confirm_within) the machine's own kernel reverts the patch unless it is confirmed in time, whatever becomes
    of the controller and the network.
author:
  - The pylivepatch developers (@pylivepatch)
attributes:
  check_mode:
    description: The preflight of the patch file runs, and fails where enabling it would.
    support: full
  diff_mode:
    description: Shows the state of the patch, what it replaces, and whether it is applied at boot, before and after.
    support: full
options:
  state:
    description:
      - V(enabled) loads the patch, if need be, and enables it.
      - V(confirmed) keeps a patch that was enabled with O(confirm_within).
      - V(reverted) has it not enabled, and leaves it loaded.
      - V(absent) reverts and unloads it, and has it no longer applied at boot.
    type: str
    choices: [enabled, confirmed, reverted, absent]
    default: enabled
  name:
    description: Name of the patch, where O(file) is not given.
    type: str
  file:
    description: The patch module on the machine. It names the patch.
    type: path
  cves:
    description:
      - What the patch has to fix, by its own words. A O(file) that does not is refused.
      - Where what is enabled fixes all of them already, nothing is done.
    type: list
    elements: str
    default: []
  params:
    description: Parameters that the module is loaded with.
    type: dict
    default: {}
  timeout:
    description: Seconds that a transition may take; it is reversed then.
    type: float
    default: 30
  confirm_within:
    description: Seconds within which the patch must be confirmed, or else its kernel reverts it. Needs klpctl.
    type: float
  persistent:
    description: With O(file), whether the patch is applied at each boot of its kernel. Left as it is by default.
    type: bool
  executable:
    description: The command.
    type: path
    default: pylivepatch
"""

EXAMPLES = r"""
- name: Enable a patch; the kernel reverts it after ten minutes
  pylivepatch.livepatch.livepatch:
    file: /root/fix.ko
    confirm_within: 600

- name: Keep it
  pylivepatch.livepatch.livepatch:
    file: /root/fix.ko
    state: confirmed
    persistent: true

- name: Remove it
  pylivepatch.livepatch.livepatch:
    name: fix
    state: absent
"""

RETURN = r"""
name:
  description: Name of the patch.
  returned: always
  type: str
state:
  description: The state of the patch afterwards; V(absent) when it is not loaded.
  returned: always
  type: str
confirmation:
  description: Seconds until its kernel reverts it, and when that is; null when nobody has to confirm it.
  returned: when it is loaded
  type: dict
findings:
  description: What the preflight found, in check mode.
  returned: in check mode with O(file)
  type: list
  elements: dict
error:
  description: The error of the command, as its JSON output has it.
  returned: on failure
  type: dict
"""

import contextlib
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pylivepatch.livepatch.plugins.module_utils.command import EXECUTABLE, Command, RefusedError

ON = ("enabled", "enabling")
FATAL = 8
ALREADY = 10


class Livepatch:
    """A patch, and the state that it is to be in."""

    def __init__(self, module):
        self.module = module
        self.params = module.params
        self.command = Command(module)
        self.info = self.command.run("info", self.params["file"]) if self.params["file"] else None
        self.name = self.info["name"] if self.info else self.params["name"].replace("-", "_")
        self.release = os.uname().release
        self.patch = self.command.patches().get(self.name)
        self.installed = None
        if self.params["persistent"] is not None or self.params["state"] == "absent":
            self.installed = self.command.installed(self.name, self.release)

    def describe(self, state, installed):
        """Return what a diff shows."""
        lines = [f"{self.name}: {state}"]
        objects = (self.info or self.patch or {}).get("objects") or []
        if state in ON:
            lines += ["  replaces {}: {}".format(obj["name"], func["name"]) for obj in objects for func in obj["funcs"]]
        if installed is not None:
            lines.append("  applied at boot: " + ("yes" if installed else "no"))
        return "\n".join(lines) + "\n"

    def wanted(self):
        """Return the state that it is to have, and whether it is to be applied at boot."""
        state, now = self.params["state"], self.now
        if state == "absent":
            return "absent", False
        installed = self.installed if self.params["persistent"] is None else self.params["persistent"]
        if state == "reverted":
            return (now if now in ("absent", "registered", "disabled", "replaced") else "disabled"), installed
        return "enabled", installed

    @property
    def now(self):
        """The state that it is in."""
        return self.patch["state"] if self.patch else "absent"

    @property
    def unconfirmed(self):
        """Whether its kernel reverts it unless it is confirmed."""
        return bool(self.patch and self.patch.get("confirmation"))

    def fixed(self):
        """Return whether what is enabled fixes all that it is to fix."""
        for cve in self.params["cves"]:
            try:
                self.command.run("list", "--cve", cve)
            except RefusedError as error:
                if error.code != 4:
                    raise
                return False
        return bool(self.params["cves"])

    def refuse(self):
        """Refuse what cannot be, before anything is changed."""
        state, file = self.params["state"], self.params["file"]
        lacking = [cve for cve in self.params["cves"] if self.info and cve not in (self.info["cves"] or [])]
        if lacking:
            self.fail("{} does not say that it fixes {}".format(file, ", ".join(lacking)))
        if state == "enabled" and self.now == "absent" and not file:
            self.fail(f"{self.name} is not loaded: give its file")
        if state == "confirmed" and self.now not in ON:
            self.fail(f"{self.name} is not enabled: there is nothing to confirm")
        if self.params["persistent"] and not file:
            self.fail("persistent: give the file that is to be applied at boot")
        if state == "enabled" and self.params["confirm_within"] and self.info and not self.info["registered"]:
            self.fail(f"{file} is a standalone patch: it is enabled by being loaded, and cannot be confirmed")

    def preflight(self):
        """Return what the preflight of the file finds; fail when that is fatal."""
        words = ["{}={}".format(*item) for item in sorted(self.params["params"].items())]
        code, out, err = self.module.run_command(
            [self.command._program, "check", self.params["file"], "--json", *words]
        )
        if code not in (0, FATAL, ALREADY) or not out:
            self.fail(err.strip() or "the preflight failed")
        data = self.module.from_json(out)
        if data["fatal"] and code == FATAL:
            fatal = [
                "{}: {}".format(each["subject"], each["message"])
                for each in data["findings"]
                if each["severity"] == "fatal"
            ]
            self.fail("; ".join(fatal), findings=data["findings"])
        return data["findings"]

    def fail(self, message, **more):
        """End with a failure; nothing was changed."""
        self.module.fail_json(msg=message, name=self.name, state=self.now, **more)

    def enable(self):
        """Load it, if need be, and enable it; what was loaded here is unloaded again when it fails."""
        loaded = self.patch is None
        if loaded:
            words = ["{}={}".format(*item) for item in sorted(self.params["params"].items())]
            self.command.run("load", self.params["file"], "--timeout", self.params["timeout"], *words)
        if self.command.state(self.name) in ON:
            return
        words = ["enable", self.name, "--timeout", self.params["timeout"]]
        if self.params["confirm_within"]:
            words += ["--confirm-within", self.params["confirm_within"]]
        try:
            self.command.run(*words)
        except RefusedError:
            if loaded:
                with contextlib.suppress(RefusedError):
                    self.command.run("unload", self.name, "--if-needed")
            raise

    def change(self, installed):
        """Bring it to the state."""
        state = self.params["state"]
        if state == "enabled" and self.now not in ON:
            self.enable()
        elif state == "confirmed" and self.unconfirmed:
            self.command.run("confirm", self.name, "--if-needed")
        elif state in ("reverted", "absent") and self.patch:
            self.command.run("revert", self.name, "--if-needed", "--timeout", self.params["timeout"])
            if state == "absent":
                self.command.run("unload", self.name, "--if-needed")
        if installed is not self.installed:
            if installed:
                words = ["{}={}".format(*item) for item in sorted(self.params["params"].items())]
                self.command.run("install", self.params["file"], *words)
            else:
                self.command.run("uninstall", self.name, "--if-needed")


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["enabled", "confirmed", "reverted", "absent"], "default": "enabled"},
            "name": {"type": "str"},
            "file": {"type": "path"},
            "cves": {"type": "list", "elements": "str", "default": []},
            "params": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 30},
            "confirm_within": {"type": "float"},
            "persistent": {"type": "bool"},
            "executable": EXECUTABLE,
        },
        mutually_exclusive=[["name", "file"]],
        required_one_of=[["name", "file"]],
        supports_check_mode=True,
    )
    patch = None
    try:
        patch = Livepatch(module)
        patch.refuse()
        state, installed = patch.wanted()
        done = module.params["state"] == "enabled" and patch.now not in ON and patch.fixed()
        if done:
            state, installed = patch.now, patch.installed
        changed = installed is not patch.installed or not (
            state == patch.now or (state == "enabled" and patch.now in ON)
        )
        changed = changed or (module.params["state"] == "confirmed" and patch.unconfirmed)
        result = {"changed": changed, "name": patch.name, "state": state}
        if module._diff:
            result["diff"] = {
                "before": patch.describe(patch.now, patch.installed),
                "after": patch.describe(state, installed),
            }
        if module.check_mode:
            if changed and state == "enabled" and patch.now == "absent":
                result["findings"] = patch.preflight()
            module.exit_json(**result)
        if changed:
            patch.change(installed)
            after = patch.command.patches().get(patch.name)
        else:
            after = patch.patch
        result["state"] = after["state"] if after else "absent"
        result["confirmation"] = after["confirmation"] if after else None
        module.exit_json(**result)
    except RefusedError as error:
        more = {"name": patch.name, "state": patch.command.state(patch.name)} if patch else {}
        module.fail_json(msg=error.text(), error=error.error, rc=error.code, **more)


if __name__ == "__main__":
    main()
