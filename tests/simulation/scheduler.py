"""Runs a world so that the same seed gives the same history, and a failure is one line to paste.

Three things make a trio program repeatable: a clock that is virtual, a scheduler whose only chance comes from the seed, and no
garbage collection of cycles at a time of its own. The scheduler's switch is private to trio and is touched in this file only.
"""

from __future__ import annotations

import functools
import gc
import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from protocols import crypto

from .trace import Trace

T = TypeVar("T")

VIRTUAL_SECONDS_MAX = 7 * 86400.0  # longer stories are told in several worlds


class SimulationFailed(AssertionError):
    """A world failed: the line to paste, and the end of its trace. The failure itself is the cause."""


def first_cause(failure: SimulationFailed) -> BaseException:
    """What the world failed with, taken out of trio's groups."""
    cause: BaseException = failure.__cause__ or failure
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Trio's order of tasks comes from the seed, and everything is put back afterwards."""
    switch_before: bool = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    chance_before: random.Random = trio_run._r
    # Asynchronous generators and cycles are finalised when the collector happens to run; in a world it runs before and after only.
    gc.collect()
    was_collecting = gc.isenabled()
    gc.disable()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # final for everybody but a harness
    trio_run._r = random.Random(f"scheduler {seed}")
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = switch_before  # type: ignore[misc]
        trio_run._r = chance_before
        if was_collecting:
            gc.enable()


@contextmanager
def _signatures_checked_once() -> Iterator[None]:
    """The nodes of a world share a process: a signature that one of them found good, the others find good for nothing. What is not good
    is checked anew each time."""
    before = crypto.verify_raw
    crypto.verify_raw = functools.cache(before)
    try:
        yield
    finally:
        crypto.verify_raw = before


def chance(seed: int, label: str) -> random.Random:
    """An independent generator for one purpose of a world, so that one more draw here moves nothing there."""
    return random.Random(f"{label} {seed}")


def run_world(
    world: Callable[[int, Trace], Awaitable[T]], seed: int, *, virtual_seconds_max: float = VIRTUAL_SECONDS_MAX, paste: str = ""
) -> tuple[T, str]:
    """Result of ``world(seed, trace)`` and the hash of its trace.

    virtual_seconds_max: a world that lives longer has failed (a deadlock runs into it at once, since virtual time is free).
    paste: what reproduces it, shown when it fails; by default the running test with LADING_SEED.
    Raises SimulationFailed from whatever the world raised.
    """
    trace = Trace()

    async def main() -> T:
        with trio.fail_after(virtual_seconds_max):
            return await world(seed, trace)

    with seeded_scheduler(seed), _signatures_checked_once():
        try:
            result = trio.run(main, clock=MockClock(autojump_threshold=0))
        except Exception as error:
            raise SimulationFailed(_story(seed, trace, paste)) from error
    return result, trace.digest


def _story(seed: int, trace: Trace, paste: str) -> str:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    line = paste or f"LADING_SEED={seed} python -m pytest {test or 'tests/simulation'}"
    return "\n".join((f"to see it again: {line}", f"trace {trace.digest} after {trace.count} events, the last:", *trace.tail()[-20:]))


def seeds(default: tuple[int, ...]) -> tuple[int, ...]:
    """Seeds a test runs: LADING_SEED alone when set, LADING_SEEDS=n for 0..n-1, else ``default``."""
    if "LADING_SEED" in os.environ:
        return (int(os.environ["LADING_SEED"]),)
    if "LADING_SEEDS" in os.environ:
        return tuple(range(int(os.environ["LADING_SEEDS"])))
    return default
