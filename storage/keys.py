"""Small things by name: who this node is, how far its clock got, which store this is; fences, revocations, tickets."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.codec import encode
from protocols.types import Digest, NetworkId, StoreId, UnixSeconds

from .engine import Delete, Put, Snapshot, Write
from .tables import FENCES, KEYS, REVOCATIONS, STORE, TICKETS
from .values import FORMAT, HASH_BYTES, SUITE, Stored, load, number


class Key(enum.Enum):
    """Every name in the table. Values without a function of their own here are opaque bytes."""

    IDENTITY = b"identity"
    MEMBER = b"member"
    NETWORK = b"network"
    DOMAIN = b"domain"
    CONFIG = b"config"
    ANNOUNCEMENT_COUNTER = b"announcement-counter"
    CLOCK_FLOOR = b"clock-floor"
    RECEIPT_COUNTER = b"receipt-counter"
    STORE = b"store"
    LOG_ENDS = b"log-ends"
    COLLECTOR = b"collector"
    SCRUB = b"scrub"


def put(key: Key, value: bytes) -> list[Write]:
    return [Put(KEYS, key.value, value)]


def get(snapshot: Snapshot, key: Key) -> bytes | None:
    return snapshot.get(KEYS, key.value)


def drop(key: Key) -> list[Write]:
    return [Delete(KEYS, key.value)]


# --- counters and the clock -------------------------------------------------------------------------------------------


def counter(snapshot: Snapshot, key: Key) -> int:
    """Last number given out; 0 before the first."""
    data = snapshot.get(KEYS, key.value)
    return 0 if data is None else load(KEYS, data, int)


def next_counter(snapshot: Snapshot, key: Key) -> tuple[list[Write], int]:
    """The next number. Use it only after the write is durable: a number is never given out twice."""
    value = counter(snapshot, key) + 1
    return [Put(KEYS, key.value, encode(value))], value


def clock_floor(snapshot: Snapshot) -> UnixSeconds:
    """No time before this is believed; 0 when nothing is known."""
    return UnixSeconds(counter(snapshot, Key.CLOCK_FLOOR))


def raise_clock_floor(snapshot: Snapshot, to: UnixSeconds) -> list[Write]:
    """The floor only rises."""
    return [] if to <= clock_floor(snapshot) else [Put(KEYS, Key.CLOCK_FLOOR.value, encode(to))]


# --- which store this is ----------------------------------------------------------------------------------------------

_STORE_KEY = b"identity"


class _Store(Stored, frozen=True):
    store_id: bytes
    generation: int


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """store_id: 16 random bytes; generation: later ones are greater, and end what earlier ones signed."""

    store_id: StoreId
    generation: int


def store_identity(chunks: Snapshot) -> StoreIdentity | None:
    """What the chunk environment says of itself."""
    return _load_store(chunks.get(STORE, _STORE_KEY))


def _load_store(data: bytes | None) -> StoreIdentity | None:
    if data is None:
        return None
    value = load(STORE, data, _Store)
    return StoreIdentity(StoreId(value.store_id), value.generation)


def identify_store(
    ledger: Snapshot, chunks: Snapshot, *, fresh_id: StoreId, now: UnixSeconds
) -> tuple[StoreIdentity, list[Write], list[Write]]:
    """Which store this is, at every start: both environments must name the same one, else it is a store made anew.

    A chunk environment that was lost, exchanged or restored from a backup no longer has what its receipts promised, so it
    goes on under the same id and a later generation. Generations are taken from the clock: two restores of one backup differ.
    Result: identity, writes for the ledger environment (commit these first), writes for the chunk environment.
    """
    assert len(fresh_id) == 16
    ours = _load_store(ledger.get(KEYS, Key.STORE.value))
    theirs = store_identity(chunks)
    if ours is not None and ours == theirs:
        return ours, [], []
    known = ours or theirs
    before = max((identity.generation for identity in (ours, theirs) if identity is not None), default=0)
    identity = StoreIdentity(known.store_id if known else fresh_id, max(before + 1, now))
    value = encode(_Store(FORMAT, SUITE, identity.store_id, identity.generation))
    return identity, [Put(KEYS, Key.STORE.value, value)], [Put(STORE, _STORE_KEY, value)]


# --- fences, revocations, tickets -------------------------------------------------------------------------------------


def put_fence(network: NetworkId, fence_number: int, data: bytes) -> list[Write]:
    """A fence of a network by its number, opaque."""
    return [Put(FENCES, network + number(fence_number), data)]


def fences(snapshot: Snapshot, network: NetworkId) -> Iterator[tuple[int, bytes]]:
    """(number, fence) of a network, oldest first."""
    for key, data in snapshot.scan(FENCES, prefix=network):
        yield int.from_bytes(key[HASH_BYTES:], "big"), data


def drop_fence(network: NetworkId, fence_number: int) -> list[Write]:
    return [Delete(FENCES, network + number(fence_number))]


def put_revocation(object_hash: Digest, data: bytes) -> list[Write]:
    """A revocation by the hash of its envelope, opaque."""
    return [Put(REVOCATIONS, object_hash, data)]


def revocations(snapshot: Snapshot) -> Iterator[tuple[Digest, bytes]]:
    for key, data in snapshot.scan(REVOCATIONS):
        yield Digest(key), data


def put_ticket(ticket_id: bytes, data: bytes) -> list[Write]:
    """What is known of a ticket, opaque; replaces what was."""
    assert 1 <= len(ticket_id) <= 64
    return [Put(TICKETS, ticket_id, data)]


def ticket(snapshot: Snapshot, ticket_id: bytes) -> bytes | None:
    return snapshot.get(TICKETS, ticket_id)


def tickets(snapshot: Snapshot) -> Iterator[tuple[bytes, bytes]]:
    yield from snapshot.scan(TICKETS)


def drop_ticket(ticket_id: bytes) -> list[Write]:
    return [Delete(TICKETS, ticket_id)]
