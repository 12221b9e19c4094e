"""Placement: shares, stability, spread; and the duty to copy."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import sha256
from protocols.files.placement import (
    Candidate,
    copies_of_sequence,
    copies_wanted,
    duty_order,
    minus_log2,
    rendezvous_order,
    wanted_holders,
)
from protocols.files.precedence import Next
from protocols.types import MemberId, OwnerKey
from tests.protocols.files.records import OWNER, peer, root, statement

ME: OwnerKey = OWNER.public


def node(name: str, *, member: str = "", host: str = "", weight: int = 1, refuses: bool = False) -> Candidate:
    return Candidate(peer(name), MemberId(sha256((member or name).encode())), host or name, weight, refuses)


@given(st.integers(0, 2**64 - 1))
def test_logarithm_is_right_and_falls(draw: int) -> None:
    """Goal: integers alone give the logarithm. Method: against floating point, and monotone."""
    assert abs(minus_log2(draw) / 2**32 - (64 - math.log2(draw + 1))) < 1e-6
    assert minus_log2(draw) <= minus_log2(max(0, draw - 1))


def test_each_node_gets_its_share() -> None:
    """Goal: first places are proportional to weights. Method: 3,000 sequences over weights 1, 2 and 5, within five deviations."""
    nodes = [node("a"), node("b", weight=2), node("c", weight=5)]
    count = 3000
    first = Counter(rendezvous_order(ME, root(str(number)), nodes)[0].weight for number in range(count))
    for weight in (1, 2, 5):
        share = weight / 8
        assert abs(first[weight] - count * share) < 5 * math.sqrt(count * share * (1 - share))


def test_equal_weights_need_no_logarithm() -> None:
    """Goal: the short cut changes nothing. Method: a node of another weight beside the same nodes; their order stays."""
    nodes = [node(str(number), weight=3) for number in range(8)]
    for number in range(50):
        alone = rendezvous_order(ME, root(str(number)), nodes)
        mixed = rendezvous_order(ME, root(str(number)), [*nodes, node("z", weight=2)])
        assert [item for item in mixed if item.weight == 3] == list(alone)


def test_a_node_that_leaves_moves_only_its_own_sequences() -> None:
    """Goal: little is copied when membership changes. Method: 300 sequences, ten nodes, one leaves."""
    nodes = [node(str(number), weight=1 + number % 3) for number in range(10)]
    for number in range(300):
        before = wanted_holders(ME, root(str(number)), nodes, copies=3)
        after = wanted_holders(ME, root(str(number)), nodes[1:], copies=3)
        if nodes[0].peer not in before:
            assert before == after
        else:
            assert set(before) - {nodes[0].peer} <= set(after)


def test_order_of_candidates_does_not_matter() -> None:
    """Goal: every node computes the same. Method: both directions."""
    nodes = [node(str(number), member=str(number % 3), host=str(number % 4), weight=number) for number in range(9)]
    for number in range(20):
        assert wanted_holders(ME, root(str(number)), nodes, copies=5) == wanted_holders(ME, root(str(number)), nodes[::-1], copies=5)


def test_members_come_before_hosts_before_the_rest() -> None:
    """Goal: one member's or one machine's loss costs as little as may be. Method: a heavy member with two hosts beside a light one."""
    nodes = [
        node("a1", member="a", host="x", weight=1000),
        node("a2", member="a", host="x", weight=1000),
        node("a3", member="a", host="y", weight=1000),
        node("b1", member="b", host="z", weight=1),
    ]
    hosts = {item.peer: item.host for item in nodes}
    for number in range(30):
        wanted = wanted_holders(ME, root(str(number)), nodes, copies=3)
        assert {hosts[item] for item in wanted[:2]} in ({"x", "z"}, {"y", "z"})
        assert {hosts[item] for item in wanted} == {"x", "y", "z"}
        assert len(set(wanted_holders(ME, root(str(number)), nodes, copies=9))) == 4


def test_pins_and_refusals_are_respected() -> None:
    """Goal: operators decide, full nodes are skipped. Method: each."""
    nodes = [node(str(number)) for number in range(6)]
    full = [node("0", refuses=True), *nodes[1:]]
    for number in range(30):
        assert peer("0") not in wanted_holders(ME, root(str(number)), full, copies=5)
        assert peer("1") not in wanted_holders(ME, root(str(number)), nodes, copies=6, pins_out=[peer("1")])
        pinned = wanted_holders(ME, root(str(number)), nodes, copies=2, pins_in=[peer("3"), peer("4"), peer("5")])
        assert set(pinned) == {peer("3"), peer("4"), peer("5")}
        assert peer("0") not in wanted_holders(ME, root(str(number)), [node("0", weight=0), *nodes[1:]], copies=6)
        assert peer("0") in wanted_holders(ME, root(str(number)), [node("0", weight=0), *nodes[1:]], copies=2, pins_in=[peer("0")])
    assert wanted_holders(ME, root("s"), [], copies=3) == ()


@pytest.mark.parametrize(
    ("stated", "nodes", "everywhere", "wanted"), [(0, 5, True, 5), (0, 6, True, 3), (0, 5, False, 3), (0, 2, False, 2), (4, 5, True, 4)]
)
def test_copies_are_those_of_statement_or_profile(stated: int, nodes: int, everywhere: bool, wanted: int) -> None:
    """Goal: RECORDS' rule. Method: a table; the manifest gets two more."""
    value = statement(Next(1, b"", ()))
    value = type(value)(**({name: getattr(value, name) for name in value.__struct_fields__} | {"copies_wanted": stated}))
    assert copies_wanted(value, nodes, everywhere) == wanted
    assert (copies_of_sequence(0, wanted), copies_of_sequence(1, wanted)) == (wanted + 2, wanted)


def test_duty_goes_round() -> None:
    """Goal: no node copies everything. Method: the first in duty over 200 sequences is each of four nodes at times."""
    nodes = [peer(str(number)) for number in range(4)]
    first = Counter(duty_order(ME, root(str(number)), nodes)[0] for number in range(200))
    assert set(first) == set(nodes)
    assert duty_order(ME, root("s"), nodes) == duty_order(ME, root("s"), nodes[::-1] * 2)
