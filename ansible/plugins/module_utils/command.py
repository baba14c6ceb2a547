# SPDX-License-Identifier: MIT
# MIT License (see LICENSES/MIT.txt or https://spdx.org/licenses/MIT.html)
"""The command pylivepatch, with its JSON output, for the modules of this collection."""

from __future__ import annotations

import json

EXECUTABLE = {"type": "path", "default": "pylivepatch"}


class RefusedError(Exception):
    """The command failed: what it said, as its JSON has it."""

    def __init__(self, code, error):
        super().__init__(error.get("message", "it failed"))
        self.code = code
        self.error = error

    def text(self):
        """The message, the state afterwards and the remedy."""
        return "; ".join(self.error[key] for key in ("message", "after", "remedy") if self.error.get(key))


class Command:
    """Runs pylivepatch for a module."""

    def __init__(self, module):
        self._module = module
        self._program = module.get_bin_path(module.params["executable"], required=True, opt_dirs=["/usr/local/sbin"])

    def run(self, *words):
        """Return the output of a command.

        Raises:
            RefusedError: It failed.
        """
        code, out, err = self._module.run_command([self._program] + [str(word) for word in words] + ["--json"])
        if code == 0:
            return json.loads(out)
        for line in reversed(err.splitlines()):
            try:
                raise RefusedError(code, json.loads(line)["error"])
            except (ValueError, KeyError, TypeError):
                continue
        raise RefusedError(code, {"type": "", "message": (err or out).strip() or f"exit code {code}"})

    def patches(self):
        """Return the patches, by name."""
        return {patch["name"]: patch for patch in self.run("list")["patches"]}

    def state(self, name):
        """Return the state of a patch: "absent" when it is not loaded."""
        patch = self.patches().get(name)
        return patch["state"] if patch else "absent"

    def installed(self, name, release):
        """Return whether a patch is in the boot store of a kernel."""
        found = self.run("install", "--list")["installed"]
        return any(each["name"] == name and each["release"] == release for each in found)
