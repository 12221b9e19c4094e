"""The state by its nodes: each is named by its hash, so whoever has a root can fetch the whole state, or compare two, piece by piece.

A root is trusted because it stands in leaf 0 of a block whose hash is trusted (an anchor); below it nothing needs trust. Source: SPEC.md
§Snapshots.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from ..codec import Record
from ..crypto import sha256
from ..errors import InvalidObject, Reason
from ..limits import STATE_NODES_PER_MESSAGE_MAX, TREE_DEPTH_MAX
from .tree import EMPTY, LEAF_TAG, NodeOf, state_key

NODE_BYTES = 65


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


def children_of(node: bytes) -> tuple[bytes, ...]:
    """Names of what hangs below a node, from left to right; none below a leaf."""
    return () if node[0] == LEAF_TAG else tuple(name for name in (node[1:33], node[33:]) if name != EMPTY)


class Frontier:
    """Names that are still to be fetched of one tree, and who was asked for which. Depth first, so it stays small."""

    def __init__(self, missing: Iterable[bytes]) -> None:
        """missing: names below which nothing is here, each once."""
        self._open: dict[bytes, None] = dict.fromkeys(missing)
        self._asked: dict[bytes, frozenset[bytes]] = {}

    @property
    def is_done(self) -> bool:
        """Nothing is wanted any more."""
        return not self._open and not self._asked

    def ask(self, peer: bytes, *, among: int) -> tuple[bytes, ...]:
        """The next batch for a peer that has none under way, its share ``among`` so many; empty when others were asked for all."""
        assert peer not in self._asked
        share = min(STATE_NODES_PER_MESSAGE_MAX, -(-len(self._open) // among))
        batch = tuple(itertools.islice(reversed(self._open), share))
        for name in batch:
            del self._open[name]
        if batch:
            self._asked[peer] = frozenset(batch)
        return batch

    def take(self, peer: bytes, nodes: Iterable[StateNode]) -> tuple[StateNode, ...]:
        """What a peer gave of what it was asked for; the rest is open again. Raises InvalidObject(INTEGRITY), and then all of it is.

        What hangs below them is open too: under one root no node stands at two places."""
        asked = self._asked.pop(peer, frozenset())
        found = {one.name: one for one in nodes}
        try:
            for name, one in found.items():
                if name not in asked:
                    raise InvalidObject(Reason.INTEGRITY, "a node that nobody asked for")
                check_state_node(one)
        except InvalidObject:
            self._open.update(dict.fromkeys(sorted(asked)))
            raise
        self._open.update(dict.fromkeys(sorted(asked - found.keys())))
        for one in found.values():
            self._open.update(dict.fromkeys(children_of(one.node)))
        return tuple(found.values())

    def drop(self, peer: bytes) -> None:
        """The peer is gone: others are asked."""
        self._open.update(dict.fromkeys(sorted(self._asked.pop(peer, frozenset()))))


# --- where two states differ ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """The lowest K at which two states differ. ours, theirs: name of the leaf, None where nothing stands."""

    key: bytes
    ours: bytes | None
    theirs: bytes | None


def first_difference(ours: bytes, theirs: bytes, our_node: NodeOf, their_node: NodeOf, *, depth: int = 0) -> Difference | None:
    """Walks both trees from their roots, the left side first, into what differs alone. Nodes are checked by their names already.

    ``their_node`` may raise to say that a node has to be fetched first: the walk is then begun again.
    Raises InvalidObject(INTEGRITY) for a tree that is deeper than its keys.
    """
    if ours == theirs:
        return None
    if depth > TREE_DEPTH_MAX:
        raise InvalidObject(Reason.INTEGRITY, "a tree deeper than its keys")
    one = None if ours == EMPTY else our_node(ours)
    other = None if theirs == EMPTY else their_node(theirs)
    if _is_end(one) and _is_end(other):
        keys = [node[1:33] for node in (one, other) if node is not None]
        key = min(keys)
        return Difference(key, _leaf_at(ours, one, key), _leaf_at(theirs, other, key))
    pairs = zip(_halves(ours, one, depth), _halves(theirs, other, depth), strict=True)
    for left, right in pairs:
        found = first_difference(left, right, our_node, their_node, depth=depth + 1)
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
