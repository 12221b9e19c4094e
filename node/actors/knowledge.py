"""What the facts say, indexed: who belongs, where everybody is, what records there are, who holds what.

The facts actor owns one ``Knowledge`` and is the only one to change it; everybody else reads. ``check`` is pure and may run in a pool
thread; ``apply`` is quick and says which older facts are void now.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from protocols.codec import decode, encode
from protocols.errors import InvalidObject, Reason
from protocols.files.holdings import (
    ErasureReceipt,
    Receipt,
    Withdrawal,
    open_erasure,
    open_receipt,
    open_withdrawal,
)
from protocols.files.objects import (
    Pin,
    Reaffirm,
    Statement,
    Tombstone,
    Wrap,
    open_pin,
    open_reaffirm,
    open_statement,
    open_tombstone,
    open_wrap,
    wraps_digest,
)
from protocols.files.placement import Candidate
from protocols.files.precedence import Known, Next, RecordVerdict, next_after, verdict
from protocols.files.receipts import Generation, counting, newest_generations
from protocols.files.sequences import sequence_count
from protocols.gossip.facts import FactKind, fact_id
from protocols.gossip.sketch import Sketch
from protocols.identity.announce import AddressBook, CheckedAnnouncement, check_announcement
from protocols.identity.attested import Attested, KnownFence
from protocols.identity.authority import Role, authority_of
from protocols.identity.certificates import CertifiedPath, NodeIdentity
from protocols.identity.domains import CheckedDomain, DomainSet, check_domain
from protocols.identity.fences import CheckedFence, FenceSet, check_fence
from protocols.identity.peers import peer_id_text
from protocols.identity.revocation import CheckedRevocation, RevocationSet, check_revocation
from protocols.identity.tickets import CheckedTicketEvent, TicketBook, check_ticket_event
from protocols.limits import (
    CLOCK_SKEW_MAX_S,
    NODES_PER_OTHER_DOMAIN_MAX,
    REVOCATIONS_OF_OTHERS_MAX,
    REVOCATIONS_PER_OTHER_DOMAIN_MAX,
    WRAPS_PER_RECORD_MAX,
)
from protocols.signed import Signed
from protocols.types import Digest, DomainId, MemberId, NetworkId, OwnerKey, PeerId, RecordKey, SequenceRoot

from ..services import Standing, may_share, standing_of

log = logging.getLogger(__name__)

# In the units of ``_weight``: some 500 MiB of memory at the very worst, a hundred thousand records and their receipts in life.
FACTS_WEIGHT_PER_MEMBER_MAX = 1_000_000
# Of one record, by one holder: 64 GiB in sequences of 4 MiB.
ROOTS_PER_HOLDER_MAX = 16_384
# Statements and tombstones of one record; which of them holds is found by comparing each with each.
OBJECTS_PER_RECORD_MAX = 256
# Nodes of a member that are remembered, for each that it may have: old ones, and those whose word is still needed.
NODES_KNOWN_FACTOR = 4

Value = (
    CheckedDomain
    | CheckedAnnouncement
    | CheckedRevocation
    | CheckedFence
    | CheckedTicketEvent
    | Statement
    | Tombstone
    | Wrap
    | Pin
    | Receipt
    | Withdrawal
    | ErasureReceipt
    | Reaffirm
)


@dataclass(frozen=True, slots=True)
class Checked:
    """A fact whose signature and form are right and whose signer may say it. Made by ``Knowledge.check`` only."""

    id: bytes
    kind: int
    body: bytes
    signed: Signed | None
    value: Value


def records_of(value: Value) -> Iterable[RecordKey]:
    """The records that a fact speaks of."""
    match value:
        case Receipt() | Withdrawal():
            return ((item.owner, item.hash_id) for item in value.items)
        case Statement() | Tombstone() | Wrap() | Pin() | ErasureReceipt() | Reaffirm():
            return ((value.owner, value.hash_id),)
    return ()


@dataclass(slots=True)
class _Words:
    """What one holder said last of each sequence of a record. last: root -> (rank, fact id). live: fact id -> roots it still speaks of."""

    last: dict[bytes, tuple[tuple[int, int, bool], bytes]] = field(default_factory=dict)
    live: dict[bytes, int] = field(default_factory=dict)


@dataclass(eq=False)
class RecordFacts:
    """All that is known of one (owner, HashID)."""

    key: RecordKey
    objects: dict[Digest, tuple[Signed, Known]] = field(default_factory=dict)
    wraps: dict[tuple[bytes, bytes], tuple[Signed, Wrap]] = field(default_factory=dict)
    pins: dict[tuple[bytes, bytes], tuple[bytes, Pin]] = field(default_factory=dict)
    receipts: dict[bytes, Receipt] = field(default_factory=dict)
    withdrawals: dict[bytes, Withdrawal] = field(default_factory=dict)
    erasures: dict[bytes, ErasureReceipt] = field(default_factory=dict)
    reaffirms: dict[bytes, Reaffirm] = field(default_factory=dict)
    last_words: dict[PeerId, _Words] = field(default_factory=dict)
    verdict: RecordVerdict | None = None

    def known(self) -> tuple[Known, ...]:
        return tuple(known for _, known in self.objects.values())

    def statement(self, object_hash: Digest) -> tuple[Signed, Statement]:
        """A statement by its hash."""
        signed, known = self.objects[object_hash]
        assert isinstance(known.value, Statement)
        return signed, known.value

    def wraps_for(self, member: MemberId) -> tuple[Wrap, ...]:
        """Wraps for one grantee, the newest first."""
        found = [wrap for _, wrap in self.wraps.values() if wrap.grantee == member]
        return tuple(sorted(found, key=lambda wrap: (wrap.time_s, wrap.sealed_key), reverse=True))

    def grantees(self) -> tuple[MemberId, ...]:
        return tuple(sorted({wrap.grantee for _, wrap in self.wraps.values()}))

    def wraps_digest(self) -> Digest:
        return wraps_digest([signed for signed, _ in self.wraps.values()])

    def pinned(self, wish: str) -> frozenset[PeerId]:
        """Nodes whose pin in force says ``wish``."""
        newest: dict[PeerId, tuple[int, bytes, str]] = {}
        for object_hash, pin in self.pins.values():
            rank = (pin.seq, object_hash, pin.wish)
            if rank > newest.get(pin.node, (-1, b"", "")):
                newest[pin.node] = rank
        return frozenset(node for node, rank in newest.items() if rank[2] == wish)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What holds of a record, by object hash. readable: statements whose copies are kept, the one in force first."""

    statement: Digest | None
    tombstone: Known | None
    readable: tuple[Digest, ...]
    conflict: bool
    newest: Known | None


class Knowledge:
    """See the module."""

    def __init__(self, network: NetworkId, domain_id: DomainId, roots: Mapping[DomainId, bytes]) -> None:
        """roots: DER; first that of the domain that founded the network, then those that are known without anybody's word: ours."""
        self.network = network
        self.domain_id = domain_id
        self._anchors = dict(roots)
        self._founder = next(iter(roots.values()))
        self.denied: frozenset[MemberId] = frozenset()
        """Members of our domain that the ledger has put out, or is about to: no fact of ours, so reading facts back leaves it."""
        self.erased: Mapping[RecordKey, int] = {}
        """Records that the ledger has erased for good: statements up to this number are nothing any more."""
        self.withheld: frozenset[RecordKey] = frozenset()
        """Records of which an erasure is under way on the ledger."""
        self.clear()

    def clear(self) -> None:
        """Forgets everything: the facts actor is about to read it all back."""
        self.held: set[bytes] = set()
        """Ids of statements and tombstones in quarantine: this node was away longer than tombstones are kept, and no other has shown yet
        that it knows them too. They are not spoken of and count for nothing."""
        self.sketch = Sketch()
        self.shared = Sketch()
        """Of the facts in ``sketch`` those that other domains of the network know too."""
        self.domains = DomainSet()
        self.roots: Mapping[DomainId, bytes] = dict(self._anchors)
        """DER root certificates of all domains of the network that are known."""
        self._domain_ids: dict[bytes, bytes] = {}
        self.revocations = RevocationSet()
        self.fences = FenceSet()
        self.tickets = TicketBook()
        self.book = AddressBook()
        self.records: dict[RecordKey, RecordFacts] = {}
        self.generations: dict[PeerId, Generation] = {}
        self._announcement_ids: dict[PeerId, bytes] = {}
        self._owners: dict[OwnerKey, dict[DomainId, NodeIdentity]] = {}
        self._authors: dict[bytes, tuple[bytes, int]] = {}
        """Fact id -> who said it, and how much that weighs."""
        self._said: dict[bytes, int] = {}
        self._revocation_ids: dict[bytes, bytes] = {}
        self._pin_ids: dict[bytes, bytes] = {}
        self._uses: dict[bytes, int] = {}
        """Fact id of a receipt or withdrawal -> number of records that it still speaks of."""
        self.own_counter = 0
        self._certified_stamp: tuple[int, AddressBook, RevocationSet, frozenset[MemberId]] | None = None
        self._certified: dict[PeerId, CheckedAnnouncement] = {}
        self._candidates: tuple[Candidate, ...] | None = None

    # --- checking ---------------------------------------------------------------------------------------------------

    def check(self, kind: int, body: bytes, *, now: int, trusted: bool = False, time_max: int | None = None) -> Checked:
        """Whether a fact may be kept. trusted: it was kept before and is read back, so that an expired signer does not void it.
        time_max: no owner may have said it later than this; None when we cannot judge. Raises InvalidObject, DecodeError;
        NOT_MEMBER when its signer is not known here (yet); CLOCK_UNSAFE when it comes from the future."""
        signed: Signed | None = None
        value: Value
        match kind:
            case FactKind.DOMAIN:
                value = check_domain(decode(body, Attested), self.network, founder=self._founder)
            case FactKind.ANNOUNCEMENT:
                revocations = None if trusted else self.revocations
                value = check_announcement(decode(body, Signed), self.network, self.roots, now=now, revocations=revocations)
            case FactKind.REVOCATION:
                value = check_revocation(decode(body, Attested), self.network, self.roots)
            case FactKind.FENCE:
                value = check_fence(decode(body, KnownFence), self.network, self.roots)
            case FactKind.TICKET_STATE:
                value = check_ticket_event(decode(body, Attested), self.network, self.roots)
                self._check_ours(kind, value.value.domain_id)
            case FactKind.STATEMENT:
                signed = decode(body, Signed)
                value = open_statement(signed, self.network)
                self._check_owner(kind, value.owner, value.domain, trusted)
            case FactKind.TOMBSTONE:
                signed = decode(body, Signed)
                value = open_tombstone(signed, self.network)
                # Also of who is out: what was given before holds, the rest is quarantined (``_quarantined``), alike on all nodes.
                self._check_owner(kind, value.owner, value.domain, trusted, may_be_out=True)
            case FactKind.WRAP:
                signed = decode(body, Signed)
                value = open_wrap(signed, self.network)
                self._check_owner(kind, value.owner, value.domain, trusted)
            case FactKind.PIN:
                attested = decode(body, Attested)
                signed = attested.envelope
                value = open_pin(signed, self.network)
                self._check_operator(value, attested.chain, trusted)
            case FactKind.RECEIPT:
                signed = decode(body, Signed)
                value = open_receipt(signed, self.network)
                self._check_node(kind, value.holder, trusted)
            case FactKind.WITHDRAWAL:
                signed = decode(body, Signed)
                value = open_withdrawal(signed, self.network)
                self._check_node(kind, value.holder, trusted)
            case FactKind.ERASURE:
                signed = decode(body, Signed)
                value = open_erasure(signed, self.network)
                self._check_node(kind, value.holder, trusted)
            case FactKind.REAFFIRM:
                signed = decode(body, Signed)
                value = open_reaffirm(signed, self.network)
                self._check_owner(kind, value.confirmer, value.domain, trusted)
            case _:
                raise InvalidObject(Reason.UNKNOWN_FORMAT, f"a fact of kind {kind}, which this version does not know")
        if time_max is not None and isinstance(value, Statement | Tombstone | Wrap) and value.time_s > time_max:
            text = f"signed at {value.time_s}, at most {time_max} wanted: the clock of its owner {value.owner.hex()[:8]} is ahead of ours"
            raise InvalidObject(Reason.CLOCK_UNSAFE, text)
        return Checked(fact_id(kind, body), kind, body, signed, value)

    def made_here(self, kind: FactKind, signed: Signed, value: Statement | Receipt) -> Checked:
        """A fact that this node has just signed: nothing about it needs to be checked."""
        body = encode(signed)
        return Checked(fact_id(kind, body), kind, body, signed, value)

    # Whoever spoke was a member when his fact was kept; what he said then stays, and the copies that hang on it, whoever is out since.

    def _check_ours(self, kind: int, domain: bytes) -> None:
        """Raises InvalidObject(REFUSED) for a fact that only its own domain keeps, which is not ours."""
        if not may_share(kind, standing_of(domain, self.domain_id)):
            raise InvalidObject(Reason.REFUSED, f"a fact of kind {kind} of domain {domain.hex()[:8]}, which is not ours")

    def _check_owner(self, kind: int, owner: OwnerKey, domain: DomainId, trusted: bool, *, may_be_out: bool = False) -> None:
        if trusted:
            return
        identities = self._owners.get(owner)
        if identities is None:
            raise InvalidObject(Reason.NOT_MEMBER, f"{owner.hex()[:8]} is no member that is known here")
        identity = identities.get(domain)
        if identity is None:
            raise InvalidObject(Reason.WRONG_DOMAIN, f"{owner.hex()[:8]} is no member of {domain.hex()[:8]} that is known here")
        self._check_ours(kind, domain)
        if (self._is_out(identity) or self.is_denied(identity)) and not may_be_out:
            raise InvalidObject(Reason.REVOKED, f"member {identity.member} is out")

    def _is_out(self, identity: NodeIdentity) -> bool:
        """The member, not one of its nodes: a stolen card must not silence its owner."""
        path = identity.path
        member = CertifiedPath(domain_id=path.domain_id, member_id=path.member_id, serials=path.serials[1:], issued=path.issued[1:])
        return self.revocations.is_revoked(member)

    def is_denied(self, identity: NodeIdentity) -> bool:
        """Whether the ledger has put this member of our domain out. It says nothing of members of others."""
        return identity.domain_id == self.domain_id and identity.member_id in self.denied

    def is_out(self, identity: NodeIdentity) -> bool:
        """Whether a node is out: by a revocation that is a fact here, or by the ledger."""
        return self.revocations.is_revoked(identity.path) or self.is_denied(identity)

    def _check_operator(self, pin: Pin, chain: tuple[bytes, ...], trusted: bool) -> None:
        """A domain's issuing key may pin on any of its nodes, a member on its own nodes."""
        if trusted:
            return
        self._check_ours(FactKind.PIN, pin.domain)
        authority = authority_of(chain, pin.domain, self.roots, at=pin.time_s)
        if authority.public != pin.operator or not self.revocations.is_effective(authority, pin.time_s):
            raise InvalidObject(Reason.REFUSED, "a pin by a key without the right to it")
        entry = self.book.get(pin.node)
        if entry is None:
            raise InvalidObject(Reason.NOT_MEMBER, f"{pin.node.hex()[-8:]} is no node that is known here")
        if entry.identity.domain_id != pin.domain:
            raise InvalidObject(Reason.REFUSED, "a pin on another domain's node")
        is_own = entry.identity.member_id == authority.member_id and not self.revocations.is_revoked(authority.path)
        if authority.role is Role.MEMBER and not is_own:
            raise InvalidObject(Reason.REFUSED, "a member pins on its own nodes only")

    def _check_node(self, kind: int, peer: PeerId, trusted: bool) -> None:
        if trusted:
            return
        entry = self.book.get(peer)
        if entry is None:
            raise InvalidObject(Reason.NOT_MEMBER, f"{peer.hex()[-8:]} is no node that is known here")
        self._check_ours(kind, entry.identity.domain_id)

    # --- applying ---------------------------------------------------------------------------------------------------

    def apply(self, fact: Checked) -> tuple[bytes, ...]:
        """Indexes a fact that is committed. Result: ids of facts that are void now."""
        if fact.id not in self.held:
            self.sketch.add(fact.id)
            # What can be held back is of our domain alone, see ``let_go``.
            if may_share(fact.kind, Standing.NETWORK):
                self.shared.add(fact.id)
        if fact.id not in self._authors and (author := self._author_of(fact)) is not None:
            self._authors[fact.id] = author, _weight(fact.value)
            self._said[author] = self._said.get(author, 0) + _weight(fact.value)
        gone = self._apply(fact)
        for one in gone:
            self.sketch.remove(one)
            self.shared.remove(one)
            if one in self._authors:
                author, weight = self._authors.pop(one)
                self._said[author] -= weight
        return gone

    def sketch_for(self, standing: Standing) -> Sketch:
        """The facts that a peer and we have in common, or should."""
        return self.sketch if standing is Standing.DOMAIN else self.shared

    def has_room(self, fact: Checked) -> bool:
        """Whether a fact from a peer may be kept: what one member says is bounded, what one node says of one record, and what other
        domains say of themselves."""
        if isinstance(fact.value, CheckedAnnouncement | CheckedRevocation) and not self._has_room_for_other(fact.value):
            return False
        author = self._author_of(fact)
        if author is not None and self._said.get(author, 0) + _weight(fact.value) > FACTS_WEIGHT_PER_MEMBER_MAX:
            return False
        if isinstance(fact.value, Wrap | Reaffirm):
            facts = self.records.get((fact.value.owner, fact.value.hash_id))
            return facts is None or (len(facts.wraps) < WRAPS_PER_RECORD_MAX and len(facts.reaffirms) < OBJECTS_PER_RECORD_MAX)
        if isinstance(fact.value, Receipt | Withdrawal):
            for item in fact.value.items:
                facts = self.records.get((item.owner, item.hash_id))
                words = facts.last_words.get(fact.value.holder) if facts is not None else None
                if words is not None and len(words.last) >= ROOTS_PER_HOLDER_MAX:
                    return words.last.keys() >= set(item.sequence_roots)
        return True

    def _has_room_for_other(self, value: CheckedAnnouncement | CheckedRevocation) -> bool:
        if isinstance(value, CheckedAnnouncement):
            domain = value.identity.domain_id
            if domain == self.domain_id or self.book.get(value.value.peer_id) is not None:
                return True
            return sum(entry.identity.domain_id == domain for entry in self.book.entries) < NODES_PER_OTHER_DOMAIN_MAX
        if value.authority.role is Role.MEMBER or value.value.domain_id == self.domain_id:
            return True
        counts = self.revocations.issued_by_domain()
        counts.pop(self.domain_id, None)
        of_domain = counts.get(DomainId(value.value.domain_id), 0)
        return of_domain < REVOCATIONS_PER_OTHER_DOMAIN_MAX and sum(counts.values()) < REVOCATIONS_OF_OTHERS_MAX

    def _author_of(self, fact: Checked) -> bytes | None:
        """The member behind a fact; None where another rule bounds it."""
        match fact.value:
            case Receipt(holder=holder) | Withdrawal(holder=holder) | ErasureReceipt(holder=holder):
                entry = self.book.get(holder)
                return bytes(entry.identity.member_id if entry is not None else holder)
            case Statement(owner=owner, domain=domain) | Tombstone(owner=owner, domain=domain) | Wrap(owner=owner, domain=domain):
                return self._member_or_key(owner, domain)
            case Reaffirm(confirmer=confirmer, domain=domain):
                return self._member_or_key(confirmer, domain)
            case Pin(operator=operator):
                return bytes(operator)
            case CheckedTicketEvent(authority=authority):
                return bytes(authority.public) if authority.role is Role.MEMBER else None
            case _:
                return None

    def _member_or_key(self, owner: OwnerKey, domain: DomainId) -> bytes:
        identity = self._owners.get(owner, {}).get(domain)
        return bytes(identity.member_id if identity is not None else owner)

    def _apply(self, fact: Checked) -> tuple[bytes, ...]:
        value = fact.value
        match value:
            case CheckedDomain():
                return self._apply_domain(fact.id, value)
            case CheckedAnnouncement():
                return self._apply_announcement(fact.id, value)
            case CheckedRevocation():
                return self._apply_revocation(fact.id, value)
            case CheckedFence():
                self.fences = self.fences.with_checked([value])
            case CheckedTicketEvent():
                self.tickets = self.tickets.with_checked([value])
            case Statement() | Tombstone():
                assert fact.signed is not None
                facts = self._facts_of((value.owner, value.hash_id))
                object_hash = fact.signed.object_hash
                facts.objects[object_hash] = (fact.signed, Known(object_hash, value))
                facts.verdict = None
                return self._forget_objects(facts)
            case Wrap():
                assert fact.signed is not None
                facts = self._facts_of((value.owner, value.hash_id))
                facts.wraps[(value.grantee, fact.signed.object_hash)] = (fact.signed, value)
            case Pin():
                assert fact.signed is not None
                facts = self._facts_of((value.owner, value.hash_id))
                return self._apply_pin(facts, fact.id, fact.signed.object_hash, value)
            case Receipt():
                return self._apply_receipt(fact.id, value)
            case Withdrawal():
                return self._apply_withdrawal(fact.id, value)
            case ErasureReceipt():
                facts = self._facts_of((value.owner, value.hash_id))
                facts.erasures[value.holder] = value
                facts.verdict = None
            case Reaffirm():
                facts = self._facts_of((value.owner, value.hash_id))
                facts.reaffirms[fact.id] = value
                facts.verdict = None
        return ()

    def _forget_objects(self, facts: RecordFacts) -> tuple[bytes, ...]:
        """Of one record only the newest objects are kept: what they say does not depend on those before (`precedence`)."""
        if len(facts.objects) <= OBJECTS_PER_RECORD_MAX:
            return ()
        signed, known = min(facts.objects.values(), key=lambda item: item[1].order)
        del facts.objects[known.object_hash]
        return (_id_of(signed, known),)

    def _apply_pin(self, facts: RecordFacts, one: bytes, object_hash: Digest, pin: Pin) -> tuple[bytes, ...]:
        """Of each operator the greatest pin for a node is kept."""
        before = facts.pins.get((pin.node, pin.operator))
        if before is not None and (before[1].seq, before[0]) >= (pin.seq, object_hash):
            return (one,)
        facts.pins[(pin.node, pin.operator)] = (object_hash, pin)
        self._pin_ids[object_hash] = one
        return (self._pin_ids.pop(before[0]),) if before is not None else ()

    def _apply_revocation(self, one: bytes, value: CheckedRevocation) -> tuple[bytes, ...]:
        try:
            self.revocations = self.revocations.with_checked([value])
        except InvalidObject as error:
            # It was committed before it was indexed: whatever comes, what is on the disk can be read back.
            log.error("no room for a revocation error=%s", error)
            return (one,)
        for facts in self.records.values():
            facts.verdict = None
        self._revocation_ids[value.hash] = one
        gone = self._find_roots()
        if len(self.revocations) == len(self._revocation_ids):
            return gone
        out = [hash_ for hash_ in self._revocation_ids if hash_ not in self.revocations]
        return gone + tuple(self._revocation_ids.pop(hash_) for hash_ in out)

    def _apply_domain(self, one: bytes, value: CheckedDomain) -> tuple[bytes, ...]:
        self.domains = self.domains.with_checked([value])
        self._domain_ids[value.hash] = one
        out = [hash_ for hash_ in self._domain_ids if hash_ not in self.domains]
        return self._find_roots() + tuple(self._domain_ids.pop(hash_) for hash_ in out)

    def _find_roots(self) -> tuple[bytes, ...]:
        """Looks anew which domains the network has. Result: facts about nodes and fences of those that it has no more, void now."""
        before, self.roots = self.roots, {**self.domains.roots(self.revocations), **self._anchors}
        left = before.keys() - self.roots.keys()
        if not left:
            return ()
        peers = [PeerId(entry.value.peer_id) for entry in self.book.entries if entry.identity.domain_id in left]
        self.book = AddressBook(entry for entry in self.book.entries if entry.identity.domain_id not in left)
        fences = self.fences.of_domains(left).fences
        self.fences = self.fences.of_domains(self.roots)
        for identities in self._owners.values():
            for domain in left:
                identities.pop(domain, None)
        for peer in peers:
            self.generations.pop(peer, None)
        gone = [fact_id(FactKind.FENCE, encode(fence)) for fence in fences]
        return (*(self._announcement_ids.pop(peer) for peer in peers), *gone)

    def _facts_of(self, key: RecordKey) -> RecordFacts:
        facts = self.records.get(key)
        if facts is None:
            facts = self.records[key] = RecordFacts(key)
        return facts

    def _apply_announcement(self, one: bytes, value: CheckedAnnouncement) -> tuple[bytes, ...]:
        peer = PeerId(value.value.peer_id)
        before = self.book.get(peer)
        if before is not None and before.rank >= value.rank:
            return (one,)
        self.book = self.book.with_checked([value])
        identities = self._owners.setdefault(value.identity.owner, {})
        known = identities.get(value.identity.domain_id)
        # The newest certificate of the member: who was let in again is in, whatever its older nodes say.
        if known is None or value.identity.path.issued[1:] >= known.path.issued[1:]:
            identities[value.identity.domain_id] = value.identity
        generation = (value.value.store_generation, value.value.store_id)
        if generation > self.generations.get(peer, (-1, b"")):
            self.generations[peer] = generation
        old = self._announcement_ids.get(peer)
        self._announcement_ids[peer] = one
        gone = [old] if old is not None else []
        if before is None:
            gone.extend(self._forget_nodes(value.identity))
        return tuple(gone)

    def _forget_nodes(self, identity: NodeIdentity) -> list[bytes]:
        """A member certifies its nodes itself, so many are known and no more: those go whose certificates end first."""
        who = (identity.domain_id, identity.member_id)  # another domain may give the same id to somebody
        own = [entry for entry in self.book.entries if (entry.identity.domain_id, entry.identity.member_id) == who]
        over = len(own) - NODES_KNOWN_FACTOR * identity.nodes_max
        if over <= 0:
            return []
        own.sort(key=lambda entry: (entry.identity.not_after, entry.value.peer_id))
        peers = {PeerId(entry.value.peer_id) for entry in own[:over]}
        self.book = AddressBook(entry for entry in self.book.entries if entry.value.peer_id not in peers)
        for peer in peers:
            self.generations.pop(peer, None)
        return [self._announcement_ids.pop(peer) for peer in sorted(peers)]

    def _apply_receipt(self, one: bytes, value: Receipt) -> tuple[bytes, ...]:
        self.generations = newest_generations([value], self.generations)
        self._uses[one] = len(value.items)
        gone: list[bytes] = []
        for item in value.items:
            facts = self._facts_of((item.owner, item.hash_id))
            facts.receipts[one] = Receipt(
                format=value.format,
                suite=value.suite,
                network=value.network,
                holder=value.holder,
                store_id=value.store_id,
                generation=value.generation,
                counter=value.counter,
                from_s=value.from_s,
                until_s=value.until_s,
                items=(item,),
            )
            gone.extend(self._hear(facts, one, value, item.sequence_roots))
        return tuple(gone)

    def _apply_withdrawal(self, one: bytes, value: Withdrawal) -> tuple[bytes, ...]:
        self.generations = newest_generations([value], self.generations)
        self._uses[one] = len(value.items)
        gone: list[bytes] = []
        for item in value.items:
            facts = self._facts_of((item.owner, item.hash_id))
            facts.withdrawals[one] = Withdrawal(
                format=value.format,
                suite=value.suite,
                network=value.network,
                holder=value.holder,
                store_id=value.store_id,
                generation=value.generation,
                counter=value.counter,
                time_s=value.time_s,
                items=(item,),
            )
            gone.extend(self._hear(facts, one, value, item.sequence_roots))
        return tuple(gone)

    def _hear(self, facts: RecordFacts, one: bytes, value: Receipt | Withdrawal, roots: Iterable[bytes]) -> list[bytes]:
        """A holder's word about sequences of a record. Result: facts of no more use, since later words have replaced them for each."""
        words = facts.last_words.setdefault(value.holder, _Words())
        rank = (value.generation, value.counter, isinstance(value, Withdrawal))
        words.live[one] = 0
        touched = {one}
        for root in roots:
            before = words.last.get(root)
            if before is not None and before > (rank, one):
                continue
            words.last[root] = (rank, one)
            words.live[one] += 1
            if before is not None:
                words.live[before[1]] -= 1
                touched.add(before[1])
        if len(facts.objects) > 1:
            facts.verdict = None
        gone: list[bytes] = []
        for void in sorted(touched):
            if words.live[void]:
                continue
            del words.live[void]
            facts.receipts.pop(void, None)
            facts.withdrawals.pop(void, None)
            self._uses[void] -= 1
            if self._uses[void] == 0:
                del self._uses[void]
                gone.append(void)
        return gone

    # --- reading ----------------------------------------------------------------------------------------------------

    def addresses(self, *, of: DomainId | None = None) -> dict[PeerId, tuple[str, ...]]:
        """Certified nodes that are not out, and where they say they are; only those of a domain, if one is given."""
        return {
            PeerId(entry.value.peer_id): entry.value.addresses
            for entry in self.book.entries
            if of in (None, entry.identity.domain_id) and not self.is_out(entry.identity)
        }

    def certified(self, now: int) -> dict[PeerId, CheckedAnnouncement]:
        """Nodes of our domain whose certificates hold now. The same mapping until the second or the book changes."""
        stamp = (now, self.book, self.revocations, self.denied)
        if self._certified_stamp != stamp:
            self._certified_stamp, self._certified = stamp, self._find_certified(now)
            self._candidates = None
        return self._certified

    def _find_certified(self, now: int) -> dict[PeerId, CheckedAnnouncement]:
        return {
            PeerId(entry.value.peer_id): entry
            for entry in self.book.entries
            if entry.identity.domain_id == self.domain_id
            and entry.identity.not_before - CLOCK_SKEW_MAX_S <= now < entry.identity.not_after
            and not self.is_out(entry.identity)
        }

    def candidates(self, now: int) -> tuple[Candidate, ...]:
        """Nodes that could hold a sequence. Of one member only as many, of as much weight, as the issuer granted: the rest waits."""
        certified = self.certified(now)
        if self._candidates is None:
            self._candidates = self._find_candidates(certified)
        return self._candidates

    def _find_candidates(self, certified: Mapping[PeerId, CheckedAnnouncement]) -> tuple[Candidate, ...]:
        found: list[Candidate] = []
        used: dict[MemberId, tuple[int, int]] = {}
        for peer, entry in certified.items():  # by rising peer id: the same on every node
            identity = entry.identity
            nodes, weight = used.get(identity.member_id, (0, 0))
            if nodes >= identity.nodes_max or weight + identity.weight > identity.weight_total_max:
                continue
            used[identity.member_id] = (nodes + 1, weight + identity.weight)
            found.append(Candidate(peer, identity.member_id, identity.host, identity.weight, entry.value.refuses))
        return tuple(found)

    def members(self) -> dict[MemberId, NodeIdentity]:
        """One node's identity of every member, of whichever domain, that is not out."""
        known = [entry.identity for entry in self.book.entries if not self.is_out(entry.identity)]
        known.sort(key=lambda identity: identity.domain_id == self.domain_id)  # who belongs to several is shown as one of us
        return {identity.member_id: identity for identity in known}

    def is_known_owner(self, owner: OwnerKey) -> bool:
        """Whether this is a member of our domain that is not out."""
        identity = self._owners.get(owner, {}).get(self.domain_id)
        return identity is not None and not self._is_out(identity) and not self.is_denied(identity)

    def peer_text(self, peer: PeerId) -> str:
        return peer_id_text(peer)

    def peer_name(self, peer: PeerId) -> str:
        """`member/host` of a known node, else a short form of its id."""
        entry = self.book.get(peer)
        return f"{entry.identity.member}/{entry.identity.host}" if entry is not None else peer_id_text(peer)[-8:]

    def member_name(self, member: MemberId) -> str:
        """What a member is called, else the beginning of its id."""
        identity = self.members().get(member)
        return identity.member if identity is not None else member.hex()[:8]

    def owner_name(self, owner: OwnerKey) -> str:
        identities = self._owners.get(owner)
        if not identities:
            return owner.hex()[:16]
        return (identities.get(self.domain_id) or next(iter(identities.values()))).member

    def verdict(self, facts: RecordFacts) -> Verdict:
        """What holds of a record now."""
        found = facts.verdict
        if found is None:
            gone = self.erased.get(facts.key, 0)
            objects = tuple(one for one in facts.known() if isinstance(one.value, Tombstone) or one.value.seq > gone)
            found = facts.verdict = verdict(objects, settled=self._settled(facts, objects), quarantined=self._quarantined(facts))
        return Verdict(
            statement=found.in_force.object_hash if found.in_force is not None else None,
            tombstone=found.tombstone,
            readable=tuple(known.object_hash for known in found.readable),
            conflict=bool(found.conflicts),
            newest=found.newest,
        )

    def rule(self, denied: frozenset[MemberId], erased: Mapping[RecordKey, int], withheld: frozenset[RecordKey]) -> frozenset[RecordKey]:
        """What the ledger says of members and records, instead of what it said before. Result: records of which it says something else."""
        changed = frozenset(key for key in {*erased, *self.erased} if erased.get(key) != self.erased.get(key))
        self.denied, self.erased, self.withheld = denied, dict(erased), withheld
        for key in changed & self.records.keys():
            self.records[key].verdict = None
        return changed

    def is_erased(self, key: RecordKey, object_hash: Digest) -> bool:
        """Whether the ledger has erased a record together with this statement, which is known here."""
        facts = self.records.get(key)
        known = None if facts is None else facts.objects.get(object_hash)
        return known is not None and known[1].value.seq <= self.erased.get(key, 0)

    def _settled(self, facts: RecordFacts, objects: Iterable[Known]) -> frozenset[bytes]:
        """Statements that have receipts of two nodes for as many sequences as they have. Only asked when several could be in force.

        What differs in other things than the sequences, such as the copies wanted, has the receipts of all that have these sequences."""
        statements = [known for known in objects if isinstance(known.value, Statement)]
        if len(statements) < 2:
            return frozenset()
        holders: dict[bytes, dict[bytes, set[bytes]]] = {}
        genuine: dict[bytes, set[bytes]] = {}
        content = {known.object_hash: known.value.chunks_root for known in statements if isinstance(known.value, Statement)}
        for receipt in facts.receipts.values():
            entry = self.book.get(receipt.holder)
            if entry is None or self.revocations.is_revoked(entry.identity.path):
                continue
            item = receipt.items[0]
            chunks_root = content.get(item.object_hash, item.object_hash)
            by_root = holders.setdefault(chunks_root, {})
            for root in item.sequence_roots:
                by_root.setdefault(root, set()).add(receipt.holder)
            if entry.identity.owner == facts.key[0]:
                genuine.setdefault(chunks_root, set()).update(item.sequence_roots)
        settled: set[bytes] = set()
        for known in statements:
            assert isinstance(known.value, Statement)
            by_root = holders.get(known.value.chunks_root, {})
            # The owner's own nodes say which sequences there are: others may name what they like.
            roots = genuine.get(known.value.chunks_root) or by_root.keys()
            if sum(len(by_root[root]) >= 2 for root in roots) >= sequence_count(known.value):
                settled.add(known.object_hash)
        return frozenset(settled)

    def held_objects(self, facts: RecordFacts) -> dict[Digest, bytes]:
        """Hash -> fact id of what is held back of a record."""
        if not self.held:
            return {}
        ids = {object_hash: _id_of(signed, known) for object_hash, (signed, known) in facts.objects.items()}
        return {object_hash: one for object_hash, one in ids.items() if one in self.held}

    def held_records(self) -> tuple[RecordFacts, ...]:
        """Records of which something is held back."""
        return tuple(facts for facts in self.records.values() if self.held_objects(facts)) if self.held else ()

    def reaffirmed(self, value: Reaffirm) -> tuple[bytes, ...]:
        """Ids of the held facts that this frees: its signer is the owner, or another key of the same member."""
        facts = self.records.get((value.owner, value.hash_id))
        one = self.held_objects(facts).get(value.object_hash) if facts is not None else None
        mine = {identity.member_id for identity in self._owners.get(value.owner, {}).values()}
        same = value.confirmer == value.owner or self._speaks_for(value.confirmer, mine)
        return (one,) if one is not None and same else ()

    def let_go(self, ids: Iterable[bytes]) -> None:
        """Ends the quarantine of facts that are indexed already: statements and tombstones, of which no other domain hears."""
        for one in ids:
            self.held.discard(one)
            self.sketch.add(one)
        for facts in self.records.values():
            facts.verdict = None

    def _quarantined(self, facts: RecordFacts) -> frozenset[bytes]:
        """What counts for nothing until somebody with the right confirms it."""
        return self._quarantined_of_revoked(facts).union(self.held_objects(facts))

    def _quarantined_of_revoked(self, facts: RecordFacts) -> frozenset[bytes]:
        """Tombstones of a member that is out, unless another member's word shows that they were given before it was put out, or a new
        key of the member confirms them (RECORDS, Going away)."""
        # As a member of our domain: what another one says of the same key or the same id changes nothing here.
        identity = self._owners.get(facts.key[0], {}).get(self.domain_id)
        if identity is None or not self._is_out(identity):
            return frozenset()
        members = (identity.member_id,)
        cutoff = self.revocations.member_revoked_at(self.domain_id, identity.member_id) or 0
        gone_at = [w.time_s for w in facts.withdrawals.values() if w.time_s <= cutoff and self._is_witness(w.holder, members)]
        erased = {e.tombstone for e in facts.erasures.values() if e.time_s <= cutoff and self._is_witness(e.holder, members)}
        confirmed = {r.object_hash for r in facts.reaffirms.values() if self._speaks_for(r.confirmer, members)}
        return frozenset(
            known.object_hash
            for known in facts.known()
            if isinstance(known.value, Tombstone)
            and known.object_hash not in erased | confirmed
            and not any(known.value.time_s - CLOCK_SKEW_MAX_S <= at for at in gone_at)
        )

    def _is_witness(self, holder: PeerId, members: Container[MemberId]) -> bool:
        entry = self.book.get(holder)
        return entry is not None and entry.identity.member_id not in members and not self.revocations.is_revoked(entry.identity.path)

    def _speaks_for(self, confirmer: OwnerKey, members: Container[MemberId]) -> bool:
        identity = self._owners.get(confirmer, {}).get(self.domain_id)
        return identity is not None and identity.member_id in members and not self._is_out(identity)

    def next_after(self, facts: RecordFacts | None) -> Next:
        """seq, follows and covers of the next object of a record."""
        return next_after(facts.known() if facts is not None else ())

    def counting(self, facts: RecordFacts, *, now: int, gone: frozenset[PeerId] = frozenset()) -> Mapping[SequenceRoot, frozenset[PeerId]]:
        """Holders of each sequence whose receipts count now."""
        # All of them, in force or not: what was promised before a delete is no promise for the record that was published anew.
        quarantined = self._quarantined(facts)
        tombstones = [known.order for known in facts.known() if isinstance(known.value, Tombstone) and known.object_hash not in quarantined]
        return counting(
            facts.receipts.values(),
            facts.withdrawals.values(),
            record=facts.key,
            now=now,
            newest_generation=self.generations,
            certified=self.certified(now),
            gone=gone,
            tombstones=tombstones,
        )

    def receipt_of(self, facts: RecordFacts, holder: PeerId) -> str:
        """Id of a holder's latest receipt for a record, hex; empty when there is none."""
        found = [(receipt.counter, one) for one, receipt in facts.receipts.items() if receipt.holder == holder]
        return max(found)[1].hex() if found else ""

    def last_counter(self, holder: PeerId) -> int:
        """Greatest counter of any receipt or withdrawal of a node that is known."""
        counters = [0]
        for facts in self.records.values():
            counters += [receipt.counter for receipt in facts.receipts.values() if receipt.holder == holder]
            counters += [withdrawal.counter for withdrawal in facts.withdrawals.values() if withdrawal.holder == holder]
        return max(counters)


def _id_of(signed: Signed, known: Known) -> bytes:
    kind = FactKind.STATEMENT if isinstance(known.value, Statement) else FactKind.TOMBSTONE
    return fact_id(kind, encode(signed))


def _weight(value: Value) -> int:
    """What a fact takes of our memory, in units of about half a KiB."""
    match value:
        case Receipt() | Withdrawal():
            return 1 + len(value.items) + sum(len(item.sequence_roots) for item in value.items) // 4
        case Statement():
            return 4
        case Tombstone():
            return 4 + len(value.covers) // 8
        case ErasureReceipt():
            return 4 + len(value.chunks_kept) // 8
        case _:
            return 2


def encode_signed(signed: Signed) -> bytes:
    """Body of a fact."""
    return encode(signed)
