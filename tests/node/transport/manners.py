"""The manners of a transport, as one contract. A twin's test file subclasses ``Manners`` and gives two fixtures:

``world``: a World that makes transports; ``clock``: the trio clock to run under (None for the real one).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
import trio

from node.transport.port import Connection, DialFailed, PresharedKey, Stream, StreamBroken, StreamEnded, Transport
from protocols.errors import DecodeError, LadingError, Reason
from protocols.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNPROVEN, UNREAD_BYTES_MAX_UNPROVEN
from protocols.types import PeerId

FENCE = PresharedKey("fence", b"F" * 32, b"f" * 32)
OTHER_FENCE = PresharedKey("fence", b"G" * 32, b"g" * 32)
TICKET = PresharedKey("join", b"T" * 32, b"t" * 32)
PROTOCOL = "/lading/manners/1"

# Longer than anything a healthy transport does, in virtual time free of charge and in real time only spent by a failing test.
PATIENCE_S = 10.0
# Long enough to tell that a waiting call waits; the only real seconds a healthy run spends.
HELD_S = 0.3
# What a twin may read at once, and finds only afterwards to be more than it wanted: one Noise message.
READ_BYTES_MAX = 65535


class World(Protocol):
    """Makes transports of one network."""

    def transport(self, name: str) -> Transport:
        """A new transport, not yet running, with an identity and an address of its own. It speaks PROTOCOL."""

    def transport_at(self, name: str, address: str) -> Transport:
        """A new transport that will listen on this address."""

    def nowhere(self) -> str:
        """An address where nobody listens."""


async def start(nursery: trio.Nursery, transport: Transport, *keys: PresharedKey) -> str:
    """Runs the transport with these keys (the fence alone by default). Result: its first address."""
    transport.set_preshared_keys(keys or (FENCE,))
    addresses = await nursery.start(transport.run)
    return str(addresses[0])


async def connect(nursery: trio.Nursery, world: World, *, trusting: bool = True) -> tuple[Connection, Connection]:
    """Two running transports, connected: (dialer's end, acceptor's end). trusting: both ends do."""
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    dialled = await alice.dial(address, bob.peer_id, FENCE)
    accepted = await bob.accept()
    if trusting:
        dialled.trust()
        accepted.trust()
    return dialled, accepted


async def open_pair(dialled: Connection, accepted: Connection) -> tuple[Stream, Stream]:
    """One stream: (opener's end, acceptor's end)."""
    opened = await dialled.open_stream(PROTOCOL)
    await opened.send(b"hello")  # a negotiation may be lazy: the first frame makes the stream visible
    stream = await accepted.accept_stream()
    assert await stream.receive() == b"hello"
    return opened, stream


async def read_to_the_end(stream: Stream) -> list[bytes]:
    """All frames until the peer finished."""
    frames = []
    while True:
        try:
            frames.append(await stream.receive())
        except StreamEnded:
            return frames


async def is_held(call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call is still waiting after HELD_S; it is cancelled then."""
    with trio.move_on_after(HELD_S) as scope:
        await call()
    return scope.cancelled_caught


class Manners:
    """Every test takes the world, the clock it runs under, and a nursery that ends the transports."""

    async def test_connection_when_both_know_the_fence_is_the_same_on_both_sides(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: both ends agree on who, which key, which handshake. Method: two connections, compared."""
        alice, bob = world.transport("alice"), world.transport("bob")
        await start(nursery, alice)
        address = await start(nursery, bob)
        with trio.fail_after(PATIENCE_S):
            dialled = await alice.dial(address, bob.peer_id, FENCE)
            accepted = await bob.accept()
        assert (dialled.remote, accepted.remote) == (bob.peer_id, alice.peer_id)
        assert (dialled.outbound, accepted.outbound) == (True, False)
        assert dialled.handshake_hash == accepted.handshake_hash
        assert len(dialled.handshake_hash) == 32
        assert dialled.preshared_key == accepted.preshared_key == FENCE
        assert dialled.remote_address == address

    async def test_frame_when_its_sender_is_not_trusted_is_short_or_refused_unread(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: a stranger does not make us hold a frame of 512 KiB. Method: the longest allowed arrives; one byte more is refused, on a
        stream that is read; on one that nobody has accepted yet the longest of all waits at the sender, and arrives with trust."""
        dialled, accepted = await connect(nursery, world, trusting=False)
        with trio.fail_after(PATIENCE_S):
            left, right = await open_pair(dialled, accepted)
            await left.send(bytes(FRAME_BYTES_MAX_UNPROVEN))
            assert await right.receive() == bytes(FRAME_BYTES_MAX_UNPROVEN)
            await left.send(bytes(FRAME_BYTES_MAX_UNPROVEN + 1))
            with pytest.raises(DecodeError) as caught:
                await right.receive()
            assert caught.value.reason is Reason.TOO_LONG
            early = await dialled.open_stream(PROTOCOL)
            await early.send(bytes(FRAME_BYTES_MAX))
            await trio.sleep(HELD_S)
            assert accepted.unread_bytes <= UNREAD_BYTES_MAX_UNPROVEN + READ_BYTES_MAX
            accepted.trust()
            assert await (await accepted.accept_stream()).receive() == bytes(FRAME_BYTES_MAX)

    async def test_unread_bytes_when_their_sender_is_not_trusted_are_bounded_over_all_streams(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: nor does it with many short frames. Method: eight streams, 128 KiB on each; what arrives is measured; trusted, all of
        it does."""
        dialled, accepted = await connect(nursery, world, trusting=False)
        with trio.fail_after(PATIENCE_S):
            pairs = [await open_pair(dialled, accepted) for _ in range(8)]

            async def pour(stream: Stream) -> None:
                for _ in range(8):
                    await stream.send(bytes(16 * 1024))

            async with trio.open_nursery() as senders:
                for left, _ in pairs:
                    senders.start_soon(pour, left)
                await trio.sleep(HELD_S)
                assert 16 * 1024 <= accepted.unread_bytes <= UNREAD_BYTES_MAX_UNPROVEN + READ_BYTES_MAX
                accepted.trust()
                for _, right in pairs:
                    for _ in range(8):
                        assert len(await right.receive()) == 16 * 1024
            assert accepted.unread_bytes == 0

    async def test_handshake_hash_when_dialled_twice_differs(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: a proof made for one connection is worth nothing on another. Method: bob dials carol and dave."""
        bob, carol, dave = (world.transport(name) for name in ("bob", "carol", "dave"))
        await start(nursery, bob)
        first = await bob.dial(await start(nursery, carol), None, FENCE)
        second = await bob.dial(await start(nursery, dave), None, FENCE)
        assert (first.remote, second.remote) == (carol.peer_id, dave.peer_id)
        assert first.handshake_hash != second.handshake_hash

    async def test_dial_when_the_key_is_wrong_is_refused_at_the_fence(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: outsiders learn nothing and nobody upstairs hears of them. Method: wrong key and wrong peer at once: FENCE wins."""
        alice, bob = world.transport("alice"), world.transport("bob")
        await start(nursery, alice, OTHER_FENCE)
        address = await start(nursery, bob, FENCE)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(DialFailed) as failure:
                await alice.dial(address, alice.peer_id, OTHER_FENCE)
            assert failure.value.reason is Reason.FENCE
            assert bob.peer_id.hex() not in str(failure.value)
        assert await is_held(bob.accept)

    async def test_dial_with_a_ticket_when_it_is_open_tells_the_acceptor_which(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: the acceptor knows a newcomer from a member. Method: bob knows fence and ticket, alice has the ticket."""
        alice, bob = world.transport("alice"), world.transport("bob")
        await start(nursery, alice)
        address = await start(nursery, bob, FENCE, TICKET)
        with trio.fail_after(PATIENCE_S):
            dialled = await alice.dial(address, bob.peer_id, TICKET)
            accepted = await bob.accept()
        assert (accepted.preshared_key.kind, accepted.preshared_key.id) == (TICKET.kind, TICKET.id)
        assert dialled.preshared_key == TICKET

    async def test_keys_when_replaced_count_for_the_next_dial(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: a withdrawn fence admits nobody new, and what stands stays. Method: dial, replace, dial again, use the first."""
        alice, bob = world.transport("alice"), world.transport("bob")
        await start(nursery, alice)
        address = await start(nursery, bob)
        dialled = await alice.dial(address, bob.peer_id, FENCE)
        accepted = await bob.accept()
        bob.set_preshared_keys((OTHER_FENCE,))
        carol = world.transport("carol")
        await start(nursery, carol)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(DialFailed) as failure:
                await carol.dial(address, bob.peer_id, FENCE)
            assert failure.value.reason is Reason.FENCE
            await open_pair(dialled, accepted)

    async def test_dial_when_somebody_else_answers_fails_as_wrong_peer(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: an address is not an identity. Method: expect carol at bob's address."""
        alice, bob, carol = (world.transport(name) for name in ("alice", "bob", "carol"))
        await start(nursery, alice)
        address = await start(nursery, bob)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(DialFailed) as failure:
                await alice.dial(address, carol.peer_id, FENCE)
        assert failure.value.reason is Reason.WRONG_PEER

    async def test_dial_when_nobody_listens_fails_as_unreachable(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: a dead address is told apart from a refusing one. Method: dial it."""
        alice = world.transport("alice")
        await start(nursery, alice)
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(DialFailed) as failure:
                await alice.dial(world.nowhere(), None, FENCE)
        assert failure.value.reason is Reason.UNREACHABLE

    async def test_run_when_the_address_is_taken_fails_and_names_it(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: the operator learns which address. Method: two transports on one."""
        address = await start(nursery, world.transport("alice"))
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(LadingError) as failure:
                await world.transport_at("bob", address).run()
        assert failure.value.reason is Reason.FAILED
        assert address in str(failure.value)

    async def test_frames_when_sent_both_ways_arrive_whole_and_in_order(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: framing. Method: empty, small, one byte, the largest; forth and back at once."""
        left, right = await open_pair(*await connect(nursery, world))
        frames = [b"", b"a", bytes(1000), b"\xff" * FRAME_BYTES_MAX, b"end"]

        async def send_all(stream: Stream) -> None:
            for frame in frames:
                await stream.send(frame)

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as senders:
                senders.start_soon(send_all, left)
                senders.start_soon(send_all, right)
                assert [await right.receive() for _ in frames] == frames
                assert [await left.receive() for _ in frames] == frames

    async def test_streams_when_one_is_not_read_leave_the_other_alone(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: one slow conversation holds itself, not its connection. Method: fill one, use another."""
        dialled, accepted = await connect(nursery, world)
        stuck, _ = await open_pair(dialled, accepted)

        async def flood() -> None:
            while True:
                await stuck.send(bytes(FRAME_BYTES_MAX))

        assert await is_held(flood)
        with trio.fail_after(PATIENCE_S):
            left, right = await open_pair(dialled, accepted)
            await left.send(b"through")
            assert await right.receive() == b"through"

    async def test_send_when_nobody_reads_waits_and_goes_on_when_somebody_does(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: back-pressure without loss, and a cancelled send is whole or nothing. Method: send numbered frames until held, cancel,
        read everything: those arrive whose send returned."""
        left, right = await open_pair(*await connect(nursery, world))
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await left.send(sent.to_bytes(4, "big") * (FRAME_BYTES_MAX // 4))
                sent += 1

        assert await is_held(flood)
        assert 0 < sent < 64, "a bounded number of frames fits into queue and window"
        with trio.fail_after(PATIENCE_S):
            nursery.start_soon(left.finish)
            arrived = await read_to_the_end(right)
        assert all(frame == frame[:4] * (FRAME_BYTES_MAX // 4) for frame in arrived), "no frame was cut or mixed"
        numbers = [int.from_bytes(frame[:4], "big") for frame in arrived]
        assert numbers in (list(range(sent)), list(range(sent + 1))), "the cancelled one may have been queued, whole"

    async def test_receive_when_cancelled_loses_nothing(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: receive can be raced against other things. Method: cancel it waiting, then send two."""
        left, right = await open_pair(*await connect(nursery, world))
        assert await is_held(right.receive)
        with trio.fail_after(PATIENCE_S):
            await left.send(b"one")
            await left.send(b"two")
            assert [await right.receive(), await right.receive()] == [b"one", b"two"]

    async def test_finish_when_frames_are_queued_lets_them_arrive_first(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: half-close is an end between frames, and the other direction goes on. Method: send, finish, read, answer."""
        left, right = await open_pair(*await connect(nursery, world))
        with trio.fail_after(PATIENCE_S):
            for number in range(5):
                await left.send(bytes([number]))
            await left.finish()
            assert [await right.receive() for _ in range(5)] == [bytes([number]) for number in range(5)]
            for _ in range(2):  # and it stays ended
                with pytest.raises(StreamEnded):
                    await right.receive()
            await right.send(b"answer")
            assert await left.receive() == b"answer"
            await right.finish()
            with pytest.raises(StreamEnded):
                await left.receive()

    async def test_flush_when_frames_are_queued_returns_after_they_left(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: flush waits for the writer. Method: a held stream cannot be flushed until it is read."""
        left, right = await open_pair(*await connect(nursery, world))

        async def flood() -> None:
            while True:
                await left.send(bytes(FRAME_BYTES_MAX))

        assert await is_held(flood)
        assert await is_held(left.flush)

        async def drain() -> None:
            while True:
                await right.receive()

        nursery.start_soon(drain)
        with trio.fail_after(PATIENCE_S):
            await left.flush()

    async def test_reset_when_frames_are_unread_breaks_both_ends(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: a thrown away stream never looks finished. Method: reset, and read both ends until they end."""
        dialled, accepted = await connect(nursery, world)
        left, right = await open_pair(dialled, accepted)
        left.reset()
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(StreamBroken):
                await left.receive()
            with pytest.raises(StreamBroken):
                await left.send(b"more")
            with pytest.raises(StreamBroken):
                await right.receive()
            await open_pair(dialled, accepted)  # the connection is none the worse

    async def test_close_when_frames_are_queued_delivers_them_and_then_breaks(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: a polite goodbye loses nothing, and does not look like a finished stream. Method: send, close, read."""
        dialled, accepted = await connect(nursery, world)
        left, right = await open_pair(dialled, accepted)
        frames = [bytes([number]) * 1000 for number in range(3)]
        with trio.fail_after(PATIENCE_S):
            for frame in frames:
                await left.send(frame)
            await dialled.close("done")
            assert dialled.closed.is_set()
            assert [await right.receive() for _ in frames] == frames
            with pytest.raises(StreamBroken):
                await right.receive()
            await accepted.closed.wait()
            for connection in (dialled, accepted):
                with pytest.raises(StreamBroken):
                    await connection.open_stream(PROTOCOL)
                with pytest.raises(StreamBroken):
                    await connection.accept_stream()
                await connection.close()  # closing what is closed is nothing

    async def test_close_when_the_peer_does_not_read_is_bounded_in_time(self, world: World, clock: object, nursery: trio.Nursery) -> None:
        """Goal: a peer that reads nothing cannot keep us. Method: fill the stream, close while a sender waits for room: it is told."""
        dialled, accepted = await connect(nursery, world)
        left, _ = await open_pair(dialled, accepted)

        async def flood() -> None:
            while True:
                await left.send(bytes(FRAME_BYTES_MAX))

        async def flood_until_broken() -> None:
            with pytest.raises(StreamBroken):
                await flood()

        assert await is_held(flood)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as senders:
                senders.start_soon(flood_until_broken)
                await dialled.close()
            await accepted.closed.wait()

    async def test_stopped_transport_breaks_its_connections_and_frees_its_address(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: nothing is left behind. Method: cancel one side's run; the other notices; somebody else takes the address."""
        alice, bob = world.transport("alice"), world.transport("bob")
        await start(nursery, alice)
        async with trio.open_nursery() as bobs:
            address = await start(bobs, bob)
            dialled = await alice.dial(address, bob.peer_id, FENCE)
            accepted = await bob.accept()
            left, _ = await open_pair(dialled, accepted)
            bobs.cancel_scope.cancel()
        assert accepted.closed.is_set()
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(StreamBroken):
                await left.receive()
            await dialled.closed.wait()
            with pytest.raises(DialFailed) as failure:
                await alice.dial(address, None, FENCE)
            assert failure.value.reason is Reason.UNREACHABLE
            successor = world.transport_at("carol", address)
            assert await start(nursery, successor) == address
            again = await alice.dial(address, successor.peer_id, FENCE)
            assert again.remote == successor.peer_id

    async def test_many_connections_when_dialled_at_once_are_each_their_own(
        self, world: World, clock: object, nursery: trio.Nursery
    ) -> None:
        """Goal: nothing is mixed up between peers. Method: five dial one, each says its name on its own stream."""
        hub = world.transport("hub")
        address = await start(nursery, hub)
        spokes = [world.transport(f"spoke{number}") for number in range(5)]

        async def speak(spoke: Transport) -> None:
            await start(nursery, spoke)
            connection = await spoke.dial(address, hub.peer_id, FENCE)
            stream = await connection.open_stream(PROTOCOL)
            await stream.send(bytes(spoke.peer_id))
            await stream.finish()

        heard: set[PeerId] = set()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as speakers:
                for spoke in spokes:
                    speakers.start_soon(speak, spoke)
                for _ in spokes:
                    connection = await hub.accept()
                    stream = await connection.accept_stream()
                    assert await stream.receive() == connection.remote
                    heard.add(connection.remote)
        assert heard == {spoke.peer_id for spoke in spokes}
