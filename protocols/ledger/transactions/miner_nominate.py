"""MinerNominate: a member of a cluster recommends one of the cluster's candidates, or takes it back."""

from __future__ import annotations

from ...codec import Record, replace
from ...errors import Reason
from ...limits import MINERS_MAX
from ...types import AccountId
from ..checks import check_lengths, check_that
from ..context import Context, Kind, need_sender
from ..envelope import Transaction
from ..profile import Cluster
from ..terms import CLUSTER, MINER, Miner, is_in_cluster


class Body(Record, frozen=True):
    """candidate: a miner that was certified once. for_it: True to recommend, False to take it back."""

    candidate: AccountId
    for_it: bool


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | NOT_ELIGIBLE | CONFLICT | …)."""
    voter = need_sender(context, transaction)
    check_lengths(32, candidate=body.candidate)
    miner = context.load(MINER, body.candidate, Miner, "miner")
    cluster = context.load(CLUSTER, miner.cluster.encode(), Cluster, "cluster")
    check_that(is_in_cluster(voter, cluster), f"sender is not in cluster {cluster.name!r}", Reason.NOT_ELIGIBLE)
    check_that((voter.id in miner.nominated) != body.for_it, "said already", Reason.CONFLICT)
    # The threshold is what counts; more names than miners there may be would only grow the state.
    check_that(not body.for_it or len(miner.nominated) < MINERS_MAX, "enough have recommended it", Reason.QUOTA)
    voters = set(miner.nominated) ^ {voter.id}
    context.state.save(MINER, body.candidate, replace(miner, nominated=tuple(sorted(voters))))
    context.emit("nominated", body.candidate, voter.id)


KIND = Kind(12, "MinerNominate", Body, execute)
