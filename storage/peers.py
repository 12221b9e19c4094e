"""The address book: each peer's announcement with the greatest counter, and when it was last heard of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.codec import encode
from protocols.types import PeerId, UnixSeconds

from .engine import Delete, Put, Snapshot, Write
from .tables import ANNOUNCEMENTS, LAST_SEEN
from .values import FORMAT, SUITE, Stored, load


class _Announcement(Stored, frozen=True):
    counter: int
    received_at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """counter: of the announcement; data: its signed bytes; last_seen: None when never heard of since."""

    peer: PeerId
    counter: int
    received_at: UnixSeconds
    data: bytes
    last_seen: UnixSeconds | None


def put_announcement(snapshot: Snapshot, peer: PeerId, *, counter: int, data: bytes, now: UnixSeconds) -> list[Write]:
    """Keeps the announcement if its counter is above the one kept; returns nothing when it is not news."""
    old = snapshot.get(ANNOUNCEMENTS, peer)
    if old is not None and load(ANNOUNCEMENTS, old, _Announcement).counter >= counter:
        return []
    return [Put(ANNOUNCEMENTS, peer, encode(_Announcement(FORMAT, SUITE, counter, now, data)))]


def saw(snapshot: Snapshot, peer: PeerId, at: UnixSeconds) -> list[Write]:
    """A sign of life; never moves back."""
    old = last_seen(snapshot, peer)
    return [] if old is not None and old >= at else [Put(LAST_SEEN, peer, encode(at))]


def last_seen(snapshot: Snapshot, peer: PeerId) -> UnixSeconds | None:
    """When the peer last gave a sign of life."""
    data = snapshot.get(LAST_SEEN, peer)
    return None if data is None else UnixSeconds(load(LAST_SEEN, data, int))


def _known(snapshot: Snapshot, peer: PeerId, data: bytes) -> KnownPeer:
    value = load(ANNOUNCEMENTS, data, _Announcement)
    return KnownPeer(peer, value.counter, UnixSeconds(value.received_at), value.data, last_seen(snapshot, peer))


def get(snapshot: Snapshot, peer: PeerId) -> KnownPeer | None:
    """What is known of one peer."""
    data = snapshot.get(ANNOUNCEMENTS, peer)
    return None if data is None else _known(snapshot, peer, data)


def all_known(snapshot: Snapshot) -> Iterator[KnownPeer]:
    """Every peer of the address book, by peer id."""
    for key, data in snapshot.scan(ANNOUNCEMENTS):
        yield _known(snapshot, PeerId(key), data)


def forget(peer: PeerId) -> list[Write]:
    """Takes a peer out of the book."""
    return [Delete(ANNOUNCEMENTS, peer), Delete(LAST_SEEN, peer)]
