"""When a leader seals and when a member votes: local policy, never validity. Source: SPEC.md §Quiet chain, §Voting.

All times are network time in milliseconds and arguments; what was heard is a set of names.
"""

from __future__ import annotations

import enum
from collections.abc import Set
from dataclasses import dataclass

from ..limits import HEARTBEAT_MS, LONELY_MS
from ..types import AccountId
from .committee import Committee


class SealReason(enum.Enum):
    """Why a leader seals."""

    POOL = "transactions wait"
    CONDITION = "a timed condition is due"
    NOT_FINAL = "the last block with transactions is not final yet"
    HANDOVER = "a hand-over is due"
    HEARTBEAT = "the heartbeat has passed"


@dataclass(frozen=True, slots=True)
class Situation:
    """What the leader of a slot knows at its start.

    now_ms: start of the slot. tip_ms: block time of the tip. due_ms: next timed condition, None without. unfinal: the last block that
    carries transactions is not final. quiet_blocks: blocks since then, or since the last newly justified one, or since q members were
    heard again, whichever is newest. handover_due: this term's list needs one that we can give.
    heard: members and miners heard authenticated within HEARD_WITHIN_MS, ourselves included. sealed_ms: when we sealed last.
    """

    now_ms: int
    slot_ms: int
    tip_ms: int
    pool_count: int
    due_ms: int | None
    unfinal: bool
    quiet_blocks: int
    handover_due: bool
    heard: Set[AccountId]
    sealed_ms: int | None


def seal_reason(situation: Situation, *, heartbeat_ms: int = HEARTBEAT_MS) -> SealReason | None:
    """Why a leader would seal in this slot, None to stay quiet. Whether it may, being lonely, is asked of ``is_held_back``."""
    if situation.pool_count:
        return SealReason.POOL
    if situation.due_ms is not None and situation.due_ms <= situation.now_ms:
        return SealReason.CONDITION
    if situation.handover_due:
        return SealReason.HANDOVER
    waited = situation.now_ms - situation.tip_ms
    if situation.unfinal and waited >= finality_wait_ms(situation.quiet_blocks, slot_ms=situation.slot_ms, heartbeat_ms=heartbeat_ms):
        return SealReason.NOT_FINAL
    return SealReason.HEARTBEAT if waited >= heartbeat_ms else None


def finality_wait_ms(quiet_blocks: int, *, slot_ms: int, heartbeat_ms: int = HEARTBEAT_MS) -> int:
    """How long after the tip another block is worth sealing for finality alone: 1, 2, 4, 8 … slots, at most the heartbeat."""
    return min(slot_ms << min(quiet_blocks, 40), heartbeat_ms)


def is_lonely(heard: Set[AccountId], miners: Set[AccountId], committee: Committee) -> bool:
    """Heard less than a majority of the list and fewer than q members."""
    return 2 * len(heard & miners) <= len(miners) and not has_quorum(heard, committee)


def has_quorum(heard: Set[AccountId], committee: Committee) -> bool:
    """Heard q members, ourselves included: only then a member votes."""
    return len(heard & committee.members) >= committee.quorum


def is_held_back(situation: Situation, miners: Set[AccountId], committee: Committee, *, lonely_ms: int = LONELY_MS) -> bool:
    """A lonely leader seals at most once per ``lonely_ms``, never not at all."""
    if situation.sealed_ms is None or not is_lonely(situation.heard, miners, committee):
        return False
    return situation.now_ms - situation.sealed_ms < lonely_ms


def is_timely(*, received_ms: int, slot_start_ms: int, late_ms: int, slot_ms: int) -> bool:
    """A target is voted for when it came within ``late_ms`` after the end of its slot; its ancestors may be late."""
    return received_ms <= slot_start_ms + slot_ms + late_ms
