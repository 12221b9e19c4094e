"""What one side may make the other do: memory, work, patience."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import encode
from protocols.effects import Send
from protocols.errors import Reason, RemoteError, Verdict
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.limits import LINK_RATE_MIN, RECEIPT_ITEMS_MAX, SEALED_CHUNK_BYTES_MAX
from protocols.signed import Signed

from .requests import ANSWER, bodies_of, place_of

BODIES = bodies_of(40)
PLACE = place_of(BODIES)


def test_boundless_credit_does_not_make_us_read_everything_at_once() -> None:
    """Goal: memory. Method: a holder that gives 2^62 bytes; one Load at a time, of LOAD_CHUNKS_MAX chunks."""
    asker = x.PlaceAsker(PLACE)
    asker.step(x.Start(), 0.0)
    effects = asker.step(m.Need(1, tuple(range(40)), 2**62), 0.0)
    assert [len(effect.indexes) for effect in effects if isinstance(effect, x.Load)] == [x.LOAD_CHUNKS_MAX]
    assert asker.step(m.Credit(1, 2**62), 0.0) == ()
    (*sends, more) = asker.step(x.Loaded(tuple((index, BODIES[index]) for index in range(x.LOAD_CHUNKS_MAX))), 0.0)
    assert len(sends) == x.LOAD_CHUNKS_MAX
    assert isinstance(more, x.Load)
    assert more.indexes == tuple(range(x.LOAD_CHUNKS_MAX, 2 * x.LOAD_CHUNKS_MAX))


def test_peer_beyond_its_credit_is_a_flood() -> None:
    """Goal: no more than the credit is held. Method: chunks of the largest size until it is used up."""
    bodies = bodies_of(17, SEALED_CHUNK_BYTES_MAX)
    holder = x.PlaceServer(1)
    holder.step(place_of(bodies), 0.0)
    holder.step(x.Checked(tuple(range(17))), 0.0)
    for index in range(15):
        holder.step(m.Chunk(1, index, bodies[index]), 0.0)
    with pytest.raises(RemoteError) as caught:
        holder.step(m.Chunk(1, 15, bodies[15]), 0.0)
    assert caught.value.reason is Reason.FLOOD


def test_wrong_bytes_ban_the_peer_in_both_directions() -> None:
    """Goal: a liar is not asked again. Method: bytes of the right length under a wrong name."""
    holder = x.PlaceServer(1)
    holder.step(PLACE, 0.0)
    holder.step(x.Checked((0,)), 0.0)
    reader = x.FetchAsker(1, PLACE.root, {0: PLACE.names[0]})
    reader.step(x.Start(), 0.0)
    for machine in (holder, reader):
        with pytest.raises(RemoteError) as caught:
            machine.step(m.Chunk(1, 0, BODIES[1]), 0.0)
        assert (caught.value.reason, caught.value.verdict) == (Reason.WRONG_NAME, Verdict.BAN)


@pytest.mark.parametrize(
    "place",
    [
        m.Place(1, PLACE.root[:31], PLACE.names, PLACE.sizes, PLACE.authority),
        m.Place(1, PLACE.root, (), (), PLACE.authority),
        m.Place(1, PLACE.root, PLACE.names, PLACE.sizes[1:], PLACE.authority),
        m.Place(1, PLACE.root, (b"short",), (1040,), PLACE.authority),
        m.Place(1, PLACE.root, PLACE.names[:1], (16,), PLACE.authority),
        m.Place(1, PLACE.root, PLACE.names[:1], (SEALED_CHUNK_BYTES_MAX + 1,), PLACE.authority),
        m.Place(1, PLACE.root, PLACE.names[:1] * 4097, (1040,) * 4097, PLACE.authority),
    ],
)
def test_place_out_of_bounds_is_refused_before_anything_is_looked_up(place: m.Place) -> None:
    """Goal: our stores never meet a key of another length. Method: one bound broken at a time."""
    with pytest.raises(RemoteError) as caught:
        x.PlaceServer(1).step(place, 0.0)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "fetch",
    [
        m.Fetch(1, PLACE.root[:31], (0,), 1),
        m.Fetch(1, PLACE.root, (0, 0), 1),
        m.Fetch(1, PLACE.root, (-1,), 1),
        m.Fetch(1, PLACE.root, (x.SEQUENCE_CHUNKS_MAX,), 1),
        m.Fetch(1, PLACE.root, (0,), 0),
    ],
)
def test_fetch_out_of_bounds_is_refused(fetch: m.Fetch) -> None:
    """Goal and method as above."""
    with pytest.raises(RemoteError) as caught:
        x.FetchServer(1).step(fetch, 0.0)
    assert caught.value.reason is Reason.MALFORMED


HASH = bytes(32)
WHOLE = m.BundledSequence(0, (HASH,), (bytes(17),))


@pytest.mark.parametrize(
    "question",
    [
        m.Confirm(1, ANSWER, -1, ()),
        m.Confirm(1, ANSWER, 1, ((0, b"root", ()),)),
        m.Confirm(1, ANSWER, 1, ((0, HASH, (b"step",)),)),
        m.Confirm(1, ANSWER, 1, ((2**63, HASH, ()),)),
        m.Describe(1, b"", HASH, 0),
        m.Describe(1, HASH, HASH + b"x", 0),
        m.Describe(1, HASH, HASH, -1),
        m.Audit(1, b"nonce", ()),
        m.Audit(1, HASH, ((b"name", 0, 1),)),
        m.Audit(1, HASH, ((HASH, -1, 1),)),
        m.Bundle(1, ()),
        m.Bundle(1, (m.BundledRecord(ANSWER, ()),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (WHOLE,)), m.BundledRecord(ANSWER, ()))),
        m.Bundle(1, (m.BundledRecord(ANSWER, (WHOLE, WHOLE)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (), ()),)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (bytes(16),)),)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (bytes(SEALED_CHUNK_BYTES_MAX + 1),)),)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (b"step",), (bytes(17),)),)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(-1, (), (bytes(17),)),)),)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (WHOLE,)),) * (RECEIPT_ITEMS_MAX + 1)),
        m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (b"",) * (x.BEHIND_CHUNKS_MAX + 1)),)),)),
    ],
)
def test_question_with_other_than_hashes_is_refused(question: m.Confirm | m.Describe | m.Audit | m.Bundle) -> None:
    """Goal and method as above."""
    with pytest.raises(RemoteError) as caught:
        x.check_question(question)
    assert caught.value.reason is Reason.MALFORMED


def test_lawful_questions_pass() -> None:
    """Goal: the check refuses nothing lawful. Method: one of each."""
    x.check_question(m.Confirm(1, ANSWER, 2, ((1, HASH, (HASH,)),)))
    x.check_question(m.Describe(1, HASH, HASH, 0))
    x.check_question(m.Audit(1, HASH, ((HASH, 0, 4096),)))
    x.check_question(m.Bundle(1, (m.BundledRecord(ANSWER, (WHOLE,)),) * RECEIPT_ITEMS_MAX))


@given(st.lists(st.lists(st.integers(17, 2000), min_size=1, max_size=4), min_size=1, max_size=4), st.integers(0, 32), st.integers(0, 2**32))
def test_bundle_is_never_longer_than_it_is_counted(sizes: list[list[int]], depth: int, index: int) -> None:
    """Goal: what fits by our count fits a frame. Method: records of any shape, encoded."""
    parts = tuple(m.BundledSequence(index + n, (HASH,) * depth, tuple(map(bytes, chunks))) for n, chunks in enumerate(sizes))
    record = m.BundledRecord(Signed(bytes(700), HASH, bytes(64)), parts)
    assert len(encode(record)) <= x.bundled_bytes(record)


def test_what_follows_a_bundle_is_bounded() -> None:
    """Goal: memory. Method: as many of the largest chunks as a bundle may announce; what a lawful asker brings fits, one more does not."""
    said = m.Bundle(1, (m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (b"",) * x.BEHIND_CHUNKS_MAX),)),))
    holder = x.BundleServer(1)
    holder.step(said, 0.0)
    data = bytes(SEALED_CHUNK_BYTES_MAX)
    fits = x.BEHIND_BYTES_MAX // len(data)
    for index in range(fits):
        holder.step(m.Chunk(1, index, data), 0.0)
    with pytest.raises(RemoteError) as caught:
        holder.step(m.Chunk(1, fits, data), 0.0)
    assert caught.value.reason is Reason.FLOOD
    whole = m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (data,) * fits),))
    assert x.behind_bytes(whole) == x.BEHIND_BYTES_MAX
    assert x.bundled_bytes(whole) < 1024


def test_late_bundle_is_given_up_by_both_and_a_slow_link_is_no_lateness() -> None:
    """Goal: nobody waits for ever, nobody is blamed for the link. Method: nothing follows; no answer comes to 4 MiB."""
    data = bytes(SEALED_CHUNK_BYTES_MAX)
    record = m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (data,) * 16),))
    holder = x.BundleServer(1)
    holder.step(m.Bundle(1, x.parted((record,))[0]), 0.0)
    holder.step(m.Chunk(1, 0, data), 20.0)
    assert holder.wake_at() == 20.0 + x.PLACE_PATIENCE_S
    said, failed = holder.step(x.Tick(), 50.0)
    assert isinstance(said, Send)
    assert isinstance(failed, x.Failed)
    assert (failed.reason, holder.ended) == (Reason.STALLED, True)
    asker = x.BundleAsker(1, (record,))
    asker.step(x.Start(), 0.0)
    due = x.PLACE_PATIENCE_S + 16 * len(data) / LINK_RATE_MIN
    assert asker.wake_at() == due
    assert asker.step(x.Tick(), due - 1) == ()
    assert [type(effect) for effect in asker.step(x.Tick(), due)] == [Send, x.Failed]


def test_nobody_is_woken_while_our_own_disk_is_slow() -> None:
    """Goal: no tick that cannot change anything, hence no spinning and no blame. Method: each machine while it waits."""
    holder = x.PlaceServer(1)
    holder.step(PLACE, 0.0)
    assert holder.wake_at() is None
    holder.step(x.Checked((0, 1)), 0.0)
    assert holder.wake_at() == x.PLACE_PATIENCE_S
    holder.step(m.Chunk(1, 0, BODIES[0]), 1.0)
    assert holder.wake_at() is None
    assert holder.step(x.Tick(), 1000.0) == ()
    holder.step(x.Stored((0,)), 1000.0)
    assert holder.wake_at() == 1000.0 + x.PLACE_PATIENCE_S
    reader = x.FetchAsker(1, PLACE.root, {0: PLACE.names[0]})
    reader.step(x.Start(), 0.0)
    reader.step(m.Chunk(1, 0, BODIES[0]), 1.0)
    assert reader.wake_at() is None
    server = x.FetchServer(1)
    server.step(m.Fetch(1, PLACE.root, (0,), x.CREDIT_BYTES), 0.0)
    assert server.wake_at() is None
    asker = x.PlaceAsker(PLACE)
    asker.step(x.Start(), 0.0)
    asker.step(m.Need(1, (0,), 2000), 0.0)
    assert asker.wake_at() is None


def test_stalling_peers_are_told_and_given_up() -> None:
    """Goal: a reason on both sides. Method: no chunk, no credit, until patience ends."""
    holder = x.PlaceServer(1)
    holder.step(PLACE, 0.0)
    holder.step(x.Checked((0,)), 0.0)
    server = x.FetchServer(1)
    server.step(m.Fetch(1, PLACE.root, (0,), 1), 0.0)
    for machine in (holder, server):
        assert machine.step(x.Tick(), x.PLACE_PATIENCE_S - 1) == ()
        say, end = machine.step(x.Tick(), x.PLACE_PATIENCE_S)
        assert isinstance(say, Send)
        assert isinstance(say.message, m.Refused)
        assert x.reason_named(say.message.reason) is Reason.STALLED
        assert isinstance(end, x.Failed)
