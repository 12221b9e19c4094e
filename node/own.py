"""What this node is: its keys and certificates, opened. Never leaves the process; never printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.files.keys import OwnerSecrets
from protocols.identity.attested import KnownFence
from protocols.identity.certificates import NodeIdentity
from protocols.identity.networks import Network
from protocols.types import DomainId, MemberId, NetworkId, OwnerKey, PeerId


@dataclass(frozen=True, slots=True, repr=False)
class MemberKeys:
    """Present on a full node of a member; a holder-only node has none. chain: member, issuer."""

    signing: SigningKey
    hpke: HpkePrivateKey
    secrets: OwnerSecrets
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, repr=False)
class IssuerKeys:
    """Present on nodes that let others in. chain: the issuer's certificate."""

    signing: SigningKey
    hpke: HpkePrivateKey
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, repr=False)
class OwnKeys:
    """All of it. node_chain: node, member, issuer. roots: DER root certificates, first that of the domain that founded the network,
    then ours if it is another; the network's other domains are facts."""

    network: Network
    domain_id: DomainId
    roots: Mapping[DomainId, bytes]
    node: SigningKey
    node_chain: tuple[bytes, ...]
    identity: NodeIdentity
    member: MemberKeys | None
    issuer: IssuerKeys | None
    fences: tuple[KnownFence, ...]

    @property
    def network_id(self) -> NetworkId:
        return NetworkId(self.network.id)

    @property
    def founder(self) -> DomainId:
        """The domain that founded the network."""
        return next(iter(self.roots))

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id

    @property
    def member_id(self) -> MemberId:
        return self.identity.member_id

    @property
    def owner(self) -> OwnerKey:
        return self.identity.owner

    def with_node_chain(self, chain: tuple[bytes, ...], identity: NodeIdentity) -> OwnKeys:
        """The same keys under a newer certificate of the node, and of the member if it has changed above it."""
        member = replace(self.member, chain=chain[1:]) if self.member is not None else None
        return replace(self, node_chain=chain, identity=identity, member=member)

    def __repr__(self) -> str:
        return f"OwnKeys({self.identity.member}/{self.identity.host})"
