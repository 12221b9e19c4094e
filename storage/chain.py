"""The chain on disk: blocks, the state *at* one of them, and for every block what takes the state across it, down or up.

One block is one batch: its body, row, crossing and votes, the values and tree nodes of the state. So a kill between any two commits
leaves a whole chain. The state stands at one block, not always at the head: judging a block of another branch walks it over the
crossings, each of which turns round when it is used (an undo record applied gives the record that does it again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from protocols.codec import encode
from protocols.crypto import sha256
from protocols.errors import DecodeError, InvalidBlock, InvalidObject, Reason, StoreDamaged, Undecided
from protocols.ledger.block import Block, Header, check_block_form, decode_header
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.context import Event
from protocols.ledger.envelope import Transaction
from protocols.ledger.finality import BlockPoint
from protocols.ledger.genesis import apply_genesis
from protocols.ledger.state import StateChange, UndoRecord, undo
from protocols.ledger.transition import Applied, apply_block
from protocols.ledger.tree import EMPTY, leaves, state_key
from protocols.ledger.votes import Vote, carried_order
from protocols.types import BlockHash, ChainId, Digest

from .engine import Delete, Put, Snapshot, Write
from .overlay import Overlay
from .tables import (
    CHAIN_BLOCKS,
    CHAIN_CROSSINGS,
    CHAIN_HEIGHTS,
    CHAIN_META,
    CHAIN_NODES,
    CHAIN_POOL,
    CHAIN_ROWS,
    CHAIN_STATE,
    CHAIN_VOTES,
)
from .values import FORMAT, HASH_BYTES, NUMBER_BYTES, SUITE, Stored, load

# A crossing holds every value that a block changed; a block of 384 KiB changes a few times its size.
CROSSING_BYTES_MAX = 64 * 1024 * 1024
_AT = b"at"
_FINAL = b"final"
_ROOT = b"root"
_ALL = (
    CHAIN_BLOCKS,
    CHAIN_ROWS,
    CHAIN_HEIGHTS,
    CHAIN_CROSSINGS,
    CHAIN_STATE,
    CHAIN_NODES,
    CHAIN_VOTES,
    CHAIN_META,
)
"""All but what was made here, which no peer has."""


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


class ChainState:
    """The state over a snapshot. Implements ``protocols.ledger.state.StateView``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def root(self) -> Digest:
        found = self._snapshot.get(CHAIN_META, _ROOT)
        return EMPTY if found is None else Digest(found)

    def get(self, space: str, key: bytes) -> bytes | None:
        return self._snapshot.get(CHAIN_STATE, _space(space) + key)

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        prefix = _space(space)
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._snapshot.scan(CHAIN_STATE, prefix=prefix, start=prefix + start):
            found.append((key[len(prefix) :], value))
            if len(found) == limit:
                break
        return found

    def node(self, name: bytes) -> bytes:
        """Raises StoreDamaged."""
        found = self._snapshot.get(CHAIN_NODES, name)
        if found is None or sha256(found) != name:
            raise StoreDamaged("a node of the state tree is not what its name says", table=CHAIN_NODES.name)
        return found


def _space(name: str) -> bytes:
    encoded = name.encode("ascii")
    return bytes([len(encoded)]) + encoded


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


# --- the state moves --------------------------------------------------------------------------------------------------


def _state_writes(change: StateChange) -> list[Write]:
    writes: list[Write] = []
    for (space, key), value in change.values.items():
        at = _space(space) + key
        writes.append(Delete(CHAIN_STATE, at) if value is None else Put(CHAIN_STATE, at, value))
    writes += [Delete(CHAIN_NODES, name) for name in sorted(change.tree.removed)]
    writes += [Put(CHAIN_NODES, name, node) for name, node in sorted(change.tree.added.items())]
    writes.append(Put(CHAIN_META, _ROOT, change.root))
    return writes


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
            _cross(overlay, below)
            below = here.parent
            here = _known(overlay, below)
        else:
            up.append(above)
            above = there.parent
            there = _known(overlay, above)
    for name in reversed(up):
        _cross(overlay, name)
    overlay.put(CHAIN_META, _AT, target)


def _cross(overlay: Overlay, name: BlockHash) -> None:
    data = overlay.get(CHAIN_CROSSINGS, name)
    if data is None:
        raise StoreDamaged("a block has no crossing", table=CHAIN_CROSSINGS.name)
    record = load(CHAIN_CROSSINGS, data, UndoRecord, bytes_max=CROSSING_BYTES_MAX)
    try:
        change = undo(ChainState(overlay), record)
    except InvalidObject as error:
        raise StoreDamaged(f"a crossing leads elsewhere: {error}", table=CHAIN_CROSSINGS.name) from error
    overlay.add(_state_writes(change))
    overlay.put(CHAIN_CROSSINGS, name, encode(change.undo))


# --- a block comes ----------------------------------------------------------------------------------------------------


def begin(overlay: Overlay, first: Block, *, chain: ChainId) -> Executed:
    """Takes the chain's first block. Raises InvalidBlock, Undecided(RULE_SET), DecodeError."""
    assert state_at(overlay) is None, "a chain begins once"
    applied = apply_genesis(first)
    if first.info.chain != chain:
        raise InvalidBlock(Reason.WRONG_CHAIN, "the first block of another chain")
    executed = _keep(overlay, first, applied)
    overlay.put(CHAIN_META, _FINAL, first.hash)
    return executed


def execute(overlay: Overlay, body: Block, *, chain: ChainId) -> Executed:
    """Judges a block on top of its parent by the one transition function and keeps it; the state stands at it afterwards.

    Raises InvalidBlock, Undecided, DecodeError (the state may then stand at the parent, which is as good), StoreDamaged.
    """
    parent = decode_header(body.header).parent
    if row(overlay, parent) is None:
        raise Undecided(Reason.UNKNOWN_PARENT, "the parent is not here")
    go_to(overlay, parent)
    return _keep(overlay, body, apply_block(ChainState(overlay), header(overlay, parent), body, chain=chain))


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
    overlay.add(_state_writes(applied.change))
    overlay.put(CHAIN_BLOCKS, name, encode(body))
    overlay.put(CHAIN_ROWS, name, encode(kept))
    overlay.put(CHAIN_HEIGHTS, u64(info.height) + name, b"\x01")
    overlay.put(CHAIN_CROSSINGS, name, encode(applied.change.undo))
    for vote in body.votes:  # a vote that came in a block is a vote: others may have forgotten it, another branch may need it
        overlay.put(CHAIN_VOTES, carried_order(vote), encode(vote))
    overlay.put(CHAIN_META, _AT, name)
    return Executed(point_of(name, kept), kept, body.votes, applied.events)


# --- finality, votes, what was made here ------------------------------------------------------------------------------


def settle(final: BlockHash, dead: Iterable[tuple[BlockHash, int]], votes: Iterable[Vote]) -> list[Write]:
    """A later block is final. dead: (hash, height) of blocks that do not lie on its chain. votes: those that its state has counted.

    The state must not stand at a dead block.
    """
    writes: list[Write] = [Put(CHAIN_META, _FINAL, final)]
    for name, height in dead:
        writes += [Delete(table, name) for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_CROSSINGS)]
        writes.append(Delete(CHAIN_HEIGHTS, u64(height) + name))
    return [*writes, *(Delete(CHAIN_VOTES, carried_order(vote)) for vote in votes)]


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

    Reads every value of the state and every node of its tree: 10,000 values take about a tenth of a second.
    """
    at, final = state_at(snapshot), final_block(snapshot)
    if at is None and final is None and snapshot.count(CHAIN_ROWS) == 0 and snapshot.count(CHAIN_STATE) == 0:
        return
    if at is None or final is None:
        raise StoreDamaged("the chain has blocks or a state, but not where it stands", table=CHAIN_META.name)
    body = block(snapshot, at)
    view = ChainState(snapshot)
    if body is None or body.info.state_root != view.root:
        raise StoreDamaged("the state is not that of the block at which it stands", table=CHAIN_META.name)
    _check_values(snapshot, view)
    _known(snapshot, final)
    for name, found in blocks_from(snapshot, _known(snapshot, final).height):
        tables = (CHAIN_BLOCKS, CHAIN_CROSSINGS)
        has_parent = found.height == 0 or snapshot.has(CHAIN_ROWS, found.parent)
        if not has_parent or not all(snapshot.has(table, name) for table in tables):
            raise StoreDamaged("a block lacks its body, its crossing or its parent", table=CHAIN_ROWS.name)


def _check_values(snapshot: Snapshot, view: ChainState) -> None:
    stored: dict[bytes, bytes] = {}
    for key, value in snapshot.scan(CHAIN_STATE):
        name, rest = key[1 : 1 + key[0]], key[1 + key[0] :]
        stored[state_key(name.decode("ascii", "replace"), rest)] = sha256(value)
    if stored != dict(leaves(view.root, view.node)):
        raise StoreDamaged("values of the state are not those of its tree", table=CHAIN_STATE.name)


def wipe(snapshot: Snapshot) -> list[Write]:
    """Everything goes but what was made here: the chain is fetched again."""
    return [Delete(table, key) for table in _ALL for key, _ in snapshot.scan(table)]


def state_items(snapshot: Snapshot) -> Sequence[tuple[bytes, bytes]]:
    """Every value of the state by its key, for comparing two of them."""
    return tuple(snapshot.scan(CHAIN_STATE))
