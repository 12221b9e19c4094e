"""One end of `/lading/gossip/1` over a stream: the machine's surroundings.

Beside the reader, the writer and the stepper one task loads the bodies that the peer wants and one tells of new facts. Bodies are
loaded only when what was sent before has left, so the stepping task never waits for a peer that has as much to send as we have.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio

from protocols.effects import Effect
from protocols.errors import ActorGone, StoreFull
from protocols.gossip import machine as g
from protocols.types import PeerId

from ..clock import Clock
from ..transport.port import Stream
from .end import MachineEnd

GOSSIP_PROTOCOL = "/lading/gossip/1"
EVENTS_MAX = 1024
# Unhandled frames of the peer: the ids of a million facts. Beyond it the reader waits.
EVENTS_BYTES_MAX = 32 * 1024 * 1024
SENDS_MAX = 256
# Facts that are new together are told together; what reaches the peer by another way meanwhile (a statement with its record) is not
# fetched a second time.
TELL_PAUSE_S = 0.15
TELL_WITHIN_S = 0.6  # while many more keep coming
TELL_MANY = 8
TELL_IDS_MAX = 65536
assert SENDS_MAX > 2 * g.LOAD_IDS_MAX

log = logging.getLogger(__name__)


class GossipHost(Protocol):
    """What a gossip stream needs of the node."""

    def our_set(self) -> tuple[int, bytes]:
        """Number of facts and sketch."""

    def filter_shared(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Those of our facts that this peer may know."""

    def filter_unknown(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]: ...

    def bucket_ids(self, bucket: int) -> tuple[bytes, ...]: ...

    async def load_bodies(self, ids: tuple[bytes, ...]) -> tuple[tuple[int, bytes], ...]: ...

    async def deliver(self, peer: PeerId, items_untrusted: tuple[tuple[int, bytes], ...]) -> None: ...

    def life_signs(self) -> tuple[tuple[bytes, int], ...]: ...

    def heard_of(self, peer: PeerId, entries: tuple[tuple[bytes, int], ...], rtt_s: float | None) -> None: ...


class GossipEnd:
    """Runs one stream; ``have_facts`` hands on what was accepted elsewhere (a hint: lost ones are found by reconciling)."""

    def __init__(self, stream: Stream, peer: PeerId, host: GossipHost, clock: Clock) -> None:
        self.peer = peer
        self._host = host
        self._machine = g.GossipMachine()
        self._end = MachineEnd(
            "gossip",
            self._machine,
            stream,
            clock,
            self._perform,
            tick=g.Tick(),
            events_max=EVENTS_MAX,
            events_bytes_max=EVENTS_BYTES_MAX,
            sends_max=SENDS_MAX,
            patience_s=g.SILENCE_MAX_S,
        )
        self._to_tell: list[bytes] = []
        self._some_to_tell = trio.Event()
        # The machine asks for one load at a time.
        self._load_send, self._loads = trio.open_memory_channel[tuple[bytes, ...]](1)

    def have_facts(self, ids: tuple[bytes, ...]) -> None:
        ids = self._host.filter_shared(ids)
        if not ids:
            return
        if len(self._to_tell) + len(ids) > TELL_IDS_MAX:
            self._machine.lost_announcements += len(ids)
            return
        self._to_tell += ids
        self._some_to_tell.set()

    async def _tell(self) -> None:
        while True:
            await self._some_to_tell.wait()
            told_by = trio.current_time() + TELL_WITHIN_S
            count = -TELL_MANY
            while len(self._to_tell) - count >= TELL_MANY and trio.current_time() < told_by:
                count = len(self._to_tell)
                await trio.sleep(TELL_PAUSE_S)
            self._some_to_tell = trio.Event()
            ids, self._to_tell = tuple(self._to_tell), []
            await self._end.put(g.HaveFacts(ids))

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        await self._end.run(g.Opened(*self._host.our_set()), self._load, self._tell)

    async def _load(self) -> None:
        async for ids in self._loads:
            await self._end.wait_sent()
            await self._end.put(g.Loaded(await self._host.load_bodies(ids)))

    async def _perform(self, effect: Effect) -> object | None:
        match effect:
            case g.FilterUnknown(ids):
                return g.Unknown(self._host.filter_unknown(ids))
            case g.LoadBodies(ids):
                self._load_send.send_nowait(ids)
            case g.LoadBucket(bucket):
                # A whole set is 256 of these: sorting it must not hold the loop in one go.
                await trio.lowlevel.checkpoint()
                return g.BucketLoaded(bucket, self._host.bucket_ids(bucket))
            case g.DescribeSet():
                return g.OurSet(*self._host.our_set())
            case g.CollectLife():
                return g.LifeSigns(self._host.life_signs())
            case g.Deliver(items_untrusted):
                try:
                    await self._host.deliver(self.peer, items_untrusted)
                except (StoreFull, ActorGone) as error:
                    # A node without room still serves: what it could not keep comes again with a later reconciliation.
                    log.warning("facts not taken peer=%s count=%d error=%s", self.peer.hex()[-8:], len(items_untrusted), error)
            case g.HeardOf(entries, rtt_s):
                self._host.heard_of(self.peer, entries, rtt_s)
            case _:
                raise AssertionError(effect)
        return None
