"""What fires by itself, in every node alike: at a block time, at a height. Source: SPEC.md §Conditions.

Thresholds fire where they are reached (transactions/approve.py). The queues are spaces of the state: ``due`` time | action | name, ``at``
height | action | name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..limits import CONDITIONS_PER_BLOCK_MAX
from .checks import u64
from .context import AT, DUE, FORGET, SEEN, Action, Context
from .state import Overlay
from .transactions import penalty, policy_list_update, records

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
    for key in _due(context.state, FORGET, int(context.time_ms) - 1):
        context.state.delete(FORGET, key)
        context.state.delete(SEEN, key[8:])


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
