"""The small parts, each alone: doorkeeper, budget, addresses, negotiation, muxer frames, discovery."""

from __future__ import annotations

import ipaddress
import math
import random
import struct
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.yamux.yamux import Yamux
from zeroconf import ServiceInfo

from node.transport.libp2p import ciphers, discovery, negotiate, noise, wire
from node.transport.libp2p.addresses import TcpAddress, concrete, interface_hosts, multiaddr_of, parse
from node.transport.libp2p.budget import RateBudget
from node.transport.libp2p.doorkeeper import HANDSHAKE_TIMEOUT_S, Doorkeeper
from node.transport.libp2p.mux import PROCESS_BUDGET, Muxer, MuxStream
from node.transport.libp2p.stream import END_MARKER, FramedStream
from node.transport.libp2p.transport import Libp2pTransport
from node.transport.port import DialFailed, PresharedKey, StreamBroken, StreamEnded
from protocols.crypto import SessionCipher
from protocols.errors import DecodeError, LocalError, Reason, UsageError
from protocols.frames import frame_header
from protocols.limits import BATCH_BYTES_MAX, BATCH_BYTES_MIN, FRAME_BYTES_MAX
from protocols.types import NetworkId, PeerId
from protocols.yamux.frames import FIN, SYN, Kind, encode_header

from ..manners import FENCE, PROTOCOL, open_pair, start
from .loopback import NETWORK, OWN_LANES, LoopbackWorld, connect_ours, until

PATIENCE_S = 10.0


# --- ciphers ------------------------------------------------------------------------------------------------------
AES, CHACHA = SessionCipher.AES256_GCM, SessionCipher.CHACHA20_POLY1305


@pytest.mark.parametrize("lane", ["own", "stock"])
@pytest.mark.parametrize(
    ("dialling", "listening", "agreed"),
    [
        ((AES, CHACHA), (AES, CHACHA), AES),
        ((AES, CHACHA), (CHACHA,), CHACHA),
        ((CHACHA,), (AES, CHACHA), CHACHA),
        ((CHACHA,), (CHACHA,), CHACHA),
        ((AES,), (CHACHA,), None),
    ],
)
async def test_cipher_is_the_best_that_both_machines_speak(
    lane: str,
    dialling: tuple[SessionCipher, ...],
    listening: tuple[SessionCipher, ...],
    agreed: SessionCipher | None,
    nursery: trio.Nursery,
) -> None:
    """Goal: quick where both are, and always possible. Method: what each speaks; the wire's ids; a frame each way."""
    listen = ["/ip4/127.0.0.1/tcp/0"]
    alice = Libp2pTransport(b"a" * 32, NETWORK, listen, lane=lane, ciphers=dialling)
    bob = Libp2pTransport(b"b" * 32, NETWORK, listen, ciphers=listening)
    await start(nursery, alice)
    address = await start(nursery, bob)
    if agreed is None:
        with pytest.raises(DialFailed) as caught:
            await alice.dial(address, bob.peer_id, FENCE)
        assert caught.value.reason is Reason.UNREACHABLE
        return
    dialled = await alice.dial(address, bob.peer_id, FENCE)
    accepted = await bob.accept()
    assert isinstance(accepted.muxer, Muxer)
    session = accepted.muxer._session
    assert isinstance(session, noise.Session)
    assert session.core._sending.cipher is session.core._receiving.cipher is agreed
    left, right = await open_pair(dialled, accepted)
    await left.send(b"ask")
    assert await right.receive() == b"ask"
    await right.send(b"answer")
    assert await left.receive() == b"answer"


def test_cipher_of_a_machine_that_is_slow_at_aes_is_the_other_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no AES without instructions for it. Method: times as a small board has them, and as a server has."""
    for aes_s, chacha_s, wanted in ((300e-6, 90e-6, (CHACHA,)), (9e-6, 10e-6, (CHACHA,)), (2e-6, 5e-6, (AES, CHACHA))):
        times = {AES: aes_s, CHACHA: chacha_s}
        monkeypatch.setattr(ciphers, "_trial_s", times.__getitem__)
        assert ciphers.ciphers_of_this_machine.__wrapped__() == wanted


# --- doorkeeper ---------------------------------------------------------------------------------------------------
async def _stay(doorkeeper: Doorkeeper, address: str, left: list[str], name: str, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    with doorkeeper.admitted(address):
        task_status.started()
        await trio.sleep(3600)
    left.append(name)


async def test_doorkeeper_when_an_address_is_full_puts_out_its_oldest(nursery: trio.Nursery, autojump_clock: object) -> None:
    """Goal: a flood displaces itself, not others. Method: two places an address; the third caller of a; b stays."""
    doorkeeper, left = Doorkeeper(total_max=10, per_address_max=2), list[str]()
    for address, name in (("b", "b1"), ("a", "a1"), ("a", "a2"), ("a", "a3")):
        await nursery.start(_stay, doorkeeper, address, left, name)
    await trio.testing.wait_all_tasks_blocked()
    assert left == ["a1"]
    assert doorkeeper.visitor_count == 3


async def test_doorkeeper_when_all_is_full_puts_out_the_oldest_and_the_late(nursery: trio.Nursery, autojump_clock: object) -> None:
    """Goal: places are bounded in number and time. Method: three callers for two places; then the time passes."""
    doorkeeper, left = Doorkeeper(total_max=2, per_address_max=2), list[str]()
    for name in ("a", "b", "c"):
        await nursery.start(_stay, doorkeeper, name, left, name)
    await trio.testing.wait_all_tasks_blocked()
    assert left == ["a"]
    await trio.sleep(HANDSHAKE_TIMEOUT_S + 0.1)
    assert sorted(left) == ["a", "b", "c"]
    assert doorkeeper.visitor_count == 0


# --- budget -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rate", "byte_count", "expected_s"), [(1000, 6000, 5.0), (math.inf, 10**12, 0.0), (10, 5, 0.0)])
async def test_budget_when_bytes_are_taken_in_slices_keeps_the_rate(
    rate: float, byte_count: int, expected_s: float, autojump_clock: object
) -> None:
    """Goal: a second's worth at once, then the rate. Method: take many small pieces, look at the clock."""
    budget = RateBudget(rate)
    began = trio.current_time()
    for _ in range(5):
        await budget.take(byte_count // 5)
    await budget.take(0)
    assert trio.current_time() - began == pytest.approx(expected_s, abs=0.01)


async def test_rate_of_one_peer_when_set_bounds_what_is_sent_to_it(nursery: trio.Nursery) -> None:
    """Goal: the hook reaches the wire. Method: 2 MB/s, half a second's worth beyond the first second."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    alice.set_rate(bob.peer_id, 2_000_000)
    dialled = await alice.dial(await start(nursery, bob), bob.peer_id, FENCE)
    accepted = await bob.accept()
    accepted.trust()
    left, right = await open_pair(dialled, accepted)
    began = trio.current_time()

    async def send() -> None:
        for _ in range(12):
            await left.send(bytes(250_000))

    nursery.start_soon(send)
    with trio.fail_after(PATIENCE_S):
        for _ in range(12):
            await right.receive()
    assert 0.3 < trio.current_time() - began < 5


# --- wire ---------------------------------------------------------------------------------------------------------
async def test_write_when_the_peer_takes_nothing_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no writer hangs for ever. Method: a listener that never accepts, 64 MB, the times cut to a hundredth and less."""
    assert (wire.WRITE_TIMEOUT_S, wire.WRITE_RATE_MIN) == (30, 16384)
    monkeypatch.setattr(wire, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(wire, "WRITE_RATE_MIN", 1e9)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        caller = wire.Wire(await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]))
        with trio.fail_after(PATIENCE_S), pytest.raises(StreamBroken):
            await caller.write(bytes(64_000_000))
        await caller.close()


@pytest.mark.parametrize(
    ("pause_s", "batch_bytes", "unsent"), [(0.0, BATCH_BYTES_MAX, BATCH_BYTES_MAX), (0.02, BATCH_BYTES_MIN, 16 * 1024)]
)
async def test_wire_gives_the_kernel_much_on_a_quick_line_and_little_on_a_slow_one(
    autojump_clock: trio.testing.MockClock, pause_s: float, batch_bytes: int, unsent: int
) -> None:
    """Goal: bulk in few turns where the line is quick, small messages that need not wait elsewhere. Method: a reader that takes what comes,
    and one that pauses after each 64 KiB (3 MB/s by the virtual clock); batches as the writer would send them; first on a connection that
    knows nothing, then on one that was quick before."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 64 * 1024)
    async with listener, trio.open_nursery() as nursery:
        caller = wire.Wire(await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]))
        accepted = await listener.accept()

        async def read() -> None:
            while await accepted.receive_some(64 * 1024):  # noqa: ASYNC110  # the pause is what is shown
                await trio.sleep(pause_s)

        nursery.start_soon(read)
        assert caller.batch_bytes == BATCH_BYTES_MIN
        with trio.fail_after(PATIENCE_S):
            sizes = set()
            for _ in range(16):
                await caller.write(bytes(caller.batch_bytes))
                sizes.add(caller.batch_bytes)
            assert sizes == {BATCH_BYTES_MIN, batch_bytes}
            if batch_bytes == BATCH_BYTES_MIN:
                caller._set_quick(is_quick=True)
                for _ in range(2):
                    await caller.write(bytes(BATCH_BYTES_MAX))
                assert caller.batch_bytes == BATCH_BYTES_MIN
        assert caller._stream.socket.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NOTSENT_LOWAT) == unsent
        nursery.cancel_scope.cancel()
        await caller.close()


async def test_line_that_loses_packets_is_given_little_until_much_has_left_it_cleanly(autojump_clock: trio.testing.MockClock) -> None:
    """Goal: large batches only where nothing is sent again. Method: a quick line; what the kernel had sent again by the last look is set to
    another number than it says now, as if a packet had been lost between; batches until the line is quick again."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        caller = wire.Wire(await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1]))
        accepted = await listener.accept()

        async def read() -> None:
            async for _ in accepted:
                pass

        nursery.start_soon(read)
        with trio.fail_after(PATIENCE_S):
            while caller.batch_bytes == BATCH_BYTES_MIN:
                await caller.write(bytes(caller.batch_bytes))
            caller._retransmitted += 1
            await caller.write(bytes(caller.batch_bytes))
            assert caller.batch_bytes == BATCH_BYTES_MIN
            left = 0
            while caller.batch_bytes == BATCH_BYTES_MIN:
                await caller.write(bytes(caller.batch_bytes))
                left += BATCH_BYTES_MIN
            assert left == wire.CLEAN_BYTES
        nursery.cancel_scope.cancel()
        await caller.close()


# --- addresses ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("/ip4/192.0.2.1/tcp/4001", "192.0.2.1", 4001), ("/ip6/fd00::1/tcp/1", "fd00::1", 1), ("/dns4/a.example/tcp/80", "a.example", 80)],
)
def test_address_when_spoken_is_parsed(text: str, host: str, port: int) -> None:
    """Goal: what we write we read. Method: three kinds, with and without a peer behind."""
    peer = noise.Identity.from_seed(b"p" * 32, NETWORK).peer
    assert parse(text) == TcpAddress(host, port)
    assert parse(f"{text}/p2p/{ID(peer).to_base58()}") == TcpAddress(host, port, peer)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "/ip4/1.2.3.4", "/ip4/1.2.3.4/udp/1", "/ip4/999.1.1.1/tcp/1", "/tcp/1/ip4/1.2.3.4", "/ip4/1.2.3.4/tcp/1/ws"]
)
def test_address_when_not_spoken_is_a_usage_error(text: str) -> None:
    """Goal: the door translates. Method: a list of wrong ones."""
    with pytest.raises(UsageError):
        parse(text)


def test_wildcard_when_listened_on_is_reported_as_concrete_addresses() -> None:
    """Goal: nobody is told to dial 0.0.0.0. Method: both wildcards against the interfaces."""
    for wildcard, version in (("0.0.0.0", 4), ("::", 6)):
        assert tuple(concrete(wildcard, 7)) == tuple(multiaddr_of(host, 7) for host in interface_hosts(version))
        assert not any(ipaddress.ip_address(host).is_unspecified for host in interface_hosts(version))
    assert tuple(concrete("127.0.0.1", 7)) == ("/ip4/127.0.0.1/tcp/7",)


async def test_listening_on_all_interfaces_reports_addresses_that_can_be_dialled(nursery: trio.Nursery) -> None:
    """Goal: started value is usable as it is. Method: listen on 0.0.0.0, dial each reported address."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport_at("bob", "/ip4/0.0.0.0/tcp/0")
    await start(nursery, alice)
    bob.set_preshared_keys([FENCE])
    addresses = await nursery.start(bob.run)
    assert addresses == bob.addresses
    assert addresses
    for address in addresses:
        with trio.fail_after(PATIENCE_S):
            assert (await alice.dial(address, bob.peer_id, FENCE)).remote == bob.peer_id


# --- dialling -----------------------------------------------------------------------------------------------------
async def test_dial_of_a_silent_listener_times_out(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: who accepts and says nothing cannot keep us. Method: such a listener; the time cut to 0.2 s."""
    monkeypatch.setattr("node.transport.libp2p.transport.HANDSHAKE_TIMEOUT_S", 0.2)
    alice = LoopbackWorld().transport("alice")
    await start(nursery, alice)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with trio.fail_after(PATIENCE_S), pytest.raises(DialFailed) as caught:
            await alice.dial(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}", None, FENCE)
    assert caught.value.reason is Reason.TIMEOUT


@pytest.mark.parametrize("answer", [b"", b"\x00" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10, negotiate.encode(negotiate.HEADER, "na")])
async def test_dial_of_something_else_is_unreachable(answer: bytes, nursery: trio.Nursery) -> None:
    """Goal: a wrong port is a typed failure. Method: a listener that answers with something else."""
    alice = LoopbackWorld().transport("alice")
    await start(nursery, alice)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(answer)
            await stream.receive_some()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, [listener])
    with trio.fail_after(PATIENCE_S), pytest.raises(DialFailed) as caught:
        await alice.dial(f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}", None, FENCE)
    assert caught.value.reason is Reason.UNREACHABLE


async def test_dial_of_ourselves_is_the_wrong_peer(nursery: trio.Nursery) -> None:
    """Goal: an address list that contains our own does no harm. Method: dial it, expecting nobody in particular."""
    alice = LoopbackWorld().transport("alice")
    address = await start(nursery, alice)
    with trio.fail_after(PATIENCE_S), pytest.raises(DialFailed) as caught:
        await alice.dial(address, None, FENCE)
    assert caught.value.reason is Reason.WRONG_PEER


async def test_dial_before_run_is_unreachable() -> None:
    """Goal: a node that does not run does not dial, as with the memory twin. Method: dial at once."""
    with pytest.raises(DialFailed) as caught:
        await LoopbackWorld().transport("alice").dial("/ip4/127.0.0.1/tcp/1", None, FENCE)
    assert caught.value.reason is Reason.UNREACHABLE


@pytest.mark.slow
async def test_128_keys_when_the_last_one_fits_are_all_tried(nursery: trio.Nursery) -> None:
    """Goal: 64 fences and 64 tickets. Method: the dialler has the last; one more key is refused by us."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    keys = [PresharedKey("fence" if number < 64 else "join", bytes([number]) * 32, bytes([number + 1]) * 32) for number in range(128)]
    address = await start(nursery, bob, *keys)
    with trio.fail_after(PATIENCE_S):
        assert (await alice.dial(address, bob.peer_id, keys[-1])).preshared_key == keys[-1]
        assert (await bob.accept()).preshared_key == keys[-1]
    with pytest.raises(LocalError):
        bob.set_preshared_keys([*keys, FENCE])


async def test_peer_that_connects_over_and_over_loses_its_oldest_connections(nursery: trio.Nursery) -> None:
    """Goal: one peer cannot take all places. Method: six connections of one peer, all held; four stay."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    with trio.fail_after(PATIENCE_S):
        held = [await alice.dial(address, bob.peer_id, FENCE) for _ in range(6)]
        for connection in held[:2]:
            await connection.closed.wait()
        for connection in held[2:]:
            await connection.open_stream(PROTOCOL)


# --- negotiation --------------------------------------------------------------------------------------------------
class _Pipe:
    """One end of an in-memory connection, for our side (exact reads) and for the library's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self, n: int | None = None) -> bytes:
        assert n is not None
        while len(self._buffer) < n:
            data = await self._stream.receive_some()
            if not data:
                raise StreamBroken("end")
            self._buffer += data
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data

    async def write(self, data: bytes) -> None:
        await self._stream.send_all(data)


def pipes() -> tuple[_Pipe, _Pipe]:
    left, right = trio.testing.memory_stream_pair()
    return _Pipe(left), _Pipe(right)


async def test_negotiation_with_the_library_works_both_ways(nursery: trio.Nursery) -> None:
    """Goal: the wire is the standard one. Method: our proposer against its responder, its proposer against ours."""
    protocol: Any = "/lading/x/1"
    left, right = pipes()
    nursery.start_soon(Multiselect({protocol: None}).negotiate, MultiselectCommunicator(right))
    with trio.fail_after(PATIENCE_S):
        assert await negotiate.propose(left, protocol)
    left, right = pipes()
    nursery.start_soon(negotiate.respond, right, lambda proposed: proposed == protocol)
    with trio.fail_after(PATIENCE_S):
        assert await MultiselectClient().select_one_of(["/other/1", protocol], MultiselectCommunicator(left)) == protocol


# --- muxer --------------------------------------------------------------------------------------------------------
class _NoSession:
    """A muxer under test is fed by hand."""

    def trust(self) -> None:
        """Nothing here has a buffer."""


def make_muxer(*, initiator: bool = False) -> tuple[Muxer, list[MuxStream]]:
    opened: list[MuxStream] = []
    session: Any = _NoSession()
    muxer = Muxer(session, initiator=initiator, opened=opened.append, budget=RateBudget())
    muxer.trust()
    return muxer, opened


async def test_muxer_with_the_library_s_carries_data_both_ways(nursery: trio.Nursery) -> None:
    """Goal: the frames are Yamux. Method: our muxer and the stock one over one memory pipe; 2 MB there and back, half-closed, equal."""
    left, right = pipes()

    class Session:
        """Ours reads what is there."""

        batch_bytes = BATCH_BYTES_MIN

        async def receive(self) -> tuple[bytes, ...]:
            return (await left.read(1) if left._buffer else await _receive(left),)

        async def send(self, pieces: Any) -> None:
            await left.write(b"".join(pieces))

        def tick(self, now_s: float) -> None:
            """Nothing here takes time."""

        def trust(self) -> None:
            """Nothing here has a buffer."""

    stock_connection: Any = right
    stock_connection.is_initiator = False
    session: Any = Session()
    ours = Muxer(session, initiator=True, opened=lambda stream: None, budget=RateBudget())
    theirs = Yamux(stock_connection, ID(b"x"), is_initiator=False)
    for task in (ours.read_loop, ours.write_loop, theirs.start):
        nursery.start_soon(task)
    payload = bytes(range(256)) * 8000

    async def echo() -> None:
        stream = await theirs.accept_stream()
        got = b""
        while len(got) < len(payload):
            got += await stream.read(65536)
        await stream.write(got)
        await stream.close()

    nursery.start_soon(echo)
    with trio.fail_after(PATIENCE_S):
        stream = ours.open()
        stream.put(payload)
        stream.finish()
        got = b""
        while piece := await stream.receive_some():
            got += piece
    assert got == payload
    nursery.cancel_scope.cancel()


async def _receive(pipe: _Pipe) -> bytes:
    data = bytes(await pipe._stream.receive_some())
    if not data:
        raise StreamBroken("end")
    return data


@pytest.mark.slow
async def test_streams_when_handled_roughly_leave_nothing_and_lie_never(nursery: trio.Nursery) -> None:
    """Goal: no order of cancelled, reset, finished and half-read streams confuses the muxer. Method: 600 seeded rough conversations, 40
    at a time, frames numbered; every frame read is the next one sent, an end is only seen after all of them; then no stream is left."""
    before = (PROCESS_BUDGET.grown_bytes, PROCESS_BUDGET.held_bytes)
    dialled, accepted = await connect_ours(nursery, OWN_LANES)
    chance = random.Random(7)
    limiter = trio.Semaphore(40)
    ends = {"finished": 0, "broken": 0}

    async def echo_roughly(stream: Any) -> None:
        expected = 0
        try:
            while True:
                frame_in = await stream.receive()
                assert frame_in[:4] == expected.to_bytes(4, "big")
                expected += 1
                if chance.random() < 0.02:
                    stream.reset()
        except StreamEnded:
            ends["finished"] += 1
            with suppress(StreamBroken):
                await stream.send(expected.to_bytes(4, "big"))
                await stream.finish()
        except StreamBroken:
            ends["broken"] += 1

    async def serve() -> None:
        while True:
            nursery.start_soon(echo_roughly, await accepted.accept_stream())

    async def converse() -> None:
        async with limiter:
            with suppress(StreamBroken), trio.move_on_after(chance.choice([0.001, 0.01, 5])):
                stream = await dialled.open_stream(PROTOCOL)
                count = chance.randrange(20)
                try:
                    for number in range(count):
                        await stream.send(number.to_bytes(4, "big") + bytes(chance.randrange(30_000)))
                    await stream.finish()
                    assert await stream.receive() == count.to_bytes(4, "big")
                    with pytest.raises(StreamEnded):
                        await stream.receive()
                finally:
                    stream.reset()

    nursery.start_soon(serve)
    with trio.fail_after(30):
        async with trio.open_nursery() as talkers:
            for _ in range(600):
                talkers.start_soon(converse)
        await until(lambda: dialled.muxer.stream_count == accepted.muxer.stream_count == 0)
    assert min(ends.values()) > 20
    for muxer in (dialled.muxer, accepted.muxer):
        assert (muxer.core.budget.grown_bytes, muxer.core.budget.held_bytes) == (0, 0)
    assert (PROCESS_BUDGET.grown_bytes, PROCESS_BUDGET.held_bytes) == before


# --- frames and their end -----------------------------------------------------------------------------------------
async def framed(wire: bytes, *, flags: int = 0) -> FramedStream:
    muxer, opened = make_muxer()
    muxer._carry_out(muxer.core.feed([encode_header(Kind.DATA, SYN | flags, 1, len(wire)) + wire], 0.0))
    return FramedStream(opened[0], PROTOCOL)


async def test_stream_when_marked_ends_and_stays_ended() -> None:
    """Goal: the end marker is an end between frames. Method: one frame, marker, FIN."""
    stream = await framed(frame_header(2) + b"ab" + END_MARKER, flags=FIN)
    assert await stream.receive() == b"ab"
    for _ in range(2):
        with pytest.raises(StreamEnded):
            await stream.receive()


async def test_stream_when_finished_twice_or_cancelled_is_finished_once(nursery: trio.Nursery) -> None:
    """Goal: finishing can be retried. Method: the peer reads nothing, so finish is cancelled; finish again; read one end."""
    dialled, accepted = await connect_ours(nursery, OWN_LANES)
    left, right = await open_pair(dialled, accepted)
    await left.send(bytes(FRAME_BYTES_MAX))
    with trio.move_on_after(0.05) as scope:
        await left.finish()
    assert scope.cancelled_caught
    with pytest.raises(StreamBroken):
        await left.send(b"more")
    with trio.fail_after(PATIENCE_S):
        nursery.start_soon(left.finish)
        assert await right.receive() == bytes(FRAME_BYTES_MAX)
        for _ in range(2):
            with pytest.raises(StreamEnded):
                await right.receive()


@pytest.mark.parametrize("wire", [b"", b"\x00", frame_header(2) + b"a", END_MARKER[:3]])
async def test_stream_when_it_ends_without_marker_is_broken(wire: bytes) -> None:
    """Goal: only the marker is an end. Method: FIN after nothing, half a header, half a body, half a marker."""
    stream = await framed(wire, flags=FIN)
    with pytest.raises(StreamBroken):
        await stream.receive()


async def test_frame_when_too_long_is_refused_from_its_header() -> None:
    """Goal: nobody makes us wait for a body we will not hold; nor do we send one. Method: one byte too many, both ways."""
    stream = await framed(struct.pack("!I", FRAME_BYTES_MAX + 1))
    with pytest.raises(DecodeError) as caught:
        await stream.receive()
    assert caught.value.reason is Reason.TOO_LONG
    with pytest.raises(StreamBroken):
        await stream.send(b"more")
    with pytest.raises(LocalError):
        await stream.send(bytes(FRAME_BYTES_MAX + 1))


# --- discovery ----------------------------------------------------------------------------------------------------
OWN = noise.Identity.from_seed(b"a" * 32, NETWORK).peer
OTHER = noise.Identity.from_seed(b"b" * 32, NETWORK).peer
NONSENSE = ServiceInfo(discovery.SERVICE_TYPE, f"x.{discovery.SERVICE_TYPE}", properties={"peer": b"\xff"})


def test_announcement_when_of_our_network_is_understood_and_tells_no_network_id() -> None:
    """Goal: what is shouted. Method: read our own announcement as another node would."""
    service = discovery.service_of(NETWORK, OTHER, 4001, ("192.0.2.7", "fd00::7"))
    expected = discovery.Sighting(OTHER, ("/ip4/192.0.2.7/tcp/4001", "/ip6/fd00::7/tcp/4001"))
    assert discovery.read_service_untrusted(service, NETWORK, OWN) == expected
    assert NETWORK.hex() not in str(service)
    assert bytes(NETWORK) not in service.text


@pytest.mark.parametrize(
    "service",
    [
        pytest.param(discovery.service_of(NETWORK, OWN, 4001, ("192.0.2.7",)), id="ourselves"),
        pytest.param(discovery.service_of(NetworkId(b"o" * 32), OTHER, 4001, ("192.0.2.7",)), id="another network"),
        pytest.param(discovery.service_of(NETWORK, PeerId(b"short"), 4001, ("192.0.2.7",)), id="no peer id"),
        pytest.param(discovery.service_of(NETWORK, OTHER, 0, ("192.0.2.7",)), id="no port"),
        pytest.param(NONSENSE, id="nonsense"),
    ],
)
def test_announcement_when_not_for_us_is_ignored(service: Any) -> None:
    """Goal: anybody may shout. Method: one of each."""
    assert discovery.read_service_untrusted(service, NETWORK, OWN) is None


@pytest.mark.slow
async def test_discovery_when_two_nodes_are_on_one_network_finds_them_and_stops_clean(nursery: trio.Nursery) -> None:
    """Goal: nodes find each other without being told. Method: two at once over the real interfaces."""
    seen = {}
    with trio.fail_after(20):
        async with trio.open_nursery() as shouting:
            for own, port in ((OWN, 4001), (OTHER, 4002)):
                put, take = trio.open_memory_channel[discovery.Sighting](16)
                shouting.start_soon(discovery.discover, NETWORK, own, port, put)
                seen[own] = take
            assert (await seen[OWN].receive()).peer == OTHER
            assert (await seen[OTHER].receive()).peer == OWN
            shouting.cancel_scope.cancel()


async def test_discovery_when_the_interfaces_change_starts_anew(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a plugged cable is noticed. Method: a radio that only notes what it is tuned to; it fails once, then they change twice."""
    tuned: list[tuple[str, ...]] = []
    done = trio.Event()
    answers = [("192.0.2.1",), ("192.0.2.1",), ("192.0.2.1", "198.51.100.1"), ("198.51.100.1",)]

    class Radio:
        def __init__(self, *_: object) -> None:
            self.is_on = False

        def start(self, hosts: tuple[str, ...]) -> None:
            assert not self.is_on
            self.is_on = True
            tuned.append(hosts)
            if len(tuned) == 1:
                raise OSError("no multicast here yet")

        def stop(self) -> None:
            self.is_on = False

    def hosts(version: int) -> tuple[str, ...]:
        if version == 6:
            return ()
        if len(answers) == 1:
            done.set()
            return answers[0]
        return answers.pop(0)

    monkeypatch.setattr(discovery, "_Radio", Radio)
    monkeypatch.setattr(discovery, "interface_hosts", hosts)
    monkeypatch.setattr(discovery, "INTERFACES_CHECK_S", 0.01)
    put, _take = trio.open_memory_channel[discovery.Sighting](1)
    nursery.start_soon(discovery.discover, NETWORK, OWN, 1, put)
    with trio.fail_after(PATIENCE_S):
        await done.wait()
        await trio.sleep(0.05)
    assert tuned == [("192.0.2.1",), ("192.0.2.1",), ("192.0.2.1", "198.51.100.1"), ("198.51.100.1",)]
    nursery.cancel_scope.cancel()


def test_version_when_another_is_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no update slips in. Method: reload the module with another version reported."""
    import importlib
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.8.2")
    spec = importlib.util.find_spec("node.transport.libp2p.library")
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r"0\.8\.1"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_secrets_are_in_no_description() -> None:
    """Goal: keys never reach a log. Method: print what holds them."""
    seed = b"s" * 32
    transport = Libp2pTransport(seed, NETWORK, [], keys=[FENCE])
    shown = f"{transport.identity!r} {FENCE!r} {transport!r}"
    assert seed.hex() not in shown
    assert repr(seed) not in shown
    assert FENCE.secret.hex() not in shown
    assert repr(FENCE.secret) not in shown


def test_start_of_a_node_leaves_out_what_the_library_imports_for_others() -> None:
    """Goal: starting costs what is used. Method: in a process of its own, import the transport and look at what came along; then ask the
    library for a name that we never use, which must be there, with its package as it would have been."""
    script = """
import logging, sys
import node.transport.libp2p.transport
unused = ("libp2p.host", "libp2p.kad_dht", "libp2p.relay", "libp2p.transport.websocket", "dns", "requests", "httpx", "zeroconf")
assert not [name for name in unused if name in sys.modules]
assert logging.getLogger("libp2p.security").getEffectiveLevel() == logging.WARNING
from node.transport.libp2p.noise import PatternXX, _FencedPattern
import libp2p, types
before = libp2p.peer.id.ID
from libp2p import BasicHost, new_host
assert libp2p.security.__all__ and libp2p.transport.__all__
assert callable(new_host) and "libp2p.host.basic_host" in sys.modules
assert type(libp2p) is type(libp2p.security) is type(libp2p.transport) is types.ModuleType
assert libp2p.__version__ == node.transport.libp2p.library.LIBP2P_VERSION
assert libp2p.ID is before and libp2p.peer.id.ID is before
assert issubclass(_FencedPattern, libp2p.security.noise.patterns.PatternXX) and new_host() is not None
try:
    libp2p.nothing_of_this_name
except AttributeError:
    print("as it is")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "as it is\n"), ran.stderr
