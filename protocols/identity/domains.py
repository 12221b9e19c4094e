"""The domains of a network beside the one that founded it: which there are is the founding domain's word, and only adds up.

A domain answers for its own members with its own root; the founding domain says that this root belongs to the network. What a domain's
nodes may do at another's is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, SigningKey
from ..errors import InvalidObject, Reason
from ..limits import CERTIFICATE_BYTES_MAX, DOMAINS_MAX
from ..signed import sign_object
from ..types import DomainId, NetworkId, UnixSeconds
from .attested import Attested
from .authority import Authority, Role, open_attested
from .certificates import fingerprint, read_root
from .revocation import RevocationSet


class Domain(Record, frozen=True):
    """A further domain of the network. domain_id: of the founding domain, which says so. root: DER root certificate of the other."""

    format: int
    suite: int
    domain_id: bytes
    time: int
    root: bytes


@dataclass(frozen=True, slots=True)
class CheckedDomain:
    """A domain whose admission is signed by root or issuer of the founding domain. Made by ``check_domain`` only."""

    attested: Attested
    value: Domain
    authority: Authority
    id: DomainId
    name: str

    @property
    def hash(self) -> bytes:
        return self.attested.object_hash

    @property
    def rank(self) -> tuple[int, bytes]:
        """(time, hash): of two words about one domain by one signer the least is kept."""
        return self.value.time, self.hash


def sign_domain(
    key: SigningKey, chain: tuple[bytes, ...], network: NetworkId, *, founder: DomainId, time: UnixSeconds, root: bytes
) -> Attested:
    """A new word. chain: as in Attested; the signer is root or issuer of the founding domain."""
    value = Domain(format=FORMAT, suite=SUITE, domain_id=founder, time=time, root=root)
    return Attested(envelope=sign_object(value, key, Label.DOMAIN, network), chain=chain)


def check_domain(attested: Attested, network: NetworkId, *, founder: bytes) -> CheckedDomain:
    """founder: DER root of the founding domain. Raises InvalidObject(BAD_SIGNATURE | BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_… |
    UNKNOWN_FORMAT | MALFORMED | REFUSED when a member signed it), DecodeError."""
    value, authority = open_attested(attested, Domain, Label.DOMAIN, network, {fingerprint(founder): founder})
    if authority.role is Role.MEMBER:
        raise InvalidObject(Reason.REFUSED, "a domain taken in by a member")
    if len(value.root) > CERTIFICATE_BYTES_MAX or value.root == founder:
        raise InvalidObject(Reason.MALFORMED, f"a root of {len(value.root)} bytes that is no other domain's")
    facts = read_root(value.root)
    return CheckedDomain(attested, value, authority, fingerprint(value.root), facts.name)


class DomainSet:
    """An immutable set of domains. Of each domain the first word of each signer, of each signer DOMAINS_MAX - 1 words; merging is
    commutative, associative, idempotent. Signers are bounded by the founding domain's root, which certifies them."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[CheckedDomain] = ()) -> None:
        by_signer: dict[bytes, dict[bytes, CheckedDomain]] = {}
        for entry in entries:
            own = by_signer.setdefault(entry.authority.public, {})
            before = own.get(entry.id)
            if before is None or entry.rank < before.rank:
                own[entry.id] = entry
        self._entries: dict[bytes, CheckedDomain] = {}
        for own in by_signer.values():
            first = sorted(own.values(), key=lambda entry: entry.rank)[: DOMAINS_MAX - 1]
            self._entries.update((entry.hash, entry) for entry in first)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DomainSet) and self._entries.keys() == other._entries.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self._entries))

    def __contains__(self, object_hash: bytes) -> bool:
        return object_hash in self._entries

    @property
    def entries(self) -> tuple[CheckedDomain, ...]:
        """All that is kept, the earliest first."""
        return tuple(sorted(self._entries.values(), key=lambda entry: entry.rank))

    def with_checked(self, entries: Iterable[CheckedDomain]) -> DomainSet:
        """This set and those entries, bounded."""
        return DomainSet([*self._entries.values(), *entries])

    def merge(self, other: DomainSet) -> DomainSet:
        """Both sets' entries, bounded."""
        return self.with_checked(other._entries.values())

    def effective(self, revocations: RevocationSet) -> tuple[CheckedDomain, ...]:
        """The network's other domains: one word each, the earliest first, without those that a revoked issuer took in beyond its
        cut-off; at most DOMAINS_MAX - 1."""
        found: dict[DomainId, CheckedDomain] = {}
        for entry in self.entries:
            if revocations.is_effective(entry.authority, entry.value.time):
                found.setdefault(entry.id, entry)
        return tuple(found.values())[: DOMAINS_MAX - 1]

    def roots(self, revocations: RevocationSet) -> Mapping[DomainId, bytes]:
        """Root certificates of ``effective``, DER."""
        return {entry.id: entry.value.root for entry in self.effective(revocations)}
