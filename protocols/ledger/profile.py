"""What a chain is: its limits and clocks (fixed in genesis), its council, its policy list. Source: SPEC.md §Profile, §Council, §Policy."""

from __future__ import annotations

from typing import Literal

from ..codec import Record
from ..limits import (
    BLOCK_BYTES_MAX,
    BLOCK_TRANSACTIONS_MAX,
    CLUSTERS_MAX,
    COUNCIL_MEMBERS_MAX,
    MINERS_MAX,
    POLICY_ROWS_MAX,
    TX_BYTES_MAX,
)
from ..types import AccountId, DomainId, NetworkId
from .checks import check_lengths, check_numbers, check_texts, check_that, is_rising
from .committee import Committee, Seat, faults_of
from .seals.table import SEALS

Access = Literal["public", "consortium", "private"]


class Profile(Record, frozen=True):
    """Fixed for the life of a chain (a rule set may replace it). Times in milliseconds, sizes in bytes.

    read, maintain: who may read, who may seal. faults: f of the committee; None: ⌊(n − 1) / 3⌋.
    tx_life_ms: longest until − ts. tx_ahead_ms: how far ts may be ahead of block time.
    """

    network: NetworkId
    domain: DomainId
    name: str
    read: Access
    maintain: Access
    seal: str
    slot_ms: int
    drift_ms_max: int
    late_ms: int
    term_blocks: int
    term_slots: int
    rescue_slots: int
    work_bits_min: int
    work_bits_first: int
    block_bytes_max: int
    block_transactions_max: int
    tx_bytes_max: int
    tx_life_ms: int
    tx_ahead_ms: int
    faults: int | None


def default_profile(network: NetworkId, domain: DomainId, name: str, *, seal: str = "pow") -> Profile:
    """A consortium chain with the plan's numbers."""
    return Profile(
        network=network,
        domain=domain,
        name=name,
        read="consortium",
        maintain="consortium",
        seal=seal,
        slot_ms=1000,
        drift_ms_max=250,
        late_ms=1000,
        term_blocks=100,
        term_slots=3600,
        rescue_slots=1200,
        work_bits_min=12 if SEALS[seal].has_work and seal == "pow" else 0,
        work_bits_first=12 if SEALS[seal].has_work and seal == "pow" else 0,
        block_bytes_max=BLOCK_BYTES_MAX,
        block_transactions_max=BLOCK_TRANSACTIONS_MAX,
        tx_bytes_max=TX_BYTES_MAX,
        tx_life_ms=7 * 86_400_000,
        tx_ahead_ms=120_000,
        faults=None,
    )


def check_profile(profile: Profile) -> None:
    """Raises InvalidTransaction(BAD_BODY) for a profile that no chain can have."""
    check_lengths(32, network=profile.network, domain=profile.domain)
    check_texts(name=profile.name, seal=profile.seal)
    check_that(profile.seal in SEALS, f"seal {profile.seal!r}")
    numbers = (profile.slot_ms, profile.drift_ms_max, profile.late_ms, profile.term_blocks, profile.term_slots, profile.rescue_slots)
    check_that(all(0 < number <= 1 << 40 for number in numbers), "a clock of the profile outside 1..2^40")
    check_that(profile.drift_ms_max < profile.slot_ms, "drift of a whole slot")
    check_that(0 <= profile.work_bits_min <= profile.work_bits_first <= 64, "work bits outside 0..64, or the first below the least")
    check_that(0 < profile.tx_bytes_max <= TX_BYTES_MAX, f"tx_bytes_max {profile.tx_bytes_max}")
    check_that(profile.tx_bytes_max < profile.block_bytes_max <= BLOCK_BYTES_MAX, f"block_bytes_max {profile.block_bytes_max}")
    check_that(0 < profile.block_transactions_max <= BLOCK_TRANSACTIONS_MAX, "block_transactions_max")
    check_that(0 < profile.tx_life_ms <= 1 << 40 and 0 <= profile.tx_ahead_ms <= 1 << 40, "life or lead of transactions")
    check_that(profile.faults is None or 0 <= profile.faults <= COUNCIL_MEMBERS_MAX, "faults")


class CouncilMember(Record, frozen=True):
    """key: signs acts. vote_key: votes, held by one node. Both Ed25519, 32 bytes."""

    id: AccountId
    key: bytes
    vote_key: bytes


class Council(Record, frozen=True):
    """Acts need ``threshold`` of its members' keys; recovery needs ``recovery_threshold`` of the offline recovery keys.

    sequence: 0 in genesis, one more with every CouncilUpdate or CouncilRecover. members: by rising id. recovery: by rising key.
    """

    sequence: int
    members: tuple[CouncilMember, ...]
    threshold: int
    recovery: tuple[bytes, ...]
    recovery_threshold: int

    @property
    def keys(self) -> frozenset[bytes]:
        """Keys that sign its acts."""
        return frozenset(member.key for member in self.members)

    def member(self, account: bytes) -> CouncilMember | None:
        """The member of that id, or None."""
        return next((member for member in self.members if member.id == account), None)


def check_council(council: Council) -> None:
    """Raises InvalidTransaction(BAD_BODY)."""
    count = len(council.members)
    check_that(1 <= count <= COUNCIL_MEMBERS_MAX, f"{count} council members")
    check_that(is_rising(tuple(member.id for member in council.members)), "council members are not by rising id")
    for member in council.members:
        check_lengths(32, member=member.id, key=member.key, vote_key=member.vote_key)
    keys = [key for member in council.members for key in (member.key, member.vote_key)]
    check_that(len(set(keys)) == len(keys), "a key of the council stands twice")
    check_that(1 <= council.threshold <= count, f"threshold {council.threshold} of {count}")
    check_that(len(council.recovery) <= COUNCIL_MEMBERS_MAX and is_rising(council.recovery), "recovery keys")
    for key in council.recovery:
        check_lengths(32, recovery_key=key)
    check_that((1 if council.recovery else 0) <= council.recovery_threshold <= len(council.recovery), "recovery threshold")
    check_numbers(sequence=council.sequence)


def committee_from(
    council: Council, profile: Profile, *, generation: int, from_height: int, recovered_from: int | None = None
) -> Committee:
    """The committee that the council's voting keys make."""
    count = len(council.members)
    faults = faults_of(count) if profile.faults is None else min(profile.faults, faults_of(count))
    seats = tuple(Seat(member.id, member.vote_key) for member in council.members)
    return Committee(generation, from_height, seats, faults, recovered_from)


class Cluster(Record, frozen=True):
    """A group of accounts by attributes, with its miner seats. predicate: (attribute, value), all must hold; none: everybody."""

    name: str
    predicate: tuple[tuple[str, str], ...]
    seats: int


def check_clusters(clusters: tuple[Cluster, ...]) -> None:
    """Raises InvalidTransaction(BAD_BODY): names twice, too many seats, or with three clusters and more a majority in one."""
    check_that(len(clusters) <= CLUSTERS_MAX, f"{len(clusters)} clusters")
    check_that(is_rising(tuple(cluster.name for cluster in clusters)), "clusters are not by rising name")
    total = sum(cluster.seats for cluster in clusters)
    check_that(1 <= total <= MINERS_MAX, f"{total} seats, 1 to {MINERS_MAX} wanted")
    for cluster in clusters:
        check_texts(name=cluster.name, **{f"predicate {index}": value for index, pair in enumerate(cluster.predicate) for value in pair})
        check_that(cluster.seats >= 0 and bool(cluster.name), "a cluster without a name, or with less than no seats")
        check_that(len(cluster.predicate) <= POLICY_ROWS_MAX, "predicate too long")
    if sum(1 for cluster in clusters if cluster.seats) >= 3:
        check_that(all(2 * cluster.seats <= total for cluster in clusters), "one cluster has a majority of the seats")


class CountryRule(Record, frozen=True):
    """What may be recorded from a country: schema "" stands for all. Of the rows that fit, a refusal wins."""

    country: str
    schema: str
    allowed: bool


class Policy(Record, frozen=True):
    """The policy list. version: 1 in genesis, one more with every update.

    admitted: countries whose accounts may act, empty: all. denied: countries whose may not. issuers_threshold: managers that sign a
    certificate. nominations_min: votes that recommend a candidate. credit_min: of a miner. archives_min: archives a chain must have.
    acknowledge_percent: of a cluster's participants. levels_max: highest confidentiality level. approve_ms: time for approvals.
    """

    version: int
    admitted: tuple[str, ...]
    denied: tuple[str, ...]
    country_rules: tuple[CountryRule, ...]
    miners_max: int
    issuers_threshold: int
    nominations_min: int
    credit_min: int
    archives_min: int
    acknowledge_percent: int
    levels_max: int
    approve_ms: int


DEFAULT_POLICY = Policy(
    version=1,
    admitted=(),
    denied=(),
    country_rules=(),
    miners_max=MINERS_MAX,
    issuers_threshold=1,
    nominations_min=1,
    credit_min=0,
    archives_min=2,
    acknowledge_percent=100,
    levels_max=7,
    approve_ms=7 * 86_400_000,
)


def check_policy(policy: Policy) -> None:
    """Raises InvalidTransaction(BAD_BODY)."""
    check_that(is_rising(policy.admitted) and is_rising(policy.denied), "countries are not in rising order")
    check_that(not set(policy.admitted) & set(policy.denied), "a country is admitted and denied")
    check_that(len(policy.admitted) + len(policy.denied) + len(policy.country_rules) <= POLICY_ROWS_MAX, "too many rows")
    check_texts(**{f"country {index}": name for index, name in enumerate(policy.admitted + policy.denied)})
    for rule in policy.country_rules:
        check_texts(country=rule.country, schema=rule.schema)
    check_that(1 <= policy.miners_max <= MINERS_MAX, f"miners_max {policy.miners_max}")
    check_that(policy.issuers_threshold >= 1 and policy.nominations_min >= 1, "a threshold of nobody")
    check_that(0 <= policy.acknowledge_percent <= 100, "acknowledge_percent")
    check_that(0 < policy.approve_ms <= 1 << 40, "approve_ms")
    check_numbers(version=policy.version, credit_min=policy.credit_min, archives_min=policy.archives_min, levels_max=policy.levels_max)


def is_admitted(policy: Policy, country: str) -> bool:
    """True when accounts of the country may act."""
    return country not in policy.denied and (not policy.admitted or country in policy.admitted)


def is_recordable(policy: Policy, country: str, schema: str) -> bool:
    """True when the country's rules let a record of the schema in: of the rows that fit, a refusal wins; none: allowed."""
    rows = [rule for rule in policy.country_rules if rule.country in ("", country) and rule.schema in ("", schema)]
    return all(rule.allowed for rule in rows)
