"""The state tree in rows against the same tree node by node: roots, proofs, nodes, older versions, altered rows."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import sha256
from protocols.errors import InvalidObject, Reason
from protocols.ledger.rows import BUCKET_LEAVES_MAX, Leaf, RowsChange, leaves_of, node_at, prove_rows, update_rows
from protocols.ledger.snapshot import ROOT_PLACE, children_of, split_place
from protocols.ledger.tree import EMPTY, prove, update_tree
from protocols.types import Digest

# Few different bytes at few places: keys share long beginnings, rows reach deep, and most batches meet what is there.
KEYS = st.builds(
    lambda head, tail: bytes(head).ljust(31, b"\x55") + bytes([tail]),
    st.lists(st.sampled_from((0, 1, 16, 128)), max_size=3),
    st.integers(0, 40),
)
BATCHES = st.lists(st.dictionaries(KEYS, st.none() | st.integers(0, 2), min_size=1, max_size=30), max_size=8)


class Both:
    """Rows of every version that was written, and the nodes of the newest tree."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], bytes] = {}
        self.nodes: dict[bytes, bytes] = {}
        self.values: dict[bytes, Digest] = {}
        self.root: Digest = EMPTY
        self.version = 0

    def row_of(self, version: int, path: bytes) -> bytes:
        return self.rows[version, path]

    def change(self, batch: Mapping[bytes, Digest | None]) -> RowsChange:
        places = {key: b"place of " + key for key in batch}
        changed = update_rows(self.root, self.version, batch, places, self.row_of, version=self.version + 1)
        naive = update_tree(self.root, batch, self.nodes.__getitem__)
        assert changed.root == naive.root
        for name in naive.removed:
            del self.nodes[name]
        self.nodes.update(naive.added)
        for key, value in batch.items():
            self.values.pop(key, None)
            if value is not None:
                self.values[key] = value
        self.rows.update({(changed.version, path): row for path, row in changed.rows.items()})
        self.root, self.version = changed.root, changed.version
        return changed

    def drop(self, changed: RowsChange) -> None:
        for key in changed.replaced:
            del self.rows[key]

    def check_proofs(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            assert prove_rows(self.root, self.version, key, self.row_of) == prove(self.root, key, self.nodes.__getitem__)

    def leaves(self) -> dict[bytes, bytes]:
        return {leaf.key: leaf.value_hash for leaf in leaves_of(self.root, self.version, self.row_of)}


def hashed(batch: Mapping[bytes, int | None]) -> dict[bytes, Digest | None]:
    return {key: None if value is None else sha256(bytes([value])) for key, value in batch.items()}


def many(count: int, seed: int) -> dict[bytes, Digest | None]:
    rng = random.Random(seed)
    return {rng.randbytes(32): Digest(rng.randbytes(32)) for _ in range(count)}


@given(BATCHES)
def test_rows_have_the_root_the_leaves_and_the_proofs_of_the_tree(batches: list[dict[bytes, int | None]]) -> None:
    """Goal: SPEC's tree, whatever the rows look like. Method: batches that come and go through both; after each the root, all leaves with
    their places, and proofs of some of its keys, in the end of some that were ever named; rows that were replaced are taken away at once.
    Few keys: that theirs share long beginnings makes a proof cost ten thousand hashes here."""
    both, named = Both(), set[bytes]()
    for batch in batches:
        both.drop(both.change(hashed(batch)))
        named |= batch.keys()
        assert both.leaves() == dict(sorted(both.values.items()))
        assert all(leaf.place == b"place of " + leaf.key for leaf in leaves_of(both.root, both.version, both.row_of))
        both.check_proofs(list(batch)[:2])
    both.check_proofs(sorted(named)[:: 1 + len(named) // 4])


@given(BATCHES)
def test_rows_follow_from_what_is_in_them_and_no_row_is_left_over(batches: list[dict[bytes, int | None]]) -> None:
    """Goal: one content, one set of rows, however it came about; what is replaced and what is written is exact. Method: against rows
    built from the leaves at once, versions aside."""
    both = Both()
    for batch in batches:
        both.drop(both.change(hashed(batch)))
    fresh = Both()
    fresh.change(dict(both.values))
    assert sorted(path for _, path in both.rows) == sorted(path for _, path in fresh.rows)
    again = {path: row for (_, path), row in fresh.rows.items()}
    for (_, path), row in both.rows.items():
        assert without_versions(row) == without_versions(again[path])


def without_versions(row: bytes) -> bytes:
    return row if row[0] == 0 else row[:1024] + row[1152:]


@given(st.integers(0, 1 << 32), st.sampled_from((1, BUCKET_LEAVES_MAX, BUCKET_LEAVES_MAX + 1, 60, 700)))
def test_every_node_is_found_at_its_place(seed: int, count: int) -> None:
    """Goal: the whole state can be given away node by node. Method: random keys; down from the root by places, against the nodes."""
    both = Both()
    both.change(many(count, seed))
    stack, found = [(ROOT_PLACE, bytes(both.root))], 0
    while stack:
        place, name = stack.pop()
        one = node_at(both.root, both.version, *split_place(place), both.row_of)
        assert one is not None
        node = one.node if isinstance(one, Leaf) else one
        assert both.nodes[name] == node
        found += 1
        stack += children_of(place, node)
    assert found == len(both.nodes)


def test_older_trees_stay_whole_until_what_replaced_their_rows_is_forgotten() -> None:
    """Goal: a state of late is one pointer away. Method: 20 versions over 300 keys; all trees read back; forgotten from the oldest, each
    forgets itself alone; in the end the rows of the newest are left."""
    both, rng = Both(), random.Random(7)
    changes, trees = [], []
    for number in range(20):
        batch = many(30 if number else 300, number)
        batch |= {
            key: None if rng.random() < 0.5 else sha256(bytes([number]))
            for key in rng.sample(sorted(both.values), min(20, len(both.values)))
        }
        changes.append(both.change(batch))
        trees.append((both.root, both.version, dict(both.values)))
    for at, (root, version, values) in enumerate(trees):
        if at:
            both.drop(changes[at])
        for later_root, later_version, later_values in trees[at:]:
            leaves = {leaf.key: leaf.value_hash for leaf in leaves_of(later_root, later_version, both.row_of)}
            assert leaves == later_values
        if at:
            with pytest.raises(KeyError):
                list(leaves_of(*trees[at - 1][:2], both.row_of))
        assert values
        assert root
        assert version
    newest = Both()
    newest.change(dict(both.values))
    assert len(both.rows) == len(newest.rows)


def test_every_altered_bit_of_a_row_is_found() -> None:
    """Goal: rot that passes the sum, or was made with it, is found by the hashes. Method: one bit of each byte of each kind of row."""
    both = Both()
    both.change(many(40, 1))
    good = dict(both.rows)
    kinds = {row[0]: key for key, row in good.items() if key[1]} | {2: (both.version, b"")}
    places = 0
    for key in kinds.values():
        for at in range(len(good[key])):
            row = bytearray(good[key])
            row[at] ^= 1 << (at % 8)
            both.rows[key] = bytes(row)
            if row[0] == 0 and is_of_a_place(row, at):  # the hashes say nothing of a leaf's place: its key does, and the store compares
                places += 1
                continue
            with pytest.raises((InvalidObject, KeyError, IndexError)) as found:
                list(leaves_of(both.root, both.version, both.row_of))
            if isinstance(found.value, InvalidObject):
                assert found.value.reason is Reason.INTEGRITY
        both.rows[key] = good[key]
    assert both.leaves() == dict(sorted(both.values.items()))
    assert 0 < places < 2000


def is_of_a_place(row: bytes | bytearray, at: int) -> bool:
    """Whether a byte of a bucket belongs to the place of a leaf, or to its length: every leaf here has a place of 41 bytes."""
    size = 66 + len(b"place of ") + 32
    return at > 0 and (at - 1) % size >= 64
