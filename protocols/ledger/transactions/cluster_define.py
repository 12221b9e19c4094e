"""ClusterDefine: a cluster's predicate and number of seats, from the next draw on. By m of the council."""

from __future__ import annotations

from ...codec import Record
from ..checks import check_that
from ..context import Context, Kind, need_council
from ..envelope import Transaction
from ..profile import Cluster, check_clusters
from ..state import Overlay
from ..terms import CLUSTER


class Body(Record, frozen=True):
    """cluster: new, or another form of the one of that name; with 0 seats it has no say in who mines."""

    cluster: Cluster


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(BAD_BODY | NOT_SIGNED | …)."""
    need_council(context, transaction)
    others = tuple(cluster for cluster in all_clusters(context.state) if cluster.name != body.cluster.name)
    after = tuple(sorted((*others, body.cluster), key=lambda cluster: cluster.name))
    check_clusters(after)
    check_that(any(not cluster.predicate for cluster in after), "without a predicate-free cluster somebody would fall in none")
    context.state.save(CLUSTER, body.cluster.name.encode(), body.cluster)
    context.emit("cluster", body.cluster.name.encode())


def all_clusters(state: Overlay) -> tuple[Cluster, ...]:
    """Every cluster, by rising name."""
    found = (state.load(CLUSTER, key, Cluster) for key, _ in list(state.iterate(CLUSTER)))
    return tuple(cluster for cluster in found if cluster is not None)


KIND = Kind(11, "ClusterDefine", Body, execute)
