"""The history tree: a Merkle mountain range over block hashes by height. Source: SPEC.md §History.

The state keeps its peaks (at most 63 hashes), so any old block is proved to whoever has the state, or a proof of it, alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..codec import Record
from ..crypto import sha256
from ..errors import InvalidObject, Reason

_INNER = b"\x01"


class Peaks(Record, frozen=True):
    """count: leaves so far. hashes: roots of the perfect trees, the largest first; one for each 1 in ``count``."""

    count: int
    hashes: tuple[bytes, ...]


NO_PEAKS = Peaks(0, ())


def append(peaks: Peaks, leaf: bytes) -> Peaks:
    """The range with one more leaf, a 32-byte hash as it is."""
    hashes = list(peaks.hashes)
    node = leaf
    count = peaks.count
    while count & 1:
        node = sha256(_INNER, hashes.pop(), node)
        count >>= 1
    return Peaks(peaks.count + 1, (*hashes, node))


def path(count: int, index: int, leaf_of: Callable[[int], bytes]) -> tuple[bytes, ...]:
    """Siblings of leaf ``index`` of ``count`` from the bottom up to its peak. leaf_of: any leaf by its index."""
    return paths(count, (index,), leaf_of)[index]


def paths(count: int, indexes: Iterable[int], leaf_of: Callable[[int], bytes]) -> dict[int, tuple[bytes, ...]]:
    """``path`` of each of these leaves; hashes each inner node above them once."""
    found: dict[int, list[bytes]] = {index: [] for index in indexes}
    below: dict[tuple[int, int], list[int]] = {}
    for index in found:
        assert 0 <= index < count
        below.setdefault(_mountain(count, index), []).append(index)
    for (start, size), inside in below.items():
        level: Sequence[bytes] = [leaf_of(at) for at in range(start, start + size)]
        height = 0
        while len(level) > 1:
            for index in inside:
                found[index].append(level[(index - start) >> height ^ 1])
            level = [sha256(_INNER, level[i], level[i + 1]) for i in range(0, len(level), 2)]
            height += 1
    return {index: tuple(siblings) for index, siblings in found.items()}


def check_path(peaks: Peaks, *, index: int, leaf: bytes, siblings: Sequence[bytes]) -> None:
    """Raises InvalidObject(INTEGRITY) unless ``leaf`` stands at ``index`` of the range."""
    if not 0 <= index < peaks.count or any(len(one) != 32 for one in siblings):
        raise InvalidObject(Reason.INTEGRITY, f"history proof of leaf {index} of {peaks.count}")
    start, size = _mountain(peaks.count, index)
    node, at = leaf, index - start
    for sibling in siblings:
        node = sha256(_INNER, sibling, node) if at & 1 else sha256(_INNER, node, sibling)
        at >>= 1
    which = (peaks.count >> size.bit_length()).bit_count()
    if 1 << len(siblings) != size or node != peaks.hashes[which]:
        raise InvalidObject(Reason.INTEGRITY, "history proof does not lead to its peak")


def _mountain(count: int, index: int) -> tuple[int, int]:
    """First leaf and number of leaves of the perfect tree that holds leaf ``index``."""
    start = 0
    while True:
        size = 1 << ((count - start).bit_length() - 1)
        if index < start + size:
            return start, size
        start += size
