"""The supervisor: restart, let go, stop the node; shutdown from the top down within its deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from node.entropy import SeededEntropy
from node.supervisor import (
    HEALTHY_AFTER_S,
    RESTART_PAUSE_S_MAX,
    RESTART_PAUSE_S_MIN,
    Child,
    OnFall,
    Supervisor,
    run_caught,
    run_contained,
    stop_order,
)
from protocols.errors import LocalError, Reason, Refused

Run = Callable[[], Awaitable[object]]


def supervise(*children: Child, stop_deadline_s: float = 10.0) -> Supervisor:
    return Supervisor(children, entropy=SeededEntropy(b"supervisor"), stop_deadline_s=stop_deadline_s)


async def _fail(error: Exception) -> None:
    await trio.lowlevel.checkpoint()
    raise error


async def _fail_in_groups(error: Exception) -> None:
    async with trio.open_nursery() as outer:
        outer.start_soon(trio.sleep_forever)
        async with trio.open_nursery() as inner:
            inner.start_soon(_fail, error)


async def test_fallen_child_restarts_with_growing_pauses(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: back-off with jitter, bounded. Method: a child that falls at once; look at the pauses."""
    starts: list[float] = []

    async def run() -> None:
        starts.append(trio.current_time())
        await _fail_in_groups(Refused(Reason.REFUSED))

    nursery.start_soon(supervise(Child("a", run, OnFall.RESTART)).run)
    await trio.sleep(600)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    for number, pause in enumerate(pauses):
        longest = min(RESTART_PAUSE_S_MAX, RESTART_PAUSE_S_MIN * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(pauses) > 10


async def test_child_that_ran_well_starts_again_with_the_shortest_pause(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: old falls are forgotten. Method: fall five times at once, then live long and fall."""
    starts: list[float] = []
    seventh = trio.Event()
    lived_s = HEALTHY_AFTER_S + 1

    async def run() -> None:
        starts.append(trio.current_time())
        if len(starts) == 7:
            seventh.set()
        if len(starts) > 5:
            await trio.sleep(lived_s)
        raise OSError("gone")

    supervisor = supervise(Child("a", run, OnFall.RESTART))
    nursery.start_soon(supervisor.run)
    await seventh.wait()
    assert starts[5] - starts[4] > 2 * RESTART_PAUSE_S_MIN
    assert starts[6] - starts[5] <= lived_s + RESTART_PAUSE_S_MIN
    assert supervisor.falls("a") == 1


@pytest.mark.parametrize("error", [AssertionError("one and one is three"), LocalError(Reason.FAILED, "our fault")], ids=["assert", "local"])
@pytest.mark.parametrize("on_fall", list(OnFall), ids=lambda on_fall: on_fall.name)
async def test_broken_invariant_stops_the_node_whatever_the_row_says(autojump_clock: MockClock, on_fall: OnFall, error: Exception) -> None:
    """Goal: wrong reasoning is not retried. Method: an invariant breaks deep in groups; the other child is ended."""
    ended = []

    async def other() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("other")

    async def breaks() -> None:
        await trio.sleep(1)
        await _fail_in_groups(error)

    supervisor = supervise(Child("other", other, OnFall.RESTART), Child("breaks", breaks, on_fall))
    with trio.fail_after(60):
        with pytest.raises(LocalError) as failure:
            await run_contained(supervisor.run)
    assert failure.value.__cause__ is error
    assert "breaks" in supervisor.reason
    assert str(error) in supervisor.reason
    assert ended == ["other"]


async def test_fallen_child_stops_the_node_or_is_let_go_as_its_row_says(autojump_clock: MockClock) -> None:
    """Goal: the table decides. Method: the same fall under two rows, beside a child that returns by itself."""

    async def returns() -> None:
        await trio.lowlevel.checkpoint()

    error = OSError("disk")
    supervisor = supervise(Child("a", lambda: _fail(error), OnFall.STOP_NODE), Child("b", returns, OnFall.STOP_NODE))
    with trio.fail_after(60):
        with pytest.raises(LocalError) as failure:
            await run_contained(supervisor.run)
    assert failure.value.__cause__ is error

    supervisor = supervise(Child("a", lambda: _fail(error), OnFall.IGNORE), Child("b", returns, OnFall.STOP_NODE))
    with trio.move_on_after(60) as scope:
        await supervisor.run()
    assert scope.cancelled_caught, "the node goes on without the child, and without the one that was done"
    assert supervisor.falls("a") == 1


def _recording(name: str, log: list[str]) -> Run:
    async def run() -> None:
        log.append(f"{name} runs")
        try:
            await trio.sleep_forever()
        finally:
            log.append(f"{name} ends")

    return run


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_shutdown_goes_from_the_top_down(autojump_clock: MockClock, how: str) -> None:
    """Goal: who asks stops before whom it asks, however the end comes; ``stop`` is awaited first. Method: a tower of three."""
    log: list[str] = []

    async def wind_down() -> None:
        await trio.sleep(1)
        log.append("api wound down")

    supervisor = supervise(
        Child("files", _recording("files", log), OnFall.RESTART, asks=("storage",)),
        Child("storage", _recording("storage", log), OnFall.STOP_NODE),
        Child("api", _recording("api", log), OnFall.RESTART, asks=("files", "storage"), stop=wind_down),
    )
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            await trio.sleep(5)
            assert sorted(log) == ["api runs", "files runs", "storage runs"]
            log.clear()
            if how == "stop":
                supervisor.stop("the operator said so")
            else:
                nursery.cancel_scope.cancel()
    assert log == ["api wound down", "api ends", "files ends", "storage ends"]
    assert supervisor.reason == ("the operator said so" if how == "stop" else "cancelled")


async def test_shutdown_that_takes_too_long_is_cut_short(autojump_clock: MockClock) -> None:
    """Goal: the deadline holds. Method: a child whose wind-down never ends, above one that would wait for it."""
    log: list[str] = []
    supervisor = supervise(
        Child("stuck", _recording("stuck", log), OnFall.RESTART, asks=("below",), stop=trio.sleep_forever),
        Child("below", _recording("below", log), OnFall.RESTART),
        stop_deadline_s=3.0,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(1)
        supervisor.stop()
    assert trio.current_time() == pytest.approx(4.0)
    assert sorted(log[2:]) == ["below ends", "stuck ends"]


async def test_child_in_its_pause_is_stopped_too(autojump_clock: MockClock) -> None:
    """Goal: a fallen child does not delay the end. Method: stop in the middle of a long pause."""
    supervisor = supervise(Child("a", lambda: _fail(OSError()), OnFall.RESTART))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await trio.sleep(100)
        supervisor.stop()
    assert trio.current_time() == pytest.approx(100.0)


def test_table_with_a_circle_or_an_unknown_name_is_refused() -> None:
    """Goal: ask down, tell up, checked. Method: a circle of two, an asker of nobody, a name twice."""

    def row(name: str, *asks: str) -> Child:
        return Child(name, trio.sleep_forever, OnFall.RESTART, asks=asks)

    for table in ([row("a", "b"), row("b", "a")], [row("a", "a")], [row("a", "nobody")], [row("a"), row("a")]):
        with pytest.raises(AssertionError):
            stop_order(table)
    layers = stop_order([row("storage"), row("api", "files"), row("files", "storage"), row("peers")])
    assert [[child.name for child in layer] for layer in layers] == [["api"], ["files"], ["storage", "peers"]]
    assert stop_order([]) == ()


async def test_contained_run_gives_errors_back_and_raises_broken_invariants() -> None:
    """Goal: a peer's fault drops the peer, ours stops the node. Method: both, in groups; and cancellation, which goes through."""
    refused = Refused(Reason.REFUSED)
    assert await run_contained(lambda: _fail_in_groups(refused)) == (refused,)
    assert await run_contained(trio.lowlevel.checkpoint) == ()
    with pytest.raises(AssertionError):
        await run_contained(lambda: _fail_in_groups(AssertionError()))
    assert len(await run_caught(lambda: _fail_in_groups(AssertionError()))) == 1
    with trio.move_on_after(0) as scope:
        await run_caught(trio.sleep_forever)
    assert scope.cancelled_caught


async def test_error_that_comes_with_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: nothing fails in silence while the node stops. Method: a clean-up that fails beside a task that is only cancelled."""

    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("could not sync")

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(clean_up_badly)

    with trio.move_on_after(0) as scope:
        await run_caught(run)
    assert scope.cancelled_caught
    assert "could not sync" in caplog.text
