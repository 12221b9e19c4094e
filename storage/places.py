"""Where sequences stand: by record and index, by root, and those that are only offered so far. All in the chunk environment, beside
the references that they go with."""

from __future__ import annotations

from collections.abc import Iterator

from protocols.codec import encode
from protocols.types import ChunkName, HashId, OwnerKey, SequenceRoot, UnixSeconds

from .engine import Delete, Put, Snapshot, Write
from .tables import OFFERED, PLACES, ROOTS
from .values import FORMAT, SUITE, Stored, join_names, load, split_names

INDEX_BYTES = 4


class Place(Stored, frozen=True):
    """One sequence of a record: root, sizes of its chunks, Merkle path under the statement's chunks root of ``count`` leaves."""

    root: bytes
    sizes: tuple[int, ...]
    count: int
    path: tuple[bytes, ...]


class Offered(Stored, frozen=True):
    """A sequence taken on an offer: chunk names one after the other, sizes, and when it is forgotten without a statement."""

    names: bytes
    sizes: tuple[int, ...]
    expires_at: int


def _place_key(owner: OwnerKey, hash_id: HashId, index: int) -> bytes:
    return owner + hash_id + index.to_bytes(INDEX_BYTES, "big")


def put_place(
    owner: OwnerKey, hash_id: HashId, index: int, root: SequenceRoot, sizes: tuple[int, ...], count: int, path: tuple[bytes, ...]
) -> list[Write]:
    """Writes that remember where the sequence stands."""
    place = Place(format=FORMAT, suite=SUITE, root=root, sizes=sizes, count=count, path=path)
    return [
        Put(PLACES, _place_key(owner, hash_id, index), encode(place)),
        Put(ROOTS, root + owner + hash_id, index.to_bytes(INDEX_BYTES, "big")),
    ]


def get_place(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, index: int) -> Place | None:
    """The place of sequence ``index`` of a record, if this node has kept it."""
    data = snapshot.get(PLACES, _place_key(owner, hash_id, index))
    return None if data is None else load(PLACES, data, Place)


def places(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> Iterator[tuple[int, Place]]:
    """(index, place) of all sequences of a record that this node has kept, by index."""
    for key, data in snapshot.scan(PLACES, prefix=owner + hash_id):
        yield int.from_bytes(key[64:], "big"), load(PLACES, data, Place)


def records_of_root(snapshot: Snapshot, root: SequenceRoot) -> Iterator[tuple[OwnerKey, HashId, int]]:
    """(owner, HashID, index) of every record here that has a sequence of that root."""
    for key, data in snapshot.scan(ROOTS, prefix=root):
        yield OwnerKey(key[32:64]), HashId(key[64:96]), int.from_bytes(data, "big")


def drop_place(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, root: SequenceRoot) -> list[Write]:
    """Forgets where one sequence stands; a later one in its place stays."""
    data = snapshot.get(ROOTS, root + owner + hash_id)
    if data is None:
        return []
    writes: list[Write] = [Delete(ROOTS, root + owner + hash_id)]
    if not _is_replaced_at(snapshot, owner, hash_id, data, root):
        writes.append(Delete(PLACES, owner + hash_id + data))
    return writes


def drop_places(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> list[Write]:
    """Forgets where a record's sequences stand: equal ones have one root and several places."""
    return [Delete(PLACES, _place_key(owner, hash_id, index)) for index, _ in places(snapshot, owner, hash_id)]


def is_replaced(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, root: SequenceRoot) -> bool:
    """Whether another sequence of the record stands where this one stood: it was published anew."""
    data = snapshot.get(ROOTS, root + owner + hash_id)
    return data is not None and _is_replaced_at(snapshot, owner, hash_id, data, root)


def _is_replaced_at(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, index: bytes, root: SequenceRoot) -> bool:
    there = snapshot.get(PLACES, owner + hash_id + index)
    return there is not None and load(PLACES, there, Place).root != root


def put_offered(
    owner: OwnerKey, root: SequenceRoot, names: tuple[ChunkName, ...], sizes: tuple[int, ...], expires_at: UnixSeconds
) -> list[Write]:
    """Writes that remember an offered sequence until its statement comes."""
    return [Put(OFFERED, root + owner, encode(Offered(FORMAT, SUITE, join_names(names), sizes, expires_at)))]


def get_offered(snapshot: Snapshot, owner: OwnerKey, root: SequenceRoot) -> tuple[tuple[ChunkName, ...], tuple[int, ...]] | None:
    """(names, sizes) of a sequence that this owner offered."""
    data = snapshot.get(OFFERED, root + owner)
    if data is None:
        return None
    offered = load(OFFERED, data, Offered)
    return tuple(ChunkName(name) for name in split_names(OFFERED, offered.names)), offered.sizes


def drop_offered(owner: OwnerKey, root: SequenceRoot) -> list[Write]:
    """The statement came, or the offer is over."""
    return [Delete(OFFERED, root + owner)]


def expired_offers(snapshot: Snapshot, now: UnixSeconds, *, limit: int) -> list[Write]:
    """Forgets offers whose time is over, at most ``limit`` of them a call."""
    writes: list[Write] = []
    for key, data in snapshot.scan(OFFERED):
        if load(OFFERED, data, Offered).expires_at < now:
            writes.append(Delete(OFFERED, key))
            if len(writes) >= limit:
                break
    return writes
