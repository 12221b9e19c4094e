"""Who seals: seeds of terms, the order of a draw, the one leader of a slot. Source: SPEC.md §Terms and leaders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..crypto import Label, hash_labelled, sha256
from ..types import AccountId, ChainId, Digest
from .checks import u64


def genesis_seed(chain: ChainId, term: int) -> Digest:
    """Seed of term 0 or 1. 32 bytes."""
    return hash_labelled(Label.TERM_SEED, chain, u64(term))


def next_seed(seed: bytes, reveals: Iterable[bytes]) -> Digest:
    """Seed of term t + 2 from that of t and the reveals of t in order; 32 zero bytes add nothing."""
    return hash_labelled(Label.TERM_SEED, seed, *(reveal for reveal in reveals if any(reveal)))


def miner_list_hash(miners: Sequence[AccountId]) -> Digest:
    """Commitment to a term's list, in rising order."""
    return hash_labelled(Label.MINER_LIST, *miners)


def leader(miners: Sequence[AccountId], seed: bytes, *, slot: int, parent_slot: int, parent_miner: AccountId) -> AccountId:
    """The one member of the list that may seal in this slot: lowest H(label, seed, slot, id).

    The sealer of the parent is left out for the m − 1 slots after the parent's, so any single live miner can go on alone.
    """
    assert miners, "a list is never empty"
    assert slot > parent_slot
    if slot - parent_slot <= len(miners) - 1:
        miners = [miner for miner in miners if miner != parent_miner] or list(miners)
    return min(miners, key=lambda miner: hash_labelled(Label.LEADER, seed, u64(slot), miner))


def draw_order(candidates: Iterable[tuple[AccountId, bool]], seed: bytes, sitting: Iterable[AccountId]) -> tuple[AccountId, ...]:
    """Order in which candidates may take seats: those not sitting first; in each group recommended first, then lowest H(label, seed, id).

    candidates: (id, recommended).
    """
    seated = frozenset(sitting)
    return tuple(
        miner for miner, _ in sorted(candidates, key=lambda one: (one[0] in seated, not one[1], hash_labelled(Label.DRAW, seed, one[0])))
    )


def reveal_tip(secret: bytes, count: int) -> Digest:
    """Tip of a chain of ``count`` reveals: SHA-256 applied ``count`` times to a 32-byte secret."""
    tip = Digest(secret)
    for _ in range(count):
        tip = sha256(tip)
    return tip
