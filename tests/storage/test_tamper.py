"""What is changed on a node's disk is found: each table of a chain, each sealed chunk (SEC-01), gaps and another order (SEC-14)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from protocols.crypto import sha256
from protocols.errors import LadingError, Reason
from protocols.ledger.checks import u64
from protocols.types import ChunkName, OwnerKey, UnixSeconds
from storage import chain as store
from storage import chain_care as care
from storage import check, chunks
from storage.engine import Delete, Env, Put, Table, Write
from storage.memory import MemoryEngine
from storage.tables import (
    BODIES,
    CHAIN_BLOCKS,
    CHAIN_CROSSINGS,
    CHAIN_HEIGHTS,
    CHAIN_META,
    CHAIN_OLD_VALUES,
    CHAIN_ROWS,
    CHAIN_STATE,
    CHAIN_TREE,
    CHAIN_TREES,
    CHAIN_VOTES,
    tables_of,
)
from tests.protocols.ledger import chains
from tests.storage.test_chain import a_chain, folder, keep, keep_all

MIB = 1024 * 1024
KEPT = (
    CHAIN_BLOCKS,
    CHAIN_ROWS,
    CHAIN_HEIGHTS,
    CHAIN_CROSSINGS,
    CHAIN_STATE,
    CHAIN_TREE,
    CHAIN_TREES,
    CHAIN_OLD_VALUES,
    CHAIN_VOTES,
    CHAIN_META,
)
ROWS_EACH = 24


@pytest.fixture(scope="module")
def home() -> tuple[MemoryEngine, chains.Chain]:
    """A chain of eight blocks as a node has it: the sixth is final, beside the last two lies another branch, votes are loose."""
    chain = a_chain(6)
    short = len(chain.blocks)
    votes = chain.votes()
    for number in (6, 7):
        chain.add(folder(chain, number), votes=votes if number == 6 else ())
    engine = MemoryEngine(Env.LEDGER, 64 * MIB)
    keep_all(engine, chain)
    tip = chain.blocks[-1].hash
    while len(chain.blocks) > short:
        chain.pop()
    keep(engine, chain.make([folder(chain, 20)], slot=chain.slot + 4), chain)
    with engine.snapshot() as snapshot:
        settled = store.settle(snapshot, chain.blocks[5].hash, (), chain.votes(source=2)[:1])
    engine.write(settled)
    with engine.snapshot() as snapshot:
        overlay = store.Overlay(snapshot)
        store.go_to(overlay, tip)
    engine.write(overlay.writes)
    return engine, chain


def verify(engine: MemoryEngine, chain: chains.Chain) -> care.Replayed:
    """What `lading ledger verify` does."""
    with engine.snapshot() as snapshot:
        return care.verify(snapshot, MemoryEngine(Env.LEDGER, 64 * MIB), chain=chain.chain)


@contextmanager
def changed(engine: MemoryEngine, *writes: Write) -> Iterator[None]:
    """And all as before afterwards."""
    with engine.snapshot() as snapshot:
        before = [(one.table, one.key, snapshot.get(one.table, one.key)) for one in writes]
    engine.write(writes)
    yield
    engine.write([Delete(table, key) if value is None else Put(table, key, value) for table, key, value in before])


def rows_of(engine: MemoryEngine, table: Table) -> list[tuple[bytes, bytes]]:
    with engine.snapshot() as snapshot:
        return list(snapshot.scan(table))


def is_found(engine: MemoryEngine, chain: chains.Chain, *writes: Write) -> bool:
    with changed(engine, *writes):
        try:
            verify(engine, chain)
        except LadingError as error:
            return error.reason is Reason.INTEGRITY
    return False


def test_untouched_chain_holds_and_every_table_of_it_is_tried(home: tuple[MemoryEngine, chains.Chain]) -> None:
    """Goal: what follows shows something. Method: the chain with its side branch verifies; the tables below are all that it has rows in."""
    engine, chain = home
    assert verify(engine, chain).height == 8
    assert {table for table in tables_of(Env.LEDGER) if rows_of(engine, table)} == set(KEPT)
    assert len(rows_of(engine, CHAIN_BLOCKS)) == 10


@pytest.mark.parametrize("table", KEPT, ids=lambda table: table.name)
def test_every_changed_byte_of_a_chain_is_found(home: tuple[MemoryEngine, chains.Chain], table: Table) -> None:
    """Goal: 100 % detected. Method: one bit in each of up to 24 rows of the table, in the first byte, the last and one between; `lading
    ledger verify` names damage each time. The number of the newest version alone may be higher than it was: it is only never reused."""
    engine, chain = home
    rng = random.Random(table.name)
    rows = rows_of(engine, table)
    tried = 0
    for key, value in rng.sample(rows, min(ROWS_EACH, len(rows))):
        for at in {0, rng.randrange(len(value)), len(value) - 1} if value else ():
            data = bytearray(value)
            data[at] ^= 1 << rng.randrange(8)
            if key == b"version" and bytes(data) > value:
                continue
            tried += 1
            assert is_found(engine, chain, Put(table, key, bytes(data))), (key, at)
    assert tried >= 3


def test_gaps_and_another_order_are_found(home: tuple[MemoryEngine, chains.Chain]) -> None:
    """Goal: nothing is taken out of a chain, put into it or moved in it unseen. Method: each block, place, index entry and value of the
    state taken away; neighbours change places; a value and a block that nobody made beside the others."""
    engine, chain = home
    for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_HEIGHTS, CHAIN_STATE):
        rows = rows_of(engine, table)
        for (key, value), (other, neighbour) in zip(rows, rows[1:] + rows[:1], strict=True):
            assert is_found(engine, chain, Delete(table, key)), (table.name, key)
            if value != neighbour:
                assert is_found(engine, chain, Put(table, key, neighbour), Put(table, other, value)), (table.name, key)
    made_up = sha256(b"nobody made it")
    for write in (Put(CHAIN_STATE, b"\x06folder" + made_up, b"x"), Put(CHAIN_HEIGHTS, u64(3) + made_up, b"\x01")):
        assert is_found(engine, chain, write)


def test_branch_that_was_rolled_back_verifies(home: tuple[MemoryEngine, chains.Chain]) -> None:
    """Goal: what the program does to a chain is no damage. Method: back to each height; what is left verifies."""
    engine, chain = home
    for height in (8, 6, 3):
        with engine.snapshot() as snapshot:
            _, writes = care.roll_back(snapshot, height)
        with changed(engine, *writes):
            assert verify(engine, chain).height == height


def test_every_changed_chunk_is_found() -> None:
    """Goal: the same of sealed chunks. Method: 40 of them; a bit in each, in turn and in all at once; the scrub names just those."""
    engine = MemoryEngine(Env.CHUNKS, 64 * MIB)
    bodies = [(ChunkName(sha256(body)), body) for body in (bytes([number]) * (300 + 7 * number) for number in range(40))]
    with engine.snapshot() as snapshot:
        protection = chunks.Protection(OwnerKey(bytes(32)), b"put", UnixSeconds(1_000_000))
        writes = chunks.keep(snapshot, bodies, protection, now=UnixSeconds(1))
    engine.write(writes)

    def found() -> set[ChunkName]:
        with engine.snapshot() as snapshot:
            return {damage.name for damage in check.scrub(snapshot, limit=100).damaged}

    rng = random.Random(40)
    assert found() == set()
    flipped = []
    for name, body in bodies:
        data = bytearray(body)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flipped.append(Put(BODIES, name, bytes(data)))
        with changed(engine, flipped[-1]):
            assert found() == {name}
    with changed(engine, *flipped):
        assert found() == {name for name, _ in bodies}
