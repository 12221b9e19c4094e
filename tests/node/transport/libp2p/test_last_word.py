"""A peer that breaks a rule of the muxer is told so, has a moment to take it, and is hung up on."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

import protocols.yamux.session as yamux_session
from node.transport.libp2p import negotiate, noise, wire
from node.transport.libp2p.addresses import parse
from node.transport.libp2p.connection import LAST_WORD_S, Libp2pConnection
from node.transport.libp2p.mux import MUXER_PROTOCOL
from node.transport.libp2p.noise import Session, session_of
from node.transport.port import StreamBroken
from protocols.crypto import SessionCipher
from protocols.errors import Reason
from protocols.limits import STREAM_WINDOW_BYTES
from protocols.yamux.frames import ACK, HEADER_BYTES, SYN, Data, Frame, GoAway, GoAwayCode, Kind, decode_header
from tests.protocols.yamux.violations import VIOLATIONS, frame

from ..manners import FENCE, start
from .loopback import NETWORK, OWN_LANES, LoopbackWorld, rested, settled

PATIENCE_S = 10.0
LAST_WORD = GoAway(0, 0, GoAwayCode.PROTOCOL_ERROR)


async def hostile(nursery: trio.Nursery) -> tuple[Session, Libp2pConnection, wire.Wire]:
    """(a session that passed the fence and has no muxer, the node's end of its connection, its socket)."""
    bob = LoopbackWorld(OWN_LANES).transport("bob")
    address = parse(await start(nursery, bob))
    socket = wire.Wire(await trio.open_tcp_stream(address.host, address.port))
    cipher = SessionCipher.CHACHA20_POLY1305
    assert await negotiate.propose(socket, noise.security_protocol(NETWORK, cipher))
    identity = noise.Identity.from_seed(b"m" * 32, NETWORK)
    session = await noise.secure_outbound(socket, identity, bob.peer_id, FENCE, cipher, session_of)
    assert await negotiate.propose(session, MUXER_PROTOCOL)
    return session, await bob.accept(), socket


async def heard(session: Session) -> list[Frame]:
    """Headers of all frames until the node has hung up."""
    said = b""
    with suppress(StreamBroken):
        while True:
            said += b"".join(await session.receive())
    frames: list[Frame] = []
    while said:
        frames.append(decode_header(said[:HEADER_BYTES]))
        size = frames[-1].value if isinstance(frames[-1], Data) else 0
        assert len(said) >= HEADER_BYTES + size, "the last frame is whole"
        said = said[HEADER_BYTES + size :]
    return frames


@pytest.mark.parametrize("is_trusted", [True, False], ids=["proven", "unproven"])
@pytest.mark.parametrize(("attack", "reason"), VIOLATIONS)
async def test_peer_that_breaks_a_rule_is_told_and_hung_up_on(
    attack: bytes, reason: Reason, is_trusted: bool, nursery: trio.Nursery
) -> None:
    """Goal: whoever errs can find out why, and costs us no more. Method: each violation from a live peer, which goes on talking: the last
    frame it hears is a farewell with code 1, then the end; the connection is over in time, its streams with it."""
    session, connection, socket = await hostile(nursery)
    if len(attack) > STREAM_WINDOW_BYTES:
        pytest.skip("a node takes what arrives, so its window is not where the machine's test has it")
    if is_trusted:
        connection.trust()
    with trio.fail_after(PATIENCE_S):
        await session.send((attack + frame(Kind.PING, SYN, 0, 7) * 3,))
        frames = await heard(session)
        assert frames[-1] == LAST_WORD, reason
        assert frames.count(LAST_WORD) == 1
        await socket.close()
        await connection.closed.wait()
    assert connection.muxer.stream_count == 0
    with pytest.raises(StreamBroken):
        await connection.open_stream("/lading/any/1")


async def test_peer_that_takes_nothing_is_hung_up_on_in_time(nursery: trio.Nursery) -> None:
    """Goal: the last word waits for nobody. Method: a peer that lets us send more than kernels take, reads nothing, then breaks a rule."""
    session, connection, socket = await hostile(nursery)
    connection.trust()
    with trio.fail_after(PATIENCE_S):
        opening = frame(Kind.WINDOW_UPDATE, SYN, 1, 0) + frame(Kind.WINDOW_UPDATE, 0, 1, 2**31)
        hello = negotiate.encode(negotiate.HEADER, "/lading/any/1")
        await session.send((opening + frame(Kind.DATA, 0, 1, hello),))
        stream = await connection.accept_stream()
        (core,) = connection.muxer.core.streams.values()  # type: ignore[union-attr]

        async def flood() -> None:
            while True:
                await stream.send(bytes(256 * 1024))

        async def flood_until_broken() -> None:
            with pytest.raises(StreamBroken):
                await flood()

        async with trio.open_nursery() as flooding:
            flooding.start_soon(flood_until_broken)
            left = -1
            while left < core.left_count or not left:
                left = core.left_count
                await trio.sleep(0.3)
            began = trio.current_time()
            await session.send((frame(Kind.PING, SYN, 1),))
        # The sender was told at once, the connection ends a little later.
        assert trio.current_time() - began < LAST_WORD_S / 2
        await connection.closed.wait()
        assert trio.current_time() - began < LAST_WORD_S + 1.0
    await socket.close()


async def test_frame_left_half_sent_is_answered_with_the_last_word(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the clock's finding is told as well, while the reader still reads. Method: half a header; patience of a moment."""
    monkeypatch.setattr(yamux_session, "HALF_RECEIVED_MAX_S", 0.05)
    monkeypatch.setattr(yamux_session, "PING_IDLE_S", 0.1)
    session, connection, socket = await hostile(nursery)
    with trio.fail_after(PATIENCE_S):
        await session.send((frame(Kind.WINDOW_UPDATE, SYN, 1, 0)[:5],))
        assert (await heard(session))[-1] == LAST_WORD
        await socket.close()
        await connection.closed.wait()


async def test_node_that_is_told_off_closes_without_an_answer(nursery: trio.Nursery) -> None:
    """Goal: no talk about talk. Method: the peer says farewell with code 1; what it hears ends without one."""
    session, connection, socket = await hostile(nursery)
    with trio.fail_after(PATIENCE_S):
        await session.send((frame(Kind.GO_AWAY, 0, 0, 1),))
        assert all(not isinstance(one, GoAway) for one in await heard(session))
        await connection.closed.wait()
    await socket.close()


async def test_attackers_leave_nothing_behind(nursery: trio.Nursery) -> None:
    """Goal: twenty attackers cost what none does. Method: tasks and files before and after, the attackers' own sockets closed."""
    before: Any = None
    for _ in range(20):
        async with trio.open_nursery() as one:
            session, connection, socket = await hostile(one)
            with trio.fail_after(PATIENCE_S):
                await session.send((frame(Kind.WINDOW_UPDATE, ACK, 99, 5),))
                assert (await heard(session))[-1] == LAST_WORD
                await socket.close()
                await connection.closed.wait()
            one.cancel_scope.cancel()
        before = before or await settled()
    with trio.fail_after(PATIENCE_S):
        await rested(before)
