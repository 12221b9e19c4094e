"""MinerCertify: the council certifies a candidate for a cluster's seats, with its sealing key and reveals, or withdraws that."""

from __future__ import annotations

from typing import Literal

from ...codec import Record, replace
from ...errors import Reason
from ...limits import MINERS_MAX
from ...types import AccountId
from ..checks import check_lengths, check_numbers, check_texts, check_that
from ..context import Context, Kind, need_council
from ..envelope import Transaction
from ..profile import Cluster
from ..terms import CLUSTER, MINER, SEALER, Miner, is_in_cluster


class Body(Record, frozen=True):
    """key: seals. tip, tip_count: SHA-256 applied tip_count times to the miner's secret. For "withdraw" all three are empty or 0."""

    act: Literal["certify", "withdraw"]
    candidate: AccountId
    cluster: str
    key: bytes
    tip: bytes
    tip_count: int


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_ELIGIBLE | NOT_FOUND | CONFLICT | NOT_SIGNED | …)."""
    need_council(context, transaction)
    if body.act == "certify":
        check_that(sum(1 for _ in context.state.iterate(MINER)) < MINERS_MAX, "too many miners", Reason.QUOTA)
        certify(context, body)
        return
    check_that(not body.key and not body.tip and body.tip_count == 0, "a withdrawal names no key and no tip")
    miner = context.load(MINER, body.candidate, Miner, "miner")
    check_that(miner.is_certified, "not certified", Reason.CONFLICT)
    context.state.save(MINER, body.candidate, replace(miner, is_certified=False))
    context.emit("miner", body.candidate)


def certify(context: Context, body: Body) -> None:
    """Writes the candidate; genesis certifies its first miners by it too."""
    check_lengths(32, candidate=body.candidate, key=body.key, tip=body.tip)
    check_numbers(tip_count=body.tip_count)
    check_texts(cluster=body.cluster)
    account = context.account(body.candidate)
    cluster = context.load(CLUSTER, body.cluster.encode(), Cluster, "cluster")
    check_that(cluster.seats > 0, f"cluster {cluster.name!r} has no seats", Reason.NOT_ELIGIBLE)
    check_that(is_in_cluster(account, cluster), f"candidate is not in cluster {cluster.name!r}", Reason.NOT_ELIGIBLE)
    # Credit is counted once its rule set is active; until then everybody has none.
    check_that(context.policy.credit_min == 0, "the policy list asks for credit", Reason.NOT_ELIGIBLE)
    before = context.state.load(MINER, body.candidate, Miner)
    check_that(before is None or not before.is_certified, "certified already", Reason.CONFLICT)
    check_that(body.key != account.key, "a sealing key of its own, so that a stolen miner opens nothing", Reason.CONFLICT)
    check_that(context.state.get(SEALER, body.key) in (None, body.candidate), "sealing key of another miner", Reason.CONFLICT)
    context.state.put(SEALER, body.key, body.candidate)
    sealed, missed = (0, 0) if before is None else (before.sealed, before.missed)
    nominated = () if before is None or before.cluster != body.cluster else before.nominated
    context.state.save(
        MINER,
        body.candidate,
        Miner(body.candidate, body.cluster, body.key, body.tip, body.tip_count, True, nominated, sealed, missed),
    )
    context.emit("miner", body.candidate)


KIND = Kind(13, "MinerCertify", Body, execute)
