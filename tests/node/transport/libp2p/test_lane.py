"""The lane under a connection: which classes run, both lanes paired, the library's bytes, many streams, hostile peers."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.security.noise.io import NoisePacketReadWriter, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux.yamux import Yamux
from noise.connection import NoiseConnection

from node.config import Config
from node.transport.libp2p.budget import RateBudget
from node.transport.libp2p.connection import Libp2pConnection
from node.transport.libp2p.lane import LANES
from node.transport.libp2p.mux import Muxer
from node.transport.libp2p.noise import Session
from node.transport.port import StreamBroken, StreamEnded
from protocols.crypto import CounterCipher, SessionCipher
from protocols.limits import (
    BATCH_BYTES_MAX,
    FRAME_BYTES_MAX,
    NOISE_PLAIN_BYTES_MAX,
    STREAM_WINDOW_BYTES,
    STREAMS_HELD_BYTES_MAX,
    STREAMS_INBOUND_MAX,
)
from protocols.noise.machine import NoiseSession
from protocols.yamux.budget import connection_budget
from protocols.yamux.frames import SYN, Kind, encode_header
from protocols.yamux.session import Limits, YamuxSession

from ..manners import FENCE, PROTOCOL, open_pair, start
from .loopback import OWN_LANES, LoopbackWorld, connect_ours, port_of, until

PATIENCE_S = 20.0
PAIRINGS = [("own", "own"), ("own", "stock"), ("stock", "own"), ("stock", "stock")]


# --- what runs ----------------------------------------------------------------------------------------------------
async def test_live_connection_runs_our_session_and_our_muxer_by_default(nursery: trio.Nursery) -> None:
    """Goal: nothing puts the library's layers back unnoticed. Method: look at what carries a live connection, and that it carried."""
    assert Config().lane == "own"
    for connection in await connect_ours(nursery, OWN_LANES):
        assert type(connection.muxer) is Muxer
        assert type(connection.muxer.core) is YamuxSession
        session = connection.muxer._session
        assert type(session) is Session
        assert type(session.core) is NoiseSession
        before = session.core._sending.counter
        await connection.open_stream(PROTOCOL)
        assert session.core._sending.counter > before


async def test_live_connection_runs_the_library_s_when_chosen_and_only_then(nursery: trio.Nursery) -> None:
    """Goal: the fallback is the reference itself. Method: one side on each lane; the classes of the library on the one."""
    dialled, accepted = await connect_ours(nursery, ("stock", "own"))
    assert type(dialled.muxer.raw) is Yamux  # type: ignore[union-attr]
    assert type(dialled.muxer.raw.secured_conn._secured) is SecureSession  # type: ignore[union-attr]
    assert type(accepted.muxer) is Muxer
    assert sorted(LANES) == ["own", "stock"]


# --- pairings -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("lanes", PAIRINGS, ids="-".join)
async def test_lanes_when_paired_carry_the_same_bytes_ends_and_resets(lanes: tuple[str, str], nursery: trio.Nursery) -> None:
    """Goal: one wire. Method: 8 MiB each way beside 20 short streams; half-close before the answer; a reset; hashes. All at once, except
    between two of the library's muxers, which lock up under that (test_regressions.py): there one after the other."""
    at_once = 1 if lanes == ("stock", "stock") else 22
    limiter = trio.CapacityLimiter(at_once)
    left, right = await connect_ours(nursery, lanes)
    content = random.Random(5).randbytes(250_000)
    expected = hashlib.sha256(content * 32).hexdigest().encode()

    async def give(connection: Libp2pConnection) -> None:
        stream = await connection.open_stream("/lading/hash/1")
        for _ in range(32):
            await stream.send(content)
        await stream.finish()
        assert await stream.receive() == expected

    async def ask(connection: Libp2pConnection, number: int) -> None:
        stream = await connection.open_stream("/lading/hash/1")
        await stream.send(b"%d" % number)
        await stream.finish()
        assert await stream.receive() == hashlib.sha256(b"%d" % number).hexdigest().encode()

    async def in_turn(converse: Any, *args: Any) -> None:
        async with limiter:
            await converse(*args)

    async def answer(stream: Any) -> None:
        digest = hashlib.sha256()
        try:
            while True:
                digest.update(await stream.receive())
        except StreamEnded:
            await stream.send(digest.hexdigest().encode())
            await stream.finish()

    async def serve(connection: Libp2pConnection) -> None:
        while True:
            nursery.start_soon(answer, await connection.accept_stream())

    with trio.fail_after(PATIENCE_S):
        thrown, seen = await open_pair(left, right)
        thrown.reset()
        with pytest.raises(StreamBroken):
            await seen.receive()
        serving = [trio.CancelScope(), trio.CancelScope()]

        async def serve_within(connection: Libp2pConnection, scope: trio.CancelScope) -> None:
            with scope:
                await serve(connection)

        async with trio.open_nursery() as talking:
            for connection, scope in zip((left, right), serving, strict=True):
                nursery.start_soon(serve_within, connection, scope)
                talking.start_soon(in_turn, give, connection)
            for number in range(20):
                talking.start_soon(in_turn, ask, (left, right)[number % 2], number)
        for scope in serving:
            scope.cancel()


# --- the library's bytes ------------------------------------------------------------------------------------------
class _Tape:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


def _handshaken(cipher: SessionCipher) -> tuple[NoiseConnection, NoiseConnection]:
    sides = []
    for initiator in (True, False):
        state = NoiseConnection.from_name(b"Noise_NN_25519_%s_SHA256" % cipher.value.encode())
        (state.set_as_initiator if initiator else state.set_as_responder)()
        state.start_handshake()
        sides.append(state)
    sides[1].read_message(sides[0].write_message())
    sides[0].read_message(sides[1].write_message())
    return sides[0], sides[1]


@pytest.mark.parametrize("cipher", SessionCipher)
@pytest.mark.parametrize("sizes", [[0], [1], [5, 65519, 12], [65520], [200_000], [12, 262_144, 12, 3]])
async def test_session_writes_the_library_s_bytes_and_opens_them(sizes: list[int], cipher: SessionCipher) -> None:
    """Goal: the reference agrees byte for byte. Method: the same keys; the library writes each message of ours; then the tape is opened."""
    state, other = _handshaken(cipher)
    sending, receiving = state.noise_protocol.cipher_state_encrypt, other.noise_protocol.cipher_state_decrypt
    ours = NoiseSession(CounterCipher(sending.k, sending.n, cipher), CounterCipher(sending.k, 0, cipher))
    opener = NoiseSession(CounterCipher(receiving.k, 0, cipher), CounterCipher(receiving.k, receiving.n, cipher))
    chance = random.Random(sum(sizes))
    pieces = [chance.randbytes(size) for size in sizes]
    wire = bytes(ours.say(pieces, 0.0))
    tape: Any = _Tape()
    library = NoiseTransportReadWriter(tape, state)
    library.read_writer = NoisePacketReadWriter(tape)
    whole = b"".join(pieces)
    for begin in range(0, len(whole), NOISE_PLAIN_BYTES_MAX):
        await library.write_msg(whole[begin : begin + NOISE_PLAIN_BYTES_MAX])
    assert wire == tape.data
    plain = b"".join(b"".join(effect.messages) for effect in opener.feed(tape.data, 0.0))  # type: ignore[attr-defined]
    assert plain == whole


async def test_muxer_says_the_library_s_frames() -> None:
    """Goal: the reference agrees on every frame that both send alike. Method: open, write, finish, reset; the bytes on both tapes."""
    tape: Any = _Tape()
    tape.is_initiator = True
    theirs = Yamux(tape, ID(b"x"), is_initiator=True)
    raw = await theirs.open_stream()
    await raw.write(b"some words")
    await raw.close()
    await (await theirs.open_stream()).reset()
    ours = YamuxSession(initiator=True, now_s=0.0, budget=connection_budget())
    wire = b""

    def leave() -> None:
        nonlocal wire
        while ours.has_work:
            batch = ours.collect(2**19)
            wire += b"".join(batch.pieces)
            ours.left(batch)

    class Session:
        batch_bytes = BATCH_BYTES_MAX

        async def receive(self) -> Any: ...
        async def send(self, pieces: Any) -> None: ...
        def tick(self, now_s: float) -> None: ...
        def trust(self) -> None: ...

    muxer = Muxer(Session(), initiator=True, opened=lambda stream: None, budget=RateBudget())
    muxer.core = ours
    first = muxer.open()
    first.put(b"some words")
    first.finish()
    leave()
    second = muxer.open()
    leave()
    second.reset()
    leave()
    assert wire == tape.data


# --- many and hostile ---------------------------------------------------------------------------------------------
class _Joined:
    """A session that is a pair of memory channels: what a muxer sends, the other receives."""

    batch_bytes = BATCH_BYTES_MAX

    def __init__(self, put: Any, take: Any) -> None:
        self._put, self._take = put, take

    async def receive(self) -> tuple[bytes, ...]:
        return (await self._take.receive(),)

    async def send(self, pieces: Any) -> None:
        await self._put.send(b"".join(pieces))

    def tick(self, now_s: float) -> None:
        """Nothing here takes time."""

    def trust(self) -> None:
        """Nothing here has a buffer."""


async def test_thousand_streams_at_once_all_get_their_answers_while_one_reader_never_reads(nursery: trio.Nursery) -> None:
    """Goal: many at once, and one that holds only itself. Method: 1,000 echoes in flight over one session, one stream full and unread."""
    limits = Limits(streams_inbound_max=1100, streams_outbound_max=1100)
    there, back = trio.open_memory_channel[bytes](1), trio.open_memory_channel[bytes](1)
    accepted_put, accepted = trio.open_memory_channel[Any](1100)
    left = Muxer(_Joined(there[0], back[1]), initiator=True, opened=lambda s: None, budget=RateBudget(), limits=limits)
    right = Muxer(_Joined(back[0], there[1]), initiator=False, opened=accepted_put.send_nowait, budget=RateBudget(), limits=limits)
    for muxer in (left, right):
        muxer.trust()
        for loop in muxer.loops:
            nursery.start_soon(loop)
    stuck = left.open()
    stuck.put(bytes(4 * STREAM_WINDOW_BYTES))
    await accepted.receive()
    streams = [left.open() for _ in range(1000)]

    async def echo(stream: Any) -> None:
        data = await stream.read(2000)
        stream.put(data)
        stream.finish()

    done = 0

    async def ask(number: int, stream: Any) -> None:
        nonlocal done
        question = number.to_bytes(4, "big") * 500
        stream.put(question)
        stream.finish()
        assert await stream.read(2000) == question
        assert await stream.receive_some() == b""
        done += 1

    with trio.fail_after(PATIENCE_S):
        peers = [await accepted.receive() for _ in streams]
        assert (left.stream_count, right.stream_count) == (1001, 1001)
        async with trio.open_nursery() as talking:
            for peer in peers:
                talking.start_soon(echo, peer)
            for number, stream in enumerate(streams):
                talking.start_soon(ask, number, stream)
        assert done == 1000
        await until(lambda: left.stream_count == right.stream_count == 1)
    assert stuck.core.left_count == STREAM_WINDOW_BYTES
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("frame_bytes", [50, 4000, 65_000])
def test_hostile_peer_when_it_fills_every_window_holds_a_bounded_memory(frame_bytes: int) -> None:
    """Goal: what a peer may cost. Method: all streams it may open, each filled in frames of one size, nothing read; memory as allocated:
    at most twice what may be held, and little more than what arrived."""
    streams_count = STREAMS_INBOUND_MAX if frame_bytes > 50 else 2
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        core = YamuxSession(initiator=False, now_s=0.0)
        for number in range(streams_count):
            stream_id = 2 * number + 1
            core.feed([encode_header(Kind.WINDOW_UPDATE, SYN, stream_id, 0)], 0.0)
            core.collect(2**19)
            for _ in range(STREAM_WINDOW_BYTES // frame_bytes):
                header = encode_header(Kind.DATA, 0, stream_id, frame_bytes)
                core.feed([header + bytes(frame_bytes)], 0.0)
        held = core.budget.held_bytes
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held == streams_count * (STREAM_WINDOW_BYTES // frame_bytes) * frame_bytes <= STREAMS_HELD_BYTES_MAX
    assert after - before < 1.35 * held + 1_000_000 < 2 * STREAMS_HELD_BYTES_MAX


async def test_changed_byte_on_the_wire_ends_the_connection_and_shows_nothing(nursery: trio.Nursery) -> None:
    """Goal: a bad tag, live. Method: a relay that turns one bit of what the dialler says after the first stream stands."""
    world = LoopbackWorld(OWN_LANES)
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    target = port_of(await start(nursery, bob))
    is_evil = False

    async def pump(source: trio.SocketStream, sink: trio.SocketStream, evil: bool) -> None:
        try:
            async for data in source:
                changed = bytes(data[:-1]) + bytes([data[-1] ^ 1]) if evil and is_evil else bytes(data)
                await sink.send_all(changed)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the two has hung up

    async def relay(caller: trio.SocketStream) -> None:
        callee = await trio.open_tcp_stream("127.0.0.1", target)
        async with callee, trio.open_nursery() as pumps:
            pumps.start_soon(pump, caller, callee, True)
            pumps.start_soon(pump, callee, caller, False)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, relay, [listener])
    with trio.fail_after(PATIENCE_S):
        dialled = await alice.dial(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}", bob.peer_id, FENCE)
        accepted = await bob.accept()
        left, right = await open_pair(dialled, accepted)
        is_evil = True
        await left.send(b"never seen")
        with pytest.raises(StreamBroken) as caught:
            await right.receive()
        assert "tampered" in caught.value.message
        await accepted.closed.wait()
        await dialled.closed.wait()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_silent_peer_is_given_up_though_its_kernel_answers(
    is_stopped: bool, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a stopped process is noticed, an idle one is kept. Method: times cut to a hundredth; the acceptor reads, or stands still."""
    monkeypatch.setattr("protocols.yamux.session.PING_IDLE_S", 0.05)
    monkeypatch.setattr("protocols.yamux.session.PING_PATIENCE_S", 0.3)
    read_loop = Muxer.read_loop

    async def stand_or_read(muxer: Muxer) -> None:
        if is_stopped and muxer.core._next_id % 2 == 0:
            await trio.sleep_forever()
        await read_loop(muxer)

    monkeypatch.setattr(Muxer, "read_loop", stand_or_read)
    world = LoopbackWorld(OWN_LANES)
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    dialled = await alice.dial(await start(nursery, bob), bob.peer_id, FENCE)
    with trio.move_on_after(1.5):
        await dialled.closed.wait()
    assert dialled.closed.is_set() == is_stopped


async def test_handler_that_reads_nothing_is_sent_no_more_than_a_first_window(nursery: trio.Nursery) -> None:
    """Goal: no unbounded window. Method: a flood towards a stream that was only negotiated; what has arrived there, and that its
    connection carries others meanwhile."""
    dialled, accepted = await connect_ours(nursery, OWN_LANES)
    left = await dialled.open_stream(PROTOCOL)

    async def flood() -> None:
        while True:
            await left.send(bytes(FRAME_BYTES_MAX))

    nursery.start_soon(flood)
    with trio.fail_after(PATIENCE_S):
        await accepted.accept_stream()
        (core,) = accepted.muxer.core.streams.values()  # type: ignore[union-attr]
        await until(lambda: core.granted_bytes == 0)
        await open_pair(dialled, accepted)
    assert core.incoming.byte_count <= core.window_bytes == STREAM_WINDOW_BYTES
    nursery.cancel_scope.cancel()
