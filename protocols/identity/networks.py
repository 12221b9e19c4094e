"""Networks: what nodes must share to talk at all."""

from __future__ import annotations

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, hash_labelled, hkdf
from ..types import DomainId, NetworkId

FENCE_SECRET_BYTES = 32


class Network(Record, frozen=True):
    """One network as a node keeps it. id: 32 bytes. name: what its founder called it, for people."""

    format: int
    suite: int
    id: bytes
    name: str


def network_id(founding_domain: DomainId, salt: bytes) -> NetworkId:
    """Id of the network that a domain founds. founding_domain: fingerprint of its root, 32 bytes; salt: 32 fresh random bytes.

    The salt makes two networks of one domain different. Nothing secret can be learnt from the id.
    """
    assert len(founding_domain) == 32
    assert len(salt) == 32
    return NetworkId(hash_labelled(Label.NETWORK_ID, founding_domain, salt))


def found_network(founding_domain: DomainId, salt: bytes, *, name: str) -> Network:
    """A new network."""
    return Network(format=FORMAT, suite=SUITE, id=network_id(founding_domain, salt), name=name)


def security_id(network: NetworkId) -> str:
    """The security protocol that connections of this network negotiate."""
    return f"/lading/noise/1/{network.hex()}"


def join_preshared_key(join_secret: bytes, network: NetworkId) -> bytes:
    """Noise pre-shared key of a connection that a ticket opens. join_secret: 32 bytes from the ticket. 32 bytes."""
    return hkdf(join_secret, Label.JOIN_PSK, network)


def fence_preshared_key(fence_secret: bytes, network: NetworkId) -> bytes:
    """Noise pre-shared key of a connection under a fence. 32 bytes; the secret itself never meets the wire's cipher."""
    return hkdf(fence_secret, Label.FENCE_PSK, network)
