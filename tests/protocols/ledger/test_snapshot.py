"""A state fetched node by node, and where two states differ, under a random scheduler and against the plain comparison."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import encode
from protocols.crypto import sha256
from protocols.errors import InvalidObject, Reason
from protocols.ledger.snapshot import (
    ROOT_PLACE,
    Difference,
    Frontier,
    NodeAt,
    StateNode,
    check_place,
    check_state_node,
    child_place,
    children_of,
    first_difference,
    split_place,
)
from protocols.ledger.state import MemoryState, Overlay
from protocols.ledger.tree import EMPTY, LEAF_TAG, leaves, state_key

VALUES = st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=40)


def state_of(values: dict[int, int]) -> MemoryState:
    view = MemoryState()
    overlay = Overlay(view)
    for key, value in values.items():
        overlay.put("space", encode(key), encode(value))
    view.commit(overlay.change())
    return view


def nodes_of(view: MemoryState) -> dict[bytes, StateNode]:
    """Every node with what a leaf stands for."""
    places = {state_key(space, key): (space, key, value) for (space, key), value in view.items().items()}
    found = {}
    for name, node in view.nodes.items():
        space, key, value = places[state_key(*places[node[1:33]][:2])] if node[0] == LEAF_TAG else ("", b"", b"")
        found[name] = StateNode(node, space, key, value)
    return found


@given(VALUES, st.integers(0, 1 << 32))
def test_frontier_ends_with_the_whole_state_whatever_peers_do(values: dict[int, int], seed: int) -> None:
    """Goal: every node once, none that was not checked. Method: peers that answer in part, vanish, lie, in an order drawn from a seed;
    every now and then it begins anew from what is on the disk."""
    view, rng = state_of(values), random.Random(seed)
    all_nodes = nodes_of(view)
    kept: dict[bytes, StateNode] = {}

    def missing() -> list[NodeAt]:
        found: list[NodeAt] = []
        stack: list[NodeAt] = [(ROOT_PLACE, view.root)] if view.root != EMPTY else []
        while stack:
            place, name = stack.pop()
            if name not in kept:
                found.append((place, name))
            else:
                stack += children_of(place, kept[name].node)
        return found

    frontier = Frontier(missing())
    asked: dict[bytes, tuple[NodeAt, ...]] = {}
    for _ in range(3000):
        if frontier.is_done:
            break
        peer = rng.choice((b"a", b"b", b"c"))
        draw = rng.random()
        if peer not in asked:
            if batch := frontier.ask(peer, among=rng.choice((1, 2, 3))):
                asked[peer] = batch
        elif draw < 0.1:
            frontier.drop(peer)
            del asked[peer]
        elif draw < 0.2:
            lie = StateNode(b"\1" + bytes(64), "", b"", b"")
            with pytest.raises(InvalidObject):
                frontier.take(peer, [lie])
            del asked[peer]
        elif draw < 0.25:
            frontier, asked = Frontier(missing()), {}
        else:
            given = rng.sample(asked[peer], rng.randint(0, len(asked[peer])))
            for one in frontier.take(peer, [all_nodes[name] for _, name in given]):
                assert one.name not in kept, "fetched twice"
                kept[one.name] = one
            del asked[peer]
    assert frontier.is_done
    assert kept == all_nodes


def test_node_that_is_not_what_it_is_called_is_refused() -> None:
    """Goal: nothing in a state needs trust. Method: each field of a true leaf altered; an inner node with a value; bytes of no node."""
    leaf = next(one for one in nodes_of(state_of({1: 1, 2: 2})).values() if one.is_leaf)
    check_state_node(leaf)
    inner = StateNode(b"\1" + bytes(64), "", b"", b"")
    check_state_node(inner)
    for lie in (
        StateNode(leaf.node, "other", leaf.key, leaf.value),
        StateNode(leaf.node, "späce", leaf.key, leaf.value),
        StateNode(leaf.node, leaf.space, leaf.key + b"x", leaf.value),
        StateNode(leaf.node, leaf.space, leaf.key, leaf.value + b"x"),
        StateNode(leaf.node[:-1], leaf.space, leaf.key, leaf.value),
        StateNode(b"\2" + leaf.node[1:], leaf.space, leaf.key, leaf.value),
        StateNode(inner.node, "space", b"", b""),
        StateNode(b"", "", b"", b""),
    ):
        with pytest.raises(InvalidObject) as refused:
            check_state_node(lie)
        assert refused.value.reason is Reason.INTEGRITY


@given(VALUES, VALUES)
def test_first_difference_is_that_of_the_sorted_leaves(one: dict[int, int], other: dict[int, int]) -> None:
    """Goal: the lowest K that differs, on whichever side. Method: against the plain comparison of all leaves."""
    ours, theirs = state_of(one), state_of(other)
    a, b = dict(leaves(ours.root, ours.nodes.__getitem__)), dict(leaves(theirs.root, theirs.nodes.__getitem__))
    different = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    found = first_difference(ours.root, theirs.root, lambda _, name: ours.nodes[name], lambda _, name: theirs.nodes[name])
    if not different:
        assert found is None
        return

    def name(side: dict[bytes, bytes], key: bytes) -> bytes | None:
        return sha256(b"\0", key, side[key]) if key in side else None

    key = different[0]
    assert found == Difference(key, name(a, key), name(b, key))


def test_tree_that_never_ends_is_refused() -> None:
    """Goal: a peer's tree cannot keep us walking. Method: a node that is its own child, as no hash can be."""
    ours = state_of({1: 1})
    endless = b"\1" + b"e" * 32 + b"e" * 32
    with pytest.raises(InvalidObject) as refused:
        first_difference(ours.root, b"e" * 32, lambda _, name: ours.nodes[name], lambda *_: endless)
    assert refused.value.reason is Reason.INTEGRITY


def test_place_has_one_form_and_leads_where_its_bits_say() -> None:
    """Goal: what a peer calls a place is one, or is refused. Method: down along random keys; each malformed form; below the last bit."""
    rng = random.Random(3)
    for _ in range(20):
        key, place = rng.randbytes(32), ROOT_PLACE
        for depth in range(256):
            check_place(place)
            at, bits = split_place(place)
            assert at == depth
            assert int.from_bytes(bits, "big") >> (256 - depth) == int.from_bytes(key, "big") >> (256 - depth)
            place = child_place(place, key[depth >> 3] >> (7 - (depth & 7)) & 1)
        check_place(place)
        assert split_place(place) == (256, key)
        with pytest.raises(InvalidObject):
            child_place(place, 0)
    for malformed in (b"", b"\0", b"\0\0\0", b"\0\1", b"\0\1\x40", b"\0\7\1", b"\1\1" + bytes(33), b"\0\x09\0\x40"):
        with pytest.raises(InvalidObject) as refused:
            check_place(malformed)
        assert refused.value.reason is Reason.MALFORMED
