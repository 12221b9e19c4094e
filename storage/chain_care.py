"""What is done to a chain while no node runs on it: judged again from its first block, taken back to a height, its index made anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from protocols.codec import encode, replace
from protocols.errors import InvalidObject, LadingError, Reason, Refused, StoreDamaged, Undecided
from protocols.ledger.block import Block
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.votes import Vote, carried_order, check_vote
from protocols.types import BlockHash, ChainId

from . import chain as store
from .chain_state import check_states, drop_tree
from .engine import Delete, Engine, Put, Snapshot, Write
from .overlay import Overlay
from .tables import CHAIN_BLOCKS, CHAIN_CROSSINGS, CHAIN_HEIGHTS, CHAIN_META, CHAIN_ROWS, CHAIN_STATE, CHAIN_VOTES
from .values import NUMBER_BYTES, load

# Blocks judged between two commits of a replay: a few hundred, so that a commit's cost is spread and its memory bounded.
BATCH_BLOCKS = 256


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of judging blocks from the first one. carried: height that the votes in them made final."""

    blocks: int
    transactions: int
    votes: int
    height: int
    tip: BlockHash
    state_root: bytes
    carried: int


def kept_branch(snapshot: Snapshot) -> tuple[BlockHash, ...]:
    """Hashes from the lowest block that is kept to the one at which the state stands. Raises StoreDamaged when a row is missing."""
    found: list[BlockHash] = []
    name, lowest, height = store.state_at(snapshot), store.lowest_height(snapshot), None
    while name is not None:
        row = store.row(snapshot, name)
        if row is None:
            raise StoreDamaged("a block of the chain has no row", table=CHAIN_ROWS.name)
        if height not in (None, row.height + 1):  # else rows that name one another would be walked for ever
            raise StoreDamaged("the place of a block is not what was written", table=CHAIN_ROWS.name)
        height = row.height
        found.append(name)
        name = row.parent if row.height > lowest else None
    return tuple(reversed(found))


def branch(snapshot: Snapshot) -> tuple[BlockHash, ...]:
    """Hashes from the first block to the one at which the state stands. Raises Refused(PRUNED) where history is not all here."""
    lowest = store.lowest_height(snapshot)
    if lowest:
        raise Refused(Reason.PRUNED, f"this home keeps no block below height {lowest}", hint="an archive keeps all; it can be asked there")
    return kept_branch(snapshot)


def bodies(snapshot: Snapshot, names: Iterable[BlockHash]) -> Iterator[Block]:
    """The blocks themselves, each checked against its name. Raises StoreDamaged."""
    for name in names:
        body = store.block(snapshot, name)
        if body is None:
            raise StoreDamaged("a block of the chain has no body", table=CHAIN_BLOCKS.name)
        yield body


def replay(engine: Engine, blocks: Iterable[Block], *, chain: ChainId) -> Replayed:
    """Judges blocks into an environment that has none of them, or continues where it stands; those that are there are passed over.

    Raises LadingError(INTEGRITY) naming the first block that does not hold.
    """
    count = transactions = votes = 0
    batch: list[Block] = []

    def judge() -> None:
        with engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            for block in batch:
                _judge(overlay, block, chain)
        if overlay.writes:
            engine.write(overlay.writes)
        batch.clear()

    for block in blocks:
        count += 1
        transactions += len(block.transactions)
        votes += len(block.votes)
        batch.append(block)
        if len(batch) == BATCH_BLOCKS:
            judge()
    judge()
    with engine.snapshot() as snapshot:
        tip = store.state_at(snapshot)
        row = None if tip is None else store.row(snapshot, tip)
        if tip is None or row is None:
            raise LadingError(Reason.NOT_FOUND, "there is no block in it")
        return Replayed(count, transactions, votes, row.height, tip, store.ChainState(snapshot).root, row.carried)


def _judge(overlay: Overlay, block: Block, chain: ChainId) -> None:
    if store.row(overlay, block.hash) is not None:
        return
    try:
        if store.state_at(overlay) is None:
            store.begin(overlay, block, chain=chain)
        else:
            store.execute(overlay, block, chain=chain)
    except (InvalidObject, Undecided) as error:
        name = block.hash.hex()
        raise LadingError(
            Reason.INTEGRITY, f"block {block.info.height} does not hold: {error.message}", block=name, height=block.info.height
        ) from error


def verify(snapshot: Snapshot, other: Engine, *, chain: ChainId) -> Replayed:
    """Everything that is kept of a chain, against what its blocks lead to when they are judged again from the first one.

    other: an empty environment. Raises StoreDamaged, LadingError(INTEGRITY | NOT_FOUND), Refused(PRUNED).
    """
    store.check(snapshot)
    path = branch(snapshot)
    if not path:
        raise LadingError(Reason.NOT_FOUND, "no block is here yet", hint="lading start fetches the chain from the others")
    found = replay(other, bodies(snapshot, path), chain=chain)
    if (found.tip, found.state_root) != (path[-1], store.ChainState(snapshot).root):
        raise StoreDamaged("the chain here does not lead to the state here", table=CHAIN_STATE.name)
    check_kept(snapshot, other, chain=chain)
    return found


def check_kept(snapshot: Snapshot, other: Engine, *, chain: ChainId) -> None:
    """Every other byte that is kept of a chain, against the one that was made again of its branch's blocks: places of blocks, index,
    what takes the state over blocks, states of late, votes. Blocks of other branches are judged into ``other`` too.

    Raises StoreDamaged for the first thing that is not what was written; LadingError(INTEGRITY) for a block that does not hold.
    """
    at, path = store.state_at(snapshot), frozenset(kept_branch(snapshot))
    names = [BlockHash(key) for key, _ in snapshot.scan(CHAIN_ROWS)]
    aside = list(bodies(snapshot, [name for name in names if name not in path]))
    with other.snapshot() as made:
        overlay = Overlay(made)
        for block in sorted(aside, key=lambda one: one.info.height):
            _judge(overlay, block, chain)
        assert at is not None, "a branch ends where the state stands"
        store.go_to(overlay, at)
    other.write(overlay.writes)
    if rebuild_heights(snapshot) or any(value != b"\x01" for _, value in snapshot.scan(CHAIN_HEIGHTS)):
        raise StoreDamaged("the index of heights is not that of the blocks", table=CHAIN_HEIGHTS.name)
    with other.snapshot() as made:
        committees = _check_rows(snapshot, made, names)
        for key, value in snapshot.scan(CHAIN_CROSSINGS):
            if made.get(CHAIN_CROSSINGS, key) != value:
                raise StoreDamaged("what takes the state over a block is not what was written", table=CHAIN_CROSSINGS.name)
        check_states(snapshot, made)
    for key, data in snapshot.scan(CHAIN_VOTES):
        vote = load(CHAIN_VOTES, data, Vote)
        if key != carried_order(vote) or vote.chain != chain or not any(_is_members(vote, one) for one in committees):
            raise StoreDamaged("a vote that nobody gave", table=CHAIN_VOTES.name)


def _check_rows(snapshot: Snapshot, made: Snapshot, names: Sequence[BlockHash]) -> tuple[Committee, ...]:
    """Places of blocks. Those whose state was never here say 0 and a committee of late for what only it tells. Result: all committees."""
    known: dict[bytes, Committee] = {}
    for name in names:
        if (right := store.row(made, name)) is not None:
            known.setdefault(encode(right.committee), right.committee)
    for name in names:
        found, right = store.row(snapshot, name), store.row(made, name)
        assert found is not None
        if right is not None and not snapshot.has(CHAIN_CROSSINGS, name):
            carried = 0 if found.carried == 0 else right.carried
            committee = found.committee if encode(found.committee) in known else right.committee
            right = replace(right, carried=carried, committee=committee)
        if found != right:
            raise StoreDamaged("the place of a block is not what was written", table=CHAIN_ROWS.name)
    return tuple(known.values())


def _is_members(vote: Vote, committee: Committee) -> bool:
    key = committee.key_of(vote.member)
    try:
        if key is not None:
            check_vote(vote, key)
    except InvalidObject:
        return False
    return key is not None


def roll_back(snapshot: Snapshot, height: int) -> tuple[BlockHash, Sequence[Write]]:
    """Takes the state back to the block of our branch at ``height`` and forgets every block above. What this node has promised stays as it
    is, so it says nothing else about those heights.

    Raises LadingError(NOT_FOUND), Refused(PRUNED) below what is kept: bodies of a node without history, and what takes the state back,
    which every node keeps for STATES_KEPT heights below the final one; StoreDamaged.
    """
    path, lowest = kept_branch(snapshot), store.lowest_height(snapshot)
    if not 0 <= height < lowest + len(path):
        raise LadingError(Reason.NOT_FOUND, f"the chain has heights 0 to {lowest + len(path) - 1}")
    reach = lowest + len(path) - 1
    while reach > lowest and snapshot.has(CHAIN_CROSSINGS, path[reach - lowest]):
        reach -= 1
    if height < reach:
        raise Refused(
            Reason.PRUNED,
            f"the state can be taken back to height {reach}, not to {height}",
            hint="lading ledger export and import judge the whole chain again",
            lowest=reach,
        )
    path = path[reach - lowest :]
    target = path[height - reach]
    overlay = Overlay(snapshot)
    store.go_to(overlay, target)
    final = store.final_block(snapshot)
    final_row = None if final is None else store.row(snapshot, final)
    gone = [(name, row) for name, row in store.blocks_from(snapshot, height + 1)]
    for name, row in gone:
        overlay.add([Delete(table, name) for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_CROSSINGS)])
        overlay.delete(CHAIN_HEIGHTS, u64(row.height) + name)
        overlay.add(drop_tree(overlay, row.height, name))
    if final_row is None or final_row.height > height:
        overlay.put(CHAIN_META, b"final", target)
        _recall_votes(overlay, path[: height - reach + 1], reach)
    return target, overlay.writes


def _recall_votes(overlay: Overlay, path: Sequence[BlockHash], lowest: int) -> None:
    """lowest: height of the first of ``path``. Votes that a final block's state had counted are in the blocks that carried them; above
    the new final block they count again."""
    target = store.row(overlay, path[-1])
    assert target is not None
    for name in path[max(0, target.carried - lowest) :]:
        body = store.block(overlay, name)
        for vote in () if body is None else body.votes:
            if vote.target.height > target.carried:
                overlay.add((store.put_vote(vote),))


def rebuild_heights(snapshot: Snapshot) -> Sequence[Write]:
    """The index of heights anew from the rows. Empty when it was right."""
    wanted: set[bytes] = set()
    for key, _ in snapshot.scan(CHAIN_ROWS):
        row = store.row(snapshot, BlockHash(key))
        assert row is not None
        wanted.add(u64(row.height) + key)
    found = {key for key, _ in snapshot.scan(CHAIN_HEIGHTS)}
    assert all(len(key) > NUMBER_BYTES for key in wanted)
    return [
        *(Delete(CHAIN_HEIGHTS, key) for key in sorted(found - wanted)),
        *(Put(CHAIN_HEIGHTS, key, b"\x01") for key in sorted(wanted - found)),
    ]
