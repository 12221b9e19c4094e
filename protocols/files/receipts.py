"""Which receipts count. Receipts are the fact, placement is the wish (SPEC.md §Receipts)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..limits import CLOCK_SKEW_MAX_S
from ..types import PeerId, RecordKey, SequenceRoot
from .holdings import Receipt, ReceiptItem, Withdrawal
from .precedence import Order

Generation = tuple[int, bytes]
"""(generation, store id): one holder's stores are compared by it; a store made anew has a greater one."""


def newest_generations(objects: Iterable[Receipt | Withdrawal], known: Mapping[PeerId, Generation] = {}) -> dict[PeerId, Generation]:
    """The newest generation of each holder's store that was ever presented: in ``known`` or in these objects."""
    newest = dict(known)
    for value in objects:
        generation = (value.generation, bytes(value.store_id))
        if generation > newest.get(value.holder, (-1, b"")):
            newest[value.holder] = generation
    return newest


def _items_of(record: RecordKey, receipt: Receipt) -> Iterable[ReceiptItem]:
    return (item for item in receipt.items if (item.owner, item.hash_id) == record)


def in_force(
    record: RecordKey,
    receipts: Iterable[Receipt],
    withdrawals: Iterable[Withdrawal],
    *,
    newest_generation: Mapping[PeerId, Generation],
) -> dict[tuple[PeerId, SequenceRoot], tuple[Receipt, ReceiptItem] | None]:
    """The last word of each holder on each sequence of a record: its receipt, or None when it withdrew.

    Only the newest generation of a holder's store has a say; among its words the greatest counter wins, and a withdrawal over a
    receipt with the same counter.
    """
    words: dict[tuple[PeerId, SequenceRoot], tuple[tuple[int, bool, int], tuple[Receipt, ReceiptItem] | None]] = {}

    def hear(
        value: Receipt | Withdrawal, root: SequenceRoot, rank: tuple[int, bool, int], word: tuple[Receipt, ReceiptItem] | None
    ) -> None:
        if newest_generation.get(value.holder, (value.generation, value.store_id)) == (value.generation, value.store_id):
            key = (value.holder, root)
            if key not in words or rank > words[key][0]:
                words[key] = (rank, word)

    for receipt in receipts:
        for item in _items_of(record, receipt):
            for root in item.sequence_roots:
                # Two receipts with one counter are a broken holder's; the shorter one wins, so that order does not matter.
                hear(receipt, root, (receipt.counter, False, -receipt.until_s), (receipt, item))
    for withdrawal in withdrawals:
        for withdrawn in withdrawal.items:
            if (withdrawn.owner, withdrawn.hash_id) == record:
                for root in withdrawn.sequence_roots:
                    hear(withdrawal, root, (withdrawal.counter, True, 0), None)
    return {key: word for key, (_, word) in words.items()}


def counting(
    receipts: Iterable[Receipt],
    withdrawals: Iterable[Withdrawal],
    *,
    record: RecordKey,
    now: int,
    newest_generation: Mapping[PeerId, Generation],
    certified: Collection[PeerId],
    gone: Collection[PeerId],
    tombstones: Iterable[Order] = (),
) -> Mapping[SequenceRoot, frozenset[PeerId]]:
    """Holders of each sequence of one record whose receipts count now.

    A receipt counts while it is not past its end, is not withdrawn, comes from the newest generation of its store that was ever
    presented, and while its node is certified and not gone; never under a tombstone ordered above the object that it names.
    now: Unix seconds. newest_generation: by ``newest_generations``; a holder that is not in it has one generation only.
    tombstones: orders of the known tombstones of this record.
    """
    highest = max(tombstones, default=(0, b""))
    found: dict[SequenceRoot, set[PeerId]] = {}
    for (holder, root), word in in_force(record, receipts, withdrawals, newest_generation=newest_generation).items():
        if word is None or holder not in certified or holder in gone:
            continue
        receipt, item = word
        if not receipt.from_s - CLOCK_SKEW_MAX_S <= now <= receipt.until_s:
            continue
        if (item.seq, item.object_hash) < highest:
            continue
        found.setdefault(root, set()).add(holder)
    return {root: frozenset(holders) for root, holders in found.items()}


def quorum(*, copies_wanted: int, other_holder_nodes: int) -> int:
    """Receipts of *other* nodes that every sequence needs for `--ack quorum`.

    copies_wanted: as placed. other_holder_nodes: other certified holder nodes of the domain, reachable or not.
    """
    return max(0, min(2, copies_wanted - 1, other_holder_nodes))


def is_settled(
    roots: Iterable[SequenceRoot], counted: Mapping[SequenceRoot, Collection[PeerId]], *, needed: int, us: PeerId | None
) -> bool:
    """Whether every sequence has receipts of that many nodes other than ``us`` (None: all nodes are others)."""
    return all(len(set(counted.get(root, ())) - {us}) >= needed for root in roots)
