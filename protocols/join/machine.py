"""The newcomer's side and the relay's side of `/lading/join/1`. SPEC.md beside it is normative."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..crypto import FORMAT, SUITE, HpkePrivateKey, SigningKey
from ..effects import Close, Effect, Send
from ..errors import InvalidObject, LadingError, Reason, RemoteError
from ..identity.announce import AddressBook, CheckedAnnouncement, check_announcement
from ..identity.attested import Attested, KnownFence
from ..identity.certificates import fingerprint, read_root, verify_chain, verify_issuer_chain, verify_member_chain
from ..identity.domains import CheckedDomain, DomainSet, check_domain
from ..identity.fences import CheckedFence, FenceSet, check_fence
from ..identity.revocation import CheckedRevocation, RevocationSet, check_revocation
from ..identity.tickets import ROLE_DOMAIN, ROLE_MEMBER, ROLE_NODE, Ticket
from ..limits import JOIN_ATTEMPTS_MAX, JOIN_ISSUERS_MAX, JOIN_SEALED_BYTES_MAX, JOIN_TIMEOUT_S
from ..machine import Machine, Outcome, Row
from ..signed import Signed
from ..types import DomainId, HpkeKey, MemberId, NetworkId, UnixSeconds
from .messages import Admission, Application, ChainAnchor, JoinAnswer, JoinHello, JoinIssuers, JoinRefusal, JoinRequest
from .sealing import open_admission, seal_application

VERSION_MIN = 1
VERSION_MAX = 1
REFUSAL_TEXT_CHARS_MAX = 500


# --- events and effects beside the messages -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The stream stands."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of ``wake_at`` has come, or any other time."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side's direction of the stream has ended."""


@dataclass(frozen=True, slots=True)
class IssuerAnswered:
    """What came back from the issuer that AskIssuer named; a JoinRefusal(UNREACHABLE) of our own when nothing did."""

    message: JoinAnswer | JoinRefusal


@dataclass(frozen=True, slots=True)
class AskIssuer:
    """Pass the request, as it is, to the desk with this HPKE key; answer with IssuerAnswered."""

    issuer_key: HpkeKey
    request: JoinRequest


@dataclass(frozen=True, slots=True)
class Joined:
    """All checked: keep it, then dial under the greatest fence. chain: the new certificate first, root left out; for a domain its root.

    domain_id, domain_root: of the domain that we belong to now. founder: DER root of the domain that founded the network. domains: the
    others of it. member_keys: encoded key file content of our member, for a further full node. anchor: of the domain's chain; None:
    it has none, or we found our own.
    """

    network: NetworkId
    domain_id: DomainId
    domain_root: bytes
    founder: bytes
    domains: tuple[CheckedDomain, ...]
    chain: tuple[bytes, ...]
    fences: FenceSet
    revocations: RevocationSet
    address_book: AddressBook
    member_keys: bytes
    anchor: ChainAnchor | None


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """Nothing was gained. by_peer: ``reason`` is the other side's word."""

    reason: Reason
    text: str
    by_peer: bool = False


_REASONS = {reason.stable_name: reason for reason in Reason}


# --- the newcomer -------------------------------------------------------------------------------------------------


class NewcomerState(enum.Enum):
    """What is known."""

    NEW = "new"
    SAID_HELLO = "said hello"
    SAID_REQUEST = "said request"
    JOINED = "joined"
    FAILED = "failed"


_N = NewcomerState


class NewcomerMachine(Machine):
    """The side with the ticket."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (_N.NEW, Start): ("say_hello", frozenset({_N.SAID_HELLO})),
        (_N.SAID_HELLO, JoinIssuers): ("choose_issuer", frozenset({_N.SAID_REQUEST, _N.FAILED})),
        (_N.SAID_HELLO, JoinRefusal): ("take_refusal", frozenset({_N.FAILED})),
        (_N.SAID_REQUEST, JoinAnswer): ("take_answer", frozenset({_N.JOINED, _N.FAILED})),
        (_N.SAID_REQUEST, JoinRefusal): ("try_next", frozenset({_N.SAID_REQUEST, _N.FAILED})),
        (_N.SAID_HELLO, Tick): ("look_at_clock", frozenset({_N.SAID_HELLO, _N.FAILED})),
        (_N.SAID_REQUEST, Tick): ("look_at_clock", frozenset({_N.SAID_REQUEST, _N.FAILED})),
        (_N.SAID_HELLO, Ended): ("take_end", frozenset({_N.FAILED})),
        (_N.SAID_REQUEST, Ended): ("take_end", frozenset({_N.FAILED})),
        (_N.JOINED, Tick): ("rest", frozenset({_N.JOINED})),
        (_N.JOINED, Ended): ("rest", frozenset({_N.JOINED})),
        (_N.FAILED, Tick): ("rest", frozenset({_N.FAILED})),
        (_N.FAILED, Ended): ("rest", frozenset({_N.FAILED})),
    }

    def __init__(
        self,
        *,
        ticket: Ticket,
        key: SigningKey,
        hpke: HpkePrivateKey,
        member_id: MemberId | None,
        label: str,
        ephemeral_seeds: Sequence[bytes],
        now: int,
        clock_unsafe: bool = False,
        root: bytes = b"",
    ) -> None:
        """key, hpke: fresh; for a member its signing and HPKE key, for a node the node key and a key for the answer alone, for a
        domain its root's key and such a key. The same ``key`` must be used when the same ticket is tried again. member_id: for a
        member. label: name of the member or the domain, or host label. root: DER, of a domain that comes into the network.
        ephemeral_seeds: JOIN_ATTEMPTS_MAX times 32 fresh random bytes. now: whole seconds."""
        super().__init__(NewcomerState.NEW)
        assert (member_id is not None) == (ticket.role == ROLE_MEMBER)
        assert bool(root) == (ticket.role == ROLE_DOMAIN)
        self._ticket = ticket
        self._network = NetworkId(ticket.network_id)
        self._domain_id = DomainId(ticket.domain_id)
        self._key = key
        self._hpke = hpke
        self._now = UnixSeconds(now)
        self._clock_unsafe = clock_unsafe
        self._seeds = list(ephemeral_seeds[:JOIN_ATTEMPTS_MAX])
        self._application = Application(
            format=FORMAT,
            suite=SUITE,
            ticket_id=ticket.ticket_id,
            token=ticket.token,
            role=ticket.role,
            public=key.public,
            hpke_public=hpke.public,
            member_id=member_id or b"",
            label=label,
            root=root,
        )
        self._root = b""
        self._desks: list[tuple[bytes, HpkeKey]] = []
        self._signer = b""
        self._request: JoinRequest | None = None
        self._deadline_s: float | None = None

    def start(self, now_s: float) -> tuple[Effect, ...]:
        """First effects, once the stream stands."""
        return self.step(Start(), now_s)

    def wake_at(self) -> float | None:
        """The time limit, while there is one."""
        return self._deadline_s

    def say_hello(self, _: Start, now_s: float) -> Outcome:
        self._deadline_s = now_s + JOIN_TIMEOUT_S
        hello = JoinHello(format=FORMAT, suite=SUITE, version_min=VERSION_MIN, version_max=VERSION_MAX, ticket_id=self._ticket.ticket_id)
        return NewcomerState.SAID_HELLO, (Send(hello),)

    def choose_issuer(self, issuers: JoinIssuers, now_s: float) -> Outcome:
        try:
            if not VERSION_MIN <= issuers.version <= VERSION_MAX:
                raise RemoteError(Reason.VERSION, f"version {issuers.version} there, {VERSION_MIN} to {VERSION_MAX} here")
            if fingerprint(issuers.root) != self._domain_id:
                raise InvalidObject(Reason.WRONG_DOMAIN, "the root is not the one that the ticket names")
            if len(issuers.chains) > JOIN_ISSUERS_MAX:
                raise RemoteError(Reason.FLOOD, f"more than {JOIN_ISSUERS_MAX} issuers")
            self._root = issuers.root
            offered = [self._desk(chain) for chain in issuers.chains]
            inviting = self._desk(self._ticket.issuer_chain)
        except LadingError as error:
            return self._fail(JoinFailed(error.reason, error.message))
        # The inviting desk first: it is the likeliest to be up. Only that member can certify its own node.
        others = [desk for desk in offered if desk != inviting] if self._ticket.role != ROLE_NODE else []
        self._desks = ([inviting] if inviting in offered or not others else []) + others
        return self._ask(now_s)

    def _desk(self, chain: tuple[bytes, ...]) -> tuple[bytes, HpkeKey]:
        """Signing key and HPKE key of whoever decides. Raises as ``verify_chain``."""
        roots = {self._domain_id: self._root}
        if self._ticket.role != ROLE_NODE:
            issuer = verify_issuer_chain(chain, roots, now=self._now, revocations=None, clock_unsafe=self._clock_unsafe)
            return issuer.public, issuer.hpke
        member = verify_member_chain(chain, roots, now=self._now, revocations=None, clock_unsafe=self._clock_unsafe)
        return member.owner, member.hpke

    def _ask(self, now_s: float) -> Outcome:
        self._signer, issuer_key = self._desks.pop(0)
        self._request = seal_application(
            self._application, self._key, self._network, issuer_key=issuer_key, ephemeral_seed=self._seeds.pop(0)
        )
        self._deadline_s = now_s + JOIN_TIMEOUT_S
        return NewcomerState.SAID_REQUEST, (Send(self._request),)

    def try_next(self, refusal: JoinRefusal, now_s: float) -> Outcome:
        if refusal.reason == Reason.UNREACHABLE.stable_name and self._desks and self._seeds:
            return self._ask(now_s)
        return self.take_refusal(refusal, now_s)

    def take_refusal(self, refusal: JoinRefusal, _: float) -> Outcome:
        reason = _REASONS.get(refusal.reason, Reason.REFUSED)
        return self._fail(JoinFailed(reason, refusal.text[:REFUSAL_TEXT_CHARS_MAX], by_peer=True))

    def take_answer(self, answer: JoinAnswer, _: float) -> Outcome:
        assert self._request is not None
        try:
            admission = open_admission(answer, self._hpke, self._network, request=self._request, signer=self._signer)
            joined = self._checked(admission)
        except LadingError as error:
            return self._fail(JoinFailed(error.reason, error.message))
        self._deadline_s = None
        return NewcomerState.JOINED, (joined, Close("joined"))

    def _checked(self, admission: Admission) -> Joined:
        """Raises InvalidObject when anything that the newcomer will build on does not hold."""
        if admission.domain_root != self._root:
            raise InvalidObject(Reason.WRONG_DOMAIN, "the answer names another root")
        own_root = self._application.root or self._root
        if self._ticket.role == ROLE_DOMAIN and admission.founder != self._root:
            raise InvalidObject(Reason.WRONG_DOMAIN, "another domain than the founding one took us in")
        domains = DomainSet(self._domains(admission))
        known = {entry.id: entry.value.root for entry in domains.entries}
        if own_root != admission.founder and fingerprint(own_root) not in known:
            raise InvalidObject(Reason.WRONG_DOMAIN, "the answer does not say that our domain belongs to the network")
        roots = {fingerprint(admission.founder): admission.founder, **known}
        revocations = RevocationSet(self._revocations(admission.revocations, roots))
        if self._ticket.role != ROLE_DOMAIN:
            self._check_chain(admission.chain, revocations)
        elif admission.chain != (own_root,):
            raise InvalidObject(Reason.BAD_CERTIFICATE, "another root was taken in than ours")
        now = self._now
        fences = FenceSet(self._fences(admission.fences, roots)).kept(now, revocations)
        if fences.greatest() is None:
            raise InvalidObject(Reason.FENCE, "the answer brings no fence of this network")
        book = AddressBook(self._announcements(admission.address_book, roots, revocations))
        return Joined(
            network=self._network,
            domain_id=fingerprint(own_root),
            domain_root=own_root,
            founder=admission.founder,
            domains=domains.entries,
            chain=admission.chain,
            fences=fences,
            revocations=revocations,
            address_book=book,
            member_keys=admission.member_keys,
            anchor=self._anchor(admission.anchor),
        )

    def _anchor(self, anchor: ChainAnchor | None) -> ChainAnchor | None:
        if anchor is None or self._ticket.role == ROLE_DOMAIN:
            return None
        if (len(anchor.chain), len(anchor.hash)) != (32, 32) or anchor.height < 0:
            raise InvalidObject(Reason.MALFORMED, "the answer names a chain in a form that none has")
        return anchor

    def _check_chain(self, chain: tuple[bytes, ...], revocations: RevocationSet) -> None:
        roots, now, unsafe = {self._domain_id: self._root}, self._now, self._clock_unsafe
        asked = self._application
        if self._ticket.role == ROLE_MEMBER:
            member = verify_member_chain(chain, roots, now=now, revocations=revocations, clock_unsafe=unsafe)
            fits = (member.owner, member.hpke, member.member_id) == (asked.public, asked.hpke_public, asked.member_id)
        else:
            node = verify_chain(chain, roots, now=now, revocations=revocations, clock_unsafe=unsafe)
            fits = (node.node_public, node.owner, node.holder_only) == (asked.public, self._signer, self._ticket.holder_only)
        if not fits:
            raise InvalidObject(Reason.BAD_CERTIFICATE, "the certificate is not for what was asked")

    # Entries that do not hold are left out: an issuer may know domains and nodes that are gone by now.

    def _domains(self, admission: Admission) -> list[CheckedDomain]:
        read_root(admission.founder)
        checked: list[CheckedDomain] = []
        for attested in admission.domains:
            try:
                checked.append(check_domain(attested, self._network, founder=admission.founder))
            except LadingError:
                continue
        return checked

    def _revocations(self, entries: Sequence[Attested], roots: Mapping[DomainId, bytes]) -> list[CheckedRevocation]:
        checked: list[CheckedRevocation] = []
        for attested in entries:
            try:
                checked.append(check_revocation(attested, self._network, roots))
            except LadingError:
                continue
        return checked

    def _fences(self, fences: Sequence[KnownFence], roots: Mapping[DomainId, bytes]) -> list[CheckedFence]:
        checked: list[CheckedFence] = []
        for known in fences:
            try:
                checked.append(check_fence(known, self._network, roots))
            except LadingError:
                continue
        return checked

    def _announcements(
        self, book: Sequence[Signed], roots: Mapping[DomainId, bytes], revocations: RevocationSet
    ) -> list[CheckedAnnouncement]:
        checked: list[CheckedAnnouncement] = []
        for signed in book:
            try:
                checked.append(
                    check_announcement(
                        signed, self._network, roots, now=self._now, revocations=revocations, clock_unsafe=self._clock_unsafe
                    )
                )
            except LadingError:
                continue
        return checked

    def take_end(self, _: Ended, __: float) -> Outcome:
        return self._fail(JoinFailed(Reason.TRUNCATED, f"the other side ended when we had {self.state.value}"))

    def look_at_clock(self, _: Tick, now_s: float) -> Outcome:
        assert self._deadline_s is not None
        if now_s < self._deadline_s:
            return self.state, ()
        return self._fail(JoinFailed(Reason.TIMEOUT, f"no answer within {JOIN_TIMEOUT_S} s; we had {self.state.value}"))

    def rest(self, _: Tick | Ended, __: float) -> Outcome:
        return self.state, ()

    def _fail(self, failed: JoinFailed) -> Outcome:
        self._deadline_s = None
        return NewcomerState.FAILED, (failed, Close(failed.text))


# --- the relay ----------------------------------------------------------------------------------------------------


class RelayState(enum.Enum):
    """What is known."""

    AWAIT_HELLO = "await hello"
    AWAIT_REQUEST = "await request"
    ASKED = "asked"
    DONE = "done"


_R = RelayState
_DONE = frozenset({_R.DONE})


class RelayMachine(Machine):
    """The side that let a newcomer through the fence with a ticket's join secret. It reads nothing that is sealed.

    A node that is itself the issuer answers AskIssuer with its own decision.
    """

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (_R.AWAIT_HELLO, JoinHello): ("name_issuers", frozenset({_R.AWAIT_REQUEST, _R.DONE})),
        (_R.AWAIT_REQUEST, JoinRequest): ("pass_on", frozenset({_R.ASKED, _R.DONE})),
        (_R.ASKED, IssuerAnswered): ("bring_back", frozenset({_R.AWAIT_REQUEST, _R.DONE})),
        **{(state, Tick): ("look_at_clock", frozenset({state, _R.DONE})) for state in (_R.AWAIT_HELLO, _R.AWAIT_REQUEST, _R.ASKED)},
        **{(state, Ended): ("take_end", _DONE) for state in (_R.AWAIT_HELLO, _R.AWAIT_REQUEST, _R.ASKED)},
        (_R.DONE, IssuerAnswered): ("rest", _DONE),
        (_R.DONE, Tick): ("rest", _DONE),
        (_R.DONE, Ended): ("rest", _DONE),
    }

    def __init__(
        self, *, ticket_id: bytes, root: bytes, chains: Sequence[tuple[bytes, ...]], now_s: float, is_cancelled: bool = False
    ) -> None:
        """ticket_id: whose join secret opened the connection. root: DER of the ticket's domain. chains: of the desks that can be
        reached now and may decide on this ticket, each its own certificate first, root left out; at most JOIN_ISSUERS_MAX are named.
        is_cancelled: an issuer's signed word says so; nobody else need be asked."""
        super().__init__(RelayState.AWAIT_HELLO)
        self._is_cancelled = is_cancelled
        self._ticket_id = ticket_id
        self._root = root
        self._chains = tuple(chains[:JOIN_ISSUERS_MAX])
        self._attempts = 0
        self._deadline_s: float | None = now_s + JOIN_TIMEOUT_S

    def wake_at(self) -> float | None:
        """The time limit, while there is one."""
        return self._deadline_s

    def name_issuers(self, hello: JoinHello, now_s: float) -> Outcome:
        if (hello.format, hello.suite) != (FORMAT, SUITE):
            return self._refuse(Reason.UNKNOWN_FORMAT, f"format {hello.format} suite {hello.suite}, {FORMAT} and {SUITE} wanted")
        version = min(hello.version_max, VERSION_MAX)
        if version < max(hello.version_min, VERSION_MIN):
            text = f"versions {VERSION_MIN} to {VERSION_MAX} here, {hello.version_min} to {hello.version_max} there"
            return self._refuse(Reason.VERSION, text)
        if hello.ticket_id != self._ticket_id:
            return self._refuse(Reason.TICKET_ALTERED, "another ticket than the one that opened this connection")
        if self._is_cancelled:
            return self._refuse(Reason.TICKET_CANCELLED, "the ticket was cancelled")
        self._deadline_s = now_s + JOIN_TIMEOUT_S
        return RelayState.AWAIT_REQUEST, (Send(JoinIssuers(version=version, root=self._root, chains=self._chains)),)

    def pass_on(self, request: JoinRequest, now_s: float) -> Outcome:
        self._attempts += 1
        if self._attempts > JOIN_ATTEMPTS_MAX:
            return self._refuse(Reason.FLOOD, f"more than {JOIN_ATTEMPTS_MAX} requests")
        if request.ticket_id != self._ticket_id:
            return self._refuse(Reason.TICKET_ALTERED, "another ticket than the one that opened this connection")
        if len(request.sealed) > JOIN_SEALED_BYTES_MAX or len(request.issuer_key) != 32:
            return self._refuse(Reason.TOO_LONG, f"{len(request.sealed)} sealed bytes, at most {JOIN_SEALED_BYTES_MAX} wanted")
        self._deadline_s = now_s + JOIN_TIMEOUT_S
        return RelayState.ASKED, (AskIssuer(issuer_key=HpkeKey(request.issuer_key), request=request),)

    def bring_back(self, answered: IssuerAnswered, now_s: float) -> Outcome:
        message = answered.message
        if isinstance(message, JoinRefusal) and message.reason == Reason.UNREACHABLE.stable_name:
            self._deadline_s = now_s + JOIN_TIMEOUT_S
            return RelayState.AWAIT_REQUEST, (Send(message),)
        return self._finish(Send(message))

    def look_at_clock(self, _: Tick, now_s: float) -> Outcome:
        assert self._deadline_s is not None
        if now_s < self._deadline_s:
            return self.state, ()
        return self._refuse(Reason.TIMEOUT, f"not done within {JOIN_TIMEOUT_S} s")

    def take_end(self, _: Ended, __: float) -> Outcome:
        return self._finish()

    def rest(self, _: object, __: float) -> Outcome:
        return self.state, ()

    def _refuse(self, reason: Reason, text: str) -> Outcome:
        return self._finish(Send(JoinRefusal(reason=reason.stable_name, text=text)))

    def _finish(self, *effects: Effect) -> Outcome:
        self._deadline_s = None
        return RelayState.DONE, (*effects, Close())
