"""PolicyListUpdate: another version of the policy list, in force from a height on. By m of the council."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ..checks import check_that, u64
from ..context import Action, Context, Kind, fire_at_height, need_council
from ..envelope import Transaction
from ..profile import Policy, check_policy

PLANNED = "policy"


class Body(Record, frozen=True):
    """effective_height: the first block under it, above the one that carries this. policy.version: the last planned version + 1."""

    effective_height: int
    policy: Policy


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(SEQUENCE | BAD_BODY | NOT_SIGNED | …)."""
    need_council(context, transaction)
    check_policy(body.policy)
    planned = [int.from_bytes(key, "big") for key, _ in context.state.iterate(PLANNED)]
    last = max([context.policy.version, *planned])
    check_that(body.policy.version == last + 1, f"version {body.policy.version}, {last + 1} wanted", Reason.SEQUENCE)
    check_that(context.height < body.effective_height < 1 << 63, "a policy is in force from a later block on")
    before = [context.state.load(PLANNED, u64(version), Body) for version in planned]
    check_that(all(one is not None and one.effective_height <= body.effective_height for one in before), "versions in their order")
    context.state.save(PLANNED, u64(body.policy.version), body)
    fire_at_height(context, body.effective_height, Action.ENACT_POLICY, u64(body.policy.version))
    context.emit("policy-planned", u64(body.policy.version))


def enact(context: Context, name: bytes) -> None:
    """The planned version comes into force."""
    planned = context.state.load(PLANNED, name, Body)
    assert planned is not None
    context.enact_policy(planned.policy)
    context.state.delete(PLANNED, name)
    context.emit("policy", name)


KIND = Kind(5, "PolicyListUpdate", Body, execute)
