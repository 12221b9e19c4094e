"""Merkle trees of records: all paths at once are the paths one by one, and each leads to the root."""

from __future__ import annotations

from protocols.crypto import sha256
from protocols.merkle import check_merkle_path, merkle_path, merkle_paths, merkle_root


def test_all_paths_at_once_are_the_paths_one_by_one_for_every_small_tree() -> None:
    """Goal: ``merkle_paths`` is a faster ``merkle_path``. Method: every number of leaves up to 70, every leaf, checked to the root."""
    for count in range(71):
        leaves = [sha256(bytes([number])) for number in range(count)]
        paths = merkle_paths(leaves)
        assert paths == [merkle_path(leaves, index) for index in range(count)]
        for index, path in enumerate(paths):
            check_merkle_path(merkle_root(leaves), leaves[index], index=index, leaf_count=count, path=path)
