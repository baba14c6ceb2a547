# SPDX-License-Identifier: MIT
"""What a diff changes: the original object beside the patched one, part by part.

A part is paired by name, or, when the compiler numbered it, by who refers to it. Two functions are equal when their
bytes are and what they refer to is the same thing: the paired part at the same offset, or, for what has no identity
(strings, cold parts, clones that the compiler made, statics of macros), something equal.

Clones (`.isra`, `.constprop`, `.part`) are compared by content from their callers: the number in the name of a clone
does not tell which specialisation it is, so a changed one makes its callers changed, and they get the new one.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass, field

from pylivepatch.build import tables
from pylivepatch.build.parts import Entry, Part, Parts, Ref
from pylivepatch.build.runpre import suffix_free
from pylivepatch.errors import BuildError


@dataclass(slots=True)
class Changes:
    """What differs between two objects of one source.

    Attributes:
        functions: Changed functions, the original with the patched one.
        added: Functions that are new; those that nothing refers to are left out when the patch is made.
        removed: Functions that are no more. Old code may still run them; nothing is done about them.
        pairs: For each part of the patched object its original.
        first: For each changed function the offset of the first difference in the patched code.
        notes: What the patch does without.
        recalled: Names of the functions that are called in another way.
    """

    functions: list[tuple[Part, Part]] = field(default_factory=list)
    added: list[Part] = field(default_factory=list)
    removed: list[Part] = field(default_factory=list)
    pairs: dict[int, Part] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    recalled: Set[str] = frozenset()

    def original(self, part: Part) -> Part | None:
        """Return the original of *part* of the patched object, or None when it is new."""
        return self.pairs.get(id(part))

    def new_names(self, patched: Parts) -> list[Part]:
        """Return the parts of the patched object that other sources can refer to, and could not before."""
        return [part for part in patched.all if part.is_global and not part.is_clone
                and ((old := self.original(part)) is None or not old.is_global)]

    def within(self, patched: Parts, other: Parts) -> Changes:
        """Return the same changes with the parts of *other* for those of *patched*, which have the same names."""
        moved = {id(part): found for part in patched.all if part.symbols and (found := other.named(part.name))}
        return Changes(
            [(old, moved[id(new)]) for old, new in self.functions], [moved[id(part)] for part in self.added],
            self.removed, {id(moved[new]): old for new, old in self.pairs.items()}, self.first, self.notes,
            self.recalled)


_EXPORTED = re.compile(r"^(?:___ksymtab(?:_gpl)?\+|__ksymtab_|__kstrtab(?:ns)?_|__export_symbol_)")


def compare(source: str, orig: Parts, patched: Parts) -> Changes:
    """Find out what differs.

    Raises:
        BuildError: Something differs that cannot be patched: initial data, init code, exports, registrations.
    """
    return _Comparison(source, orig, patched).run()


class _Comparison:
    def __init__(self, source: str, orig: Parts, patched: Parts) -> None:
        self.source, self.orig, self.patched = source, orig, patched
        self.changes = Changes()
        self.pairs = self.changes.pairs
        self._known: dict[tuple[int, int], bool] = {}
        self._paired_originals: set[int] = set()
        self._traced = any(part.traced for part in orig.functions())
        self._users = [_users(parts) for parts in (orig, patched)]

    def run(self) -> Changes:
        self._pair()
        self._compare_functions()
        while along := [(old, new) for old, new in self.changes.functions if self._goes_along(old, new)]:
            for old, new in along:
                del self.pairs[id(new)]
                self._paired_originals.remove(id(old))
            self._known.clear()
            self._compare_functions()
        self._take_constants()
        self._check_aliases()
        self._compare_data()
        self._compare_sections()
        self._compare_info()
        return self.changes

    # ---- pairing ----

    def _pair(self) -> None:
        groups: dict[tuple[str, bool], tuple[list[Part], list[Part]]] = defaultdict(lambda: ([], []))
        for side, parts in enumerate((self.orig, self.patched)):
            for part in parts.all:
                if part.symbols and not part.is_fresh and not part.is_clone:
                    groups[suffix_free(part.name), part.is_func][side].append(part)
        for (name, _), (old, new) in groups.items():
            if old and new:
                self._pair_named(name, old, new)
        # function by function, clones and cold parts find each other through those that refer to them

    def _join(self, old: Part, new: Part) -> None:
        self.pairs[id(new)] = old
        self._paired_originals.add(id(old))

    def _pair_named(self, name: str, old: list[Part], new: list[Part]) -> None:
        """Pair what has one name; static locals of that name by the functions that refer to them."""
        exact = {part.name: part for part in old if part.is_global or not _numbered(part)}
        for part in list(new):
            if (part.is_global or not _numbered(part)) and part.name in exact:
                self._join(exact[part.name], part)
                old.remove(exact[part.name])
                new.remove(part)
        if len(old) == len(new) == 1 and not (_numbered(old[0]) and _numbered(new[0])):
            if _numbered(old[0]) != _numbered(new[0]) and not self._may_be(old[0], new[0]):
                raise self._moved(name, old[0], new[0])
            self._join(old.pop(), new.pop())
        users: dict[str, tuple[list[Part], list[Part]]] = defaultdict(lambda: ([], []))
        for side, group in enumerate((old, new)):
            for part in group:
                users[next(iter(self._users[side][id(part)]), "")][side].append(part)
        for owner, (before, after) in users.items():
            if len(before) == len(after):
                for a, b in zip(before, after, strict=True):
                    self._join(a, b)
                    old.remove(a)
                    new.remove(b)
            elif before and after:
                raise self._ambiguous(name, owner, len(before), len(after))
        for part in list(new):
            same = [one for one in old if self._may_be(one, part)]
            if len(same) == 1:
                self._join(same[0], part)
                old.remove(same[0])
                new.remove(part)
        if old and new:
            raise self._moved(name, old[0], new[0])

    def _may_be(self, old: Part, new: Part) -> bool:
        """Tell whether a static local is the same one, though another function is the first that refers to it.

        It is when a function refers to both. Whether another function has it because that is not inlined any more,
        or has one of its own of the same name, nothing tells.
        """
        before, after = self._users[0][id(old)], self._users[1][id(new)]
        return bool(before.keys() & after.keys()) or not (before or after)

    def _moved(self, name: str, old: Part, new: Part) -> BuildError:
        there, here = (" and ".join(f"{user}()" for user in self._users[side][id(part)]) or self.source
                       for side, part in ((0, old), (1, new)))
        return BuildError(
            f"the static variable {name} of {there} goes, and one of {here} comes: nothing tells whether it is the "
            "same, with what it holds", kind="ambiguous", symbol=name, file=self.source,
            remedy="give the new one a name of its own, or leave the old one where it is")

    def _ambiguous(self, name: str, owner: str, before: int, after: int) -> BuildError:
        return BuildError(
            f"{owner or self.source} has {before} static variables called {name} and would have "
            f"{after}: nothing tells which of them is new",
            kind="ambiguous", symbol=name, file=self.source, remedy="give the new one a name of its own")

    # ---- functions ----

    def _compare_functions(self) -> None:
        self.changes.functions, self.changes.added = [], []
        for new in self.patched.functions():
            if new.is_cold:
                continue
            old = self.pairs.get(id(new))
            if old is None:
                if not new.is_clone:
                    self.changes.added.append(new)
                continue
            if not self._equal(old, new):
                if old.in_init or new.in_init:
                    raise BuildError(
                        f"{new.name}() changes, and it is code that runs once, at init or exit",
                        kind="init", symbol=new.name, file=self.source,
                        remedy="what it did is done: change what it left behind in a pre-patch callback instead")
                self.changes.functions.append((old, new))
                self.changes.first[new.name] = self._first(old, new)
        # an init function that is new is one that an initcall or another init function needs: found below
        self.changes.added = [part for part in self.changes.added if not part.in_init]
        self.changes.removed = [old for old in self.orig.functions()
                                if id(old) not in self._paired_originals and not old.is_clone and not old.is_cold]

    def _check_aliases(self) -> None:
        """Make sure that what others call by another name of a function is still that function."""
        for old, new in self.changes.functions:
            kept = {symbol.name for symbol in new.symbols}
            for name in sorted(symbol.name for symbol in old.symbols if symbol.bind and symbol.name not in kept):
                raise BuildError(
                    f"{name}() is another name of {new.name}() in the running kernel, and with the diff it is not: who "
                    f"calls it would get the new code of {new.name}()", kind="ambiguous", symbol=name,
                    file=self.source, remedy=f"leave {name}() an alias, and change what calls it")

    def _goes_along(self, old: Part, new: Part) -> bool:
        """Tell whether a changed function cannot be replaced, and can be taken along by those that call it.

        So is the body of a system call, and any static inline function, where the compiler has not inlined it: those
        are not traced. Its callers are changed then, as they would be if it were inlined.
        """
        return (not old.traced and not old.is_global and not new.is_global and self._traced
                and all(part.section.name.startswith(".text") for part in (old, new))
                and not any(ref.part is target and not ref.branch and not ref.at
                            for parts, target in ((self.orig, old), (self.patched, new))
                            for part in parts.all for ref in part.refs))

    def _equal(self, old: Part, new: Part) -> bool:
        """Compare content; a comparison that is under way is taken to succeed, for what refers to itself.

        When it does not, what was found equal meanwhile may rest on it, and is forgotten.
        """
        key = id(old), id(new)
        if key in self._known:
            return self._known[key]
        self._known[key] = True
        before = len(self._known)
        result = (
            old.size == new.size
            and old.section.type == new.section.type
            and self._same_bytes(_content(old), old.refs, _content(new), new.refs)
            and self._same_entries(old, new)
        )
        if not result:
            for later in list(self._known)[before:]:
                if self._known[later]:
                    del self._known[later]
            self._known[key] = False
        return result

    def _same_bytes(self, old: bytes, old_refs: list[Ref], new: bytes, new_refs: list[Ref]) -> bool:
        if old != new or len(old_refs) != len(new_refs):
            return False
        return all(self._same_ref(a, b) for a, b in zip(old_refs, new_refs, strict=True))

    def _same_ref(self, a: Ref, b: Ref) -> bool:
        if (a.offset, a.type, a.at, a.bias, a.external) != (b.offset, b.type, b.at, b.bias, b.external):
            return False
        if a.part is None or b.part is None:
            return a.part is b.part
        if self.pairs.get(id(b.part)) is a.part:
            return True
        if id(b.part) in self.pairs or id(a.part) in self._paired_originals:
            return False
        if a.part.is_string and b.part.is_string:
            return a.part.data == b.part.data
        alike = _nameless(a.part.name) == _nameless(b.part.name) or not a.part.symbols
        return alike and self._equal(a.part, b.part)

    def _same_entries(self, old: Part, new: Part) -> bool:
        """Compare what tables say about a function; lines of warnings may shift."""
        a, b = _telling(old), _telling(new)
        return len(a) == len(b) and all(
            x.table == y.table and self._same_bytes(_lineless(x), x.refs, _lineless(y), y.refs)
            for x, y in zip(a, b, strict=True))

    def _first(self, old: Part, new: Part) -> int:
        """Return the offset of the first difference in the code of *new*."""
        a, b = old.data, new.data
        shared = min(len(a), len(b))
        offset = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), shared)
        for x, y in zip(old.refs, new.refs, strict=False):
            if min(x.offset, y.offset) >= offset:
                break
            if not self._same_ref(x, y):
                return min(x.offset, y.offset)
        return min(offset, max(len(b) - 1, 0))

    # ---- data ----

    def _take_constants(self) -> None:
        """Take constants that change along with the functions that use them, which all change then.

        They must lead to no function: tables of those are known by their address, too.
        """
        taken = [(old, new) for new in self.patched.all if (old := self.pairs.get(id(new))) is not None
                 and self._is_table(self.orig, old) and self._is_table(self.patched, new) and not self._equal(old, new)]
        for old, new in taken:
            del self.pairs[id(new)]
            self._paired_originals.remove(id(old))
            self.changes.notes.append(
                f"{new.name} goes with the patch, with what it becomes, and so do all functions that use it: what "
                "keeps its address has to release it in a callback, before the patch is unloaded")
        if taken:
            self._known.clear()
            self._compare_functions()

    @staticmethod
    def _is_table(parts: Parts, part: Part) -> bool:
        """Tell whether a part is a constant of this source that only functions refer to, and that refers to none."""
        return (bool(part.symbols) and tables.data_kind(part.section) == ".rodata" and not part.is_global
                and all(ref.part is not None and not ref.part.is_func for ref in part.refs)
                and all(user.is_func and not user.in_init for user in parts.all
                        if any(ref.part is part for ref in user.refs)))

    def _compare_data(self) -> None:
        for new in self.patched.all:
            old = self.pairs.get(id(new))
            if old is None or new.is_func or tables.registers(new.section.name):
                continue
            if tables.is_export(new.section.name) or self._equal(old, new):
                continue
            if tables.is_init(new.section.name):
                raise BuildError(
                    f"the initial value of {new.name} changes, and it is used at init only", kind="init",
                    symbol=new.name, file=self.source,
                    remedy="what init did is done: change what it left behind in a pre-patch callback instead")
            if old.size != new.size:
                why = f"the size of {new.name} changes from {old.size} to {new.size} bytes"
            else:
                why = f"the initial value of {new.name} changes"
            raise BuildError(
                f"{why}, and the running kernel has it in use", kind="data", symbol=new.name, file=self.source,
                remedy="change it in a pre-patch callback, or add a new variable and let the code use that")

    def _compare_sections(self) -> None:
        """Compare what the kernel finds through its section: parameters, initcalls, exports, tracepoints."""
        names = {section.name for parts in (self.orig, self.patched) for section in parts.object.sections
                 if section.allocated}
        for name in sorted(names):
            export, init = tables.is_export(name), tables.is_init(name)
            if not (export or init or tables.registers(name)) or name == "__ksymtab_strings":
                continue
            old, new = ([part for part in parts.all if part.section.name == name and not part.is_func]
                        for parts in (self.orig, self.patched))
            if name == tables.BTF_IDS:
                self._compare_ids()
                continue
            if len(old) == len(new) and all(self._equal(a, b) for a, b in zip(old, new, strict=True)):
                continue
            before = {suffix_free(part.name) for part in old}
            culprit = next((part.name for part in new if suffix_free(part.name) not in before),
                           (new or old)[0].name)
            if export and culprit == name and not _EXPORTED.match(name):
                # since 6.4 (ddb5cdbafaaa) an export is an entry without a symbol that refers to what is exported
                culprit = next(iter(sorted(_meant(old) ^ _meant(new))), culprit)
            if export and self._only_added(old, new):
                fresh = sorted(_meant(new) - _meant(old)) if culprit in _meant(new) else [_EXPORTED.sub("", culprit)]
                self.changes.notes += [f"{each} is not exported to modules, which a patch cannot do; the code of the "
                                       "patch calls it all the same" for each in fresh]
                continue
            self._refuse_section(name, culprit, export=export, init=init)

    def _compare_ids(self) -> None:
        """Compare the sets of types and functions by what their elements stand for."""
        old, new = (tables.ids(parts.object) for parts in (self.orig, self.patched))
        if old != new:
            before, after = next((a, b) for a, b in itertools.zip_longest(old, new) if a != b)
            name = (after or before)[0].removeprefix("__BTF_ID__").strip("_")
            raise BuildError(
                f"the diff changes a set of BTF ids of {self.source} ({name}), which the kernel has read when it "
                "started", kind="registration", symbol=name, file=self.source,
                remedy="leave the sets as they are, and decide in the code that asks them")

    def _compare_info(self) -> None:
        """Tell about what a module says of itself, which stays as it is."""
        words = [{word for word in bytes(section.data).decode(errors="replace").split("\0") if word}
                 if (section := parts.object.section(tables.INFO)) else set() for parts in (self.orig, self.patched)]
        self.changes.notes += [f"modinfo goes on without {word!r}: a patch changes no module's file"
                               for word in sorted(words[1] - words[0])]
        self.changes.notes += [f"modinfo goes on with {word!r}: a patch changes no module's file"
                               for word in sorted(words[0] - words[1])]

    def _only_added(self, old: list[Part], new: list[Part]) -> bool:
        """Tell whether all that was exported still is."""
        return all(any(self._equal(a, b) for b in new) for a in old) or _rows(old) < _rows(new)

    def _refuse_section(self, name: str, culprit: str, *, export: bool, init: bool) -> None:
        if export:
            culprit = _EXPORTED.sub("", culprit)
            raise BuildError(
                f"the diff changes what {self.source} exports to modules ({culprit})", kind="export",
                symbol=culprit, file=self.source, remedy="modules may have it in use: leave EXPORT_SYMBOL as it is")
        if init and not name.startswith((".initcall", ".con_initcall", ".exitcall")):
            raise BuildError(
                f"the diff changes data that is used at init only ({culprit} in {name})", kind="init",
                symbol=culprit, file=self.source,
                remedy="what init did is done: change what it left behind in a pre-patch callback instead")
        raise BuildError(
            f"the diff changes what {self.source} registers when it starts ({culprit} in {name})",
            kind="registration", symbol=culprit, file=self.source,
            remedy="the kernel reads that once, at boot or when a module loads: do it in a pre-patch callback instead")


def _nameless(name: str) -> str:
    """Return *name* without the numbers that the compiler, or the preprocessor's __COUNTER__, gives."""
    return re.sub(r"\A(__UNIQUE_ID_\w*?)\d+\Z", r"\1", suffix_free(name))


def _meant(parts: list[Part]) -> set[str]:
    """Return the names that parts refer to."""
    return {ref.part.name if ref.part else ref.external for part in parts for ref in part.refs}


def _rows(parts: list[Part]) -> set[tuple[bytes, str]]:
    """Return what each reference of parts stands for: the bytes before it, and the name it refers to."""
    rows = set()
    for part in parts:
        end = 0
        for ref in part.refs:
            rows.add((part.data[end:ref.offset].lstrip(b"\0"), ref.part.name if ref.part else ref.external))
            end = ref.offset + 8
    return rows


def _users(parts: Parts) -> dict[int, dict[str, None]]:
    """Return the names of the functions that refer to each part, in their order."""
    users: dict[int, dict[str, None]] = defaultdict(dict)
    for part in parts.functions():
        for ref in part.refs:
            users[id(ref.part)][_bare(part)] = None
    return users


def _bare(part: Part) -> str:
    """Return the name that a function has in the source."""
    return suffix_free(part.name).partition(".")[0]


def _numbered(part: Part) -> bool:
    """Tell whether a part is a static local: the compiler numbers those."""
    return suffix_free(part.name) != part.name


def _telling(part: Part) -> list[Entry]:
    """Return the entries that say what a function does, table by table; the others are notes for objtool."""
    return sorted((entry for entry in part.entries if not entry.table.startswith(".discard")),
                  key=lambda entry: entry.table)


def _content(part: Part) -> bytes:
    return part.data if part.entry is None else _lineless(part.entry)


def _lineless(entry: Entry) -> bytes:
    if entry.table != tables.BUGS:
        return entry.data
    data = bytearray(entry.data)
    data[tables.BUG_LINE] = bytes(2)
    return bytes(data)
