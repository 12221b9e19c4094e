"""The state's tree on disk: states of late given away whole, nothing left over, planted rows found, a state fetched under crashes."""

from __future__ import annotations

import random
from zlib import crc32

import pytest

from protocols.errors import StoreDamaged
from protocols.ledger.checks import u64
from protocols.ledger.rows import leaves_of
from protocols.ledger.snapshot import Frontier, StateNode, check_state_node
from protocols.types import BlockHash
from storage import chain as store
from storage.chain_state import ROOT, find_node, missing_nodes, put_nodes, rows_in, tree_of
from storage.engine import Delete, Engine, Env, Put, Snapshot
from storage.faulty import Crashed, Faults, FaultyEngine
from storage.memory import MemoryEngine
from storage.overlay import Overlay
from storage.tables import CHAIN_FETCHED, CHAIN_META, CHAIN_OLD_VALUES, CHAIN_TREE, CHAIN_TREES
from tests.protocols.ledger import chains

from .test_chain import MIB, a_chain, expected, folder, keep, keep_all, state_of

States = dict[bytes, dict[bytes, bytes]]
"""By block: values by place."""


def opened() -> MemoryEngine:
    return MemoryEngine(Env.LEDGER, 64 * MIB)


def kept_states(engine: Engine, chain: chains.Chain, first: int = 0) -> States:
    """Keeps the blocks from ``first`` on. Result: the state after each."""
    states: States = {}
    for block in chain.blocks[first:]:
        keep(engine, block, chain)
        states[block.hash] = dict(state_of(engine))
    return states


def given(snapshot: Snapshot, height: int, name: BlockHash, root: bytes) -> dict[bytes, bytes] | None:
    """The state after a block as a peer would fetch it, by places of the tree; None when a node of it is lacking."""
    frontier, values = Frontier([(b"\0\0", root)]), {}
    while not frontier.is_done:
        found = []
        for wanted in frontier.ask(b"peer", among=1):
            one = find_node(snapshot, (height, name), wanted)
            if one is None:
                return None
            check_state_node(one)
            found.append(one)
            if one.is_leaf:
                values[bytes([len(one.space)]) + one.space.encode() + one.key] = one.value
        frontier.take(b"peer", found)
    return values


def go(engine: Engine, target: bytes) -> None:
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        store.go_to(overlay, BlockHash(target))
    engine.write(overlay.writes)


def rows_needed(snapshot: Snapshot) -> set[bytes]:
    """Keys of the rows that the trees kept are made of."""
    found: set[bytes] = set()
    stored = rows_in(snapshot)

    def row_of(version: int, path: bytes) -> bytes:
        found.add(u64(version) + path)
        return stored(version, path)

    for key, _ in snapshot.scan(CHAIN_TREES):
        tree = tree_of(snapshot, int.from_bytes(key[:8], "big"), key[8:])
        assert tree is not None
        list(leaves_of(tree.root, tree.version, row_of))
    return found


def assert_nothing_left_over(engine: Engine) -> None:
    with engine.snapshot() as snapshot:
        assert {key for key, _ in snapshot.scan(CHAIN_TREE)} == rows_needed(snapshot)


def test_every_kept_state_is_given_whole_whichever_branch_the_state_stands_on() -> None:
    """Goal: a state of late needs no copy of it. Method: two branches from height 3; from either head every state of its branch is fetched
    node by node, values that later blocks replaced included; the other branch's are whole again after walking over."""
    chain, engine = a_chain(3), opened()
    states = kept_states(engine, chain)
    for number in range(10, 14):
        chain.add(folder(chain, number))
    states |= kept_states(engine, chain, 4)
    left = list(chain.blocks)
    while chain.height > 3:
        chain.pop()
    for number in range(20, 23):
        chain.add(folder(chain, number, "bob"), slot=chain.slot + 3)
    states |= kept_states(engine, chain, 4)
    right = list(chain.blocks)
    for branch in (right, left, right):
        go(engine, branch[-1].hash)
        with engine.snapshot() as snapshot:
            store.check(snapshot)
            for block in branch:
                assert given(snapshot, block.info.height, block.hash, block.info.state_root) == states[block.hash]
    assert_nothing_left_over(engine)
    dead = [(BlockHash(block.hash), block.info.height) for block in left[4:]]
    with engine.snapshot() as snapshot:
        writes = store.settle(snapshot, BlockHash(right[4].hash), dead, ())
    engine.write(writes)
    assert_nothing_left_over(engine)
    with engine.snapshot() as snapshot:
        assert given(snapshot, left[4].info.height, left[4].hash, left[4].info.state_root) is None
        assert {key[-8:] for key, _ in snapshot.scan(CHAIN_OLD_VALUES)} <= {u64(block.info.height) for block in right}


def test_states_too_old_go_with_all_that_they_alone_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a bounded disk. Method: twelve blocks, four states kept, three rows a batch at most; in the end the oldest states are lacking,
    the others whole, and no row or value is left that none of them needs."""
    monkeypatch.setattr(store, "STATES_KEPT", 4)
    monkeypatch.setattr("storage.chain_state.OLD_ROWS_PER_BATCH_MAX", 3)
    chain, engine = a_chain(12), opened()
    states = kept_states(engine, chain)
    for _ in range(12):
        with engine.snapshot() as snapshot:
            writes = store.forget(snapshot, final=12, heights_kept=None)
        engine.write(writes)
        assert_nothing_left_over(engine)
    with engine.snapshot() as snapshot:
        assert store.forget(snapshot, final=12, heights_kept=None) == []
        for block in chain.blocks:
            found = given(snapshot, block.info.height, block.hash, block.info.state_root)
            assert found == (states[block.hash] if block.info.height >= 8 else None)
        heights = {int.from_bytes(key[-8:], "big") for key, _ in snapshot.scan(CHAIN_OLD_VALUES)}
    assert heights == {9, 10, 11, 12}


def test_planted_rows_are_found_by_their_hashes_even_with_a_right_sum() -> None:
    """Goal: `ledger verify` and every start notice a tree that is not the state's. Method: in each row of the present tree one byte altered
    and its sum made anew; each row taken away; each replaced by another version of it."""
    chain, engine = a_chain(4), opened()
    keep_all(engine, chain)
    rng = random.Random(9)
    with engine.snapshot() as snapshot:
        store.check(snapshot)
        tree = tree_of(snapshot, chain.height, chain.blocks[-1].hash)
        assert tree is not None
        keys: list[tuple[int, bytes]] = []

        def row_of(version: int, path: bytes) -> bytes:
            keys.append((version, path))
            return rows_in(snapshot)(version, path)

        list(leaves_of(tree.root, tree.version, row_of))
        old = {path: rows_in(snapshot)(version, path) for version, path in tree.replaced}
        for version, path in keys[:20]:
            key = u64(version) + path
            row = bytearray(rows_in(snapshot)(version, path))
            row[rng.randrange(len(row))] ^= 1 << rng.randrange(8)
            planted = [Delete(CHAIN_TREE, key), Put(CHAIN_TREE, key, row + sum_of(key, row))]
            if path in old:
                planted.append(Put(CHAIN_TREE, key, old[path] + sum_of(key, old[path])))
            for write in planted:
                overlay = Overlay(snapshot)
                overlay.add([write])
                with pytest.raises(StoreDamaged):
                    store.check(overlay)


def sum_of(key: bytes, row: bytes | bytearray) -> bytes:
    return crc32(key + row).to_bytes(4, "little")


def test_rows_that_rotted_are_refused_when_they_are_used() -> None:
    """Goal: rot never becomes a wrong root that others are blamed for. Method: a bit of the root row flipped; the next block is judged."""
    chain = a_chain(2)
    engine = FaultyEngine(opened(), Faults(), random.Random(3))
    keep_all(engine, chain)
    with engine.snapshot() as snapshot:
        tree = tree_of(snapshot, chain.height, chain.blocks[-1].hash)
    assert tree is not None
    engine.flip_bit(CHAIN_TREE, u64(tree.version))
    chain.add(folder(chain, 7))
    with pytest.raises(StoreDamaged):
        keep(engine, chain.blocks[-1], chain)


@pytest.mark.parametrize("keeps", [False, True])
def test_state_is_fetched_through_crashes_at_every_write_and_the_chain_goes_on(keeps: bool) -> None:
    """Goal: a join goes on where it stood. Method: the state of block 3, seven nodes at a time, from a node that is at block 6; the machine
    goes down at each write in turn; then blocks 4 to 6 are judged on it, and what helped to fetch it goes."""
    chain, source = a_chain(6), opened()
    states = kept_states(source, chain)
    anchor = chain.blocks[3]
    at = 0
    while True:
        at += 1
        faults = Faults(crash_after_writes=at, crash_keeps=keeps)
        engine = FaultyEngine(opened(), faults, random.Random(at))
        try:
            join(engine, source, chain)
        except Crashed:
            engine.restart()
            faults.crash_after_writes = None
            with engine.snapshot() as snapshot:
                store.check(snapshot)
            join(engine, source, chain)
            is_last = False
        else:
            faults.crash_after_writes, is_last = None, True
        assert dict(state_of(engine)) == states[anchor.hash]
        for block in chain.blocks[4:]:
            keep(engine, block, chain)
        assert dict(state_of(engine)) == expected(chain)
        assert_nothing_left_over(engine)
        with engine.snapshot() as snapshot:
            assert snapshot.count(CHAIN_FETCHED)
            writes = store.forget(snapshot, final=6, heights_kept=None)
        engine.write(writes)
        with engine.snapshot() as snapshot:
            assert not snapshot.count(CHAIN_FETCHED)
            assert given(snapshot, 3, anchor.hash, anchor.info.state_root) == states[anchor.hash]
        if is_last:
            break
    assert at > 10


def join(engine: Engine, source: Engine, chain: chains.Chain) -> None:
    """To the state of block 3, from wherever it stands."""
    anchor = chain.blocks[3]
    with engine.snapshot() as snapshot:
        if store.state_at(snapshot) is not None:
            return
        begun = store.begin_join(snapshot, anchor)
    engine.write(begun)
    with engine.snapshot() as snapshot:
        frontier = Frontier(missing_nodes(snapshot, anchor.info.state_root))
    while not frontier.is_done:
        found: list[StateNode] = []
        with source.snapshot() as snapshot:
            for wanted in frontier.ask(b"peer", among=1)[:7]:
                one = find_node(snapshot, (3, anchor.hash), wanted)
                assert one is not None
                found.append(one)
        with engine.snapshot() as snapshot:
            writes = put_nodes(snapshot, frontier.take(b"peer", found))
        engine.write(writes)
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        store.finish_join(overlay)
    engine.write(overlay.writes)


def test_home_of_an_older_program_gets_its_tree_from_its_values() -> None:
    """Goal: nothing is fetched again that is here. Method: a chain with two branches without the tables of its tree and with the root as it
    was written before; rebuilt it checks, walks to the other branch, and judges on; altered values are refused."""
    chain, engine = a_chain(3), opened()
    keep_all(engine, chain)
    chain.add(folder(chain, 50))
    keep(engine, chain.blocks[-1], chain)
    other, there = chain.blocks[-1].hash, state_of(engine)
    chain.pop()
    for number in range(10, 12):
        chain.add(folder(chain, number, "bob"), slot=chain.slot + 3)
        keep(engine, chain.blocks[-1], chain)
    here = state_of(engine)
    with engine.snapshot() as snapshot:
        gone = [Delete(table, key) for table in (CHAIN_TREE, CHAIN_TREES, CHAIN_OLD_VALUES) for key, _ in snapshot.scan(table)]
        root = store.ChainState(snapshot).root
    engine.write([*gone, Put(CHAIN_META, ROOT, root)])
    with engine.snapshot() as snapshot:
        with pytest.raises(StoreDamaged):
            store.check(snapshot)
        writes = store.rebuild_tree(snapshot)
        altered = Overlay(snapshot)
        altered.put(CHAIN_META, ROOT, bytes(31) + b"\1")
        with pytest.raises(StoreDamaged):
            store.rebuild_tree(altered)
    engine.write(writes)
    assert state_of(engine) == here
    with engine.snapshot() as snapshot:
        assert store.rebuild_tree(snapshot) == []
    go(engine, other)
    assert state_of(engine) == there
    go(engine, chain.blocks[-1].hash)
    assert state_of(engine) == here
    chain.add(folder(chain, 30))
    keep(engine, chain.blocks[-1], chain)
    assert dict(state_of(engine)) == expected(chain)
