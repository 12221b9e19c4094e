"""Offload: threads in life, virtual delays in simulation; in both no call is abandoned and writers do not overlap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from node.offload import POOL_THREADS_MAX, SimulatedOffload, ThreadOffload, run_beside
from protocols.errors import Reason, Refused

PATIENCE_S = 10.0


@pytest.fixture
def threads() -> Iterator[ThreadOffload]:
    with ThreadOffload() as offload:
        yield offload


async def test_writer_lane_is_one_thread_of_its_own(threads: ThreadOffload) -> None:
    """Goal: LMDB's rule. Method: who runs me, ten times, in both lanes and in the pool."""
    ledger = {await threads.run(threading.get_ident, lane="ledger") for _ in range(10)}
    chunks = {await threads.run(threading.get_ident, lane="chunks") for _ in range(10)}
    pool = {await threads.run(threading.get_ident) for _ in range(10)}
    assert len(ledger) == len(chunks) == 1
    assert not ledger & chunks
    assert not pool & (ledger | chunks | {threading.get_ident()})


async def test_result_and_error_come_back(threads: ThreadOffload) -> None:
    """Goal: a thread is invisible to the caller. Method: divide, and divide by zero, in every lane."""
    for lane in ("ledger", "chunks", "default"):
        assert await threads.run(divmod, 7, 2, lane=lane) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 7, 0, lane=lane)
        assert await threads.run(divmod, 7, 2, lane=lane) == (3, 1)


@pytest.mark.parametrize("lane", ["ledger", "default"])
async def test_call_when_cancelled_is_waited_for(threads: ThreadOffload, lane: str) -> None:
    """Goal: nobody finds half a commit running behind his back. Method: cancel while the thread is held; release; it is done first."""
    started, release = threading.Event(), threading.Event()
    done = []

    def commit() -> None:
        started.set()
        assert release.wait(PATIENCE_S)
        done.append("kept")

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: threads.run(commit, lane=lane))
            await trio.to_thread.run_sync(started.wait)
            nursery.cancel_scope.cancel()
            nursery.start_soon(_release_soon, release)
    assert done == ["kept"]


async def _release_soon(release: threading.Event) -> None:
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked()
        release.set()


async def test_call_when_cancelled_before_it_began_does_not_happen(threads: ThreadOffload) -> None:
    """Goal: a cancelled caller starts nothing new. Method: call in a cancelled scope."""
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await threads.run(done.append, 1, lane="ledger")
    await threads.run(done.append, 2, lane="ledger")
    assert done == [2]


async def test_calls_of_one_lane_do_not_overlap_and_keep_their_order(threads: ThreadOffload) -> None:
    """Goal: one writer. Method: 200 callers, more than may queue; each notes in and out."""
    notes: list[int] = []

    def write(number: int) -> None:
        notes.append(number)
        notes.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(lambda number=number: threads.run(write, number, lane="chunks"))
    assert notes[::2] == notes[1::2]
    assert sorted(notes[::2]) == list(range(200))


async def test_pool_is_bounded(threads: ThreadOffload) -> None:
    """Goal: blocking work does not multiply threads. Method: hold as many as possible, count those that got in."""
    inside: list[int] = []
    entered = trio.Semaphore(0)
    release = threading.Event()

    def hold() -> None:
        inside.append(1)
        trio.from_thread.run_sync(entered.release)
        assert release.wait(PATIENCE_S)

    async with trio.open_nursery() as nursery:
        for _ in range(POOL_THREADS_MAX + 3):
            nursery.start_soon(lambda: threads.run(hold))
        for _ in range(POOL_THREADS_MAX):
            await entered.acquire()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert len(inside) == POOL_THREADS_MAX
        release.set()
    assert len(inside) == POOL_THREADS_MAX + 3


async def test_simulated_call_happens_at_the_end_of_its_delay(autojump_clock: MockClock) -> None:
    """Goal: work takes virtual time, one after the other in a writer lane, together in the pool. Method: three calls of 2 s each."""
    offload = SimulatedOffload(lambda: 2.0)
    for lane, expected in (("ledger", [2.0, 4.0, 6.0]), ("default", [2.0, 2.0, 2.0])):
        started_at = trio.current_time()
        ended: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda lane=lane, ended=ended: offload.run(lambda: ended.append(trio.current_time()), lane=lane))
        assert [at - started_at for at in ended] == pytest.approx(expected)


async def test_simulated_call_when_cancelled_is_not_abandoned(autojump_clock: MockClock) -> None:
    """Goal: as in a thread. Method: cancel in the middle of the delay; and before it."""
    offload = SimulatedOffload(lambda: 2.0)
    done: list[int] = []
    with trio.move_on_after(1):
        await offload.run(done.append, 1, lane="ledger")
    assert done == [1]
    with trio.CancelScope() as scope:
        scope.cancel()
        await offload.run(done.append, 2, lane="ledger")
    assert done == [1]


async def test_helper_beside_work_is_told_of_its_end_and_waited_for(threads: ThreadOffload) -> None:
    """Goal: who helps never outlives what it helps. Method: a helper that goes on until it is told; work that waits for it to have begun,
    ends, fails, is cancelled: each time the helper has ended, the result is the work's, and an error comes as itself, in no group."""
    begun, ended = threading.Event(), []

    def helper(is_over: Callable[[], bool]) -> None:
        begun.set()
        while not is_over():
            begun.wait(0.001)
        ended.append(True)

    async def work() -> int:
        await trio.to_thread.run_sync(begun.wait)
        return 7

    async def failing() -> int:
        raise Refused(Reason.FLOOD, f"no, not {await work()}")

    with trio.fail_after(PATIENCE_S):
        assert await run_beside(threads, helper, work) == 7
        assert len(ended) == 1
        with pytest.raises(Refused) as caught:
            await run_beside(threads, helper, failing)
        assert caught.value.message == "no, not 7"
        assert len(ended) == 2
        with trio.CancelScope() as scope:

            async def cancelled() -> int:
                await work()
                scope.cancel()
                return await trio.sleep_forever()

            await run_beside(threads, helper, cancelled)
        assert scope.cancelled_caught
        assert len(ended) == 3
