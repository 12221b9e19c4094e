"""Reads what is kept and recomputes every hash; finds where the two environments, or a chunk's rows, disagree.

Nothing here changes anything: it reports, and hands out the writes that mend. No single object can stop a start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.crypto import sha256
from protocols.errors import StoreDamaged
from protocols.types import ChunkName, Digest, HashId, OwnerKey, PeerId, RecordKey, SequenceRoot, UnixSeconds

from . import chunks, receipts, records
from .engine import Put, Snapshot, Write
from .tables import BODIES, CHUNKS, SUSPECTS
from .values import HASH_BYTES

NO_HASH = Digest(bytes(HASH_BYTES))


@dataclass(frozen=True, slots=True)
class Damage:
    """A chunk that is not what its name says. found_hash: of what lies there, or NO_HASH when it cannot be read."""

    name: ChunkName
    found_hash: Digest


def check_chunk(snapshot: Snapshot, name: ChunkName) -> Damage | None:
    """Reads one body and hashes it. None: it is what its name says, or it is not here and nobody said so."""
    try:
        body = snapshot.get(BODIES, name)
    except StoreDamaged:
        return Damage(name, NO_HASH)
    if body is None:
        return Damage(name, NO_HASH) if snapshot.has(CHUNKS, name) else None
    found = sha256(body)
    return None if ChunkName(found) == name else Damage(name, found)


@dataclass(frozen=True, slots=True)
class ScrubStep:
    """checked: bodies read. after: the last name read; None when the end was reached."""

    checked: int
    damaged: tuple[Damage, ...]
    after: ChunkName | None


def scrub(snapshot: Snapshot, *, after: ChunkName | None = None, limit: int, every: int = 1) -> ScrubStep:
    """Checks up to ``limit`` bodies in name order, going on behind ``after``: the whole store in bounded steps.

    every: read only each ``every``-th, for a sample; names are hashes, so that any stride is a fair one.
    """
    damaged: list[Damage] = []
    checked = 0
    start = b"" if after is None else after + b"\0"
    for position, name in enumerate(chunks.names_from(snapshot, start=start)):
        if position % every:
            continue
        if checked >= limit:
            return ScrubStep(checked, tuple(damaged), after)
        damage = check_chunk(snapshot, name)
        if damage is not None:
            damaged.append(damage)
        checked += 1
        after = name
    return ScrubStep(checked, tuple(damaged), None)


def check_sequence(snapshot: Snapshot, held: chunks.HeldSequence) -> tuple[ChunkName, ...]:
    """Names of the sequence that are missing or damaged: what must be empty before a receipt is renewed."""
    return tuple(name for name in dict.fromkeys(held.names) if not snapshot.has(CHUNKS, name) or check_chunk(snapshot, name) is not None)


@dataclass(frozen=True, slots=True)
class BrokenPromise:
    """A receipt of ours in force for a sequence that is not wholly here. missing: chunk names; empty when there is no reference."""

    owner: OwnerKey
    hash_id: HashId
    sequence_root: SequenceRoot
    missing: tuple[ChunkName, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What start-up has to settle between the environments.

    promises: withdraw the receipts, let repair fetch. missing: sequences referred to whose bodies are not all here.
    unspoken: records with references but no object in the ledger environment (a crash between bodies and statement).
    """

    promises: tuple[BrokenPromise, ...]
    missing: tuple[tuple[chunks.HeldSequence, tuple[ChunkName, ...]], ...]
    unspoken: tuple[RecordKey, ...]


def reconcile(ledger: Snapshot, chunk_store: Snapshot, *, holder: PeerId, now: UnixSeconds) -> Disagreement:
    """Compares both environments at start. Reads rows only, no bodies. holder: this node."""
    missing: list[tuple[chunks.HeldSequence, tuple[ChunkName, ...]]] = []
    unspoken: dict[RecordKey, None] = {}
    spoken: set[RecordKey] = set()
    for held in chunks.sequences(chunk_store):
        record = (held.owner, held.hash_id)
        if record not in spoken and record not in unspoken:
            if records.objects(ledger, *record):
                spoken.add(record)
            elif held.trash_until is None:
                unspoken[record] = None
        lacking = chunks.missing(chunk_store, held.names)
        if lacking:
            missing.append((held, lacking))
    return Disagreement(tuple(_broken_promises(ledger, chunk_store, holder, now)), tuple(missing), tuple(unspoken))


def _broken_promises(ledger: Snapshot, chunk_store: Snapshot, holder: PeerId, now: UnixSeconds) -> Iterator[BrokenPromise]:
    for row in receipts.of_holder(ledger, holder):
        if not receipts.counts(ledger, row, now):
            continue
        held = chunks.sequence(chunk_store, *row.item.key)
        lacking = () if held is None else chunks.missing(chunk_store, held.names)
        if held is None or lacking:
            yield BrokenPromise(*row.item.key, missing=lacking)


def settle(chunk_store: Snapshot, disagreement: Disagreement, *, trash_until: UnixSeconds) -> list[Write]:
    """Sends what nobody speaks of to trash, so that a statement that still comes finds it; the collector does the rest.

    One step: at most ``chunks.SEQUENCES_PER_STEP`` sequences of each record. Reconcile and settle again until nothing is returned.
    """
    return [write for owner, hash_id in disagreement.unspoken for write in chunks.trash(chunk_store, owner, hash_id, until=trash_until)]


def check_rows(snapshot: Snapshot) -> tuple[str, ...]:
    """Problems in the rows of the chunk environment, for people: bodies without rows, claims without owners, wrong sums.

    Reads every row and no body; a healthy store has none. Each is found again by ``mend_rows`` where it can be mended.
    """
    problems: list[str] = []
    used: dict[bytes, int] = {}
    rows = 0
    for key, _ in snapshot.scan(CHUNKS):
        name = ChunkName(key[:HASH_BYTES])
        if len(key) > HASH_BYTES:
            continue
        rows += 1
        if not snapshot.has(BODIES, name):
            problems.append(f"chunk {name.hex()} has a row and no body")
        if not chunks.is_claimed(snapshot, name) and not snapshot.has(SUSPECTS, name):
            problems.append(f"chunk {name.hex()} is claimed by nobody and the collector does not know")
        size = chunks.sealed_bytes(snapshot, name) or 0
        for owner in {claim[HASH_BYTES : 2 * HASH_BYTES] for claim, _ in snapshot.scan(CHUNKS, prefix=name, start=name + b"\0")}:
            used[owner] = used.get(owner, 0) + size
    if rows != snapshot.count(BODIES):
        problems.append(f"{snapshot.count(BODIES)} bodies and {rows} rows of chunks")
    if dict(chunks.owners(snapshot)) != used:
        problems.append("what owners are charged is not what their chunks sum up to")
    for held in chunks.sequences(snapshot):
        claim = held.owner + bytes((chunks.ClaimKind.REFERENCE,)) + held.hash_id + held.sequence_root
        problems.extend(
            f"sequence {held.sequence_root.hex()} refers to {name.hex()} without a claim"
            for name in held.names
            if not snapshot.has(CHUNKS, name + claim)
        )
    return tuple(problems)


def mend_rows(snapshot: Snapshot) -> list[Write]:
    """Tells the collector of chunks that nobody claims. What else ``check_rows`` finds needs a person."""
    return [
        Put(SUSPECTS, name, b"")
        for name in chunks.names_from(snapshot)
        if not chunks.is_claimed(snapshot, name) and not snapshot.has(SUSPECTS, name)
    ]
