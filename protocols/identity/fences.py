"""The network's rotating secrets. A fence is a signed object; its 32-byte secret travels beside it, never in the clear.

Concurrent fences are all accepted; the greatest (number, secret hash) is used for dialling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, SigningKey, hash_labelled, sha256
from ..errors import InvalidObject, Reason
from ..limits import FENCE_LIFETIME_S, FENCE_NUMBER_MAX, FENCES_KEPT_MAX
from ..signed import sign_object
from ..types import Digest, DomainId, NetworkId
from .attested import Attested, KnownFence
from .authority import Authority, Role, open_attested
from .networks import FENCE_SECRET_BYTES, fence_preshared_key
from .revocation import RevocationSet


class Fence(Record, frozen=True):
    """number: one above the greatest its issuer knew. time: when it was signed. secret_hash: 32 bytes, also the fence's id."""

    format: int
    suite: int
    domain_id: bytes
    number: int
    time: int
    secret_hash: bytes


@dataclass(frozen=True, slots=True)
class CheckedFence:
    """A fence whose signature, chain, right and secret are checked. Made by ``check_fence`` only."""

    known: KnownFence
    value: Fence
    authority: Authority

    @property
    def hash(self) -> Digest:
        return self.known.attested.object_hash

    @property
    def rank(self) -> tuple[int, bytes]:
        """(number, secret hash): what fences are ordered by."""
        return self.value.number, self.value.secret_hash


@dataclass(frozen=True, slots=True)
class FenceKey:
    """A pre-shared key for the Noise layer. id: the fence's secret hash. psk: 32 bytes."""

    id: bytes
    number: int
    psk: bytes

    def __repr__(self) -> str:
        return f"FenceKey({self.number}, {self.id.hex()[:8]})"


def fence_secret_hash(secret: bytes) -> Digest:
    """Id of the fence with this secret. 32 bytes."""
    return hash_labelled(Label.FENCE_SECRET, secret)


def sign_fence(
    key: SigningKey, chain: tuple[bytes, ...], network: NetworkId, *, domain_id: DomainId, number: int, time: int, secret: bytes
) -> KnownFence:
    """A new fence. secret: 32 fresh random bytes. chain: as in Attested; the signer is the root or an issuer."""
    assert len(secret) == FENCE_SECRET_BYTES
    value = Fence(format=FORMAT, suite=SUITE, domain_id=domain_id, number=number, time=time, secret_hash=fence_secret_hash(secret))
    return KnownFence(attested=Attested(envelope=sign_object(value, key, Label.FENCE, network), chain=chain), secret=secret)


def check_fence(known: KnownFence, network: NetworkId, roots: Mapping[DomainId, bytes]) -> CheckedFence:
    """Raises InvalidObject(BAD_SIGNATURE | BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_… | UNKNOWN_FORMAT | MALFORMED |
    INTEGRITY for another secret | REFUSED when a member signed it), DecodeError."""
    value, authority = open_attested(known.attested, Fence, Label.FENCE, network, roots)
    if not 0 < value.number <= FENCE_NUMBER_MAX or len(known.secret) != FENCE_SECRET_BYTES:
        raise InvalidObject(Reason.MALFORMED, f"fence {value.number} with a secret of {len(known.secret)} bytes")
    if value.secret_hash != fence_secret_hash(known.secret):
        raise InvalidObject(Reason.INTEGRITY, f"fence {value.number} came with another secret")
    if authority.role is Role.MEMBER:
        raise InvalidObject(Reason.REFUSED, "a fence signed by a member")
    return CheckedFence(known, value, authority)


class FenceSet:
    """An immutable set of checked fences. At most FENCES_KEPT_MAX, the greatest; merging two sets in any order gives the same."""

    __slots__ = ("_fences",)

    def __init__(self, fences: Iterable[CheckedFence] = ()) -> None:
        unique = {fence.hash: fence for fence in fences}
        newest_first = sorted(unique.values(), key=lambda fence: (fence.rank, fence.hash), reverse=True)
        self._fences: tuple[CheckedFence, ...] = tuple(newest_first[:FENCES_KEPT_MAX])

    def __len__(self) -> int:
        return len(self._fences)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FenceSet) and self.hashes == other.hashes

    def __hash__(self) -> int:
        return hash(self.hashes)

    @property
    def fences(self) -> tuple[KnownFence, ...]:
        """Newest first."""
        return tuple(fence.known for fence in self._fences)

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """Object hashes, newest first."""
        return tuple(fence.hash for fence in self._fences)

    def digest(self) -> Digest:
        """Equal sets, equal digests. 32 bytes."""
        return sha256(*self.hashes)

    def greatest(self) -> CheckedFence | None:
        """The fence to dial with; None in an empty set."""
        return self._fences[0] if self._fences else None

    def next_number(self) -> int:
        """Number of the fence that a rotation makes."""
        return self._fences[0].value.number + 1 if self._fences else 1

    def merge(self, other: FenceSet) -> FenceSet:
        """Both sets' fences, bounded."""
        return self.with_checked(other._fences)

    def with_checked(self, fences: Iterable[CheckedFence]) -> FenceSet:
        """This set and those fences, bounded."""
        return FenceSet([*self._fences, *fences])

    def kept(self, now: int, revocations: RevocationSet) -> FenceSet:
        """Without fences that a revoked issuer signed beyond its cut-off, and without those older than FENCE_LIFETIME_S.

        The greatest that remains is kept whatever its age: a network that never rotates must not fence itself out.
        """
        effective = [fence for fence in self._fences if revocations.is_effective(fence.authority, fence.value.time)]
        return FenceSet(fence for index, fence in enumerate(effective) if index == 0 or fence.value.time >= now - FENCE_LIFETIME_S)

    def psk(self, network: NetworkId) -> tuple[FenceKey, ...]:
        """Pre-shared keys of all fences, newest first: the first for dialling, all for answering."""
        return tuple(
            FenceKey(id=fence.value.secret_hash, number=fence.value.number, psk=fence_preshared_key(fence.known.secret, network))
            for fence in self._fences
        )
