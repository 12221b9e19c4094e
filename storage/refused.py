"""What the chain refused from peers and from here, counted by kind and reason; one row each, so as many rows as there are reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from protocols.codec import encode
from protocols.errors import Reason
from protocols.types import PeerId, UnixMillis

from .engine import Put, Snapshot, Write
from .tables import CHAIN_REFUSED
from .values import FORMAT, SUITE, Stored, load

Item = Literal["block", "transaction", "vote"]
Key = tuple[Item, Reason]
_MARKS: Mapping[Item, bytes] = {"block": b"b", "transaction": b"t", "vote": b"v"}


class RefusedRow(Stored, frozen=True):
    """count: since ``first_ms``, network time. The rest is of the last one: name, 32 bytes; height, 0 where it has none; peer, empty for
    what was made here."""

    count: int
    first_ms: UnixMillis
    last_ms: UnixMillis
    name: bytes
    height: int
    peer: PeerId


def add(before: RefusedRow | None, *, now_ms: UnixMillis, name: bytes, height: int, peer: PeerId) -> RefusedRow:
    """One more."""
    count, first_ms = (0, now_ms) if before is None else (before.count, before.first_ms)
    return RefusedRow(FORMAT, SUITE, count + 1, first_ms, now_ms, name, height, peer)


def put(key: Key, row: RefusedRow) -> Write:
    """In the place of what stood there."""
    item, reason = key
    return Put(CHAIN_REFUSED, _MARKS[item] + reason.stable_name.encode(), encode(row))


def rows(snapshot: Snapshot) -> dict[Key, RefusedRow]:
    """All, in no order; those of reasons that this program does not know are left out."""
    items = {mark: item for item, mark in _MARKS.items()}
    reasons = {reason.stable_name.encode(): reason for reason in Reason}
    found: dict[Key, RefusedRow] = {}
    for key, data in snapshot.scan(CHAIN_REFUSED):
        item, reason = items.get(key[:1]), reasons.get(key[1:])
        if item is not None and reason is not None:
            found[item, reason] = load(CHAIN_REFUSED, data, RefusedRow)
    return found
