"""The chain's state on disk: values, the nodes of its tree, and for a while the nodes that later blocks replaced.

A leaf of the tree is kept with the space and key that it stands for, so that the whole state can be given away node by node. What a
block replaces stays for STATES_KEPT heights below the final one: so long a state can be proved, or fetched as a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocols.codec import Record, encode
from protocols.crypto import sha256
from protocols.errors import StoreDamaged
from protocols.ledger.checks import u64
from protocols.ledger.snapshot import NODE_BYTES, Difference, StateNode, children_of, first_difference
from protocols.ledger.state import StateChange
from protocols.ledger.tree import EMPTY, LEAF_TAG, state_key
from protocols.types import Digest

from .engine import Delete, Put, Snapshot, Write
from .tables import CHAIN_META, CHAIN_NODES, CHAIN_OLD_HEIGHTS, CHAIN_OLD_NODES, CHAIN_STATE
from .values import NUMBER_BYTES, load

ROOT = b"root"
# Replaced nodes that one batch takes away; the rest goes with the next.
OLD_NODES_PER_BATCH_MAX = 4096
# A value may be as large as a transaction, its node is small.
NODE_VALUE_BYTES_MAX = 1024 * 1024


class OldNode(Record, frozen=True):
    """A node that the block at ``height`` replaced."""

    height: int
    node: StateNode


class ChainState:
    """The state over a snapshot. Implements ``protocols.ledger.state.StateView``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    @property
    def root(self) -> Digest:
        found = self._snapshot.get(CHAIN_META, ROOT)
        return EMPTY if found is None else Digest(found)

    def get(self, space: str, key: bytes) -> bytes | None:
        return self._snapshot.get(CHAIN_STATE, prefix_of(space) + key)

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        prefix = prefix_of(space)
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._snapshot.scan(CHAIN_STATE, prefix=prefix, start=prefix + start):
            found.append((key[len(prefix) :], value))
            if len(found) == limit:
                break
        return found

    def node(self, name: bytes) -> bytes:
        """Raises StoreDamaged."""
        found = self._snapshot.get(CHAIN_NODES, name)
        if found is None or sha256(found[:NODE_BYTES]) != name:
            raise StoreDamaged("a node of the state tree is not what its name says", table=CHAIN_NODES.name)
        return found[:NODE_BYTES]


def prefix_of(space: str) -> bytes:
    """How keys of a space begin: length of its name, name."""
    encoded = space.encode("ascii")
    return bytes([len(encoded)]) + encoded


def state_writes(snapshot: Snapshot, change: StateChange, height: int) -> list[Write]:
    """The change of the block at ``height``, made or taken back."""
    writes: list[Write] = []
    places: dict[bytes, bytes] = {}
    for (space, key), value in change.values.items():
        at = prefix_of(space) + key
        places[state_key(space, key)] = at
        writes.append(Delete(CHAIN_STATE, at) if value is None else Put(CHAIN_STATE, at, value))
    before: dict[bytes, tuple[str, bytes, bytes]] = {
        state_key(space, key): (space, key, value or b"") for space, key, value in change.undo.before
    }
    for name in sorted(change.tree.removed):
        writes.append(Delete(CHAIN_NODES, name))
        old = ChainState(snapshot).node(name)
        space, key, value = before[old[1:33]] if old[0] == LEAF_TAG else ("", b"", b"")
        writes.append(Put(CHAIN_OLD_NODES, name, encode(OldNode(height, StateNode(old, space, key, value)))))
        writes.append(Put(CHAIN_OLD_HEIGHTS, u64(height) + name, b"\x01"))
    for name, node in sorted(change.tree.added.items()):
        writes.append(Put(CHAIN_NODES, name, node + places[node[1:33]] if node[0] == LEAF_TAG else node))
    writes.append(Put(CHAIN_META, ROOT, change.root))
    return writes


def forget_old(snapshot: Snapshot, below: int) -> list[Write]:
    """Nodes that blocks below this height replaced go; at most OLD_NODES_PER_BATCH_MAX at a time."""
    writes: list[Write] = []
    for count, (key, _) in enumerate(snapshot.scan(CHAIN_OLD_HEIGHTS)):
        height, name = int.from_bytes(key[:NUMBER_BYTES], "big"), key[NUMBER_BYTES:]
        if height >= below or count == OLD_NODES_PER_BATCH_MAX:
            break
        writes.append(Delete(CHAIN_OLD_HEIGHTS, key))
        data = snapshot.get(CHAIN_OLD_NODES, name)
        if data is not None and load(CHAIN_OLD_NODES, data, OldNode, bytes_max=NODE_VALUE_BYTES_MAX).height == height:
            writes.append(Delete(CHAIN_OLD_NODES, name))
    return writes


def find_node(snapshot: Snapshot, name: bytes) -> StateNode | None:
    """A node of the state, or of one of late, with what it stands for. Raises StoreDamaged."""
    data = snapshot.get(CHAIN_NODES, name)
    if data is None:
        old = snapshot.get(CHAIN_OLD_NODES, name)
        found = None if old is None else load(CHAIN_OLD_NODES, old, OldNode, bytes_max=NODE_VALUE_BYTES_MAX).node
        if found is not None and found.name != name:
            raise StoreDamaged("an old node of the state tree is not what its name says", table=CHAIN_OLD_NODES.name)
        return found
    node = ChainState(snapshot).node(name)
    if node[0] != LEAF_TAG:
        return StateNode(node, "", b"", b"")
    place = data[NODE_BYTES:]
    value = snapshot.get(CHAIN_STATE, place)
    if not place or value is None or sha256(value) != node[33:]:
        raise StoreDamaged("a leaf of the state tree has another value", table=CHAIN_STATE.name)
    return StateNode(node, place[1 : 1 + place[0]].decode("ascii"), place[1 + place[0] :], value)


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


def compare(snapshot: Snapshot, change: StateChange, theirs: bytes, known: Mapping[bytes, StateNode]) -> StateDifference | bytes | None:
    """Our state after a change that was not written, against the one under another root.

    known: checked nodes of theirs, by name. Result: the difference, None without one, or the name of a node of theirs that is needed next.
    """

    def our_node(name: bytes) -> bytes:
        return change.tree.added.get(name) or _need(snapshot, name).node

    def their_node(name: bytes) -> bytes:
        if name not in known:
            raise _Lacking(name)
        return known[name].node

    try:
        found = first_difference(change.root, theirs, our_node, their_node)
    except _Lacking as lacking:
        name: bytes = lacking.args[0]
        return name
    if found is None:
        return None
    mine = None if found.ours is None else _our_leaf(snapshot, change, found)
    other = None if found.theirs is None else known[found.theirs]
    shown = other if mine is None else mine
    assert shown is not None
    return StateDifference(shown.space, shown.key, None if mine is None else mine.value, None if other is None else other.value)


def _need(snapshot: Snapshot, name: bytes) -> StateNode:
    found = find_node(snapshot, name)
    if found is None:
        raise StoreDamaged("a node of the state tree is missing", table=CHAIN_NODES.name)
    return found


def _our_leaf(snapshot: Snapshot, change: StateChange, found: Difference) -> StateNode:
    assert found.ours is not None
    for (space, key), value in change.values.items():
        if value is not None and state_key(space, key) == found.key:
            return StateNode(b"", space, key, value)
    return _need(snapshot, found.ours)


# --- a state that comes node by node ----------------------------------------------------------------------------------


def put_nodes(nodes: Iterable[StateNode]) -> list[Write]:
    """Checked nodes of the state that is being fetched."""
    writes: list[Write] = []
    for one in nodes:
        place = prefix_of(one.space) + one.key if one.is_leaf else b""
        writes.append(Put(CHAIN_NODES, one.name, one.node + place))
        if one.is_leaf:
            writes.append(Put(CHAIN_STATE, place, one.value))
    return writes


def missing_nodes(snapshot: Snapshot, root: bytes) -> tuple[bytes, ...]:
    """Names below which nothing is here, of the tree under ``root``. Reads every node that is here."""
    missing: list[bytes] = []
    stack = [root] if root != EMPTY else []
    view = ChainState(snapshot)
    while stack:
        name = stack.pop()
        if snapshot.has(CHAIN_NODES, name):
            stack += reversed(children_of(view.node(name)))
        else:
            missing.append(name)
    return tuple(missing)
