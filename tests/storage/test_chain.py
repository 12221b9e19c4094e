"""The chain on disk: the state walks between branches, a kill at any commit leaves a whole chain, damage is noticed."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from node.promises import PromiseFile, fresh
from protocols.errors import InvalidBlock, Reason, StoreDamaged, Undecided
from protocols.ledger.block import Block
from protocols.ledger.envelope import Transaction
from protocols.ledger.transactions import folder_update
from protocols.ledger.votes import Promises, carried_order
from protocols.types import BlockHash
from storage import chain as store
from storage.engine import Delete, Engine, Env, Put, Table
from storage.faulty import Crashed, Faults, FaultyEngine
from storage.lmdb_engine import LmdbEngine
from storage.memory import MemoryEngine
from storage.overlay import Overlay
from storage.tables import CHAIN_BLOCKS, CHAIN_CROSSINGS, CHAIN_META, CHAIN_STATE, CHAIN_TREE
from tests.protocols.ledger import chains

MIB = 1024 * 1024


def folder(chain: chains.Chain, number: int, person: str = "ann") -> Transaction:
    return chain.by(person, "FolderUpdate", folder_update.Body(f"f{number}", bytes(32), bytes(32), 1))


def a_chain(blocks: int) -> chains.Chain:
    chain = chains.start()
    for number in range(blocks):
        chain.add(folder(chain, number), votes=chain.votes() if number else ())
    return chain


def keep(engine: Engine, block: Block, chain: chains.Chain) -> store.Executed:
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        executed = store.execute(overlay, block, chain=chain.chain) if block.info.height else store.begin(overlay, block, chain=chain.chain)
    engine.write(overlay.writes)
    return executed


def keep_all(engine: Engine, chain: chains.Chain) -> None:
    for block in chain.blocks:
        keep(engine, block, chain)


def look_everywhere(engine: Engine, target: bytes) -> None:
    """Check what stands, then walk."""
    with engine.snapshot() as snapshot:
        store.check(snapshot)
        store.go_to(Overlay(snapshot), BlockHash(target))


def state_of(engine: Engine) -> tuple[tuple[bytes, bytes], ...]:
    with engine.snapshot() as snapshot:
        store.check(snapshot)
        return tuple(store.state_items(snapshot))


def expected(chain: chains.Chain) -> dict[bytes, bytes]:
    return {bytes([len(space)]) + space.encode() + key: value for (space, key), value in chain.view.items().items()}


def test_state_on_lmdb_is_that_of_the_reference(tmp_path: Path) -> None:
    """Goal: the store is a StateView like the one in memory. Method: twelve blocks with votes and transactions through both."""
    chain = a_chain(12)
    engine = LmdbEngine(tmp_path / "ledger", Env.LEDGER, budget_bytes=64 * MIB, reserve_bytes=0)
    for block in chain.blocks:
        keep(engine, block, chain)
    assert dict(state_of(engine)) == expected(chain)
    with engine.snapshot() as snapshot:
        assert store.ChainState(snapshot).root == chain.view.root
        assert [row.height for _, row in store.blocks_from(snapshot, 0)] == list(range(13))
        carried = [vote for block in chain.blocks for vote in block.votes]
        assert carried
        assert store.votes(snapshot) == tuple(sorted(carried, key=carried_order))
    engine.close()


def test_state_walks_to_another_branch_and_back() -> None:
    """Goal: a crossing turns round and loses nothing. Method: two branches from height 3; there, back, there again, byte for byte."""
    chain = a_chain(3)
    engine = MemoryEngine(Env.LEDGER, 64 * MIB)
    for block in chain.blocks:
        keep(engine, block, chain)
    for number in range(10, 14):
        chain.add(folder(chain, number))
        keep(engine, chain.blocks[-1], chain)
    one, left = chain.blocks[-1].hash, state_of(engine)
    while chain.height > 3:
        chain.pop()
    for number in range(20, 22):
        chain.add(folder(chain, number, "bob"), slot=chain.slot + 3)
        keep(engine, chain.blocks[-1], chain)
    other, right = chain.blocks[-1].hash, state_of(engine)
    assert left != right
    assert dict(right) == expected(chain)
    for target, wanted in ((one, left), (other, right), (one, left)):
        with engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            store.go_to(overlay, target)
        engine.write(overlay.writes)
        assert state_of(engine) == wanted


@pytest.mark.parametrize("keeps", [False, True])
def test_kill_at_every_commit_leaves_a_whole_chain_that_goes_on(keeps: bool) -> None:
    """Goal: no commit is half a block. Method: the machine goes down at every write, with or without the batch."""
    chain = a_chain(6)
    for at in range(1, len(chain.blocks) + 1):
        faults = Faults(crash_after_writes=at, crash_keeps=keeps)
        engine = FaultyEngine(MemoryEngine(Env.LEDGER, 64 * MIB), faults, random.Random(at))
        with pytest.raises(Crashed):
            keep_all(engine, chain)
        engine.restart()
        with engine.snapshot() as snapshot:
            store.check(snapshot)
            name = store.state_at(snapshot)
            row = None if name is None else store.row(snapshot, name)
        height = -1 if row is None else row.height
        assert height == at - 1 if keeps else height == at - 2
        for block in chain.blocks[height + 1 :]:
            keep(engine, block, chain)
        assert dict(state_of(engine)) == expected(chain)


@pytest.mark.parametrize("table", [CHAIN_BLOCKS, CHAIN_META, CHAIN_TREE, CHAIN_STATE, CHAIN_CROSSINGS], ids=lambda table: table.name)
def test_damage_is_noticed_and_never_answered_as_truth(table: Table) -> None:
    """Goal: rot is told from truth. Method: flip one bit of a value in each table; check, or the walk over it, refuses."""
    chain = a_chain(4)
    engine = FaultyEngine(MemoryEngine(Env.LEDGER, 64 * MIB), Faults(), random.Random(5))
    for block in chain.blocks:
        keep(engine, block, chain)
    with engine.snapshot() as snapshot:
        tip = chain.blocks[-1].hash
        at_tip = table in (CHAIN_BLOCKS, CHAIN_CROSSINGS)
        keys = [key for key, value in snapshot.scan(table) if value]
        key = tip if at_tip else keys[-1 if table is CHAIN_TREE else 0]  # the newest row: older ones may be of older trees alone
    engine.flip_bit(table, key)
    with pytest.raises(StoreDamaged):
        look_everywhere(engine, chain.blocks[-2].hash)


def test_refused_blocks_leave_nothing() -> None:
    """Goal: only judged blocks are kept. Method: a wrong root, an unknown parent."""
    chain = a_chain(2)
    engine = MemoryEngine(Env.LEDGER, 64 * MIB)
    for block in chain.blocks[:2]:
        keep(engine, block, chain)
    before = state_of(engine)
    stranger = chains.start(miners=("a", "b"))
    stranger.run(2)
    with pytest.raises(Undecided) as undecided:
        keep(engine, stranger.blocks[-1], chain)
    assert undecided.value.reason is Reason.UNKNOWN_PARENT
    with pytest.raises(InvalidBlock):
        keep(engine, Block(chain.blocks[2].header, chain.blocks[1].info, (), (), chain.blocks[2].seal), chain)
    assert state_of(engine) == before


def test_promises_are_read_back_and_a_lost_or_torn_file_says_so(tmp_path: Path) -> None:
    """Goal: a file that is not whole is no promise. Method: save, load; half of it; none."""
    path = tmp_path / "promises"
    file = PromiseFile(path)
    assert file.load() is None
    kept = fresh(chains.start().chain)
    file.save(kept)
    assert file.load() == kept
    said = type(kept)(kept.format, kept.chain, Promises(3, 4, 9), True, ())
    file.save(said)
    assert PromiseFile(path).load() == said
    path.write_bytes(path.read_bytes()[:20])
    assert file.load() is None


def test_values_that_changed_places_are_found() -> None:
    """Goal: what stands in the wrong place is damage, although the state has the same values. Method: every pair of neighbours trades its
    values in turn; one is taken away; one that the tree does not know is put there."""
    engine = MemoryEngine(Env.LEDGER, 64 * MIB)
    keep_all(engine, a_chain(3))
    items = state_of(engine)
    traded = [(one, other) for one, other in pairwise(items) if one[1] != other[1]]
    assert len(traded) > 3
    harms = [
        *([Put(CHAIN_STATE, one[0], other[1]), Put(CHAIN_STATE, other[0], one[1])] for one, other in traded),
        [Delete(CHAIN_STATE, items[0][0])],
        [Put(CHAIN_STATE, b"\x05other" + bytes(8), b"value")],
    ]
    for harm in harms:
        engine.write(harm)
        with engine.snapshot() as snapshot, pytest.raises(StoreDamaged):
            store.check(snapshot)
        engine.write([Put(CHAIN_STATE, key, value) for key, value in items] + [Delete(CHAIN_STATE, b"\x05other" + bytes(8))])
        assert state_of(engine) == items
