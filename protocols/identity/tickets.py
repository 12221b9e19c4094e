"""Invitations. A Ticket is what one hands to a newcomer; a TicketState is what the domain's nodes know about it.

States are made of signed events (opened, cancelled, used) that only add up: cancel and use win over opened, whoever heard of
them first.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, Label, SigningKey, hash_labelled
from ..errors import DecodeError, InvalidObject, Reason
from ..limits import (
    ADDRESSES_PER_NODE_MAX,
    CERTIFICATE_BYTES_MAX,
    CHAIN_LENGTH_MAX,
    TICKET_MEMORY_S,
    TICKETS_KEPT_PER_MEMBER_MAX,
    TICKETS_OPEN_MAX,
    TICKETS_PER_MEMBER_MAX,
)
from ..signed import sign_object
from ..types import Digest, DomainId, NetworkId
from .announce import is_address
from .attested import Attested
from .authority import Authority, Role, open_attested
from .networks import join_preshared_key
from .revocation import RevocationSet
from .textform import base64url, from_base64url, with_checksum, without_checksum

TICKET_PREFIX = "lading1"
TICKET_ID_BYTES = 16
JOIN_SECRET_BYTES = 32
TOKEN_BYTES = 16
_CONTEXT = b"ticket"
# Two certificates, sixteen addresses, keys: far below; whatever is longer is no ticket.
TICKET_TEXT_CHARS_MAX = 16 * 1024

ROLE_MEMBER = "member"
ROLE_NODE = "node"
ROLE_DOMAIN = "domain"
ROLES = (ROLE_MEMBER, ROLE_NODE, ROLE_DOMAIN)


class Address(Record, frozen=True):
    """Where a node of the network listens. peer_id: 38 bytes; multiaddr: without /p2p part."""

    peer_id: bytes
    multiaddr: str


class Ticket(Record, frozen=True):
    """domain_id: fingerprint of the domain's root, 32 bytes; it authenticates everything else. issuer_chain: of whoever decides:
    for a member or a domain the issuer's certificate, for a node the member's and its issuer's, root left out. ticket_id: 16 bytes.
    join_secret: 32 bytes. token: 16 bytes, known to nobody else (the domain keeps its hash). expires: whole seconds.
    """

    format: int
    suite: int
    network_id: bytes
    addresses: tuple[Address, ...]
    domain_id: bytes
    issuer_chain: tuple[bytes, ...]
    ticket_id: bytes
    join_secret: bytes
    token: bytes
    expires: int
    role: str
    holder_only: bool

    def __repr__(self) -> str:
        return f"Ticket({self.ticket_id.hex()[:8]}, {self.role}, expires={self.expires})"


def encode_ticket(ticket: Ticket) -> str:
    """Text form: `lading1` and base64url of the canonical encoding with its checksum."""
    return TICKET_PREFIX + base64url(with_checksum(encode(ticket), _CONTEXT))


def decode_ticket(text: str) -> Ticket:
    """The ticket in a text; blanks and line ends around and inside it are dropped.

    Raises DecodeError(TICKET_ALTERED) for everything that is not a whole ticket, (UNKNOWN_FORMAT) for one of another format.
    """
    compact = "".join(text.split())
    if not compact.startswith(TICKET_PREFIX) or len(compact) > TICKET_TEXT_CHARS_MAX:
        raise DecodeError(Reason.TICKET_ALTERED, f"a ticket begins with {TICKET_PREFIX} and has at most {TICKET_TEXT_CHARS_MAX} characters")
    data = from_base64url(compact[len(TICKET_PREFIX) :], Reason.TICKET_ALTERED)
    try:
        ticket = decode(without_checksum(data, _CONTEXT, Reason.TICKET_ALTERED), Ticket)
    except DecodeError as error:
        raise DecodeError(Reason.TICKET_ALTERED, error.message) from error
    if (ticket.format, ticket.suite) != (FORMAT, SUITE):
        raise DecodeError(Reason.UNKNOWN_FORMAT, f"ticket of format {ticket.format} suite {ticket.suite}, {FORMAT} and {SUITE} wanted")
    sizes = (len(ticket.network_id), len(ticket.domain_id), len(ticket.ticket_id), len(ticket.join_secret), len(ticket.token))
    if (
        sizes != (32, 32, TICKET_ID_BYTES, JOIN_SECRET_BYTES, TOKEN_BYTES)
        or ticket.role not in ROLES
        or ticket.expires < 0
        or len(ticket.addresses) > ADDRESSES_PER_NODE_MAX
        or any(not is_address(address.multiaddr) for address in ticket.addresses)
        or len(ticket.issuer_chain) >= CHAIN_LENGTH_MAX
        or any(len(certificate) > CERTIFICATE_BYTES_MAX for certificate in ticket.issuer_chain)
    ):
        raise DecodeError(Reason.TICKET_ALTERED, "a ticket with parts out of range")
    return ticket


def ticket_preshared_key(ticket: Ticket) -> bytes:
    """Noise pre-shared key of the connection that the ticket opens. 32 bytes."""
    return join_preshared_key(ticket.join_secret, NetworkId(ticket.network_id))


def token_hash(token: bytes) -> Digest:
    """What the domain keeps of a token. 32 bytes."""
    return hash_labelled(Label.TICKET_TOKEN, token)


# --- what the domain knows ----------------------------------------------------------------------------------------


class TicketTerms(Record, frozen=True):
    """What was promised when the ticket was opened. member_id: for role node the member whose node it will be, else empty.

    nodes_max, weight_total_max: bounds of the new member; weight: of the new node.
    """

    token_hash: bytes
    join_secret: bytes
    expires: int
    role: str
    holder_only: bool
    member_id: bytes
    nodes_max: int
    weight_total_max: int
    weight: int


class EventKind(enum.IntEnum):
    """What happened to a ticket."""

    OPENED = 1
    CANCELLED = 2
    USED = 3


class TicketEvent(Record, frozen=True):
    """One signed event. terms: of an opened one, else None. request_key, chain: of a used one, who used it and the certificates
    that were given (the new one first, root left out; for a domain its root, which was taken in); else empty."""

    format: int
    suite: int
    domain_id: bytes
    time: int
    ticket_id: bytes
    kind: int
    terms: TicketTerms | None
    request_key: bytes
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CheckedTicketEvent:
    """An event whose signature and chain are checked. Made by ``check_ticket_event`` only."""

    attested: Attested
    value: TicketEvent
    authority: Authority

    @property
    def hash(self) -> Digest:
        return self.attested.object_hash


def ticket_opened(
    key: SigningKey, chain: tuple[bytes, ...], network: NetworkId, *, domain_id: DomainId, time: int, ticket_id: bytes, terms: TicketTerms
) -> Attested:
    """Signed event: this ticket may be used. Signer: an issuer or the root; for role node also the member itself."""
    return _sign(key, chain, network, domain_id=domain_id, time=time, ticket_id=ticket_id, kind=EventKind.OPENED, terms=terms)


def ticket_cancelled(
    key: SigningKey, chain: tuple[bytes, ...], network: NetworkId, *, domain_id: DomainId, time: int, ticket_id: bytes
) -> Attested:
    """Signed event: this ticket may no longer be used."""
    return _sign(key, chain, network, domain_id=domain_id, time=time, ticket_id=ticket_id, kind=EventKind.CANCELLED)


def ticket_used(
    key: SigningKey,
    chain: tuple[bytes, ...],
    network: NetworkId,
    *,
    domain_id: DomainId,
    time: int,
    ticket_id: bytes,
    request_key: bytes,
    given: tuple[bytes, ...],
) -> Attested:
    """Signed event: this key used the ticket and was given these certificates."""
    return _sign(
        key,
        chain,
        network,
        domain_id=domain_id,
        time=time,
        ticket_id=ticket_id,
        kind=EventKind.USED,
        request_key=request_key,
        given=given,
    )


def _sign(
    key: SigningKey,
    chain: tuple[bytes, ...],
    network: NetworkId,
    *,
    domain_id: DomainId,
    time: int,
    ticket_id: bytes,
    kind: EventKind,
    terms: TicketTerms | None = None,
    request_key: bytes = b"",
    given: tuple[bytes, ...] = (),
) -> Attested:
    value = TicketEvent(
        format=FORMAT,
        suite=SUITE,
        domain_id=domain_id,
        time=time,
        ticket_id=ticket_id,
        kind=kind,
        terms=terms,
        request_key=request_key,
        chain=given,
    )
    return Attested(envelope=sign_object(value, key, Label.TICKET_STATE, network), chain=chain)


def check_ticket_event(attested: Attested, network: NetworkId, roots: Mapping[DomainId, bytes]) -> CheckedTicketEvent:
    """Raises InvalidObject(BAD_SIGNATURE | BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_… | UNKNOWN_FORMAT | MALFORMED |
    REFUSED when the signer may not open such a ticket), DecodeError."""
    value, authority = open_attested(attested, TicketEvent, Label.TICKET_STATE, network, roots)
    opened, used = value.kind == EventKind.OPENED, value.kind == EventKind.USED
    shape = (value.terms is not None, len(value.request_key), bool(value.chain))
    if value.kind not in tuple(EventKind) or shape != (opened, 32 if used else 0, used) or len(value.ticket_id) != TICKET_ID_BYTES:
        raise InvalidObject(Reason.MALFORMED, f"ticket event of kind {value.kind} with parts {shape}")
    terms = value.terms
    if terms is not None:
        _check_terms(terms)
        if not _may_speak(authority, terms):
            raise InvalidObject(Reason.REFUSED, f"a ticket for a {terms.role} opened by {authority.role.name}")
    return CheckedTicketEvent(attested, value, authority)


def _check_terms(terms: TicketTerms) -> None:
    node = terms.role == ROLE_NODE
    sizes = (len(terms.token_hash), len(terms.join_secret), len(terms.member_id))
    numbers = (terms.expires, terms.nodes_max, terms.weight_total_max, terms.weight)
    if terms.role not in ROLES or sizes != (32, JOIN_SECRET_BYTES, 32 if node else 0) or min(numbers) < 0:
        raise InvalidObject(Reason.MALFORMED, f"ticket terms with parts out of range: sizes {sizes}, numbers {numbers}")


def _may_speak(authority: Authority, terms: TicketTerms) -> bool:
    if authority.role is not Role.MEMBER:
        return True
    return terms.role == ROLE_NODE and terms.member_id == authority.member_id


class TicketStatus(enum.Enum):
    """Where a ticket stands. Time is not in it: expiry is judged where it matters."""

    UNKNOWN = "unknown"
    OPEN = "open"
    USED = "used"
    CANCELLED = "cancelled"


class TicketState:
    """What is known about one ticket: the fold of its events, in any order. Immutable."""

    __slots__ = ("_events", "domain_id", "given", "opened_by_member", "request_key", "rivals", "status", "terms", "ticket_id")

    def __init__(self, events: Iterable[CheckedTicketEvent]) -> None:
        """events: at least one, all about one ticket."""
        self._events: dict[bytes, CheckedTicketEvent] = {event.hash: event for event in events}
        ordered = sorted(self._events.values(), key=lambda event: (event.value.time, event.hash))
        self.ticket_id: bytes = ordered[0].value.ticket_id
        assert all(event.value.ticket_id == self.ticket_id for event in ordered)
        opened = [event for event in ordered if event.value.kind == EventKind.OPENED]
        # An issuer's opening stands before a member's, so that no member can take over a ticket id that it heard of.
        opened.sort(key=lambda event: event.authority.role is Role.MEMBER)
        self.terms: TicketTerms | None = opened[0].value.terms if opened else None
        self.domain_id: DomainId | None = DomainId(opened[0].value.domain_id) if opened else None
        self.opened_by_member: bytes = opened[0].authority.member_id if opened else b""
        """Id of the member who opened it; empty: an issuer or the root did."""
        heard = [event for event in ordered if self._counts(event)]
        used = [event.value for event in heard if event.value.kind == EventKind.USED]
        self.request_key: bytes = used[0].request_key if used else b""
        """The key that used the ticket, 32 bytes; empty: unused. Of two the earlier, then the smaller hash."""
        self.given: tuple[bytes, ...] = used[0].chain if used else ()
        """Certificates that were given to it."""
        self.rivals: tuple[bytes, ...] = tuple(sorted({event.request_key for event in used} - {self.request_key}))
        """Other keys that got a certificate for it while the domain was torn in two: an alert, and to be revoked."""
        self.status = self._status(cancelled=any(event.value.kind == EventKind.CANCELLED for event in heard))

    def _counts(self, event: CheckedTicketEvent) -> bool:
        # Who may cancel or use follows from the terms; until they are known nothing but an issuer's word counts.
        if self.terms is None:
            return event.authority.role is not Role.MEMBER
        return _may_speak(event.authority, self.terms) and event.value.domain_id == self.domain_id

    def _status(self, *, cancelled: bool) -> TicketStatus:
        if cancelled:
            return TicketStatus.CANCELLED
        if self.request_key:
            return TicketStatus.USED
        return TicketStatus.OPEN if self.terms is not None else TicketStatus.UNKNOWN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TicketState) and self._events.keys() == other._events.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self._events))

    def __repr__(self) -> str:
        return f"TicketState({self.ticket_id.hex()[:8]}, {self.status.value})"

    @property
    def events(self) -> tuple[Attested, ...]:
        """All events, by rising hash."""
        return tuple(self._events[hash_].attested for hash_ in sorted(self._events))

    @property
    def latest(self) -> int:
        """Newest time in it, the expiry included."""
        return max([event.value.time for event in self._events.values()] + [self.terms.expires if self.terms else 0])

    def is_open(self, now: int) -> bool:
        """May still be used by somebody new."""
        return self.status is TicketStatus.OPEN and self.terms is not None and now <= self.terms.expires

    def with_checked(self, events: Iterable[CheckedTicketEvent]) -> TicketState:
        """This state and those events, all about the same ticket."""
        return TicketState([*self._events.values(), *events])

    def merge(self, other: TicketState) -> TicketState:
        """Both states' events: cancel and use win."""
        return self.with_checked(other._events.values())


class TicketBook:
    """All tickets that a domain's nodes know of. Immutable; merging in any order gives the same book."""

    __slots__ = ("_states",)

    def __init__(self, events: Iterable[CheckedTicketEvent] = (), *, states: Mapping[bytes, TicketState] | None = None) -> None:
        self._states: dict[bytes, TicketState] = dict(states or {})
        by_ticket: dict[bytes, list[CheckedTicketEvent]] = {}
        for event in events:
            by_ticket.setdefault(event.value.ticket_id, []).append(event)
        for ticket_id, group in by_ticket.items():
            old = self._states.get(ticket_id)
            self._states[ticket_id] = old.with_checked(group) if old is not None else TicketState(group)

    def __len__(self) -> int:
        return len(self._states)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TicketBook) and self._states == other._states

    def __hash__(self) -> int:
        return hash(frozenset(self._states.values()))

    @property
    def states(self) -> tuple[TicketState, ...]:
        """All, by rising ticket id."""
        return tuple(self._states[ticket_id] for ticket_id in sorted(self._states))

    def get(self, ticket_id: bytes) -> TicketState | None:
        """The state of one ticket."""
        return self._states.get(ticket_id)

    def with_checked(self, events: Iterable[CheckedTicketEvent]) -> TicketBook:
        """This book and those events."""
        return TicketBook(events, states=self._states)

    def merge(self, other: TicketBook) -> TicketBook:
        """Both books' events."""
        return TicketBook((event for state in other._states.values() for event in state._events.values()), states=self._states)

    def kept(self, now: int, revocations: RevocationSet) -> TicketBook:
        """Without tickets that ended more than TICKET_MEMORY_S ago, without what revoked signers said, and of one member's
        tickets only the TICKETS_KEPT_PER_MEMBER_MAX that end last."""
        events = (event for state in self._states.values() for event in state._events.values())
        book = TicketBook(event for event in events if _is_standing(event, revocations))
        per_member: dict[bytes, int] = {}
        states: dict[bytes, TicketState] = {}
        for state in sorted(book.states, key=lambda state: state.latest, reverse=True):
            count = per_member[state.opened_by_member] = per_member.get(state.opened_by_member, 0) + 1
            if state.latest >= now - TICKET_MEMORY_S and (not state.opened_by_member or count <= TICKETS_KEPT_PER_MEMBER_MAX):
                states[state.ticket_id] = state
        return TicketBook(states=states)

    def answered(self, now: int) -> tuple[TicketState, ...]:
        """Tickets whose join secret a responder tries, at most TICKETS_OPEN_MAX, none that have expired: open ones, then for a lost
        answer used ones, then cancelled ones, so that whoever holds one hears what became of it. Issuers' tickets first, of one member
        at most TICKETS_PER_MEMBER_MAX; within that the longest-lived."""
        alive = [s for s in self.states if s.terms and now <= s.terms.expires]
        alive.sort(key=lambda s: (_ANSWERED.index(s.status), s.opened_by_member != b"", -s.terms.expires if s.terms else 0))
        per_member: dict[bytes, int] = {}
        chosen: list[TicketState] = []
        for state in alive:
            count = per_member[state.opened_by_member] = per_member.get(state.opened_by_member, 0) + 1
            if not state.opened_by_member or count <= TICKETS_PER_MEMBER_MAX:
                chosen.append(state)
        return tuple(chosen[:TICKETS_OPEN_MAX])


# A ticket with terms has one of these.
_ANSWERED = (TicketStatus.OPEN, TicketStatus.USED, TicketStatus.CANCELLED)


def _is_standing(event: CheckedTicketEvent, revocations: RevocationSet) -> bool:
    if event.authority.role is Role.MEMBER and revocations.is_revoked(event.authority.path):
        return False
    return revocations.is_effective(event.authority, event.value.time)
