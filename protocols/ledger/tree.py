"""The state tree: a sparse Merkle map from 32-byte keys to value hashes. Source: SPEC.md §State.

Leaf H(0x00 | K | H(value)), inner H(0x01 | left | right), empty = 32 zero bytes, a subtree with one leaf *is* that leaf.
Nodes are 65 bytes and named by their hash; since a leaf carries its whole key no node stands at two places of one tree, so a
change is a set of nodes that come and a set of nodes that go. A store keeps the same tree in rows of four levels (`rows.py`); this form,
node by node, is what that one is measured against, and what states in memory use.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..codec import Record
from ..crypto import sha256
from ..errors import InvalidObject, Reason
from ..limits import TREE_DEPTH_MAX
from ..types import Digest

EMPTY = Digest(bytes(32))
LEAF_TAG = 0
_LEAF = b"\x00"
_INNER = b"\x01"
NodeOf = Callable[[bytes], bytes]
"""A node's 65 bytes by its hash."""
Item = tuple[bytes, Digest | None]


def state_key(space: str, key: bytes) -> Digest:
    """K = SHA-256(length of the space's name, 1 byte | name | key). 32 bytes."""
    return sha256(prefix_of(space) + key)


def place_of(space: str, key: bytes) -> bytes:
    """What K is the hash of."""
    return prefix_of(space) + key


@cache
def prefix_of(space: str) -> bytes:
    """How places of a space begin: length of its name, name. Spaces are a few dozen names of this program."""
    name = space.encode("ascii")
    return bytes([len(name)]) + name


@dataclass(frozen=True, slots=True)
class TreeChange:
    """The new root, the nodes that came, and the hashes of those that went."""

    root: Digest
    added: Mapping[bytes, bytes]
    removed: frozenset[bytes]


def update_tree(root: bytes, changes: Mapping[bytes, Digest | None], node_of: NodeOf) -> TreeChange:
    """The tree after one batch. changes: K to SHA-256 of the value, None where the key goes; what goes need not be there."""
    batch = _Batch(node_of)
    new_root = batch.apply(Digest(root), sorted(changes.items()), 0)
    same = batch.removed & batch.added.keys()
    added = {name: node for name, node in batch.added.items() if name not in same}
    return TreeChange(new_root, added, frozenset(batch.removed - same))


class _Batch:
    """One walk down the tree, touching only the paths of the changed keys."""

    __slots__ = ("_node_of", "added", "removed")

    def __init__(self, node_of: NodeOf) -> None:
        self._node_of = node_of
        self.added: dict[bytes, bytes] = {}
        self.removed: set[bytes] = set()

    def apply(self, name: Digest, items: list[Item], depth: int) -> Digest:
        if len(items) == 1:
            return self._apply_one(name, *items[0], depth)
        if not items:
            return name
        if name == EMPTY:
            return self._build([item for item in items if item[1] is not None], depth)
        node = self._node_of(name)
        self.removed.add(name)
        if node[0] == LEAF_TAG:
            there = node[1:33]
            kept = [item for item in items if item[1] is not None]
            if all(key != there for key, _ in items):
                kept.insert(bisect_left(kept, there, key=lambda item: item[0]), (there, Digest(node[33:])))
            return self._build(kept, depth)
        at = _split(items, depth)
        left = self.apply(Digest(node[1:33]), items[:at], depth + 1)
        return self._join(left, self.apply(Digest(node[33:]), items[at:], depth + 1))

    def _apply_one(self, name: Digest, key: bytes, value: Digest | None, depth: int) -> Digest:
        """The same for one key, without recursion: most of every path lies below the point where the keys of a batch part."""
        path: list[tuple[Digest, int]] = []
        while name != EMPTY:
            node = self._node_of(name)
            self.removed.add(name)
            if node[0] == LEAF_TAG:
                break
            bit = key[depth >> 3] >> (7 - (depth & 7)) & 1
            left, right = Digest(node[1:33]), Digest(node[33:])
            path.append((left if bit else right, bit))
            name = right if bit else left
            depth += 1
        if name == EMPTY or node[1:33] == key:
            name = EMPTY if value is None else self._add(_LEAF + key + value)
        elif value is None:
            self.added[name] = node
        else:
            name = self._build(sorted([(key, value), (node[1:33], Digest(node[33:]))]), depth)
        for sibling, bit in reversed(path):
            if sibling == EMPTY or name == EMPTY:
                name = self._join(sibling, name) if bit else self._join(name, sibling)
            else:
                name = self._add(_INNER + sibling + name if bit else _INNER + name + sibling)
        return name

    def _build(self, items: list[Item], depth: int) -> Digest:
        if not items:
            return EMPTY
        if len(items) == 1:
            key, value = items[0]
            assert value is not None
            return self._add(_LEAF + key + value)
        at = _split(items, depth)
        return self._join(self._build(items[:at], depth + 1), self._build(items[at:], depth + 1))

    def _join(self, left: Digest, right: Digest) -> Digest:
        if left == EMPTY and (right == EMPTY or self._is_leaf(right)):
            return right
        if right == EMPTY and self._is_leaf(left):
            return left
        return self._add(_INNER + left + right)

    def _is_leaf(self, name: Digest) -> bool:
        return (self.added.get(name) or self._node_of(name))[0] == LEAF_TAG

    def _add(self, node: bytes) -> Digest:
        name = sha256(node)
        self.added[name] = node
        return name


def _split(items: list[Item], depth: int) -> int:
    """Index of the first item whose key has a 1 at ``depth``; items share all bits before it."""
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle][0][byte] & mask:
            high = middle
        else:
            low = middle + 1
    return low


class TreeProof(Record, frozen=True):
    """What is, or is not, under a root at one key.

    siblings: from the root down, 32 bytes each, empty bytes for an empty subtree. leaf_key, leaf_value: the leaf that stands at the
    end of the path (of another key: the key asked for is not there), both empty where nothing stands.
    """

    siblings: tuple[bytes, ...]
    leaf_key: bytes
    leaf_value: bytes


def prove(root: bytes, key: bytes, node_of: NodeOf) -> TreeProof:
    """Proof of membership or non-membership of K under the root."""
    siblings: list[bytes] = []
    name = root
    while name != EMPTY:
        node = node_of(name)
        if node[0] == LEAF_TAG:
            return TreeProof(tuple(siblings), node[1:33], node[33:])
        left, right = node[1:33], node[33:]
        name, sibling = (right, left) if _bit(key, len(siblings)) else (left, right)
        siblings.append(b"" if sibling == EMPTY else sibling)
    return TreeProof(tuple(siblings), b"", b"")


def check_proof(root: bytes, key: bytes, proof: TreeProof) -> Digest | None:
    """SHA-256 of the value at K under the root, None where there is none. Raises InvalidObject(INTEGRITY)."""
    depth = len(proof.siblings)
    _check(len(key) == 32 and depth <= TREE_DEPTH_MAX, "key or depth")
    _check(all(len(sibling) in (0, 32) for sibling in proof.siblings), "a sibling is neither empty nor 32 bytes")
    _check((len(proof.leaf_key), len(proof.leaf_value)) in ((0, 0), (32, 32)), "the leaf is neither empty nor whole")
    if proof.leaf_key:
        _check(all(_bit(proof.leaf_key, at) == _bit(key, at) for at in range(depth)), "the leaf is not on the path of the key")
        name = sha256(_LEAF, proof.leaf_key, proof.leaf_value)
    else:
        name = EMPTY
    for at in range(depth - 1, -1, -1):
        sibling = proof.siblings[at] or EMPTY
        name = sha256(_INNER, sibling, name) if _bit(key, at) else sha256(_INNER, name, sibling)
    _check(name == root, "the path does not lead to the root")
    return Digest(proof.leaf_value) if proof.leaf_key == key else None


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _check(fact: bool, what: str) -> None:
    if not fact:
        raise InvalidObject(Reason.INTEGRITY, f"state proof: {what}")


def leaves(root: bytes, node_of: NodeOf) -> Sequence[tuple[bytes, bytes]]:
    """Every (K, value hash) under the root by rising K: what a snapshot is checked against."""
    found: list[tuple[bytes, bytes]] = []
    stack = [bytes(root)]
    while stack:
        name = stack.pop()
        if name == EMPTY:
            continue
        node = node_of(name)
        if node[0] == LEAF_TAG:
            found.append((node[1:33], node[33:]))
        else:
            stack += [node[33:], node[1:33]]
    return found
