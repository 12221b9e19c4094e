"""What fires by itself, in every node alike: at a block time, at a height. Source: SPEC.md §Conditions.

Thresholds fire where they are reached (transactions/approve.py). The queues are spaces of the state: ``due`` time | action | name, ``at``
height | action | name. When ids of transactions are forgotten stands on sheets: ``forget`` minute | height | part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..limits import CONDITIONS_PER_BLOCK_MAX
from .checks import u64
from .context import AT, DUE, FORGET, SEEN, Action, Context
from .state import Overlay
from .transactions import penalty, policy_list_update, records

FORGET_MS = 60_000
"""Ids are forgotten by whole minutes."""
SHEET_IDS_MAX = 64
ID_BYTES = 32
TABLE: Mapping[Action, Callable[[Context, bytes], None]] = {
    Action.LAPSE: records.lapse,
    Action.EXPIRE: records.expire,
    Action.END_PENALTY: penalty.end,
    Action.ENACT_POLICY: policy_list_update.enact,
}


def fire(context: Context) -> None:
    """Everything that is due at this block's height and time, in order of the queues; at most CONDITIONS_PER_BLOCK_MAX of each."""
    for space, now in ((AT, context.height), (DUE, int(context.time_ms))):
        for key in _due(context.state, space, now):
            context.state.delete(space, key)
            TABLE[Action(key[8])](context, key[9:])
    _forget(context.state, int(context.time_ms))


def note_ends(context: Context) -> None:
    """When the ids of a block are to be forgotten: those that end in one minute stand on one sheet, in the block's order.

    A key for each of them would be a third of what an anchor changes in the tree.
    """
    ends: dict[int, list[bytes]] = {}
    for transaction in context.said:
        until = transaction.content.until_ms
        ends.setdefault(until - until % FORGET_MS, []).append(transaction.id)
    for begin_ms, ids in ends.items():
        for part in range(0, len(ids), SHEET_IDS_MAX):
            key = u64(begin_ms) + u64(context.height) + (part // SHEET_IDS_MAX).to_bytes(2, "big")
            context.state.put(FORGET, key, b"".join(ids[part : part + SHEET_IDS_MAX]))


def _forget(state: Overlay, time_ms: int) -> None:
    """Ids whose minute is over, sheet after sheet, until CONDITIONS_PER_BLOCK_MAX of them are gone; the others go with the next blocks."""
    count, over = 0, []
    for key, ids in state.iterate(FORGET):
        if int.from_bytes(key[:8], "big") + FORGET_MS > time_ms or count >= CONDITIONS_PER_BLOCK_MAX:
            break
        over.append((key, ids))
        count += len(ids) // ID_BYTES
    for key, ids in over:
        state.delete(FORGET, key)
        for at in range(0, len(ids), ID_BYTES):
            state.delete(SEEN, ids[at : at + ID_BYTES])


def _due(state: Overlay, space: str, now: int) -> list[bytes]:
    found: list[bytes] = []
    for key, _ in state.iterate(space):
        if key[:8] > u64(max(0, now)) or len(found) == CONDITIONS_PER_BLOCK_MAX:
            break
        found.append(key)
    return found


def next_due_ms(state: Overlay) -> int | None:
    """When the next timed condition is due, block time; None: none waits. A reason to seal."""
    for key, _ in state.iterate(DUE):
        return int.from_bytes(key[:8], "big")
    return None
