"""The gossip machine: every short sequence, what a hostile peer may say, two ends that come to one set."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.effects import Close, Send
from protocols.errors import DecodeError, Reason, RemoteError
from protocols.gossip import machine as g
from protocols.gossip import messages as m
from protocols.gossip.facts import fact_id
from protocols.gossip.sketch import SKETCH_BYTES, Sketch
from protocols.registry import decode_message, encode_message
from tests.vectors import recompute_gossip as second

from .ends import End, Fact, settle

VECTORS: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
FRAMES = {name: bytes.fromhex(frame) for name, frame in VECTORS["frames"].items()}
A, B = (16, b"a"), (17, b"b")
A_ID, B_ID = fact_id(*A), fact_id(*B)
EMPTY = bytes(SKETCH_BYTES)
PEER = b"\x00\x24\x08\x01\x12\x20" + b"\x09" * 32
bodies = st.binary(max_size=40)
facts = st.tuples(st.integers(0, 255), bodies)
fact_sets = st.sets(facts, max_size=60)


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert second.recompute() == VECTORS


def test_messages_are_the_vectors() -> None:
    """Goal: byte for byte, both directions, every message. Method: encode and decode."""
    ids = [bytes.fromhex(one) for one in VECTORS["ids"]]
    bucket = ids[0][0]
    said: dict[str, object] = {
        "announce": m.Announce(tuple(ids[:2])),
        "want": m.Want(tuple(ids[:1])),
        "bodies": m.Bodies(((16, b"statement 0"), (20, b"receipt"))),
        "summary": m.Summary(301, bytes.fromhex(VECTORS["sketch"])),
        "bucket_ids": m.BucketIds(bucket, Sketch(ids).ids_of(bucket), True),
        "seen": m.Seen(((PEER, 7),), 3, 0),
    }
    assert {frame[0] for frame in FRAMES.values()} == {number for number, _ in m.MESSAGES}
    assert {name: encode_message("gossip", message) for name, message in said.items()} == FRAMES
    assert {name: decode_message("gossip", frame) for name, frame in FRAMES.items()} == said


@given(st.sampled_from(sorted(FRAMES)), st.integers(0, 3000), st.binary(max_size=9), st.integers(0, 9))
def test_mutated_message_is_a_message_or_a_decode_error(name: str, at: int, put: bytes, cut: int) -> None:
    """Goal: nothing but DecodeError, and one content has one encoding. Method: bytes of real frames replaced by others."""
    frame = bytearray(FRAMES[name])
    at %= len(frame)
    frame[at : at + cut] = put
    try:
        message = decode_message("gossip", bytes(frame))
    except DecodeError:
        return
    assert encode_message("gossip", message) == frame


def test_every_sequence_of_five_events_keeps_the_promises() -> None:
    """Goal: only RemoteError comes out; what is delivered was wanted and comes once; what is sent was asked for; the closed stay closed.
    Method: all sequences of Opened and four events, lawful and not, of the peer and of our own surroundings."""
    events = (
        m.Announce((A_ID, B_ID)),
        m.Want((A_ID,)),
        m.Bodies((A,)),
        m.Bodies((A, A, B)),
        m.Summary(1, EMPTY),
        m.Summary(1, b"short"),
        m.BucketIds(A_ID[0], (A_ID,), True),
        m.Seen((), 1, 0),
        g.HaveFacts((B_ID,)),
        g.Unknown((A_ID,)),
        g.Loaded((A,)),
        g.OurSet(0, EMPTY),
        g.BucketLoaded(0, ()),
        g.LifeSigns(()),
        g.Tick(),
    )
    delivered = closed = 0
    for sequence in itertools.product(events, repeat=4):
        machine = g.GossipMachine()
        machine.step(g.Opened(0, EMPTY), 0.0)
        done: list[object] = []
        wanted = 0
        for now, event in enumerate(sequence, 1):
            was_closed = machine.state is g.GossipState.CLOSED
            try:
                effects = machine.step(event, now * 5.0)
            except RemoteError:
                break
            assert not (was_closed and effects)
            done.append(event)
            for effect in effects:
                match effect:
                    case Send(m.Want(ids)):
                        assert g.Unknown((A_ID,)) in done
                        wanted += len(ids)
                    case g.Deliver(items):
                        assert items == (A,)
                        delivered += 1
                        wanted -= 1
                        assert wanted >= 0
                    case Send(m.Bodies()):
                        assert isinstance(event, g.Loaded)
                    case g.LoadBodies(ids):
                        assert m.Want(ids) in done
                    case g.FilterUnknown(ids):
                        assert ids == getattr(event, "ids", None)
                    case Close():
                        closed += 1
                        assert machine.wake_at() is None
    assert delivered
    assert closed


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (m.Announce((b"short",)), Reason.MALFORMED),
        (m.Announce((A_ID,) * 1025), Reason.FLOOD),
        (m.Want((A_ID,) * 1025), Reason.FLOOD),
        (m.Want((A_ID + b"x",)), Reason.MALFORMED),
        (m.Bodies(((16, b""),) * 1025), Reason.FLOOD),
        (m.Bodies(((16, bytes(g.BODY_BYTES_MAX + 1)),)), Reason.TOO_LONG),
        (m.Bodies(((16 + 256, b"a"),)), Reason.MALFORMED),
        (m.Bodies(((-1, b"a"),)), Reason.MALFORMED),
        (m.Summary(0, EMPTY + b"x"), Reason.MALFORMED),
        (m.BucketIds(256, (), True), Reason.MALFORMED),
        (m.BucketIds(-1, (), True), Reason.MALFORMED),
        (m.BucketIds(0, (b"",), True), Reason.MALFORMED),
        (m.Seen(((PEER, 1),) * 513, 1, 0), Reason.FLOOD),
        (m.Seen(((b"peer", 1),), 1, 0), Reason.MALFORMED),
        (m.Seen(((PEER, -(10**9)),), 1, 0), Reason.MALFORMED),
        (m.Seen((), -1, 0), Reason.MALFORMED),
    ],
)
def test_message_beyond_its_bound_is_a_violation(message: object, reason: Reason) -> None:
    """Goal: every limit of SPEC.md. Method: one step beyond each."""
    machine = g.GossipMachine()
    machine.step(g.Opened(0, EMPTY), 0.0)
    with pytest.raises(RemoteError) as caught:
        machine.step(message, 0.0)
    assert caught.value.reason is reason


@settings(max_examples=60)
@given(fact_sets, fact_sets)
def test_two_random_sets_become_one(ours: set[Fact], theirs: set[Fact]) -> None:
    """Goal: one reconciliation is enough, and no body comes twice or in vain. Method: two ends open at once."""
    a, b = End(ours), End(theirs)
    a.open()
    b.open()
    settle(a, b)
    assert set(a.facts.values()) == set(b.facts.values()) == ours | theirs
    assert sorted(a.delivered) == sorted(theirs - ours)
    assert sorted(b.delivered) == sorted(ours - theirs)


def test_large_sets_become_one_with_few_bodies_in_memory() -> None:
    """Goal: a newcomer learns thousands of facts within the bounds. Method: 3,000 facts on one side, 1,000 others on the other."""
    a, b = End((16, b"%d" % number) for number in range(3000)), End((20, b"%d" % number) for number in range(1000))
    a.open()
    b.open()
    settle(a, b)
    assert len(a.facts) == len(b.facts) == 4000
    assert max(a.loads_max, b.loads_max) <= g.LOAD_IDS_MAX


def test_what_does_not_fit_comes_with_the_next_reconciliation() -> None:
    """Goal: the bound on wanted ids loses nothing. Method: 6,000 facts, more than WANTED_MAX, and no answer to the first Want."""
    a, b = End((16, b"%d" % number) for number in range(6000)), End()
    a.open()
    b.open()
    while a.said:
        b.hear(a.said.popleft())
    wants = [decode_message("gossip", frame) for frame in b.said]
    while b.said:  # our summary reaches them, their wants get lost
        frame = b.said.popleft()
        if not isinstance(decode_message("gossip", frame), m.Want):
            a.hear(frame)
    assert not any(isinstance(want, m.Want) for want in wants)
    while a.said:
        b.hear(a.said.popleft())
    lost = [decode_message("gossip", b.said.popleft()) for _ in range(len(b.said))]
    assert sum(len(want.ids) for want in lost if isinstance(want, m.Want)) == g.WANTED_MAX
    for turn in range(1, 4):
        now = turn * g.RECONCILE_INTERVAL_S
        a.hear(encode_message("gossip", m.Seen((), 0, 0)), now)
        b.hear(encode_message("gossip", m.Seen((), 0, 0)), now)
        a.step(g.Tick(), now)
        b.step(g.Tick(), now)
        settle(a, b, now)
    assert len(b.facts) == 6000


def test_news_travels_once_and_unasked_bodies_are_ignored() -> None:
    """Goal: nobody can fill our memory unasked. Method: a body before it is wanted, when it is, and again."""
    a, b = End([A]), End()
    a.open()
    b.open()
    b.hear(encode_message("gossip", m.Bodies((A, B))))
    assert b.delivered == []
    settle(a, b)
    assert b.delivered == [A]
    b.hear(encode_message("gossip", m.Bodies((A,))))
    assert b.delivered == [A]
    a.facts[B_ID] = B
    a.step(g.HaveFacts((B_ID,)))
    settle(a, b)
    assert b.delivered == [A, B]


def test_id_is_wanted_again_only_after_patience() -> None:
    """Goal: no body is asked for twice while it may still come. Method: announced again and again."""
    machine = g.GossipMachine()
    machine.step(g.Opened(0, EMPTY), 0.0)
    assert machine.step(g.Unknown((A_ID,)), 0.0) == (Send(m.Want((A_ID,))),)
    assert machine.step(g.Unknown((A_ID,)), g.WANT_PATIENCE_S - 1) == ()
    assert machine.step(g.Unknown((A_ID,)), g.WANT_PATIENCE_S) == (Send(m.Want((A_ID,))),)


def test_wants_beyond_the_bound_are_dropped_and_never_loaded_at_once() -> None:
    """Goal: a peer that wants without end. Method: Want after Want while nothing is loaded yet."""
    machine = g.GossipMachine()
    machine.step(g.Opened(0, EMPTY), 0.0)
    effects: list[object] = []
    for start in range(0, 2 * g.ASKED_MAX, g.IDS_PER_MESSAGE_MAX):
        ids = tuple(bytes(fact_id(16, b"%d" % (start + number))) for number in range(g.IDS_PER_MESSAGE_MAX))
        effects.extend(machine.step(m.Want(ids), 0.0))
    assert [type(effect) for effect in effects] == [g.LoadBodies]
    loaded = 0
    while effects:
        (load,) = effects
        assert isinstance(load, g.LoadBodies)
        assert len(load.ids) <= g.LOAD_IDS_MAX
        loaded += len(load.ids)
        effects = list(machine.step(g.Loaded(()), 0.0))
    # The first load left the queue before it was full.
    assert loaded == g.ASKED_MAX + g.LOAD_IDS_MAX


def test_silent_peer_is_left_and_a_speaking_one_kept() -> None:
    """Goal: an unplugged peer is noticed within 20 s. Method: ticks at wake_at, with and without a word of the peer."""
    for speaks in (True, False):
        end = End()
        end.open()
        now = 0.0
        while now < 60.0 and not end.closed:
            wake_at = end.machine.wake_at()
            assert wake_at is not None
            assert wake_at > now
            now = wake_at
            end.step(g.Tick(), now)
            if speaks and not end.closed:
                end.hear(encode_message("gossip", m.Seen((), 0, 0)), now)
        assert end.closed is not speaks
        assert speaks or now == g.SILENCE_MAX_S


def test_round_trip_is_measured_by_the_pong_of_this_ping_only() -> None:
    """Goal: no peer can make up a round-trip time with old or unasked pongs. Method: wrong pongs before the right one, twice."""
    end = End()
    end.open(10.0)
    for pong in (0, 7, 1, 1):
        end.hear(encode_message("gossip", m.Seen((), 0, pong)), 10.5)
    assert [heard.rtt_s for heard in end.heard] == [None, None, 0.5, None]


def test_bodies_are_cut_into_messages_below_the_bound() -> None:
    """Goal: no frame near its limit. Method: bodies of the largest size."""
    machine = g.GossipMachine()
    machine.step(g.Opened(0, EMPTY), 0.0)
    effects = machine.step(g.Loaded(tuple((16, bytes(g.BODY_BYTES_MAX)) for _ in range(3)) + ((16, b""),)), 0.0)
    sizes = [
        sum(len(body) for _, body in effect.message.items)
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, m.Bodies)
    ]
    assert len(sizes) == 3
    assert max(sizes) <= g.BODIES_BYTES_MAX
