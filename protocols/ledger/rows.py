"""The state tree as a store keeps it: four levels in a row, each row written once, by the version that made it. Source: SPEC.md §State.

The same tree, bit for bit, as ``tree.py`` says node by node. A row stands at a path of whole nibbles of K. A **branch** has the nodes of
its four levels and, for each of sixteen places below, how many leaves are there and which version wrote the row of them; a **bucket** has
the leaves themselves, where they are few. Which of the two a path has follows from the number of leaves alone. What a version changes it
writes anew under its own number, from the root down; so every older tree stays whole until its rows are taken away, and a tree is named by
the version of its root row.

A branch, 1,216 bytes: 0x01 | leaves (4) | 59 zero bytes | nodes 2 to 31 (32 each; the children of node k are 2k and 2k + 1; 16 to 31
stand at the roots of the rows below) | 16 versions (8 each) | 16 counts (4 each). A bucket: 0x00 | for each leaf by rising K:
K | value hash | length of its place (2) | place. The place of a leaf is what K is the hash of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256 as _hash
from itertools import pairwise
from struct import Struct

from ..errors import InvalidObject, Reason
from ..types import Digest
from .tree import EMPTY, TreeProof

# A bucket is hashed anew as a whole when one leaf of it changes; larger ones cost more for that, smaller ones more rows.
BUCKET_LEAVES_MAX = 8
RowOf = Callable[[int, bytes], bytes]
"""A row by version and path. A row that is not there, or is not what was written, is the store's damage."""

_LEAF = b"\x00"
_INNER = b"\x01"
_NOTHING: bytes = EMPTY
_INNER_EMPTY = _INNER + EMPTY
_BUCKET = 0
_BUCKET_HEAD = b"\x00"
_BRANCH = 1
_TOTAL = 1
_NODES = 32 * 16  # of the sixteen at the bottom
_VERSIONS = 1024
_COUNTS = 1152
_BRANCH_BYTES = 1216
_KEY_BYTES = 32
_LEAF_BYTES = 64
_HEAD_BYTES = 66
_NO_VERSION = bytes(8)
# Places of the nodes in a branch: making a slice of two sums takes as long as cutting it.
_NODE_AT = tuple(slice(32 * node, 32 * node + 32) for node in range(32))
_PAIR_AT = tuple(slice(64 * node, 64 * node + 64) for node in range(16))
_VERSION_AT = tuple(slice(_VERSIONS + 8 * slot, _VERSIONS + 8 * slot + 8) for slot in range(16))
_ONE_COUNT, _ALL_COUNTS = Struct(">I"), Struct(">16I")
_ONE_VERSION, _ALL_VERSIONS = Struct(">Q"), Struct(">16Q")


def leaf_bytes(key: bytes, value_hash: bytes, place: bytes) -> bytes:
    """A leaf as it stands in a bucket."""
    return key + value_hash + len(place).to_bytes(2, "big") + place


@dataclass(frozen=True, slots=True)
class Leaf:
    """key: K. place: what K is the hash of."""

    key: bytes
    value_hash: bytes
    place: bytes

    @property
    def node(self) -> bytes:
        """Its 65 bytes."""
        return _LEAF + self.key + self.value_hash


@dataclass(frozen=True, slots=True)
class RowsChange:
    """The new root, its version, the rows that it writes by path, and (version, path) of those that only older trees need."""

    root: Digest
    version: int
    rows: Mapping[bytes, bytes]
    replaced: Sequence[tuple[int, bytes]]


def update_rows(
    root: bytes, root_version: int, changes: Mapping[bytes, Digest | None], places: Mapping[bytes, bytes], row_of: RowOf, *, version: int
) -> RowsChange:
    """The tree after one batch.

    root_version: of its row, nothing where the tree is empty. changes: K to SHA-256 of the value, None where the key goes; what goes need
    not be there. places: of all of these K. version: higher than any that was ever used.
    """
    batch = _Batch(row_of, version)
    items = [(key, None if value is None else leaf_bytes(key, value, places[key])) for key, value in sorted(changes.items())]
    if root == EMPTY:
        new_root, _ = batch.build(b"", [leaf for _, leaf in items if leaf is not None])
    else:
        new_root, _ = batch.apply(b"", root_version, items)
    return RowsChange(Digest(new_root), version, batch.rows, batch.replaced)


class _Batch:
    """One walk down the rows, touching only the paths of the changed keys."""

    __slots__ = ("_row_of", "_version", "_version_bytes", "replaced", "rows")

    def __init__(self, row_of: RowOf, version: int) -> None:
        self._row_of = row_of
        self._version = version
        self._version_bytes = version.to_bytes(8, "big")
        self.rows: dict[bytes, bytes] = {}
        self.replaced: list[tuple[int, bytes]] = []

    def apply(self, path: bytes, version: int, items: list[tuple[bytes, bytes | None]]) -> tuple[bytes, int]:
        """Result: the hash of what stands at the path, and how many leaves."""
        if len(items) == 1:
            return self.apply_one(path, version, *items[0])
        found = self._row_of(version, path)
        self.replaced.append((version, path))
        if found[0] == _BUCKET:
            return self.build(path, _merged(found, items))
        row = bytearray(found)
        counts, versions = list(_ALL_COUNTS.unpack_from(row, _COUNTS)), list(_ALL_VERSIONS.unpack_from(row, _VERSIONS))
        byte, is_low = len(path) >> 1, len(path) & 1
        parents: list[int] = []
        first, end = 0, len(items)
        with memoryview(row) as view:
            while first < end:
                number = items[first][0][byte]
                slot = number & 15 if is_low else number >> 4
                last = first + 1
                while last < end and (items[last][0][byte] & 15 if is_low else items[last][0][byte] >> 4) == slot:
                    last += 1
                below = items if last - first == end else items[first:last]
                first = last
                if counts[slot]:
                    name, count = self.apply(path + _NIBBLES[slot], versions[slot], below)
                else:
                    name, count = self.build(path + _NIBBLES[slot], [leaf for _, leaf in below if leaf is not None])
                counts[slot] = count
                versions[slot] = self._version if count else 0
                view[_NODE_AT[16 | slot]] = name
                parent = 8 + (slot >> 1)
                if not parents or parents[-1] != parent:
                    parents.append(parent)
            _ALL_COUNTS.pack_into(row, _COUNTS, *counts)
            _ALL_VERSIONS.pack_into(row, _VERSIONS, *versions)
            total = sum(counts)
            if total <= BUCKET_LEAVES_MAX:
                return self.build(path, self._gather(path, row))
            _ONE_COUNT.pack_into(row, _TOTAL, total)
            name = _fold(row, view, parents)
        self.rows[path] = bytes(row)
        return name, total

    def apply_one(self, path: bytes, version: int, key: bytes, leaf: bytes | None) -> tuple[bytes, int]:
        """``apply`` of one key: below the first rows a change is nearly always alone, and then only one path is hashed anew."""
        found = self._row_of(version, path)
        self.replaced.append((version, path))
        if found[0] == _BUCKET:
            return self.build(path, _merged_one(found, key, leaf))
        depth = len(path)
        slot = key[depth >> 1] & 15 if depth & 1 else key[depth >> 1] >> 4
        below = path + _NIBBLES[slot]
        (before,) = _ONE_COUNT.unpack_from(found, _COUNTS + 4 * slot)
        if before:
            name, count = self.apply_one(below, _ONE_VERSION.unpack_from(found, _VERSIONS + 8 * slot)[0], key, leaf)
        elif leaf is not None:
            name, count = self.build(below, [leaf])
        else:
            name, count = EMPTY, 0
        row = bytearray(found)
        total: int = _ONE_COUNT.unpack_from(row, _TOTAL)[0] + count - before
        with memoryview(row) as view:
            view[_NODE_AT[16 | slot]] = name
            view[_VERSION_AT[slot]] = self._version_bytes if count else _NO_VERSION
            _ONE_COUNT.pack_into(row, _COUNTS + 4 * slot, count)
            if total <= BUCKET_LEAVES_MAX:
                return self.build(path, self._gather(path, row))
            _ONE_COUNT.pack_into(row, _TOTAL, total)
            name = _fold_one(row, view, slot, name, count) if count else _fold(row, view, [8 + (slot >> 1)])
        self.rows[path] = bytes(row)
        return name, total

    def build(self, path: bytes, leaves: list[bytes]) -> tuple[bytes, int]:
        """Rows of these leaves, by rising K, where nothing stands any more."""
        count = len(leaves)
        if count == 0:
            return EMPTY, 0
        if count == 1:
            leaf = leaves[0]
            self.rows[path] = _BUCKET_HEAD + leaf
            return _hash(_LEAF + leaf[:_LEAF_BYTES]).digest(), 1
        if count <= BUCKET_LEAVES_MAX:
            self.rows[path] = _BUCKET_HEAD + b"".join(leaves)
            return subtree(leaves, 4 * len(path)), count
        row = bytearray(_BRANCH_BYTES)
        row[0] = _BRANCH
        row[1:5] = count.to_bytes(4, "big")
        for slot, below in enumerate(_by_nibble(leaves, len(path))):
            if below:
                name, number = self.build(path + _NIBBLES[slot], below)
                row[_NODES + 32 * slot : _NODES + 32 * slot + 32] = name
                row[_VERSIONS + 8 * slot : _VERSIONS + 8 * slot + 8] = self._version_bytes
                row[_COUNTS + 4 * slot : _COUNTS + 4 * slot + 4] = number.to_bytes(4, "big")
        with memoryview(row) as view:
            name = _fold(row, view, list(range(8, 16)))
        self.rows[path] = bytes(row)
        return name, count

    def _gather(self, path: bytes, row: bytearray) -> list[bytes]:
        """The few leaves that are left below a branch; the rows that held them are not needed any more."""
        leaves: list[bytes] = []
        for slot in range(16):
            if _count(row, slot):
                below, version = path + _NIBBLES[slot], _version(row, slot)
                if version == self._version:
                    found = self.rows.pop(below)
                else:
                    found = self._row_of(version, below)
                    self.replaced.append((version, below))
                leaves += _split_bucket(found)
        return leaves


_NIBBLES = tuple(bytes([nibble]) for nibble in range(16))


def _count(row: bytes | bytearray, slot: int) -> int:
    return int.from_bytes(row[_COUNTS + 4 * slot : _COUNTS + 4 * slot + 4], "big")


def _version(row: bytes | bytearray, slot: int) -> int:
    return int.from_bytes(row[_VERSIONS + 8 * slot : _VERSIONS + 8 * slot + 8], "big")


def _by_nibble(leaves: list[bytes], depth: int) -> list[list[bytes]]:
    groups: list[list[bytes]] = [[] for _ in range(16)]
    byte, is_low = depth >> 1, depth & 1
    for leaf in leaves:
        groups[leaf[byte] & 15 if is_low else leaf[byte] >> 4].append(leaf)
    return groups


def _split_bucket(row: bytes) -> list[bytes]:
    """Its leaves, as they stand in it. Raises InvalidObject(INTEGRITY)."""
    leaves: list[bytes] = []
    at, end = 1, len(row)
    while at < end:
        if at + _HEAD_BYTES > end:
            raise InvalidObject(Reason.INTEGRITY, "a bucket of the state tree ends within a leaf")
        after = at + _HEAD_BYTES + (row[at + 64] << 8 | row[at + 65])
        leaves.append(row[at:after])
        at = after
    return leaves


def _merged(row: bytes, items: list[tuple[bytes, bytes | None]]) -> list[bytes]:
    kept: dict[bytes, bytes | None] = {leaf[:_KEY_BYTES]: leaf for leaf in _split_bucket(row)}
    kept.update(items)
    return [leaf for _, leaf in sorted(kept.items()) if leaf is not None]


def _merged_one(row: bytes, key: bytes, new: bytes | None) -> list[bytes]:
    leaves = _split_bucket(row)
    at = 0
    for leaf in leaves:
        if leaf > key:  # a leaf begins with its key, and is longer
            if leaf.startswith(key):
                leaves[at : at + 1] = [] if new is None else [new]
                return leaves
            break
        at += 1
    if new is not None:
        leaves.insert(at, new)
    return leaves


def subtree(leaves: Sequence[bytes], depth: int) -> bytes:
    """Hash of the subtree at ``depth`` that has exactly these leaves (of buckets, or their first 64 bytes), at least one, by rising K."""
    first = leaves[0]
    count = len(leaves)
    if count == 1:
        return _hash(_LEAF + first[:_LEAF_BYTES]).digest()
    last = leaves[-1]
    byte = depth >> 3
    while not (differing := first[byte] ^ last[byte]):
        byte += 1
    at = 8 * byte + 8 - differing.bit_length()  # the first bit that is not the same in all
    if count == 2:  # most of them
        name = _hash(_INNER + _hash(_LEAF + first[:_LEAF_BYTES]).digest() + _hash(_LEAF + last[:_LEAF_BYTES]).digest()).digest()
    else:
        mask = 0x80 >> (at & 7)
        middle = 1
        while not leaves[middle][byte] & mask:
            middle += 1
        name = _hash(_INNER + subtree(leaves[:middle], at + 1) + subtree(leaves[middle:], at + 1)).digest()
    while at > depth:
        at -= 1
        name = _hash(_INNER_EMPTY + name if first[at >> 3] & 0x80 >> (at & 7) else _INNER + name + EMPTY).digest()
    return name


def _fold_one(row: bytearray, view: memoryview, slot: int, name: bytes, count: int) -> bytes:
    """Hashes the nodes above one bottom place anew; at least one leaf is below it. Result: node 1.

    view: of the row; writing through it costs a third. name, count: of the place, as they stand in the row already.
    """
    node = 16 | slot
    while True:
        beside = row[_NODE_AT[node ^ 1]]
        if beside != _NOTHING:
            name = _hash(_INNER + beside + name if node & 1 else _INNER + name + beside).digest()
            count = 2  # or more: from here on nothing is a single leaf
        elif count > 1:
            name = _hash(_INNER_EMPTY + name if node & 1 else _INNER + name + EMPTY).digest()
        node >>= 1
        if node == 1:
            return name
        view[_NODE_AT[node]] = name


def _fold(row: bytearray, view: memoryview, parents: list[int]) -> bytes:
    """Hashes the nodes above changed bottom places anew. parents: of these, rising, each once. Result: node 1.

    view: of the row; writing through it costs a third.
    """
    while parents[0] > 1:
        above: list[int] = []
        before = 0
        for parent in parents:
            pair = row[_PAIR_AT[parent]]
            view[_NODE_AT[parent]] = _hash(_INNER + pair).digest() if _NOTHING not in pair else _parent_of(row, parent)
            parent >>= 1
            if parent != before:
                above.append(parent)
                before = parent
        parents = above
    return _parent_of(row, 1)


def _parent_of(row: bytearray, parent: int) -> bytes:
    """The hash of a node of a branch, from those of its children; a single leaf is not wrapped."""
    pair = row[_PAIR_AT[parent]]
    if pair.startswith(EMPTY):
        if pair.endswith(EMPTY):
            return EMPTY
        if _leaves_below(row, parent) == 1:
            return bytes(pair[32:])
    elif pair.endswith(EMPTY) and _leaves_below(row, parent) == 1:
        return bytes(pair[:32])
    return _hash(_INNER + pair).digest()


def _slots_below(number: int) -> range:
    """The bottom places under a node of a branch."""
    width = 16 >> (number.bit_length() - 1)
    return range(number * width - 16, number * width - 16 + width)


def _leaves_below(row: bytes | bytearray, number: int) -> int:
    return sum(_count(row, slot) for slot in _slots_below(number))


# --- reading ----------------------------------------------------------------------------------------------------------


def nodes_to(root: bytes, root_version: int, key: bytes, row_of: RowOf) -> Iterator[bytes | Leaf]:
    """Nodes on the way from the root to K: 65 bytes of inner ones, and the leaf at the end, of K or another; none where nothing stands."""
    path, version = b"", root_version
    if root == EMPTY:
        return
    while True:
        row = row_of(version, path)
        if row[0] == _BUCKET:
            yield from _nodes_in_bucket(_split_bucket(row), key, 4 * len(path))
            return
        slot = _nibble(key, len(path))
        for level in range(4):
            number = (16 | slot) >> (4 - level)
            count = _leaves_below(row, number)
            if count == 0:
                return
            if count == 1:
                slot = next(one for one in _slots_below(number) if _count(row, one))
                break
            yield _INNER + row[64 * number : 64 * number + 64]
        if not _count(row, slot):
            return
        version = _version(row, slot)
        path += _NIBBLES[slot]


def _nibble(key: bytes, depth: int) -> int:
    return key[depth >> 1] & 15 if depth & 1 else key[depth >> 1] >> 4


def _nodes_in_bucket(leaves: list[bytes], key: bytes, depth: int) -> Iterator[bytes | Leaf]:
    while len(leaves) > 1:
        byte, mask = depth >> 3, 0x80 >> (depth & 7)
        left, right = [one for one in leaves if not one[byte] & mask], [one for one in leaves if one[byte] & mask]
        yield _INNER + b"".join(subtree(half, depth + 1) if half else EMPTY for half in (left, right))
        leaves = right if key[byte] & mask else left
        depth += 1
    for leaf in leaves:
        yield _leaf(leaf)


def _leaf(leaf: bytes) -> Leaf:
    return Leaf(leaf[:_KEY_BYTES], leaf[_KEY_BYTES:_LEAF_BYTES], leaf[_HEAD_BYTES:])


def prove_rows(root: bytes, root_version: int, key: bytes, row_of: RowOf) -> TreeProof:
    """Proof of membership or non-membership of K under the root."""
    siblings: list[bytes] = []
    for depth, node in enumerate(nodes_to(root, root_version, key, row_of)):
        if isinstance(node, Leaf):
            return TreeProof(tuple(siblings), node.key, node.value_hash)
        is_right = key[depth >> 3] & 0x80 >> (depth & 7)
        sibling = node[1:33] if is_right else node[33:]
        siblings.append(b"" if sibling == EMPTY else sibling)
    return TreeProof(tuple(siblings), b"", b"")


def node_at(root: bytes, root_version: int, depth: int, key: bytes, row_of: RowOf) -> bytes | Leaf | None:
    """What stands at a depth on the way to K; the leaf, where the way ends in one above. None: nothing does."""
    node: bytes | Leaf | None = None
    for at, node in enumerate(nodes_to(root, root_version, key, row_of)):
        if at == depth:
            return node
    return node if isinstance(node, Leaf) else None


def leaves_of(root: bytes, root_version: int, row_of: RowOf) -> Iterator[Leaf]:
    """Every leaf by rising K. Every row is checked from its leaves up. Raises InvalidObject(INTEGRITY) when one is not what it must be."""
    if root != EMPTY:
        yield from _checked(root, root_version, b"", None, row_of)


def _checked(name: bytes, version: int, path: bytes, count: int | None, row_of: RowOf) -> Iterator[Leaf]:
    row = row_of(version, path)
    if row[0] == _BUCKET:
        leaves = _split_bucket(row)
        _check(0 < len(leaves) <= BUCKET_LEAVES_MAX and count in (None, len(leaves)) and b"\0" + b"".join(leaves) == row, path)
        _check(all(one[:_KEY_BYTES] < other[:_KEY_BYTES] for one, other in pairwise(leaves)), path)
        _check(all(_stands_at(leaf, path) for leaf in leaves) and subtree(leaves, 4 * len(path)) == name, path)
        for leaf in leaves:
            yield _leaf(leaf)
        return
    total = sum(_count(row, slot) for slot in range(16))
    again = bytearray(row)
    _check(row[0] == _BRANCH and len(row) == _BRANCH_BYTES and not any(row[5:64]), path)
    _check(count in (None, total) and int.from_bytes(row[1:5], "big") == total > BUCKET_LEAVES_MAX, path)
    with memoryview(again) as view:
        _check(_fold(again, view, list(range(8, 16))) == name, path)
    _check(again == row, path)
    for slot in range(16):
        below = row[_NODES + 32 * slot : _NODES + 32 * slot + 32]
        _check((below == EMPTY) == (_count(row, slot) == 0) == (_version(row, slot) == 0), path)
        if below != EMPTY:
            yield from _checked(below, _version(row, slot), path + _NIBBLES[slot], _count(row, slot), row_of)


def _stands_at(leaf: bytes, path: bytes) -> bool:
    return all(_nibble(leaf, depth) == nibble for depth, nibble in enumerate(path))


def _check(fact: bool, path: bytes) -> None:
    if not fact:
        raise InvalidObject(Reason.INTEGRITY, f"the row of the state tree at {path.hex()[1::2] or 'the root'} is not what it has to be")
