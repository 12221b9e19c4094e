"""Blocking work: the only place that knows threads.

A *lane* is a name for work that must not overlap. Writer lanes have one operating-system thread each, because an LMDB write
transaction belongs to the thread that began it; the lane "default" is a small pool. No call is ever abandoned: a cancelled caller
waits until its function has returned, so nobody can find half a commit still running behind his back.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import trio

from protocols.errors import LadingError

T = TypeVar("T")

WRITER_LANES = ("ledger", "chunks")
"""One per LMDB environment."""

# Callers are actors, a handful of them; more waiting jobs than this means that somebody forgot to batch.
LANE_JOBS_MAX = 64

# Two cores are the smallest machine we care for: hashing and disk reads overlap, and more threads only fight over the interpreter.
POOL_THREADS_MAX = 4


class Offload(Protocol):
    """Where blocking work is done."""

    async def run(self, fn: Callable[..., T], *args: object, lane: str = "default") -> T:
        """Result of ``fn(*args)``, or what it raised. Calls of one writer lane never overlap and keep their order."""


class Carried(Generic[T]):
    """What a call in a thread came to: taken there by ``run``, given back to the caller's task by ``unwrap``."""

    __slots__ = ("_error", "_value")

    def __init__(self) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self, fn: Callable[..., T], *args: object) -> None:
        """In the thread."""
        try:
            self._value = fn(*args)
        except BaseException as error:  # carried to the caller, whoever is to blame
            self._error = error

    def succeed(self, value: T) -> None:
        """It was done elsewhere."""
        self._value = value

    def fail(self, error: BaseException) -> None:
        """It was never called, or failed elsewhere."""
        self._error = error

    @property
    def error(self) -> BaseException | None:
        """What was raised."""
        return self._error

    @property
    def value(self) -> T | None:
        """What was returned; None also when it raised."""
        return self._value

    def unwrap(self) -> T:
        """In the caller's task: the value, or what was raised."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # it ran without error: it is a T (which may be None)


async def run_beside(offload: Offload, helper: Callable[[Callable[[], bool]], object], work: Callable[[], Awaitable[T]]) -> T:
    """Result of ``work``, or the LadingError that it raised; ``helper`` runs in a pool thread meanwhile.

    helper: makes the work faster and raises nothing. It is given a function that turns true when the work has ended, and is waited for.
    """
    outcome: Carried[T] = Carried()
    is_over = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offload.run, helper, lambda: is_over)
        try:
            outcome.succeed(await work())
        except LadingError as error:  # out of the nursery as itself, not in a group
            outcome.fail(error)
        finally:
            is_over = True
    return outcome.unwrap()


class _Call(Generic[T]):
    """One call that waits for its turn; then for its result."""

    __slots__ = ("fn", "is_done", "outcome", "turn")

    def __init__(self, fn: Callable[..., T]) -> None:
        self.fn = fn
        self.turn = trio.Event()
        self.is_done = False
        self.outcome: Carried[T] = Carried()


class SharedTrips:
    """Calls that come together share a trip to a pool thread: a trip costs 0.1-0.2 ms of the loop, most calls a tenth of it.

    given: makes, in the thread and for one trip, what each of its calls is given. calls_max: of a trip, so that a long call holds up few.
    """

    def __init__(
        self, offload: Offload, *, calls_max: int, trips_max: int, given: Callable[[], AbstractContextManager[tuple[object, ...]]]
    ) -> None:
        self._offload = offload
        self._calls_max = calls_max
        self._trips_max = trips_max
        self._given = given
        self._waiting: deque[_Call[Any]] = deque()
        self._trips = 0

    async def run(self, fn: Callable[..., T]) -> T:
        """Result of ``fn`` over what is given, or what it raised. Not cancelled: a thread that has begun is waited for anyway."""
        own: _Call[T] = _Call(fn)
        # Whoever is woken undone makes the next trip, its own call first.
        with trio.CancelScope(shield=True):
            if self._trips < self._trips_max:
                self._trips += 1
            else:
                self._waiting.append(own)
                await own.turn.wait()
            if not own.is_done:
                await self._make_trip(own)
        return own.outcome.unwrap()

    async def _make_trip(self, first: _Call[Any]) -> None:
        calls = [first, *(self._waiting.popleft() for _ in range(min(len(self._waiting), self._calls_max - 1)))]

        def run() -> None:
            with self._given() as given:
                for one in calls:
                    one.outcome.run(one.fn, *given)

        try:
            await self._offload.run(run)
        except BaseException as error:  # nothing was given: the error of each
            for one in calls:
                one.outcome.fail(error)
            raise
        finally:
            for one in calls:
                one.is_done = True
                one.turn.set()
            if self._waiting:
                self._waiting.popleft().turn.set()
            else:
                self._trips -= 1


class _Job:
    """One call on its way through a lane's thread."""

    __slots__ = ("_args", "_done", "_error", "_fn", "_result", "_token")

    def __init__(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        self._fn = fn
        self._args = args
        self._token = trio.lowlevel.current_trio_token()
        self._done = trio.Event()
        self._result: object = None
        self._error: BaseException | None = None

    def execute(self) -> None:
        """In the lane's thread."""
        try:
            self._result = self._fn(*self._args)
        except BaseException as error:  # carried to the caller, whoever is to blame
            self._error = error
        try:
            self._token.run_sync_soon(self._done.set)
        except trio.RunFinishedError:
            return  # the caller's whole world ended; nobody is left to be told

    async def wait(self) -> object:
        """In the caller's task, which stays until the thread is done with it."""
        with trio.CancelScope(shield=True):
            await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result


class _Lane:
    """One thread, one queue."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.room = trio.Semaphore(LANE_JOBS_MAX)
        # Daemon: a crash that never reaches ``close`` must still be able to end the process; LMDB survives that by design.
        self._thread = threading.Thread(target=self._work, name=f"lading-{name}", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job.execute()

    def put(self, job: _Job) -> None:
        self._jobs.put(job)

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()


class ThreadOffload:
    """Real threads: one per writer lane, a bounded pool for the lane "default". Close it when the last caller is gone."""

    def __init__(self, writer_lanes: Sequence[str] = WRITER_LANES, *, pool_threads_max: int = POOL_THREADS_MAX) -> None:
        self._lanes = {name: _Lane(name) for name in writer_lanes}
        self._pool = trio.CapacityLimiter(pool_threads_max)

    async def run(self, fn: Callable[..., T], *args: object, lane: str = "default") -> T:
        """Result of ``fn(*args)`` computed in a thread of ``lane``, or what it raised. Cancelled only before it began."""
        if lane == "default":
            return await trio.to_thread.run_sync(fn, *args, limiter=self._pool)
        writer = self._lanes.get(lane)
        assert writer is not None, f"no lane {lane!r}, there are {sorted(self._lanes)}"
        async with writer.room:
            job = _Job(fn, args)
            writer.put(job)
            result = await job.wait()
        return result  # type: ignore[return-value]  # the job carries what fn returned

    def close(self) -> None:
        """Ends the writer threads after what they still have to do. Blocks shortly."""
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def __enter__(self) -> ThreadOffload:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimulatedOffload:
    """No threads: the call happens inline after a virtual delay, because trio's virtual clock does not wait for threads.

    delay: seconds of each call, drawn by whoever owns the seed.
    """

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._turns: dict[str, trio.Lock] = {}

    async def run(self, fn: Callable[..., T], *args: object, lane: str = "default") -> T:
        """Result of ``fn(*args)`` at the end of the delay. Writer lanes take one call at a time, as their thread would."""
        if lane == "default":
            return await self._call(fn, args)
        async with self._turns.setdefault(lane, trio.Lock()):
            return await self._call(fn, args)

    async def _call(self, fn: Callable[..., T], args: tuple[object, ...]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await trio.sleep(self._delay())
        return fn(*args)
