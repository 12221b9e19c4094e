"""Signed objects of records by (owner, HashID): statements, tombstones, wraps, pins, re-affirmations, as their envelopes.

The bodies are opaque here. What orders and addresses an object is given beside it by those who opened it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.codec import encode
from protocols.signed import Signed
from protocols.types import Digest, HashId, OwnerKey, RecordKey, UnixSeconds

from .engine import Delete, Put, Snapshot, Write
from .tables import HASH_IDS, HELD_BACK, OBJECTS
from .values import FORMAT, HASH_BYTES, NUMBER_BYTES, SUITE, Stored, load, number

NO_SUBJECT = bytes(HASH_BYTES)


class ObjectKind(enum.IntEnum):
    """Numbers are part of the keys on disk: never used twice."""

    STATEMENT = 1
    TOMBSTONE = 2
    WRAP = 3
    PIN = 4
    REAFFIRM = 5


@dataclass(frozen=True, slots=True)
class StoredObject:
    """subject: 32 bytes, whom it is about (grantee of a wrap, node of a pin). order: counter by which the newest is known."""

    owner: OwnerKey
    hash_id: HashId
    kind: ObjectKind
    subject: bytes
    order: int
    object_hash: Digest
    envelope: Signed


class _HeldBack(Stored, frozen=True):
    since: int
    reason: str


_KIND_AT = 2 * HASH_BYTES
_SUBJECT_AT = _KIND_AT + 1
_ORDER_AT = _SUBJECT_AT + HASH_BYTES
_HASH_AT = _ORDER_AT + NUMBER_BYTES


def _key(kind: ObjectKind, owner: bytes, hash_id: bytes, subject: bytes, order: int, object_hash: bytes) -> bytes:
    assert len(owner) == len(hash_id) == len(subject) == len(object_hash) == HASH_BYTES
    return owner + hash_id + bytes((kind,)) + subject + number(order) + object_hash


def _object(key: bytes, data: bytes) -> StoredObject:
    return StoredObject(
        owner=OwnerKey(key[:HASH_BYTES]),
        hash_id=HashId(key[HASH_BYTES:_KIND_AT]),
        kind=ObjectKind(key[_KIND_AT]),
        subject=key[_SUBJECT_AT:_ORDER_AT],
        order=int.from_bytes(key[_ORDER_AT:_HASH_AT], "big"),
        object_hash=Digest(key[_HASH_AT:]),
        envelope=load(OBJECTS, data, Signed),
    )


def put_object(
    kind: ObjectKind, owner: OwnerKey, hash_id: HashId, envelope: Signed, *, order: int, subject: bytes = NO_SUBJECT
) -> list[Write]:
    """Keeps the object beside the others of its record; the same object twice is one."""
    key = _key(kind, owner, hash_id, subject, order, envelope.object_hash)
    return [Put(OBJECTS, key, encode(envelope)), Put(HASH_IDS, hash_id + owner, b"")]


def objects(
    snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, *, kind: ObjectKind | None = None, subject: bytes = b""
) -> tuple[StoredObject, ...]:
    """Objects of a record, of one kind, or of one kind about one subject; by kind, subject, order, object hash."""
    assert not subject or kind is not None
    prefix = owner + hash_id + (b"" if kind is None else bytes((kind,))) + subject
    return tuple(_object(key, data) for key, data in snapshot.scan(OBJECTS, prefix=prefix))


def newest(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, kind: ObjectKind, *, subject: bytes = b"") -> StoredObject | None:
    """The object of that kind with the greatest (order, object hash)."""
    found = objects(snapshot, owner, hash_id, kind=kind, subject=subject)
    return max(found, key=lambda stored: (stored.order, stored.object_hash), default=None)


def has_object(snapshot: Snapshot, stored: StoredObject) -> bool:
    """Whether exactly this object is kept."""
    return snapshot.has(OBJECTS, _key(stored.kind, stored.owner, stored.hash_id, stored.subject, stored.order, stored.object_hash))


def drop_object(snapshot: Snapshot, stored: StoredObject) -> list[Write]:
    """Forgets one object, and the record's place in the index with its last one."""
    key = _key(stored.kind, stored.owner, stored.hash_id, stored.subject, stored.order, stored.object_hash)
    writes: list[Write] = [Delete(OBJECTS, key)]
    if all(other == key for other, _ in snapshot.scan(OBJECTS, prefix=stored.owner + stored.hash_id)):
        writes.append(Delete(HASH_IDS, stored.hash_id + stored.owner))
    return writes


def drop_record(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> list[Write]:
    """Forgets all objects of a record: only when its tombstone has outlived every absence."""
    writes: list[Write] = [Delete(OBJECTS, key) for key, _ in snapshot.scan(OBJECTS, prefix=owner + hash_id)]
    return [*writes, Delete(HASH_IDS, hash_id + owner), Delete(HELD_BACK, owner + hash_id)]


def records(snapshot: Snapshot, *, after: RecordKey | None = None) -> Iterator[RecordKey]:
    """Every (owner, HashID) with at least one object, ordered by HashID, then owner; after: where an earlier page ended."""
    start = b"" if after is None else after[1] + after[0] + b"\0"
    for key, _ in snapshot.scan(HASH_IDS, start=start):
        yield OwnerKey(key[HASH_BYTES:]), HashId(key[:HASH_BYTES])


def record_count(snapshot: Snapshot) -> int:
    """How many (owner, HashID) there are."""
    return snapshot.count(HASH_IDS)


def find(snapshot: Snapshot, hash_id_prefix: bytes, *, limit: int) -> tuple[RecordKey, ...]:
    """Records whose HashID begins so: what the command line needs for shortened names. At most ``limit``."""
    found: list[RecordKey] = []
    for key, _ in snapshot.scan(HASH_IDS, prefix=hash_id_prefix):
        if len(found) >= limit:
            break
        found.append((OwnerKey(key[HASH_BYTES:]), HashId(key[:HASH_BYTES])))
    return tuple(found)


def hold_back(owner: OwnerKey, hash_id: HashId, *, reason: str, now: UnixSeconds) -> list[Write]:
    """Quarantine of a record: kept, neither shown nor repaired nor collected, until its owner re-affirms it."""
    return [Put(HELD_BACK, owner + hash_id, encode(_HeldBack(FORMAT, SUITE, now, reason)))]


def let_go(owner: OwnerKey, hash_id: HashId) -> list[Write]:
    """Ends the quarantine of a record."""
    return [Delete(HELD_BACK, owner + hash_id)]


def held_back(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> str | None:
    """Why the record is in quarantine, or None."""
    data = snapshot.get(HELD_BACK, owner + hash_id)
    return None if data is None else load(HELD_BACK, data, _HeldBack).reason


def held_back_records(snapshot: Snapshot) -> Iterator[RecordKey]:
    """All records in quarantine."""
    for key, _ in snapshot.scan(HELD_BACK):
        yield OwnerKey(key[:HASH_BYTES]), HashId(key[HASH_BYTES:])
