"""Sealed chunks and all that decides their life. Everything here is one environment, so collection is one transaction.

A chunk lives while anybody claims it: a *protection* (an offer or a put under way, until it expires) or a *reference* (a
sequence of a record, live or in trash). Claims of a chunk lie beside its row, ``chunk name | owner | kind | id``, so one
short scan answers who wants it; what is claimed but not here is missing and is repair's business.

Every function reads a snapshot and returns what to write. Put several into one batch through ``storage.overlay.Overlay``.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from protocols.codec import encode
from protocols.types import ChunkName, Digest, HashId, OwnerKey, SequenceRoot, UnixSeconds

from . import places
from .engine import Snapshot, Write
from .overlay import Overlay
from .tables import BODIES, CHUNKS, DUE, OWNERS, PROTECTIONS, QUARANTINE, REFERENCES, SUSPECTS
from .values import FORMAT, HASH_BYTES, NUMBER_BYTES, SUITE, Stored, join_names, load, number, split_names

PROTECTION_ID_BYTES_MAX = 64
# Sequences that one call of trash, restore, release or erase handles: about 4,096 claims, some tens of milliseconds.
SEQUENCES_PER_STEP = 256


class ClaimKind(enum.IntEnum):
    PROTECTION = 1
    REFERENCE = 2


class _Chunk(Stored, frozen=True):
    sealed_bytes: int
    kept_at: int


class _Protection(Stored, frozen=True):
    expires_at: int
    names: bytes


class _Reference(Stored, frozen=True):
    object_hash: bytes
    names: bytes
    trash_until: int | None


class _Damage(Stored, frozen=True):
    found_at: int
    found_hash: bytes


@dataclass(frozen=True, slots=True)
class Protection:
    """owner: who answers for the bytes; id: 1..64 bytes, for example put id | sequence root."""

    owner: OwnerKey
    id: bytes
    expires_at: UnixSeconds


@dataclass(frozen=True, slots=True)
class HeldSequence:
    """One sequence of a record that this node keeps. object_hash: the statement that it came with; trash_until: None while live."""

    owner: OwnerKey
    hash_id: HashId
    sequence_root: SequenceRoot
    object_hash: Digest
    names: tuple[ChunkName, ...]
    trash_until: UnixSeconds | None


class _Change:
    """Writes in the making: claims come and go, and what owners are charged follows."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.overlay = Overlay(snapshot)
        self._charges: dict[bytes, int] = {}

    def finish(self) -> list[Write]:
        for owner, difference in sorted(self._charges.items()):
            if difference:
                # Below zero only if the stored sum is wrong; ``check.check_rows`` says so, and nothing stops for it.
                total = max(0, owner_bytes(self.overlay, OwnerKey(owner)) + difference)
                if total:
                    self.overlay.put(OWNERS, owner, encode(total))
                else:
                    self.overlay.delete(OWNERS, owner)
        return self.overlay.writes

    def _charge(self, owner: bytes, difference: int) -> None:
        self._charges[owner] = self._charges.get(owner, 0) + difference

    def _is_claimed_by(self, name: bytes, owner: bytes) -> bool:
        return next(self.overlay.scan(CHUNKS, prefix=name + owner), None) is not None

    def claim(self, name: bytes, owner: bytes, kind: ClaimKind, claim_id: bytes) -> None:
        key = name + owner + bytes((kind,)) + claim_id
        if self.overlay.has(CHUNKS, key):
            return
        if not self._is_claimed_by(name, owner):
            self._charge(owner, sealed_bytes(self.overlay, ChunkName(name)) or 0)
        self.overlay.put(CHUNKS, key, b"")

    def unclaim(self, name: bytes, owner: bytes, kind: ClaimKind, claim_id: bytes) -> None:
        key = name + owner + bytes((kind,)) + claim_id
        if not self.overlay.has(CHUNKS, key):
            return
        self.overlay.delete(CHUNKS, key)
        self.overlay.put(SUSPECTS, name, b"")
        if not self._is_claimed_by(name, owner):
            self._charge(owner, -(sealed_bytes(self.overlay, ChunkName(name)) or 0))

    def add_chunk(self, name: bytes, body: bytes | memoryview, now: UnixSeconds) -> None:
        if self.overlay.has(CHUNKS, name):
            return
        for owner in _claiming_owners(self.overlay, name):
            self._charge(owner, len(body))
        self.overlay.put(BODIES, name, body)
        self.overlay.put(CHUNKS, name, encode(_Chunk(FORMAT, SUITE, len(body), now)))
        if self.overlay.has(QUARANTINE, name):
            self.overlay.delete(QUARANTINE, name)

    def remove_chunk(self, name: bytes) -> None:
        size = sealed_bytes(self.overlay, ChunkName(name))
        if size is None:
            return
        for owner in _claiming_owners(self.overlay, name):
            self._charge(owner, -size)
        self.overlay.delete(BODIES, name)
        self.overlay.delete(CHUNKS, name)

    def forget_chunk(self, name: bytes) -> None:
        """Nobody wants it: the body goes, and the memory that it was damaged."""
        self.remove_chunk(name)
        if self.overlay.has(QUARANTINE, name):
            self.overlay.delete(QUARANTINE, name)

    def drop_reference(self, key: bytes, value: _Reference) -> None:
        owner, reference_id = key[:HASH_BYTES], key[HASH_BYTES:]
        for name in split_names(REFERENCES, value.names):
            self.unclaim(name, owner, ClaimKind.REFERENCE, reference_id)
        self.overlay.delete(REFERENCES, key)
        if value.trash_until is not None:
            self.overlay.delete(DUE, _due_key(value.trash_until, ClaimKind.REFERENCE, key))
        # Where it stands is of no use without it: the rows go on every way out, the collector's too.
        record = OwnerKey(owner), HashId(reference_id[:HASH_BYTES])
        self.overlay.add(places.drop_place(self.overlay, *record, SequenceRoot(reference_id[HASH_BYTES:])))
        if next(self.overlay.scan(REFERENCES, prefix=key[: 2 * HASH_BYTES]), None) is None:
            self.overlay.add(places.drop_places(self.overlay, *record))

    def drop_protection(self, key: bytes, value: _Protection) -> None:
        owner, protection_id = key[:HASH_BYTES], key[HASH_BYTES:]
        for name in split_names(PROTECTIONS, value.names):
            self.unclaim(name, owner, ClaimKind.PROTECTION, protection_id)
        self.overlay.delete(PROTECTIONS, key)
        self.overlay.delete(DUE, _due_key(value.expires_at, ClaimKind.PROTECTION, key))


def _due_key(at: int, kind: ClaimKind, key: bytes) -> bytes:
    return number(at) + bytes((kind,)) + key


def _claims(snapshot: Snapshot, name: bytes) -> Iterator[tuple[bytes, ClaimKind, bytes]]:
    """(owner, kind, id) of everybody who wants the chunk."""
    for key, _ in snapshot.scan(CHUNKS, prefix=name, start=name + b"\0"):
        yield key[HASH_BYTES : 2 * HASH_BYTES], ClaimKind(key[2 * HASH_BYTES]), key[2 * HASH_BYTES + 1 :]


def _claiming_owners(snapshot: Snapshot, name: bytes) -> list[bytes]:
    return sorted({owner for owner, _, _ in _claims(snapshot, name)})


# --- reading ----------------------------------------------------------------------------------------------------------


def get(snapshot: Snapshot, name: ChunkName) -> bytes | None:
    """Sealed bytes, also of what is only in trash; None when not here. The caller hashes what he will open or send."""
    return snapshot.get(BODIES, name)


def has_many(snapshot: Snapshot, names: Sequence[ChunkName]) -> tuple[bool, ...]:
    """For each name whether its body is here."""
    return tuple(snapshot.has(CHUNKS, name) for name in names)


def sealed_bytes(snapshot: Snapshot, name: ChunkName) -> int | None:
    """Length of the body, or None when it is not here."""
    data = snapshot.get(CHUNKS, name)
    return None if data is None else load(CHUNKS, data, _Chunk).sealed_bytes


def chunk_count(snapshot: Snapshot) -> int:
    """Bodies on this disk."""
    return snapshot.count(BODIES)


def names_from(snapshot: Snapshot, *, start: bytes = b"") -> Iterator[ChunkName]:
    """Names of the bodies here, in order, from ``start`` on."""
    for key, _ in snapshot.scan(CHUNKS, start=start):
        if len(key) == HASH_BYTES:
            yield ChunkName(key)


def owner_bytes(snapshot: Snapshot, owner: OwnerKey) -> int:
    """Sealed bytes here that the owner's claims keep, each chunk once, trash included: what a quota counts."""
    data = snapshot.get(OWNERS, owner)
    return 0 if data is None else load(OWNERS, data, int)


def owners(snapshot: Snapshot) -> Iterator[tuple[OwnerKey, int]]:
    """Every owner with his bytes."""
    for key, data in snapshot.scan(OWNERS):
        yield OwnerKey(key), load(OWNERS, data, int)


def is_claimed(snapshot: Snapshot, name: ChunkName) -> bool:
    """Whether any protection or reference, in trash or not, wants the chunk."""
    return next(_claims(snapshot, name), None) is not None


def is_only_in_trash(snapshot: Snapshot, name: ChunkName) -> bool:
    """Whether trash alone keeps the chunk; a read that finds it so is worth an alarm."""
    claimed = False
    for owner, kind, claim_id in _claims(snapshot, name):
        claimed = True
        if kind is ClaimKind.PROTECTION:
            return False
        data = snapshot.get(REFERENCES, owner + claim_id)
        if data is not None and load(REFERENCES, data, _Reference).trash_until is None:
            return False
    return claimed


def _held(key: bytes, value: _Reference) -> HeldSequence:
    return HeldSequence(
        owner=OwnerKey(key[:HASH_BYTES]),
        hash_id=HashId(key[HASH_BYTES : 2 * HASH_BYTES]),
        sequence_root=SequenceRoot(key[2 * HASH_BYTES :]),
        object_hash=Digest(value.object_hash),
        names=tuple(ChunkName(name) for name in split_names(REFERENCES, value.names)),
        trash_until=None if value.trash_until is None else UnixSeconds(value.trash_until),
    )


def sequence(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, sequence_root: SequenceRoot) -> HeldSequence | None:
    """The sequence if this node refers to it, live or in trash."""
    key = owner + hash_id + sequence_root
    data = snapshot.get(REFERENCES, key)
    return None if data is None else _held(key, load(REFERENCES, data, _Reference))


def sequences(snapshot: Snapshot, *, owner: OwnerKey | None = None, hash_id: HashId | None = None) -> Iterator[HeldSequence]:
    """All sequences, or those of one owner, or of one record, ordered by (owner, HashID, sequence root)."""
    assert hash_id is None or owner is not None
    for key, data in snapshot.scan(REFERENCES, prefix=(owner or b"") + (hash_id or b"")):
        yield _held(key, load(REFERENCES, data, _Reference))


def missing(snapshot: Snapshot, names: Sequence[ChunkName]) -> tuple[ChunkName, ...]:
    """Those of the names whose bodies are not here, in order, each once."""
    return tuple(name for name in dict.fromkeys(names) if not snapshot.has(CHUNKS, name))


def shared_names(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId) -> tuple[ChunkName, ...]:
    """Chunks of the record that would stay if it went, because something else claims them: what an erasure receipt lists."""
    names = dict.fromkeys(name for held in sequences(snapshot, owner=owner, hash_id=hash_id) for name in held.names)
    return tuple(name for name in names if _is_claimed_beside(snapshot, name, owner, hash_id))


def _is_claimed_beside(snapshot: Snapshot, name: bytes, owner: bytes, hash_id: bytes) -> bool:
    return any(
        claimer != owner or kind is not ClaimKind.REFERENCE or claim_id[:HASH_BYTES] != hash_id
        for claimer, kind, claim_id in _claims(snapshot, name)
    )


# --- keeping ----------------------------------------------------------------------------------------------------------


def protect(snapshot: Snapshot, protection: Protection, names: Sequence[ChunkName]) -> list[Write]:
    """The chunks, here or yet to come, are safe from the collector until the protection expires.

    Protecting more under the same id adds names and keeps the later expiry.
    """
    change = _Change(snapshot)
    _protect(change, protection, names)
    return change.finish()


def _protect(change: _Change, protection: Protection, names: Sequence[ChunkName]) -> None:
    assert 1 <= len(protection.id) <= PROTECTION_ID_BYTES_MAX
    key = protection.owner + protection.id
    old_data = change.overlay.get(PROTECTIONS, key)
    old = None if old_data is None else load(PROTECTIONS, old_data, _Protection)
    expires_at = max(protection.expires_at, old.expires_at if old else 0)
    kept = split_names(PROTECTIONS, old.names) if old else ()
    new = _Protection(FORMAT, SUITE, expires_at, join_names(list(dict.fromkeys((*kept, *names)))))
    if new == old:
        return
    if old is not None and old.expires_at != expires_at:
        change.overlay.delete(DUE, _due_key(old.expires_at, ClaimKind.PROTECTION, key))
    change.overlay.put(DUE, _due_key(expires_at, ClaimKind.PROTECTION, key), b"")
    change.overlay.put(PROTECTIONS, key, encode(new))
    for name in dict.fromkeys(names):
        change.claim(name, protection.owner, ClaimKind.PROTECTION, protection.id)


def keep(
    snapshot: Snapshot,
    bodies: Sequence[tuple[ChunkName, bytes | memoryview]],
    protection: Protection | None,
    *,
    now: UnixSeconds,
) -> list[Write]:
    """Bodies that the caller has hashed, with what protects them, in one batch. What is here already is not written again.

    protection: None only for chunks that are claimed already (repair of a reference); such that nobody claims are left out,
    since nothing would ever collect them.
    """
    change = _Change(snapshot)
    if protection is not None:
        _protect(change, protection, [name for name, _ in bodies])
    for name, body in bodies:
        if protection is not None or is_claimed(change.overlay, name):
            change.add_chunk(name, body, now)
    return change.finish()


def reference(
    snapshot: Snapshot,
    owner: OwnerKey,
    hash_id: HashId,
    sequence_root: SequenceRoot,
    names: Sequence[ChunkName],
    *,
    object_hash: Digest,
) -> list[Write]:
    """This node keeps the sequence for the record: bodies that are here stay, bodies that are not count as missing.

    names: in order, as the sequence root commits to them. object_hash: the statement. Takes the sequence out of trash.
    """
    change = _Change(snapshot)
    key = owner + hash_id + sequence_root
    data = change.overlay.get(REFERENCES, key)
    new = _Reference(FORMAT, SUITE, object_hash, join_names(list(names)), None)
    if data is not None:
        old = load(REFERENCES, data, _Reference)
        if old == new:
            return []
        if old.names != new.names:
            change.drop_reference(key, old)
        elif old.trash_until is not None:
            change.overlay.delete(DUE, _due_key(old.trash_until, ClaimKind.REFERENCE, key))
    change.overlay.put(REFERENCES, key, encode(new))
    for name in dict.fromkeys(names):
        change.claim(name, owner, ClaimKind.REFERENCE, hash_id + sequence_root)
    return change.finish()


# --- letting go -------------------------------------------------------------------------------------------------------


def unprotect(snapshot: Snapshot, owner: OwnerKey, protection_id: bytes) -> list[Write]:
    """The offer or put is over (referenced by now, or given up)."""
    change = _Change(snapshot)
    key = owner + protection_id
    data = snapshot.get(PROTECTIONS, key)
    if data is not None:
        change.drop_protection(key, load(PROTECTIONS, data, _Protection))
    return change.finish()


def release(
    snapshot: Snapshot,
    owner: OwnerKey,
    hash_id: HashId,
    sequence_root: SequenceRoot | None = None,
    *,
    came_with: Collection[Digest] | None = None,
    limit: int = SEQUENCES_PER_STEP,
) -> list[Write]:
    """References of the record, or one of them, go at once, without trash; the collector takes what nothing else claims.

    came_with: only what was kept under one of these statements, None: whatever it was. At most ``limit`` sequences a call:
    call again until nothing is returned.
    """
    change = _Change(snapshot)
    for key, value in _references(snapshot, owner + hash_id + (sequence_root or b""), limit, came_with):
        change.drop_reference(key, value)
    return change.finish()


def erase(
    snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, *, came_with: Collection[Digest] | None = None, limit: int = SEQUENCES_PER_STEP
) -> list[Write]:
    """``release`` that also removes bodies in the same batch, without the collector. Ask ``shared_names`` before."""
    change = _Change(snapshot)
    for key, value in _references(snapshot, owner + hash_id, limit, came_with):
        change.drop_reference(key, value)
        for name in dict.fromkeys(split_names(REFERENCES, value.names)):
            if not is_claimed(change.overlay, ChunkName(name)):
                change.forget_chunk(name)
                change.overlay.delete(SUSPECTS, name)
    return change.finish()


def trash(
    snapshot: Snapshot,
    owner: OwnerKey,
    hash_id: HashId,
    *,
    until: UnixSeconds,
    came_with: Collection[Digest] | None = None,
    limit: int = SEQUENCES_PER_STEP,
) -> list[Write]:
    """Live references of the record go to trash until then. came_with: as for ``release``. At most ``limit`` a call: call again
    until nothing is returned."""
    change = _Change(snapshot)
    taken = 0
    for key, value in _references(snapshot, owner + hash_id, None, came_with):
        if value.trash_until is None and taken < limit:
            change.overlay.put(REFERENCES, key, encode(_Reference(FORMAT, SUITE, value.object_hash, value.names, until)))
            change.overlay.put(DUE, _due_key(until, ClaimKind.REFERENCE, key), b"")
            taken += 1
    return change.finish()


def restore_from_trash(snapshot: Snapshot, owner: OwnerKey, hash_id: HashId, *, limit: int = SEQUENCES_PER_STEP) -> list[Write]:
    """What is in trash of the record is live again. At most ``limit`` a call: call again until nothing is returned."""
    change = _Change(snapshot)
    taken = 0
    for key, value in _references(snapshot, owner + hash_id, None):
        if value.trash_until is not None and taken < limit:
            change.overlay.put(REFERENCES, key, encode(_Reference(FORMAT, SUITE, value.object_hash, value.names, None)))
            change.overlay.delete(DUE, _due_key(value.trash_until, ClaimKind.REFERENCE, key))
            taken += 1
    return change.finish()


def _references(
    snapshot: Snapshot, prefix: bytes, limit: int | None, came_with: Collection[Digest] | None = None
) -> list[tuple[bytes, _Reference]]:
    found: list[tuple[bytes, _Reference]] = []
    for key, data in snapshot.scan(REFERENCES, prefix=prefix):
        if limit is not None and len(found) >= limit:
            break
        value = load(REFERENCES, data, _Reference)
        if came_with is None or value.object_hash in came_with:
            found.append((key, value))
    return found


# --- collecting -------------------------------------------------------------------------------------------------------


def collect(snapshot: Snapshot, now: UnixSeconds, limit: int) -> list[Write]:
    """One bounded step: protections and trash whose time is over, then bodies that nothing claims any more.

    limit: claims and bodies looked at, more only to finish one sequence. Nothing returned: nothing left to do at ``now``.
    """
    change = _Change(snapshot)
    left = limit
    for due_key, _ in snapshot.scan(DUE):
        if left <= 0 or int.from_bytes(due_key[:NUMBER_BYTES], "big") > now:
            break
        left -= _end_claim(change, due_key)
    if left > 0:
        for name in [key for key, _ in _first(change.overlay.scan(SUSPECTS), left)]:
            if not is_claimed(change.overlay, ChunkName(name)):
                change.forget_chunk(name)
            change.overlay.delete(SUSPECTS, name)
    return change.finish()


def _end_claim(change: _Change, due_key: bytes) -> int:
    """Ends what is due. Result: how many claims that was, at least 1."""
    kind = ClaimKind(due_key[NUMBER_BYTES])
    key = due_key[NUMBER_BYTES + 1 :]
    data = change.overlay.get(PROTECTIONS if kind is ClaimKind.PROTECTION else REFERENCES, key)
    if data is None:  # left over from a store that was repaired by hand
        change.overlay.delete(DUE, due_key)
        return 1
    if kind is ClaimKind.PROTECTION:
        protection = load(PROTECTIONS, data, _Protection)
        change.drop_protection(key, protection)
        return max(1, len(protection.names) // HASH_BYTES)
    held = load(REFERENCES, data, _Reference)
    change.drop_reference(key, held)
    return max(1, len(held.names) // HASH_BYTES)


def _first(pairs: Iterator[tuple[bytes, bytes]], limit: int) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    for pair in pairs:
        if len(found) >= limit:
            break
        found.append(pair)
    return found


# --- damage -----------------------------------------------------------------------------------------------------------


def quarantine(snapshot: Snapshot, name: ChunkName, *, found_hash: Digest, now: UnixSeconds) -> list[Write]:
    """The body is not what its name says: it goes, its claims stay, so it counts as missing and repair fetches it anew."""
    change = _Change(snapshot)
    if not snapshot.has(CHUNKS, name):
        return []
    change.remove_chunk(name)
    change.overlay.put(QUARANTINE, name, encode(_Damage(FORMAT, SUITE, now, found_hash)))
    return change.finish()


def quarantined(snapshot: Snapshot) -> Iterator[tuple[ChunkName, UnixSeconds]]:
    """Names that were damaged here and have not come back, with when it was found."""
    for key, data in snapshot.scan(QUARANTINE):
        yield ChunkName(key), UnixSeconds(load(QUARANTINE, data, _Damage).found_at)
