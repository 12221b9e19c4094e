"""What is left of a node when its peers stall, its store fails, or strangers come through the fence or with a ticket."""

from __future__ import annotations

import contextlib

import trio

from node.services import AUTH, EXCHANGE, GOSSIP, JOIN
from node.transport.memory import MemoryTransport
from node.transport.port import DialFailed, PresharedKey, StreamBroken
from node.wiring import Node
from protocols.codec import encode
from protocols.crypto import SigningKey, sha256
from protocols.errors import StoreDamaged
from protocols.exchange import messages as m
from protocols.files.sequences import sequence_root
from protocols.gossip.facts import FactKind
from protocols.identity.networks import join_preshared_key
from protocols.identity.peers import peer_id_of
from protocols.join import messages as j
from protocols.limits import FRAME_BYTES_MAX, UNREAD_BYTES_MAX_UNPROVEN
from protocols.registry import encode_message
from storage.engine import Snapshot

from .scene import EPOCH, Enemy, Scene, play, scene


async def entered(stage: Scene, name: str = "enemy") -> tuple[Node, Enemy]:
    node = await stage.start()
    enemy = Enemy(stage, stage.own(name))
    await enemy.enter(node)
    return node, enemy


def test_fetches_of_a_peer_that_reads_nothing_then_little_is_read_for_it() -> None:
    """Goal: what a peer makes us hold is bounded, not only what it sends. Method: 100 fetches with endless credit, nothing is read."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            bodies = [bytes([number]) * 200_000 for number in range(8)]
            names = tuple(map(sha256, bodies))
            root = sequence_root(names)
            signed = enemy.statement([root], manifest_chunks=8, sealed_bytes=8 * 200_000)
            stream = await enemy.open_exchange()
            await stream.send(encode_message("exchange", m.Place(1, root, names, (200_000,) * 8, m.ByStatement(signed, 0, 1, ()))))
            await trio.sleep(0.5)
            for index, body in enumerate(bodies):
                await stream.send(encode_message("exchange", m.Chunk(1, index, body)))
            await trio.sleep(0.5)
            read = 0
            load = node.peers._exchange_host.load

            async def counted(root: bytes, indexes: tuple[int, ...]) -> object:
                nonlocal read
                read += len(indexes)
                return await load(root, indexes)

            node.peers._exchange_host.load = counted  # type: ignore[method-assign,assignment]  # to look on
            other = await enemy.open_exchange()
            for number in range(1, 101):
                await other.send(encode_message("exchange", m.Fetch(number, root, tuple(range(8)), 1 << 40)))
            await trio.sleep(5)
            assert 0 < read * 262_160 <= 24 * 1024 * 1024

    play(story)


def test_frames_of_a_stranger_inside_the_fence_are_not_held() -> None:
    """Goal: before the proof a peer fills no memory. Method: one that knows the fence sends the longest frame instead of a Hello, and
    the same on ten streams more; what the node has read is looked at until it hangs up."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            enemy = Enemy(stage, stage.own("enemy"))
            connection = await enemy.dial(node)
            streams = [await connection.open_stream(protocol) for protocol in (AUTH, *[GOSSIP] * 10)]
            assert isinstance(node.world.transport, MemoryTransport)
            (theirs,) = node.world.transport.connections()
            for stream in reversed(streams):
                await stream.send(bytes(FRAME_BYTES_MAX))
            held = 0
            with trio.fail_after(60):
                while not connection.closed.is_set():
                    held = max(held, theirs.unread_bytes)
                    await trio.sleep(0.01)
            assert held <= UNREAD_BYTES_MAX_UNPROVEN

    play(story)


def test_store_whose_snapshots_fail_for_a_while_then_the_node_goes_on() -> None:
    """Goal: a store that cannot be read is told to those who asked; nothing falls, and when it is back so is the node."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            engine = node.world.chunks
            snapshot = engine.snapshot

            def damaged() -> Snapshot:
                raise StoreDamaged("no snapshot of this store")

            failed = []
            engine.snapshot = damaged  # type: ignore[method-assign,assignment]  # the disk is gone
            for _ in range(3):
                try:
                    await node.chunk_store.transact(lambda _: ((), None))
                except StoreDamaged as error:
                    failed.append(error)
            engine.snapshot = snapshot  # type: ignore[method-assign]  # and back
            assert len(failed) == 3
            await node.chunk_store.transact(lambda _: ((), None))
            assert node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_holder_of_the_fence_alone_then_it_gets_nothing_but_auth() -> None:
    """Goal: a leaked fence opens no conversation. Method: other streams first, garbage in auth, many connections that say nothing."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            for protocol in (GOSSIP, EXCHANGE, JOIN):
                stranger = Enemy(stage, stage.own(f"s-{protocol[8:12]}"))
                connection = await stranger.dial(node)
                with contextlib.suppress(StreamBroken):
                    stream = await connection.open_stream(protocol)
                    await stream.send(b"\x01\x90")
                with trio.fail_after(20):
                    await connection.closed.wait()
            silent = [Enemy(stage, stage.own(f"silent{number}")) for number in range(20)]
            for one in silent:
                await one.dial(node)
            honest = Enemy(stage, stage.own("honest"))
            await honest.enter(node)
            await honest.tell()
            assert node.peers.is_connected(honest.own.peer_id)
            with trio.fail_after(20):
                for one in silent:
                    assert one.connection is not None
                    await one.connection.closed.wait()

    play(story)


def test_holder_of_a_ticket_that_speaks_garbage_then_the_node_stands_and_the_ticket_stays_open() -> None:
    """Goal: a ticket opens `join` and nothing else, and only one request. Method: other streams, garbage, sealed garbage."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            told = await node.membership.invite(node=False, holder_only=False, expires_s=3600)
            state = node.knowledge.tickets.states[0]
            assert state.terms is not None
            await trio.sleep(1)
            key = PresharedKey("join", state.ticket_id, join_preshared_key(state.terms.join_secret, node.own.network_id))
            thief = SigningKey(b"t" * 32)
            transport = MemoryTransport(stage.network, peer_id_of(thief.public), ("/memory/thief",))
            assert stage.nursery is not None
            await stage.nursery.start(transport.run)
            transport.set_preshared_keys((key,))
            sealed = j.JoinRequest(state.ticket_id, b"i" * 32, b"x" * 4096)
            for protocol, frame in (
                (EXCHANGE, b"\x09\x90"),
                (GOSSIP, b"\x01\x90"),
                (JOIN, b""),
                (JOIN, b"\xff" * 1000),
                (JOIN, encode_message("join", sealed)),
            ):
                try:
                    connection = await transport.dial("/memory/n0", node.own.peer_id, key)
                    stream = await connection.open_stream(protocol)
                    await stream.send(frame)
                    with trio.move_on_after(5):
                        await stream.receive()
                    await connection.close("done")
                except (StreamBroken, DialFailed):
                    continue
            assert node.knowledge.tickets.states[0].is_open(EPOCH + 60)
            assert told["role"] == state.terms.role
            assert not node.peers.sessions

    play(story)


def test_two_sessions_of_one_identity_and_a_storm_of_reconnects_then_one_session_is_left() -> None:
    """Goal: whoever connects again and again with one identity has one session, and ends with none left over."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            for _ in range(30):
                await enemy.prove(await enemy.dial(node))
            await trio.sleep(0.1)
            assert list(node.peers.sessions) == [enemy.own.peer_id]
            assert enemy.connection is not None
            enemy.gossip = await enemy.connection.open_stream(GOSSIP)
            await enemy.tell((FactKind.ANNOUNCEMENT, encode(enemy.announcement(EPOCH * 1000 + 1))))
            assert node.peers.is_connected(enemy.own.peer_id)
            await enemy.connection.close("enough")
            await trio.sleep(20)
            assert not node.peers.sessions
            assert node.peers._unproven <= 1  # our own dial to where it said it was

    play(story)
