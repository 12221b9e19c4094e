"""Merkle trees of records: leaves are 32-byte hashes as they are, inner node = SHA-256(0x01 | left | right), an odd node is promoted.

The number of leaves always stands beside the root, so that a proof also fixes the position.
"""

from __future__ import annotations

from collections.abc import Sequence

from .crypto import sha256
from .errors import InvalidObject, Reason
from .types import Digest

EMPTY_ROOT = sha256(b"")
"""Root of no leaves at all (an empty file, an empty entry list)."""


def _level_up(level: list[bytes]) -> list[bytes]:
    above: list[bytes] = [sha256(b"\x01", level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def merkle_root(leaves: Sequence[bytes]) -> Digest:
    """Root over the leaves in order; of one leaf it is that leaf, of none EMPTY_ROOT."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        level = _level_up(level)
    return Digest(level[0])


def merkle_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Siblings of leaf ``index`` from the bottom up; promoted steps have none."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _level_up(level)
        index //= 2
    return tuple(path)


def merkle_paths(leaves: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """``merkle_path`` of every leaf; hashes each inner node once."""
    paths: list[list[bytes]] = [[] for _ in leaves]
    level = list(leaves)
    height = 0
    while len(level) > 1:
        for index, path in enumerate(paths):
            sibling = (index >> height) ^ 1
            if sibling < len(level):
                path.append(level[sibling])
        level = _level_up(level)
        height += 1
    return [tuple(path) for path in paths]


def check_merkle_path(root: bytes, leaf: bytes, *, index: int, leaf_count: int, path: Sequence[bytes]) -> None:
    """Raises InvalidObject(INTEGRITY) unless ``leaf`` stands at ``index`` of ``leaf_count`` leaves under ``root``."""
    if not 0 <= index < leaf_count:
        raise InvalidObject(Reason.INTEGRITY, f"leaf {index} of {leaf_count}")
    node = leaf
    width = leaf_count
    steps = iter(path)
    for sibling in steps:
        while width > 1 and index == width - 1 and width % 2:  # promoted: no sibling at this height
            index //= 2
            width = (width + 1) // 2
        if width <= 1 or len(sibling) != 32:
            raise InvalidObject(Reason.INTEGRITY, "Merkle path too long")
        node = sha256(b"\x01", node, sibling) if index % 2 == 0 else sha256(b"\x01", sibling, node)
        index //= 2
        width = (width + 1) // 2
    while width > 1 and index == width - 1 and width % 2:
        index //= 2
        width = (width + 1) // 2
    if width != 1 or node != root:
        raise InvalidObject(Reason.INTEGRITY, "Merkle path does not lead to the root")
