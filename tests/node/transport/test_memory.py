"""The memory twin: the manners of every transport, and the knobs of its network."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from node.transport.memory import (
    CLOSE_TIMEOUT_S,
    KEEPALIVE_TIMEOUT_S,
    STREAMS_UNACCEPTED_MAX,
    Link,
    MemoryConnection,
    MemoryNetwork,
    MemoryTransport,
)
from node.transport.port import DialFailed, Stream, StreamBroken, StreamEnded
from protocols.errors import DecodeError, Reason
from protocols.limits import FRAME_BYTES_MAX
from protocols.types import PeerId

from .manners import FENCE, HELD_S, PROTOCOL, Manners, is_held, open_pair, start


class MemoryWorld:
    """Transports named by their peer ids, on addresses made of their names."""

    def __init__(self, link: Link | None = None) -> None:
        self.wire: list[tuple[PeerId, PeerId, str, bytes]] = []
        self.network = MemoryNetwork(random.Random(1), link=link, tap=lambda *seen: self.wire.append(seen))

    def transport(self, name: str) -> MemoryTransport:
        return self.transport_at(name, f"/memory/{name}")

    def transport_at(self, name: str, address: str) -> MemoryTransport:
        return MemoryTransport(self.network, PeerId(name.encode()), (address,), protocols=(PROTOCOL,))

    def nowhere(self) -> str:
        return "/memory/nowhere"


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


@pytest.fixture
def slow_world() -> MemoryWorld:
    """100 ms each way, up to 50 ms more."""
    return MemoryWorld(Link(latency_s=0.1, jitter_s=0.05))


class TestMemory(Manners):
    """The contract over a perfect network."""


class TestMemoryFarAway(Manners):
    """The contract over a network that takes its time."""

    @pytest.fixture
    def world(self, slow_world: MemoryWorld) -> MemoryWorld:
        return slow_world


ALICE, BOB = PeerId(b"alice"), PeerId(b"bob")


async def connect(nursery: trio.Nursery, world: MemoryWorld) -> tuple[MemoryConnection, MemoryConnection]:
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    dialled = await alice.dial(address, bob.peer_id, FENCE)
    accepted = await bob.accept()
    dialled.trust()
    accepted.trust()
    return dialled, accepted


async def test_latency_when_set_delays_each_way(clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: virtual time passes as told. Method: dial costs two round trips, a frame half of one."""
    world = MemoryWorld(Link(latency_s=0.1))
    dialled, accepted = await connect(nursery, world)
    assert trio.current_time() == pytest.approx(0.5)  # four ways to dial, a fifth until the acceptor has the last message
    left, right = await open_pair(dialled, accepted)
    before = trio.current_time()
    await left.send(b"x")
    await right.receive()
    assert trio.current_time() - before == pytest.approx(0.1)


async def test_jitter_when_drawn_keeps_the_order_of_frames(clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: jitter reorders nothing. Method: 40 small frames over a link whose jitter is larger than their distance."""
    world = MemoryWorld(Link(latency_s=0.01, jitter_s=1.0))
    left, right = await open_pair(*await connect(nursery, world))

    async def send_all() -> None:
        for number in range(40):
            await left.send(bytes([number]))

    nursery.start_soon(send_all)
    assert [(await right.receive())[0] for _ in range(40)] == list(range(40))


async def test_bandwidth_when_set_paces_frames(clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: a byte costs time. Method: 10 frames of 1000 bytes (and 4 of header) at 10 kB/s."""
    world = MemoryWorld(Link(bandwidth_bytes_s=10_000))
    left, right = await open_pair(*await connect(nursery, world))
    before = trio.current_time()
    nursery.start_soon(_send_many, left, 10, 1000)
    for _ in range(10):
        await right.receive()
    assert trio.current_time() - before == pytest.approx(10 * 1004 / 10_000)


async def _send_many(stream: Stream, count: int, size: int) -> None:
    for _ in range(count):
        await stream.send(bytes(size))


async def test_short_cut_loses_nothing(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: TCP holds what is under way. Method: cut, send, wait a second less than the time-out, heal, receive."""
    left, right = await open_pair(*await connect(nursery, world))
    world.network.cut(ALICE, BOB)
    await left.send(b"held")
    with trio.move_on_after(KEEPALIVE_TIMEOUT_S - 1) as scope:
        await right.receive()
    assert scope.cancelled_caught
    world.network.heal(ALICE, BOB)
    with trio.fail_after(1):
        assert await right.receive() == b"held"


@pytest.mark.parametrize("one_way", [False, True])
async def test_long_cut_is_noticed_on_both_sides(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery, one_way: bool) -> None:
    """Goal: a dead link is found after the keepalive time-out, also when only one direction died. Method: cut, wait."""
    dialled, accepted = await connect(nursery, world)
    left, right = await open_pair(dialled, accepted)
    await left.send(b"arrived")
    await trio.testing.wait_all_tasks_blocked()
    world.network.cut(BOB, ALICE, one_way=one_way)
    before = trio.current_time()
    await dialled.closed.wait()
    assert trio.current_time() - before == pytest.approx(KEEPALIVE_TIMEOUT_S)
    await accepted.closed.wait()
    assert trio.current_time() - before == pytest.approx(KEEPALIVE_TIMEOUT_S)
    assert await right.receive() == b"arrived"
    for stream in (left, right):
        with pytest.raises(StreamBroken):
            await stream.receive()


async def test_frozen_peer_is_given_up_and_learns_it_when_it_thaws(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: half-open connections. Method: freeze bob: alice notices, bob does not; thaw: bob does too."""
    dialled, accepted = await connect(nursery, world)
    world.network.freeze(BOB)
    with trio.fail_after(KEEPALIVE_TIMEOUT_S + 1):
        await dialled.closed.wait()
    await trio.sleep(10 * KEEPALIVE_TIMEOUT_S)
    assert not accepted.closed.is_set()
    world.network.thaw(BOB)
    with trio.fail_after(1):
        await accepted.closed.wait()


async def test_dial_when_the_link_is_cut_hangs_until_it_heals(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: silence, not refusal. Method: dial over a cut link, cancel; dial again, heal meanwhile."""
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    world.network.partition((ALICE,), (BOB,))
    assert await is_held(lambda: alice.dial(address, BOB, FENCE))
    assert alice.connections() == bob.connections() == ()

    async def heal_later() -> None:
        await trio.sleep(HELD_S)
        world.network.heal_all()

    nursery.start_soon(heal_later)
    with trio.fail_after(1):
        assert (await alice.dial(address, BOB, FENCE)).remote == BOB


async def test_close_when_somebody_keeps_sending_takes_no_more_and_loses_nothing(clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: a busy connection can be closed cleanly. Method: a sender without end, a reader that keeps up, a link of 1 MB/s."""
    dialled, accepted = await connect(nursery, MemoryWorld(Link(bandwidth_bytes_s=1e6)))
    left, right = await open_pair(dialled, accepted)
    counts = {"sent": 0, "arrived": 0}

    async def send_without_end() -> None:
        while True:
            await left.send(bytes(100_000))
            counts["sent"] += 1

    async def read_without_end() -> None:
        while True:
            await right.receive()
            counts["arrived"] += 1

    async def until_broken(talk: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(StreamBroken):
            await talk()

    async with trio.open_nursery() as talkers:
        talkers.start_soon(until_broken, send_without_end)
        talkers.start_soon(until_broken, read_without_end)
        await trio.sleep(2)
        before = trio.current_time()
        await dialled.close()
        assert trio.current_time() - before < 1
    assert counts["sent"] == counts["arrived"] > 15


async def test_close_tells_a_waiting_sender_at_once(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: nobody waits for room that will not come. Method: a stream nobody reads; the sender is told before the time-out of close."""
    dialled, accepted = await connect(nursery, world)
    left, _ = await open_pair(dialled, accepted)
    told_at: list[float] = []

    async def flood() -> None:
        with pytest.raises(StreamBroken):
            await _send_many(left, 1000, FRAME_BYTES_MAX)
        told_at.append(trio.current_time())

    nursery.start_soon(flood)
    await trio.sleep(1)
    await dialled.close()
    assert told_at == [pytest.approx(1.0)]
    assert trio.current_time() == pytest.approx(1.0 + CLOSE_TIMEOUT_S)


async def test_slow_reader_holds_the_writer(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: pace of the reader is pace of the writer. Method: 20 largest frames to a reader that takes a second each."""
    left, right = await open_pair(*await connect(nursery, world))
    world.network.set_slow_reader(BOB, 1.0)

    async def read_all() -> None:
        while True:
            await right.receive()

    nursery.start_soon(read_all)
    before = trio.current_time()
    await _send_many(left, 20, FRAME_BYTES_MAX)
    assert 10 <= trio.current_time() - before <= 20


async def test_reset_breaks_every_connection_between_two(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: a middlebox forgets. Method: reset alice-bob; alice-carol stays."""
    dialled, accepted = await connect(nursery, world)
    carol = world.transport("carol")
    await start(nursery, carol)
    other = await carol.dial("/memory/alice", ALICE, FENCE)
    left, right = await open_pair(dialled, accepted)
    world.network.reset(BOB, ALICE)
    for stream in (left, right):
        with pytest.raises(StreamBroken):
            await stream.receive()
    assert dialled.closed.is_set()
    assert accepted.closed.is_set()
    assert not other.closed.is_set()


async def test_frame_when_too_long_is_refused_and_the_stream_reset(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: the limit of a frame holds against a peer who ignores it. Method: send one byte too many past the check."""
    dialled, accepted = await connect(nursery, world)
    left = await dialled.open_stream(PROTOCOL)
    right = await accepted.accept_stream()
    await left.send_unchecked(bytes(FRAME_BYTES_MAX + 1))
    with pytest.raises(DecodeError) as failure:
        await right.receive()
    assert failure.value.reason is Reason.TOO_LONG
    for stream in (left, right):
        with pytest.raises(StreamBroken):
            await stream.receive()


async def test_stream_when_the_protocol_is_not_spoken_is_refused(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: an unknown conversation fails where it is opened, and nobody accepts it."""
    dialled, accepted = await connect(nursery, world)
    with pytest.raises(StreamBroken):
        await dialled.open_stream("/unheard/of/1")
    assert await is_held(accepted.accept_stream)


async def test_streams_when_nobody_accepts_are_bounded(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: opening streams cannot fill a peer's memory. Method: open until refused; accept one and one more fits."""
    dialled, accepted = await connect(nursery, world)
    for _ in range(STREAMS_UNACCEPTED_MAX):
        await dialled.open_stream(PROTOCOL)
    with pytest.raises(StreamBroken):
        await dialled.open_stream(PROTOCOL)
    await accepted.accept_stream()
    again = await dialled.open_stream(PROTOCOL)
    assert again.accepted


async def test_open_stream_when_cancelled_leaves_no_stream_behind(clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: the peer does not keep a stream nobody holds. Method: cancel before the answer can be there; the peer's end is broken."""
    world = MemoryWorld(Link(latency_s=1.0))
    dialled, accepted = await connect(nursery, world)
    with trio.move_on_after(1.5):
        await dialled.open_stream(PROTOCOL)
    stream = await accepted.accept_stream()
    with pytest.raises(StreamBroken):
        await stream.receive()


async def test_finished_streams_are_forgotten(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: a long life of short streams keeps nothing. Method: 1000 streams one after the other, more than may be open at once."""
    dialled, accepted = await connect(nursery, world)
    for _ in range(1000):
        left, right = await open_pair(dialled, accepted)
        await left.finish()
        await right.finish()
        with pytest.raises(StreamEnded):
            await right.receive()


async def test_dial_oneself_is_refused(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: no connection to oneself. Method: dial the own address."""
    alice = world.transport("alice")
    address = await start(nursery, alice)
    with pytest.raises(DialFailed) as failure:
        await alice.dial(address, None, FENCE)
    assert failure.value.reason is Reason.UNREACHABLE


async def test_tap_sees_every_frame(clock: MockClock, world: MemoryWorld, nursery: trio.Nursery) -> None:
    """Goal: checkers can look at the wire. Method: one frame each way."""
    left, right = await open_pair(*await connect(nursery, world))
    await right.send(b"answer")
    await left.receive()
    assert world.wire == [(ALICE, BOB, PROTOCOL, b"hello"), (BOB, ALICE, PROTOCOL, b"answer")]
