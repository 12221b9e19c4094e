"""An asker and a holder over two lossless queues that may be cut at any moment, with every interleaving that Hypothesis finds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.crypto import sha256
from protocols.effects import Send
from protocols.errors import Reason
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.limits import SEALED_CHUNK_BYTES_MAX
from protocols.registry import decode_message, encode_message

from .requests import ANSWER, bodies_of, place_of

SIZE = SEALED_CHUNK_BYTES_MAX
BODIES = bodies_of(20, SIZE)  # more than one credit
SMALL = bodies_of(8)
STEPS_MAX = 2000

Machine = x.PlaceAsker | x.PlaceServer | x.FetchAsker | x.FetchServer


@dataclass
class End:
    """One machine with its surroundings. work: what its own disk or reader has still to do; said: messages not taken by the other yet."""

    machine: Machine
    disk: dict[int, bytes]
    work: deque[object] = field(default_factory=deque)
    said: deque[bytes] = field(default_factory=deque)
    outcome: list[x.Finished | x.Failed] = field(default_factory=list)
    unread_bytes: int = 0
    unread_bytes_max: int = 0

    def step(self, event: object, now_s: float) -> None:
        for effect in self.machine.step(event, now_s):
            match effect:
                case Send(message):
                    self.said.append(encode_message("exchange", message))
                case x.Finished() | x.Failed():
                    self.outcome.append(effect)
                case x.Deliver(data=data) | x.Store(data=data):
                    self.unread_bytes += len(data)
                    self.unread_bytes_max = max(self.unread_bytes, self.unread_bytes_max)
                    self.work.append(effect)
                case _:
                    self.work.append(effect)

    def do_work(self, now_s: float) -> None:
        effect = self.work.popleft()
        match effect:
            case x.CheckPlace(place):
                self.step(x.Checked(tuple(i for i in range(len(place.names)) if i not in self.disk)), now_s)
            case x.Store(index, name, data):
                assert sha256(data) == name
                self.unread_bytes -= len(data)
                self.disk[index] = data
                self.step(x.Stored((index,)), now_s)
            case x.Commit(place):
                assert len(self.disk) == len(place.names)
                self.step(x.Committed(ANSWER), now_s)
            case x.Load(_, indexes):
                self.step(x.Loaded(tuple((index, self.disk.get(index)) for index in indexes)), now_s)
            case x.Deliver(index, data):
                self.unread_bytes -= len(data)
                self.disk[index] = data
                self.step(x.Consumed(len(data)), now_s)
            case _:
                raise AssertionError(effect)


def play(asker: End, holder: End, draw: st.DataObject, *, cut_at: int | None) -> float:
    """Lets both run until nothing can happen but time. cut_at: after so many steps nothing of either arrives any more.

    Time passes only when nothing else can happen, so a request that needs patience without a cut stands still: a deadlock."""
    now = 0.0
    asker.step(x.Start(), now)
    first = True
    for step in range(STEPS_MAX):
        if cut_at is not None and step >= cut_at:
            asker.said.clear()
            holder.said.clear()
        moves = [(end, "work") for end in (asker, holder) if end.work]
        moves += [(end, "hear") for end, other in ((asker, holder), (holder, asker)) if other.said]
        if moves:
            end, what = moves[draw.draw(st.integers(0, len(moves) - 1), label=f"of {len(moves)}")] if len(moves) > 1 else moves[0]
            if what == "work":
                end.do_work(now)
                continue
            message = decode_message("exchange", (holder if end is asker else asker).said.popleft())
            if end is holder and not first and isinstance(message, m.Place | m.Fetch):
                raise AssertionError("asked twice")
            first = first and end is not holder
            end.step(message, now)
            continue
        wakes = [(wake_at, end) for end in (asker, holder) if (wake_at := end.machine.wake_at()) is not None]
        if not wakes:
            return now
        now, end = min(wakes, key=lambda wake: wake[0])
        end.step(x.Tick(), now)
    raise AssertionError("no end")


@settings(max_examples=50)
@given(st.sets(st.integers(0, 19)), st.data())
def test_place_brings_exactly_what_is_missing(present: set[int], draw: st.DataObject) -> None:
    """Goal: both sides finish, without waiting for patience, whatever comes first. Method: any part is there already; any interleaving."""
    asker = End(x.PlaceAsker(place_of(BODIES)), dict(enumerate(BODIES)))
    holder = End(x.PlaceServer(1), {index: BODIES[index] for index in present})
    assert play(asker, holder, draw, cut_at=None) == 0.0
    assert holder.disk == asker.disk
    assert holder.unread_bytes_max <= x.CREDIT_BYTES
    assert asker.outcome == [x.Finished(answer=ANSWER, sent_bytes=SIZE * (20 - len(present)))]
    assert holder.outcome == [x.Finished(answer=ANSWER)]


@given(st.sets(st.integers(0, 19)), st.sets(st.integers(0, 19)), st.integers(0, 3), st.data())
def test_fetch_brings_what_is_there_with_any_credit(present: set[int], wanted: set[int], more: int, draw: st.DataObject) -> None:
    """Goal: no credit is so small that both wait for each other. Method: credits of one chunk and some bytes to four, any interleaving."""
    credit = SIZE + more * (SIZE - 1)
    names = {index: bytes(sha256(BODIES[index])) for index in wanted}
    asker = End(x.FetchAsker(1, place_of(BODIES).root, names, credit=credit), {})
    holder = End(x.FetchServer(1), {index: BODIES[index] for index in present})
    assert play(asker, holder, draw, cut_at=None) == 0.0
    assert asker.disk == {index: BODIES[index] for index in present & wanted}
    assert asker.unread_bytes_max <= credit
    missing = tuple(sorted(wanted - present))
    assert asker.outcome == [x.Finished(missing=missing)]
    assert holder.outcome == [x.Finished(missing=missing)]


@given(st.sampled_from(["place", "fetch"]), st.integers(0, 60), st.data())
def test_cut_at_any_point_ends_with_a_reason_on_both_sides(what: str, cut_at: int, draw: st.DataObject) -> None:
    """Goal: nobody waits for ever. Method: from some step on nothing arrives; each side is Finished or Failed for a reason it can name."""
    server: x.PlaceServer | x.FetchServer = x.PlaceServer(1)
    if what == "fetch":
        names = {index: bytes(sha256(body)) for index, body in enumerate(BODIES)}
        asker = End(x.FetchAsker(1, place_of(BODIES).root, names), {})
        server = x.FetchServer(1)
        holder = End(server, dict(enumerate(BODIES)))
    else:
        asker, holder = End(x.PlaceAsker(place_of(BODIES)), dict(enumerate(BODIES))), End(server, {})
    took_s = play(asker, holder, draw, cut_at=cut_at)
    assert took_s <= 2 * x.PLACE_PATIENCE_S
    for end in (asker, holder):
        if end is holder and end.machine.state is x.RequestState.NEW:
            continue  # it never heard of the request
        assert end.machine.ended
        (outcome,) = end.outcome
        if isinstance(outcome, x.Failed):
            assert outcome.reason in (Reason.STALLED, Reason.CANCELLED)
