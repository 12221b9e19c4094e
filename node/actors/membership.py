"""Who belongs: proving peers, tickets, admissions, announcements, revocations and fences. Owns no state of its own: all of it is facts."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable

import trio

from protocols.auth import machine as a
from protocols.auth.machine import AWAY_TOO_LONG_TEXT
from protocols.codec import encode
from protocols.crypto import FORMAT, SUITE
from protocols.effects import Close, Send
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason, Refused, RemoteError, UsageError
from protocols.gossip.facts import FactKind
from protocols.identity.announce import sign_announcement
from protocols.identity.certificates import MEMBER, NodeIdentity, chain_validity, read_root
from protocols.identity.clockfloor import ClockSource
from protocols.identity.fences import FenceSet, sign_fence
from protocols.identity.networks import join_preshared_key
from protocols.identity.peers import peer_id_text
from protocols.identity.revocation import RevocationKind, sign_revocation
from protocols.identity.tickets import (
    ROLE_DOMAIN,
    ROLE_MEMBER,
    ROLE_NODE,
    Address,
    Ticket,
    TicketStatus,
    TicketTerms,
    encode_ticket,
    ticket_cancelled,
    ticket_opened,
    token_hash,
)
from protocols.join import machine as j
from protocols.join.decision import Declined, Desk, Dowry, decide_join
from protocols.join.messages import ChainAnchor, JoinAnswer, JoinRefusal, JoinRequest, RenewRequest
from protocols.limits import ADDRESSES_PER_NODE_MAX, DOMAINS_MAX, FRAME_BYTES_MAX_UNPROVEN, JOIN_SEALED_BYTES_MAX, TICKETS_OPEN_MAX
from protocols.registry import decode_message, encode_message
from protocols.types import DomainId, MemberId, PeerId, UnixSeconds

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..own import OwnKeys
from ..services import AUTH, JOIN, TIMES, may_open, standing_of
from ..transport.port import Connection, PresharedKey, Stream, StreamBroken, StreamEnded, Transport
from .facts import FactsAccepted, FactsHandle
from .knowledge import Knowledge
from .peers import Peers
from .renewal import Renewal, kept_chain, with_chain

log = logging.getLogger(__name__)

VERSION_MIN = 1
VERSION_MAX = 1
FEATURES: tuple[str, ...] = ()
ANNOUNCE_INTERVAL_S = 3600.0
# What an invitation grants by default: enough for a family of machines, little enough that one member cannot fill everybody's disk.
NODES_PER_MEMBER = 16
WEIGHT_PER_MEMBER = 1600
WEIGHT_PER_NODE = 100
JOIN_LINGER_S = 10.0
EXPIRY_LOOK_S = 60.0
# A connected node decides within milliseconds; a newcomer waits for us.
RELAY_PATIENCE_S = 5.0


class Membership:
    """See the module."""

    def __init__(
        self,
        own: OwnKeys,
        facts: FactsHandle,
        transport: Transport,
        clock: Clock,
        entropy: Entropy,
        bus: Bus,
        *,
        store: Callable[[], tuple[bytes, int, int, bool]],
        keep_chain: Callable[[bytes], Awaitable[None]],
        kept_chain: Callable[[], bytes | None],
        member_lifetime_s: int,
        node_lifetime_s: int,
    ) -> None:
        """store: id and generation of our chunk store, free bytes, whether it refuses new sequences.
        keep_chain: writes down an encoded certificate chain for the next start; kept_chain: the one that was written down.
        lifetimes: of certificates given here, seconds."""
        self.own = own
        self._facts = facts
        self._transport = transport
        self._clock = clock
        self._entropy = entropy
        self._bus = bus
        self._store = store
        self._keep_chain = keep_chain
        self._kept_chain = kept_chain
        self.addresses: tuple[str, ...] = ()
        self._announce_now = trio.Event()
        self._said: tuple[object, ...] = ()
        self._peers: Peers | None = None
        self.clock_source: Callable[[], ClockSource] = lambda: ClockSource.MACHINE
        self.chain_anchor: Callable[[], ChainAnchor | None] = lambda: None
        """Whose time we use. With the floor's, certificates that are not yet valid pass, in `auth` only."""
        self.clock_backed: Callable[[], bool] = lambda: True
        self.clock_judges: Callable[[], bool] = lambda: True
        """Whether our time may stand in a certificate that nobody asked for."""
        self.hear_time: Callable[[MemberId, int], None] = lambda member, time: None
        """Called with every time that a proven member tells."""
        self.alerts: dict[str, str] = {}
        self.member_keys = b""
        """Encoded key file of our member, given to its further full nodes; empty: none are let in."""
        self.on_new_chain: Callable[[OwnKeys], None] = lambda own: None
        """Told when this node's certificates are newer ones."""
        self._lifetimes_s = member_lifetime_s, node_lifetime_s
        self.renewal = Renewal(self, clock, entropy, bus, member_lifetime_s=member_lifetime_s, node_lifetime_s=node_lifetime_s)

    def attach(self, peers: Peers) -> None:
        """Whom to tell of revocations and new addresses."""
        self._peers = peers

    @property
    def knowledge(self) -> Knowledge:
        return self._facts.knowledge

    def now(self) -> UnixSeconds:
        return UnixSeconds(int(self._clock.now()))

    # --- proving ----------------------------------------------------------------------------------------------------

    async def prove(self, connection: Connection, expected: PeerId | None) -> NodeIdentity:
        """Runs `auth` on the first stream of a connection. Keeps what was learnt on the way, whatever becomes of it.
        Raises RemoteError with the reason; FENCE when the connection stands under an old fence and must be dialled anew."""
        if connection.outbound:
            stream = await connection.open_stream(AUTH)
        else:
            stream = await connection.accept_stream()
            if stream.protocol != AUTH:
                raise RemoteError(Reason.OUT_OF_ORDER, f"{stream.protocol} before {AUTH}")
        machine = a.AuthMachine(
            role=a.AuthRole.INITIATOR if connection.outbound else a.AuthRole.RESPONDER,
            network=self.own.network_id,
            chain=self.own.node_chain,
            key=self.own.node,
            roots=self.knowledge.roots,
            revocations=self.knowledge.revocations,
            fences=self.knowledge.fences,
            connection_fence=connection.preshared_key.id,
            version_min=VERSION_MIN,
            version_max=VERSION_MAX,
            features=FEATURES,
            nonce=self._entropy.token(32),
            handshake_hash=connection.handshake_hash,
            peer_id=connection.remote,
            now=self.now(),
            clock_unsafe=self.clock_source() is ClockSource.FLOOR,
            clock_agreed=self.clock_source() is ClockSource.AGREED,
        )
        proven: a.Proven | None = None
        failed: a.Failed | None = None
        effects = machine.start(self._clock.monotonic())
        while True:
            for effect in effects:
                match effect:
                    case Send(message):
                        await stream.send(encode_message("auth", message))
                    case a.LearnedRevocations(revocations):
                        await self._facts.submit([(FactKind.REVOCATION, encode(one.attested)) for one in revocations], connection.remote)
                    case a.LearnedFences(fences):
                        await self._facts.submit([(FactKind.FENCE, encode(one.known)) for one in fences], connection.remote)
                    case a.ToldTime(member, time, domain):
                        if standing_of(domain, self.own.domain_id) in TIMES:
                            self.hear_time(member, time)
                    case a.Proven():
                        proven = effect
                    case a.Failed():
                        failed = effect
                    case Close():
                        pass
                    case _:
                        raise AssertionError(effect)
            if proven is not None or failed is not None:
                break
            wake_at = machine.wake_at()
            event: object = a.Tick()
            with trio.move_on_after(max(0.0, (wake_at or self._clock.monotonic()) - self._clock.monotonic())):
                try:
                    event = decode_message("auth", await stream.receive(), bytes_max=FRAME_BYTES_MAX_UNPROVEN)
                except (StreamEnded, StreamBroken):
                    event = a.Ended()
            effects = machine.step(event, self._clock.monotonic())
        with contextlib.suppress(StreamBroken):
            await stream.finish()
        if failed is not None:
            if failed.reason is Reason.AWAY_TOO_LONG and failed.by_peer:
                self.alerts["away"] = f"this node was {AWAY_TOO_LONG_TEXT}, then here: lading join TICKET --again"
            raise RemoteError(failed.reason, failed.text)
        assert proven is not None
        self.alerts.pop("away", None)
        # Proving takes as long as the peer likes, within limits: what was learnt meanwhile counts.
        if self._is_out(proven.identity):
            raise RemoteError(Reason.REVOKED, f"member {proven.identity.member} is out")
        if (untimely := self._untimely(proven.identity, proven.identity.not_after)) is not None:
            raise untimely
        if not proven.current:
            raise RemoteError(Reason.FENCE, "the connection stands under an old fence; dialling anew")
        return proven.identity

    def _untimely(self, identity: NodeIdentity, ends: UnixSeconds) -> RemoteError | None:
        """Why its certificates do not hold now; None when they do. The time may have become another one since they were shown."""
        now = self.now()
        if ends <= now:
            return RemoteError(Reason.CERTIFICATE_EXPIRED, f"a certificate of {identity.member} ended at {ends}, now is {now}")
        if identity.not_before > now and self.clock_source() is not ClockSource.FLOOR:
            text = f"a certificate of {identity.member} begins at {identity.not_before}, now is {now}"
            return RemoteError(Reason.CERTIFICATE_NOT_YET_VALID, text)
        return None

    # --- keys of the fence ------------------------------------------------------------------------------------------

    def dial_keys(self) -> tuple[PresharedKey, ...]:
        """Fences to dial with and to answer, newest first; those long forgotten are left out."""
        return tuple(PresharedKey("fence", key.id, key.psk) for key in self._fences().psk(self.own.network_id))

    def _fences(self) -> FenceSet:
        """Those that count: of whichever domain of the network, but not what a revoked issuer made, nor what was replaced too long ago.
        While there are no others those do too: behind no fence at all nobody could be told of a new one."""
        kept = self.knowledge.fences.kept(self.now(), self.knowledge.revocations)
        return kept if len(kept) else self.knowledge.fences

    def refresh_keys(self) -> None:
        """Tells the transport whom to let through: fences that are not forgotten, then open tickets."""
        tickets = [
            PresharedKey("join", state.ticket_id, join_preshared_key(state.terms.join_secret, self.own.network_id))
            for state in self.knowledge.tickets.answered(self.now())
            if state.terms is not None
        ]
        self._transport.set_preshared_keys((*self.dial_keys(), *tickets[:TICKETS_OPEN_MAX]))

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Announces this node, keeps the fence's keys current, drops who was revoked."""
        self.refresh_keys()
        with self._bus.subscribe(FactsAccepted, name="membership") as accepted:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce_loop)
                nursery.start_soon(self._expire_sessions)
                nursery.start_soon(self.renewal.run)
                async for fact in accepted:
                    if fact.kinds & {FactKind.DOMAIN, FactKind.FENCE, FactKind.TICKET_STATE, FactKind.REVOCATION}:
                        self.refresh_keys()
                    if FactKind.REVOCATION in fact.kinds:
                        await self.drop_revoked()
                    if fact.kinds & {FactKind.DOMAIN, FactKind.ANNOUNCEMENT, FactKind.FENCE}:
                        self.peers_now.wake()

    @property
    def peers_now(self) -> Peers:
        assert self._peers is not None
        return self._peers

    async def drop_revoked(self) -> None:
        """Ends the sessions of all who are out, or whose certificates have run out since they were shown: all at once, since a peer
        that takes nothing makes its own end last."""
        async with trio.open_nursery() as nursery:
            for session in list(self.peers_now.sessions.values()):
                if self._is_out(session.identity):
                    log.warning("peer revoked peer=%s member=%s", session.peer.hex()[-8:], session.identity.member)
                    nursery.start_soon(self.peers_now.drop, session.peer, "revoked")
                elif (untimely := self._untimely(session.identity, self._ends(session.identity))) is not None:
                    log.info("certificate does not hold any more peer=%s why=%s", session.peer.hex()[-8:], untimely.message)
                    nursery.start_soon(self.peers_now.drop, session.peer, untimely.message)

    def _ends(self, identity: NodeIdentity) -> UnixSeconds:
        """When a peer's certificates run out: those that it showed, or has announced since."""
        entry = self.knowledge.book.get(identity.peer_id)
        return max(identity.not_after, entry.identity.not_after if entry is not None else identity.not_after)

    def _is_out(self, identity: NodeIdentity) -> bool:
        """Revoked, put out by the ledger, or of a domain that does not belong to the network any more."""
        return identity.domain_id not in self.knowledge.roots or self.knowledge.is_out(identity)

    async def _expire_sessions(self) -> None:
        while True:
            await trio.sleep(EXPIRY_LOOK_S)
            self.refresh_keys()
            await self.drop_revoked()

    async def check_again(self) -> None:
        """Another time is used than before: judges by it the certificates of all sessions, our own kept one, and tickets."""
        await self.drop_revoked()
        self.adopt_chain(self._kept_chain())
        self.refresh_keys()
        self._announce_now.set()
        self.peers_now.wake()

    # --- our own certificate ----------------------------------------------------------------------------------------

    def adopt_chain(self, encoded: bytes | None) -> None:
        """The newer certificates that an earlier run kept."""
        found = kept_chain(encoded, self.own, self.now())
        if found is not None:
            self._set_own(*found)

    async def take_chain(self, chain: tuple[bytes, ...], identity: NodeIdentity) -> None:
        """This node stands under a newer chain now: written down, used, announced."""
        await self._keep_chain(encode(chain))
        self._set_own(chain, identity)
        await self.announce()

    def _set_own(self, chain: tuple[bytes, ...], identity: NodeIdentity) -> None:
        self.own = self.own.with_node_chain(chain, identity)
        self.on_new_chain(self.own)

    async def _announce_loop(self) -> None:
        while True:
            try:
                await self.announce()
            except InvalidObject as error:
                # Our own certificate does not hold at the time that we use: nobody would take what it stands under.
                log.warning("not announced error=%s", error)
            self._announce_now = trio.Event()
            with trio.move_on_after(ANNOUNCE_INTERVAL_S):
                await self._announce_now.wait()

    def announce_soon(self) -> None:
        """Something that others should know of this node has changed."""
        store_id, generation, _, refuses = self._store()
        if (self.addresses, store_id, generation, refuses) != self._said:
            self._announce_now.set()

    async def announce(self) -> None:
        """Signs and spreads where this node is and what it has room for. With a certificate that has run out nobody would listen: then
        the renewal announces."""
        if self.own.identity.not_after <= self.now():
            log.warning("not announced, this node's certificate has run out at=%d", self.own.identity.not_after)
            return
        store_id, generation, free_bytes, refuses = self._store()
        self._said = (self.addresses, store_id, generation, refuses)
        before = self.knowledge.book.get(self.own.peer_id)
        # Above what others may remember of us even when our own database is gone: the time in milliseconds never comes again.
        counter = max(int(self._clock.now() * 1000), before.value.counter + 1 if before is not None else 0)
        signed = sign_announcement(
            self.own.node,
            self.own.network_id,
            peer_id=self.own.peer_id,
            addresses=self.addresses[:ADDRESSES_PER_NODE_MAX],
            chain=self.own.node_chain,
            counter=counter,
            store_id=store_id,
            store_generation=generation,
            free_bytes=free_bytes,
            refuses=refuses,
            version=VERSION_MAX,
        )
        await self._facts.submit_own((FactKind.ANNOUNCEMENT, encode(signed)))

    # --- tickets ----------------------------------------------------------------------------------------------------

    async def invite(self, *, node: bool, holder_only: bool, expires_s: int, domain: bool = False) -> dict[str, object]:
        """A new ticket: for a member, for a further ``node`` of our member, or for a ``domain`` that comes into this network.
        Raises Refused when this node may not let anybody in."""
        own, now = self.own, self.now()
        if domain:
            self._check_may_take_domains()
        if node:
            if own.member is None:
                raise Refused(Reason.REFUSED, "a holder-only node cannot invite further nodes", hint="run it on the member's own node")
            key, chain = own.member.signing, own.member.chain
        else:
            if own.issuer is None:
                raise Refused(Reason.REFUSED, "this node holds no issuing key", hint="run `lading invite` on a node that founded or issues")
            key, chain = own.issuer.signing, own.issuer.chain
        open_now = sum(state.is_open(now) for state in self.knowledge.tickets.states)
        if open_now >= TICKETS_OPEN_MAX:
            raise Refused(Reason.FULL, f"{open_now} tickets are open, at most {TICKETS_OPEN_MAX}", hint="lading invite --list, --cancel")
        ticket_id, join_secret, token = self._entropy.token(16), self._entropy.token(32), self._entropy.token(16)
        addresses = [Address(own.peer_id, address) for address in self.addresses]
        for peer, others in self.knowledge.addresses(of=own.domain_id).items():
            if peer != own.peer_id:
                addresses.extend(Address(peer, address) for address in others[:2])
        ticket = Ticket(
            format=FORMAT,
            suite=SUITE,
            network_id=own.network_id,
            addresses=tuple(addresses[:ADDRESSES_PER_NODE_MAX]),
            domain_id=own.domain_id,
            issuer_chain=chain,
            ticket_id=ticket_id,
            join_secret=join_secret,
            token=token,
            expires=now + expires_s,
            role=ROLE_NODE if node else ROLE_DOMAIN if domain else ROLE_MEMBER,
            holder_only=holder_only,
        )
        terms = TicketTerms(
            token_hash=token_hash(token),
            join_secret=join_secret,
            expires=now + expires_s,
            role=ticket.role,
            holder_only=holder_only,
            member_id=own.member_id if node else b"",
            nodes_max=NODES_PER_MEMBER,
            weight_total_max=WEIGHT_PER_MEMBER,
            weight=WEIGHT_PER_NODE,
        )
        event = ticket_opened(key, chain, own.network_id, domain_id=own.domain_id, time=now, ticket_id=ticket_id, terms=terms)
        await self._facts.submit_own((FactKind.TICKET_STATE, encode(event)))
        return {"ticket": encode_ticket(ticket), "id": ticket_id.hex(), "expires": now + expires_s, "role": ticket.role}

    def _check_may_take_domains(self) -> None:
        own = self.own
        if own.domain_id != own.founder:
            name = read_root(own.roots[own.founder]).name
            raise Refused(
                Reason.REFUSED,
                f"only the domain that founded this network takes others into it, and that is {name}",
                hint=f"ask an issuer of {name}: lading invite --domain",
            )
        if len(self.knowledge.roots) >= DOMAINS_MAX:
            raise Refused(Reason.FULL, f"{len(self.knowledge.roots)} domains, at most {DOMAINS_MAX} in one network")

    def tickets(self) -> list[dict[str, object]]:
        """All tickets this node knows of, newest end first."""
        now = self.now()
        rows: list[dict[str, object]] = []
        for state in sorted(self.knowledge.tickets.states, key=lambda state: -state.latest):
            expired = state.terms is not None and now > state.terms.expires
            status = "expired" if expired and state.status is TicketStatus.OPEN else state.status.value
            rows.append(
                {
                    "id": state.ticket_id.hex(),
                    "status": status,
                    "role": state.terms.role if state.terms else "",
                    "expires": state.terms.expires if state.terms else 0,
                    "alert": bool(state.rivals),
                }
            )
        return rows

    async def cancel_ticket(self, text: str) -> dict[str, object]:
        """Ends an open ticket, named by its id or a unique prefix."""
        found = [state for state in self.knowledge.tickets.states if state.ticket_id.hex().startswith(text.lower())]
        if not text or len(found) != 1:
            raise LadingError(Reason.NOT_FOUND, f"{len(found)} tickets begin with {text!r}", hint="lading invite --list")
        state = found[0]
        if state.status is TicketStatus.USED:
            raise Refused(Reason.TICKET_USED, "this ticket has been used", hint="lading member revoke MEMBER puts the newcomer out again")
        own = self.own
        if own.issuer is not None:
            key, chain = own.issuer.signing, own.issuer.chain
        elif own.member is not None:
            key, chain = own.member.signing, own.member.chain
        else:
            raise Refused(Reason.REFUSED, "a holder-only node cannot cancel tickets")
        event = ticket_cancelled(key, chain, own.network_id, domain_id=own.domain_id, time=self.now(), ticket_id=state.ticket_id)
        await self._facts.submit_own((FactKind.TICKET_STATE, encode(event)))
        return {"id": state.ticket_id.hex(), "status": "cancelled"}

    # --- members ----------------------------------------------------------------------------------------------------

    def members(self) -> list[dict[str, object]]:
        """Every member, of whichever domain, with a node in the address book, revoked ones included. Validity is that of the member's
        newest certificate; that of each node's, which may end sooner, stands beside it."""
        rows: dict[tuple[DomainId, MemberId], dict[str, object]] = {}
        for entry in self.knowledge.book.entries:
            identity = entry.identity
            not_before, not_after = chain_validity(entry.value.chain[1:], MEMBER)
            row = rows.setdefault(
                (identity.domain_id, identity.member_id),
                {
                    "member": identity.member_id.hex(),
                    "name": identity.member,
                    "domain": identity.domain,
                    "domain_id": identity.domain_id.hex(),
                    "owner": identity.owner.hex(),
                    "nodes": [],
                    "revoked": self.knowledge.is_out(identity),
                    "not_before": not_before,
                    "not_after": not_after,
                    "nodes_not_after": {},
                },
            )
            row["not_after"] = max(int(str(row["not_after"])), not_after)
            nodes, ends = row["nodes"], row["nodes_not_after"]
            assert isinstance(nodes, list)
            assert isinstance(ends, dict)
            nodes.append(f"{identity.host} {peer_id_text(identity.peer_id)}")
            ends[peer_id_text(identity.peer_id)] = identity.not_after
        return sorted(rows.values(), key=lambda row: (row["domain_id"] != self.own.domain_id.hex(), str(row["domain"]), str(row["name"])))

    def member_named(self, text: str) -> MemberId:
        """A member by id, unique prefix of it, or name, ours before another domain's. Raises LadingError(NOT_FOUND), UsageError when it is
        not unique."""
        known = self.knowledge.members()
        exact = [member for member in known if member.hex() == text.lower()]
        found = exact or [m for m, identity in known.items() if m.hex().startswith(text.lower()) or identity.member == text]
        # Whom another domain calls the same does not stand in the way of one of us.
        found = [m for m in found if known[m].domain_id == self.own.domain_id] or found
        if not text or not found:
            raise LadingError(Reason.NOT_FOUND, f"no member is called {text!r}", hint="lading member list")
        if len(found) > 1:
            raise UsageError(f"{len(found)} members match {text!r}", hint="give more of the id: lading member list")
        return found[0]

    async def revoke(self, text: str, cause: str) -> dict[str, object]:
        """Puts a member out: a revocation, then a new fence that it does not know. Raises Refused on a node that may not."""
        own = self.own
        if own.issuer is None:
            raise Refused(Reason.REFUSED, "this node holds no issuing key", hint="run it on a node that founded or issues")
        member = self.member_named(text)
        known = self.knowledge.members().get(member)
        if known is not None and known.domain_id != own.domain_id:
            raise Refused(
                Reason.WRONG_DOMAIN,
                f"{known.member} is a member of {known.domain}, and only that domain puts its members out",
                hint=f"ask an issuer of {known.domain}",
            )
        if member == own.member_id:
            raise Refused(Reason.REFUSED, "a member cannot put itself out", hint="run it on another issuing node")
        return await self.put_out(member, cause)

    async def put_out(self, member: MemberId, cause: str) -> dict[str, object]:
        """As ``revoke``, for another member of our domain whom an issuing node puts out."""
        own, now = self.own, self.now()
        assert own.issuer is not None
        entry = sign_revocation(
            own.issuer.signing,
            own.issuer.chain,
            own.network_id,
            domain_id=own.domain_id,
            kind=RevocationKind.MEMBER,
            subject=member,
            time=now,
            reason=cause,
        )
        # First out, then the new secret: whoever is still connected would hear it.
        await self._facts.submit_own((FactKind.REVOCATION, encode(entry)))
        await self.drop_revoked()
        await self.rotate_fence()
        return {"member": member.hex(), "revoked": now, "fence": self._fences().next_number() - 1}

    async def rotate_fence(self) -> None:
        """A new fence under the next number."""
        own = self.own
        assert own.issuer is not None
        fence = sign_fence(
            own.issuer.signing,
            own.issuer.chain,
            own.network_id,
            domain_id=own.domain_id,
            number=self._fences().next_number(),
            time=self.now(),
            secret=self._entropy.token(32),
        )
        await self._facts.submit_own((FactKind.FENCE, encode(fence)))

    # --- joining ----------------------------------------------------------------------------------------------------

    async def serve_join(self, connection: Connection) -> None:
        """A newcomer with a ticket: names the issuers, passes its request to one of them, brings the answer back."""
        stream = await connection.accept_stream()
        if stream.protocol != JOIN:
            raise RemoteError(Reason.OUT_OF_ORDER, f"{stream.protocol} where {JOIN} was due")
        desks = self.desks()
        root = self.own.roots[self.own.domain_id]
        state = self.knowledge.tickets.get(connection.preshared_key.id)
        is_node = state is not None and state.terms is not None and state.terms.role == ROLE_NODE
        chains = [desk.chain for desk in desks if (len(desk.chain) == 2) == is_node]
        machine = j.RelayMachine(
            ticket_id=connection.preshared_key.id,
            root=root,
            chains=chains,
            now_s=self._clock.monotonic(),
            is_cancelled=state is not None and state.status is TicketStatus.CANCELLED,
        )
        done = False
        while not done:
            wake_at = machine.wake_at()
            if wake_at is None:
                break
            event: object = j.Tick()
            with trio.move_on_after(max(0.0, wake_at - self._clock.monotonic())):
                try:
                    event = decode_message("join", await stream.receive(), bytes_max=FRAME_BYTES_MAX_UNPROVEN)
                except (StreamEnded, StreamBroken):
                    event = j.Ended()
            pending = [event]
            while pending:
                for effect in machine.step(pending.pop(0), self._clock.monotonic()):
                    match effect:
                        case Send(message):
                            await stream.send(encode_message("join", message))
                        case j.AskIssuer(issuer_key, request):
                            pending.append(j.IssuerAnswered(await self._decide(issuer_key, request)))
                        case Close():
                            done = True
                        case _:
                            raise AssertionError(effect)
        with contextlib.suppress(StreamBroken):
            await stream.finish()
            # The newcomer closes when it has read: closing first could cost it the answer.
            with trio.move_on_after(JOIN_LINGER_S):
                await connection.closed.wait()

    def desks(self) -> list[Desk]:
        """What this node may decide about: as an issuer about members, as a member's full node about that member's nodes."""
        own = self.own
        root = own.roots[own.domain_id]
        member_lifetime_s, node_lifetime_s = self._lifetimes_s
        desks: list[Desk] = []
        if own.issuer is not None:
            desks.append(
                Desk(own.issuer.signing, own.issuer.hpke, own.issuer.chain, own.network_id, own.domain_id, root, member_lifetime_s)
            )
        if own.member is not None:
            desks.append(Desk(own.member.signing, own.member.hpke, own.member.chain, own.network_id, own.domain_id, root, node_lifetime_s))
        return desks

    async def _decide(self, issuer_key: bytes, request: JoinRequest) -> JoinAnswer | JoinRefusal:
        """The answer of the desk with this key: ours, or that of a connected node."""
        if any(desk.hpke.public == issuer_key for desk in self.desks()):
            return await self._decide_here(issuer_key, request)
        for peer, session in sorted(self.peers_now.sessions.items()):
            if not may_open(JOIN, standing_of(session.identity.domain_id, self.own.domain_id)):
                continue
            answer = await self._pass_on(peer, request)
            if not isinstance(answer, JoinRefusal) or answer.reason != Reason.UNREACHABLE.stable_name:
                return answer
        return JoinRefusal(Reason.UNREACHABLE.stable_name, "the node that gave this ticket cannot be reached now; try again later")

    async def _pass_on(self, peer: PeerId, request: JoinRequest) -> JoinAnswer | JoinRefusal:
        """One connected node's answer to a newcomer's request. It reads what we cannot, or says UNREACHABLE."""
        nothing = JoinRefusal(Reason.UNREACHABLE.stable_name, "no answer")
        try:
            stream = await self.peers_now.open_stream(peer, JOIN)
            await stream.send(encode_message("join", request))
            await stream.finish()
            with trio.move_on_after(RELAY_PATIENCE_S) as patience:
                answer = decode_message("join", await stream.receive())
            if not patience.cancelled_caught and isinstance(answer, JoinAnswer | JoinRefusal):
                return answer
            stream.reset()
        except (StreamBroken, StreamEnded, DecodeError) as error:
            log.info("newcomer's request not passed on peer=%s error=%s", peer.hex()[-8:], error)
        return nothing

    async def serve_relayed(self, stream: Stream, peer: PeerId) -> None:
        """A newcomer's request that a proven node passes on: answered here or not at all, never passed on again. Or a renewal."""
        try:
            request = decode_message("join", await stream.receive())
            if isinstance(request, RenewRequest):
                await self.renewal.serve(request, peer, stream)
                return
            if not isinstance(request, JoinRequest):
                raise RemoteError(Reason.OUT_OF_ORDER, f"{type(request).__name__} where JoinRequest was due")
            if len(request.sealed) > JOIN_SEALED_BYTES_MAX:
                raise RemoteError(Reason.TOO_LONG, f"{len(request.sealed)} sealed bytes, at most {JOIN_SEALED_BYTES_MAX} wanted")
            answer = await self._decide_here(request.issuer_key, request)
            await stream.send(encode_message("join", answer))
            await stream.finish()
        except (StreamBroken, StreamEnded) as error:
            log.info("relay gone before its answer error=%s", error)

    async def _decide_here(self, issuer_key: bytes, request: JoinRequest) -> JoinAnswer | JoinRefusal:
        desk = next((desk for desk in self.desks() if desk.hpke.public == issuer_key), None)
        if desk is None:
            return JoinRefusal(Reason.UNREACHABLE.stable_name, "this node does not hold that issuing key")
        dowry = Dowry(
            fences=self.knowledge.fences,
            revocations=self.knowledge.revocations,
            founder=self.own.roots[self.own.founder],
            domains=self.knowledge.domains.effective(self.knowledge.revocations),
            address_book=tuple(entry.signed for entry in self.knowledge.book.entries),
            member_keys=with_chain(self.member_keys, self.own.member.chain) if self.own.member is not None else b"",
            anchor=self.chain_anchor(),
        )
        decided = decide_join(
            self.knowledge.tickets.get(request.ticket_id),
            request,
            desk=desk,
            dowry=dowry,
            now=self.now(),
            serial=self._entropy.token(16),
            ephemeral_seed=self._entropy.token(32),
        )
        if isinstance(decided, Declined):
            if decided.alert:
                log.warning("a used ticket was tried by another key ticket=%s", request.ticket_id.hex()[:8])
                self.alerts["ticket-reused"] = f"ticket {request.ticket_id.hex()[:8]} was tried by another key after it was used"
            return decided.refusal
        # Durable before the answer leaves: a certificate that nobody remembers giving must not exist.
        words = ((FactKind.DOMAIN, decided.domain), (FactKind.TICKET_STATE, decided.event))
        if said := [(kind, encode(word)) for kind, word in words if word is not None]:
            await self._facts.submit_own(*said)
        return decided.answer
