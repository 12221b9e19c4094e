"""The chain on disk: blocks, the state *at* one of them, and for every block what takes the state across it, down or up.

One block is one batch: its body, row, crossing and votes, the values and tree nodes of the state. So a kill between any two commits
leaves a whole chain. The state stands at one block, not always at the head: judging a block of another branch walks it over the
crossings, each of which turns round when it is used (an undo record applied gives the record that does it again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from protocols.codec import encode
from protocols.errors import DecodeError, InvalidBlock, InvalidObject, Reason, StoreDamaged, Undecided
from protocols.ledger.block import Block, Header, check_block_form, decode_header
from protocols.ledger.carried import committee_at, final_height
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.context import Event, load_profile
from protocols.ledger.envelope import Transaction
from protocols.ledger.finality import BlockPoint
from protocols.ledger.genesis import apply_genesis
from protocols.ledger.schedule import SCHEDULE
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Overlay as StateOverlay
from protocols.ledger.state import StateChange, UndoRecord, made_on, undo
from protocols.ledger.terms import load_tip
from protocols.ledger.transactions.chain_genesis import WORK
from protocols.ledger.transactions.equivocation import Sealed
from protocols.ledger.transition import Applied, Schedule, apply_block, result_of
from protocols.ledger.votes import Vote, carried_order
from protocols.ledger.work import WorkState, work_of
from protocols.limits import STATES_KEPT
from protocols.types import BlockHash, ChainId

from .chain_state import ChainState as ChainState
from .chain_state import (
    check_state,
    crossing_writes,
    drop_tree,
    forget_fetched,
    forget_old,
    missing_nodes,
    put_fetched_tree,
    rebuilt,
    state_writes,
)
from .engine import Delete, Put, Snapshot, Write
from .overlay import Overlay
from .tables import (
    CHAIN_BLOCKS,
    CHAIN_CROSSINGS,
    CHAIN_FETCHED,
    CHAIN_HEIGHTS,
    CHAIN_META,
    CHAIN_OLD_VALUES,
    CHAIN_POOL,
    CHAIN_ROWS,
    CHAIN_STATE,
    CHAIN_SUCCESSIONS,
    CHAIN_TREE,
    CHAIN_TREES,
    CHAIN_VOTES,
)
from .values import FORMAT, HASH_BYTES, NUMBER_BYTES, SUITE, Stored, load

# A crossing holds every value that a block changed; a block of 384 KiB changes a few times its size.
CROSSING_BYTES_MAX = 64 * 1024 * 1024
# Bodies that a node without history lets go in one batch; the rest goes with the next final block.
PRUNED_PER_BATCH_MAX = 256
_AT = b"at"
_FINAL = b"final"
_JOINING = b"joining"
_LOWEST = b"lowest"
_CROSSED = b"crossed"  # crossings of blocks below this height are gone
_STOPPED = b"stopped"
_ALL = (
    CHAIN_BLOCKS,
    CHAIN_ROWS,
    CHAIN_HEIGHTS,
    CHAIN_CROSSINGS,
    CHAIN_STATE,
    CHAIN_TREE,
    CHAIN_TREES,
    CHAIN_OLD_VALUES,
    CHAIN_FETCHED,
    CHAIN_VOTES,
    CHAIN_META,
    CHAIN_SUCCESSIONS,
)
"""All but what was made here and what was refused, which no peer has."""


class BlockRow(Stored, frozen=True):
    """A block's place. work: cumulative, 32 bytes. committee: in force at it. carried: height that carried votes made final.

    transactions: how many it carries.
    """

    parent: BlockHash
    height: int
    slot: int
    miner: bytes
    work: bytes
    transactions: int
    carried: int
    committee: Committee


@dataclass(frozen=True, slots=True)
class Executed:
    """A block that was judged and kept. votes: those that it carries, verified. events: what happened in it."""

    point: BlockPoint
    row: BlockRow
    votes: tuple[Vote, ...]
    events: tuple[Event, ...]


def point_of(name: BlockHash, row: BlockRow) -> BlockPoint:
    """The block as fork choice sees it."""
    return BlockPoint(name, row.parent, row.height, row.slot, int.from_bytes(row.work, "big"), row.committee)


# --- what stands ------------------------------------------------------------------------------------------------------


def state_at(snapshot: Snapshot) -> BlockHash | None:
    """The block whose state this is, None before genesis."""
    found = snapshot.get(CHAIN_META, _AT)
    return None if found is None else BlockHash(found)


def final_block(snapshot: Snapshot) -> BlockHash | None:
    """The latest final block that was written down."""
    found = snapshot.get(CHAIN_META, _FINAL)
    return None if found is None else BlockHash(found)


def row(snapshot: Snapshot, name: BlockHash) -> BlockRow | None:
    """A block's place, None for an unknown one."""
    data = snapshot.get(CHAIN_ROWS, name)
    return None if data is None else load(CHAIN_ROWS, data, BlockRow)


def _known(snapshot: Snapshot, name: BlockHash) -> BlockRow:
    found = row(snapshot, name)
    if found is None:
        raise StoreDamaged("a block that others build on has no row", table=CHAIN_ROWS.name)
    return found


def block(snapshot: Snapshot, name: BlockHash) -> Block | None:
    """A body, checked against its name. Raises StoreDamaged."""
    data = snapshot.get(CHAIN_BLOCKS, name)
    if data is None:
        return None
    found = load(CHAIN_BLOCKS, data, Block)
    try:
        if check_block_form(found).hash != name:
            raise StoreDamaged("a block is not what its name says", table=CHAIN_BLOCKS.name)
    except (InvalidBlock, DecodeError) as error:
        raise StoreDamaged(f"a block is not what its name says: {error}", table=CHAIN_BLOCKS.name) from error
    return found


def header(snapshot: Snapshot, name: BlockHash) -> Header:
    """The header of a known block. Raises StoreDamaged."""
    data = snapshot.get(CHAIN_BLOCKS, name)
    if data is None:
        raise StoreDamaged("a known block has no body", table=CHAIN_BLOCKS.name)
    found = decode_header(load(CHAIN_BLOCKS, data, Block).header)
    if found.hash != name:
        raise StoreDamaged("a block is not what its name says", table=CHAIN_BLOCKS.name)
    return found


def blocks_from(snapshot: Snapshot, height: int) -> Iterator[tuple[BlockHash, BlockRow]]:
    """Every block of this height and above, lowest first."""
    for key, _ in snapshot.scan(CHAIN_HEIGHTS, start=u64(height)):
        name = BlockHash(key[NUMBER_BYTES:])
        yield name, _known(snapshot, name)


def blocks_at(snapshot: Snapshot, height: int) -> tuple[BlockHash, ...]:
    """Blocks of one height; at or below the final one there is one."""
    return tuple(BlockHash(key[NUMBER_BYTES:]) for key, _ in snapshot.scan(CHAIN_HEIGHTS, prefix=u64(height)))


def body(snapshot: Snapshot, name: BlockHash) -> Block:
    """The body of a block that must be here. Raises StoreDamaged."""
    found = block(snapshot, name)
    if found is None:
        raise StoreDamaged("a known block has no body", table=CHAIN_BLOCKS.name)
    return found


def sealed(snapshot: Snapshot, name: BlockHash) -> Sealed:
    """The seal of a block that must be here. Raises StoreDamaged."""
    return Sealed(name, body(snapshot, name).seal)


def branch(snapshot: Snapshot, name: BlockHash) -> tuple[BlockHash, ...] | None:
    """Hashes of all ancestors of a known block by height, genesis first; None where history is not all here."""
    final = final_block(snapshot)
    assert final is not None, "there is a genesis"
    above: list[BlockHash] = []
    at = _known(snapshot, name)
    floor = _known(snapshot, final).height
    while at.height > floor:
        above.append(at.parent)
        at = _known(snapshot, at.parent)
    below: list[BlockHash] = []
    for key, _ in snapshot.scan(CHAIN_HEIGHTS):
        if int.from_bytes(key[:NUMBER_BYTES], "big") != len(below) or len(below) == at.height:
            break
        below.append(BlockHash(key[NUMBER_BYTES:]))
    return (*below, *reversed(above)) if len(below) == at.height else None


# --- the state moves --------------------------------------------------------------------------------------------------


def go_to(overlay: Overlay, target: BlockHash) -> None:
    """Takes the state to a known block, over the blocks between. Raises StoreDamaged."""
    at = state_at(overlay)
    assert at is not None, "there is a genesis"
    if at == target:
        return
    below, above = at, target
    up: list[BlockHash] = []
    here, there = _known(overlay, below), _known(overlay, above)
    while below != above:
        if here.height >= there.height:
            over, below = (below, here), here.parent
            here = _known(overlay, below)
            _cross(overlay, *over, to=(here.height, below))
        else:
            up.append(above)
            above = there.parent
            there = _known(overlay, above)
    for name in reversed(up):
        there = _known(overlay, name)
        _cross(overlay, name, there, to=(there.height, name))
    overlay.put(CHAIN_META, _AT, target)


def _cross(overlay: Overlay, name: BlockHash, over: BlockRow, *, to: tuple[int, BlockHash]) -> None:
    data = overlay.get(CHAIN_CROSSINGS, name)
    if data is None:
        raise StoreDamaged("a block has no crossing", table=CHAIN_CROSSINGS.name)
    record = load(CHAIN_CROSSINGS, data, UndoRecord, bytes_max=CROSSING_BYTES_MAX)
    try:
        change = undo(ChainState(overlay), record)
    except InvalidObject as error:
        raise StoreDamaged(f"a crossing leads elsewhere: {error}", table=CHAIN_CROSSINGS.name) from error
    overlay.add(crossing_writes(overlay, change, record.before, over=over.height, to=to, up=to[1] == name))
    overlay.put(CHAIN_CROSSINGS, name, encode(change.undo))


# --- a block comes ----------------------------------------------------------------------------------------------------


def begin(overlay: Overlay, first: Block, *, chain: ChainId) -> Executed:
    """Takes the chain's first block. Raises InvalidBlock, Undecided(RULE_SET), DecodeError."""
    assert state_at(overlay) is None, "a chain begins once"
    applied = apply_genesis(first)
    if first.info.chain != chain:
        raise InvalidBlock(Reason.WRONG_CHAIN, "the first block of another chain")
    executed = _keep(overlay, first, replace(applied, change=made_on(ChainState(overlay), applied.change)))
    overlay.delete(CHAIN_CROSSINGS, first.hash)  # nobody walks back over it
    overlay.put(CHAIN_META, _FINAL, first.hash)
    return executed


def execute(overlay: Overlay, body: Block, *, chain: ChainId, schedule: Schedule = SCHEDULE) -> Executed:
    """Judges a block on top of its parent by the one transition function and keeps it; the state stands at it afterwards.

    Raises InvalidBlock, Undecided, DecodeError (the state may then stand at the parent, which is as good), StoreDamaged.
    """
    parent = decode_header(body.header).parent
    if row(overlay, parent) is None:
        raise Undecided(Reason.UNKNOWN_PARENT, "the parent is not here")
    go_to(overlay, parent)
    return _keep(overlay, body, apply_block(ChainState(overlay), header(overlay, parent), body, chain=chain, schedule=schedule))


class Stopped(Stored, frozen=True):
    """Why this node follows no more: a block that it finds wrong by its state root alone, and the votes of a quorum for it."""

    block: Block
    votes: tuple[Vote, ...]


def put_stopped(block: Block, votes: tuple[Vote, ...]) -> Write:
    """The evidence, kept until this node's program finds the block right."""
    return Put(CHAIN_META, _STOPPED, encode(Stopped(format=FORMAT, suite=SUITE, block=block, votes=votes)))


def drop_stopped() -> Write:
    return Delete(CHAIN_META, _STOPPED)


def stopped(snapshot: Snapshot) -> Stopped | None:
    """What this node stopped at."""
    found = snapshot.get(CHAIN_META, _STOPPED)
    return None if found is None else load(CHAIN_META, found, Stopped, bytes_max=CROSSING_BYTES_MAX)


def our_result(snapshot: Snapshot, body: Block, *, chain: ChainId, schedule: Schedule = SCHEDULE) -> StateChange:
    """What this program makes of a block whose parent is here; nothing is kept. Raises InvalidBlock, Undecided, StoreDamaged."""
    overlay = Overlay(snapshot)
    parent = decode_header(body.header).parent
    if row(overlay, parent) is None:
        raise Undecided(Reason.UNKNOWN_PARENT, "the parent is not here")
    go_to(overlay, parent)
    return result_of(ChainState(overlay), header(overlay, parent), body, chain=chain, schedule=schedule).change


def _keep(overlay: Overlay, body: Block, applied: Applied) -> Executed:
    name, info = body.hash, body.info
    kept = BlockRow(
        format=FORMAT,
        suite=SUITE,
        parent=decode_header(body.header).parent,
        height=info.height,
        slot=info.slot,
        miner=info.miner,
        work=applied.work.to_bytes(HASH_BYTES, "big"),
        transactions=info.transaction_count,
        carried=applied.final,
        committee=applied.committee,
    )
    overlay.add(state_writes(applied.change, info.height, name))
    overlay.put(CHAIN_BLOCKS, name, encode(body))
    overlay.put(CHAIN_ROWS, name, encode(kept))
    overlay.put(CHAIN_HEIGHTS, u64(info.height) + name, b"\x01")
    overlay.put(CHAIN_CROSSINGS, name, encode(applied.change.undo))
    for vote in body.votes:  # a vote that came in a block is a vote: others may have forgotten it, another branch may need it
        overlay.put(CHAIN_VOTES, carried_order(vote), encode(vote))
    overlay.put(CHAIN_META, _AT, name)
    return Executed(point_of(name, kept), kept, body.votes, applied.events)


# --- finality, votes, what was made here ------------------------------------------------------------------------------


def settle(snapshot: Snapshot, final: BlockHash, dead: Iterable[tuple[BlockHash, int]], votes: Iterable[Vote]) -> list[Write]:
    """A later block is final. dead: (hash, height) of blocks that do not lie on its chain. votes: those that its state has counted.

    The state must not stand at a dead block.
    """
    writes: list[Write] = [Put(CHAIN_META, _FINAL, final)]
    for name, height in dead:
        writes += [Delete(table, name) for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_CROSSINGS)]
        writes.append(Delete(CHAIN_HEIGHTS, u64(height) + name))
        writes += drop_tree(snapshot, height, name)
    return [*writes, *(Delete(CHAIN_VOTES, carried_order(vote)) for vote in votes)]


def lowest_height(snapshot: Snapshot) -> int:
    """The lowest block that is kept; 0 where all history is."""
    found = snapshot.get(CHAIN_META, _LOWEST)
    return 0 if found is None else int.from_bytes(found, "big")


def forget(snapshot: Snapshot, *, final: int, heights_kept: int | None) -> list[Write]:
    """What lies too far below the final height goes, a bounded part of it at a time.

    heights_kept: how many blocks below the final one keep their bodies; None: all (an archive). States, and what
    takes the state back to them, are kept for STATES_KEPT heights.
    """
    states = max(0, final - STATES_KEPT + 1)
    writes = [*forget_old(snapshot, states), *forget_fetched(snapshot)]
    lowest = lowest_height(snapshot)
    wanted = 0 if heights_kept is None else max(0, final - heights_kept)
    top = min(wanted, lowest + PRUNED_PER_BATCH_MAX)
    for height in range(lowest, top):
        for name in blocks_at(snapshot, height):
            writes += [Delete(table, name) for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_CROSSINGS)]
            writes.append(Delete(CHAIN_HEIGHTS, u64(height) + name))
    crossed = snapshot.get(CHAIN_META, _CROSSED)
    low = lowest if crossed is None else int.from_bytes(crossed, "big")
    high = min(states, low + PRUNED_PER_BATCH_MAX)
    if high > low:
        writes += [Delete(CHAIN_CROSSINGS, name) for height in range(low, high) for name in blocks_at(snapshot, height)]
        writes.append(Put(CHAIN_META, _CROSSED, u64(high)))
    if top > lowest:
        writes.append(Put(CHAIN_META, _LOWEST, u64(top)))
    return writes


def add_history(snapshot: Snapshot, older: Block) -> list[Write]:
    """The parent of the lowest block that is kept; its hash, which that block names, is all that it needs to be true."""
    lowest = lowest_height(snapshot)
    (child,) = blocks_at(snapshot, lowest)
    kept, info = _known(snapshot, child), older.info
    assert kept.parent == older.hash
    assert info.height == lowest - 1
    state = StateOverlay(ChainState(snapshot))
    has_work = SEALS[load_profile(state).seal].has_work
    step = work_of(int.from_bytes(body(snapshot, child).info.target, "big")) if has_work else 1
    place = BlockRow(
        format=FORMAT,
        suite=SUITE,
        parent=decode_header(older.header).parent,
        height=info.height,
        slot=info.slot,
        miner=info.miner,
        work=(int.from_bytes(kept.work, "big") - step).to_bytes(HASH_BYTES, "big"),
        transactions=info.transaction_count,
        carried=0,  # asked of the final block alone
        committee=committee_at(state, info.height),
    )
    name = older.hash
    return [
        Put(CHAIN_BLOCKS, name, encode(older)),
        Put(CHAIN_ROWS, name, encode(place)),
        Put(CHAIN_HEIGHTS, u64(info.height) + name, b"\x01"),
        Put(CHAIN_META, _LOWEST, u64(info.height)),
    ]


# --- a chain that begins in the middle --------------------------------------------------------------------------------


def begin_join(snapshot: Snapshot, first: Block) -> list[Write]:
    """The block of an anchor is here: its state is fetched next. What another join left behind goes, what is of this one stays."""
    name = first.hash
    same = snapshot.get(CHAIN_META, _JOINING) == name
    writes = [] if same else wipe(snapshot)
    return [*writes, Put(CHAIN_META, _JOINING, name), Put(CHAIN_BLOCKS, name, encode(first))]


def joining(snapshot: Snapshot) -> Block | None:
    """The block whose state is being fetched."""
    name = snapshot.get(CHAIN_META, _JOINING)
    return None if name is None else body(snapshot, BlockHash(name))


def finish_join(overlay: Overlay) -> tuple[BlockHash, BlockRow]:
    """All nodes of the state are here: the chain begins at this block, which is final. Raises StoreDamaged."""
    first = joining(overlay)
    assert first is not None
    name, info = first.hash, first.info
    assert not missing_nodes(overlay, info.state_root)
    overlay.add(put_fetched_tree(overlay, info.height, name, info.state_root))
    state = StateOverlay(ChainState(overlay))
    work = state.load(WORK, b"", WorkState)
    if work is None or load_tip(state).height != info.height:
        raise StoreDamaged("the state that came is that of no block", table=CHAIN_STATE.name)
    kept = BlockRow(
        format=FORMAT,
        suite=SUITE,
        parent=decode_header(first.header).parent,
        height=info.height,
        slot=info.slot,
        miner=info.miner,
        work=work.work,
        transactions=info.transaction_count,
        carried=final_height(state),
        committee=committee_at(state, info.height),
    )
    overlay.put(CHAIN_ROWS, name, encode(kept))
    overlay.put(CHAIN_HEIGHTS, u64(info.height) + name, b"\x01")
    for meta, value in ((_AT, name), (_FINAL, name), (_LOWEST, u64(info.height))):
        overlay.put(CHAIN_META, meta, value)
    overlay.delete(CHAIN_META, _JOINING)
    return name, kept


def put_vote(vote: Vote) -> Write:
    """A loose vote, verified."""
    return Put(CHAIN_VOTES, carried_order(vote), encode(vote))


def votes(snapshot: Snapshot) -> tuple[Vote, ...]:
    """All votes that no final block's state counts, lowest targets first."""
    return tuple(load(CHAIN_VOTES, data, Vote) for _, data in snapshot.scan(CHAIN_VOTES))


def put_own(transaction: Transaction) -> Write:
    """A transaction made here, kept until it is final."""
    return Put(CHAIN_POOL, transaction.id, encode(transaction))


def drop_own(name: bytes) -> Write:
    """It is final, or can never be included."""
    return Delete(CHAIN_POOL, name)


def own_transactions(snapshot: Snapshot) -> tuple[Transaction, ...]:
    """Those made here, by id."""
    return tuple(load(CHAIN_POOL, data, Transaction) for _, data in snapshot.scan(CHAIN_POOL))


# --- checks and starting over -----------------------------------------------------------------------------------------


def check(snapshot: Snapshot) -> None:
    """Whether what stands here is a chain and its whole state. Raises StoreDamaged; an empty store is fine.

    Reads every value of the state and every row of its tree: 10,000 values take about a tenth of a second.
    """
    at, final = state_at(snapshot), final_block(snapshot)
    if at is None and snapshot.has(CHAIN_META, _JOINING):
        return  # what is here of a state is checked as it comes, and once more when it is whole
    if at is None and final is None and snapshot.count(CHAIN_ROWS) == 0 and snapshot.count(CHAIN_STATE) == 0:
        return
    if at is None or final is None:
        raise StoreDamaged("the chain has blocks or a state, but not where it stands", table=CHAIN_META.name)
    body = block(snapshot, at)
    view = ChainState(snapshot)
    if body is None or body.info.state_root != view.root:
        raise StoreDamaged("the state is not that of the block at which it stands", table=CHAIN_META.name)
    check_state(snapshot)
    _known(snapshot, final)
    floor = _known(snapshot, final).height
    for name, found in blocks_from(snapshot, floor):
        kept = block(snapshot, name)
        is_whole = kept is not None and (found.parent, found.height) == (decode_header(kept.header).parent, kept.info.height)
        if found.height > floor:  # nobody walks over the final block
            is_whole = is_whole and snapshot.has(CHAIN_ROWS, found.parent) and snapshot.has(CHAIN_CROSSINGS, name)
        if not is_whole:
            raise StoreDamaged("a block lacks its body, its crossing, its parent or its place", table=CHAIN_ROWS.name)


def rebuild_tree(snapshot: Snapshot) -> list[Write]:
    """What a chain that an older program kept needs here: its tree, anew from the values. Empty when there is nothing to do.
    Raises StoreDamaged."""
    at = state_at(snapshot)
    return rebuilt(snapshot, None if at is None else (_known(snapshot, at).height, at))


def wipe(snapshot: Snapshot) -> list[Write]:
    """Everything goes but what was made here: the chain is fetched again."""
    return [Delete(table, key) for table in _ALL for key, _ in snapshot.scan(table)]


def state_items(snapshot: Snapshot) -> Sequence[tuple[bytes, bytes]]:
    """Every value of the state by its key, for comparing two of them."""
    return tuple(snapshot.scan(CHAIN_STATE))
