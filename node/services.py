"""Who may do what: the services table and the facts table. What is not in them is not served, told or taken.

The one place where it is decided what a peer of another domain of our network may. Both tables name the standings that may; everybody
else asks the functions below.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.gossip.facts import FactKind
from protocols.ledger.profile import Access
from protocols.limits import CHAINS_PER_NODE_MAX, LEDGER_STREAMS_PER_CHAIN_MAX
from protocols.registry import protocol_id
from protocols.types import DomainId


class Standing(enum.Enum):
    """What a connection has shown so far."""

    FENCED = "fenced"  # knows a fence secret of the network; nothing more
    TICKET = "ticket"  # knows the join secret of an open ticket
    NETWORK = "network"  # a certified node of another domain of this network
    DOMAIN = "domain"  # a certified node of our own domain


@dataclass(frozen=True, slots=True)
class Service:
    """One row. may: who may open it. streams_max: of this protocol, open at once on one connection, opened by the peer."""

    conversation: str
    may: frozenset[Standing]
    streams_max: int

    @property
    def protocol(self) -> str:
        return protocol_id(self.conversation)


_PROVEN = frozenset({Standing.NETWORK, Standing.DOMAIN})
_DOMAIN = frozenset({Standing.DOMAIN})

SERVICES: tuple[Service, ...] = (
    Service("auth", frozenset({Standing.FENCED}), 1),
    # A peer of our domain asks for a newcomer that came to it, or to have a certificate renewed: four that one relay passes on at a time.
    Service("join", frozenset({Standing.TICKET, Standing.DOMAIN}), 4),
    Service("gossip", _PROVEN, 1),
    # Two: one that the peer is using, and one that it opens after the first broke before we noticed.
    Service("exchange", _DOMAIN, 2),
    # Who may read a chain says its profile (``READERS``); two for each, for the same reason (``actors/following.py``).
    Service("ledger", _PROVEN, CHAINS_PER_NODE_MAX * LEDGER_STREAMS_PER_CHAIN_MAX),
)

READERS: Mapping[Access, frozenset[Standing]] = {
    "public": _PROVEN,
    "consortium": _DOMAIN,
    # Of these only members who maintain the chain: seats of the council and certified miners.
    "private": _DOMAIN,
}

FACTS: Mapping[FactKind, frozenset[Standing]] = {
    # Of the network: which domains it has, how it is fenced, who is out, where everybody is.
    FactKind.DOMAIN: _PROVEN,
    FactKind.ANNOUNCEMENT: _PROVEN,
    FactKind.REVOCATION: _PROVEN,
    FactKind.FENCE: _PROVEN,
    # Of one domain, which alone keeps them: they neither leave it nor come in.
    FactKind.TICKET_STATE: _DOMAIN,
    FactKind.STATEMENT: _DOMAIN,
    FactKind.TOMBSTONE: _DOMAIN,
    FactKind.WRAP: _DOMAIN,
    FactKind.PIN: _DOMAIN,
    FactKind.RECEIPT: _DOMAIN,
    FactKind.WITHDRAWAL: _DOMAIN,
    FactKind.ERASURE: _DOMAIN,
    FactKind.REAFFIRM: _DOMAIN,
}

# Who tells us of signs of life of other nodes, and is told of them: a lie about them delays repair.
LIFE_SIGNS = _DOMAIN

# Whose members' word about the time counts: another domain may call as many members as it likes into being.
TIMES = _DOMAIN

BY_PROTOCOL = {service.protocol: service for service in SERVICES}
AUTH, JOIN, GOSSIP, EXCHANGE, LEDGER = (service.protocol for service in SERVICES)


def standing_of(domain: bytes, own: DomainId) -> Standing:
    """Standing at our node of a proven peer, or of the author of a fact, of a domain of the network."""
    return Standing.DOMAIN if domain == own else Standing.NETWORK


def may_open(protocol: str, standing: Standing) -> bool:
    """Whether a peer may open a stream of this protocol."""
    service = BY_PROTOCOL.get(protocol)
    return service is not None and standing in service.may


def may_read(read: Access | None, standing: Standing, *, maintains: bool) -> bool:
    """Whether a peer is told of a chain and given its blocks. read: of the chain's profile; None while nothing of the chain is here, when
    there is nothing to give and everything to ask for. maintains: the peer's member has a seat on the council or is a certified miner.
    """
    if read is None:
        return standing in _PROVEN
    return standing in READERS[read] and (read != "private" or maintains)


def may_share(kind: int, standing: Standing) -> bool:
    """Whether facts of this kind are told to and taken from such a peer, and kept when such an author said them. A kind that this
    version does not know may come from a peer, is refused one by one and never told."""
    return kind not in _KINDS or standing in FACTS[FactKind(kind)]


_KINDS = frozenset(int(kind) for kind in FactKind)
