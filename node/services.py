"""The services table: stream protocol, whom it may be asked by, and its limits. A protocol that is not here is not served."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from protocols.registry import protocol_id


class Standing(enum.Enum):
    """What a connection has shown so far, the least first."""

    FENCED = 0  # knows a fence secret of the network; nothing more
    TICKET = 1  # knows the join secret of an open ticket; a proven peer asks the same, for a newcomer that came to it
    PROVEN = 2  # a certified node of a known domain of this network


@dataclass(frozen=True, slots=True)
class Service:
    """One row. streams_max: of this protocol, open at once on one connection, opened by the peer."""

    conversation: str
    standing: Standing
    streams_max: int

    @property
    def protocol(self) -> str:
        return protocol_id(self.conversation)


SERVICES: tuple[Service, ...] = (
    Service("auth", Standing.FENCED, 1),
    # Four newcomers that one relay passes on at a time.
    Service("join", Standing.TICKET, 4),
    Service("gossip", Standing.PROVEN, 1),
    # Two: one that the peer is using, and one that it opens after the first broke before we noticed.
    Service("exchange", Standing.PROVEN, 2),
)

BY_PROTOCOL = {service.protocol: service for service in SERVICES}
AUTH, JOIN, GOSSIP, EXCHANGE = (service.protocol for service in SERVICES)
