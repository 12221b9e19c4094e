"""The six request machines, completely, for short sequences of events."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from protocols.crypto import sha256
from protocols.effects import Send
from protocols.errors import RemoteError
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.limits import SEALED_CHUNK_BYTES_MAX

from .requests import ANSWER, bodies_of, place_of

BODIES = bodies_of(2)
PLACE = place_of(BODIES)
NAMES = dict(enumerate(PLACE.names))
LIE = m.Chunk(1, 0, b"\xff" * len(BODIES[0]))
LENGTH = 5

Machine = x.PlaceAsker | x.PlaceServer | x.FetchAsker | x.FetchServer | x.BundleAsker | x.BundleServer
LARGE = (b"l" * x.BEHIND_CHUNK_BYTES_MIN, b"m" * x.BEHIND_CHUNK_BYTES_MIN)
# A small chunk, a large one, another small one in the next record with the second large one.
RECORDS = (
    m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (BODIES[0], LARGE[0])),)),
    m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (LARGE[1],)), m.BundledSequence(1, (), (BODIES[1],)))),
)
SAID = x.parted(RECORDS)[0]
BUNDLED = m.Bundled(1, (ANSWER,))


@dataclass
class Run:
    """One sequence of events, as far as the request lived, and what came of it."""

    events: list[object] = field(default_factory=list)
    effects: list[object] = field(default_factory=list)

    def credit(self) -> int:
        """Bytes that the peer allowed in all."""
        allowed = 0
        for event in self.events:
            match event:
                case m.Need(credit=credit) | m.Fetch(credit=credit) | m.Credit(bytes=credit):
                    allowed += credit
        return allowed

    def asked(self) -> list[int]:
        """Chunk indexes that were to be read from disk, in order."""
        return [index for effect in self.effects if isinstance(effect, x.Load) for index in effect.indexes]


def run(machine: Machine, events: Sequence[object]) -> Run:
    """Steps ``machine`` until the peer is found at fault. Only RemoteError may come out; after the end nothing is said."""
    done = Run()
    for now, event in enumerate(events):
        ended = machine.ended
        try:
            effects = machine.step(event, float(now * 20))
        except RemoteError:
            break
        assert not (ended and effects), (events, effects)
        if not ended:
            done.events.append(event)
        done.effects.extend(effects)
    ends = [effect for effect in done.effects if isinstance(effect, x.Finished | x.Failed)]
    assert len(ends) <= 1
    if ends:
        assert machine.ended
    if machine.ended:
        assert machine.wake_at() is None
    return done


def sequences(first: object, others: Sequence[object], make: Callable[[], Machine]) -> list[Run]:
    """Every sequence that begins with ``first`` and goes on with up to LENGTH - 1 of ``others``."""
    return [run(make(), (first, *rest)) for rest in itertools.product(others, repeat=LENGTH - 1)]


def test_nothing_is_stored_unhashed_and_nothing_said_before_it_is_kept() -> None:
    """Goal: lesson 4 at the holder. Method: all sequences of five events of PlaceServer; effects are judged by what came before."""
    others = (
        m.Chunk(1, 0, BODIES[0]),
        m.Chunk(1, 1, BODIES[1]),
        LIE,
        m.Cancel(1),
        x.Checked((0,)),
        x.Checked(()),
        x.Rejected("E-QUOTA"),
        x.Stored((0,)),
        x.Committed(ANSWER),
        x.Tick(),
    )
    ends = set()
    for done in sequences(PLACE, others, lambda: x.PlaceServer(1)):
        for effect in done.effects:
            match effect:
                case x.Store(index, name, data):
                    assert sha256(data) == name == PLACE.names[index]
                    assert x.Checked((0,)) in done.events
                case x.Commit():
                    assert x.Checked(()) in done.events or x.Stored((0,)) in done.events
                case Send(m.Placed(answer=answer)):
                    assert x.Committed(ANSWER) in done.events
                    assert answer is ANSWER
                case Send(m.Need()):
                    assert x.Checked((0,)) in done.events
                case x.Finished() | x.Failed():
                    ends.add(type(effect))
                case x.CheckPlace() | Send(m.Credit() | m.Refused()):
                    pass
                case _:
                    raise AssertionError(effect)
        assert LIE not in done.events
    assert ends == {x.Finished, x.Failed}


def test_asker_sends_only_what_is_needed_and_within_its_credit() -> None:
    """Goal: credit is never exceeded. Method: all sequences of five events of PlaceAsker with a credit of one chunk at a time."""
    size = len(BODIES[0])
    others = (
        m.Need(1, (0, 1), size),
        m.Need(1, (1,), size),
        m.Need(1, (2,), size),
        m.Need(1, (), 0),
        m.Credit(1, size),
        m.Credit(1, 0),
        m.Placed(1, ANSWER),
        m.Refused(1, "E-FULL"),
        x.Loaded(((0, BODIES[0]),)),
        x.Loaded(((1, None),)),
        x.Abandon(),
        x.Tick(),
    )
    loads = 0
    for done in sequences(x.Start(), others, lambda: x.PlaceAsker(PLACE)):
        credit, asked = done.credit(), done.asked()
        needed = {index for event in done.events if isinstance(event, m.Need) for index in event.missing}
        assert len(asked) == len(set(asked))
        assert set(asked) <= needed <= {0, 1}
        assert len(asked) * size <= credit
        assert m.Need(1, (), 0) not in done.events
        loads += len(asked)
        for end in (effect for effect in done.effects if isinstance(effect, x.Finished)):
            assert end.answer is ANSWER
    assert loads


def test_only_chunks_that_hash_to_their_names_are_delivered() -> None:
    """Goal: a reader never meets other bytes. Method: all sequences of five events of FetchAsker."""
    others = (
        m.Chunk(1, 0, BODIES[0]),
        m.Chunk(1, 1, BODIES[1]),
        LIE,
        m.Chunk(1, 2, BODIES[0]),
        x.Consumed(len(BODIES[0])),
        m.Done(1),
        m.Done(1, (1,)),
        m.Refused(1, "E-NOT-FOUND"),
        x.Abandon(),
        x.Tick(),
    )
    delivered = 0
    for done in sequences(x.Start(), others, lambda: x.FetchAsker(1, PLACE.root, NAMES)):
        came = {}
        for effect in done.effects:
            match effect:
                case x.Deliver(index, data):
                    assert sha256(data) == NAMES[index]
                    assert index not in came
                    came[index] = data
                case x.Finished(missing=missing):
                    assert set(missing) | set(came) == {0, 1}
                    assert not set(missing) & set(came)
                case _:
                    assert isinstance(effect, Send | x.Failed)
        delivered += len(came)
        assert LIE not in done.events
    assert delivered


def test_holder_sends_each_chunk_once_and_within_the_credit() -> None:
    """Goal: what is sent was asked for. Method: all sequences of five events of FetchServer; one chunk of the largest size is given."""
    others = (
        x.Loaded(((0, BODIES[0]),)),
        x.Loaded(((1, None),)),
        x.Loaded(((0, BODIES[0]), (1, BODIES[1]))),
        m.Credit(1, SEALED_CHUNK_BYTES_MAX),
        m.Credit(1, 0),
        m.Cancel(1),
        x.Rejected("E-STORE-FULL"),
        x.Tick(),
    )
    seen = set()
    first = m.Fetch(1, PLACE.root, (0, 1), SEALED_CHUNK_BYTES_MAX)
    for done in sequences(first, others, lambda: x.FetchServer(1)):
        credit, asked = done.credit(), done.asked()
        assert asked == [0, 1][: len(asked)]
        # Every chunk counts as one of the largest size until it is read.
        answered = sum(isinstance(event, x.Loaded) for event in done.events)
        assert (len(asked) - 2 * answered) * SEALED_CHUNK_BYTES_MAX <= credit
        seen |= {type(effect) for effect in done.effects}
    assert seen == {Send, x.Load, x.Finished, x.Failed}


def test_bundle_is_kept_when_it_is_whole_and_answered_when_it_is_kept() -> None:
    """Goal: nothing is judged in parts, and lesson 4. Method: all sequences of five events of BundleServer behind a bundle that lacks two
    chunks; what is to be kept is what was bundled, and nobody holds bytes that were not counted."""
    others = (
        m.Chunk(1, 0, LARGE[0]),
        m.Chunk(1, 1, LARGE[1]),
        m.Chunk(1, 2, LARGE[1]),
        m.Chunk(1, 0, b""),
        m.Chunk(1, 1, bytes(SEALED_CHUNK_BYTES_MAX + 1)),
        m.Cancel(1),
        x.Kept(BUNDLED),
        x.Rejected("E-FULL"),
        x.Tick(),
    )
    kept = answered = 0
    for done in sequences(m.Bundle(1, SAID), others, lambda: x.BundleServer(1)):
        came = [event for event in done.events if isinstance(event, m.Chunk)]
        assert [event.data for event in came] == list(LARGE[: len(came)])
        assert [effect for effect in done.effects if isinstance(effect, x.Gathered)] == [x.Gathered(len(one.data)) for one in came]
        for effect in done.effects:
            match effect:
                case x.Keep(bundle):
                    assert bundle == m.Bundle(1, RECORDS)
                    kept += 1
                case Send(m.Bundled()):
                    assert x.Kept(BUNDLED) in done.events
                    answered += 1
                case _:
                    assert isinstance(effect, x.Gathered | x.Finished | x.Failed | Send)
    assert kept > answered > 0


def test_asker_of_a_bundle_says_all_of_it_at_once_in_order() -> None:
    """Goal: the other side can put it together, and what is small needs no frame of its own. Method: all sequences of five events of
    BundleAsker."""
    others = (BUNDLED, m.Refused(1, "E-FULL"), x.Abandon(), x.Tick())
    ends = set()
    for done in sequences(x.Start(), others, lambda: x.BundleAsker(1, RECORDS)):
        first, *chunks = done.effects[:3]
        assert first == Send(m.Bundle(1, SAID))
        assert chunks == [Send(m.Chunk(1, index, data)) for index, data in enumerate(LARGE)]
        for effect in done.effects[3:]:
            match effect:
                case x.Finished(bundled=bundled):
                    assert bundled is BUNDLED
                    ends.add("kept")
                case x.Failed(reason=reason):
                    ends.add(reason.stable_name)
                case _:
                    assert effect == Send(m.Cancel(1))
    assert ends == {"kept", "E-FULL", "E-STALLED"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: x.PlaceServer(1),
        lambda: x.PlaceAsker(PLACE),
        lambda: x.FetchAsker(1, PLACE.root, NAMES),
        lambda: x.FetchServer(1),
        lambda: x.BundleServer(1),
        lambda: x.BundleAsker(1, RECORDS),
    ],
    ids=["place-server", "place-asker", "fetch-asker", "fetch-server", "bundle-server", "bundle-asker"],
)
def test_whatever_the_peer_says_only_remote_error_comes_out(make: Callable[[], Machine]) -> None:
    """Goal: no byte from a peer makes an assertion false. Method: every message of the conversation, in every order of four."""
    said: tuple[object, ...] = (
        PLACE,
        m.Place(1, b"", (), (), PLACE.authority),
        m.Place(1, PLACE.root, PLACE.names, (2**62, 17), PLACE.authority),
        m.Need(1, (0,), 2**63),
        m.Chunk(1, 0, BODIES[0]),
        LIE,
        m.Chunk(1, 2**63, b""),
        m.Credit(1, -1),
        m.Placed(1, ANSWER),
        m.Refused(1, "E-NEVER-HEARD-OF"),
        m.Fetch(1, PLACE.root, (0, 1), 2**63),
        m.Fetch(1, b"root", (-1,), -1),
        m.Done(1, (7, 7)),
        m.Cancel(1),
        m.Bundle(1, SAID),
        m.Bundled(1, (), ((7, "E-NEVER-HEARD-OF", ""),)),
    )
    started = isinstance(make(), x.PlaceAsker | x.FetchAsker | x.BundleAsker)
    for rest in itertools.product(said, repeat=3 if started else 4):
        run(make(), (x.Start(), *rest) if started else rest)
