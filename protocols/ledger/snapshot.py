"""The state by its nodes: each is named by its hash, so whoever has a root can fetch the whole state, or compare two, piece by piece.

A node is asked for by its place, where it is found, and its name, by which it is checked; the place needs no trust.

A root is trusted because it stands in leaf 0 of a block whose hash is trusted (an anchor); below it nothing needs trust. Source: SPEC.md
§Snapshots.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..codec import Record
from ..crypto import sha256
from ..errors import InvalidObject, Reason
from ..limits import STATE_NODES_PER_MESSAGE_MAX, TREE_DEPTH_MAX
from .tree import EMPTY, LEAF_TAG, state_key

NODE_BYTES = 65
ROOT_PLACE = b"\0\0"
"""Depth, 2 bytes | the bits of K down to it, the last byte filled up with zeros."""
NodeAt = tuple[bytes, bytes]
"""(place, name) of a node."""
NodeOf = Callable[[bytes, bytes], bytes]
"""A node's 65 bytes by place and name."""


class StateNode(Record, frozen=True):
    """node: its 65 bytes. space, key, value: what a leaf stands for; empty for an inner node."""

    node: bytes
    space: str
    key: bytes
    value: bytes

    @property
    def name(self) -> bytes:
        """SHA-256 of the node, 32 bytes."""
        return sha256(self.node)

    @property
    def is_leaf(self) -> bool:
        return self.node[:1] == bytes([LEAF_TAG])


def check_state_node(one: StateNode) -> None:
    """Raises InvalidObject(INTEGRITY) unless it is whole and, of a leaf, space, key and value are those that it names."""
    if len(one.node) != NODE_BYTES or one.node[0] not in (LEAF_TAG, 1):
        raise InvalidObject(Reason.INTEGRITY, "not a node of a state tree")
    if not one.is_leaf:
        fits = not (one.space or one.key or one.value)
    else:
        named = one.space.isascii() and 0 < len(one.space) < 256
        fits = named and state_key(one.space, one.key) == one.node[1:33] and sha256(one.value) == one.node[33:]
    if not fits:
        raise InvalidObject(Reason.INTEGRITY, "a leaf that stands for another key or value")


def children_of(place: bytes, node: bytes) -> tuple[NodeAt, ...]:
    """What hangs below a node, from left to right; nothing below a leaf."""
    if node[0] == LEAF_TAG:
        return ()
    return tuple((child_place(place, bit), name) for bit, name in enumerate((node[1:33], node[33:])) if name != EMPTY)


def child_place(place: bytes, bit: int) -> bytes:
    """The place below, on the left (0) or on the right (1). Raises InvalidObject(INTEGRITY) below the last bit of a key."""
    depth = int.from_bytes(place[:2], "big")
    if depth >= TREE_DEPTH_MAX:
        raise InvalidObject(Reason.INTEGRITY, "a tree deeper than its keys")
    bits = bytearray(place[2:])
    if depth % 8 == 0:
        bits.append(0)
    bits[-1] |= bit << (7 - depth % 8)
    return (depth + 1).to_bytes(2, "big") + bits


def check_place(place: bytes) -> None:
    """Raises InvalidObject(MALFORMED) unless it is one, in the one form that it has."""
    depth = int.from_bytes(place[:2], "big")
    is_whole = 2 <= len(place) == 2 + (depth + 7) // 8 and depth <= TREE_DEPTH_MAX
    if not is_whole or (depth % 8 and place[-1] & (0xFF >> depth % 8)):
        raise InvalidObject(Reason.MALFORMED, "not a place in a state tree")


def split_place(place: bytes) -> tuple[int, bytes]:
    """Depth, and its bits as the beginning of a K."""
    return int.from_bytes(place[:2], "big"), place[2:].ljust(32, b"\0")


class Frontier:
    """Nodes that are still to be fetched of one tree, and who was asked for which. Depth first, so it stays small."""

    def __init__(self, missing: Iterable[NodeAt]) -> None:
        """missing: nodes below which nothing is here, each once."""
        self._open: dict[bytes, bytes] = {name: place for place, name in missing}
        self._asked: dict[bytes, dict[bytes, bytes]] = {}

    @property
    def is_done(self) -> bool:
        """Nothing is wanted any more."""
        return not self._open and not self._asked

    def ask(self, peer: bytes, *, among: int) -> tuple[NodeAt, ...]:
        """The next batch for a peer that has none under way, its share ``among`` so many; empty when others were asked for all."""
        assert peer not in self._asked
        share = min(STATE_NODES_PER_MESSAGE_MAX, -(-len(self._open) // among))
        batch = {name: self._open[name] for name in itertools.islice(reversed(self._open), share)}
        for name in batch:
            del self._open[name]
        if batch:
            self._asked[peer] = batch
        return tuple((place, name) for name, place in batch.items())

    def take(self, peer: bytes, nodes: Iterable[StateNode]) -> tuple[StateNode, ...]:
        """What a peer gave of what it was asked for; the rest is open again. Raises InvalidObject(INTEGRITY), and then all of it is.

        What hangs below them is open too: under one root no node stands at two places."""
        asked = self._asked.pop(peer, {})
        found = {one.name: one for one in nodes}
        try:
            for name, one in found.items():
                if name not in asked:
                    raise InvalidObject(Reason.INTEGRITY, "a node that nobody asked for")
                check_state_node(one)
            below = [child for name, one in found.items() for child in children_of(asked[name], one.node)]
        except InvalidObject:
            self._open.update(sorted(asked.items()))
            raise
        self._open.update(sorted((name, place) for name, place in asked.items() if name not in found))
        self._open.update((name, place) for place, name in below)
        return tuple(found.values())

    def drop(self, peer: bytes) -> None:
        """The peer is gone: others are asked."""
        self._open.update(sorted(self._asked.pop(peer, {}).items()))


# --- where two states differ ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """The lowest K at which two states differ. ours, theirs: name of the leaf, None where nothing stands."""

    key: bytes
    ours: bytes | None
    theirs: bytes | None


def first_difference(ours: bytes, theirs: bytes, our_node: NodeOf, their_node: NodeOf, *, place: bytes = ROOT_PLACE) -> Difference | None:
    """Walks both trees from their roots, the left side first, into what differs alone. Nodes are checked by their names already.

    ``their_node`` may raise to say that a node has to be fetched first: the walk is then begun again.
    Raises InvalidObject(INTEGRITY) for a tree that is deeper than its keys.
    """
    if ours == theirs:
        return None
    one = None if ours == EMPTY else our_node(place, ours)
    other = None if theirs == EMPTY else their_node(place, theirs)
    if _is_end(one) and _is_end(other):
        keys = [node[1:33] for node in (one, other) if node is not None]
        key = min(keys)
        return Difference(key, _leaf_at(ours, one, key), _leaf_at(theirs, other, key))
    depth = int.from_bytes(place[:2], "big")
    pairs = zip(_halves(ours, one, depth), _halves(theirs, other, depth), strict=True)
    for bit, (left, right) in enumerate(pairs):
        found = first_difference(left, right, our_node, their_node, place=child_place(place, bit))
        if found is not None:
            return found
    return None


def _is_end(node: bytes | None) -> bool:
    return node is None or node[0] == LEAF_TAG


def _leaf_at(name: bytes, node: bytes | None, key: bytes) -> bytes | None:
    return name if node is not None and node[1:33] == key else None


def _halves(name: bytes, node: bytes | None, depth: int) -> tuple[bytes, bytes]:
    """What hangs left and right; a leaf hangs on the side of its key's next bit."""
    if node is None:
        return EMPTY, EMPTY
    if node[0] != LEAF_TAG:
        return node[1:33], node[33:]
    if depth >= TREE_DEPTH_MAX:
        raise InvalidObject(Reason.INTEGRITY, "a leaf below the last bit of its key")
    is_right = node[1 + (depth >> 3)] >> (7 - (depth & 7)) & 1
    return (EMPTY, name) if is_right else (name, EMPTY)
