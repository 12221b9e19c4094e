"""The storage actor: one writer per environment, many transactions to a commit.

A transaction is a function from a snapshot to (writes, result). It runs in the environment's writer thread, sees what earlier
transactions of the same batch will write, and is answered when all of that is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import trio

from protocols.errors import LadingError, LocalError, StoreFull
from storage.engine import Engine, Put, Snapshot, Write
from storage.overlay import Overlay

from ..actor import Actor, Reply
from ..offload import Offload, SharedTrips

log = logging.getLogger(__name__)
T = TypeVar("T")
Transaction = Callable[[Snapshot], tuple[Sequence[Write], T]]

# About 4 MiB to a durable commit is the sweet spot of the disk (docs/decisions/0002): what comes by itself waits for no more.
COMMIT_BYTES = 17 * 256 * 1024
# Of records that come together, whose commit costs some milliseconds of a processor, whatever is in it (0008): twelve of 1 MiB and
# what seals and lists them.
RECORDS_COMMIT_BYTES = 3 * COMMIT_BYTES
TRANSACTIONS_PER_BATCH_MAX = 256
MAILBOX_TRANSACTIONS_MAX = 512
READS_PER_TRIP_MAX = 32
# Space is made ready for coming writes when nothing was committed for so long: more than the pauses inside a burst, in which the processor
# has better things to do.
PREPARE_AFTER_S = 0.4
READ_TRIPS_MAX = 2


@dataclass(frozen=True, slots=True)
class Transact:
    """Run and commit ``fn``; answer with its result."""

    fn: Callable[[Snapshot], tuple[Sequence[Write], object]]
    reply: Reply[object]


class StorageActor(Actor[Transact]):
    """Owns the writing side of one engine."""

    def __init__(self, engine: Engine, offload: Offload, *, lane: str = "") -> None:
        """lane: of its writes; by default that of the environment."""
        self._lane = lane or engine.env.value
        super().__init__(f"storage-{self._lane}", capacity=MAILBOX_TRANSACTIONS_MAX, batch_max=TRANSACTIONS_PER_BATCH_MAX)
        self.engine = engine
        self.commits = 0
        self._offload = offload
        self._batch: list[Transact] = []
        self._has_written = trio.Event()

    def handle(self, message: Transact) -> None:
        self._batch.append(message)

    async def keep(self) -> None:
        batch, self._batch = self._batch, []
        outcomes = await self._offload.run(self._commit, batch, lane=self._lane)
        self._has_written.set()
        for message, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, LadingError):
                self.refuse(message.reply, outcome)
            else:
                self.answer(message.reply, outcome)

    async def prepare(self) -> None:
        """Until cancelled: has the engine make space ready in pauses between commits."""
        while True:
            commits = -1
            while commits != self.commits:
                commits = self.commits
                await trio.sleep(PREPARE_AFTER_S)
            try:
                while self.commits == commits and await self._offload.run(self.engine.prepare, lane=self._lane):
                    pass
            except LadingError as error:  # who reads or writes there is told; this was only for speed
                log.debug("no space made ready env=%s error=%s", self.engine.env.value, error)
            await self._has_written.wait()
            self._has_written = trio.Event()

    def _commit(self, batch: Sequence[Transact]) -> list[object]:
        """In the writer thread. One outcome for each: its result, or the LadingError that it (or its commit) met."""
        outcomes: list[object] = []
        start = 0
        while start < len(batch):
            taken = self._commit_some(batch[start:], outcomes)
            start += taken
        return outcomes

    def _commit_some(self, batch: Sequence[Transact], outcomes: list[object]) -> int:
        try:
            return self._try_some(batch, outcomes)
        except LocalError:
            raise
        except LadingError as error:  # no snapshot of a damaged store: who asked is told, and what is known is still served
            outcomes.extend([error] * len(batch))
            return len(batch)

    def _try_some(self, batch: Sequence[Transact], outcomes: list[object]) -> int:
        results: list[object] = []
        size = 0
        with self.engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            for message in batch:
                try:
                    writes, result = message.fn(overlay)
                except LocalError:
                    raise
                except LadingError as error:
                    results.append(error)
                    continue
                overlay.add(writes)
                results.append(result)
                size += sum(len(write.value) + 64 for write in writes if isinstance(write, Put))
                if size >= COMMIT_BYTES:
                    break
        if overlay.writes:
            try:
                self.engine.write(overlay.writes)
                self.commits += 1
            except StoreFull as error:
                if len(results) > 1:  # who asks for little, or only deletes, must not suffer from who asks for much
                    for message in batch[: len(results)]:
                        self._commit_some([message], outcomes)
                    return len(results)
                results = [error]
            except LadingError as error:
                results = [error] * len(results)
        outcomes.extend(results)
        return len(results)


class StorageHandle:
    """What others hold of an environment: ``transact`` to write, ``read`` for work in a pool thread, ``peek`` for a few keys at once."""

    def __init__(self, actor: StorageActor, offload: Offload) -> None:
        self._actor = actor
        self._reads = SharedTrips(offload, calls_max=READS_PER_TRIP_MAX, trips_max=READ_TRIPS_MAX, given=self._snapshot)
        self.engine = actor.engine

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[Snapshot]]:
        with self.engine.snapshot() as snapshot:
            yield (snapshot,)

    async def transact(self, fn: Transaction[T]) -> T:
        """Result of ``fn``, durable. Raises StoreFull, StoreDamaged, ActorGone, or what ``fn`` raised."""
        return cast(T, await self._actor.mailbox.ask(lambda reply: Transact(fn, reply)))

    async def write(self, writes: Sequence[Write]) -> None:
        """Durable when this returns."""
        await self._actor.mailbox.ask(lambda reply: Transact(lambda _: (writes, None), reply))

    async def read(self, fn: Callable[[Snapshot], T]) -> T:
        """``fn`` over a snapshot that has all that was committed before, in a pool thread: for bodies and scans."""
        return await self._reads.run(fn)

    def peek(self, fn: Callable[[Snapshot], T]) -> T:
        """``fn`` over a snapshot, here and now: for a few small values."""
        with self.engine.snapshot() as snapshot:
            return fn(snapshot)
