"""Each rule of the muxer by itself: frames, windows, budgets, turns, life signs, farewell."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import Reason
from protocols.limits import (
    BATCH_BYTES_MAX,
    DATA_FRAME_BYTES_MAX,
    HALF_RECEIVED_MAX_S,
    LINK_RATE_MIN,
    PING_IDLE_S,
    PING_PATIENCE_S,
    STREAM_WINDOW_BYTES,
    STREAM_WINDOW_BYTES_MAX,
    STREAMS_HELD_ALWAYS_BYTES,
    STREAMS_INBOUND_MAX,
    STREAMS_OUTBOUND_MAX,
)
from protocols.yamux.budget import Budget, connection_budget
from protocols.yamux.frames import (
    ACK,
    FIN,
    HEADER_BYTES,
    RST,
    SYN,
    Data,
    Frame,
    GoAway,
    GoAwayCode,
    Kind,
    Ping,
    WindowUpdate,
    decode_header,
)
from protocols.yamux.pieces import Pieces, joined
from protocols.yamux.session import Changed, Failed, Leave, Limits, Lose, MuxState, Open, Opened, Refused, Tick, YamuxSession
from protocols.yamux.stream import StreamState, YamuxStream

from .violations import VIOLATIONS, frame

DATA, UPDATE, PING, GO_AWAY = Kind.DATA, Kind.WINDOW_UPDATE, Kind.PING, Kind.GO_AWAY


def session(*, initiator: bool = False, budget: Budget | None = None, limits: Limits | None = None) -> YamuxSession:
    return YamuxSession(initiator=initiator, now_s=0.0, budget=budget, limits=limits)


def said(core: YamuxSession) -> list[tuple[Frame, bytes]]:
    """Everything that it has to say, as (header, body)."""
    frames: list[tuple[Frame, bytes]] = []
    while core.has_work:
        batch = core.collect(BATCH_BYTES_MAX)
        wire = b"".join(batch.pieces)
        assert len(wire) == batch.byte_count
        core.left(batch)
        while wire:
            header = decode_header(wire[:HEADER_BYTES])
            end = HEADER_BYTES + (header.value if isinstance(header, Data) else 0)
            frames.append((header, wire[HEADER_BYTES:end]))
            wire = wire[end:]
    return frames


def opened(core: YamuxSession, stream_id: int = 1) -> YamuxStream:
    """A stream that the peer opens."""
    (effect,) = core.feed([frame(UPDATE, SYN, stream_id)], 0.0)
    assert isinstance(effect, Opened)
    return effect.stream


def open_here(core: YamuxSession) -> YamuxStream:
    (effect,) = core.step(Open(), 0.0)
    assert isinstance(effect, Opened)
    return effect.stream


def take_all(core: YamuxSession, stream: YamuxStream) -> bytes:
    return joined(core.take(stream, STREAM_WINDOW_BYTES_MAX))


def reason_of(effects: tuple[object, ...]) -> Reason | None:
    """Why the session failed, if it did."""
    return next((effect.error.reason for effect in effects if isinstance(effect, Failed)), None)


# --- frames -------------------------------------------------------------------------------------------------------
@given(st.lists(st.binary(max_size=100), max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=50))
def test_frames_when_cut_anywhere_give_the_same_streams(contents: list[bytes], cuts: list[int]) -> None:
    """Goal: the parser does not care how the session cuts. Method: two streams' frames in turn, fed in random pieces."""
    core = session()
    wire = frame(UPDATE, SYN, 1) + frame(DATA, SYN, 3, b"first")
    for content in contents:
        wire += frame(DATA, 0, 1, content) + frame(PING, SYN, 0, 9) + frame(DATA, 0, 3, content[::-1])
    wire += frame(DATA, FIN, 1, b"last")
    streams: list[YamuxStream] = []
    position, turn = 0, 0
    while position < len(wire):
        size = cuts[turn % len(cuts)]
        streams += (effect.stream for effect in core.feed([wire[position : position + size]], 0.0) if isinstance(effect, Opened))
        position, turn = position + size, turn + 1
    one, three = streams
    assert take_all(core, one) == b"".join(contents) + b"last"
    assert one.has_ended
    assert take_all(core, three) == b"first" + b"".join(content[::-1] for content in contents)
    assert three.state is StreamState.OPEN


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_nonsense_never_raises_and_fails_alike_however_cut(parts: list[bytes]) -> None:
    """Goal: no byte from a peer is a bug of ours. Method: random bytes behind a valid start, whole and in pieces: the same end."""
    ends = []
    for pieces in (parts, [b"".join(parts)], [bytes([byte]) for byte in b"".join(parts)]):
        core = session()
        stream = opened(core)
        failed = None
        for piece in pieces:
            failed = failed or reason_of(core.feed([piece], 0.0))
        ends.append((failed, core.state, stream.state, take_all(core, stream)))
    assert ends[0] == ends[1] == ends[2]


KIND_AND_FLAGS = st.builds(
    frame,
    st.sampled_from(Kind),
    st.integers(0, 15),
    st.integers(0, 6),
    st.one_of(st.integers(0, 3), st.sampled_from([2**18 + 1, 2**31])),
)


@given(st.lists(KIND_AND_FLAGS, max_size=30), st.booleans())
def test_lawful_looking_frames_never_raise_and_keep_the_books(wires: list[bytes], initiator: bool) -> None:
    """Goal: what is counted is what is held, after whatever frames. Method: well-formed headers at random; sums over the streams."""
    core = session(initiator=initiator)
    for _ in range(2):
        open_here(core)
    for wire in wires:
        core.feed([wire], 0.0)
        assert core.budget.held_bytes == sum(stream.incoming.byte_count for stream in core.streams.values())
        assert core.budget.grown_bytes == sum(stream.grown_bytes for stream in core.streams.values())
    core.step(Lose("over"), 0.0)
    assert (core.budget.held_bytes, core.budget.grown_bytes, core.streams) == (0, 0, {})


@pytest.mark.parametrize(
    ("wire", "reason"), [*VIOLATIONS, pytest.param(frame(GO_AWAY, 0, 0, 1), Reason.UNREACHABLE, id="farewell with a reason")]
)
def test_frames_when_they_break_a_rule_end_the_session(wire: bytes, reason: Reason) -> None:
    """Goal: every bound of the muxer holds, and who breaks one is told. Method: one violation each; the last word is a farewell with code
    1, in front of which nothing that waited leaves (none for a farewell); afterwards nothing is looked at, held or said."""
    core = session()
    assert reason_of(core.feed([wire], 0.0)) is reason
    assert core.state is MuxState.LOST
    assert core.feed([frame(UPDATE, SYN, 99)], 0.0) == ()
    is_farewell = reason is Reason.UNREACHABLE
    assert core.last_word is (None if is_farewell else GoAwayCode.PROTOCOL_ERROR)
    assert said(core) == ([] if is_farewell else [(GoAway(0, 0, GoAwayCode.PROTOCOL_ERROR), b"")])
    assert core.wake_at() is None
    assert not core.has_work
    assert (core.streams, core.budget.held_bytes) == ({}, 0)
    (refused,) = core.step(Open(), 0.0)
    assert isinstance(refused, Refused)


def test_frames_for_streams_that_are_gone_are_passed_over() -> None:
    """Goal: what crossed our reset on the way is no violation. Method: data, credit and ends behind a reset, then life."""
    core = session()
    stream = opened(core)
    core.reset(stream, "enough")
    assert [header.flags for header, _ in said(core)] == [ACK, RST]
    late = frame(DATA, 0, 1, bytes(1000)) + frame(UPDATE, 0, 1, 5) + frame(DATA, FIN, 1, b"x") + frame(UPDATE, RST, 1)
    assert core.feed([late], 0.0) == ()
    assert core.budget.held_bytes == 0
    assert opened(core, 3).state is StreamState.OPEN


# --- streams ------------------------------------------------------------------------------------------------------
def test_streams_when_too_many_are_opened_are_reset() -> None:
    """Goal: bounded streams, both ways. Method: one too many each way: RST for the peer's, a refusal for ours; one ends, one fits."""
    core = session()
    streams = [opened(core, 2 * number + 1) for number in range(STREAMS_INBOUND_MAX)]
    assert core.feed([frame(DATA, SYN, 999, b"never mind")], 0.0) == ()
    assert [header.flags for header, _ in said(core)] == [ACK] * STREAMS_INBOUND_MAX + [RST]
    core.reset(streams[0], "enough")
    opened(core, 1001)
    for _ in range(STREAMS_OUTBOUND_MAX):
        open_here(core)
    (refused,) = core.step(Open(), 0.0)
    assert isinstance(refused, Refused)


def test_stream_when_finished_on_both_sides_is_forgotten_and_still_read() -> None:
    """Goal: half-close both ways. Method: their end first, ours after; what arrived is read last."""
    core = session()
    stream = opened(core)
    assert core.feed([frame(DATA, FIN, 1, b"theirs")], 0.0) == (Changed(stream), Changed(stream))
    core.put(stream, b"ours")
    core.finish(stream)
    assert [(header.flags, body) for header, body in said(core)] == [(ACK, b""), (0, b"ours"), (FIN, b"")]
    assert stream.state is StreamState.CLOSED
    assert core.streams == {}
    assert take_all(core, stream) == b"theirs"
    assert core.budget.held_bytes == 0


def test_stream_when_finished_here_goes_on_hearing() -> None:
    """Goal: half-close the other way round. Method: our end first; data, credit and a second end of theirs after it."""
    core = session(initiator=True)
    stream = open_here(core)
    core.finish(stream)
    assert [(type(header), header.flags) for header, _ in said(core)] == [(WindowUpdate, SYN), (WindowUpdate, FIN)]
    core.feed([frame(UPDATE, ACK, 1) + frame(UPDATE, 0, 1, 7) + frame(DATA, 0, 1, b"answer")], 0.0)
    assert stream.state is StreamState.FINISHED
    core.feed([frame(UPDATE, FIN, 1)], 0.0)
    assert stream.state is StreamState.CLOSED
    assert take_all(core, stream) == b"answer"


def test_stream_when_reset_by_the_peer_has_nothing_left_to_read() -> None:
    """Goal: streams that are reset over and over hold nothing. Method: unread bytes and queued ones, then RST."""
    core = session()
    stream = opened(core)
    core.feed([frame(DATA, 0, 1, bytes(50_000))], 0.0)
    core.put(stream, bytes(50_000))
    core.feed([frame(UPDATE, RST, 1)], 0.0)
    assert (stream.incoming.byte_count, stream.outgoing.byte_count, core.budget.held_bytes) == (0, 0, 0)
    assert stream.lost is not None
    assert [type(header) for header, _ in said(core)] == [WindowUpdate]


# --- windows ------------------------------------------------------------------------------------------------------
def fill(core: YamuxSession, stream: YamuxStream) -> int:
    """Sends as the peer what it was granted. Result: how much that was."""
    size = stream.granted_bytes
    assert reason_of(core.feed([frame(DATA, 0, stream.stream_id, bytes(size))], 0.0)) is None
    return size


def test_window_when_drained_grows_to_its_cap_and_when_not_stays() -> None:
    """Goal: only drained streams get the large window. Method: one read empty each time, one read by halves, one never."""
    core = session()
    drained, halved, unread = (opened(core, stream_id) for stream_id in (1, 3, 5))
    assert [fill(core, stream) for stream in (drained, halved, unread)] == [STREAM_WINDOW_BYTES] * 3
    for _ in range(8):
        take_all(core, drained)
        core.take(halved, halved.window_bytes // 2)
        for stream in (drained, halved):
            fill(core, stream)
            assert stream.incoming.byte_count <= stream.window_bytes
    assert drained.window_bytes == drained.incoming.byte_count == STREAM_WINDOW_BYTES_MAX
    assert halved.window_bytes == unread.window_bytes == STREAM_WINDOW_BYTES
    assert unread.granted_bytes == 0


def test_windows_when_the_budget_is_spent_stay_as_they_are_and_return_it() -> None:
    """Goal: promises are bounded over a connection and over the process. Method: room for one growth each, then one stream ends."""
    process = Budget(grown_bytes_max=3 * STREAM_WINDOW_BYTES, held_bytes_max=2**40)
    cores = [session(budget=Budget(grown_bytes_max=2 * STREAM_WINDOW_BYTES, held_bytes_max=2**40, around=process)) for _ in range(2)]
    streams = [opened(core) for core in cores]
    for _ in range(5):
        for core, stream in zip(cores, streams, strict=True):
            fill(core, stream)
            take_all(core, stream)
    assert sorted(stream.grown_bytes for stream in streams) == [STREAM_WINDOW_BYTES, 2 * STREAM_WINDOW_BYTES]
    assert process.grown_bytes == 3 * STREAM_WINDOW_BYTES
    for core in cores:
        core.feed([frame(UPDATE, RST, 1)], 0.0)
        assert core.budget.grown_bytes == 0
    assert process.grown_bytes == 0


def test_held_bytes_when_too_many_cost_the_fullest_stream_and_no_other() -> None:
    """Goal: unread bytes are bounded below the sum of all first windows. Method: room for two windows; three are filled, unevenly."""
    core = session(budget=Budget(grown_bytes_max=0, held_bytes_max=2 * STREAM_WINDOW_BYTES))
    small, full, last = (opened(core, stream_id) for stream_id in (1, 3, 5))
    said(core)
    core.feed([frame(DATA, 0, 1, bytes(100_000)), frame(DATA, 0, 3, bytes(STREAM_WINDOW_BYTES))], 0.0)
    core.feed([frame(DATA, 0, 5, bytes(200_000))], 0.0)
    assert [stream.state for stream in (small, full, last)] == [StreamState.OPEN, StreamState.BROKEN, StreamState.OPEN]
    assert [(header.flags, header.stream_id) for header, _ in said(core)] == [(RST, 3)]
    assert core.budget.held_bytes == 300_000


def test_held_bytes_when_others_hold_all_leave_those_alone_who_hold_little() -> None:
    """Goal: a hog does not cost its neighbours their streams. Method: the process is full through one; another receives a little,
    then more than the floor."""
    process = Budget(grown_bytes_max=0, held_bytes_max=STREAM_WINDOW_BYTES)
    hog, modest = (session(budget=connection_budget(process)) for _ in range(2))
    fill(hog, opened(hog))
    streams = [opened(modest, 2 * number + 1) for number in range(2 * STREAMS_HELD_ALWAYS_BYTES // STREAM_WINDOW_BYTES)]
    held = 0
    for stream in streams:
        held += fill(modest, stream)
        is_all_open = all(each.state is StreamState.OPEN for each in streams)
        assert is_all_open == (held <= STREAMS_HELD_ALWAYS_BYTES)
    assert modest.budget.held_bytes <= STREAMS_HELD_ALWAYS_BYTES + STREAM_WINDOW_BYTES


def test_window_when_shut_for_ever_holds_its_stream_and_executes_nobody() -> None:
    """Goal: no execution for a zero window. Method: the peer grants nothing for a day, and lives; then it grants."""
    core = session(initiator=True)
    stream = open_here(core)
    core.put(stream, bytes(STREAM_WINDOW_BYTES + 100))
    assert sum(len(body) for _, body in said(core)) == STREAM_WINDOW_BYTES
    for hour in range(1, 25):
        assert core.feed([frame(PING, ACK, 0, 1)], hour * 3600.0 - 1) == ()
        assert core.step(Tick(), hour * 3600.0) == ()
    said(core)
    assert not stream.can_leave
    assert not core.is_idle
    core.feed([frame(UPDATE, 0, 1, 60)], 86400.0)
    assert [len(body) for _, body in said(core)] == [60]
    core.feed([frame(UPDATE, 0, 1, 1000)], 86400.0)
    assert [len(body) for _, body in said(core)] == [40]
    assert core.is_idle


def test_end_when_the_window_is_shut_still_leaves_behind_nothing() -> None:
    """Goal: a finish needs no window of its own. Method: exactly a window's worth, then finish."""
    core = session(initiator=True)
    stream = open_here(core)
    core.put(stream, bytes(STREAM_WINDOW_BYTES))
    said(core)
    core.finish(stream)
    assert [header.flags for header, _ in said(core)] == [FIN]


# --- turns --------------------------------------------------------------------------------------------------------
def test_turns_when_streams_have_bulk_are_taken_in_order_and_control_goes_first() -> None:
    """Goal: fairness. Method: three streams with more than they may send at once, a fourth with a word put last, and a ping: one batch."""
    core = session(initiator=True)
    streams = [open_here(core) for _ in range(4)]
    said(core)
    for stream in streams[:3]:
        core.feed([frame(UPDATE, 0, stream.stream_id, 2**24)], 0.0)
        core.put(stream, bytes(3 * DATA_FRAME_BYTES_MAX))
    core.put(streams[3], b"word")
    core.feed([frame(PING, SYN, 0, 7)], 0.0)
    order = [(type(header), header.stream_id, len(body)) for header, body in said(core)]
    assert order[0] == (Ping, 0, 0)
    ids = [stream_id for _, stream_id, _ in order[1:]]
    assert ids[:2] == [1, 3]
    assert 7 in ids[:5]
    assert all(size <= DATA_FRAME_BYTES_MAX for _, _, size in order)
    bulk = [stream_id for stream_id in ids if stream_id != 7]
    assert all(before != after for before, after in pairwise(bulk[:6])), "nobody has two turns in a row while others wait"


def test_batch_when_bulk_is_ready_stays_in_its_bounds() -> None:
    """Goal: the loop is held a moment only. Method: one batch of much; one of a slow peer's slice."""
    core = session(initiator=True)
    stream = open_here(core)
    core.feed([frame(UPDATE, ACK, 1, 2**24)], 0.0)
    core.put(stream, bytes(2**22))
    assert core.collect(BATCH_BYTES_MAX).byte_count <= BATCH_BYTES_MAX + 2 * HEADER_BYTES
    assert core.collect(4096).byte_count == 4096 + HEADER_BYTES


def test_credit_when_given_often_before_it_leaves_is_one_frame() -> None:
    """Goal: a blocked writer collects no frames. Method: forty reads without a batch between."""
    core = session()
    stream = opened(core)
    said(core)
    total = 0
    for _ in range(40):
        total += fill(core, stream)
        take_all(core, stream)
    ((header, _),) = said(core)
    assert (type(header), header.value) == (WindowUpdate, total + stream.granted_bytes - STREAM_WINDOW_BYTES)


# --- life ---------------------------------------------------------------------------------------------------------
def run_clock(core: YamuxSession, until_s: float) -> float | None:
    """Ticks whenever it wants one. Result: when it failed."""
    while (at := core.wake_at()) is not None and at <= until_s:
        if reason_of(core.step(Tick(), at)) is not None:
            return at
    return None


def test_peer_when_silent_is_asked_and_then_dead_within_seconds() -> None:
    """Goal: a stopped process is noticed. Method: nothing arrives; one ping, one patience."""
    core = session()
    stream = opened(core)
    said(core)
    assert run_clock(core, 1000.0) == PING_IDLE_S + PING_PATIENCE_S <= 15
    assert core.state is MuxState.LOST
    assert stream.lost is not None


def test_peer_when_it_says_anything_lives_and_is_asked_only_when_quiet() -> None:
    """Goal: an idle peer is kept, a talking one not bothered. Method: a day of answers; a minute of data."""
    core = session()
    now_s = 0.0
    for _ in range(1000):
        now_s = core.wake_at() or 0.0
        assert core.step(Tick(), now_s) == ()
        for header, _ in said(core):
            assert isinstance(header, Ping)
            assert core.feed([frame(PING, ACK, 0, header.value)], now_s + 0.1) == ()
    assert now_s > 3600
    stream = opened(core)
    said(core)
    for number in range(60):
        core.feed([frame(DATA, 0, stream.stream_id, b"x")], now_s + number)
        assert run_clock(core, now_s + number + 0.5) is None
        assert said(core) == []


def test_peer_when_we_stood_still_ourselves_is_not_blamed() -> None:
    """Goal: a resumed laptop keeps its peers. Method: asked, then no tick for an hour; the answer is read after the late tick."""
    core = session()
    core.step(Tick(), PING_IDLE_S)
    late = PING_IDLE_S + 3600.0
    assert core.step(Tick(), late) == ()
    core.feed([frame(PING, ACK, 0, 1)], late + 1)
    assert run_clock(core, late + PING_IDLE_S) is None
    assert run_clock(core, late + 1000) is not None, "and a dead one is still noticed"


@pytest.mark.parametrize(
    ("wire", "patience_s"),
    [
        pytest.param(frame(DATA, 0, 1, bytes(10))[:11], HALF_RECEIVED_MAX_S, id="header"),
        pytest.param(frame(DATA, 0, 1, bytes(160_000))[:100], HALF_RECEIVED_MAX_S + 160_000 / LINK_RATE_MIN, id="body"),
    ],
)
def test_frame_when_half_received_is_awaited_as_long_as_it_may_take(wire: bytes, patience_s: float) -> None:
    """Goal: bounded waiting for a talker who never ends. Method: the peer answers nothing else; ticks before and after."""
    core = session()
    stream = opened(core)
    core.feed([wire], 0.0)
    core.step(Tick(), 4.0)
    deadline = core._deadline_s
    assert deadline == pytest.approx(patience_s)
    core._due_at_s = 1e9  # the other alarm is not what is shown here
    assert core.step(Tick(), patience_s - 0.1) == ()
    assert reason_of(core.step(Tick(), patience_s)) is Reason.STALLED
    assert stream.lost is not None
    assert said(core)[-1] == (GoAway(0, 0, GoAwayCode.PROTOCOL_ERROR), b"")


def test_stream_when_closed_with_its_last_batch_on_the_way_is_lost_with_the_session() -> None:
    """Goal: whoever waits for last bytes to leave is told that they never will. Method: both sides have finished, ours is collected but not
    out; the session is lost. Of another stream, whose bytes are out, nothing is said."""
    core = session()
    for stream_id in (1, 3):
        stream = opened(core, stream_id)
        core.feed([frame(UPDATE, FIN, stream_id)], 0.0)
        core.put(stream, b"last words")
        core.finish(stream)
        batch = core.collect(BATCH_BYTES_MAX)
        assert stream.state is StreamState.CLOSED
        if stream_id == 1:
            core.left(batch)
            done = stream
    assert core.step(Lose("gone"), 0.0) == (Changed(stream),)
    assert (stream.lost, done.lost) == ("gone", None)


def test_farewell_when_said_lets_streams_end_and_opens_none() -> None:
    """Goal: go-away both ways. Method: we leave: SYN is refused, data goes on; the peer leaves: opening is refused."""
    core = session()
    stream = opened(core)
    core.put(stream, b"before")
    core.step(Leave(), 0.0)
    assert {type(header) for header, _ in said(core)} == {GoAway, WindowUpdate, Data}
    core.feed([frame(DATA, 0, 1, b"goes on") + frame(UPDATE, SYN, 3)], 0.0)
    assert take_all(core, stream) == b"goes on"
    assert [(header.flags, header.stream_id) for header, _ in said(core)] == [(RST, 3)]
    core.feed([frame(GO_AWAY, 0, 0)], 0.0)
    assert core.state is MuxState.PARTING
    other = session()
    other.feed([frame(GO_AWAY, 0, 0)], 0.0)
    (refused,) = other.step(Open(), 0.0)
    assert isinstance(refused, Refused)


# --- memory -------------------------------------------------------------------------------------------------------
def test_pieces_when_tiny_cost_about_their_bytes() -> None:
    """Goal: a peer that sends single bytes gains nothing. Method: a window of one-byte frames; memory of what is held."""
    pieces = Pieces()
    for _ in range(STREAM_WINDOW_BYTES):
        pieces.put(b"x")
    held = sum(sys.getsizeof(piece) for piece in pieces._pieces)
    assert held < 2 * STREAM_WINDOW_BYTES
    assert joined(pieces.take_all()) == b"x" * STREAM_WINDOW_BYTES


def test_pieces_when_views_of_much_larger_buffers_are_copied_out() -> None:
    """Goal: ten bytes do not keep a message alive. Method: views of a 64 KiB message; what is kept is a copy, unless it is most of it."""
    message = bytes(65_000)
    pieces = Pieces()
    for size in (10, 20_000, 60_000):
        pieces.put(memoryview(message)[:size])
    bases = [piece.obj if isinstance(piece, memoryview) else piece for piece in pieces._pieces]
    assert [base is message for base in bases] == [False, False, True]


@given(st.lists(st.one_of(st.binary(max_size=30), st.integers(1, 60_000))), st.randoms(use_true_random=False))
def test_pieces_are_a_queue_of_bytes(puts: list[bytes | int], chance: object) -> None:
    """Goal: nothing is lost or turned round. Method: random puts, peeks and takes against a plain bytearray."""
    pieces, model = Pieces(), bytearray()
    for number, put in enumerate(puts):
        piece = put if isinstance(put, bytes) else bytes([number % 256]) * put
        pieces.put(memoryview(piece) if number % 2 else piece)
        model += piece
        size = chance.randrange(70_000)  # type: ignore[attr-defined]
        assert pieces.peek(4) == bytes(model[:4])
        taken = joined(pieces.take(size))
        assert taken == bytes(model[:size])
        del model[:size]
        assert len(pieces) == len(model)
