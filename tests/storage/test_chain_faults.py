"""The chain's storage under crashes at every write, full disks, long forks and altered blocks; on LMDB, opened anew after each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from protocols.codec import replace
from protocols.errors import InvalidBlock, Reason, StoreFull
from protocols.ledger.block import Block
from protocols.ledger.envelope import Transaction
from protocols.ledger.votes import Vote
from protocols.types import BlockHash
from storage import chain as store
from storage.engine import Engine, Env
from storage.faulty import Crashed, Faults, FaultyEngine
from storage.lmdb_engine import LmdbEngine
from storage.memory import MemoryEngine
from storage.overlay import Overlay
from tests.protocols.ledger import chains
from tests.protocols.ledger.chains import owned

from .test_chain import MIB, expected, folder, keep, state_of

Step = Callable[[Engine], None]


@dataclass
class Story:
    """Every way in which the chain's tables are written, in an order that works, and the same chain in memory."""

    chain: chains.Chain
    steps: list[Step] = field(default_factory=list)
    own: Transaction | None = None


def take(block: Block, chain: chains.Chain) -> Step:
    def step(engine: Engine) -> None:
        with engine.snapshot() as snapshot:
            known = store.row(snapshot, BlockHash(block.hash)) is not None
        if not known:
            keep(engine, block, chain)

    return step


def walk(target: bytes) -> Step:
    def step(engine: Engine) -> None:
        with engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            store.go_to(overlay, BlockHash(target))
        engine.write(overlay.writes)

    return step


def a_story() -> Story:
    """Two branches of four blocks; there and back; one becomes final and the other goes; a transaction made here comes and goes."""
    chain = chains.start()
    for number in range(2):
        chain.add(folder(chain, number), votes=chain.votes() if number else ())
    story = Story(chain)
    base = list(chain.blocks)
    left = [chain.make([folder(chain, 10)], slot=chain.slot + 1)]
    chain.take(left[0])
    for number in range(3):
        chain.add(folder(chain, 11 + number), votes=chain.votes())
        left.append(chain.blocks[-1])
    while chain.height > 2:
        chain.pop()
    right = []
    for number in range(4):
        chain.add(folder(chain, 20 + number, "bob"), slot=chain.slot + 2, votes=chain.votes())
        right.append(chain.blocks[-1])
    own = story.own = folder(chain, 99, "cid")
    story.steps += [take(block, chain) for block in base]
    story.steps.append(lambda engine: engine.write([store.put_own(own)]))
    story.steps += [take(block, chain) for block in left]
    story.steps += [take(block, chain) for block in right]
    story.steps += [walk(left[-1].hash), walk(right[-1].hash)]
    dead = [(BlockHash(block.hash), block.info.height) for block in left]
    final, counted = BlockHash(right[1].hash), right[1].votes
    story.steps.append(settle(final, dead, counted, own.id))
    return story


def settle(final: BlockHash, dead: list[tuple[BlockHash, int]], counted: tuple[Vote, ...], own: bytes) -> Step:
    def step(engine: Engine) -> None:
        with engine.snapshot() as snapshot:
            settled = store.settle(snapshot, final, dead, counted)
        engine.write([*settled, store.drop_own(own)])

    return step


def tell(engine: Engine, steps: list[Step]) -> None:
    for step in steps:
        step(engine)


STORY = a_story()


@dataclass
class Disk:
    """One directory that is opened, crashes, and is opened anew."""

    path: Path
    faults: Faults
    engine: FaultyEngine | None = None
    budget_bytes: int = 64 * MIB

    def open(self, seed: int = 0) -> FaultyEngine:
        if self.engine is not None:
            self.engine.close()
        inner = LmdbEngine(self.path, Env.LEDGER, budget_bytes=self.budget_bytes, reserve_bytes=0)
        self.engine = FaultyEngine(inner, self.faults, random.Random(seed))
        return self.engine


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "ledger", Faults())
    yield found
    if found.engine is not None:
        found.engine.close()


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("at", range(len(STORY.steps)))
def test_crash_at_every_write_of_the_chain_leaves_a_whole_one_on_lmdb(disk: Disk, at: int, keeps: bool) -> None:
    """Goal: blocks, walks, votes, finality: nothing is ever half on the disk. Method: the whole story; the machine goes down at write
    number ``at``, with or without it; the directory is opened anew, checked, and the story told to its end."""
    engine = disk.open()
    disk.faults.crash_after_writes, disk.faults.crash_keeps = at + 1, keeps
    with pytest.raises(Crashed):
        tell(engine, STORY.steps)
    engine = disk.open()
    with engine.snapshot() as snapshot:
        store.check(snapshot)
        standing = store.state_at(snapshot)
        block = None if standing is None else store.block(snapshot, standing)
        assert (block is None) == (at == 0 and not keeps)
        if block is not None:
            assert store.ChainState(snapshot).root == block.info.state_root
    for step in STORY.steps[at + keeps :]:
        step(engine)
    assert dict(state_of(engine)) == expected(STORY.chain)
    with engine.snapshot() as snapshot:
        assert store.final_block(snapshot) == STORY.chain.blocks[4].hash
        assert not store.own_transactions(snapshot)
        assert [row.height for _, row in store.blocks_from(snapshot, 0)] == list(range(STORY.chain.height + 1))


@pytest.mark.parametrize("at", range(len(STORY.steps) - 1))
def test_disk_full_in_the_middle_of_anything_changes_nothing_and_goes_on_later(disk: Disk, at: int) -> None:
    """Goal: no room is said, not half done. Method: the disk is full from step ``at`` on; what stands is whole, also opened anew; room
    comes back and so does the end of the story."""
    engine = disk.open()
    for step in STORY.steps[:at]:
        step(engine)
    before = state_of(engine)
    disk.faults.full = True
    with pytest.raises(StoreFull):
        STORY.steps[at](engine)
    assert state_of(engine) == before
    engine = disk.open()
    assert state_of(engine) == before
    disk.faults.full = False
    for step in STORY.steps[at:]:
        step(engine)
    assert dict(state_of(engine)) == expected(STORY.chain)


def test_store_that_really_runs_full_keeps_its_last_whole_block(disk: Disk) -> None:
    """Goal: the same with LMDB's own refusal. Method: a budget of 1 MiB, blocks until it says no; opened with more it goes on there."""
    disk.budget_bytes = 1 * MIB
    chain = chains.start()
    engine = disk.open()
    keep(engine, chain.blocks[0], chain)
    with pytest.raises(StoreFull):
        fill(engine, chain)
    last = chain.blocks[-1]
    chain.pop()
    assert chain.height > 3
    assert dict(state_of(engine)) == expected(chain)
    disk.budget_bytes = 8 * MIB
    engine = disk.open()
    assert dict(state_of(engine)) == expected(chain)
    chain.take(last)
    keep(engine, last, chain)
    assert dict(state_of(engine)) == expected(chain)


def fill(engine: Engine, chain: chains.Chain) -> None:
    for number in range(400):
        chain.add(*(folder(chain, 100 * number + at) for at in range(20)))
        keep(engine, chain.blocks[-1], chain)


def test_altered_body_under_a_true_hash_is_refused_and_the_true_one_kept_afterwards() -> None:
    """Goal: no verdict sticks to a hash by bytes that are not its own. Method: a co-signature with one bit changed, then the block."""
    chain = chains.start()
    engine = MemoryEngine(Env.LEDGER, 64 * MIB)
    keep(engine, chain.blocks[0], chain)
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owned("ann", "bob")), "bob"))
    true = chain.blocks[-1]
    (transaction,) = true.transactions
    last = transaction.signatures[-1]
    rotten = replace(last, signature=bytes([last.signature[0] ^ 1]) + last.signature[1:])
    lie = replace(true, transactions=(replace(transaction, signatures=(*transaction.signatures[:-1], rotten)),))
    assert lie.hash == true.hash
    before = state_of(engine)
    with pytest.raises(InvalidBlock) as caught:
        keep(engine, lie, chain)
    assert caught.value.reason is Reason.MERKLE_ROOT
    assert state_of(engine) == before
    keep(engine, true, chain)
    assert dict(state_of(engine)) == expected(chain)


def test_long_fork_is_walked_there_and_back_on_disk(disk: Disk) -> None:
    """Goal: a fork as long as one cares to make is a walk, not a rebuild. Method: 60 blocks on one branch, 70 on the other; three walks."""
    chain = chains.start(term_blocks=20)
    engine = disk.open()
    keep(engine, chain.blocks[0], chain)
    ends = []
    for salt, count, gap in ((0, 60, 1), (1000, 70, 2)):
        for number in range(count):
            chain.add(folder(chain, salt + number), slot=chain.slot + gap)
            keep(engine, chain.blocks[-1], chain)
        ends.append((chain.blocks[-1].hash, expected(chain)))
        while salt == 0 and chain.height:
            chain.pop()
    for name, state in (ends[0], ends[1], ends[0]):
        walk(name)(engine)
        assert dict(state_of(engine)) == state
