"""The harness: one seed, one history."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.simulation.scheduler import SimulationFailed, run_world
from tests.simulation.small_world import tell
from tests.simulation.trace import Trace

ROOT = Path(__file__).resolve().parents[2]


def _fresh_process(seed: int, hash_seed: str) -> list[str]:
    """What a small world prints in a process of its own: hash of the trace, and counts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.small_world", str(seed)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split()


def test_same_seed_in_two_processes_gives_the_same_history() -> None:
    """Goal: a failure is a seed. Method: the small world in two fresh processes whose string hashes differ; and here."""
    first, second = _fresh_process(7, "1"), _fresh_process(7, "2")
    assert first == second
    counts, digest = run_world(tell, 7)
    assert first == [digest, *map(str, counts)]
    sent, arrived, broken = counts
    assert sent > 100, "a world where nothing happens proves nothing"
    assert arrived > 100
    assert broken > 0, "the faults must have hit somebody"


def test_different_seeds_give_different_histories() -> None:
    """Goal: the trace sees what happens. Method: five seeds, five hashes."""
    assert len({run_world(tell, seed)[1] for seed in range(5)}) == 5


def test_order_of_tasks_comes_from_the_seed() -> None:
    """Goal: the scheduler itself is seeded. Method: ten tasks without any chance of their own note their turn."""

    async def race(seed: int, trace: Trace) -> None:
        async def run(number: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                trace.note("turn", number=number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(run, number)

    assert run_world(race, 1)[1] == run_world(race, 1)[1]
    assert len({run_world(race, seed)[1] for seed in range(20)}) > 1


def test_failed_world_tells_how_to_see_it_again() -> None:
    """Goal: one line to paste. Method: a world that notes one thing and fails."""

    async def fail(seed: int, trace: Trace) -> None:
        trace.note("last words", seed=seed)
        raise ValueError("no")

    with pytest.raises(SimulationFailed) as failure:
        run_world(fail, 12)
    assert isinstance(failure.value.__cause__, ValueError)
    assert "LADING_SEED=12 python -m pytest tests/simulation/test_scheduler.py::test_failed_world" in str(failure.value)
    assert "last words seed=12" in str(failure.value)


def test_stuck_world_fails_instead_of_hanging() -> None:
    """Goal: a deadlock is a failure. Method: wait for nothing."""

    async def wait(seed: int, trace: Trace) -> None:
        await trio.sleep_forever()

    with pytest.raises(SimulationFailed) as failure:
        run_world(wait, 1)
    assert isinstance(failure.value.__cause__, trio.TooSlowError)


def test_scheduler_is_put_back_afterwards() -> None:
    """Goal: a world leaves trio as it found it, whether it ends well or not. Method: look at both after a failure."""
    before = (trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, trio._core._run._r)

    async def fail(seed: int, trace: Trace) -> None:
        raise ValueError

    with pytest.raises(SimulationFailed):
        run_world(fail, 1)
    assert (trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING, trio._core._run._r) == before


def test_trace_refuses_facts_that_look_different_every_time() -> None:
    """Goal: no address of an object and no order of a set gets into the hash. Method: note both."""

    async def note(seed: int, trace: Trace) -> None:
        trace.note("fine", a=1, b=b"2", c=("3", None, True), d=1.5)
        for fact in (object(), {1, 2}, {1: 2}):
            with pytest.raises(TypeError):
                trace.note("not fine", fact=fact)
        assert trace.count == 1

    run_world(note, 1)
