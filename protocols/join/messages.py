"""What is said on `/lading/join/1`, the two values that travel sealed inside (Application, Admission), and the signed Renewal."""

from __future__ import annotations

from ..codec import Record
from ..identity.attested import Attested, KnownFence
from ..signed import Signed


class JoinHello(Record, frozen=True):
    """The newcomer speaks first. ticket_id: 16 bytes. versions: lowest and highest that it speaks."""

    format: int
    suite: int
    version_min: int
    version_max: int
    ticket_id: bytes


class JoinIssuers(Record, frozen=True):
    """Who can answer. root: DER of the domain's root. chains: of each reachable issuer, its own certificate first, root left out."""

    version: int
    root: bytes
    chains: tuple[tuple[bytes, ...], ...]


class JoinRequest(Record, frozen=True):
    """An Application sealed to ``issuer_key`` (an HPKE key from one of the chains). Also what a relay passes on, as it is."""

    ticket_id: bytes
    issuer_key: bytes
    sealed: bytes


class JoinAnswer(Record, frozen=True):
    """A signed Admission sealed to the newcomer's key."""

    ticket_id: bytes
    sealed: bytes


class JoinRefusal(Record, frozen=True):
    """No, and why: a stable reason name and a text for people."""

    reason: str
    text: str


class RenewRequest(Record, frozen=True):
    """On a stream of a proven connection: the same certificate with a later end, please. renewal: a signed Renewal. relay: whoever is
    not the desk for it may ask the nodes that it is connected to, once."""

    renewal: Signed
    relay: bool


class RenewAnswer(Record, frozen=True):
    """The new certificate and those above it, root left out."""

    chain: tuple[bytes, ...]


class Renewal(Record, frozen=True):
    """What is signed by the key that the first certificate is for. chain: of a member (2 certificates) or of a node (3)."""

    format: int
    suite: int
    domain_id: bytes
    chain: tuple[bytes, ...]


class Application(Record, frozen=True):
    """What the newcomer asks for, inside a Signed envelope by ``public`` (so it holds that key), inside JoinRequest.sealed.

    token: the ticket's one-time token. public: for a member its signing key, for a node the node key. hpke_public: what the
    answer is sealed to; for a member also the key its certificate binds. label: member name or host label. member_id: 32 bytes
    for a member, else empty. For a domain ``public`` is its root's key, ``label`` its name and ``root`` its root certificate, DER;
    else ``root`` is empty.
    """

    format: int
    suite: int
    ticket_id: bytes
    token: bytes
    role: str
    public: bytes
    hpke_public: bytes
    member_id: bytes
    label: str
    root: bytes


class ChainAnchor(Record, frozen=True):
    """A chain and a block of it that is final: what a newcomer holds everybody else's chain against. chain, hash: 32 bytes."""

    chain: bytes
    height: int
    hash: bytes


class Admission(Record, frozen=True):
    """What the newcomer gets, inside a Signed envelope by the issuing key, inside JoinAnswer.sealed.

    request: SHA-256 of the sealed request it answers. founder: DER root of the domain that founded the network. domains: its word
    that others belong to the network, the newcomer's own first. chain: the new certificate first, root left out; for a domain its
    root alone. member_keys: encoded
    key file of the member for its further full node, else empty. address_book: announcements of the network's nodes. anchor: of the
    domain's chain, None where it has none, and for a new domain, which founds its own.
    """

    format: int
    suite: int
    request: bytes
    network_id: bytes
    domain_root: bytes
    founder: bytes
    domains: tuple[Attested, ...]
    chain: tuple[bytes, ...]
    fences: tuple[KnownFence, ...]
    revocations: tuple[Attested, ...]
    address_book: tuple[Signed, ...]
    member_keys: bytes
    anchor: ChainAnchor | None


MESSAGES: tuple[tuple[int, type], ...] = (
    (1, JoinHello),
    (2, JoinIssuers),
    (3, JoinRequest),
    (4, JoinAnswer),
    (5, JoinRefusal),
    (6, RenewRequest),
    (7, RenewAnswer),
)
