"""ChainGenesis: profile, council, clusters, policy, first certificates and miners. The only transaction of the first block."""

from __future__ import annotations

from ...codec import Record
from ...errors import InvalidTransaction, Reason
from ...limits import MINERS_MAX
from ...types import UnixMillis
from ..carried import seat_committee
from ..checks import check_lengths, check_that, is_rising
from ..context import Context, Group, Kind, need_signatures, save_genesis
from ..envelope import NO_SERIAL, ZERO_CHAIN, Transaction
from ..history import NO_PEAKS
from ..profile import (
    Cluster,
    Council,
    Policy,
    Profile,
    check_clusters,
    check_council,
    check_policy,
    check_profile,
    committee_from,
)
from ..terms import CLUSTER, start_terms
from ..work import WorkState, easiest_target
from . import cert_issue, miner_certify
from .rule_activation import activate
from .term_handover import HISTORY

WORK = "work"


class Body(Record, frozen=True):
    """time_ms: start of slot 0, the T_stamp of the block. salt: 32 random bytes, so that equal chains have different ids.

    version: the first rule set. miners: the list of terms 0 and 1.
    """

    profile: Profile
    council: Council
    policy: Policy
    clusters: tuple[Cluster, ...]
    certificates: tuple[cert_issue.Body, ...]
    miners: tuple[miner_certify.Body, ...]
    time_ms: UnixMillis
    version: int
    salt: bytes


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """By m of the council that it names, in the first block alone. Raises InvalidTransaction."""
    if context.height != 0:
        raise InvalidTransaction(Reason.CONFLICT, "a genesis stands in the first block alone")
    content = transaction.content
    check_that(content.chain == ZERO_CHAIN and content.serial == NO_SERIAL and not content.links, "envelope of a genesis")
    check_that(content.ts_ms == body.time_ms, "ts of a genesis is its time", Reason.BAD_TIME)
    check_profile(body.profile)
    check_council(body.council)
    check_policy(body.policy)
    check_clusters(body.clusters)
    check_lengths(32, salt=body.salt)
    check_that(body.council.sequence == 0 and body.policy.version == 1, "first versions of council and policy")
    check_that(any(not cluster.predicate for cluster in body.clusters), "without a predicate-free cluster somebody would fall in none")
    check_that(1 <= len(body.miners) <= MINERS_MAX and is_rising([miner.candidate for miner in body.miners]), "miners by rising id")
    check_that(body.council.member(content.sender) is not None, "sender has no seat on the council", Reason.NOT_MEMBER)
    need_signatures(transaction, Group(body.council.keys, body.council.threshold))
    _write(context, body)


def _write(context: Context, body: Body) -> None:
    state = context.state
    save_genesis(state, body.profile, body.time_ms)
    context.seat_council(body.council)
    context.enact_policy(body.policy)
    activate(state, body.version, 0)
    for cluster in body.clusters:
        state.save(CLUSTER, cluster.name.encode(), cluster)
    for certificate in body.certificates:
        cert_issue.issue(context, certificate)
    for miner in body.miners:
        check_that(miner.act == "certify", "genesis certifies its miners")
        miner_certify.certify(context, miner)
    start_terms(state, context.chain, [miner.candidate for miner in body.miners])
    seat_committee(state, committee_from(body.council, body.profile, generation=0, from_height=0))
    target = easiest_target(body.profile.work_bits_first)
    state.save(WORK, b"", WorkState(target.to_bytes(32, "big"), bytes(32), ()))
    state.save(HISTORY, b"", NO_PEAKS)
    context.emit("genesis", context.chain)


KIND = Kind(1, "ChainGenesis", Body, execute)
