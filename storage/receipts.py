"""Receipts and withdrawals by (owner, HashID, sequence root, holder): the greatest counter wins; signed bytes stored once a batch.

A receipt speaks of many sequences under one signature; each sequence has a row that points to it, and the signed bytes stay
while any row does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from protocols.codec import encode
from protocols.signed import Signed
from protocols.types import Digest, HashId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds

from .engine import Put, Snapshot, Write
from .overlay import Overlay
from .tables import ERASURES, GENERATIONS, RECEIPT_ROWS, RECEIPT_USES, RECEIPTS, RECEIPTS_BY_HOLDER
from .values import FORMAT, HASH_BYTES, SUITE, Stored, load

ItemKey = tuple[OwnerKey, HashId, SequenceRoot]


class _Row(Stored, frozen=True):
    object_hash: bytes
    counter: int
    withdrawn: bool
    store_id: bytes
    generation: int
    valid_from: int
    until: int
    known_hash: bytes
    known_seq: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What one signed receipt or withdrawal says, as those who checked it read it.

    object_hash: of the envelope. counter: of the holder's store, shared by receipts and withdrawals. withdrawn: it is a
    withdrawal. valid_from, until: unix seconds.
    """

    object_hash: Digest
    holder: PeerId
    store_id: StoreId
    generation: int
    counter: int
    withdrawn: bool
    valid_from: UnixSeconds
    until: UnixSeconds


@dataclass(frozen=True, slots=True)
class Item:
    """One sequence in a receipt. known_seq, known_hash: the owner's newest object that the holder knew."""

    owner: OwnerKey
    hash_id: HashId
    sequence_root: SequenceRoot
    known_seq: int
    known_hash: Digest

    @property
    def key(self) -> ItemKey:
        return self.owner, self.hash_id, self.sequence_root


@dataclass(frozen=True, slots=True)
class Row:
    """One holder's last word about one sequence."""

    item: Item
    claim: Claim


def _row_key(key: ItemKey, holder: bytes) -> bytes:
    assert 1 <= len(holder) <= 255
    return b"".join(key) + holder


def _by_holder_key(key: ItemKey, holder: bytes) -> bytes:
    return bytes((len(holder),)) + holder + b"".join(key)


def _row(key: bytes, data: bytes) -> Row:
    value = load(RECEIPT_ROWS, data, _Row)
    item = Item(
        owner=OwnerKey(key[:HASH_BYTES]),
        hash_id=HashId(key[HASH_BYTES : 2 * HASH_BYTES]),
        sequence_root=SequenceRoot(key[2 * HASH_BYTES : 3 * HASH_BYTES]),
        known_seq=value.known_seq,
        known_hash=Digest(value.known_hash),
    )
    claim = Claim(
        object_hash=Digest(value.object_hash),
        holder=PeerId(key[3 * HASH_BYTES :]),
        store_id=StoreId(value.store_id),
        generation=value.generation,
        counter=value.counter,
        withdrawn=value.withdrawn,
        valid_from=UnixSeconds(value.valid_from),
        until=UnixSeconds(value.until),
    )
    return Row(item, claim)


def put(snapshot: Snapshot, envelope: Signed, claim: Claim, items: Sequence[Item]) -> list[Write]:
    """Takes the receipt or withdrawal for each item where it is newer than what is there.

    Newer: a later generation of the same store, or the same with a greater counter. Between two stores of one holder the
    later counter cannot be compared: the later generation number wins (generations are made from the clock).
    """
    assert envelope.object_hash == claim.object_hash
    overlay = Overlay(snapshot)
    if claim.generation > newest_generation(overlay, claim.store_id, claim.holder):
        overlay.put(GENERATIONS, claim.store_id + claim.holder, encode(claim.generation))
    used = False
    for item in items:
        key = _row_key(item.key, claim.holder)
        data = overlay.get(RECEIPT_ROWS, key)
        if data is not None:
            old = load(RECEIPT_ROWS, data, _Row)
            if (old.generation, old.counter) >= (claim.generation, claim.counter):
                continue
            _end_use(overlay, old.object_hash, key)
        value = _Row(
            format=FORMAT,
            suite=SUITE,
            object_hash=claim.object_hash,
            counter=claim.counter,
            withdrawn=claim.withdrawn,
            store_id=claim.store_id,
            generation=claim.generation,
            valid_from=claim.valid_from,
            until=claim.until,
            known_hash=item.known_hash,
            known_seq=item.known_seq,
        )
        overlay.put(RECEIPT_ROWS, key, encode(value))
        overlay.put(RECEIPT_USES, claim.object_hash + key, b"")
        overlay.put(RECEIPTS_BY_HOLDER, _by_holder_key(item.key, claim.holder), b"")
        used = True
    if used:
        overlay.put(RECEIPTS, claim.object_hash, encode(envelope))
    return overlay.writes


def _end_use(overlay: Overlay, object_hash: bytes, row_key: bytes) -> None:
    overlay.delete(RECEIPT_USES, object_hash + row_key)
    if next(overlay.scan(RECEIPT_USES, prefix=object_hash), None) is None:
        overlay.delete(RECEIPTS, object_hash)


def _drop(overlay: Overlay, row_key: bytes, object_hash: bytes) -> None:
    key = (
        OwnerKey(row_key[:HASH_BYTES]),
        HashId(row_key[HASH_BYTES : 2 * HASH_BYTES]),
        SequenceRoot(row_key[2 * HASH_BYTES : 3 * HASH_BYTES]),
    )
    _end_use(overlay, object_hash, row_key)
    overlay.delete(RECEIPT_ROWS, row_key)
    overlay.delete(RECEIPTS_BY_HOLDER, _by_holder_key(key, row_key[3 * HASH_BYTES :]))


def rows(
    snapshot: Snapshot, *, owner: OwnerKey | None = None, hash_id: HashId | None = None, sequence_root: SequenceRoot | None = None
) -> Iterator[Row]:
    """Last words of all holders: about everything, an owner, a record, or one sequence."""
    assert hash_id is None or owner is not None
    assert sequence_root is None or hash_id is not None
    for key, data in snapshot.scan(RECEIPT_ROWS, prefix=(owner or b"") + (hash_id or b"") + (sequence_root or b"")):
        yield _row(key, data)


def counts(snapshot: Snapshot, row: Row, now: UnixSeconds) -> bool:
    """Whether the row is a receipt in force: not withdrawn, begun, not past, of the newest generation ever seen of its store.

    Whether its holder is certified and not gone, and whether a tombstone stands above it, is not known here.
    """
    claim = row.claim
    if claim.withdrawn or not claim.valid_from <= now <= claim.until:
        return False
    return claim.generation >= newest_generation(snapshot, claim.store_id, claim.holder)


def of_holder(snapshot: Snapshot, holder: PeerId) -> Iterator[Row]:
    """Everything that one holder said, by record and sequence: what to look after when he goes."""
    prefix = bytes((len(holder),)) + holder
    for key, _ in snapshot.scan(RECEIPTS_BY_HOLDER, prefix=prefix):
        row_key = key[len(prefix) :] + holder
        data = snapshot.get(RECEIPT_ROWS, row_key)
        if data is not None:
            yield _row(row_key, data)


def signed(snapshot: Snapshot, object_hash: Digest) -> Signed | None:
    """The signed bytes of a receipt or withdrawal, while any row stands on it."""
    data = snapshot.get(RECEIPTS, object_hash)
    return None if data is None else load(RECEIPTS, data, Signed)


def newest_generation(snapshot: Snapshot, store_id: StoreId, holder: PeerId) -> int:
    """Greatest generation that the holder ever presented of this store; 0 when none."""
    data = snapshot.get(GENERATIONS, store_id + holder)
    return 0 if data is None else load(GENERATIONS, data, int)


def drop_record(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> list[Write]:
    """Forgets all receipts of a record; erasure receipts stay."""
    overlay = Overlay(snapshot)
    for key, data in snapshot.scan(RECEIPT_ROWS, prefix=owner + hash_id):
        _drop(overlay, key, load(RECEIPT_ROWS, data, _Row).object_hash)
    return overlay.writes


def drop_ended(snapshot: Snapshot, before: UnixSeconds, *, limit: int, start: bytes = b"") -> tuple[list[Write], bytes | None]:
    """Forgets rows whose time ended before then: retention. Looks at ``limit`` rows a call.

    Result: what to write, and where to go on (None: the end was reached).
    """
    overlay = Overlay(snapshot)
    for seen, (key, data) in enumerate(snapshot.scan(RECEIPT_ROWS, start=start)):
        if seen >= limit:
            return overlay.writes, key
        value = load(RECEIPT_ROWS, data, _Row)
        if value.until < before:
            _drop(overlay, key, value.object_hash)
    return overlay.writes, None


def put_erasure(owner: OwnerKey, hash_id: HashId, holder: PeerId, envelope: Signed) -> list[Write]:
    """The holder's signed word that the record is gone from his disk."""
    return [Put(ERASURES, owner + hash_id + holder, encode(envelope))]


def erasures(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> Iterator[tuple[PeerId, Signed]]:
    """Who confirmed the erasure of a record, with the signed words."""
    for key, data in snapshot.scan(ERASURES, prefix=owner + hash_id):
        yield PeerId(key[2 * HASH_BYTES :]), load(ERASURES, data, Signed)
