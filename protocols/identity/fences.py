"""The network's rotating secrets. A fence is a signed object; its 32-byte secret travels beside it, never in the clear.

Concurrent fences are all accepted, whichever domain's issuers made them; the greatest (number, secret hash) is used for dialling.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, SigningKey, hash_labelled, hkdf, sha256
from ..errors import InvalidObject, Reason
from ..limits import FENCE_LIFETIME_S, FENCE_NUMBER_MAX, FENCES_KEPT_MAX
from ..signed import sign_object
from ..types import Digest, DomainId, NetworkId
from .attested import Attested, KnownFence
from .authority import Authority, Role, open_attested
from .certificates import fingerprint, read_root
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


FOUNDING_NUMBER = 1


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


def founding_fence(root_seed: bytes, root: bytes, network: NetworkId) -> KnownFence:
    """A domain's first fence, always the same bytes: its secret and time follow from the domain's root, so that the recovery kit opens the
    network again. root: DER. Raises InvalidObject(BAD_CERTIFICATE)."""
    return sign_fence(
        SigningKey(root_seed),
        (),
        network,
        domain_id=fingerprint(root),
        number=FOUNDING_NUMBER,
        time=read_root(root).not_before,
        secret=hkdf(root_seed, Label.FOUNDING_FENCE, network),
    )


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
    """An immutable set of checked fences. At most FENCES_KEPT_MAX, of each domain at most its equal share, so that no domain crowds
    another's out: the founding one, signed by its root, which the recovery kit can make again, and of the others the greatest. Merging
    two sets in any order gives the same."""

    __slots__ = ("_fences", "_founding")

    def __init__(self, fences: Iterable[CheckedFence] = ()) -> None:
        unique = {fence.hash: fence for fence in fences}
        newest_first = sorted(unique.values(), key=lambda fence: (fence.rank, fence.hash), reverse=True)
        # The last of each domain is the least, whoever adds more of them.
        founding = {fence.value.domain_id: fence.hash for fence in newest_first if _is_founding(fence)}
        self._founding = frozenset(founding.values())
        room = dict.fromkeys({fence.value.domain_id for fence in newest_first}, 0)
        # A domain that has a fence keeps one, so the number of domains, and with it the share, does not depend on the order of merging.
        share = max(FENCES_KEPT_MAX // max(len(room), 1), 1)
        for domain in room:
            room[domain] = share - (domain in founding)
        kept: list[CheckedFence] = []
        for fence in newest_first:
            if fence.hash in self._founding:
                kept.append(fence)
            elif room[fence.value.domain_id] > 0:
                room[fence.value.domain_id] -= 1
                kept.append(fence)
        self._fences: tuple[CheckedFence, ...] = tuple(kept)

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

    def shared_with(self, hashes: Container[bytes], domain: DomainId) -> FenceSet:
        """Only the fences of domains that a peer shows to know: its own, and those of which it has a fence. hashes: of its fences."""
        shown = {fence.value.domain_id for fence in self._fences if fence.hash in hashes}
        return self.of_domains({domain, *shown})

    def of_domains(self, domains: Container[bytes]) -> FenceSet:
        """Only the fences that those domains made."""
        return FenceSet(fence for fence in self._fences if fence.value.domain_id in domains)

    def kept(self, now: int, revocations: RevocationSet) -> FenceSet:
        """Those to be answered: without fences that a revoked issuer signed beyond its cut-off, and without those that were replaced more
        than FENCE_LIFETIME_S ago. The founding ones stay: what they open is ``is_forgotten``'s.
        """
        effective = self._effective(revocations)
        young = self._young(effective, now)
        return FenceSet(fence for fence in effective if fence.hash in young or fence.hash in self._founding)

    def is_forgotten(self, secret_hash: bytes, now: int, revocations: RevocationSet) -> bool:
        """Whether this fence, which may still be answered, was replaced so long ago that it opens nothing but the way back of a founder."""
        effective = self._effective(revocations)
        young = self._young(effective, now)
        named = [fence.hash for fence in effective if fence.value.secret_hash == secret_hash]
        return bool(named) and not young.intersection(named)

    def _effective(self, revocations: RevocationSet) -> list[CheckedFence]:
        return [fence for fence in self._fences if revocations.is_effective(fence.authority, fence.value.time)]

    @staticmethod
    def _young(effective: Sequence[CheckedFence], now: int) -> frozenset[bytes]:
        """Of each domain the greatest, and those in use until at most FENCE_LIFETIME_S ago. A fence was in use until the domain's next was
        signed: a network that rotates once in years must not lock out whoever was away on that day, and no other domain can make a fence of
        ours forgotten, or young again, by a number and a time of its choice."""
        young: set[bytes] = set()
        replaced_at: dict[bytes, int] = {}
        for fence in effective:
            domain = fence.value.domain_id
            if replaced_at.get(domain, now) >= now - FENCE_LIFETIME_S:
                young.add(fence.hash)
            replaced_at[domain] = fence.value.time
        return frozenset(young)

    def psk(self, network: NetworkId) -> tuple[FenceKey, ...]:
        """Pre-shared keys of all fences, newest first: the first for dialling, all for answering."""
        return tuple(
            FenceKey(id=fence.value.secret_hash, number=fence.value.number, psk=fence_preshared_key(fence.known.secret, network))
            for fence in self._fences
        )


def _is_founding(fence: CheckedFence) -> bool:
    return fence.authority.role is Role.ROOT and fence.value.number == FOUNDING_NUMBER
