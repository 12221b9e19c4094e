"""Which receipts count, and what they are counted for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.files.holdings import Receipt, Withdrawal
from protocols.files.precedence import Order
from protocols.files.receipts import Generation, counting, is_settled, newest_generations, quorum
from protocols.files.survive import smallest_kill_set, survives, what_if
from protocols.types import PeerId
from tests.protocols.files.records import NOW, RECORD, peer, receipt, root, withdrawal

ALL = frozenset({peer("a"), peer("b"), peer("c")})


def holders(
    receipts: Iterable[Receipt],
    withdrawals: Iterable[Withdrawal] = (),
    *,
    now: int = NOW,
    certified: frozenset[PeerId] = ALL,
    gone: frozenset[PeerId] = frozenset(),
    tombstones: tuple[Order, ...] = (),
    known: dict[PeerId, Generation] | None = None,
) -> set[PeerId]:
    receipts, withdrawals = list(receipts), list(withdrawals)
    newest = newest_generations([*receipts, *withdrawals], known or {})
    counted = counting(
        receipts, withdrawals, record=RECORD, now=now, newest_generation=newest, certified=certified, gone=gone, tombstones=tombstones
    )
    return set(counted.get(root("s"), frozenset()))


def test_receipt_counts_while_every_condition_holds() -> None:
    """Goal: the whole rule. Method: one receipt that counts, then each condition broken alone."""
    good = receipt("a", ["s", "t"])
    assert holders([good]) == {peer("a")}
    assert holders([good], now=NOW + 86400) == {peer("a")}
    assert holders([good], now=NOW + 86401) == set()
    assert holders([good], now=NOW - 301) == set()
    assert holders([good], certified=frozenset()) == set()
    assert holders([good], gone=frozenset({peer("a")})) == set()
    assert holders([good], known={peer("a"): (2, b"\x33" * 16)}) == set()
    assert holders([good], tombstones=((1, b"\xff" * 32),)) == set()
    assert holders([good], tombstones=((1, bytes(32)),)) == {peer("a")}
    assert holders([receipt("a", ["t"])]) == set()


def test_greatest_counter_wins_among_receipts_and_withdrawals() -> None:
    """Goal: one persisted counter orders a holder's words. Method: before, after, and at the same number."""
    word = receipt("a", ["s"], counter=5)
    assert holders([word], [withdrawal("a", ["s"], counter=4)]) == {peer("a")}
    assert holders([word], [withdrawal("a", ["s"], counter=5)]) == set()
    assert holders([word], [withdrawal("a", ["s"], counter=6)]) == set()
    assert holders([word, receipt("a", ["s"], counter=7)], [withdrawal("a", ["s"], counter=6)]) == {peer("a")}
    assert holders([word], [withdrawal("a", ["t"], counter=6)]) == {peer("a")}
    assert holders([word], [withdrawal("b", ["s"], counter=6)]) == {peer("a")}
    assert holders([word, receipt("a", ["s"], counter=6, days=0)], now=NOW + 1) == set()


def test_withdrawal_of_an_older_store_says_nothing_of_the_newer() -> None:
    """Goal: a store made anew starts a new generation, counter included. Method: old withdrawal with a great counter."""
    anew = receipt("a", ["s"], counter=1, generation=2)
    assert holders([anew, receipt("a", ["s"], counter=99)], [withdrawal("a", ["s"], counter=100)]) == {peer("a")}


def test_receipt_naming_a_later_object_counts_under_the_tombstone() -> None:
    """Goal: a revived record's receipts count. Method: an item that names seq 3 under a tombstone of seq 2."""
    assert holders([receipt("a", ["s"], names=(3, bytes(32)))], tombstones=((2, bytes(32)),)) == {peer("a")}


@given(st.permutations([receipt(name, ["s"], counter=counter) for name in "ab" for counter in (1, 3)]), st.randoms(use_true_random=False))
def test_order_of_words_does_not_matter(words: list[Receipt], chance: object) -> None:
    """Goal: gossip may deliver as it likes. Method: any order, some twice."""
    gone = [withdrawal("a", ["s"], counter=2), withdrawal("b", ["s"], counter=4)]
    assert holders([*words, words[0]], gone) == {peer("a")}


@pytest.mark.parametrize(
    ("copies", "others", "wanted"), [(1, 5, 0), (2, 5, 1), (3, 5, 2), (5, 4, 2), (3, 1, 1), (3, 0, 0), (0, 0, 0), (1024, 1000, 2)]
)
def test_quorum_is_at_most_two_others(copies: int, others: int, wanted: int) -> None:
    """Goal: RECORDS' formula. Method: a table."""
    assert quorum(copies_wanted=copies, other_holder_nodes=others) == wanted


def test_record_is_settled_when_every_sequence_is() -> None:
    """Goal: one missing sequence is a missing record; our own receipt does not count. Method: two sequences."""
    counted = {root("s"): {peer("a"), peer("b")}, root("t"): {peer("a"), peer("b")}}
    roots = [root("s"), root("t")]
    assert is_settled(roots, counted, needed=2, us=peer("c"))
    assert is_settled(roots, counted, needed=2, us=None)
    assert not is_settled(roots, counted, needed=2, us=peer("a"))
    assert not is_settled([*roots, root("u")], counted, needed=1, us=None)
    assert is_settled(roots, {}, needed=0, us=None)


def test_survives_counts_the_weakest_sequence() -> None:
    """Goal: "any k nodes". Method: three sequences, losses tried."""
    a, b, c = peer("a"), peer("b"), peer("c")
    held = {root("s"): {a, b, c}, root("t"): {a, b}, root("u"): {b, c, a}}
    assert survives(held) == 1
    assert set(smallest_kill_set(held)) == {a, b}
    assert what_if(held, [a]).survives == 0
    assert what_if(held, [a, b]).lost == (root("t"),)
    assert survives({root("s"): {a}}) == 0
    assert survives({root("s"): {a}, root("t"): set()}) == survives({}) == -1
    assert smallest_kill_set({}) == ()


@given(st.dictionaries(st.integers(0, 3), st.frozensets(st.integers(0, 4), max_size=5), min_size=1))
def test_survives_is_what_trying_all_losses_gives(shape: dict[int, frozenset[int]]) -> None:
    """Goal: the number is right. Method: every set of lost nodes, by brute force."""
    held = {root(str(number)): {peer(str(node)) for node in nodes} for number, nodes in shape.items()}
    nodes = [peer(str(number)) for number in range(5)]
    losses = [{node for bit, node in enumerate(nodes) if mask >> bit & 1} for mask in range(32)]
    fatal = [len(lost) for lost in losses if what_if(held, lost).lost]
    assert survives(held) == min(fatal, default=6) - 1
    assert len(smallest_kill_set(held)) == min(fatal)
    assert what_if(held, smallest_kill_set(held)).lost
