# SPDX-License-Identifier: MIT
"""What is done about a transition, as pure data: effects and replies, without kernel, clock or sleep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from pylivepatch import (
    AlreadyError,
    BadDataError,
    Blocker,
    ConfirmationExpiredError,
    KernelError,
    PatchState,
    PatchStateError,
    PatchStatus,
    Progress,
    Reason,
    Target,
    TransitionBusyError,
    TransitionReversedError,
    TransitionTimeoutError,
    UnsupportedError,
)
from pylivepatch._flow import Call, Course, Now, Read, Record, Seen, Sleep, Wait
from pylivepatch.kernel import changes
from pylivepatch.kernel.changes import Options

if TYPE_CHECKING:
    from pylivepatch._flow import Effect, Flow
    from pylivepatch.kernel import Kernel

BACKEND = SimpleNamespace(revert=print, enable=print, blockers=print, task_count=print, patch=print)
KERNEL = cast("Kernel", SimpleNamespace(backend=BACKEND, sysfs=None))
REVERT, ENABLE = Call("revert fix", print), Call("enable fix", print)
BLOCKERS = Call("read blockers", print, slow=True)
COUNT, REMOVE, STATUS = (Call(what, print) for what in ("count tasks", "unload fix", "read fix"))


class Interrupted(BaseException):
    """What Ctrl-C or a cancellation throws."""


def status(state: PatchState, done: int = 0, total: int = 10, *, registered: bool = True) -> PatchStatus:
    """The patch in a state."""
    target = Target.PATCHED if state is PatchState.ENABLING else Target.UNPATCHED
    progress = Progress(target, done, total, 0.0) if state.in_transition else None
    return PatchStatus("fix", state, registered, None, False, (), progress)


def seen(state: PatchState, now: float, done: int = 0) -> Seen:
    """The reply to a `Read`."""
    return Seen(status(state, done), now)


def play(flow: Flow[Any], *script: tuple[Effect, object], records: list[Record] | None = None) -> object:
    """Insist on effects, give their replies, or throw them; return, or raise, what the flow ends with.

    What is to be recorded goes to `records`.
    """
    replies = iter(script)
    try:
        effect = next(flow)
        while True:
            if isinstance(effect, Record):
                (records if records is not None else []).append(effect)
                effect = flow.send(None)
                continue
            expected, reply = next(replies, (None, None))
            assert expected is not None, f"one effect more: {effect}"
            assert effect == expected
            effect = flow.throw(reply) if isinstance(reply, BaseException) else flow.send(reply)
    except StopIteration as end:
        assert next(replies, None) is None, "some effects less"
        return end.value


def course(target: Target = Target.PATCHED, *, ours: bool = True, timeout: float | None = 30.0) -> Course:
    """A transition that started at 100 s."""
    made = Course(KERNEL, "fix", target, 100.0, ours=ours)
    made.within(timeout)
    return made


def busy(patch: str | None) -> TransitionBusyError:
    """Another transition runs, or the kernel still holds the module of one that has ended."""
    error = TransitionBusyError("busy", errno=16)
    error.patch = patch
    return error


BLOCKER = Blocker("fix", 7, 7, "sleeper", Reason.SLEEPING, "f")


def test_the_end() -> None:
    """It is waited for, and the tasks are those that were counted last."""
    each = course()
    assert play(
        each.step(),
        (Read("fix"), seen(PatchState.ENABLING, 101.0, done=9)),
        (Wait("fix", 130.0), None),
        (Read("fix"), seen(PatchState.ENABLED, 102.5)),
    )
    assert each.final == Progress(Target.PATCHED, 10, 10, 2.5)


def test_an_end_before_anything_was_counted() -> None:
    """Then all tasks there are have switched."""
    each = course()
    assert play(each.look(), (Read("fix"), seen(PatchState.ENABLED, 100.5)), (COUNT, 77))
    assert each.final == Progress(Target.PATCHED, 77, 77, 0.5)


def test_steps() -> None:
    """A step is as long as it may be, but never longer than the deadline."""
    each = course()
    assert not play(each.step(0.1), (Read("fix"), seen(PatchState.ENABLING, 101.0)), (Wait("fix", 101.1, False), None))
    assert not play(each.step(0.1), (Read("fix"), seen(PatchState.ENABLING, 129.95)), (Wait("fix", 130.0, False), None))


def test_the_deadline_reverses() -> None:
    """The blockers are read, the transition is reversed, and the error comes when that has ended."""
    each = course()
    with pytest.raises(TransitionTimeoutError, match=r"within 30 s \(3 of 10 tasks done\), held up by sleeper") as info:
        play(
            each.step(),
            (Read("fix"), seen(PatchState.ENABLING, 130.0, done=3)),
            (BLOCKERS, [BLOCKER]),
            (REVERT, None),
            (Now(), 130.5),
            (Read("fix"), seen(PatchState.DISABLING, 131.0)),
            (Wait("fix", 160.5), None),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
        )
    assert info.value.reversed
    assert info.value.state is PatchState.DISABLED
    assert info.value.blockers == (BLOCKER,)


def test_the_deadline_reverses_once_for_all() -> None:
    """A second waiter that comes while it is being reversed waits for that, and fails alike."""
    each = course()
    first = each.step()
    next(first)
    assert first.send(seen(PatchState.ENABLING, 130.0, done=3)) == BLOCKERS
    assert first.send([]) == REVERT
    assert first.send(None) == Now()
    with pytest.raises(TransitionTimeoutError, match="3 of 10") as info:
        play(
            each.step(),
            (Now(), 131.0),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
            (Read("fix"), seen(PatchState.DISABLED, 132.0)),
        )
    assert info.value.reversed


def test_the_deadline_reports() -> None:
    """With "report" nothing is reversed, not by an interruption of the error's way out either."""
    each = course()
    each.within(30.0, "report")
    with pytest.raises(TransitionTimeoutError, match="still enabling") as info:
        play(
            each.leave(None),
            (Read("fix"), seen(PatchState.ENABLING, 130.0, done=3)),
            (BLOCKERS, KernelError("no", errno=1)),
            (Read("fix"), seen(PatchState.ENABLING, 130.0, done=3)),
            (Read("fix"), seen(PatchState.ENABLING, 130.0, done=3)),
            (BLOCKERS, []),
        )
    assert not info.value.reversed
    each.within(60.0)
    assert each.error is None


def test_an_end_at_the_deadline() -> None:
    """It is the end that counts: when the reversal is refused because of it, and when it comes with "report"."""
    assert play(
        course().step(),
        (Read("fix"), seen(PatchState.ENABLING, 130.0, done=9)),
        (BLOCKERS, []),
        (REVERT, PatchStateError("it has ended", errno=114)),
        (Read("fix"), seen(PatchState.ENABLED, 130.1)),
    )
    each = course()
    each.within(30.0, "report")
    assert play(
        each.step(),
        (Read("fix"), seen(PatchState.ENABLING, 130.0, done=9)),
        (BLOCKERS, []),
        (Read("fix"), seen(PatchState.ENABLED, 130.1)),
    )


def test_reversed_by_somebody_else() -> None:
    """It ends where it started, and nobody here did that; it is said every time."""
    each = course(Target.UNPATCHED)
    with pytest.raises(TransitionReversedError, match="somebody else") as info:
        play(each.step(), (Read("fix"), seen(PatchState.ENABLED, 101.0)), (COUNT, 5))
    assert info.value.state is PatchState.ENABLED
    with pytest.raises(TransitionReversedError, match="somebody else"):
        play(each.step())


def test_reversed_for_want_of_a_confirmation() -> None:
    """When the window ends in mid-transition it was the kernel, and the caller's own wish."""
    each = course()
    each.window = 2.0
    with pytest.raises(ConfirmationExpiredError, match=r"not confirmed in time \(2 s\)"):
        play(each.step(), (Read("fix"), seen(PatchState.DISABLED, 102.1)), (COUNT, 5))
    each = course()
    each.window = 2.0
    with pytest.raises(TransitionReversedError, match="somebody else"):
        play(each.step(), (Read("fix"), seen(PatchState.DISABLED, 101.0)), (COUNT, 5))


@pytest.mark.parametrize("effect", ["read", "wait"])
def test_an_interruption_reverses(effect: str) -> None:
    """Interrupted anywhere, what was started here is reversed, waited for, and the interruption goes on."""
    each = course()
    begin: list[tuple[Effect, object]] = [(Read("fix"), Interrupted())]
    if effect == "wait":
        begin = [(Read("fix"), seen(PatchState.ENABLING, 101.0)), (Wait("fix", 130.0), Interrupted())]
    with pytest.raises(Interrupted) as info:
        play(each.step(), *begin, (REVERT, None), (Now(), 101.0), (Read("fix"), seen(PatchState.DISABLED, 101.5)))
    assert each.reversed
    assert not hasattr(info.value, "__notes__")


def test_an_interruption_of_the_reversal_ends_the_wait() -> None:
    """The second interruption is the last: the reversal goes on in the kernel."""
    with pytest.raises(Interrupted):
        play(
            course().step(),
            (Read("fix"), Interrupted()),
            (REVERT, None),
            (Now(), 101.0),
            (Read("fix"), seen(PatchState.DISABLING, 101.5)),
            (Wait("fix", 131.0), Interrupted()),
        )


def test_a_reversal_that_does_not_end_is_noted() -> None:
    """So is one that was refused: the interruption is what is raised."""
    with pytest.raises(Interrupted) as info:
        play(
            course().step(),
            (Read("fix"), Interrupted()),
            (REVERT, None),
            (Now(), 101.0),
            (Read("fix"), seen(PatchState.DISABLING, 131.5)),
        )
    assert "has not ended" in info.value.__notes__[0]
    with pytest.raises(Interrupted) as info:
        play(course().step(), (Read("fix"), Interrupted()), (REVERT, KernelError("no", errno=5)))
    assert "was not reversed: no" in info.value.__notes__[0]


def test_an_interruption_of_who_looks_on() -> None:
    """What somebody else started goes on, unless a with block is left."""
    with pytest.raises(Interrupted):
        play(course(ours=False).step(), (Read("fix"), Interrupted()))
    with pytest.raises(Interrupted):
        play(
            course(ours=False).leave(None),
            (Read("fix"), Interrupted()),
            (REVERT, None),
            (Now(), 101.0),
            (Read("fix"), seen(PatchState.DISABLED, 101.5)),
        )


def test_an_interruption_of_one_among_several() -> None:
    """The others still wait: it goes on. When the last is interrupted it is reversed."""
    each = course()
    first, second = each.step(), each.step()
    for waiter in (first, second):
        assert next(waiter) == Read("fix")
        assert waiter.send(seen(PatchState.ENABLING, 101.0)) == Wait("fix", 130.0)
    with pytest.raises(Interrupted):
        first.throw(Interrupted())
    assert second.throw(Interrupted()) == REVERT
    second.close()


def test_who_still_waits_learns_of_an_interruption() -> None:
    """One that waits while a block is left by an exception is told that it was reversed, and why."""
    each = course(ours=False)
    waiter = each.step()
    next(waiter)
    waiter.send(seen(PatchState.ENABLING, 101.0))
    play(
        each.leave(ValueError()), (REVERT, None), (Now(), 101.0), (Read("fix"), seen(PatchState.DISABLED, 101.5))
    )
    assert waiter.send(None) == Now()
    assert waiter.send(102.0) == Read("fix")
    with pytest.raises(TransitionReversedError, match="interrupted"):
        waiter.send(seen(PatchState.DISABLED, 102.0))


def test_progress_is_reported() -> None:
    """With somebody who wants to know, the wait is cut into steps."""
    heard: list[Progress] = []
    each = course()
    each.on_progress = heard.append
    report = Call("report progress", print)
    assert play(
        each.step(),
        (Read("fix"), seen(PatchState.ENABLING, 101.0)),
        (report, None),
        (Wait("fix", 101.1, False), None),
        (Read("fix"), seen(PatchState.ENABLED, 101.1)),
    )


def test_bad_deadlines() -> None:
    """A policy or a deadline that cannot be is refused."""
    for timeout, policy in ((0.0, "reverse"), (1.0, "explode")):
        with pytest.raises(BadDataError):
            course().within(timeout, policy)  # type: ignore[arg-type]


# ---- starting ----


def test_enable() -> None:
    """It is started, and its end is waited for."""
    each = play(
        changes.enable(KERNEL, "fix", Options(30.0)),
        (Now(), 100.0),
        (ENABLE, None),
        (Read("fix"), seen(PatchState.ENABLING, 100.1)),
        (Wait("fix", 130.0), None),
        (Read("fix"), seen(PatchState.ENABLED, 101.0)),
    )
    assert isinstance(each, Course)
    assert each.changed
    assert each.final is not None


def test_a_module_that_is_about_to_be_released() -> None:
    """The start is tried again for two seconds, and the transition counts from the start that succeeded."""
    each = play(
        changes.revert(KERNEL, "fix", Options(30.0, wait=False)),
        (Now(), 100.0),
        (REVERT, busy(None)),
        (Sleep(0.002), None),
        (Now(), 101.9),
        (REVERT, None),
        (Read("fix"), seen(PatchState.DISABLING, 102.0)),
    )
    assert isinstance(each, Course)
    assert each.started == 101.9
    with pytest.raises(TransitionBusyError):
        play(
            changes.revert(KERNEL, "fix", Options()),
            (Now(), 100.0),
            (REVERT, busy(None)),
            (Sleep(0.002), None),
            (Now(), 102.1),
            (REVERT, busy(None)),
        )
    with pytest.raises(TransitionBusyError):
        play(changes.revert(KERNEL, "fix", Options()), (Now(), 100.0), (REVERT, busy("other")))


def test_an_interruption_of_the_start() -> None:
    """The kernel may have been asked: if the transition runs it is reversed; if not, nothing is done."""
    with pytest.raises(Interrupted):
        play(
            changes.enable(KERNEL, "fix", Options()),
            (Now(), 100.0),
            (ENABLE, Interrupted()),
            (Read("fix"), seen(PatchState.ENABLING, 100.1)),
            (REVERT, None),
            (Now(), 101.0),
            (Read("fix"), seen(PatchState.DISABLED, 101.5)),
        )
    with pytest.raises(Interrupted):
        play(
            changes.enable(KERNEL, "fix", Options()),
            (Now(), 100.0),
            (ENABLE, Interrupted()),
            (Read("fix"), seen(PatchState.REGISTERED, 100.1)),
        )


def test_an_interruption_before_anybody_knows_of_it() -> None:
    """With ``wait=False`` the caller gets no transition then, so it is reversed."""
    with pytest.raises(Interrupted):
        play(
            changes.enable(KERNEL, "fix", Options(wait=False)),
            (Now(), 100.0),
            (ENABLE, None),
            (Read("fix"), Interrupted()),
            (REVERT, None),
            (Now(), 101.0),
            (Read("fix"), seen(PatchState.DISABLED, 101.5)),
        )


def test_it_is_so_already() -> None:
    """An error, or with *if_needed* a success that has changed nothing; what somebody else began is waited for."""
    already = AlreadyError("it is", errno=114)
    with pytest.raises(AlreadyError):
        play(changes.enable(KERNEL, "fix", Options()), (Now(), 100.0), (ENABLE, already))
    each = play(
        changes.enable(KERNEL, "fix", Options(), if_needed=True),
        (Now(), 100.0),
        (ENABLE, already),
        (Read("fix"), seen(PatchState.ENABLING, 100.1)),
        (Read("fix"), seen(PatchState.ENABLING, 100.1)),
        (Wait("fix", 130.0), None),
        (Read("fix"), seen(PatchState.ENABLED, 101.0)),
    )
    assert isinstance(each, Course)
    assert not each.changed
    with pytest.raises(Interrupted):
        play(
            changes.enable(KERNEL, "fix", Options(), if_needed=True),
            (Now(), 100.0),
            (ENABLE, already),
            (Read("fix"), seen(PatchState.ENABLING, 100.1)),
            (Read("fix"), Interrupted()),
        )


def test_a_standalone_patch_is_loaded_again() -> None:
    """It is enabled by that, if its file is known; otherwise, or with a window, it is refused."""
    disabled = status(PatchState.DISABLED, registered=False)
    kernel = cast("Kernel", SimpleNamespace(backend=BACKEND, sysfs=None, status=lambda _: disabled))
    refused = UnsupportedError("no", feature="enable")
    play(
        changes.enable(kernel, "fix", Options(), reload=print),
        (Now(), 100.0),
        (ENABLE, refused),
        (STATUS, disabled),
        (Now(), 100.1),
        (REMOVE, None),
        (Now(), 100.2),
        (Call("load fix", print, slow=True), None),
        (Read("fix"), seen(PatchState.ENABLED, 101.0)),
        (COUNT, 5),
    )
    with pytest.raises(UnsupportedError):
        play(changes.enable(kernel, "fix", Options()), (Now(), 100.0), (ENABLE, refused))
    with pytest.raises(UnsupportedError):
        play(
            changes.enable(kernel, "fix", Options(), confirm_within=5.0, reload=print),
            (Now(), 100.0),
            (ENABLE, refused),
        )


# ---- loading and unloading ----

FILE = Call("read /fix.ko", print, slow=True)
LOAD = Call("load fix", print, slow=True)


def test_load() -> None:
    """A registered patch has changed nothing; a standalone one is waited for."""
    loaded = play(
        changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=False),
        (FILE, ("fix", "b1d", True)),
        (Now(), 100.0),
        (LOAD, None),
        (Read("fix"), seen(PatchState.REGISTERED, 100.1)),
    )
    assert isinstance(loaded, changes.Loaded)
    assert loaded.course is None
    loaded = play(
        changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=False),
        (FILE, ("fix", "b1d", True)),
        (Now(), 100.0),
        (LOAD, None),
        (Read("fix"), Seen(status(PatchState.ENABLING, registered=False), 100.1)),
        (Read("fix"), seen(PatchState.ENABLED, 101.0)),
        (COUNT, 5),
    )
    assert isinstance(loaded, changes.Loaded)
    assert loaded.course is not None
    assert loaded.course.final is not None
    same = play(changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=True), (FILE, ("fix", "b1d", False)))
    assert isinstance(same, changes.Loaded)
    assert not same.changed


@pytest.mark.parametrize("registered", [True, False])
def test_an_interruption_of_a_load(registered: bool) -> None:
    """What was loaded nevertheless is reversed, if it has to be, and unloaded."""
    state = PatchState.REGISTERED if registered else PatchState.ENABLING
    there = Seen(status(state, registered=registered), 100.1)
    undo: list[tuple[Effect, object]] = [(STATUS, status(PatchState.DISABLED)), (Now(), 101.0), (REMOVE, None)]
    if not registered:
        reversal = [(REVERT, None), (Now(), 100.2), *[(Read("fix"), seen(PatchState.DISABLED, 101.0))] * 2]
        undo = [*reversal, *undo]
    with pytest.raises(Interrupted):
        play(
            changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=False),
            (FILE, ("fix", "b1d", True)),
            (Now(), 100.0),
            (LOAD, Interrupted()),
            (Read("fix"), there),
            *undo,
        )


def test_a_load_that_is_late() -> None:
    """A standalone patch that is not enabled in time is unloaded after its reversal."""
    enabling = Seen(status(PatchState.ENABLING, registered=False), 131.0)
    with pytest.raises(TransitionTimeoutError) as info:
        play(
            changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=False),
            (FILE, ("fix", "b1d", True)),
            (Now(), 100.0),
            (LOAD, None),
            (Read("fix"), enabling),
            (Read("fix"), enabling),
            (BLOCKERS, []),
            (REVERT, None),
            (Now(), 131.0),
            *[(Read("fix"), seen(PatchState.DISABLED, 132.0))] * 4,
            (STATUS, status(PatchState.DISABLED)),
            (Now(), 133.0),
            (REMOVE, None),
        )
    assert info.value.after == "it was reversed and unloaded"


def test_a_refused_load() -> None:
    """The kernel is as it was: nothing is unloaded."""
    with pytest.raises(KernelError):
        play(
            changes.load(KERNEL, "/fix.ko", None, Options(), if_needed=False),
            (FILE, ("fix", "b1d", True)),
            (Now(), 100.0),
            (LOAD, KernelError("no", errno=22)),
        )


def test_unload() -> None:
    """It waits up to two seconds for the module to be released, and refuses what is enabled."""
    in_use = PatchStateError("in use", errno=11)
    assert play(
        changes.unload(KERNEL, "fix"),
        (STATUS, status(PatchState.DISABLED)),
        (Now(), 100.0),
        (REMOVE, in_use),
        (Now(), 101.0),
        (Sleep(0.002), None),
        (REMOVE, None),
    )
    with pytest.raises(PatchStateError, match="in use"):
        play(
            changes.unload(KERNEL, "fix"),
            (STATUS, status(PatchState.DISABLED)),
            (Now(), 100.0),
            (REMOVE, in_use),
            (Now(), 102.0),
        )
    for state in (PatchState.ENABLED, PatchState.ENABLING):
        with pytest.raises(PatchStateError, match=f"it is {state}"):
            play(changes.unload(KERNEL, "fix"), (STATUS, status(state)))


def test_a_flow_that_is_closed_does_nothing() -> None:
    """Whoever drops a flow gets no effect from it: there is nobody to perform it."""
    for flow in (course().step(), changes.enable(KERNEL, "fix", Options()), course().leave(None)):
        next(flow)
        flow.close()


def test_what_is_recorded() -> None:
    """Each change once, with its outcome: done, refused, late; what was so already is told to who decides."""
    records: list[Record] = []
    refused, already = KernelError("no", errno=22), AlreadyError("it is", errno=114)
    play(
        changes.enable(KERNEL, "fix", Options(wait=False)),
        (Now(), 100.0),
        (ENABLE, None),
        (Read("fix"), seen(PatchState.ENABLING, 100.1)),
        records=records,
    )
    for error in (refused, already):
        with pytest.raises(KernelError):
            play(
                changes.revert(KERNEL, "fix", Options()), (Now(), 100.0), (REVERT, error), records=records
            )
    assert records == [Record("enable", "fix"), Record("revert", "fix"), Record("revert", "fix")]
    assert [each.error for each in records] == [None, refused, already]
