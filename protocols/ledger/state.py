"""State: named spaces of key → bytes, seen through a port, changed through an overlay, rooted in a tree. Source: SPEC.md §State.

Rules read and write an ``Overlay``; what it gathered becomes a ``StateChange``: values to write, nodes to add and remove, and the
undo record that takes all of it back.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256 as _hash
from typing import Protocol, TypeVar

from ..codec import Record, decode, encode
from ..crypto import sha256
from ..errors import InvalidObject, Reason
from ..types import Digest
from .rows import RowsChange
from .tree import EMPTY, TreeChange, TreeProof, check_proof, prefix_of, prove, state_key, update_tree

Key = tuple[str, bytes]
"""(space, key)."""
T = TypeVar("T")

SCAN_PAGE = 64


class StateView(Protocol):
    """What rules may ask of a state at one block. Implemented by a store over a snapshot, and by ``MemoryState``."""

    @property
    def root(self) -> Digest:
        """Root of the tree over all of it."""
        ...

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """At most ``limit`` (key, value) of the space from key ``start`` on, by rising key."""
        ...

    def change_tree(self, hashes: Mapping[bytes, Digest | None], places: Mapping[bytes, bytes]) -> TreeChange | RowsChange:
        """The tree after these changes, in the view's own form.

        hashes: K to SHA-256 of the value, None where the key goes. places: what each K is the hash of.
        """
        ...

    def prove(self, key: bytes) -> TreeProof:
        """Proof of what stands at K, or that nothing does."""
        ...


class UndoRecord(Record, frozen=True):
    """What a block changed, as it was before: (space, key, value or None), by rising (space, key); and the root before."""

    root: bytes
    before: tuple[tuple[str, bytes, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class StateChange:
    """All that one block does to the state."""

    values: Mapping[Key, bytes | None]
    tree: TreeChange | RowsChange
    undo: UndoRecord

    @property
    def root(self) -> Digest:
        return self.tree.root


class Overlay:
    """A view with changes on top. ``mark`` and ``rollback`` take back what was written since."""

    __slots__ = ("_decoded", "_journal", "_read", "_view", "_written")

    def __init__(self, view: StateView) -> None:
        """view: does not change while the overlay lies over it."""
        self._view = view
        self._read: dict[Key, bytes | None] = {}
        self._decoded: dict[Key, tuple[bytes, object]] = {}  # of the records that many transactions of a block ask for
        self._written: dict[Key, bytes | None] = {}
        self._journal: list[tuple[Key, bool, bytes | None]] = []

    def get(self, space: str, key: bytes) -> bytes | None:
        """The value as it is now, or None."""
        at = (space, key)
        if at in self._written:
            return self._written[at]
        return self._below(at)

    def _below(self, at: Key) -> bytes | None:
        try:
            return self._read[at]
        except KeyError:
            found = self._read[at] = self._view.get(*at)
            return found

    def load(self, space: str, key: bytes, kind: type[T]) -> T | None:
        """The value as a record, or None. A value that does not decode is our own mistake or the store's damage."""
        at = (space, key)
        data = self._written[at] if at in self._written else self._below(at)
        if data is None:
            return None
        known = self._decoded.get(at)
        if known is not None and known[0] is data and isinstance(known[1], kind):
            return known[1]
        value = decode(data, kind)
        self._decoded[at] = (data, value)
        return value

    def put(self, space: str, key: bytes, value: bytes) -> None:
        """Writes the value; empty values are values."""
        self._write((space, key), value)

    def save(self, space: str, key: bytes, value: Record) -> None:
        """Writes the canonical encoding of the record."""
        self._write((space, key), encode(value))

    def delete(self, space: str, key: bytes) -> None:
        """Takes the key away; it need not be there."""
        self._write((space, key), None)

    def _write(self, at: Key, value: bytes | None) -> None:
        self._journal.append((at, at in self._written, self._written.get(at)))
        self._written[at] = value

    def mark(self) -> int:
        """A point to roll back to."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Takes back everything written since the mark."""
        while len(self._journal) > mark:
            at, was_written, value = self._journal.pop()
            if was_written:
                self._written[at] = value
            else:
                del self._written[at]

    def iterate(self, space: str, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of the space from ``start`` on by rising key, what was written included. Nothing may be written meanwhile."""
        changed = sorted(key for name, key in self._written if name == space and key >= start)
        at = 0
        below = self._iterate_below(space, start)
        item = next(below, None)
        while item is not None or at < len(changed):
            if item is None or (at < len(changed) and changed[at] <= item[0]):
                key = changed[at]
                at += 1
                if item is not None and item[0] == key:
                    item = next(below, None)
                value = self._written[space, key]
                if value is not None:
                    yield key, value
            else:
                yield item
                item = next(below, None)

    def _iterate_below(self, space: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        while True:
            page = self._view.scan(space, start, SCAN_PAGE)
            yield from page
            if len(page) < SCAN_PAGE:
                return
            start = page[-1][0] + b"\0"

    def change(self) -> StateChange:
        """What was written that differs from the view, as values, tree and undo."""
        values: dict[Key, bytes | None] = {}
        before: list[tuple[str, bytes, bytes | None]] = []
        for at in sorted(self._written):
            old, new = self._below(at), self._written[at]
            if old != new:
                values[at] = new
                before.append((*at, old))
        return _change(self._view, values, tuple(before))


def _change(view: StateView, values: Mapping[Key, bytes | None], before: tuple[tuple[str, bytes, bytes | None], ...]) -> StateChange:
    hashes: dict[bytes, Digest | None] = {}
    places: dict[bytes, bytes] = {}
    for (space, key), value in values.items():
        place = prefix_of(space) + key
        name = _hash(place).digest()
        places[name] = place
        hashes[name] = None if value is None else Digest(_hash(value).digest())
    return StateChange(values, view.change_tree(hashes, places), UndoRecord(view.root, before))


def made_on(view: StateView, change: StateChange) -> StateChange:
    """The same change of a state that is the same, as another view keeps its tree."""
    return _change(view, change.values, change.undo.before)


def undo(view: StateView, record: UndoRecord) -> StateChange:
    """The change that takes a block back. Raises InvalidObject(INTEGRITY) when the record does not lead to the root before."""
    values: dict[Key, bytes | None] = {(space, key): value for space, key, value in record.before}
    before = tuple((space, key, view.get(space, key)) for space, key, _ in record.before)
    change = _change(view, values, before)
    if change.root != record.root:
        raise InvalidObject(Reason.INTEGRITY, "undo record does not lead to the root before its block")
    return change


def prove_value(view: StateView, space: str, key: bytes) -> TreeProof:
    """Proof of what stands, or does not stand, at (space, key)."""
    return view.prove(state_key(space, key))


def check_value(root: bytes, space: str, key: bytes, value: bytes | None, proof: TreeProof) -> None:
    """Raises InvalidObject(INTEGRITY) unless exactly this value (None: nothing) stands at (space, key) under the root."""
    found = check_proof(root, state_key(space, key), proof)
    if found != (None if value is None else sha256(value)):
        raise InvalidObject(Reason.INTEGRITY, "state proof: another value than the one shown")


class MemoryState:
    """The reference: spaces in dictionaries, nodes by hash. A store over a database behaves like it."""

    def __init__(self) -> None:
        self.root: Digest = EMPTY
        self._values: dict[str, dict[bytes, bytes]] = {}
        self._order: dict[str, list[bytes]] = {}
        self.nodes: dict[bytes, bytes] = {}

    def get(self, space: str, key: bytes) -> bytes | None:
        return self._values.get(space, {}).get(key)

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        order = self._order.get(space, [])
        at = bisect_left(order, start)
        return [(key, self._values[space][key]) for key in order[at : at + limit]]

    def change_tree(self, hashes: Mapping[bytes, Digest | None], places: Mapping[bytes, bytes]) -> TreeChange:
        return update_tree(self.root, hashes, self.nodes.__getitem__)

    def prove(self, key: bytes) -> TreeProof:
        return prove(self.root, key, self.nodes.__getitem__)

    def commit(self, change: StateChange) -> None:
        """Applies a change made on this very state."""
        assert isinstance(change.tree, TreeChange)
        for (space, key), value in change.values.items():
            values, order = self._values.setdefault(space, {}), self._order.setdefault(space, [])
            if value is None:
                del values[key]
                del order[bisect_left(order, key)]
            else:
                if key not in values:
                    insort(order, key)
                values[key] = value
        for name in change.tree.removed:
            del self.nodes[name]
        self.nodes.update(change.tree.added)
        self.root = change.root

    def items(self) -> dict[Key, bytes]:
        """Everything, for comparing two states."""
        return {(space, key): value for space, values in sorted(self._values.items()) for key, value in sorted(values.items())}
