"""One test per way in which the stock library's host fails; each shows the failure there, then its absence here.

A library update that cures a defect makes the first half fail, and says so: then the reason for our own code is gone.
"""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import Ed25519PrivateKey, create_new_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr

from node.transport.libp2p import negotiate, noise, wire
from node.transport.libp2p.doorkeeper import HANDSHAKE_TIMEOUT_S, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX
from node.transport.libp2p.mux import MUXER_PROTOCOL, Muxer
from node.transport.port import DialFailed, StreamBroken
from protocols.errors import LadingError, Reason
from protocols.limits import FRAME_BYTES_MAX

from ..manners import FENCE, OTHER_FENCE, PROTOCOL, connect, open_pair, start
from .loopback import NETWORK, OWN_LANES, LoopbackWorld, connect_ours, deafen, needs_deafening, port_of, rested, settled, until
from .stock import PROTOCOL as STOCK_PROTOCOL
from .stock import few_connections, one_address, stock_connect, stock_host

PATIENCE_S = 10.0
NOT_UTF8 = b"\x04\xff\xfe\xfd\n"
HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % (b"x" * 80)


@pytest.fixture
def world() -> LoopbackWorld:
    return LoopbackWorld()


# --- reconnects -----------------------------------------------------------------------------------------------
async def test_reconnects_to_a_stock_host_end_at_its_limit_though_nobody_is_connected() -> None:
    """Goal: show the defect. Method: a host for 8 inbound connections (the default is 250) is dialled one after the other."""
    async with stock_host(b"server", connection_config=few_connections(8)) as server:
        reached = 0
        with trio.move_on_after(PATIENCE_S):
            for number in range(12):
                async with stock_host(b"client%d" % number, listen=None) as client:
                    try:
                        muxed = await stock_connect(client, server)
                        await (await client.new_stream(server.get_id(), ["/ipfs/ping/1.0.0"])).reset()
                    except Exception:  # whichever of its classes it is today
                        break
                    reached += 1
                    await muxed.close()
        assert reached <= 9


@pytest.mark.slow
async def test_reconnects_when_there_are_1000_all_work_and_nothing_is_left(world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: a server lives on. Method: 1,000 connections one after the other, each used; tasks and files as before."""
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    before = await settled()
    for _ in range(1000):
        with trio.fail_after(PATIENCE_S):
            dialled = await alice.dial(address, bob.peer_id, FENCE)
            accepted = await bob.accept()
            await open_pair(dialled, accepted)
            await dialled.close()
            await accepted.closed.wait()
    with trio.fail_after(PATIENCE_S):
        await rested(before)
    assert alice.connections == bob.connections == ()


# --- a stream that talks nonsense ---------------------------------------------------------------------------------
async def test_invalid_utf8_on_a_stream_kills_a_stock_host() -> None:
    """Goal: show the defect. Method: five bytes on a fresh stream; the host's run ends with an exception."""

    async def attack() -> None:
        async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
            stream = await (await stock_connect(client, server)).open_stream()
            await stream.write(negotiate.encode(negotiate.HEADER) + NOT_UTF8)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(PATIENCE_S):
        await attack()
    assert caught.group_contains(UnicodeDecodeError)


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(negotiate.encode(negotiate.HEADER) + NOT_UTF8, id="not UTF-8"),
        pytest.param(NOT_UTF8, id="no header"),
        pytest.param(b"\xff\xff\xff\xff\xff", id="endless length"),
        pytest.param(b"\x00", id="empty message"),
        pytest.param(negotiate.encode(negotiate.HEADER, *["/other/1"] * 20), id="only foreign protocols"),
    ],
)
async def test_nonsense_on_a_stream_costs_only_that_stream(nonsense: bytes, nursery: trio.Nursery) -> None:
    """Goal: no peer can end us. Method: raw bytes on a raw stream; the stream is reset, the next one works."""
    dialled, accepted = await connect_ours(nursery)
    stream = await dialled.muxer.open_stream()
    with trio.fail_after(PATIENCE_S):
        await stream.write(nonsense)
        with pytest.raises(StreamBroken):
            await stream.read(10_000)
        await open_pair(dialled, accepted)


@pytest.mark.parametrize(
    "nonsense", [NOT_UTF8, negotiate.encode(negotiate.HEADER) + NOT_UTF8, b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % bytes(80), bytes(70000)]
)
async def test_nonsense_on_a_socket_costs_only_that_socket(nonsense: bytes, world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: no stranger can end us. Method: raw bytes to the port; it hangs up, and a node gets in."""
    bob = world.transport("bob")
    address = await start(nursery, bob)
    with trio.fail_after(PATIENCE_S):
        caller = await trio.open_tcp_stream("127.0.0.1", port_of(address))
        try:
            await caller.send_all(nonsense)
            while await caller.receive_some():
                pass
        except trio.BrokenResourceError:
            pass  # it hung up before it had read everything
        alice = world.transport("alice")
        await start(nursery, alice)
        await alice.dial(address, bob.peer_id, FENCE)


# --- a handler that raises ----------------------------------------------------------------------------------------
async def test_raising_handler_kills_a_stock_host() -> None:
    """Goal: show the defect. Method: a stream handler with a bug, one stream."""

    async def handler(stream: Any) -> None:
        raise ValueError("a bug in one conversation")

    async def use() -> None:
        async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
            server.set_stream_handler(STOCK_PROTOCOL, handler)
            await stock_connect(client, server)
            await client.new_stream(server.get_id(), [STOCK_PROTOCOL])
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(PATIENCE_S):
        await use()
    assert caught.group_contains(ValueError)


async def test_raising_conversation_leaves_connection_and_transport_alone(nursery: trio.Nursery) -> None:
    """Goal: here a conversation is a task of its owner, nothing of the transport's waits on it. Method: it raises, the next works."""
    dialled, accepted = await connect_ours(nursery)

    async def converse() -> None:
        await (await accepted.accept_stream()).receive()
        raise ValueError("a bug in one conversation")

    with trio.fail_after(PATIENCE_S):
        opened = await dialled.open_stream(PROTOCOL)
        await opened.send(b"hello")
        with pytest.raises(ValueError, match="a bug"):
            await converse()
        await open_pair(dialled, accepted)
    assert not dialled.closed.is_set()


# --- a write that is cancelled ------------------------------------------------------------------------------------
async def test_cancelled_write_under_back_pressure_breaks_a_stock_connection() -> None:
    """Goal: show the defect. Method: the peer's kernel takes nothing, writes are cancelled; then the same connection is used."""
    is_alive = False
    with suppress(ExceptionGroup):
        async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
            muxed = await stock_connect(client, server)
            (other,) = server.get_network().connections[client.get_id()]
            muxed.secured_conn.conn.read_writer.read_write_closer.stream.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            streams = [await muxed.open_stream() for _ in range(24)]
            async with other.muxed_conn.streams_lock:  # its read loop takes it for every frame
                with trio.move_on_after(0.5) as scope:
                    async with trio.open_nursery() as writers:
                        for stream in streams:
                            writers.start_soon(stream.write, bytes(250_000))
            assert scope.cancelled_caught
            with suppress(Exception), trio.move_on_after(2):
                fresh = await muxed.open_stream()
                await fresh.write(negotiate.encode(negotiate.HEADER))
                is_alive = await fresh.read(1) == negotiate.encode(negotiate.HEADER)[:1]
    assert not is_alive


async def test_cancelled_send_under_back_pressure_leaves_the_connection_whole(nursery: trio.Nursery) -> None:
    """Goal: cancelling is always safe. Method: three floods are cancelled while the socket is full, then new streams work, often."""
    dialled, accepted = await connect_ours(nursery)
    for _ in range(3):
        left, _right = await open_pair(dialled, accepted)

        async def flood(stream: Any = left) -> None:
            while True:
                await stream.send(bytes(FRAME_BYTES_MAX))

        with trio.move_on_after(0.1) as scope:
            await flood()
        assert scope.cancelled_caught
        with trio.fail_after(PATIENCE_S):
            await open_pair(dialled, accepted)
    assert not dialled.closed.is_set()


# --- bulk both ways and requests ----------------------------------------------------------------------------------
REQUEST_LOOPS = 8
BULK_S = 2.0


async def test_two_way_bulk_and_requests_stop_for_good_on_a_stock_connection() -> None:
    """Goal: show the defect: the read loop answers, waits for the writer, that for the peer's read loop. Method: the same load."""
    progress = 0

    async def take_bulk(stream: Any) -> None:
        nonlocal progress
        while True:
            progress += len(await stream.read(65536))

    async def answer(stream: Any) -> None:
        await stream.write(await stream.read(8))
        await stream.close()

    async def give_bulk(host: Any, peer: Any) -> None:
        stream = await host.new_stream(peer, ["/bulk/1"])
        while True:
            await stream.write(bytes(256 * 1024))

    async def ask(host: Any, peer: Any) -> None:
        nonlocal progress
        while True:
            stream = await host.new_stream(peer, ["/ask/1"])
            await stream.write(b"question")
            progress += len(await stream.read(8))
            await stream.close()

    counts = []
    with suppress(ExceptionGroup):
        async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
            await stock_connect(client, server)
            for host in (server, client):
                host.set_stream_handler("/bulk/1", take_bulk)
                host.set_stream_handler("/ask/1", answer)
            async with trio.open_nursery() as tasks:
                for host, peer in ((server, client.get_id()), (client, server.get_id())):
                    tasks.start_soon(give_bulk, host, peer)
                    for _ in range(REQUEST_LOOPS):
                        tasks.start_soon(ask, host, peer)
                for _ in range(2):
                    await trio.sleep(BULK_S / 2)
                    counts.append(progress)
                tasks.cancel_scope.cancel()
    assert counts[0] == counts[1]


@pytest.mark.slow
async def test_two_way_bulk_and_requests_go_on_and_on(nursery: trio.Nursery) -> None:
    """Goal: no lock-up. Method: one bulk stream and eight loops of short streams each way for two seconds; all make progress to the end."""
    left, right = await connect_ours(nursery, OWN_LANES)
    bulk = {left: 0, right: 0}
    requests = {left: 0, right: 0}

    async def send_bulk(connection: Any) -> None:
        stream = await connection.open_stream("/lading/bulk/1")
        while True:
            await stream.send(bytes(256 * 1024))

    async def ask(connection: Any) -> None:
        while True:
            stream = await connection.open_stream("/lading/ask/1")
            await stream.send(b"question")
            assert await stream.receive() == b"question"
            await stream.finish()
            requests[connection] += 1

    async def answer(connection: Any, stream: Any) -> None:
        try:
            await answer_whole(connection, stream)
        except StreamBroken:
            assert scope.cancel_called, "only the end of the test breaks a stream"

    async def answer_whole(connection: Any, stream: Any) -> None:
        if stream.protocol == "/lading/ask/1":
            await stream.send(await stream.receive())
            await stream.finish()
            return
        while True:
            bulk[connection] += len(await stream.receive())

    async def serve(connection: Any, tasks: trio.Nursery) -> None:
        while True:
            tasks.start_soon(answer, connection, await connection.accept_stream())

    half: tuple[int, ...] = ()
    with trio.move_on_after(BULK_S) as scope:
        async with trio.open_nursery() as tasks:
            for connection in (left, right):
                tasks.start_soon(serve, connection, tasks)
                tasks.start_soon(send_bulk, connection)
                for _ in range(REQUEST_LOOPS):
                    tasks.start_soon(ask, connection)
            await trio.sleep(BULK_S / 2)
            half = (*bulk.values(), *requests.values())
            await trio.sleep(BULK_S)
    whole = (*bulk.values(), *requests.values())
    assert all(after > before > 0 for before, after in zip(half, whole, strict=True))
    with trio.fail_after(PATIENCE_S):
        await left.open_stream(PROTOCOL)


# --- a plaintext impostor -----------------------------------------------------------------------------------------
async def test_plaintext_impostor_is_taken_for_the_victim_by_a_stock_host() -> None:
    """Goal: show the defect. Method: an attacker that knows only the victim's public key offers plaintext."""
    victim = create_new_key_pair(b"victim".ljust(32, b"."))

    class PublicHalf(Ed25519PrivateKey):  # type: ignore[misc]
        """A key of the attacker's that shows the victim's public half."""

        def get_public_key(self) -> Any:
            return victim.public_key

    attacker = InsecureTransport(type(victim)(PublicHalf.new(), victim.public_key))
    async with (
        stock_host(b"server") as server,
        stock_host(b"attacker", listen=None, sec_opt={PLAINTEXT_PROTOCOL_ID: attacker}) as client,
    ):
        with trio.fail_after(PATIENCE_S):
            await client.connect(PeerInfo(server.get_id(), [one_address(server)]))
            await until(lambda: bool(server.get_connected_peers()))
        assert ID.from_pubkey(victim.public_key) in server.get_connected_peers()


async def test_plaintext_and_every_other_security_is_refused_before_anything_is_said(world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: one way in. Method: propose the library's ids; each is refused, and no byte of ours is in the answers."""
    bob = world.transport("bob")
    address = await start(nursery, bob)
    for protocol in (PLAINTEXT_PROTOCOL_ID, "/noise", "/tls/1.0.0", "/secio/1.0.0", "/lading/noise/1/0000000000000000"):
        with trio.fail_after(PATIENCE_S):
            caller = wire.Wire(await trio.open_tcp_stream("127.0.0.1", port_of(address)))
            assert not await negotiate.propose(caller, protocol)
            await caller.close()


# --- addresses ----------------------------------------------------------------------------------------------------
async def test_dead_first_address_makes_a_stock_connect_fail(world: LoopbackWorld) -> None:
    """Goal: show the defect. Method: [dead, good]."""
    async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
        is_reached = False
        with suppress(Exception), trio.move_on_after(PATIENCE_S):
            await client.connect(PeerInfo(server.get_id(), [Multiaddr(world.nowhere()), one_address(server)]))
            is_reached = True
        assert not is_reached


async def test_dead_first_address_is_one_quick_failure_and_the_next_dial_works(world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: the owner tries all addresses. Method: dial dead, then good; nothing is remembered against the peer."""
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    with trio.fail_after(1):
        with pytest.raises(DialFailed) as caught:
            await alice.dial(world.nowhere(), bob.peer_id, FENCE)
        assert caught.value.reason is Reason.UNREACHABLE
        await alice.dial(address, bob.peer_id, FENCE)


async def test_occupied_port_is_not_reported_by_a_stock_host() -> None:
    """Goal: show the defect. Method: a foreign listener holds the port; the host runs without an address."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = Multiaddr(f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}")
        async with stock_host(b"server", listen=taken) as server:
            assert server.get_transport_addrs() == []


@pytest.mark.parametrize("is_shared", [False, True], ids=["held", "shared by SO_REUSEPORT"])
async def test_occupied_port_is_an_error_that_names_it(is_shared: bool, world: LoopbackWorld) -> None:
    """Goal: two nodes never share a port in silence. Method: a listener holds it, with or without offering to share."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=is_shared) as holder:
        address = f"/ip4/127.0.0.1/tcp/{holder.getsockname()[1]}"
        with pytest.raises(LadingError) as caught, trio.fail_after(PATIENCE_S):
            await world.transport_at("bob", address).run()
    assert caught.value.reason is Reason.FAILED
    assert address in str(caught.value)


# --- a peer that vanishes -----------------------------------------------------------------------------------------
async def test_partition_is_not_noticed_by_a_stock_host() -> None:
    """Goal: show the defect. Method: no option that would notice is set on its sockets (the kernel's own patience is 16 minutes)."""
    async with stock_host(b"server") as server, stock_host(b"client", listen=None) as client:
        muxed = await stock_connect(client, server)
        sock = muxed.secured_conn.conn.read_writer.read_write_closer.stream.stream.socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


@needs_deafening
@pytest.mark.slow
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "sending"])
async def test_partition_is_noticed_within_the_keepalive_time_on_both_sides(
    is_busy: bool, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a pulled cable ends the connection. Method: both kernels drop what arrives; times cut from 15 s to 3 s."""
    assert wire.VANISHED_AFTER_S == 15
    for name, seconds in (("VANISHED_AFTER_S", 3), ("KEEPALIVE_IDLE_S", 1), ("KEEPALIVE_INTERVAL_S", 1)):
        monkeypatch.setattr(wire, name, seconds)
    dialled, accepted = await connect_ours(nursery)
    left, right = await open_pair(dialled, accepted)
    began = trio.current_time()
    for connection in (dialled, accepted):
        sock = connection._wire._stream.socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
    deafen(dialled._wire._stream.socket)
    deafen(accepted._wire._stream.socket)
    if is_busy:
        await left.send(bytes(1000))
        await right.send(bytes(1000))
    with trio.fail_after(8):
        await dialled.closed.wait()
        await accepted.closed.wait()
        with pytest.raises(StreamBroken):
            await left.receive()
    assert trio.current_time() - began > 1, "it was the time-out, not something else"


async def test_vanished_process_never_looks_like_a_finished_stream(world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: an end without the end marker is a break. Method: the kernel closes the peer's socket between two frames, as at a kill."""
    dialled, accepted = await connect(nursery, world)
    left, right = await open_pair(dialled, accepted)
    await left.send(b"whole")
    await left.flush()
    with trio.fail_after(PATIENCE_S):
        assert await right.receive() == b"whole"
        await trio.aclose_forcefully(dialled._wire._stream)  # type: ignore[attr-defined]
        with pytest.raises(StreamBroken):
            await right.receive()


async def test_stream_that_ends_without_marker_is_broken(nursery: trio.Nursery) -> None:
    """Goal: even a muxer's orderly end is no end of a conversation. Method: finish the raw stream behind one frame."""
    dialled, accepted = await connect_ours(nursery)
    left, right = await open_pair(dialled, accepted)
    await left.send(b"whole")
    left._stream.finish()  # type: ignore[attr-defined]
    with trio.fail_after(PATIENCE_S):
        assert await right.receive() == b"whole"
        with pytest.raises(StreamBroken):
            await right.receive()


# --- the end ------------------------------------------------------------------------------------------------------
async def test_close_of_a_stock_host_takes_its_time_for_every_peer() -> None:
    """Goal: show the defect. Method: five peers; 0.2 s each, one after the other."""
    took_s = 0.0
    with suppress(ExceptionGroup):  # some of its clients do not survive the end of their server
        async with stock_host(b"server") as server, AsyncExitStack() as clients:
            with trio.fail_after(PATIENCE_S):
                for number in range(5):
                    client = await clients.enter_async_context(stock_host(b"client%d" % number, listen=None))
                    await client.connect(PeerInfo(server.get_id(), [one_address(server)]))
                await until(lambda: len(server.get_connected_peers()) == 5)
                began = trio.current_time()
                await server.close()
                took_s = trio.current_time() - began
    assert took_s > 0.5


@pytest.mark.slow
async def test_stop_with_40_peers_takes_under_a_second_and_leaves_nothing() -> None:
    """Goal: a node stops when told. Method: a hub with 40 connections, each with a stuck stream and last words on another; cancel. (The
    library's muxers need a little longer than that.)"""
    world = LoopbackWorld(OWN_LANES)
    before = await settled()
    async with trio.open_nursery() as spokes:
        hub = world.transport("hub")
        hub_scope = trio.CancelScope()
        address = await spokes.start(_run_in, hub, hub_scope)
        pairs: list[tuple[Any, Any]] = []
        for number in range(40):
            spoke = world.transport(f"spoke{number}")
            await start(spokes, spoke)
            with trio.fail_after(PATIENCE_S):
                dialled = await spoke.dial(address, hub.peer_id, FENCE)
                accepted = await hub.accept()
                dialled.trust()
                accepted.trust()
                heard, said = await open_pair(dialled, accepted)
                stuck, _ = await open_pair(accepted, dialled)
                await stuck.send(bytes(FRAME_BYTES_MAX))
            pairs.append((heard, said))
        connections = hub.connections
        began = trio.current_time()
        for _, said in pairs:
            await said.send(b"last words")
        hub_scope.cancel()
        with trio.fail_after(PATIENCE_S):
            for heard, _ in pairs:
                assert await heard.receive() == b"last words"
                with pytest.raises(StreamBroken):
                    await heard.receive()
            for connection in connections:
                await connection.closed.wait()
        assert hub.connections == ()
        assert trio.current_time() - began < 1
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", port_of(address))
        spokes.cancel_scope.cancel()
    with trio.fail_after(PATIENCE_S):
        await rested(before)


async def _run_in(transport: Any, scope: trio.CancelScope, *, task_status: Any) -> None:
    transport.set_preshared_keys((FENCE,))
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(_run_until_cancelled, transport, scope)
        task_status.started(addresses[0])


async def _run_until_cancelled(transport: Any, scope: trio.CancelScope, *, task_status: Any) -> None:
    with scope:
        await transport.run(task_status=task_status)


# --- the fence ----------------------------------------------------------------------------------------------------
async def test_stranger_is_refused_at_the_first_message_and_learns_nothing(world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: the fence. Method: first messages under another key, of the plain XX's size, of nonsense: not one byte comes back."""
    bob = world.transport("bob")
    address = await start(nursery, bob)
    pattern = noise._FencedPattern(noise.Identity.from_seed(b"m" * 32, NETWORK), OTHER_FENCE.secret)
    state = pattern.create_noise_state(pattern.prologue)
    state.set_as_initiator()
    state.start_handshake()
    for first in (bytes(state.write_message()), bytes(range(32)), bytes(range(48)), b""):
        with trio.fail_after(PATIENCE_S):
            caller = wire.Wire(await trio.open_tcp_stream("127.0.0.1", port_of(address)))
            assert await negotiate.propose(caller, noise.security_protocol(NETWORK))
            await caller.write(len(first).to_bytes(2, "big") + first)
            with pytest.raises(StreamBroken):
                await caller.read(1)
            await caller.close()


async def test_fence_of_another_network_does_not_fit_even_with_the_same_secret(nursery: trio.Nursery) -> None:
    """Goal: the network id is part of the handshake, beyond the shortened id it is negotiated by. Method: ids that differ at the end."""
    far = noise.Identity.from_seed(b"f" * 32, type(NETWORK)(NETWORK[:-1] + b"x"))
    near = noise.Identity.from_seed(b"n" * 32, NETWORK)
    assert noise.security_protocol(far.network) == noise.security_protocol(near.network)
    pattern = noise._FencedPattern(far, FENCE.secret)
    state = pattern.create_noise_state(pattern.prologue)
    state.set_as_initiator()
    state.start_handshake()
    assert not noise._FencedPattern(near, FENCE.secret).is_opener(bytes(state.write_message()))


# --- silent callers -----------------------------------------------------------------------------------------------
async def test_silent_callers_lock_everybody_out_of_a_stock_host() -> None:
    """Goal: show the defect. Method: a host for 8 inbound connections, 8 callers that say nothing, one honest peer."""
    async with (
        stock_host(b"server", connection_config=few_connections(8)) as server,
        stock_host(b"client", listen=None) as client,
    ):
        port = port_of(str(one_address(server)))
        callers = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(8)]
        with trio.fail_after(PATIENCE_S):
            await until(lambda: server.get_network()._inbound_limiter.borrowed_tokens == 8)
        is_reached = False
        with suppress(Exception), trio.move_on_after(2):
            await stock_connect(client, server)
            is_reached = True
        assert not is_reached
        for caller in callers:
            await caller.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("source_count", [1, 50], ids=["one address", "many addresses"])
async def test_silent_callers_lock_nobody_out(source_count: int, world: LoopbackWorld, nursery: trio.Nursery) -> None:
    """Goal: the door stays open. Method: 300 callers that say nothing, from one address or many; then ten honest dials, all quick.
    Those beyond the bound are hung up on at once, not after the time-out."""
    bob = world.transport("bob")
    address = await start(nursery, bob)
    callers = []
    for number in range(300):
        source = f"127.0.1.{1 + number % source_count}" if source_count > 1 else "127.0.0.1"
        callers.append(await trio.open_tcp_stream("127.0.0.1", port_of(address), local_address=source))
    for number in range(10):
        alice = world.transport(f"alice{number}")
        await start(nursery, alice)
        with trio.fail_after(2):
            await alice.dial(address, bob.peer_id, FENCE)
            await bob.accept()
    held_max = HANDSHAKES_MAX if source_count > 1 else HANDSHAKES_PER_ADDRESS_MAX
    ended = []

    async def wait_for_the_end(caller: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await caller.receive_some()
        ended.append(caller)

    with trio.fail_after(HANDSHAKE_TIMEOUT_S / 2):
        for caller in callers:
            nursery.start_soon(wait_for_the_end, caller)
        await until(lambda: len(ended) >= 300 - held_max)
    for caller in callers:
        await trio.aclose_forcefully(caller)


# --- what is under the streams ------------------------------------------------------------------------------------
async def test_live_connection_runs_our_muxer_under_our_id(nursery: trio.Nursery) -> None:
    """Goal: no update puts the library's muxer back unnoticed. Method: look at the object, and at the id that was negotiated."""
    dialled, accepted = await connect_ours(nursery, OWN_LANES)
    assert type(dialled.muxer) is type(accepted.muxer) is Muxer
    assert Muxer.__module__.startswith("node.transport.libp2p")
    assert MUXER_PROTOCOL == "/lading/yamux/1"
