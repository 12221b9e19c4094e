"""A hot copy of the environments while the node runs. What is copied is hashed; damage stays behind and is reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.crypto import sha256
from protocols.types import ChunkName, Digest, UnixSeconds

from . import chunks
from .engine import Engine, Env, Put, Snapshot, Write
from .overlay import Overlay
from .tables import BODIES, FREE_EXTENTS, STORE, tables_of

BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Copied:
    """rows, bytes: taken over, of all tables. damaged: chunks whose bodies were left out; the copy has them in quarantine."""

    rows: int
    bytes: int
    damaged: tuple[ChunkName, ...]


def copy(source: Engine, target: Engine, *, now: UnixSeconds) -> Copied:
    """Copies one environment, as it is now, into an empty engine. Memory: one batch.

    Copy the ledger environment first, then the chunks: what the first speaks of is then in the second, but for what was
    collected between, which ``check.reconcile`` finds. The copy does not say which store it is: restored, it becomes one of a
    later generation (``keys.identify_store``), because it no longer has what the running store goes on promising.
    Raises StoreFull, StoreDamaged.
    """
    assert source.env is target.env
    damaged: dict[ChunkName, Digest] = {}
    batch: list[Write] = []
    rows = batch_bytes = total_bytes = 0
    with source.snapshot() as snapshot:
        for put in _rows(snapshot, source.env, damaged):
            batch.append(put)
            batch_bytes += len(put.key) + len(put.value)
            rows += 1
            if batch_bytes >= BATCH_BYTES:
                target.write(batch)
                total_bytes += batch_bytes
                batch, batch_bytes = [], 0
    if batch:
        target.write(batch)
    if damaged:
        with target.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            for name, found_hash in damaged.items():
                overlay.add(chunks.quarantine(overlay, name, found_hash=found_hash, now=now))
        target.write(overlay.writes)
    return Copied(rows, total_bytes + batch_bytes, tuple(damaged))


def _rows(snapshot: Snapshot, env: Env, damaged: dict[ChunkName, Digest]) -> Iterator[Put]:
    for table in tables_of(env):
        if table in (STORE, FREE_EXTENTS):  # each store's own
            continue
        for key, value in snapshot.scan(table):
            if table == BODIES:
                found_hash = sha256(value)
                if found_hash != key:
                    damaged[ChunkName(key)] = found_hash
                    continue
            yield Put(table, key, value)
