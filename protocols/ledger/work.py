"""Targets: the easiest, the next, and the work that a block adds. Integers only. Source: SPEC.md §Work."""

from __future__ import annotations

from collections.abc import Sequence

from ..codec import Record
from ..limits import RETARGET_BLOCKS, RETARGET_FACTOR, RETARGET_STEP_MAX
from ..types import AccountId
from .seals.port import TARGET_MAX


class SearchTime(Record, frozen=True):
    """What one block tells of its miner's speed. delay_ms: T_stamp − start of its slot."""

    miner: AccountId
    delay_ms: int


class WorkState(Record, frozen=True):
    """target: of the last block, 32 bytes. work: cumulative, 32 bytes. window: of the blocks since the last retarget."""

    target: bytes
    work: bytes
    window: tuple[SearchTime, ...]


def easiest_target(work_bits: int) -> int:
    """Largest target that needs ``work_bits`` leading zero bits: 2^(256 − bits) − 1."""
    return TARGET_MAX >> work_bits


def work_of(target: int) -> int:
    """Expected tries of a block: ⌊2^256 / (target + 1)⌋."""
    return (TARGET_MAX + 1) // (target + 1)


def slowest_search_ms(window: Sequence[SearchTime]) -> int | None:
    """Maximum, over miners with at least two blocks, of their lower median delay; None when there is no such miner."""
    delays: dict[AccountId, list[int]] = {}
    for one in window:
        delays.setdefault(one.miner, []).append(one.delay_ms)
    medians = [sorted(own)[(len(own) - 1) // 2] for own in delays.values() if len(own) >= 2]
    return max(medians, default=None)


def next_target(target: int, window: Sequence[SearchTime], *, height: int, slot_ms: int, work_bits_min: int) -> int:
    """Target of the block at ``height``.

    Changes at heights divisible by RETARGET_BLOCKS alone: clamp(target · 13 · s // slot_ms, target // 2, 2 · target), never easier than
    ``work_bits_min`` bits, never 0. It follows the slowest miner; without one whose speed is known it stays.
    """
    if height % RETARGET_BLOCKS:
        return target
    slowest = slowest_search_ms(window)
    if slowest is None:
        return target
    wanted = target * RETARGET_FACTOR * slowest // slot_ms
    clamped = min(max(wanted, target // RETARGET_STEP_MAX), RETARGET_STEP_MAX * target)
    return max(1, min(clamped, easiest_target(work_bits_min)))
