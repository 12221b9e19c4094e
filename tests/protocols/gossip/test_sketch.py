"""The sketch of a set: laws, and the golden vector."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocols.gossip.facts import FactKind, fact_id
from protocols.gossip.sketch import BUCKET_COUNT, SKETCH_BYTES, Sketch, differing_buckets
from tests.vectors import recompute_gossip as second

VECTORS: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
ids = st.binary(min_size=32, max_size=32)
id_sets = st.sets(ids, max_size=40)


def test_ids_and_sketch_are_the_vector() -> None:
    """Goal: byte for byte. Method: the vector's 301 facts."""
    facts = [(16, b"statement %d" % number) for number in range(300)] + [(20, b"receipt")]
    assert [fact_id(*fact).hex() for fact in facts] == VECTORS["ids"]
    assert Sketch(fact_id(*fact) for fact in facts).digest().hex() == VECTORS["sketch"]


def test_kinds_are_one_byte() -> None:
    """Goal: the id speaks of the whole kind. Method: all kinds."""
    assert all(0 <= kind < 256 for kind in FactKind)


@given(st.lists(ids, max_size=40), st.randoms(use_true_random=False))
def test_equal_sets_have_equal_sketches_however_they_came_about(some: list[bytes], chance: Any) -> None:
    """Goal: order, repetition and detours do not matter. Method: add twice, shuffled, with strangers that leave again."""
    plain = Sketch(some)
    other = list(some)
    chance.shuffle(other)
    winding = Sketch()
    for one in other:
        stranger = bytes([one[0] ^ 1]) + one[1:]
        was_there = stranger in winding
        winding.add(stranger)
        winding.add(one)
        winding.add(one)
        if not was_there:
            winding.remove(stranger)
            winding.remove(stranger)
    wanted = set(some)
    for one in list(winding.ids_of(0)) + [one for bucket in range(1, BUCKET_COUNT) for one in winding.ids_of(bucket)]:
        if one not in wanted:
            winding.remove(one)
    for one in wanted:
        winding.add(one)
    assert winding.digest() == plain.digest()
    assert winding.count == plain.count == len(wanted)


@given(id_sets, id_sets)
def test_differing_buckets_are_those_of_the_difference(ours: set[bytes], theirs: set[bytes]) -> None:
    """Goal: reconciliation looks at the right buckets and no others. Method: two random sets."""
    a, b = Sketch(ours), Sketch(theirs)
    assert len(a.digest()) == SKETCH_BYTES
    assert set(differing_buckets(a.digest(), b.digest())) == {one[0] for one in ours ^ theirs}


@given(id_sets)
def test_buckets_hold_every_id_once_in_order(some: set[bytes]) -> None:
    """Goal: BucketIds say everything. Method: all buckets of a random set."""
    sketch = Sketch(some)
    listed = [one for bucket in range(BUCKET_COUNT) for one in sketch.ids_of(bucket)]
    assert listed == sorted(some)
    assert all(one in sketch for one in some)
