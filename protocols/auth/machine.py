"""Both sides of `/lading/auth/1`; one table, two roles. SPEC.md beside it is normative.

Nothing else of the peer is listened to until Proven. What was learnt on the way (revocations, fences) is told as it is learnt,
so that it is not lost when the peer itself turns out to be out.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from ..codec import Record, encode
from ..crypto import FORMAT, SUITE, Label, SigningKey, verify
from ..effects import Close, Effect, Send
from ..errors import InvalidObject, LadingError, Reason, RemoteError
from ..identity.attested import Attested, KnownFence
from ..identity.certificates import NodeIdentity, verify_chain
from ..identity.fences import CheckedFence, FenceSet, check_fence
from ..identity.revocation import CheckedRevocation, RevocationSet, check_revocation
from ..limits import (
    AUTH_FEATURES_MAX,
    AUTH_HASHES_PER_PAGE,
    AUTH_PAGE_BYTES,
    AUTH_TIMEOUT_S,
    FEATURE_BYTES_MAX,
    FENCE_LIFETIME_S,
    FENCES_KEPT_MAX,
    REVOCATIONS_MAX,
)
from ..machine import Machine, Outcome, Row
from ..types import DomainId, MemberId, NetworkId, PeerId, UnixSeconds
from .messages import Difference, Fences, Hello, Known, Proof, Refusal

NONCE_BYTES = 32
HANDSHAKE_HASH_BYTES = 32
REFUSAL_TEXT_CHARS_MAX = 500
AWAY_TOO_LONG_TEXT = f"away for more than {FENCE_LIFETIME_S // 86400} days: come back with a new ticket (lading invite)"


class AuthRole(enum.IntEnum):
    """Who dialled. The number stands in Hello and in what is signed."""

    INITIATOR = 1
    RESPONDER = 2

    @property
    def other(self) -> AuthRole:
        return AuthRole.RESPONDER if self is AuthRole.INITIATOR else AuthRole.INITIATOR


class AuthState(enum.Enum):
    """What is known."""

    NEW = "new"
    SAID_HELLO = "said hello"
    SAID_PROOF = "said proof"
    SAID_KNOWN = "said known"
    SAID_DIFFERENCE = "said difference"
    SAID_FENCES = "said fences"
    PROVEN = "proven"
    FAILED = "failed"


# --- events beside the messages -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The stream stands."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of ``wake_at`` has come, or any other time."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer's direction of the stream has ended."""


# --- effects beside Send and Close --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LearnedRevocations:
    """New to us, checked: keep them, whatever becomes of this conversation."""

    revocations: tuple[CheckedRevocation, ...]


@dataclass(frozen=True, slots=True)
class LearnedFences:
    """New to us, checked: keep them, whatever becomes of this conversation."""

    fences: tuple[CheckedFence, ...]


@dataclass(frozen=True, slots=True)
class ToldTime:
    """A node that has proven itself, with a clock that it calls safe, says that it is ``time``; its certificates hold at that time.
    It may be out of time by our own clock: then Failed follows."""

    member: MemberId
    time: UnixSeconds
    domain: DomainId


@dataclass(frozen=True, slots=True)
class Proven:
    """The peer is who it says, and both know the same revocations and fences now.

    version: the highest that both speak. features: those that both have, sorted. current: the connection stands under the
    greatest fence that both know now; if not, nothing but this conversation belongs on it, and the dialler dials again.
    peer_fence_number: of the greatest fence that the peer knew when it came.
    """

    identity: NodeIdentity
    version: int
    features: tuple[str, ...]
    current: bool
    peer_fence_number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer is not proven; drop the connection. by_peer: the peer refused us, and ``reason`` is its word."""

    reason: Reason
    text: str
    by_peer: bool = False


R = TypeVar("R", bound=Record)
_REASONS = {reason.stable_name: reason for reason in Reason}
_S = AuthState
_END = frozenset({_S.FAILED})


class AuthMachine(Machine):
    """One side of one conversation. Randomness, keys and times are arguments."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (_S.NEW, Start): ("say_hello", frozenset({_S.SAID_HELLO})),
        (_S.SAID_HELLO, Hello): ("judge_hello", frozenset({_S.SAID_PROOF, _S.FAILED})),
        (_S.SAID_PROOF, Proof): ("judge_proof", frozenset({_S.SAID_KNOWN, _S.SAID_FENCES, _S.PROVEN, _S.FAILED})),
        (_S.SAID_KNOWN, Known): ("take_known", frozenset({_S.SAID_KNOWN, _S.SAID_DIFFERENCE, _S.FAILED})),
        (_S.SAID_DIFFERENCE, Difference): (
            "take_difference",
            frozenset({_S.SAID_DIFFERENCE, _S.SAID_FENCES, _S.PROVEN, _S.FAILED}),
        ),
        (_S.SAID_FENCES, Fences): ("take_fences", frozenset({_S.SAID_FENCES, _S.PROVEN, _S.FAILED})),
        **{
            (state, Refusal): ("take_refusal", _END)
            for state in (_S.SAID_HELLO, _S.SAID_PROOF, _S.SAID_KNOWN, _S.SAID_DIFFERENCE, _S.SAID_FENCES, _S.PROVEN)
        },
        **{
            (state, Tick): ("look_at_clock", frozenset({state, _S.FAILED}))
            for state in (_S.SAID_HELLO, _S.SAID_PROOF, _S.SAID_KNOWN, _S.SAID_DIFFERENCE, _S.SAID_FENCES)
        },
        **{
            (state, Ended): ("take_end", _END)
            for state in (_S.SAID_HELLO, _S.SAID_PROOF, _S.SAID_KNOWN, _S.SAID_DIFFERENCE, _S.SAID_FENCES)
        },
        # Late ticks and the end of a stream that has done its work are no news.
        (_S.PROVEN, Tick): ("rest", frozenset({_S.PROVEN})),
        (_S.PROVEN, Ended): ("rest", frozenset({_S.PROVEN})),
        (_S.FAILED, Tick): ("rest", _END),
        (_S.FAILED, Ended): ("rest", _END),
    }

    def __init__(
        self,
        *,
        role: AuthRole,
        network: NetworkId,
        chain: Sequence[bytes],
        key: SigningKey,
        roots: Mapping[DomainId, bytes],
        revocations: RevocationSet,
        fences: FenceSet,
        connection_fence: bytes,
        version_min: int,
        version_max: int,
        features: Iterable[str],
        nonce: bytes,
        handshake_hash: bytes,
        peer_id: PeerId,
        now: int,
        clock_unsafe: bool = False,
        clock_agreed: bool = False,
    ) -> None:
        """chain: ours, node first, root left out. key: the node's. connection_fence: id of the fence (its secret hash) that let
        the connection through. nonce: 32 fresh random bytes. handshake_hash: 32 bytes, from the Noise layer, as is peer_id, the
        peer that it proved. now: whole seconds. clock_unsafe: let not-yet-valid certificates pass (IDENTITY, Time): ``now`` is the floor.
        clock_agreed: ``now`` is what members agree on. With neither it is our machine's own clock, and is told as safe."""
        super().__init__(AuthState.NEW)
        assert len(nonce) == NONCE_BYTES
        assert len(handshake_hash) == HANDSHAKE_HASH_BYTES
        assert 0 < version_min <= version_max
        self._role = role
        self._network = network
        self._key = key
        self._roots = roots
        self._revocations = revocations
        self._fences = fences
        self._connection_fence = connection_fence
        self._peer_fences: set[bytes] = set()
        self._handshake_hash = handshake_hash
        self._peer_id = peer_id
        self._now = UnixSeconds(now)
        self._clock_unsafe = clock_unsafe
        greatest = fences.greatest()
        self._hello = Hello(
            format=FORMAT,
            suite=SUITE,
            role=role,
            version_min=version_min,
            version_max=version_max,
            features=tuple(sorted(set(features))),
            chain=tuple(chain),
            revocations=revocations.digest(),
            fences=fences.digest(),
            fence_number=greatest.value.number if greatest is not None else 0,
            nonce=nonce,
            time=now,
            clock_safe=not (clock_unsafe or clock_agreed),
        )
        self._peer_hello: Hello | None = None
        self._identity: NodeIdentity | None = None
        self._untimely: InvalidObject | None = None
        self._peer_hashes: list[bytes] = []
        self._entries_taken = 0
        self._deadline_s: float | None = None

    def start(self, now_s: float) -> tuple[Effect, ...]:
        """First effects, once the stream stands."""
        return self.step(Start(), now_s)

    def wake_at(self) -> float | None:
        """The time limit, while there is one."""
        return self._deadline_s

    # --- moves ----------------------------------------------------------------------------------------------------

    def say_hello(self, _: Start, now_s: float) -> Outcome:
        self._deadline_s = now_s + AUTH_TIMEOUT_S
        return AuthState.SAID_HELLO, (Send(self._hello),)

    def judge_hello(self, hello: Hello, _: float) -> Outcome:
        try:
            self._check_hello(hello)
            identity = self._introduced(hello)
        except LadingError as error:
            return self._refuse(error)
        if identity.peer_id != self._peer_id:
            return self._refuse(InvalidObject(Reason.WRONG_PEER, "the certified peer id is not that of the connection"))
        if self._role is AuthRole.RESPONDER and self._was_away_too_long(identity):
            return self._refuse(RemoteError(Reason.AWAY_TOO_LONG, AWAY_TOO_LONG_TEXT))
        self._peer_hello = hello
        self._identity = identity
        signature = self._key.sign(Label.AUTH, self._network, self._transcript(self._role))
        return AuthState.SAID_PROOF, (Send(Proof(signature=signature)),)

    def judge_proof(self, proof: Proof, now_s: float) -> Outcome:
        assert self._identity is not None
        try:
            verify(self._identity.node_public, proof.signature, Label.AUTH, self._network, self._transcript(self._role.other))
        except InvalidObject as error:
            return self._refuse(error)
        if self._untimely is not None:
            state, effects = self._refuse(self._untimely)
            return state, self._told_time() + effects
        # Who dials waits with this judgement: if it is he who was away, the other says so instead of its proof.
        if self._role is AuthRole.INITIATOR and self._was_away_too_long(self._identity):
            return self._refuse(RemoteError(Reason.AWAY_TOO_LONG, AWAY_TOO_LONG_TEXT))
        # The peer has shown who it is; what follows may be long, so the limit begins anew, once.
        self._deadline_s = now_s + AUTH_TIMEOUT_S
        if self._peer.revocations == self._hello.revocations:
            return self._compare_fences()
        pages = _pages_by_count(self._revocations.hashes, AUTH_HASHES_PER_PAGE)
        return AuthState.SAID_KNOWN, tuple(Send(Known(revocations=page, final=final)) for page, final in pages)

    def take_known(self, known: Known, _: float) -> Outcome:
        rising = _is_rising([*self._peer_hashes[-1:], *known.revocations])
        if not rising or any(len(hash_) != 32 for hash_ in known.revocations) or not (known.revocations or known.final):
            return self._refuse(RemoteError(Reason.MALFORMED, "hashes that do not rise, or an empty part"))
        self._peer_hashes += known.revocations
        if len(self._peer_hashes) > REVOCATIONS_MAX:
            return self._refuse(RemoteError(Reason.FLOOD, f"more than {REVOCATIONS_MAX} revocations"))
        if not known.final:
            return AuthState.SAID_KNOWN, ()
        pages = _pages_by_bytes(self._revocations.missing(self._peer_hashes), AUTH_PAGE_BYTES)
        return AuthState.SAID_DIFFERENCE, tuple(Send(Difference(revocations=page, final=final)) for page, final in pages)

    def take_difference(self, difference: Difference, _: float) -> Outcome:
        try:
            self._count(len(difference.revocations), REVOCATIONS_MAX, final=difference.final)
            learned = tuple(entry for attested in difference.revocations if (entry := self._checked_revocation(attested)) is not None)
            self._revocations = self._revocations.with_checked(learned)
        except LadingError as error:
            return self._refuse(error)
        effects: tuple[Effect, ...] = (LearnedRevocations(learned),) if learned else ()
        if not difference.final:
            return AuthState.SAID_DIFFERENCE, effects
        self._entries_taken = 0
        try:
            self._verified(self._peer.chain)
        except InvalidObject as error:
            state, more = self._refuse(error)
        else:
            state, more = self._compare_fences()
        return state, effects + more

    def take_fences(self, fences: Fences, _: float) -> Outcome:
        try:
            self._count(len(fences.fences), FENCES_KEPT_MAX, final=fences.final)
            learned = tuple(fence for known in fences.fences if (fence := self._checked_fence(known)) is not None)
        except LadingError as error:
            return self._refuse(error)
        self._fences = self._fences.with_checked(learned)
        self._peer_fences.update(known.attested.object_hash for known in fences.fences)
        effects: tuple[Effect, ...] = (LearnedFences(learned),) if learned else ()
        if not fences.final:
            return AuthState.SAID_FENCES, effects
        state, more = self._prove()
        return state, effects + more

    def take_refusal(self, refusal: Refusal, _: float) -> Outcome:
        reason = _REASONS.get(refusal.reason, Reason.REFUSED)
        return self._fail(Failed(reason, refusal.text[:REFUSAL_TEXT_CHARS_MAX], by_peer=True))

    def take_end(self, _: Ended, __: float) -> Outcome:
        return self._fail(Failed(Reason.TRUNCATED, f"the peer ended the conversation when we had {self.state.value}"))

    def look_at_clock(self, _: Tick, now_s: float) -> Outcome:
        assert self._deadline_s is not None
        if now_s < self._deadline_s:
            return self.state, ()
        return self._refuse(RemoteError(Reason.TIMEOUT, f"not done within {AUTH_TIMEOUT_S} s; we had {self.state.value}"))

    def rest(self, _: Tick | Ended, __: float) -> Outcome:
        return self.state, ()

    # --- what moves are made of -----------------------------------------------------------------------------------

    @property
    def _peer(self) -> Hello:
        assert self._peer_hello is not None
        return self._peer_hello

    def _transcript(self, signer: AuthRole) -> bytes:
        """What a proof signs: the signer's role, the handshake hash, both Hellos, the initiator's first."""
        ours, theirs = encode(self._hello), encode(self._peer)
        first, second = (ours, theirs) if self._role is AuthRole.INITIATOR else (theirs, ours)
        return encode((int(signer), self._handshake_hash, first, second))

    def _check_hello(self, hello: Hello) -> None:
        if (hello.format, hello.suite) != (FORMAT, SUITE):
            raise InvalidObject(Reason.UNKNOWN_FORMAT, f"format {hello.format} suite {hello.suite}, {FORMAT} and {SUITE} wanted")
        if hello.role != self._role.other or hello.nonce == self._hello.nonce or hello.chain == self._hello.chain:
            raise RemoteError(Reason.REFLECTED, "our own Hello came back")
        sizes = (len(hello.nonce), len(hello.revocations), len(hello.fences))
        if sizes != (NONCE_BYTES, 32, 32) or min(hello.fence_number, hello.time) < 0 or not 0 < hello.version_min <= hello.version_max:
            raise RemoteError(Reason.MALFORMED, "a Hello with parts out of range")
        long = any(len(feature.encode("utf-8", "replace")) > FEATURE_BYTES_MAX for feature in hello.features)
        if long or len(hello.features) > AUTH_FEATURES_MAX or not _is_rising(hello.features):
            raise RemoteError(Reason.MALFORMED, f"at most {AUTH_FEATURES_MAX} short features in rising order wanted")
        ours = self._hello
        if min(ours.version_max, hello.version_max) < max(ours.version_min, hello.version_min):
            raise RemoteError(
                Reason.VERSION,
                f"versions {ours.version_min} to {ours.version_max} here, {hello.version_min} to {hello.version_max} there",
            )

    def _verified(self, chain: tuple[bytes, ...]) -> NodeIdentity:
        return verify_chain(chain, self._roots, now=self._now, revocations=self._revocations, clock_unsafe=self._clock_unsafe)

    def _introduced(self, hello: Hello) -> NodeIdentity:
        """Who the peer says it is. One whose certificates do not hold at our time, but at its own, may prove itself before it is
        refused: its clock or ours is wrong, and somebody must be told."""
        try:
            return self._verified(hello.chain)
        except InvalidObject as error:
            if error.reason not in (Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NOT_YET_VALID) or not hello.clock_safe:
                raise
            self._untimely = error
            try:
                return verify_chain(hello.chain, self._roots, now=hello.time, revocations=self._revocations)
            except InvalidObject:
                raise error from None

    def _told_time(self) -> tuple[ToldTime, ...]:
        """The time of a peer that has proven itself, if it is one to be told: its own certificates must hold at it, so that nobody can
        say a time that no issuer has vouched for."""
        hello, identity = self._peer, self._identity
        assert identity is not None
        if not hello.clock_safe or not identity.not_before <= hello.time < identity.not_after:
            return ()
        return (ToldTime(identity.member_id, UnixSeconds(hello.time), identity.domain_id),)

    def _was_away_too_long(self, identity: NodeIdentity) -> bool:
        """Whether the peer knows no fence but one that is long forgotten here. Then only the domain's root, with an issuer that it
        certified since, opens the door: the founder who comes back from the recovery kit."""
        if not self._fences.is_forgotten(self._connection_fence, self._now, self._revocations):
            return False
        return identity.path.issued[-1] < self._now - FENCE_LIFETIME_S

    def _count(self, entries: int, entries_max: int, *, final: bool) -> None:
        self._entries_taken += entries
        if self._entries_taken > entries_max:
            raise RemoteError(Reason.FLOOD, f"more than {entries_max} entries")
        if not entries and not final:
            raise RemoteError(Reason.MALFORMED, "an empty part that is not the last")

    def _checked_revocation(self, attested: Attested) -> CheckedRevocation | None:
        """The entry if it is new to us; None also for one of a domain that we have no business with."""
        if attested.object_hash in self._revocations:
            return None
        try:
            return check_revocation(attested, self._network, self._roots)
        except InvalidObject as error:
            if error.reason is Reason.WRONG_DOMAIN:
                return None
            raise

    def _checked_fence(self, known: KnownFence) -> CheckedFence | None:
        """The fence if it is new to us; None also for one of an unknown domain or beyond a revoked issuer's cut-off."""
        if known.attested.object_hash in self._fences.hashes:
            return None
        try:
            fence = check_fence(known, self._network, self._roots)
        except InvalidObject as error:
            if error.reason is Reason.WRONG_DOMAIN:
                return None
            raise
        return fence if self._revocations.is_effective(fence.authority, fence.value.time) else None

    def _compare_fences(self) -> Outcome:
        if self._peer.fences == self._hello.fences:
            return self._prove()
        pages = _pages_by_bytes(self._fences.fences, AUTH_PAGE_BYTES)
        return AuthState.SAID_FENCES, tuple(Send(Fences(fences=page, final=final)) for page, final in pages)

    def _prove(self) -> Outcome:
        assert self._identity is not None
        self._deadline_s = None
        # A fence of a domain that the peer has not heard of yet cannot be current between us: gossip is what tells it of that domain.
        shared = self._fences
        if self._peer.fences != self._hello.fences:
            shared = shared.shared_with(self._peer_fences, self._identity.domain_id)
        greatest = shared.kept(self._now, self._revocations).greatest()
        return AuthState.PROVEN, (
            *self._told_time(),
            Proven(
                identity=self._identity,
                version=min(self._hello.version_max, self._peer.version_max),
                features=tuple(sorted(set(self._hello.features) & set(self._peer.features))),
                current=greatest is None or greatest.value.secret_hash == self._connection_fence,
                peer_fence_number=self._peer.fence_number,
            ),
        )

    def _refuse(self, error: LadingError) -> Outcome:
        state, effects = self._fail(Failed(error.reason, error.message))
        return state, (Send(Refusal(reason=error.reason.stable_name, text=error.message[:REFUSAL_TEXT_CHARS_MAX])), *effects)

    def _fail(self, failed: Failed) -> Outcome:
        self._deadline_s = None
        return AuthState.FAILED, (failed, Close(failed.text))


def _is_rising(values: Sequence[bytes] | Sequence[str]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))  # type: ignore[operator]  # both of one type


def _pages_by_count(values: Sequence[bytes], count: int) -> list[tuple[tuple[bytes, ...], bool]]:
    """Parts of at most ``count`` values, at least one part; True marks the last."""
    starts = range(0, max(len(values), 1), count)
    return [(tuple(values[start : start + count]), start == starts[-1]) for start in starts]


def _pages_by_bytes(values: Sequence[R], bytes_max: int) -> list[tuple[tuple[R, ...], bool]]:
    """Parts that end with the value that brings them to ``bytes_max`` encoded bytes; at least one part; True marks the last."""
    pages: list[list[R]] = [[]]
    size = 0
    for value in values:
        if size >= bytes_max:
            pages.append([])
            size = 0
        pages[-1].append(value)
        size += len(encode(value))
    return [(tuple(page), index == len(pages) - 1) for index, page in enumerate(pages)]
