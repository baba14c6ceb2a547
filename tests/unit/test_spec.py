# SPDX-License-Identifier: MIT
"""The netlink spec and the uapi header say the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

UAPI = Path(__file__).resolve().parents[2] / "kmod/uapi"
HEADER = (UAPI / "klpctl.h").read_text()
SPEC: dict[str, Any] = yaml.safe_load((UAPI / "klpctl.yaml").read_text())
CODE = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.DOTALL)

Enum = dict[str, int]


def c_name(*parts: str) -> str:
    """The name in C of what has this name in the spec."""
    return "".join(parts).upper().replace("-", "_")


def enums_of_header() -> dict[str, Enum]:
    """All enums of the header, by name, without their _UNSPEC and _MAX."""
    found: dict[str, Enum] = {}
    for name, body in re.findall(r"enum (\w+) \{(.*?)\}", CODE, flags=re.DOTALL):
        value = -1
        entries = found[name] = {}
        for entry in filter(None, (part.strip() for part in body.split(","))):
            key, _, number = (part.strip() for part in entry.partition("="))
            value = int(number, 0) if number else value + 1
            if not key.endswith(("_UNSPEC", "_MAX")):
                entries[key] = value
    return found


def numbered(prefix: str, entries: list[Any], start: int) -> Enum:
    """The names and values of a list in the spec."""
    found: Enum = {}
    value = start
    for entry in entries:
        value = entry.get("value", value)
        found[c_name(prefix, entry["name"])] = value
        value += 1
    return found


def enums_of_spec() -> dict[str, Enum]:
    """All enums of the spec, by their name in C."""
    found: dict[str, Enum] = {}
    for definition in SPEC["definitions"]:
        name = definition["name"]
        if definition["type"] == "const":
            continue
        entries = numbered(f"klpctl-{name}-", definition["entries"], 0)
        if definition["type"] == "flags":
            entries = {key: 1 << bit for key, bit in entries.items()}
            name = f"{name}-flag"
        found[f"klpctl_{name}".replace("-", "_")] = entries
    for space in (*SPEC["attribute-sets"], SPEC["operations"]):
        entries = space.get("attributes") or space["list"]
        found[space["enum-name"].replace("-", "_")] = numbered(space["name-prefix"], entries, 1)
    return found


def messages_of_header() -> dict[str, dict[str, str]]:
    """For each command the attributes that the header's first comment lists, with types."""
    comment = HEADER[: HEADER.index(" * uevents\n")]
    found: dict[str, dict[str, str]] = {}
    for line in comment.splitlines():
        if command := re.match(r" \*   (KLPCTL_CMD_\w+) \(", line):
            message = found[command[1]] = {}
        elif re.match(r" \* +request: .*KLPCTL_A_", line):
            message.update(dict.fromkeys(re.findall(r"KLPCTL_A_\w+", line), ""))
        elif attribute := re.match(r" \* +(KLPCTL_A_\w+) +(u32|u64|string|nest)\b", line):
            message[attribute[1]] = attribute[2]
    return found


def attributes_of_spec(space: str, names: list[str] | None = None) -> dict[str, str]:
    """Attributes of a set, with types, and those nested in them."""
    (attributes,) = (each for each in SPEC["attribute-sets"] if each["name"] == space)
    found: dict[str, str] = {}
    for attribute in attributes["attributes"]:
        if attribute["type"] == "pad" or (names is not None and attribute["name"] not in names):
            continue
        found[c_name(attributes["name-prefix"], attribute["name"])] = attribute["type"]
        if attribute["type"] == "nest":
            found.update(attributes_of_spec(attribute["nested-attributes"]))
    return found


def messages_of_spec() -> dict[str, dict[str, str]]:
    """For each command the attributes that the spec lists, with types."""
    found: dict[str, dict[str, str]] = {}
    for operation in SPEC["operations"]["list"]:
        message = found[c_name("klpctl-cmd-", operation["name"])] = {}
        for kind in ("do", "dump"):
            for way in operation.get(kind, {}).values():
                message.update(attributes_of_spec("klpctl", way["attributes"]))
        if "event" in operation:
            message.update(attributes_of_spec("klpctl", operation["event"]["attributes"]))
    return found


def test_enums_agree() -> None:
    """Commands, attributes and enums have the same names and numbers."""
    assert enums_of_spec() == enums_of_header()


@pytest.mark.parametrize("name", ["version", "name-len"])
def test_constants_agree(name: str) -> None:
    """Constants have the same values."""
    (constant,) = (each["value"] for each in SPEC["definitions"] if each["name"] == name)
    found = re.search(rf"#define {c_name('klpctl-', name)}\s+(\w+)", CODE)
    assert found is not None
    assert int(found[1], 0) == constant


def test_names_agree() -> None:
    """The family and its multicast group are named alike."""
    strings = dict(re.findall(r'#define (\w+)\s+"(.*)"', CODE))
    (group,) = SPEC["mcast-groups"]["list"]
    assert strings["KLPCTL_GENL_NAME"] == SPEC["name"]
    assert strings["KLPCTL_GENL_GROUP"] == group["name"]
    assert SPEC["protocol"] == "genetlink"


def test_messages_agree() -> None:
    """Each command carries what the header's comment draws, of the same types."""
    header, spec = messages_of_header(), messages_of_spec()
    assert header.keys() == spec.keys()
    for command, attributes in header.items():
        if command == "KLPCTL_CMD_EVENT":
            # The one nest that carries less than its set: the target alone.
            spec[command] = {
                name: kind
                for name, kind in spec[command].items()
                if not name.startswith("KLPCTL_A_TRANSITION_") or name in attributes
            }
        assert attributes.keys() == spec[command].keys(), command
        for name, kind in attributes.items():
            assert kind in ("", spec[command][name]), f"{command}: {name}"
