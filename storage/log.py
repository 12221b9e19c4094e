"""The node's own events for its operator, bounded: the oldest make room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from protocols.codec import encode, from_json, to_json
from protocols.types import UnixSeconds

from .engine import Snapshot, Write
from .keys import Key
from .overlay import Overlay
from .tables import KEYS, LOG
from .values import FORMAT, NUMBER_BYTES, SUITE, Stored, load, number

EVENTS_MAX = 10_000
EVENT_BYTES_MAX = 4096


class _Event(Stored, frozen=True):
    at: int
    name: str
    facts: bytes


class _Ends(Stored, frozen=True):
    first: int
    after_last: int


@dataclass(frozen=True, slots=True)
class Event:
    """number: grows by one. name: what happened; facts: plain JSON values, no keys, no plain bytes."""

    number: int
    at: UnixSeconds
    name: str
    facts: Mapping[str, object]


def _ends(snapshot: Snapshot) -> _Ends:
    data = snapshot.get(KEYS, Key.LOG_ENDS.value)
    return _Ends(FORMAT, SUITE, 0, 0) if data is None else load(KEYS, data, _Ends)


def append(
    snapshot: Snapshot, events: Sequence[tuple[str, Mapping[str, object]]], *, now: UnixSeconds, events_max: int = EVENTS_MAX
) -> list[Write]:
    """Adds (name, facts) events and lets the oldest go beyond ``events_max``. Facts above EVENT_BYTES_MAX are left out, with a word."""
    overlay = Overlay(snapshot)
    ends = _ends(snapshot)
    after_last = ends.after_last
    for name, facts in events:
        text = to_json(dict(facts))
        if len(text) > EVENT_BYTES_MAX:
            text = to_json({"left_out_bytes": len(text)})
        overlay.put(LOG, number(after_last), encode(_Event(FORMAT, SUITE, now, name, text)))
        after_last += 1
    first = max(ends.first, after_last - events_max)
    for old in range(ends.first, first):
        overlay.delete(LOG, number(old))
    overlay.put(KEYS, Key.LOG_ENDS.value, encode(_Ends(FORMAT, SUITE, first, after_last)))
    return overlay.writes


def newest(snapshot: Snapshot, *, limit: int) -> tuple[Event, ...]:
    """The last ``limit`` events, oldest first."""
    return tuple(since(snapshot, max(0, _ends(snapshot).after_last - limit)))


def since(snapshot: Snapshot, first: int) -> Iterator[Event]:
    """Events from that number on."""
    for key, data in snapshot.scan(LOG, start=number(first)):
        value = load(LOG, data, _Event)
        facts = from_json(value.facts)
        assert isinstance(facts, dict)
        yield Event(int.from_bytes(key[:NUMBER_BYTES], "big"), UnixSeconds(value.at), value.name, facts)
