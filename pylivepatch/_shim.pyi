# SPDX-License-Identifier: MIT
"""Types of the compiled extension; tests/shim/test_stub.py keeps it equal to `lib`.

Every function returns 0 or -errno unless csrc/plp.h says otherwise, releases the
GIL while it runs, and takes strings as bytes without a NUL.
"""

from typing import Final, Generic, Literal, TypeVar, overload, type_check_only

_T = TypeVar("_T")

@type_check_only
class Connection:
    """`struct plp_nl *`."""

@type_check_only
class Text:
    """`const char *`: `ffi.string()` copies it; false when it is NULL."""

    def __bool__(self) -> bool: ...

@type_check_only
class Attr:
    """`struct plp_attr *`."""

    type: int
    depth: int
    parent: int
    nested: int
    number: int
    text: Text

@type_check_only
class Answer:
    """`struct plp_answer *`."""

    state: int
    words: Text

@type_check_only
class Box(Generic[_T]):
    """A pointer to one value, at index 0."""

    def __getitem__(self, index: Literal[0], /) -> _T: ...

@type_check_only
class Null:
    """`ffi.NULL`."""

@type_check_only
class Ffi:
    NULL: Final[Null]
    @overload
    def new(self, cdecl: Literal["struct plp_nl **"], /) -> Box[Connection]: ...
    @overload
    def new(self, cdecl: Literal["struct plp_attr *"], /) -> Attr: ...
    @overload
    def new(self, cdecl: Literal["struct plp_answer *"], /) -> Answer: ...
    def string(self, text: Text, /) -> bytes: ...

@type_check_only
class Lib:
    KLPCTL_GENL_NAME: Final[Text]
    KLPCTL_GENL_GROUP: Final[Text]
    KLPCTL_DEVICE: Final[Text]

    KLPCTL_GENL_VERSION: Final[int]
    KLPCTL_VERSION: Final[int]
    KLPCTL_NAME_LEN: Final[int]
    KLPCTL_CMD_MAX: Final[int]
    KLPCTL_A_MAX: Final[int]
    KLPCTL_A_TRANSITION_MAX: Final[int]
    KLPCTL_A_OBJECT_MAX: Final[int]
    KLPCTL_A_FUNC_MAX: Final[int]
    KLPCTL_A_TASK_MAX: Final[int]
    KLPCTL_REQUEST_SIZE_VER0: Final[int]
    KLPCTL_WAIT_FOREVER: Final[int]
    KLPCTL_IOC_MAGIC: Final[int]
    KLPCTL_IOC_ENABLE: Final[int]
    KLPCTL_IOC_REVERT: Final[int]
    KLPCTL_IOC_FORCE: Final[int]
    KLPCTL_IOC_CONFIRM: Final[int]
    KLPCTL_IOC_WAIT: Final[int]

    KLPCTL_CMD_UNSPEC: Final[int]
    KLPCTL_CMD_FEATURES_GET: Final[int]
    KLPCTL_CMD_PATCH_GET: Final[int]
    KLPCTL_CMD_TASK_GET: Final[int]
    KLPCTL_CMD_EVENT: Final[int]

    KLPCTL_A_UNSPEC: Final[int]
    KLPCTL_A_PAD: Final[int]
    KLPCTL_A_VERSION: Final[int]
    KLPCTL_A_FEATURES: Final[int]
    KLPCTL_A_KICKS: Final[int]
    KLPCTL_A_SEQ: Final[int]
    KLPCTL_A_TIME: Final[int]
    KLPCTL_A_ACTION: Final[int]
    KLPCTL_A_NAME: Final[int]
    KLPCTL_A_STATE: Final[int]
    KLPCTL_A_FLAGS: Final[int]
    KLPCTL_A_TRANSITION: Final[int]
    KLPCTL_A_OBJECT: Final[int]
    KLPCTL_A_TASK: Final[int]
    KLPCTL_A_CONFIRM: Final[int]
    KLPCTL_A_REVERSALS: Final[int]
    KLPCTL_A_OPTIONS: Final[int]

    KLPCTL_A_TRANSITION_UNSPEC: Final[int]
    KLPCTL_A_TRANSITION_PAD: Final[int]
    KLPCTL_A_TRANSITION_TARGET: Final[int]
    KLPCTL_A_TRANSITION_TOTAL: Final[int]
    KLPCTL_A_TRANSITION_DONE: Final[int]
    KLPCTL_A_TRANSITION_START: Final[int]
    KLPCTL_A_TRANSITION_DEADLINE: Final[int]

    KLPCTL_A_OBJECT_UNSPEC: Final[int]
    KLPCTL_A_OBJECT_NAME: Final[int]
    KLPCTL_A_OBJECT_FUNC: Final[int]

    KLPCTL_A_FUNC_UNSPEC: Final[int]
    KLPCTL_A_FUNC_NAME: Final[int]
    KLPCTL_A_FUNC_SYMPOS: Final[int]

    KLPCTL_A_TASK_UNSPEC: Final[int]
    KLPCTL_A_TASK_PID: Final[int]
    KLPCTL_A_TASK_TID: Final[int]
    KLPCTL_A_TASK_COMM: Final[int]
    KLPCTL_A_TASK_CPU: Final[int]
    KLPCTL_A_TASK_REASON: Final[int]
    KLPCTL_A_TASK_FUNC: Final[int]
    KLPCTL_A_TASK_STACK: Final[int]

    KLPCTL_FEATURE_EVENTS: Final[int]
    KLPCTL_FEATURE_FAST: Final[int]
    KLPCTL_FEATURE_RELOC_CLEAR: Final[int]
    KLPCTL_FEATURE_REASONS: Final[int]
    KLPCTL_FEATURE_STACKS: Final[int]

    KLPCTL_STATE_REGISTERED: Final[int]
    KLPCTL_STATE_ENABLING: Final[int]
    KLPCTL_STATE_ENABLED: Final[int]
    KLPCTL_STATE_DISABLING: Final[int]
    KLPCTL_STATE_DISABLED: Final[int]
    KLPCTL_STATE_REPLACED: Final[int]

    KLPCTL_TARGET_UNPATCHED: Final[int]
    KLPCTL_TARGET_PATCHED: Final[int]

    KLPCTL_ACTION_REGISTERED: Final[int]
    KLPCTL_ACTION_STARTED: Final[int]
    KLPCTL_ACTION_REVERSED: Final[int]
    KLPCTL_ACTION_FORCED: Final[int]
    KLPCTL_ACTION_COMPLETED: Final[int]
    KLPCTL_ACTION_REPLACED: Final[int]
    KLPCTL_ACTION_UNREGISTERED: Final[int]
    KLPCTL_ACTION_PROGRESS: Final[int]
    KLPCTL_ACTION_CONFIRMED: Final[int]
    KLPCTL_ACTION_EXPIRED: Final[int]

    KLPCTL_PATCH_REGISTERED: Final[int]
    KLPCTL_PATCH_REPLACE: Final[int]
    KLPCTL_PATCH_FORCED: Final[int]

    KLPCTL_TASK_STACK: Final[int]

    KLPCTL_REASON_UNKNOWN: Final[int]
    KLPCTL_REASON_RUNNING: Final[int]
    KLPCTL_REASON_UNRELIABLE: Final[int]
    KLPCTL_REASON_SLEEPING: Final[int]

    KLPCTL_ENABLE_OWNED: Final[int]
    KLPCTL_ENABLE_DEADLINE: Final[int]

    KLPCTL_FORCE_ACCEPT_RISK: Final[int]

    def plp_nl_open(self, nl: Box[Connection], /) -> int: ...
    def plp_nl_close(self, nl: Connection, /) -> None: ...
    def plp_nl_fd(self, nl: Connection, /) -> int: ...
    def plp_nl_subscribe(self, nl: Connection, /) -> int: ...
    def plp_nl_send(
        self, nl: Connection, cmd: int, dump: int, name: bytes | Null, options: int, /
    ) -> int: ...
    def plp_nl_receive(self, nl: Connection, timeout_ms: int, /) -> int: ...
    def plp_nl_cmd(self, nl: Connection, /) -> int: ...
    def plp_nl_next(self, nl: Connection, attr: Attr, /) -> int: ...
    def plp_nl_extack(self, nl: Connection, /) -> Text: ...
    def plp_dev_open(self, path: bytes | Null, /) -> int: ...
    def plp_dev_close(self, fd: int, /) -> int: ...
    def plp_dev_request(
        self, fd: int, request: int, name: bytes, flags: int, timeout_ms: int, answer: Answer, /
    ) -> int: ...
    def plp_module_insert(self, path: bytes, options: bytes | Null, /) -> int: ...
    def plp_module_probe(self, name: bytes, /) -> int: ...
    def plp_module_remove(self, name: bytes, /) -> int: ...

ffi: Ffi
lib: Lib
