"""Who may do what: the two tables, row by row."""

from __future__ import annotations

import pytest

from node.services import (
    AUTH,
    EXCHANGE,
    FACTS,
    GOSSIP,
    JOIN,
    LEDGER,
    LIFE_SIGNS,
    SERVICES,
    TIMES,
    Standing,
    may_open,
    may_read,
    may_share,
    standing_of,
)
from protocols.gossip.facts import FactKind
from tests.protocols.identity.people import ACME, CUSTOMS

S = Standing
# Written out once more, so that whoever changes the table changes this too.
OPEN = {AUTH: {S.FENCED}, JOIN: {S.TICKET, S.DOMAIN}, GOSSIP: {S.NETWORK, S.DOMAIN}, EXCHANGE: {S.DOMAIN}, LEDGER: {S.NETWORK, S.DOMAIN}}
CROSS = {FactKind.DOMAIN, FactKind.ANNOUNCEMENT, FactKind.REVOCATION, FactKind.FENCE}


@pytest.mark.parametrize("standing", Standing)
def test_every_standing_opens_what_its_row_says(standing: Standing) -> None:
    """Goal: another domain's peer gets auth, gossip and chains that are public, no exchange and no joining. Method: every protocol, and one
    that is in no row."""
    assert {service.protocol for service in SERVICES} == set(OPEN)
    for protocol, may in OPEN.items():
        assert may_open(protocol, standing) is (standing in may)
    assert not may_open("/lading/else/1", standing)


@pytest.mark.parametrize("maintains", [False, True])
@pytest.mark.parametrize("standing", Standing)
def test_chain_is_read_by_whom_its_class_names(standing: Standing, maintains: bool) -> None:
    """Goal: who is no proven node of the network reads nothing; maintaining opens a private chain to our domain alone. Method: every class,
    every standing; and a chain of which nothing is here, about which every proven peer may be asked."""
    proven, own = standing in (S.NETWORK, S.DOMAIN), standing is S.DOMAIN
    found = {read: may_read(read, standing, maintains=maintains) for read in ("public", "consortium", "private", None)}
    assert found == {"public": proven, "consortium": own, "private": own and maintains, None: proven}


def test_only_facts_of_the_network_cross_between_domains() -> None:
    """Goal: a new kind of fact stays at home unless somebody says otherwise here. Method: every kind, every standing."""
    assert set(FACTS) == set(FactKind)
    for kind in FactKind:
        assert may_share(kind, S.DOMAIN)
        assert may_share(kind, S.NETWORK) is (kind in CROSS)
        assert not may_share(kind, S.FENCED)
        assert not may_share(kind, S.TICKET)
    assert frozenset({S.DOMAIN}) == LIFE_SIGNS == TIMES


def test_standing_follows_from_the_domain() -> None:
    """Goal: equal ids and nothing else. Method: own and other."""
    assert standing_of(ACME.id, ACME.id) is S.DOMAIN
    assert standing_of(CUSTOMS.id, ACME.id) is S.NETWORK
