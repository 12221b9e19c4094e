"""One end of `/lading/gossip/1` over a stream: the machine's surroundings.

Five tasks: one reads, one writes, one loads the bodies that the peer wants, one tells of new facts, one steps the machine. Bodies are
loaded only when what was sent before has left, so the stepping task never waits for a peer that has as much to send as we have.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Protocol

import trio

from protocols.effects import Close, Effect, Send
from protocols.errors import ActorGone, StoreFull
from protocols.gossip import machine as g
from protocols.registry import decode_message, encode_message
from protocols.types import PeerId

from ..clock import Clock
from ..transport.port import Stream, StreamBroken, StreamEnded

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
        self._stream = stream
        self._host = host
        self._clock = clock
        self._machine = g.GossipMachine()
        self._inbox_send, self._inbox = trio.open_memory_channel[tuple[object, int]](EVENTS_MAX)
        self._inbox_bytes = 0
        self._inbox_sank = trio.lowlevel.ParkingLot()
        self._out_send, self._out = trio.open_memory_channel[bytes](SENDS_MAX)
        self._out_sank = trio.lowlevel.ParkingLot()
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
            await self._inbox_send.send((g.HaveFacts(ids), 0))

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            nursery.start_soon(self._write, nursery.cancel_scope)
            nursery.start_soon(self._load)
            nursery.start_soon(self._tell)
            await self._step_all(g.Opened(*self._host.our_set()))
            while True:
                wake_at = self._machine.wake_at()
                event: object = g.Tick()
                frame_bytes = 0
                with trio.move_on_after(math.inf if wake_at is None else max(0.0, wake_at - self._clock.monotonic())):
                    event, frame_bytes = await self._inbox.receive()
                self._inbox_bytes -= frame_bytes
                self._inbox_sank.unpark_all()
                if not await self._step_all(event):
                    break
            nursery.cancel_scope.cancel()

    async def _read(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                while self._inbox_bytes >= EVENTS_BYTES_MAX:
                    await self._inbox_sank.park()
                frame = await self._stream.receive()
                message = decode_message("gossip", frame)
                self._inbox_bytes += len(frame)
                await self._inbox_send.send((message, len(frame)))
        except (StreamEnded, StreamBroken):
            scope.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            async for frame in self._out:
                await self._stream.send(frame)
                self._out_sank.unpark_all()
        except StreamBroken:
            scope.cancel()

    async def _load(self) -> None:
        async for ids in self._loads:
            while self._out.statistics().current_buffer_used:
                await self._out_sank.park()
            await self._inbox_send.send((g.Loaded(await self._host.load_bodies(ids)), 0))

    async def _step_all(self, first: object) -> bool:
        """False when the machine has closed the conversation."""
        events = deque([first])
        while events:
            for effect in self._machine.step(events.popleft(), self._clock.monotonic()):
                if isinstance(effect, Close):
                    return False
                answer = await self._perform(effect)
                if answer is not None:
                    events.append(answer)
        return True

    async def _perform(self, effect: Effect) -> object | None:
        match effect:
            case Send(message):
                # Two ends that wait for each other to read would stand still for ever: a peer that takes nothing is given up.
                with trio.move_on_after(g.SILENCE_MAX_S) as patience:
                    await self._out_send.send(encode_message("gossip", message))
                if patience.cancelled_caught:
                    raise StreamBroken(f"the peer takes nothing for {g.SILENCE_MAX_S:.0f} s")
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
