"""Clocks: the machine's, and the simulated one that can be wrong."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from node.clock import FlooredClock, SimulatedClock, SystemClock
from protocols.identity.clockfloor import ClockFloor
from protocols.types import MemberId, UnixSeconds

EPOCH = 1_700_000_000.0


async def test_simulated_clock_follows_virtual_time(autojump_clock: MockClock) -> None:
    """Goal: wall time passes as trio's time does. Method: sleep an hour with a clock that is 5 s ahead."""
    clock = SimulatedClock(EPOCH, 5.0)
    assert clock.now() == pytest.approx(EPOCH + 5, abs=1e-3)
    await trio.sleep(3600)
    assert clock.now() == pytest.approx(EPOCH + 5 + 3600, abs=1e-3)
    assert clock.monotonic() == trio.current_time()


async def test_simulated_clock_when_set_jumps_and_monotonic_does_not(autojump_clock: MockClock) -> None:
    """Goal: a clock set back must not move time-outs. Method: step by an hour."""
    clock = SimulatedClock(EPOCH)
    before = clock.monotonic()
    clock.step(-3600)
    assert clock.now() == pytest.approx(EPOCH - 3600, abs=1e-3)
    assert clock.monotonic() == before


async def test_simulated_clock_when_it_drifts_goes_on_from_where_it_was(autojump_clock: MockClock) -> None:
    """Goal: drift has no jumps. Method: gain a tenth for 100 s, then run true again for 100 s."""
    clock = SimulatedClock(EPOCH)
    await trio.sleep(50)
    clock.set_drift(0.1)
    assert clock.now() == pytest.approx(EPOCH + 50, abs=1e-3)
    await trio.sleep(100)
    assert clock.now() == pytest.approx(EPOCH + 50 + 110, abs=1e-3)
    clock.set_drift(0.0)
    await trio.sleep(100)
    assert clock.now() == pytest.approx(EPOCH + 50 + 110 + 100, abs=1e-3)


async def test_system_clock_gives_unix_seconds_and_trio_time() -> None:
    """Goal: the two times are what they say. Method: bounds that hold for the life of this program; order of two reads."""
    clock = SystemClock()
    assert 1.7e9 < clock.now() < 1e10
    first = trio.current_time()
    assert first <= clock.monotonic() <= trio.current_time()


async def test_clock_behind_the_floor_says_the_floor_and_is_unsafe(autojump_clock: MockClock) -> None:
    """Goal: a board that boots in 1970 never believes it. Method: a wall clock at zero under a floor, set right later."""
    inner = SimulatedClock(epoch=0.0)
    clock = FlooredClock(inner, ClockFloor(floor=UnixSeconds(1_700_000_000)))
    assert clock.now() == 1_700_000_000
    assert clock.is_unsafe
    inner.step(1_700_000_500)
    assert not clock.is_unsafe
    assert clock.now() == pytest.approx(inner.now())


async def test_floor_only_rises(autojump_clock: MockClock) -> None:
    """Goal: nothing makes a node believe an earlier time than it has believed. Method: a lower floor is offered."""
    clock = FlooredClock(SimulatedClock(epoch=0.0), ClockFloor(floor=UnixSeconds(2_000)))
    clock.raise_to(ClockFloor(floor=UnixSeconds(1_000)))
    assert clock.now() == 2_000
    clock.raise_to(ClockFloor(floor=UnixSeconds(3_000)))
    assert clock.now() == 3_000


async def test_time_that_members_agreed_on_can_be_asked_in_any_thread() -> None:
    """Goal: transactions run in the writer's thread and ask for the time. Method: a machine in 1970, two members, a thread."""
    floor = int(SystemClock().now()) + 10_000_000
    clock = FlooredClock(SystemClock(), ClockFloor(floor=UnixSeconds(floor)))
    for member in (b"a", b"b"):
        clock.hear(MemberId(member), floor + 500)
    assert clock.look()
    assert await trio.to_thread.run_sync(clock.now) == pytest.approx(floor + 500, abs=5)
