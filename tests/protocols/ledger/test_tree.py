"""The state tree against its definition: roots, batches, proofs, undo."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.errors import InvalidObject, Reason
from protocols.ledger.history import NO_PEAKS, append, check_path, path
from protocols.ledger.state import MemoryState, Overlay, check_value, prove_value, undo
from protocols.ledger.tree import EMPTY, check_proof, leaves, prove, state_key, update_tree


def root_by_definition(items: dict[bytes, bytes], depth: int = 0) -> bytes:
    """The definition, word for word: a subtree with one leaf is that leaf."""
    if not items:
        return bytes(32)
    if len(items) == 1:
        ((key, value),) = items.items()
        return hashlib.sha256(b"\x00" + key + value).digest()
    halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for key, value in items.items():
        halves[key[depth // 8] >> (7 - depth % 8) & 1][key] = value
    left, right = (root_by_definition(half, depth + 1) for half in halves)
    return hashlib.sha256(b"\x01" + left + right).digest()


# Few leading bytes, so that keys share long prefixes and subtrees collapse.
keys = st.binary(min_size=1, max_size=1).map(lambda head: bytes([head[0] & 0x03]) * 31 + bytes([head[0] & 0x0F]))
values = st.one_of(st.none(), st.integers(0, 3).map(lambda number: sha256(bytes([number]))))
batches = st.lists(st.dictionaries(keys, values, max_size=8), max_size=6)


@given(batches)
@settings(max_examples=60)
def test_any_run_of_batches_gives_the_root_of_the_definition_and_keeps_no_orphans(run: list[dict[bytes, bytes | None]]) -> None:
    """Goal: the batch update is the definition. Method: colliding prefixes, inserts, changes, removals; nodes are exactly the tree's."""
    nodes: dict[bytes, bytes] = {}
    items: dict[bytes, bytes] = {}
    root = EMPTY
    for batch in run:
        change = update_tree(root, batch, nodes.__getitem__)  # type: ignore[arg-type]
        for name in change.removed:
            del nodes[name]
        assert not change.added.keys() & nodes.keys()
        nodes.update(change.added)
        items.update({key: value for key, value in batch.items() if value is not None})
        items = {key: value for key, value in items.items() if batch.get(key, b"") is not None}
        root = change.root
        assert root == root_by_definition(items)
        assert dict(leaves(root, nodes.__getitem__)) == items
        assert len(nodes) == len(reachable(root, nodes))
        for key in {*items, *batch}:
            assert check_proof(root, key, prove(root, key, nodes.__getitem__)) == items.get(key)


def reachable(root: bytes, nodes: dict[bytes, bytes]) -> set[bytes]:
    found: set[bytes] = set()
    open_ = [root]
    while open_:
        name = open_.pop()
        if name != EMPTY:
            found.add(name)
            if nodes[name][0] == 1:
                open_ += [nodes[name][1:33], nodes[name][33:]]
    return found


def filled(count: int) -> MemoryState:
    state = MemoryState()
    overlay = Overlay(state)
    for number in range(count):
        overlay.put("space", number.to_bytes(2, "big"), b"value %d" % number)
    state.commit(overlay.change())
    return state


def test_proof_of_another_value_or_key_or_place_is_refused() -> None:
    """Goal: neither membership nor absence can be lied about. Method: every field of real proofs changed."""
    state = filled(50)
    key = (7).to_bytes(2, "big")
    here, gone = prove_value(state, "space", key), prove_value(state, "space", b"nothing")
    check_value(state.root, "space", key, b"value 7", here)
    check_value(state.root, "space", b"nothing", None, gone)
    lies = [
        ("space", key, b"value 8", here),
        ("space", key, None, here),
        ("other", key, b"value 7", here),
        ("space", key, None, gone),
        ("space", b"nothing", b"", gone),
        ("space", key, b"value 7", replace(here, siblings=here.siblings[1:])),
        ("space", key, b"value 7", replace(here, siblings=(*here.siblings, b""))),
        ("space", key, b"value 7", replace(here, siblings=(here.siblings[0][:31], *here.siblings[1:]))),
        ("space", key, None, replace(here, leaf_key=b"", leaf_value=b"")),
        ("space", key, None, replace(here, leaf_key=state_key("space", b"else"))),
        ("space", key, b"value 7", replace(here, siblings=(b"",) * 257)),
    ]
    for space, name, value, proof in lies:
        with pytest.raises(InvalidObject) as caught:
            check_value(state.root, space, name, value, proof)
        assert caught.value.reason is Reason.INTEGRITY


operations = st.lists(
    st.tuples(st.sampled_from(["put", "delete", "mark", "rollback"]), st.sampled_from(["x", "y"]), st.binary(min_size=1, max_size=1)),
    max_size=40,
)


@given(operations, operations)
def test_overlay_behaves_like_a_dictionary_and_undo_takes_everything_back(
    first: list[tuple[str, str, bytes]], second: list[tuple[str, str, bytes]]
) -> None:
    """Goal: reads, order, rollback and undo. Method: random writes beside a dictionary, committed twice, taken back twice."""
    state = MemoryState()
    model: dict[tuple[str, bytes], bytes] = {}
    before = []
    for run in (first, second):
        overlay = Overlay(state)
        copy = dict(model)
        marks: list[tuple[int, dict[tuple[str, bytes], bytes]]] = []
        for number, (act, space, key) in enumerate(run):
            if act == "put":
                overlay.put(space, key, bytes([number]))
                copy[space, key] = bytes([number])
            elif act == "delete":
                overlay.delete(space, key)
                copy.pop((space, key), None)
            elif act == "mark":
                marks.append((overlay.mark(), dict(copy)))
            elif marks:
                mark, copy = marks.pop()
                overlay.rollback(mark)
        for space in ("x", "y"):
            assert list(overlay.iterate(space)) == sorted((key, value) for (name, key), value in copy.items() if name == space)
        model = copy
        before.append((state.root, state.items(), overlay.change()))
        state.commit(before[-1][2])
        assert state.items() == model
    for root, items, change in reversed(before):
        state.commit(undo(state, change.undo))
        assert (state.root, state.items()) == (root, items)


def test_undo_record_of_another_block_is_refused() -> None:
    """Goal: a damaged undo record is noticed, not applied. Method: one value of it changed."""
    state = filled(5)
    overlay = Overlay(state)
    overlay.put("space", b"\0\1", b"new")
    change = overlay.change()
    state.commit(change)
    with pytest.raises(InvalidObject) as caught:
        undo(state, replace(change.undo, before=(("space", b"\0\1", b"else"),)))
    assert caught.value.reason is Reason.INTEGRITY


@given(st.integers(1, 70), st.data())
def test_history_proves_every_block_and_no_other(count: int, data: st.DataObject) -> None:
    """Goal: peaks and a path are enough for any old block. Method: every index; another leaf, index, path, count."""
    line = [sha256(bytes([number])) for number in range(count)]
    peaks = NO_PEAKS
    for leaf in line:
        peaks = append(peaks, leaf)
    assert len(peaks.hashes) == count.bit_count()
    index = data.draw(st.integers(0, count - 1))
    siblings = path(count, index, line.__getitem__)
    check_path(peaks, index=index, leaf=line[index], siblings=siblings)
    wrong = [(index, sha256(b"x"), siblings), (index, line[index], (*siblings, line[0])), (count, line[index], siblings)]
    if count > 1:
        wrong.append(((index + 1) % count, line[index], siblings))
    for at, leaf, way in wrong:
        with pytest.raises(InvalidObject):
            check_path(peaks, index=at, leaf=leaf, siblings=way)
