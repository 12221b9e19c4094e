"""A small domain to test with: everything from fixed seeds, every certificate made by the real code."""

from __future__ import annotations

from dataclasses import dataclass

from protocols.crypto import HpkePrivateKey, Label, SigningKey, hash_labelled
from protocols.identity.attested import Attested, KnownFence
from protocols.identity.certificates import fingerprint, make_issuer, make_member, make_node, make_root
from protocols.identity.fences import sign_fence
from protocols.identity.members import member_id
from protocols.identity.networks import network_id
from protocols.identity.peers import peer_id_of
from protocols.identity.revocation import RevocationKind, sign_revocation
from protocols.types import DomainId, MemberId, NetworkId, PeerId

NOW = 1_800_000_000
YEAR = 365 * 86400


def seed(*names: object) -> bytes:
    """32 bytes that belong to these names."""
    return hash_labelled(Label.SALT, b"tests", *(str(name).encode() for name in names))


@dataclass(frozen=True)
class Issuer:
    domain: Domain
    key: SigningKey
    hpke: HpkePrivateKey
    certificate: bytes

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (self.certificate,)

    @property
    def serial(self) -> bytes:
        return seed(self.key.public, "serial")[:16]


@dataclass(frozen=True)
class Member:
    issuer: Issuer
    name: str
    key: SigningKey
    hpke: HpkePrivateKey
    id: MemberId
    certificate: bytes
    serial: bytes

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (self.certificate, *self.issuer.chain)

    def node(self, host: str = "pi", *, weight: int = 1, holder_only: bool = False, issued: int = NOW - YEAR) -> Node:
        key = SigningKey(seed(self.name, host))
        serial = seed(key.public, issued, "serial")[:16]
        certificate = make_node(
            self.key,
            self.certificate,
            peer_id=peer_id_of(key.public),
            node_public=key.public,
            host_label=host,
            weight=weight,
            holder_only=holder_only,
            serial=serial,
            not_before=issued,
            not_after=NOW + YEAR,
        )
        return Node(self, key, certificate, serial)


@dataclass(frozen=True)
class Node:
    member: Member
    key: SigningKey
    certificate: bytes
    serial: bytes

    @property
    def peer_id(self) -> PeerId:
        return peer_id_of(self.key.public)

    @property
    def chain(self) -> tuple[bytes, ...]:
        return (self.certificate, *self.member.chain)


@dataclass(frozen=True)
class Domain:
    name: str
    key: SigningKey
    root: bytes

    @property
    def id(self) -> DomainId:
        return fingerprint(self.root)

    @property
    def roots(self) -> dict[DomainId, bytes]:
        return {self.id: self.root}

    @property
    def network(self) -> NetworkId:
        return NETWORK

    def issuer(self, number: int = 1, *, issued: int = NOW - 2 * YEAR) -> Issuer:
        key, hpke = SigningKey(seed(self.name, "issuer", number)), HpkePrivateKey(seed(self.name, "issuer hpke", number))
        certificate = make_issuer(
            self.key,
            self.root,
            issuer_public=key.public,
            hpke_public=hpke.public,
            serial=seed(key.public, "serial")[:16],
            not_before=issued,
            not_after=NOW + 2 * YEAR,
        )
        return Issuer(self, key, hpke, certificate)

    def member(self, name: str = "Alice", *, issuer: Issuer | None = None, issued: int = NOW - YEAR, ends: int = NOW + YEAR) -> Member:
        issuer = issuer or self.issuer()
        key, hpke = SigningKey(seed(name, "member")), HpkePrivateKey(seed(name, "hpke"))
        identity = member_id(name.encode(), seed(name, "salt"))
        serial = seed(key.public, issued, "serial")[:16]
        certificate = make_member(
            issuer.key,
            issuer.certificate,
            member_id=identity,
            signing_public=key.public,
            hpke_public=hpke.public,
            name=name,
            nodes_max=4,
            weight_total_max=100,
            serial=serial,
            not_before=issued,
            not_after=ends,
        )
        return Member(issuer, name, key, hpke, identity, certificate, serial)

    def revoke(
        self, kind: RevocationKind, subject: bytes, *, by: Issuer | Member | None = None, time: int = NOW, cutoff: int = 0
    ) -> Attested:
        """by: None means the root."""
        key, chain = (self.key, ()) if by is None else (by.key, by.chain)
        return sign_revocation(key, chain, NETWORK, domain_id=self.id, kind=kind, subject=subject, time=time, reason="left", cutoff=cutoff)

    def fence(self, number: int = 1, *, by: Issuer | Member | None = None, time: int = NOW, name: str = "") -> KnownFence:
        """by: None means the root."""
        key, chain = (self.key, ()) if by is None else (by.key, by.chain)
        return sign_fence(key, chain, NETWORK, domain_id=self.id, number=number, time=time, secret=seed("fence", number, name))


def found(name: str) -> Domain:
    key = SigningKey(seed(name, "root"))
    root = make_root(key, name, serial=seed(name, "serial")[:16], not_before=NOW - 3 * YEAR, not_after=NOW + 10 * YEAR)
    return Domain(name, key, root)


ACME = found("ACME")
CUSTOMS = found("CUSTOMS")
NETWORK = network_id(ACME.id, seed("network"))
