"""Which object of one (owner, HashID) is in force. A pure function of the set of known objects: order and copies do not matter.

Statements and tombstones share one counter; the greatest (seq, object hash) wins, with two exceptions that keep acknowledged
data: a statement replaces its predecessor only when it is settled (all its sequences have quorum receipts), and a tombstone does
not beat a statement that it did not follow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ..limits import TOMBSTONE_COVERS_MAX
from ..types import Digest
from .objects import Statement, Tombstone

Order = tuple[int, bytes]
"""(seq, object hash): what objects of one record are compared by."""


@dataclass(frozen=True, slots=True)
class Known:
    """One object that was opened and checked. object_hash: of its envelope."""

    object_hash: Digest
    value: Statement | Tombstone

    @property
    def order(self) -> Order:
        return (self.value.seq, self.object_hash)


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    """What holds of one record.

    in_force: the statement that placement, repair and wraps go by; None: there is none, or it was deleted.
    readable: statements to read by, best first, and to keep and repair copies for; begins with in_force.
    tombstone: the one in force, when nothing is readable. conflicts: hashes of tombstones that did not follow what stays, sorted.
    newest: the greatest object known of all, what a receipt names.
    """

    in_force: Known | None
    readable: tuple[Known, ...]
    tombstone: Known | None
    conflicts: tuple[Digest, ...]
    newest: Known | None


@dataclass(frozen=True, slots=True)
class Next:
    """What the next object of a record says of those before it. covers: for a tombstone."""

    seq: int
    follows: bytes
    covers: tuple[bytes, ...]


def _by_hash(objects: Iterable[Known]) -> dict[Digest, Known]:
    found = {known.object_hash: known for known in objects}
    records = {(known.value.owner, known.value.hash_id) for known in found.values()}
    assert len(records) <= 1, "objects of several records"
    return found


def followed_by(tombstone: Tombstone) -> frozenset[bytes]:
    """Hashes of all that a tombstone followed, as it says itself: nothing here depends on what else is known or forgotten."""
    return frozenset((*tombstone.covers, tombstone.follows))


def verdict(objects: Iterable[Known], *, settled: Collection[bytes] = (), quarantined: Collection[bytes] = ()) -> RecordVerdict:
    """What holds, from all known objects of one record.

    settled: hashes of statements all of whose sequences have quorum receipts. quarantined: hashes of objects that count for
    nothing until somebody confirms them.
    """
    known = {name: item for name, item in _by_hash(objects).items() if name not in quarantined}
    newest = max(known.values(), key=lambda item: item.order, default=None)
    tombstones = [(item, followed_by(item.value)) for item in known.values() if isinstance(item.value, Tombstone)]
    alive = [
        item
        for item in known.values()
        if isinstance(item.value, Statement)
        and not any(item.object_hash in followed and item.order < tombstone.order for tombstone, followed in tombstones)
    ]
    alive.sort(key=lambda item: item.order, reverse=True)
    if not alive:
        last = max((item for item, _ in tombstones), key=lambda item: item.order, default=None)
        return RecordVerdict(in_force=None, readable=(), tombstone=last, conflicts=(), newest=newest)
    in_force = next((item for item in alive if item.object_hash in settled), None)
    if in_force is None:
        in_force, kept = alive[0], alive
    else:
        kept = [item for item in alive if item.order >= in_force.order]
    conflicts = sorted(item.object_hash for item, _ in tombstones if item.order > alive[0].order)
    readable = (in_force, *(item for item in kept if item is not in_force))
    return RecordVerdict(in_force=in_force, readable=readable, tombstone=None, conflicts=tuple(conflicts), newest=newest)


def next_after(objects: Iterable[Known]) -> Next:
    """seq, follows and covers of an object signed with all these known: fetched from a majority of the reachable holders."""
    by_hash = _by_hash(objects)
    if not by_hash:
        return Next(seq=1, follows=b"", covers=())
    ordered = sorted(by_hash.values(), key=lambda item: item.order)
    newest = ordered[-1]
    statements = [bytes(item.object_hash) for item in ordered if isinstance(item.value, Statement)]
    # What a known object followed may have been forgotten here and still be kept by a node that is away.
    forgotten = sorted({item.value.follows for item in ordered} - {b""} - by_hash.keys())
    return Next(
        seq=newest.value.seq + 1, follows=newest.object_hash, covers=tuple(sorted((forgotten + statements)[-TOMBSTONE_COVERS_MAX:]))
    )
