"""Whole nodes whose machines' clocks are wrong: a board that boots in 1970, one an hour off, one far in the future."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from node.actors.puts import PutOptions
from node.api import NodeApi
from node.clock import SimulatedClock
from node.wiring import Node
from protocols.errors import Reason
from protocols.identity.certificates import chain_validity
from protocols.identity.clockfloor import ClockSource
from storage.engine import Env
from storage.keys import clock_floor
from storage.memory import MemoryEngine

from .hostile.scene import EPOCH, play, scene

YEAR_S = 365 * 86400
HOUR_S = 3600


async def until(holds: Callable[[], object], *, seconds: float = 300.0) -> None:
    """Until it holds; the clock is virtual, and nothing tells of everything that is looked at here."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110  # nothing tells of it
            await trio.sleep(0.5)


def connected(node: Node, *others: Node) -> bool:
    return all(other.own.peer_id in node.peers.sessions for other in others)


def disk_of(node: Node) -> dict[Env, MemoryEngine]:
    ledger, chunks = node.world.ledger, node.world.chunks
    assert isinstance(ledger, MemoryEngine)
    assert isinstance(chunks, MemoryEngine)
    return {Env.LEDGER: ledger, Env.CHUNKS: chunks}


def persisted(node: Node) -> int:
    with node.world.ledger.snapshot() as snapshot:
        return clock_floor(snapshot)


async def asked(node: Node, operation: str) -> dict[str, object]:
    answer = await NodeApi(node).call(operation, {}, body=None, progress=lambda facts: None, output=None)
    return dict(answer.data)


async def put(node: Node, path: Path, *, ack: str = "local") -> str:
    data, _ = await node.files.put([path], PutOptions(replicas=0, ack=ack))
    return str(data["record"])


async def stopped(node: Node) -> None:
    """Stops it; an event of its own would tell no more than that a moment has passed on the virtual clock."""
    node.stop()
    await trio.sleep(5)


def knows(node: Node, record: str) -> bool:
    """It has the record's statement, not only somebody's word that he holds a piece."""
    return any(key[1].hex() == record and facts.objects for key, facts in node.knowledge.records.items())


def told_time(node: Node, record: str) -> int:
    (facts,) = [facts for key, facts in node.knowledge.records.items() if key[1].hex() == record]
    _, statement = node.files.statement_of(facts)
    return statement.time_s


def test_board_that_boots_in_1970_joins_in_again_and_its_records_have_sane_times(tmp_path: Path) -> None:
    """Goal: IDENTITY, Time. Method: a node that was away for hours boots in 1970; its peers' certificates are newer than the floor. It is
    unsafe, gets in, hears two members, has the time; then it puts, gets what another put, and has written down nothing it was told."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"put by another")
    new.write_bytes(b"put by the board")

    async def story() -> None:
        async with scene() as stage:
            board_keys = stage.own("board")
            clock = SimulatedClock(EPOCH)
            board = await stage.start("board", own=board_keys, clock=clock)
            await stopped(board)
            stage.nodes.clear()
            floor = persisted(board)
            # What the others hold was certified later than anything that the board knows.
            stage.clock.step(5000)
            a = await stage.start("a", own=stage.own("a", now=EPOCH + 4000))
            b = await stage.start("b", own=stage.own("b", now=EPOCH + 4000))
            clock.step(-EPOCH)
            before = persisted(board)
            board = await stage.start("board", own=board_keys, clock=clock, disk=disk_of(board))
            assert board.clock.source is ClockSource.FLOOR
            assert abs(board.clock.now() - floor) < 2
            await until(lambda: connected(board, a, b) and board.clock.source is ClockSource.AGREED)
            assert abs(board.clock.now() - a.clock.now()) <= 2
            status = await asked(board, "status")
            assert status["clock"]["source"] == "agreed"  # type: ignore[index]  # an object
            await until(lambda: any("two members agree" in str(text) for text in board.membership.alerts.values()))
            # Announcements that were from the future are in the book now.
            await until(lambda: board.knowledge.book.get(a.own.peer_id) and board.knowledge.book.get(b.own.peer_id))
            record = await put(board, new, ack="quorum")
            await until(lambda: knows(a, record))
            assert abs(told_time(a, record) - a.clock.now()) < 60
            theirs = await put(a, old, ack="quorum")
            await a.files.share(theirs, board.own.member_id)
            await until(lambda: any(key[1].hex() == theirs and facts.wraps for key, facts in board.knowledge.records.items()))
            await board.files.get(theirs, output=tmp_path / "got", directory=None, entry=None, keep=False, inline=None)
            assert (tmp_path / "got").read_bytes() == b"put by another"
            await trio.sleep(200)
            assert persisted(board) == before
            # The time is set at last: the machine's own clock is used again.
            clock.step(a.clock.now() - clock.now())
            await until(lambda: board.clock.source is ClockSource.MACHINE and "clock" not in board.membership.alerts)
            await until(lambda: persisted(board) > EPOCH + 5000)

    play(story)


def test_one_member_with_two_nodes_sets_no_clock(tmp_path: Path) -> None:
    """Goal: one lying member never moves a clock. Method: two nodes of one member agree with one another; then a second member comes."""

    async def story() -> None:
        async with scene() as stage:
            member = stage.member("liar")
            for name in ("l0", "l1"):
                await stage.start(name, own=stage.own(name, member=member), clock=SimulatedClock(EPOCH + 30 * 86400.0))
            board = await stage.start("board", clock=SimulatedClock(0.0))
            await until(lambda: connected(board, *stage.nodes[:2]))
            await trio.sleep(60)
            assert board.clock.source is ClockSource.FLOOR
            assert board.clock.now() < EPOCH + 3600
            assert "counting from" in board.membership.alerts["clock"]
            doctor = await asked(board, "doctor")
            (check,) = [check for check in doctor["checks"] if check["name"] == "clock"]  # type: ignore[attr-defined]  # a list
            assert check["level"] == "warn"
            assert "timedatectl" in check["hint"]
            honest = await stage.start("honest", clock=SimulatedClock(EPOCH + 86400.0))
            await until(lambda: connected(board, honest))
            await trio.sleep(60)
            assert board.clock.source is ClockSource.FLOOR

    play(story)


def test_clock_an_hour_ahead_is_told_and_what_it_signs_is_refused_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: wrong but above the floor: nothing moves it, people hear of it, others say why they refuse. Method: two right clocks, one an
    hour ahead; a put there; the clock is set; the record arrives."""
    source = tmp_path / "file"
    source.write_bytes(b"from the future")

    async def story() -> None:
        async with scene() as stage:
            a = await stage.start("a")
            b = await stage.start("b")
            clock = SimulatedClock(EPOCH + HOUR_S)
            ahead = await stage.start("ahead", clock=clock)
            await until(lambda: connected(ahead, a, b))
            await until(lambda: "clock" in ahead.membership.alerts)
            assert re.search(r"(59|60) minutes ahead of [12] of [12] members", ahead.membership.alerts["clock"])
            assert ahead.clock.source is ClockSource.MACHINE
            assert "clock" not in a.membership.alerts  # it hears one that differs and one that does not
            record = await put(ahead, source)
            await trio.sleep(60)
            assert not knows(a, record)
            for refused in ("fact refused", "not placed"):  # by those who refuse, and by the one who is refused
                found = [line for line in caplog.messages if refused in line]
                assert found
                assert all(Reason.CLOCK_UNSAFE.stable_name in line and "ahead of ours" in line for line in found)
            # It is set right: what was signed meanwhile is heard again when its time has come.
            clock.step(-HOUR_S)
            await until(lambda: "clock" not in ahead.membership.alerts)
            await until(lambda: knows(a, record), seconds=2 * HOUR_S)

    with caplog.at_level("INFO", logger="node"):
        play(story)


def test_clock_an_hour_behind_takes_what_others_say(tmp_path: Path) -> None:
    """Goal: a node that most members contradict does not judge them by its clock. Method: a put elsewhere; the slow one knows it."""
    source = tmp_path / "file"
    source.write_bytes(b"now")

    async def story() -> None:
        async with scene() as stage:
            a = await stage.start("a")
            await stage.start("b")
            stage.clock.step(2 * HOUR_S)
            behind = await stage.start("behind", clock=SimulatedClock(EPOCH + HOUR_S))
            await until(lambda: connected(behind, *stage.nodes[:2]) and "behind 2 of 2" in behind.membership.alerts.get("clock", ""))
            record = await put(a, source)
            await until(lambda: knows(behind, record), seconds=60)

    play(story)


def test_clock_in_2040_refuses_all_says_why_renews_nothing_and_leaves_no_floor_there() -> None:
    """Goal: a clock set years ahead does no lasting harm. Method: right clocks and one fourteen years ahead: alert with the difference,
    no renewal, no floor in the future; set right, everybody is connected again."""

    async def story() -> None:
        async with scene() as stage:
            a = await stage.start("a")
            b = await stage.start("b")
            clock = SimulatedClock(EPOCH + 14.0 * YEAR_S)
            far = await stage.start("far", clock=clock)
            await until(lambda: "of 2 members" in far.membership.alerts.get("clock", ""))
            assert re.search(r"(5109|5110) days ahead of 2 of 2 members", far.membership.alerts["clock"])
            assert not far.peers.sessions
            before = far.membership.own.node_chain
            await trio.sleep(HOUR_S / 2)  # looks at renewal are a minute apart
            assert far.membership.own.node_chain == before
            assert persisted(far) < EPOCH + HOUR_S
            clock.step(-14.0 * YEAR_S)
            await until(lambda: connected(far, a, b))
            await until(lambda: not far.membership.alerts.get("clock"))

    play(story)


def test_clock_ahead_with_nobody_to_ask_renews_nothing_and_writes_only_what_it_counted() -> None:
    """Goal: the same without members. Method: alone, its clock past two thirds of its certificate, for two hours."""

    async def story() -> None:
        async with scene() as stage:
            alone = await stage.start("alone", clock=SimulatedClock(EPOCH + 0.8 * YEAR_S))
            before = alone.membership.own.node_chain
            await trio.sleep(2 * HOUR_S)
            assert alone.membership.own.node_chain == before
            floor = chain_validity(alone.own.node_chain[1:], lowest=1)[0]
            assert floor + HOUR_S < persisted(alone) <= floor + 2 * HOUR_S + 1

    play(story)


def test_certificate_is_renewed_when_a_member_says_the_same_time() -> None:
    """Goal: the guard does not stop what should happen. Method: two thirds of a certificate are over by everybody's clock."""

    async def story() -> None:
        async with scene() as stage:
            stage.clock.step(0.8 * YEAR_S)
            a = await stage.start("a")
            await stage.start("b")
            before = a.membership.own.node_chain
            await until(lambda: a.membership.own.node_chain != before, seconds=2 * HOUR_S)

    play(story)


def test_connection_that_passed_while_the_clock_was_unsafe_is_checked_again_with_the_time() -> None:
    """Goal: not yet valid passes only until the time is known. Method: a peer certified for next month gets in at a board in 1970; two
    members agree on today, and it is put out and kept out."""

    async def story() -> None:
        async with scene() as stage:
            month_s = 30 * 86400
            early = await stage.start("early", own=stage.own("early", now=EPOCH + month_s), clock=SimulatedClock(EPOCH + month_s + 600.0))
            board = await stage.start("board", clock=SimulatedClock(0.0))
            await until(lambda: connected(board, early))
            assert board.clock.source is ClockSource.FLOOR
            a = await stage.start("a")
            b = await stage.start("b")
            await until(lambda: connected(board, a, b) and board.clock.source is ClockSource.AGREED)
            await until(lambda: not connected(board, early), seconds=10)
            await trio.sleep(120)
            assert not connected(board, early)
            assert connected(board, a, b)

    play(story)


def test_announcements_dropped_by_a_wrong_clock_are_back_when_it_is_set_right() -> None:
    """Goal: every fact is checked again, the kept ones too. Method: a node that knows another restarts in 2040, alone: nobody's certificate
    holds; its clock is set, and it knows where the other is without having met anybody."""

    async def story() -> None:
        async with scene() as stage:
            other = await stage.start("other")
            keys, clock = stage.own("node"), SimulatedClock(EPOCH)
            node = await stage.start("node", own=keys, clock=clock)
            await until(lambda: node.knowledge.book.get(other.own.peer_id))
            await stopped(node)
            await stopped(other)
            stage.nodes.clear()
            clock.step(14.0 * YEAR_S)
            node = await stage.start("node", own=keys, clock=clock, disk=disk_of(node))
            await trio.sleep(10)
            assert node.knowledge.book.get(other.own.peer_id) is None
            clock.step(-14.0 * YEAR_S)
            await until(lambda: node.knowledge.book.get(other.own.peer_id), seconds=10)
            assert other.own.peer_id in node.address_book()

    play(story)
