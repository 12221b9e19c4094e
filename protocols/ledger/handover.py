"""What a candidate does for a seat: when it hands over, and the answers that show that it holds the whole ledger.

``transactions/term_handover.py`` judges what is built here. Source: SPEC.md §Hand-over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..limits import HANDOVER_KEYS, HANDOVER_LEAVES
from ..types import AccountId, BlockHash
from .block import Block, light_header, prove_leaf
from .checks import u64
from .envelope import signatures_hash
from .history import path
from .profile import Profile
from .state import Overlay, StateView, prove_value
from .terms import HANDOVER, ORDER, SEED, Order, load_term, load_tip
from .transactions.term_handover import HISTORY, Body, LeafAnswer, challenged_key, challenged_leaf


def wanted_term(state: Overlay, profile: Profile, miner: AccountId, slot: int) -> int | None:
    """The term for which this candidate hands over in a block of ``slot``, None when it has no reason to.

    Who was drawn for a seat hands over at once. Those behind it wait for half of the term, and then only while fewer than *seats* of those
    before them are ready: a term costs as many hand-overs as it has seats, and dead candidates cost no seat.
    """
    tip = load_tip(state)
    number = tip.term + 1
    order = state.load(ORDER, u64(number), Order)
    term = load_term(state, tip.term)
    is_over = tip.blocks >= profile.term_blocks or slot - term.first_slot >= profile.term_slots
    if order is None or is_over or state.get(HANDOVER, u64(number) + miner) is not None:
        return None
    for seats, line in order.clusters:
        if miner in line:
            place = line.index(miner)
            ready = sum(state.get(HANDOVER, u64(number) + one) is not None for one in line[:place])
            is_half_over = 2 * tip.blocks >= profile.term_blocks or 2 * (slot - term.first_slot) >= profile.term_slots
            return number if place < seats or (ready < seats and is_half_over) else None
    return None


def answer_challenges(
    view: StateView, head: Block, miner: AccountId, *, term: int, hashes: Sequence[BlockHash], block_at: Callable[[int], Block]
) -> Body:
    """The hand-over of a drawn candidate, shown on the head.

    view: the state after ``head``. hashes: of all its ancestors by height, so as many as its height, at least 1. block_at: any of them.
    """
    seed = view.get(SEED, u64(term))
    peaks = view.get(HISTORY, b"")
    assert seed is not None
    assert peaks is not None
    height = head.info.height
    assert len(hashes) == height
    leaves: list[LeafAnswer] = []
    for index in range(HANDOVER_LEAVES):
        at, choice = challenged_leaf(seed, miner, index, height)
        leaves.append(_leaf_answer(block_at(at), choice, path(height, at, hashes.__getitem__)))
    return Body(
        term=term,
        height=height,
        header=head.header,
        info=head.info,
        info_path=light_header(head).path,
        peaks=peaks,
        peaks_proof=prove_value(view, HISTORY, b""),
        leaves=tuple(leaves),
        keys=tuple(view.prove(challenged_key(seed, miner, index)) for index in range(HANDOVER_KEYS)),
    )


def _leaf_answer(block: Block, choice: int, history: tuple[bytes, ...]) -> LeafAnswer:
    index = choice % (block.info.transaction_count + 1)
    one = block.transactions[index - 1] if index else None
    return LeafAnswer(
        header=block.header,
        info=block.info,
        info_path=light_header(block).path,
        transaction=one.id if one else b"",
        signatures=signatures_hash(one) if one else b"",
        path=prove_leaf(block, index).path if index else (),
        history=history,
    )
