"""A chain that stands still: judged again, taken back to a height and on again, its index made anew."""

from __future__ import annotations

import pytest

from protocols.codec import replace
from protocols.errors import LadingError, Reason, Refused
from protocols.ledger.checks import u64
from storage import chain as store
from storage import chain_care as care
from storage.engine import Delete, Env, Put
from storage.memory import MemoryEngine
from storage.tables import CHAIN_HEIGHTS
from tests.storage.test_chain import a_chain, keep_all, state_of

MIB = 1024 * 1024
BLOCKS = 12


def empty() -> MemoryEngine:
    return MemoryEngine(Env.LEDGER, 64 * MIB)


def test_replay_leads_to_the_same_state_and_finds_the_block_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `ledger verify` and `ledger import`. Method: replay in batches of five into an empty store; twice changes nothing; a block with
    another seal is named by its height."""
    monkeypatch.setattr(care, "BATCH_BLOCKS", 5)
    chain = a_chain(BLOCKS)
    kept, other = empty(), empty()
    keep_all(kept, chain)
    with kept.snapshot() as snapshot:
        path = care.branch(snapshot)
        blocks = list(care.bodies(snapshot, path))
    assert [block.hash for block in blocks] == [block.hash for block in chain.blocks]
    for _ in range(2):
        found = care.replay(other, blocks, chain=chain.chain)
        assert (found.blocks, found.height, found.tip, found.state_root) == (BLOCKS + 1, BLOCKS, blocks[-1].hash, chain.view.root)
        assert found.carried > 0
    assert state_of(other) == state_of(kept)
    bad = [*blocks[:8], replace(blocks[8], seal=bytes(64)), *blocks[9:]]
    with pytest.raises(LadingError) as refused:
        care.replay(empty(), bad, chain=chain.chain)
    assert refused.value.reason is Reason.INTEGRITY
    assert refused.value.details["height"] == 8


def test_rollback_forgets_what_is_above_and_the_same_blocks_lead_back() -> None:
    """Goal: `ledger rollback`, below the final block too. Method: to each height; the state is that of a chain that never went further; the
    blocks above, taken again, lead to the same place; a height that is not there is refused."""
    chain = a_chain(BLOCKS)
    for height in (0, 3, BLOCKS - 1, BLOCKS):
        engine, short = empty(), empty()
        keep_all(engine, chain)
        with engine.snapshot() as snapshot:
            settled = store.settle(snapshot, chain.blocks[BLOCKS - 2].hash, (), ())
        engine.write(settled)
        with engine.snapshot() as snapshot:
            target, writes = care.roll_back(snapshot, height)
        engine.write(writes)
        care.replay(short, chain.blocks[: height + 1], chain=chain.chain)
        assert target == chain.blocks[height].hash
        assert state_of(engine) == state_of(short)
        with engine.snapshot() as snapshot:
            store.check(snapshot)
            final = store.final_block(snapshot)
            assert final is not None
            row = store.row(snapshot, final)
            assert row is not None
            assert row.height == min(height, BLOCKS - 2)
        assert care.replay(engine, chain.blocks, chain=chain.chain).state_root == chain.view.root
    with engine.snapshot() as snapshot, pytest.raises(LadingError) as refused:
        care.roll_back(snapshot, BLOCKS + 1)
    assert refused.value.reason is Reason.NOT_FOUND


def test_rollback_below_the_final_block_recalls_the_votes_that_were_counted() -> None:
    """Goal: what was final can become final again from what is here. Method: settle as a node does, which forgets counted votes; back to a
    height below; the votes that blocks up to there carry for what is not final there are loose again, and no others."""
    chain = a_chain(BLOCKS)
    engine = empty()
    keep_all(engine, chain)
    with engine.snapshot() as snapshot:
        row = store.row(snapshot, chain.blocks[BLOCKS - 2].hash)
        assert row is not None
        counted = [vote for vote in store.votes(snapshot) if vote.target.height <= row.carried]
    with engine.snapshot() as snapshot:
        settled = store.settle(snapshot, chain.blocks[BLOCKS - 2].hash, (), counted)
    engine.write(settled)
    back = BLOCKS - 5
    with engine.snapshot() as snapshot:
        _, writes = care.roll_back(snapshot, back)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        there = store.row(snapshot, chain.blocks[back].hash)
        assert there is not None
        loose = {vote.target.height for vote in store.votes(snapshot)}
    carried = {vote.target.height for block in chain.blocks[: back + 1] for vote in block.votes}
    wanted = {height for height in carried if height > there.carried}
    assert wanted
    assert wanted <= loose
    assert min(loose) > there.carried


@pytest.mark.parametrize("heights_kept", [None, 4])
def test_rollback_below_what_is_kept_is_refused_with_the_height_that_can_be_reached(
    heights_kept: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a reason, not a damaged store. Method: a node that keeps the states of three heights, and one that keeps four bodies too;
    final at 9; the refusal names a height, which can be reached and from which the same blocks lead back; what needs all history says
    so."""
    monkeypatch.setattr(store, "STATES_KEPT", 3)
    chain = a_chain(BLOCKS)
    engine = empty()
    keep_all(engine, chain)
    with engine.snapshot() as snapshot:
        settled = store.settle(snapshot, chain.blocks[9].hash, (), ())
    engine.write(settled)
    with engine.snapshot() as snapshot:
        forgotten = store.forget(snapshot, final=9, heights_kept=heights_kept)
    engine.write(forgotten)
    with engine.snapshot() as snapshot:
        with pytest.raises(Refused) as refused:
            care.roll_back(snapshot, 2)
        assert refused.value.reason is Reason.PRUNED
        reach = refused.value.details["lowest"]
        assert reach == 6
        if heights_kept is not None:
            for use in (care.branch, lambda snapshot: list(care.bodies(snapshot, care.branch(snapshot)))):
                with pytest.raises(Refused) as pruned:
                    use(snapshot)
                assert pruned.value.reason is Reason.PRUNED
        with pytest.raises(LadingError) as beyond:
            care.roll_back(snapshot, BLOCKS + 1)
        assert beyond.value.reason is Reason.NOT_FOUND
        target, writes = care.roll_back(snapshot, reach)
    assert target == chain.blocks[reach].hash
    engine.write(writes)
    with engine.snapshot() as snapshot:
        store.check(snapshot)
        there = store.row(snapshot, target)
        assert there is not None
        assert {vote.target.height for vote in store.votes(snapshot)} >= {
            vote.target.height for block in chain.blocks[6:7] for vote in block.votes if vote.target.height > there.carried
        }
    assert care.replay(engine, chain.blocks[reach:], chain=chain.chain).state_root == chain.view.root


def test_index_of_heights_is_made_anew_from_the_rows() -> None:
    """Goal: `ledger rebuild-index`. Method: one entry gone, one too many; afterwards it is as before, and nothing is left to do."""
    chain = a_chain(4)
    engine = empty()
    keep_all(engine, chain)

    def index() -> list[bytes]:
        with engine.snapshot() as snapshot:
            return [key for key, _ in snapshot.scan(CHAIN_HEIGHTS)]

    before = index()
    engine.write([Delete(CHAIN_HEIGHTS, before[2]), Put(CHAIN_HEIGHTS, u64(9) + bytes(32), b"\x01")])
    with engine.snapshot() as snapshot:
        writes = care.rebuild_heights(snapshot)
    engine.write(writes)
    assert index() == before
    with engine.snapshot() as snapshot:
        assert not care.rebuild_heights(snapshot)
