"""Who is out: single signed entries in a set that only grows, so that two issuers can never undo each other.

Re-admission is a new certificate. Only the root revokes an issuer, with a cut-off for what that issuer signed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, SigningKey, sha256
from ..errors import InvalidObject, Reason
from ..limits import REVOCATION_REASON_BYTES_MAX, REVOCATIONS_MAX, REVOCATIONS_PER_MEMBER_MAX
from ..signed import sign_object
from ..types import Digest, DomainId, MemberId, NetworkId, UnixSeconds
from .attested import Attested
from .authority import Authority, Role, open_attested
from .certificates import SERIAL_BYTES, CertifiedPath


class RevocationKind(enum.IntEnum):
    """What an entry's subject names."""

    MEMBER = 1
    """A member id, 32 bytes: every certificate of that member issued at or before the entry's time."""
    CERTIFICATE = 2
    """The serial number of one member or node certificate, 16 bytes."""
    ISSUER = 3
    """The serial number of an issuer's certificate, 16 bytes: the issuer, and all it signed after the cut-off."""


class Revocation(Record, frozen=True):
    """One entry. time: when it was signed. cutoff: for an issuer, at most ``time``; else 0. reason: for people."""

    format: int
    suite: int
    domain_id: bytes
    kind: int
    subject: bytes
    cutoff: int
    time: int
    reason: str


_SUBJECT_BYTES = {RevocationKind.MEMBER: 32, RevocationKind.CERTIFICATE: SERIAL_BYTES, RevocationKind.ISSUER: SERIAL_BYTES}
_MAY_REVOKE: Mapping[RevocationKind, frozenset[Role]] = {
    RevocationKind.MEMBER: frozenset({Role.ROOT, Role.ISSUER}),
    # A member may put out its own nodes; the set looks at whose certificate it is.
    RevocationKind.CERTIFICATE: frozenset({Role.ROOT, Role.ISSUER, Role.MEMBER}),
    RevocationKind.ISSUER: frozenset({Role.ROOT}),
}


@dataclass(frozen=True, slots=True)
class CheckedRevocation:
    """An entry whose signature, chain and right to say so are checked. Made by ``check_revocation`` only."""

    attested: Attested
    value: Revocation
    authority: Authority

    @property
    def hash(self) -> Digest:
        return self.attested.object_hash


def sign_revocation(
    key: SigningKey,
    chain: tuple[bytes, ...],
    network: NetworkId,
    *,
    domain_id: DomainId,
    kind: RevocationKind,
    subject: bytes,
    time: int,
    reason: str,
    cutoff: int = 0,
) -> Attested:
    """A new entry. chain: certificates of ``key`` from its own up, root left out; () when ``key`` is the root's."""
    value = Revocation(format=FORMAT, suite=SUITE, domain_id=domain_id, kind=kind, subject=subject, cutoff=cutoff, time=time, reason=reason)
    return Attested(envelope=sign_object(value, key, Label.REVOCATION, network), chain=chain)


def check_revocation(attested: Attested, network: NetworkId, roots: Mapping[DomainId, bytes]) -> CheckedRevocation:
    """Raises InvalidObject(BAD_SIGNATURE | BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_… | UNKNOWN_FORMAT | MALFORMED |
    REFUSED when the signer may not say this), DecodeError."""
    value, authority = open_attested(attested, Revocation, Label.REVOCATION, network, roots)
    if value.kind not in _MAY_REVOKE:
        raise InvalidObject(Reason.MALFORMED, f"revocation of kind {value.kind}")
    kind = RevocationKind(value.kind)
    cutoff_max = value.time if kind is RevocationKind.ISSUER else 0
    if len(value.subject) != _SUBJECT_BYTES[kind] or not 0 <= value.cutoff <= cutoff_max:
        raise InvalidObject(Reason.MALFORMED, f"revocation of {kind.name} {value.subject.hex()} with cut-off {value.cutoff}")
    if len(value.reason.encode("utf-8", "replace")) > REVOCATION_REASON_BYTES_MAX:
        raise InvalidObject(Reason.MALFORMED, f"a reason of more than {REVOCATION_REASON_BYTES_MAX} bytes")
    if authority.role not in _MAY_REVOKE[kind]:
        raise InvalidObject(Reason.REFUSED, f"a revocation of {kind.name} signed by {authority.role.name}")
    return CheckedRevocation(attested, value, authority)


def _bounded(entries: dict[bytes, CheckedRevocation]) -> dict[bytes, CheckedRevocation]:
    """All entries of root and issuers, and of the members' those of the lowest hashes, as many as there is room for: each member and all
    together. What is left out of a set is left out of every greater one, so merging stays a union. Raises InvalidObject(FULL)."""
    by_member: dict[tuple[bytes, bytes], list[bytes]] = {}
    for one, entry in entries.items():
        if entry.authority.role is Role.MEMBER:
            by_member.setdefault((entry.value.domain_id, entry.authority.member_id), []).append(one)
    total = sum(len(own) for own in by_member.values())
    room = REVOCATIONS_MAX - (len(entries) - total)
    if room < 0:
        raise InvalidObject(Reason.FULL, f"{len(entries) - total} revocations, at most {REVOCATIONS_MAX} wanted")
    if total <= room and all(len(own) <= REVOCATIONS_PER_MEMBER_MAX for own in by_member.values()):
        return entries
    kept = sorted(one for own in by_member.values() for one in sorted(own)[:REVOCATIONS_PER_MEMBER_MAX])[:room]
    out = {one for own in by_member.values() for one in own}.difference(kept)
    return {one: entry for one, entry in entries.items() if one not in out}


class RevocationSet:
    """An immutable set of checked entries and what follows from it. Merging is a union: commutative, associative, idempotent."""

    __slots__ = ("_certificates", "_entries", "_issuers", "_members")

    def __init__(self, entries: Iterable[CheckedRevocation] = ()) -> None:
        """Of what members say only so much is kept that there is always room for root and issuers.
        Raises InvalidObject(FULL) for more than REVOCATIONS_MAX entries of these."""
        self._entries: dict[bytes, CheckedRevocation] = _bounded({entry.hash: entry for entry in entries})
        self._issuers: dict[tuple[bytes, bytes], UnixSeconds] = {}
        self._members: dict[tuple[bytes, bytes], UnixSeconds] = {}
        # Third of the key: the member whose certificates alone are meant; empty when root or issuer said so.
        self._certificates: set[tuple[bytes, bytes, bytes]] = set()
        for entry in self._entries.values():
            if entry.value.kind == RevocationKind.ISSUER:
                key = (entry.value.domain_id, entry.value.subject)
                self._issuers[key] = UnixSeconds(min(entry.value.cutoff, self._issuers.get(key, UnixSeconds(entry.value.cutoff))))
        for entry in self._entries.values():
            if self.is_effective(entry.authority, UnixSeconds(entry.value.time)):
                self._apply(entry)

    def _apply(self, entry: CheckedRevocation) -> None:
        key = (entry.value.domain_id, entry.value.subject)
        if entry.value.kind == RevocationKind.MEMBER:
            self._members[key] = UnixSeconds(max(entry.value.time, self._members.get(key, UnixSeconds(0))))
        elif entry.value.kind == RevocationKind.CERTIFICATE:
            self._certificates.add((*key, entry.authority.member_id))

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RevocationSet) and self._entries.keys() == other._entries.keys()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __contains__(self, object_hash: bytes) -> bool:
        return object_hash in self._entries

    @property
    def entries(self) -> tuple[Attested, ...]:
        """All entries, by rising hash."""
        return tuple(self._entries[hash_].attested for hash_ in sorted(self._entries))

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Hashes of all entries, rising. 32 bytes each."""
        return tuple(sorted(self._entries))

    def digest(self) -> Digest:
        """SHA-256 over the rising hashes: equal sets, equal digests. 32 bytes."""
        return sha256(*self.hashes)

    def merge(self, other: RevocationSet) -> RevocationSet:
        """The union. Raises InvalidObject(FULL)."""
        return self.with_checked(other._entries.values())

    def with_checked(self, entries: Iterable[CheckedRevocation]) -> RevocationSet:
        """This set and those entries. Raises InvalidObject(FULL)."""
        new = [entry for entry in entries if entry.hash not in self._entries]
        return RevocationSet([*self._entries.values(), *new]) if new else self

    def missing(self, hashes: Iterable[bytes]) -> tuple[Attested, ...]:
        """Entries that a set with those hashes lacks, by rising hash."""
        return tuple(self._entries[hash_].attested for hash_ in sorted(self._entries.keys() - set(hashes)))

    def issued_by_domain(self) -> dict[DomainId, int]:
        """Number of entries by root and issuers, of each domain that has some."""
        counts: dict[DomainId, int] = {}
        for entry in self._entries.values():
            if entry.authority.role is not Role.MEMBER:
                domain = DomainId(entry.value.domain_id)
                counts[domain] = counts.get(domain, 0) + 1
        return counts

    def issuer_cutoff(self, domain_id: bytes, serial: bytes) -> UnixSeconds | None:
        """Earliest cut-off of a revoked issuer; None: not revoked."""
        return self._issuers.get((domain_id, serial))

    def member_revoked_at(self, domain_id: bytes, member_id: bytes) -> UnixSeconds | None:
        """Time of the latest effective revocation of a member; certificates issued later are a re-admission. None: never."""
        return self._members.get((domain_id, member_id))

    def is_effective(self, authority: Authority, time: int) -> bool:
        """False for what a revoked issuer, or a member that it certified too late, signed beyond the cut-off."""
        cutoff = self.issuer_cutoff(authority.path.domain_id, authority.issuer_serial)
        if cutoff is None:
            return True
        member_issued = authority.path.issued[0] if authority.role is Role.MEMBER else time
        return member_issued <= cutoff

    def is_revoked(self, path: CertifiedPath) -> bool:
        """True when a certificate of the path is revoked; its issuer's being revoked counts only beyond the cut-off."""
        *below, issuer_serial = path.serials
        cutoff = self.issuer_cutoff(path.domain_id, issuer_serial)
        if not below:
            return cutoff is not None
        member_issued = path.issued[-2]
        if cutoff is not None and member_issued > cutoff:
            return True
        revoked_at = self.member_revoked_at(path.domain_id, path.member_id)
        if revoked_at is not None and member_issued <= revoked_at:
            return True
        node_serials = below[:-1]
        return any((path.domain_id, serial, b"") in self._certificates for serial in below) or any(
            (path.domain_id, serial, path.member_id) in self._certificates for serial in node_serials
        )


def members_out(before: RevocationSet, after: RevocationSet) -> tuple[tuple[DomainId, MemberId], ...]:
    """Members whose revocation is new or later in ``after``: whose connections are dropped and holdings re-homed."""
    return tuple(
        (DomainId(domain_id), MemberId(member_id))
        for (domain_id, member_id), time in sorted(after._members.items())
        if before._members.get((domain_id, member_id), -1) < time
    )
