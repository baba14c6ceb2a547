# SPDX-License-Identifier: MIT
"""The C source that makes a patch module of the code that was taken out: what it replaces, and on which kernel."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from pylivepatch.build.extract import Extract
from pylivepatch.build.image import VMLINUX
from pylivepatch.build.tables import CALLBACKS
from pylivepatch.errors import BuildError

_RETURNS = {"pre_patch": "int", "post_patch": "void", "pre_unpatch": "void", "post_unpatch": "void"}
_LONGEST = 55
"""Characters of a module's name."""
_TAKEN = frozenset({VMLINUX, "klpctl"})


@dataclass(frozen=True, slots=True)
class About:
    """What the module says about itself.

    Attributes:
        name: Its name, which is the patch's.
        description: What it is for.
        cves: What it fixes.
        replace: Whether it replaces all patches before it.
        standalone: Whether it enables itself when it is loaded, without klpctl.
        diff: The source diff.
    """

    name: str
    description: str
    cves: tuple[str, ...]
    replace: bool
    standalone: bool
    diff: str


def module_name(text: str) -> str:
    """Return a module's name made of *text*, a file's name.

    Raises:
        BuildError: Nothing of it can be in a module's name.
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:_LONGEST]
    if not name:
        raise BuildError(f"no module can be called {text!r}", kind="name", remedy="name the output: -o fix.ko")
    if name in _TAKEN:
        raise BuildError(f"a patch cannot be called {name}: it would be taken for what has that name already",
                         kind="name", remedy="name the output: -o fix.ko")
    return name


def glue(extract: Extract, about: About, version: str = "") -> str:
    """Return the C source that declares the patch; *version* is that of the kernel, which is asked for it."""
    objects: dict[str, list[str]] = defaultdict(list)
    for item in extract.replaced:
        sympos = f", .old_sympos = {item.sympos}" if item.sympos else ""
        objects[item.object].append(
            f"\t{{ .old_name = {quoted(item.name)}, .new_func = {item.symbol}{sympos} }},\n")
    for name, _ in extract.callbacks:
        objects[name]  # one that is only called for has no functions
    out = ["// SPDX-License-Identifier: GPL-2.0-only\n",
           "#include <linux/livepatch.h>\n#include <linux/module.h>\n#include <linux/utsname.h>\n",
           "" if about.standalone else "#include <klpctl/klpctl.h>\n",
           "\n", *(f"extern char {item.symbol}[];\n" for item in extract.replaced),
           *(f"extern {_RETURNS[occasion]} {symbol}(struct klp_object *obj);\n"
             for (_, occasion), symbol in extract.callbacks.items()), "\n"]
    rows = []
    for number, (name, funcs) in enumerate(sorted(objects.items())):
        out += [f"static struct klp_func funcs_{number}[] = {{\n", *funcs, "\t{ }\n};\n\n"]
        where = "" if name == VMLINUX else f".name = {quoted(name)}, "
        calls = "".join(f"\n\t  .callbacks.{occasion} = {extract.callbacks[name, occasion]}," for occasion in CALLBACKS
                        if (name, occasion) in extract.callbacks)
        rows.append(f"\t{{ {where}.funcs = funcs_{number},{calls} }},\n")
    if extract.states:
        out += ["static struct klp_state states[] = {\n",
                *(f"\t{{ .id = {number}, .version = {edition} }},\n" for number, edition in extract.states),
                "\t{ }\n};\n\n"]
    out += ["static struct klp_object objs[] = {\n", *rows, "\t{ }\n};\n\n",
            f"static {'' if about.standalone else 'const '}struct klp_patch patch = {{\n"
            "\t.mod = THIS_MODULE,\n\t.objs = objs,\n",
            "\t.states = states,\n" if extract.states else "",
            "\t.replace = true,\n" if about.replace else "", "};\n\n"]
    built = quoted(version)
    check = (f"\tif (strcmp(init_uts_ns.name.version, {built})) {{\n"
             f"\t\tpr_err(\"%s: made for another build of this kernel: %s\\n\", THIS_MODULE->name, {built});\n"
             "\t\treturn -ENOEXEC;\n\t}\n" if version else "")
    enter, leave = (("klp_enable_patch", "") if about.standalone else
                    ("klpctl_register_patch", "\tklpctl_unregister_patch(&patch);\n"))
    out += [f"static int __init patch_init(void)\n{{\n{check}\treturn {enter}(&patch);\n}}\n\n"
            f"static void __exit patch_exit(void)\n{{\n{leave}}}\n\n"
            "module_init(patch_init);\nmodule_exit(patch_exit);\nMODULE_INFO(livepatch, \"Y\");\n"]
    out.append('MODULE_LICENSE("GPL");\n')
    if about.description:
        out.append(f"MODULE_DESCRIPTION({quoted(about.description)});\n")
    if about.cves:
        out.append(f"MODULE_INFO(cve, {quoted(' '.join(about.cves))});\n")
    return "".join(out)


def quoted(text: str) -> str:
    """Return *text* as a string of C."""
    chars = (char if " " <= char <= "~" and char not in '"\\?' else "".join(
        f"\\{byte:03o}" for byte in char.encode(errors="surrogateescape")) for char in text)
    return f'"{"".join(chars)}"'
