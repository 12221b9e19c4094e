"""The chain's state on disk: values, the rows of its tree, and for a while what older states need besides.

Each block writes the rows that it changes under a version of its own, one after the other, so a batch touches few pages; nothing that
is there is written again. The tree of any block of late is therefore here whole: going back to it is one pointer, and it can be proved or
given away node by node. Rows that a block replaced, and values, go when the block lies STATES_KEPT heights below the final one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

from protocols.codec import Record, encode, replace
from protocols.crypto import sha256
from protocols.errors import InvalidObject, StoreDamaged
from protocols.ledger.checks import u64
from protocols.ledger.rows import Leaf, RowOf, RowsChange, leaves_of, node_at, nodes_to, prove_rows, update_rows
from protocols.ledger.snapshot import ROOT_PLACE, Difference, NodeAt, StateNode, children_of, first_difference, split_place
from protocols.ledger.state import StateChange
from protocols.ledger.tree import EMPTY, TreeProof, place_of, prefix_of, state_key
from protocols.types import BlockHash, Digest

from .engine import Delete, Put, Snapshot, Write
from .overlay import Overlay
from .tables import CHAIN_FETCHED, CHAIN_META, CHAIN_OLD_VALUES, CHAIN_STATE, CHAIN_TREE, CHAIN_TREES
from .values import NUMBER_BYTES, load

ROOT = b"root"
VERSION = b"version"
# Rows and values of old states that one batch takes away; the rest goes with the next. A block of 250 anchors replaces 1,500 rows.
OLD_ROWS_PER_BATCH_MAX = 4096
# A full block replaces some thousand rows, each named by its version and path.
TREE_BYTES_MAX = 16 * 1024 * 1024
# CRC-32 of bytes that end with their own CRC-32, lowest byte first: of all such the same.
_SUM_BYTES = 4
_SUM_OF_ALL = 0x2144DF1C
assert crc32(b"row" + crc32(b"row").to_bytes(_SUM_BYTES, "little")) == _SUM_OF_ALL


class BlockTree(Record, frozen=True):
    """The tree of the state after a block.

    version: under which the block wrote its rows. replaced: (version, path) of rows that only trees before it need. olds: K of the values
    that it changed or took away.
    """

    root: bytes
    version: int
    replaced: tuple[tuple[int, bytes], ...]
    olds: tuple[bytes, ...]


class ChainState:
    """The state over a snapshot. Implements ``protocols.ledger.state.StateView``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._read = snapshot.reader(CHAIN_STATE)

    @property
    def root(self) -> Digest:
        return Digest(_root_of(self._snapshot)[0])

    def get(self, space: str, key: bytes) -> bytes | None:
        return self._read(prefix_of(space) + key)

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        prefix = prefix_of(space)
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._snapshot.scan(CHAIN_STATE, prefix=prefix, start=prefix + start):
            found.append((key[len(prefix) :], value))
            if len(found) == limit:
                break
        return found

    def change_tree(self, hashes: Mapping[bytes, Digest | None], places: Mapping[bytes, bytes]) -> RowsChange:
        """Raises StoreDamaged."""
        version = _last_version(self._snapshot) + 1
        return update_rows(*_root_of(self._snapshot), hashes, places, rows_in(self._snapshot), version=version)

    def prove(self, key: bytes) -> TreeProof:
        """Raises StoreDamaged."""
        return prove_rows(*_root_of(self._snapshot), key, rows_in(self._snapshot))


def _root_of(snapshot: Snapshot) -> tuple[bytes, int]:
    """Root of the tree and version of its row."""
    found = snapshot.get(CHAIN_META, ROOT)
    if found is None:
        return EMPTY, 0
    if len(found) != len(EMPTY) + NUMBER_BYTES:
        raise StoreDamaged("the root of the state is not what was written", table=CHAIN_META.name)
    return found[: len(EMPTY)], int.from_bytes(found[len(EMPTY) :], "big")


def _last_version(snapshot: Snapshot) -> int:
    found = snapshot.get(CHAIN_META, VERSION)
    return 0 if found is None else int.from_bytes(found, "big")


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_in(snapshot: Snapshot) -> RowOf:
    """Rows of any version that is here. They raise StoreDamaged."""
    read = snapshot.reader(CHAIN_TREE)

    def row_of(version: int, path: bytes) -> bytes:
        key = version.to_bytes(NUMBER_BYTES, "big") + path
        found = read(key)
        if found is None or crc32(found, crc32(key)) != _SUM_OF_ALL:
            raise StoreDamaged("a row of the state tree is missing or not what was written", table=CHAIN_TREE.name)
        return found[:-_SUM_BYTES]

    return row_of


def _put_rows(tree: RowsChange) -> list[Write]:
    """Each with its sum, against rot: a row is read many times before its hashes are computed again."""
    version = u64(tree.version)
    writes: list[Write] = [Put(CHAIN_META, VERSION, version), Put(CHAIN_META, ROOT, tree.root + version)]
    for path, row in tree.rows.items():
        key = version + path
        writes.append(Put(CHAIN_TREE, key, row + crc32(row, crc32(key)).to_bytes(_SUM_BYTES, "little")))
    return writes


def _tree_key(height: int, name: bytes) -> bytes:
    return u64(height) + name


def tree_of(snapshot: Snapshot, height: int, name: bytes) -> BlockTree | None:
    """The tree after a block; None where it is not here, or no more."""
    found = snapshot.get(CHAIN_TREES, _tree_key(height, name))
    return None if found is None else load(CHAIN_TREES, found, BlockTree, bytes_max=TREE_BYTES_MAX)


# --- the state moves --------------------------------------------------------------------------------------------------


def _put_values(change: StateChange) -> list[Write]:
    return [
        Delete(CHAIN_STATE, place_of(*at)) if value is None else Put(CHAIN_STATE, place_of(*at), value)
        for at, value in change.values.items()
    ]


def _rows_of(change: StateChange) -> RowsChange:
    assert isinstance(change.tree, RowsChange), "made on a state of this store"
    return change.tree


def state_writes(change: StateChange, height: int, name: bytes) -> list[Write]:
    """The change of a block that was just judged."""
    tree, writes = _rows_of(change), _put_values(change)
    olds: list[bytes] = []
    for space, key, value in change.undo.before:
        if value is not None:
            hashed = state_key(space, key)
            olds.append(hashed)
            writes.append(Put(CHAIN_OLD_VALUES, hashed + u64(height), value))
    kept = BlockTree(tree.root, tree.version, tuple(tree.replaced), tuple(olds))
    writes.append(Put(CHAIN_TREES, _tree_key(height, name), encode(kept)))
    return [*writes, *_put_rows(tree)]


def crossing_writes(
    snapshot: Snapshot,
    change: StateChange,
    applied: Iterable[tuple[str, bytes, bytes | None]],
    *,
    over: int,
    to: tuple[int, BlockHash],
    up: bool,
) -> list[Write]:
    """The state goes over a known block at height ``over``, down to its parent or up to it. to: height and hash of where it stands then.

    change: by the block's crossing, ``applied``, and so the tree that it leads to is checked; it is there already.
    """
    writes = _put_values(change)
    for space, key, value in change.undo.before if up else applied:
        if value is not None:
            at = state_key(space, key) + u64(over)
            writes.append(Put(CHAIN_OLD_VALUES, at, value) if up else Delete(CHAIN_OLD_VALUES, at))
    tree = tree_of(snapshot, *to)
    if tree is None:  # an older program kept none
        rows = _rows_of(change)
        return [*writes, *_put_rows(rows), Put(CHAIN_TREES, _tree_key(*to), encode(BlockTree(rows.root, rows.version, (), ())))]
    if tree.root != change.root:
        raise StoreDamaged("a crossing leads to another state than its block's", table=CHAIN_TREES.name)
    return [*writes, Put(CHAIN_META, ROOT, tree.root + u64(tree.version))]


def drop_tree(snapshot: Snapshot, height: int, name: bytes) -> list[Write]:
    """The tree of a block that is forgotten, and at which the state does not stand; nothing was built on it that is kept."""
    tree = tree_of(snapshot, height, name)
    if tree is None:
        return []
    rows: list[Write] = [Delete(CHAIN_TREE, key) for key, _ in snapshot.scan(CHAIN_TREE, prefix=u64(tree.version))]
    return [Delete(CHAIN_TREES, _tree_key(height, name)), *rows]


def forget_old(snapshot: Snapshot, below: int) -> list[Write]:
    """What blocks below this height replaced goes, about OLD_ROWS_PER_BATCH_MAX at a time: states from ``below - 1`` on are kept."""
    writes: list[Write] = []
    oldest: bytes | None = None
    kept: Write | None = None
    for key, data in snapshot.scan(CHAIN_TREES):
        height = int.from_bytes(key[:NUMBER_BYTES], "big")
        if oldest is not None:
            if height >= below or len(writes) >= OLD_ROWS_PER_BATCH_MAX:
                break
            tree = load(CHAIN_TREES, data, BlockTree, bytes_max=TREE_BYTES_MAX)
            writes.append(Delete(CHAIN_TREES, oldest))
            writes += [Delete(CHAIN_TREE, u64(version) + path) for version, path in tree.replaced]
            writes += [Delete(CHAIN_OLD_VALUES, hashed + u64(height)) for hashed in tree.olds]
            kept = Put(CHAIN_TREES, key, encode(replace(tree, replaced=(), olds=())))
        oldest = key
    return writes if kept is None else [*writes, kept]


def rebuilt(snapshot: Snapshot, at: tuple[int, BlockHash] | None) -> list[Write]:
    """The tree anew from the values, of a home whose tables of the tree are those of an older program.

    at: height and hash of where the state stands. Empty when nothing has to be done. Raises StoreDamaged.
    """
    root = snapshot.get(CHAIN_META, ROOT)
    if at is None or root is None or len(root) != len(EMPTY):
        return []
    hashes: dict[bytes, Digest | None] = {}
    places: dict[bytes, bytes] = {}
    for place, value in snapshot.scan(CHAIN_STATE):
        name = sha256(place)
        hashes[name], places[name] = sha256(value), place
    tree = update_rows(EMPTY, 0, hashes, places, rows_in(snapshot), version=1)
    if tree.root != root:
        raise StoreDamaged("values of the state are not those of its tree", table=CHAIN_STATE.name)
    return [*_put_rows(tree), Put(CHAIN_TREES, _tree_key(*at), encode(BlockTree(tree.root, tree.version, (), ())))]


def check_state(snapshot: Snapshot) -> None:
    """Every row of the tree from its leaves up, and every value against its leaf, in memory that does not grow with the state: values and
    leaves come in different orders, so their hashes are added up on both sides. Raises StoreDamaged."""
    values = sum(_sum_of(place, sha256(value)) for place, value in snapshot.scan(CHAIN_STATE))
    leaves = 0
    try:
        for leaf in leaves_of(*_root_of(snapshot), rows_in(snapshot)):
            if sha256(leaf.place) != leaf.key:
                raise StoreDamaged("a leaf of the state tree stands for another place", table=CHAIN_TREE.name)
            leaves += _sum_of(leaf.place, leaf.value_hash)
    except InvalidObject as error:
        raise StoreDamaged(error.message, table=CHAIN_TREE.name) from error
    if values != leaves:
        raise StoreDamaged("values of the state are not those of its tree", table=CHAIN_STATE.name)


def check_states(snapshot: Snapshot, made: Snapshot) -> None:
    """States of late, against a store that judged the same blocks and stands at the same one: every row by its sum, every old value, and of
    every block's tree its root and what it replaced. Versions of rows are each store's own, so only their blocks are compared.
    Raises StoreDamaged."""
    row_of = rows_in(snapshot)
    for key, _ in snapshot.scan(CHAIN_TREE):
        row_of(int.from_bytes(key[:NUMBER_BYTES], "big"), key[NUMBER_BYTES:])
    for key, value in snapshot.scan(CHAIN_OLD_VALUES):
        if made.get(CHAIN_OLD_VALUES, key) != value:
            raise StoreDamaged("a value that a block replaced is not what was written", table=CHAIN_OLD_VALUES.name)
    ours, theirs = _versions(snapshot), _versions(made)
    kept = frozenset(ours.values())
    if len(kept) != snapshot.count(CHAIN_TREES):
        raise StoreDamaged("two blocks wrote one version of the tree", table=CHAIN_TREES.name)
    for key in kept:
        tree, right = tree_of(snapshot, *_tree_at(key)), tree_of(made, *_tree_at(key))
        assert tree is not None
        if right is None or tree.root != right.root or tree.version > _last_version(snapshot):
            raise StoreDamaged("the tree after a block is not what was written", table=CHAIN_TREES.name)
        if not tree.replaced and not tree.olds:  # the oldest one that is kept, or the first one that was here
            continue
        # Of versions from before the oldest tree that is kept nobody knows whose they were, and a state that was fetched has its own.
        whose = [(ours.get(version), theirs.get(other)) for (version, _), (other, _) in zip(tree.replaced, right.replaced, strict=False)]
        is_same = [path for _, path in tree.replaced] == [path for _, path in right.replaced]
        is_same = is_same and all(one == other or one is None or other not in kept for one, other in whose)
        is_here = all(snapshot.has(CHAIN_TREE, u64(version) + path) for version, path in tree.replaced)
        if tree.olds != right.olds or not is_same or not is_here:
            raise StoreDamaged("what a block replaced in the tree is not what was written", table=CHAIN_TREES.name)


def _versions(snapshot: Snapshot) -> dict[int, bytes]:
    """Under which version each block wrote its rows: the key of its tree."""
    return {load(CHAIN_TREES, data, BlockTree, bytes_max=TREE_BYTES_MAX).version: key for key, data in snapshot.scan(CHAIN_TREES)}


def _tree_at(key: bytes) -> tuple[int, bytes]:
    return int.from_bytes(key[:NUMBER_BYTES], "big"), key[NUMBER_BYTES:]


def _sum_of(place: bytes, value_hash: bytes) -> int:
    """Of what stands at a place. Sums of the same things are the same in any order; no damage makes two others equal (2^-256)."""
    return int.from_bytes(sha256(place, value_hash), "big")


# --- states given away ------------------------------------------------------------------------------------------------


def find_node(snapshot: Snapshot, at: tuple[int, BlockHash], wanted: NodeAt) -> StateNode | None:
    """A node of the state after a block (height, hash), with what it stands for; None where another, or none, is there.
    Raises StoreDamaged."""
    tree = tree_of(snapshot, *at)
    if tree is None:
        return None
    place, name = wanted
    found = node_at(tree.root, tree.version, *split_place(place), rows_in(snapshot))
    node = None if found is None else _shown(snapshot, found, at[0])
    return node if node is not None and node.name == name else None


def _shown(snapshot: Snapshot, found: bytes | Leaf, height: int) -> StateNode | None:
    if not isinstance(found, Leaf):
        return StateNode(found, "", b"", b"")
    later = next(snapshot.scan(CHAIN_OLD_VALUES, prefix=found.key, start=found.key + u64(height + 1)), None)
    value = snapshot.get(CHAIN_STATE, found.place) if later is None else later[1]
    if value is None or sha256(value) != found.value_hash:
        return None  # of a branch on which the state does not stand
    size = 1 + found.place[0]
    return StateNode(found.node, found.place[1:size].decode("ascii"), found.place[size:], value)


def prove_after(snapshot: Snapshot, at: tuple[int, BlockHash], space: str, key: bytes) -> tuple[bytes | None, TreeProof] | None:
    """What stands at a key of the state after a block (height, hash), None for nothing, and its proof; None where that state is not here.
    Raises StoreDamaged."""
    tree = tree_of(snapshot, *at)
    if tree is None:
        return None
    name = state_key(space, key)
    proof = prove_rows(tree.root, tree.version, name, rows_in(snapshot))
    if proof.leaf_key != name:
        return None, proof
    leaf = _shown(snapshot, Leaf(name, proof.leaf_value, place_of(space, key)), at[0])
    return None if leaf is None else (leaf.value, proof)


# --- where two states differ ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StateDifference:
    """The first key, in the tree's order, at which two states differ. ours, theirs: values, None where nothing stands."""

    space: str
    key: bytes
    ours: bytes | None
    theirs: bytes | None


class _Lacking(Exception):
    """A node of theirs that has to be fetched first."""


def compare(snapshot: Snapshot, change: StateChange, theirs: bytes, known: Mapping[bytes, StateNode]) -> StateDifference | NodeAt | None:
    """Our state after a change that was not written, against the one under another root.

    known: checked nodes of theirs, by name. Result: the difference, None without one, or the node of theirs that is needed next.
    """
    tree, stored = _rows_of(change), rows_in(snapshot)

    def row_of(version: int, path: bytes) -> bytes:
        return tree.rows[path] if version == tree.version else stored(version, path)

    def our_node(place: bytes, name: bytes) -> bytes:
        found = node_at(tree.root, tree.version, *split_place(place), row_of)
        assert found is not None
        return found.node if isinstance(found, Leaf) else found

    def their_node(place: bytes, name: bytes) -> bytes:
        if name not in known:
            raise _Lacking((place, name))
        return known[name].node

    try:
        found = first_difference(change.root, theirs, our_node, their_node)
    except _Lacking as lacking:
        wanted: NodeAt = lacking.args[0]
        return wanted
    if found is None:
        return None
    mine = None if found.ours is None else _our_leaf(snapshot, change, found, row_of)
    other = None if found.theirs is None else known[found.theirs]
    shown = other if mine is None else mine
    assert shown is not None
    return StateDifference(shown.space, shown.key, None if mine is None else mine.value, None if other is None else other.value)


def _our_leaf(snapshot: Snapshot, change: StateChange, found: Difference, row_of: RowOf) -> StateNode:
    for (space, key), value in change.values.items():
        if value is not None and state_key(space, key) == found.key:
            return StateNode(b"", space, key, value)
    *_, leaf = nodes_to(change.root, _rows_of(change).version, found.key, row_of)
    assert isinstance(leaf, Leaf)
    value = snapshot.get(CHAIN_STATE, leaf.place)
    if value is None:
        raise StoreDamaged("a value of the state is missing", table=CHAIN_STATE.name)
    size = 1 + leaf.place[0]
    return StateNode(b"", leaf.place[1:size].decode("ascii"), leaf.place[size:], value)


# --- a state that comes node by node ----------------------------------------------------------------------------------


def put_nodes(snapshot: Snapshot, nodes: Iterable[StateNode]) -> list[Write]:
    """Checked nodes of the state that is being fetched: leaves into the state and its tree, which grows to the root that was promised."""
    overlay = Overlay(snapshot)
    hashes: dict[bytes, Digest | None] = {}
    places: dict[bytes, bytes] = {}
    for one in nodes:
        overlay.put(CHAIN_FETCHED, one.name, one.node)
        if one.is_leaf:
            place = place_of(one.space, one.key)
            name = sha256(place)
            hashes[name], places[name] = sha256(one.value), place
            overlay.put(CHAIN_STATE, place, one.value)
    if hashes:
        tree = ChainState(overlay).change_tree(hashes, places)
        overlay.add([Delete(CHAIN_TREE, u64(version) + path) for version, path in tree.replaced])
        overlay.add(_put_rows(tree))
    return overlay.writes


def missing_nodes(snapshot: Snapshot, root: bytes) -> tuple[NodeAt, ...]:
    """Nodes below which nothing is here, of the tree under ``root`` that is being fetched. Reads every node that is here.
    Raises StoreDamaged."""
    missing: list[NodeAt] = []
    stack: list[NodeAt] = [(ROOT_PLACE, root)] if root != EMPTY else []
    while stack:
        place, name = stack.pop()
        node = snapshot.get(CHAIN_FETCHED, name)
        if node is None:
            missing.append((place, name))
        elif sha256(node) != name:
            raise StoreDamaged("a node of the state that is being fetched is not what its name says", table=CHAIN_FETCHED.name)
        else:
            stack += reversed(children_of(place, node))
    return tuple(missing)


def put_fetched_tree(snapshot: Snapshot, height: int, name: bytes, root: bytes) -> list[Write]:
    """The whole state of a block is here: its tree is that block's. Raises StoreDamaged."""
    found, version = _root_of(snapshot)
    if found != root:
        raise StoreDamaged("the state that came is not that of its block", table=CHAIN_TREE.name)
    return [Put(CHAIN_TREES, _tree_key(height, name), encode(BlockTree(root, version, (), ())))]


def forget_fetched(snapshot: Snapshot) -> list[Write]:
    """What helped to fetch a state goes, at most OLD_ROWS_PER_BATCH_MAX of it at a time."""
    writes: list[Write] = []
    for key, _ in snapshot.scan(CHAIN_FETCHED):
        if len(writes) == OLD_ROWS_PER_BATCH_MAX:
            break
        writes.append(Delete(CHAIN_FETCHED, key))
    return writes
