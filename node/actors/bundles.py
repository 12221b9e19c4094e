"""Small and medium records on their way to other nodes: what waits for the same node goes in one bundle.

A record alone would cost its holder a request, two commits, a signature and an answer; hundreds in bundles share them. Nothing waits
for company: a bundle leaves as soon as fewer than BUNDLES_AT_ONCE are on the way, with whatever has come meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio

from protocols.errors import LadingError
from protocols.exchange import messages as m
from protocols.exchange.machine import BEHIND_BYTES_MAX, BUNDLE_BYTES_MAX, behind_bytes, bundled_bytes
from protocols.limits import RECEIPT_ITEMS_MAX
from protocols.types import PeerId

from ..transport.port import StreamBroken
from .exchange import HELD_BYTES_MAX

# One is checked by the holder while another is committed and the next is on its way.
BUNDLES_AT_ONCE = 3
# Of those that chunks follow, which come in turns: a holder that stopped reading before any of them is whole would wait for ever.
LARGE_AT_ONCE = 2
assert BUNDLES_AT_ONCE * BUNDLE_BYTES_MAX + LARGE_AT_ONCE * BEHIND_BYTES_MAX < HELD_BYTES_MAX

SendBundle = Callable[[PeerId, tuple[m.BundledRecord, ...]], Awaitable[Sequence[LadingError | None]]]


class Given:
    """One record on its way to one node."""

    __slots__ = ("_error", "_is_over", "behind_bytes", "bytes", "is_wanted", "record")

    def __init__(self, record: m.BundledRecord) -> None:
        self.record = record
        self.bytes = bundled_bytes(record)
        self.behind_bytes = behind_bytes(record)
        self.is_wanted = True
        self._is_over = trio.Event()
        self._error: LadingError | None = None

    def end(self, error: LadingError | None) -> None:
        self._error = error
        self._is_over.set()

    async def outcome(self) -> LadingError | None:
        """None when the node keeps it, else why it does not. Who stops waiting takes the record back if it has not left yet."""
        is_answered = False
        try:
            await self._is_over.wait()
            is_answered = True
        finally:
            self.is_wanted = is_answered
        return self._error


class Bundles:
    """See the module. send: takes a bundle to a node; for each record None when the node keeps it, else why it does not."""

    def __init__(self, send: SendBundle) -> None:
        self._send = send
        self._nursery: trio.Nursery | None = None
        self._waiting: dict[PeerId, deque[Given]] = {}
        self._under_way: dict[PeerId, int] = {}
        self._large: dict[PeerId, int] = {}
        """Of these, how many that chunks follow."""

    async def run(self) -> None:
        """Until cancelled; what is on its way then has failed."""
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._under_way.clear()
            self._large.clear()
            waiting, self._waiting = self._waiting, {}
            for given in (one for queue in waiting.values() for one in queue):
                given.end(StreamBroken("replication has stopped"))

    def give(self, peer: PeerId, record: m.BundledRecord) -> Given:
        """Has a record kept by a node."""
        given = Given(record)
        if self._nursery is None:
            given.end(StreamBroken("replication has stopped"))
            return given
        self._waiting.setdefault(peer, deque()).append(given)
        if self._under_way.get(peer, 0) < (LARGE_AT_ONCE if given.behind_bytes else BUNDLES_AT_ONCE):
            self._under_way[peer] = self._under_way.get(peer, 0) + 1
            self._nursery.start_soon(self._send_all, peer)
        return given

    async def _send_all(self, peer: PeerId) -> None:
        """One bundle after the other until nothing waits that may go now; who is under way takes the rest."""
        while batch := self._next_batch(peer):
            is_large = any(given.behind_bytes for given in batch)
            self._large[peer] = self._large.get(peer, 0) + is_large
            outcomes: Sequence[LadingError | None] = [StreamBroken("replication has stopped")] * len(batch)
            try:
                outcomes = await self._send(peer, tuple(given.record for given in batch))
            except LadingError as error:
                outcomes = [error] * len(batch)
            finally:
                for given, outcome in zip(batch, outcomes, strict=True):
                    given.end(outcome)
            self._large[peer] -= is_large
        self._under_way[peer] -= 1
        if not self._under_way[peer]:
            del self._under_way[peer], self._waiting[peer]
            self._large.pop(peer, None)

    def _next_batch(self, peer: PeerId) -> list[Given]:
        queue = self._waiting[peer]
        batch: list[Given] = []
        size = behind = sequences = 0
        may_be_large = self._large.get(peer, 0) < LARGE_AT_ONCE
        while queue:
            if not queue[0].is_wanted:
                queue.popleft()
                continue
            if queue[0].behind_bytes and not may_be_large:
                break
            size += queue[0].bytes
            behind += queue[0].behind_bytes
            sequences += len(queue[0].record.sequences)
            if batch and (size > BUNDLE_BYTES_MAX or behind > BEHIND_BYTES_MAX or sequences > RECEIPT_ITEMS_MAX):
                break
            batch.append(queue.popleft())
        return batch
