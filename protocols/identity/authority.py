"""Who may sign what: an attested object is opened and its signer's place in the domain is found."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Protocol, TypeVar

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label
from ..errors import InvalidObject, Reason
from ..signed import open_signed
from ..types import DomainId, MemberId, NetworkId, UnixSeconds
from .attested import Attested
from .certificates import CertifiedPath, read_root, verify_issuer_chain, verify_member_chain


class Role(enum.IntEnum):
    """Place of a signer in its domain. The number is the length of its chain below the root."""

    ROOT = 0
    ISSUER = 1
    MEMBER = 2


class Authority(Record, frozen=True):
    """A signer whose chain was valid when it signed. path: without certificates when the root signed."""

    role: Role
    public: bytes
    path: CertifiedPath

    @property
    def issuer_serial(self) -> bytes:
        """Serial number of the issuer's certificate in the path, 16 bytes; empty for the root."""
        return self.path.serials[-1] if self.path.serials else b""

    @property
    def member_id(self) -> MemberId:
        """The signing member; empty for root and issuers."""
        return self.path.member_id


class Dated(Protocol):
    """What every attested object says of itself."""

    @property
    def format(self) -> int: ...
    @property
    def suite(self) -> int: ...
    @property
    def domain_id(self) -> bytes: ...
    @property
    def time(self) -> int: ...


T = TypeVar("T", bound=Dated)


def authority_of(chain: tuple[bytes, ...], domain_id: DomainId, roots: Mapping[DomainId, bytes], *, at: UnixSeconds) -> Authority:
    """The authority that a chain gave at a time. Revocation is not judged here: sets do that, entry by entry.

    Raises InvalidObject(BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID).
    """
    root = roots.get(domain_id)
    if root is None:
        raise InvalidObject(Reason.WRONG_DOMAIN, f"domain {domain_id.hex()[:8]} is not known here")
    if len(chain) == Role.ROOT:
        path = CertifiedPath(domain_id=domain_id, member_id=MemberId(b""), serials=(), issued=())
        return Authority(role=Role.ROOT, public=read_root(root).public, path=path)
    if len(chain) == Role.ISSUER:
        issuer = verify_issuer_chain(chain, {domain_id: root}, now=at, revocations=None)
        return Authority(role=Role.ISSUER, public=issuer.public, path=issuer.path)
    member = verify_member_chain(chain, {domain_id: root}, now=at, revocations=None)
    return Authority(role=Role.MEMBER, public=member.owner, path=member.path)


def open_attested(
    attested: Attested, kind: type[T], label: Label, network: NetworkId, roots: Mapping[DomainId, bytes]
) -> tuple[T, Authority]:
    """The object and who signed it: signature, format and chain checked, the chain as of the object's own time.

    Raises InvalidObject(BAD_SIGNATURE | UNKNOWN_FORMAT | BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_…), DecodeError.
    """
    value, signer = open_signed(attested.envelope, kind, label, network)
    if (value.format, value.suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"format {value.format} suite {value.suite}, {FORMAT} and {SUITE} wanted")
    authority = authority_of(attested.chain, DomainId(value.domain_id), roots, at=UnixSeconds(value.time))
    if authority.public != signer:
        raise InvalidObject(Reason.BAD_CERTIFICATE, "the chain is not the signer's")
    return value, authority
