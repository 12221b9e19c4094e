"""What the facts say, indexed: who belongs, where everybody is, what records there are, who holds what.

The facts actor owns one ``Knowledge`` and is the only one to change it; everybody else reads. ``check`` is pure and may run in a pool
thread; ``apply`` is quick and says which older facts are void now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from protocols.identity.certificates import NodeIdentity
from protocols.identity.fences import CheckedFence, FenceSet, check_fence
from protocols.identity.peers import peer_id_text
from protocols.identity.revocation import CheckedRevocation, RevocationSet, check_revocation
from protocols.identity.tickets import CheckedTicketEvent, TicketBook, check_ticket_event
from protocols.limits import CLOCK_SKEW_MAX_S
from protocols.signed import Signed
from protocols.types import Digest, DomainId, HashId, MemberId, NetworkId, OwnerKey, PeerId, RecordKey, SequenceRoot

Value = (
    CheckedAnnouncement
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
        self.network = network
        self.domain_id = domain_id
        self.roots = roots
        self.clear()

    def clear(self) -> None:
        """Forgets everything: the facts actor is about to read it all back."""
        self.sketch = Sketch()
        self.revocations = RevocationSet()
        self.fences = FenceSet()
        self.tickets = TicketBook()
        self.book = AddressBook()
        self.records: dict[RecordKey, RecordFacts] = {}
        self.generations: dict[PeerId, Generation] = {}
        self._announcement_ids: dict[PeerId, bytes] = {}
        self._owners: dict[OwnerKey, NodeIdentity] = {}
        self._uses: dict[bytes, int] = {}
        """Fact id of a receipt or withdrawal -> number of records that it still speaks of."""
        self.own_counter = 0

    # --- checking ---------------------------------------------------------------------------------------------------

    def check(self, kind: int, body: bytes, *, now: int, trusted: bool = False) -> Checked:
        """Whether a fact may be kept. trusted: it was kept before and is read back, so that an expired signer does not void it.
        Raises InvalidObject, DecodeError; NOT_MEMBER when its signer is not known here (yet)."""
        signed: Signed | None = None
        value: Value
        match kind:
            case FactKind.ANNOUNCEMENT:
                revocations = None if trusted else self.revocations
                value = check_announcement(decode(body, Signed), self.network, self.roots, now=now, revocations=revocations)
            case FactKind.REVOCATION:
                value = check_revocation(decode(body, Attested), self.network, self.roots)
            case FactKind.FENCE:
                value = check_fence(decode(body, KnownFence), self.network, self.roots)
            case FactKind.TICKET_STATE:
                value = check_ticket_event(decode(body, Attested), self.network, self.roots)
            case FactKind.STATEMENT:
                signed = decode(body, Signed)
                value = open_statement(signed, self.network)
                self._check_owner(value.owner, value.domain, trusted)
            case FactKind.TOMBSTONE:
                signed = decode(body, Signed)
                value = open_tombstone(signed, self.network)
                self._check_owner(value.owner, value.domain, trusted)
            case FactKind.WRAP:
                signed = decode(body, Signed)
                value = open_wrap(signed, self.network)
                self._check_owner(value.owner, value.domain, trusted)
            case FactKind.PIN:
                attested = decode(body, Attested)
                signed = attested.envelope
                value = open_pin(signed, self.network)
                self._check_operator(value, attested.chain, trusted)
            case FactKind.RECEIPT:
                signed = decode(body, Signed)
                value = open_receipt(signed, self.network)
                self._check_node(value.holder, trusted)
            case FactKind.WITHDRAWAL:
                signed = decode(body, Signed)
                value = open_withdrawal(signed, self.network)
                self._check_node(value.holder, trusted)
            case FactKind.ERASURE:
                signed = decode(body, Signed)
                value = open_erasure(signed, self.network)
                self._check_node(value.holder, trusted)
            case FactKind.REAFFIRM:
                signed = decode(body, Signed)
                value = open_reaffirm(signed, self.network)
                self._check_owner(value.confirmer, value.domain, trusted)
            case _:
                raise InvalidObject(Reason.UNKNOWN_FORMAT, f"a fact of kind {kind}, which this version does not know")
        return Checked(fact_id(kind, body), kind, body, signed, value)

    # Whoever spoke was a member when his fact was kept; what he said then stays, and the copies that hang on it, whoever is out since.

    def _check_owner(self, owner: OwnerKey, domain: DomainId, trusted: bool) -> None:
        if trusted:
            return
        identity = self._owners.get(owner)
        if identity is None:
            raise InvalidObject(Reason.NOT_MEMBER, f"{owner.hex()[:8]} is no member that is known here")
        if identity.domain_id != domain:
            raise InvalidObject(Reason.WRONG_DOMAIN, f"a member of {identity.domain_id.hex()[:8]} speaks for {domain.hex()[:8]}")
        if self.revocations.is_revoked(identity.path):
            raise InvalidObject(Reason.REVOKED, f"member {identity.member} is out")

    def _check_operator(self, pin: Pin, chain: tuple[bytes, ...], trusted: bool) -> None:
        """A domain's issuing key may pin on any of its nodes, a member on its own nodes."""
        if trusted:
            return
        authority = authority_of(chain, pin.domain, self.roots, at=pin.time_s)
        if authority.public != pin.operator or not self.revocations.is_effective(authority, pin.time_s):
            raise InvalidObject(Reason.REFUSED, "a pin by a key without the right to it")
        if authority.role is Role.MEMBER:
            entry = self.book.get(pin.node)
            if entry is None or entry.identity.member_id != authority.member_id or self.revocations.is_revoked(authority.path):
                raise InvalidObject(Reason.REFUSED, "a member pins on its own nodes only")

    def _check_node(self, peer: PeerId, trusted: bool) -> None:
        if trusted:
            return
        entry = self.book.get(peer)
        if entry is None:
            raise InvalidObject(Reason.NOT_MEMBER, f"{peer.hex()[-8:]} is no node that is known here")

    # --- applying ---------------------------------------------------------------------------------------------------

    def apply(self, fact: Checked) -> tuple[bytes, ...]:
        """Indexes a fact that is committed. Result: ids of facts that are void now."""
        self.sketch.add(fact.id)
        gone = self._apply(fact)
        for one in gone:
            self.sketch.remove(one)
        return gone

    def _apply(self, fact: Checked) -> tuple[bytes, ...]:
        value = fact.value
        match value:
            case CheckedAnnouncement():
                return self._apply_announcement(fact.id, value)
            case CheckedRevocation():
                self.revocations = self.revocations.with_checked([value])
                for facts in self.records.values():
                    facts.verdict = None
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
            case Wrap():
                assert fact.signed is not None
                facts = self._facts_of((value.owner, value.hash_id))
                facts.wraps[(value.grantee, fact.signed.object_hash)] = (fact.signed, value)
            case Pin():
                assert fact.signed is not None
                facts = self._facts_of((value.owner, value.hash_id))
                object_hash = fact.signed.object_hash
                facts.pins[(value.node, object_hash)] = (object_hash, value)
            case Receipt():
                return self._apply_receipt(fact.id, value)
            case Withdrawal():
                return self._apply_withdrawal(fact.id, value)
            case ErasureReceipt():
                self._facts_of((value.owner, value.hash_id)).erasures[value.holder] = value
            case Reaffirm():
                self._facts_of((value.owner, value.hash_id)).verdict = None
        return ()

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
        self._owners[value.identity.owner] = value.identity
        generation = (value.value.store_generation, value.value.store_id)
        if generation > self.generations.get(peer, (-1, b"")):
            self.generations[peer] = generation
        old = self._announcement_ids.get(peer)
        self._announcement_ids[peer] = one
        return (old,) if old is not None else ()

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
            gone.extend(self._tidy(facts, value.holder))
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
            gone.extend(self._tidy(facts, value.holder))
        return tuple(gone)

    def _tidy(self, facts: RecordFacts, holder: PeerId) -> list[bytes]:
        """Words of one holder about a record that later words have replaced for every sequence. Result: facts of no more use."""
        words: list[tuple[tuple[int, int, bool], bytes, frozenset[bytes]]] = []
        for one, receipt in facts.receipts.items():
            if receipt.holder == holder:
                words.append(((receipt.generation, receipt.counter, False), one, frozenset(receipt.items[0].sequence_roots)))
        for one, withdrawal in facts.withdrawals.items():
            if withdrawal.holder == holder:
                words.append(((withdrawal.generation, withdrawal.counter, True), one, frozenset(withdrawal.items[0].sequence_roots)))
        words.sort(reverse=True)
        spoken: set[bytes] = set()
        gone: list[bytes] = []
        for _, one, roots in words:
            if roots <= spoken:
                facts.receipts.pop(one, None)
                facts.withdrawals.pop(one, None)
                self._uses[one] -= 1
                if self._uses[one] == 0:
                    del self._uses[one]
                    gone.append(one)
            spoken |= roots
        return gone

    # --- reading ----------------------------------------------------------------------------------------------------

    def addresses(self) -> dict[PeerId, tuple[str, ...]]:
        """Certified nodes that are not out, and where they say they are."""
        return {
            PeerId(entry.value.peer_id): entry.value.addresses
            for entry in self.book.entries
            if not self.revocations.is_revoked(entry.identity.path)
        }

    def certified(self, now: int) -> dict[PeerId, CheckedAnnouncement]:
        """Nodes of our domain whose certificates hold now."""
        return {
            PeerId(entry.value.peer_id): entry
            for entry in self.book.entries
            if entry.identity.domain_id == self.domain_id
            and entry.identity.not_before - CLOCK_SKEW_MAX_S <= now < entry.identity.not_after
            and not self.revocations.is_revoked(entry.identity.path)
        }

    def candidates(self, now: int) -> tuple[Candidate, ...]:
        """Nodes that could hold a sequence. Of one member only as many, of as much weight, as the issuer granted: the rest waits."""
        found: list[Candidate] = []
        used: dict[MemberId, tuple[int, int]] = {}
        for peer, entry in self.certified(now).items():  # by rising peer id: the same on every node
            identity = entry.identity
            nodes, weight = used.get(identity.member_id, (0, 0))
            if nodes >= identity.nodes_max or weight + identity.weight > identity.weight_total_max:
                continue
            used[identity.member_id] = (nodes + 1, weight + identity.weight)
            found.append(Candidate(peer, identity.member_id, identity.host, identity.weight, entry.value.refuses))
        return tuple(found)

    def members(self) -> dict[MemberId, NodeIdentity]:
        """One node's identity of every member that is not out."""
        return {
            entry.identity.member_id: entry.identity for entry in self.book.entries if not self.revocations.is_revoked(entry.identity.path)
        }

    def is_known_owner(self, owner: OwnerKey) -> bool:
        identity = self._owners.get(owner)
        return identity is not None and not self.revocations.is_revoked(identity.path)

    def peer_text(self, peer: PeerId) -> str:
        return peer_id_text(peer)

    def peer_name(self, peer: PeerId) -> str:
        """`member/host` of a known node, else a short form of its id."""
        entry = self.book.get(peer)
        return f"{entry.identity.member}/{entry.identity.host}" if entry is not None else peer_id_text(peer)[-8:]

    def owner_name(self, owner: OwnerKey) -> str:
        identity = self._owners.get(owner)
        return identity.member if identity is not None else owner.hex()[:16]

    def verdict(self, facts: RecordFacts) -> Verdict:
        """What holds of a record now."""
        found = facts.verdict
        if found is None:
            objects = facts.known()
            found = facts.verdict = verdict(objects, settled=self._settled(facts, objects))
        return Verdict(
            statement=found.in_force.object_hash if found.in_force is not None else None,
            tombstone=found.tombstone,
            readable=tuple(known.object_hash for known in found.readable),
            conflict=bool(found.conflicts),
            newest=found.newest,
        )

    def _settled(self, facts: RecordFacts, objects: Iterable[Known]) -> frozenset[bytes]:
        """Statements that have receipts of two nodes for as many sequences as they have. Only asked when several could be in force."""
        statements = [known for known in objects if isinstance(known.value, Statement)]
        if len(statements) < 2:
            return frozenset()
        settled: set[bytes] = set()
        for known in statements:
            assert isinstance(known.value, Statement)
            holders: dict[bytes, set[bytes]] = {}
            for receipt in facts.receipts.values():
                if receipt.items[0].object_hash == known.object_hash:
                    for root in receipt.items[0].sequence_roots:
                        holders.setdefault(root, set()).add(receipt.holder)
            if sum(len(nodes) >= 2 for nodes in holders.values()) >= sequence_count(known.value):
                settled.add(known.object_hash)
        return frozenset(settled)

    def next_after(self, facts: RecordFacts | None) -> Next:
        """seq, follows and covers of the next object of a record."""
        return next_after(facts.known() if facts is not None else ())

    def counting(self, facts: RecordFacts, *, now: int, gone: frozenset[PeerId] = frozenset()) -> Mapping[SequenceRoot, frozenset[PeerId]]:
        """Holders of each sequence whose receipts count now."""
        # All of them, in force or not: what was promised before a delete is no promise for the record that was published anew.
        tombstones = [known.order for known in facts.known() if isinstance(known.value, Tombstone)]
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

    def find_hash_id(self, hash_id: HashId) -> tuple[RecordFacts, ...]:
        return tuple(facts for key, facts in self.records.items() if key[1] == hash_id)


def encode_signed(signed: Signed) -> bytes:
    """Body of a fact."""
    return encode(signed)
