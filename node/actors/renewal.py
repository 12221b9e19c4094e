"""Certificates are renewed in time: the node's own, and above it the member's. Membership owns the keys; this decides when and asks whom.

A full node certifies itself and asks an issuer for its member; a holder-only node asks its member's full nodes. What was given is announced
with the node's next announcement, and that is where the member's other nodes learn of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from protocols.codec import decode
from protocols.crypto import SigningKey
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason
from protocols.gossip.facts import FactKind
from protocols.identity.certificates import ISSUER, MEMBER, NODE, NodeIdentity, chain_validity, make_node, verify_chain
from protocols.identity.keyfiles import MemberKey, decode_key_file, encode_key_file, key_file
from protocols.join.decision import Desk
from protocols.join.messages import JoinRefusal, RenewAnswer, RenewRequest
from protocols.join.renewal import (
    check_renewed_member,
    check_renewed_node,
    decide_renewal,
    renewal_due_at,
    sign_renewal,
)
from protocols.limits import CLOCK_SKEW_MAX_S, JOIN_TIMEOUT_S
from protocols.registry import decode_message, encode_message
from protocols.types import PeerId, UnixSeconds

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..own import MemberKeys, OwnKeys
from ..services import JOIN, may_open, standing_of
from ..transport.port import Stream, StreamBroken, StreamEnded
from .facts import FactsAccepted
from .knowledge import Knowledge
from .peers import PeerConnected, Peers

log = logging.getLogger(__name__)

LOOK_S = 60.0
RETRY_S_MAX = 600.0
# A connected desk answers within milliseconds.
ANSWER_PATIENCE_S = 5.0
# Who is asked to ask on: each asks everybody it is connected to.
RELAYS_MAX = 4
# An issuer's certificate is renewed by hand, with a page of paper from a safe: two years of warning in ten.
ISSUER_ALERT_S = 2 * 365 * 86400


class RenewalHost(Protocol):
    """What renewal needs of membership."""

    alerts: dict[str, str]
    clock_backed: Callable[[], bool]
    """Whether members agree with the time that is used here: by another nothing lasting may be decided."""
    clock_judges: Callable[[], bool]
    """Whether at least nobody contradicts it."""

    @property
    def own(self) -> OwnKeys: ...

    @property
    def knowledge(self) -> Knowledge: ...

    @property
    def peers_now(self) -> Peers: ...

    def now(self) -> UnixSeconds: ...

    def desks(self) -> list[Desk]:
        """Those that this node decides at."""

    async def take_chain(self, chain: tuple[bytes, ...], identity: NodeIdentity) -> None:
        """This node stands under a newer chain now: kept, used, announced."""


class Renewal:
    """See the module."""

    def __init__(
        self, host: RenewalHost, clock: Clock, entropy: Entropy, bus: Bus, *, member_lifetime_s: int, node_lifetime_s: int
    ) -> None:
        self._host = host
        self._clock = clock
        self._entropy = entropy
        self._bus = bus
        self._member_lifetime_s = member_lifetime_s
        self._node_lifetime_s = node_lifetime_s
        self._wake = trio.Event()
        self._retry_at = 0.0
        self._busy = trio.Lock()

    # --- when -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Looks often, asks seldom; a new connection may be the issuer that was missing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            while True:
                async with self._busy:
                    await self._look()
                self._wake = trio.Event()
                with trio.move_on_after(self._pause_s()):
                    await self._wake.wait()

    async def _listen(self) -> None:
        with self._bus.subscribe(FactsAccepted, PeerConnected, name="renewal", wanted=_is_of_interest) as news:
            async for fact in news:
                if isinstance(fact, PeerConnected):
                    self._retry_at = 0.0
                self._wake.set()

    def _pause_s(self) -> float:
        now = self._host.now()
        due = [at - now for at in (self._node_due_at(), self._member_due_at()) if at is not None and at > now]
        retry = self._retry_at - self._clock.monotonic()
        return max(1.0, min([LOOK_S, *due, *([retry] if retry > 0 else [])]))

    def _node_due_at(self) -> UnixSeconds:
        identity = self._host.own.identity
        return renewal_due_at(identity.not_before, identity.not_after, lifetime_s=self._node_lifetime_s)

    def _member_due_at(self) -> UnixSeconds | None:
        member = self._host.own.member
        if member is None:
            return None
        not_before, not_after = chain_validity(member.chain, MEMBER)
        return renewal_due_at(not_before, not_after, lifetime_s=self._member_lifetime_s)

    async def _look(self) -> None:
        """Does what is due. What fails is tried again, less often while much time is left."""
        self._look_at_issuer()
        now = self._host.now()
        try:
            await self._learn()
            if self._clock.monotonic() < self._retry_at or not self._may_decide(now):
                return
            await self._renew_due(now)
            self._host.alerts.pop("renewal", None)
        except LadingError as error:
            left = self._host.own.identity.not_after - now
            self._retry_at = self._clock.monotonic() + min(RETRY_S_MAX, max(1.0, left / 20))
            log.warning("certificate not renewed, trying again later left_s=%d error=%s", left, error)
            if left < self._node_lifetime_s // 6:
                self._host.alerts["renewal"] = f"this node's certificate cannot be renewed: {error.message}"

    def _may_decide(self, now: UnixSeconds) -> bool:
        """Nothing is renewed by a time that nobody confirms, but for a node that was off until its certificate ended: without a new one
        nobody would talk to it, and so nobody could confirm anything."""
        if self._host.clock_backed():
            return True
        return now >= self._host.own.identity.not_after and self._host.clock_judges()

    async def _renew_due(self, now: UnixSeconds) -> None:
        """The member first, since the node's certificate stands under it; but that no issuer answers must not cost the node its own."""
        member_due = self._member_due_at()
        try:
            if member_due is not None and now >= member_due:
                await self._renew_member()
        finally:
            if now >= self._node_due_at():
                await self._renew_node()

    def _look_at_issuer(self) -> None:
        issuer = self._host.own.issuer
        if issuer is None:
            return
        left = chain_validity(issuer.chain, ISSUER)[1] - self._host.now()
        if left < ISSUER_ALERT_S:
            text = "make a new one with the recovery kit: lading stop, lading keys renew-issuer KIT, lading start"
            self._host.alerts["issuer"] = f"this node's issuing key ends in {max(0, left) // 86400} days; {text}"
        else:
            self._host.alerts.pop("issuer", None)

    # --- at once ----------------------------------------------------------------------------------------------------

    async def renew_now(self) -> dict[str, object]:
        """`lading member renew`: member and node, whether due or not. Raises LadingError: the member's first, when no issuer gave it; the
        node's own certificate is renewed all the same."""
        failed: LadingError | None = None
        async with self._busy:
            if self._host.own.member is not None:
                try:
                    await self._renew_member()
                except LadingError as error:
                    failed = error
            if self._host.own.member is None or failed is not None:
                await self._renew_node()
        if failed is not None:
            ends = self._host.own.identity.not_after
            raise LadingError(
                failed.reason,
                f"the member's certificate was not renewed: {failed.message}; this node's own was",
                hint="it is tried again by itself; is a node with the issuing key running? lading peers",
                node_not_after=ends,
            ) from failed
        identity, chain = self._host.own.identity, self._host.own.node_chain
        return {
            "node": identity.host,
            "not_before": identity.not_before,
            "not_after": identity.not_after,
            "member": identity.member_id.hex(),
            "member_not_after": chain_validity(chain[1:], MEMBER)[1],
        }

    # --- the member's certificate -----------------------------------------------------------------------------------

    async def _renew_member(self) -> None:
        """From an issuer: our own desk, else whoever answers. Raises LadingError."""
        own = self._host.own
        assert own.member is not None
        old = own.member.chain

        def check(chain: tuple[bytes, ...]) -> None:
            check_renewed_member(chain, old, own.roots, now=self._host.now(), revocations=self._host.knowledge.revocations)

        chain = await self._ask(own.member.signing, old, check)
        await self._take_member_chain(chain)

    async def _take_member_chain(self, chain: tuple[bytes, ...]) -> None:
        own = self._host.own
        assert own.member is not None
        log.info("member's certificate renewed until=%d", chain_validity(chain, MEMBER)[1])
        await self._certify_self(own.member, chain)

    async def _learn(self) -> None:
        """A later certificate of our member that another of its nodes announced. Raises LadingError when we cannot follow it."""
        own, known = self._host.own, self._host.knowledge
        best: tuple[bytes, ...] = ()
        ends = chain_validity(own.node_chain[1:], MEMBER)[1]
        for entry in known.book.entries:
            identity, chain = entry.identity, entry.value.chain[1:]
            is_ours = (identity.domain_id, identity.member_id) == (own.domain_id, own.member_id)
            if is_ours and chain != own.node_chain[1:] and not known.revocations.is_revoked(identity.path):
                later = chain_validity(chain, MEMBER)[1]
                if later > ends:
                    best, ends = chain, later
        if not best:
            return
        if own.member is None:
            # The member's full nodes certify us under it: it is worth asking, whatever was answered before.
            if self._clock.monotonic() >= self._retry_at:
                await self._renew_node()
            return
        try:
            check_renewed_member(best, own.member.chain, own.roots, now=self._host.now(), revocations=known.revocations)
        except InvalidObject as error:
            log.warning("announced certificate of our member not used error=%s", error)
            return
        await self._take_member_chain(best)

    # --- the node's certificate -------------------------------------------------------------------------------------

    async def _renew_node(self) -> None:
        """By our own member's key, else by one of our member's full nodes. Raises LadingError."""
        own = self._host.own
        if own.member is not None:
            if min(self._host.now() + self._node_lifetime_s, chain_validity(own.member.chain, MEMBER)[1]) > own.identity.not_after:
                await self._certify_self(own.member, own.member.chain)
            return

        def check(chain: tuple[bytes, ...]) -> None:
            check_renewed_node(chain, own.identity, own.roots, now=self._host.now(), revocations=self._host.knowledge.revocations)

        chain = await self._ask(own.node, own.node_chain, check)
        await self._take_node_chain(chain)

    async def _certify_self(self, member: MemberKeys, above: tuple[bytes, ...]) -> None:
        own, now = self._host.own, self._host.now()
        certificate = make_node(
            member.signing,
            above[0],
            peer_id=own.peer_id,
            node_public=own.node.public,
            host_label=own.identity.host,
            weight=own.identity.weight,
            holder_only=own.identity.holder_only,
            serial=self._entropy.token(16),
            not_before=max(now - CLOCK_SKEW_MAX_S, 0),
            not_after=min(now + self._node_lifetime_s, chain_validity(above, MEMBER)[1]),
        )
        await self._take_node_chain((certificate, *above))

    async def _take_node_chain(self, chain: tuple[bytes, ...]) -> None:
        own = self._host.own
        identity = verify_chain(chain, own.roots, now=self._host.now(), revocations=self._host.knowledge.revocations)
        log.info("certificate renewed until=%d", identity.not_after)
        await self._host.take_chain(chain, identity)

    # --- asking and answering ---------------------------------------------------------------------------------------

    async def _ask(self, key: SigningKey, chain: tuple[bytes, ...], check: Check) -> tuple[bytes, ...]:
        """The first good answer: our own desks, then every connected node, then those that some of them are connected to. An answer that
        does not hold is like none, so that no node can keep others from renewing. Raises LadingError with the best reason there was."""
        own = self._host.own
        last = LadingError(Reason.UNREACHABLE, "no node that can renew it is connected")
        for relay in (False, True):
            request = sign_renewal(key, chain, own.network_id, domain_id=own.domain_id, relay=relay)
            peers = self._askable()
            answers = [self.decide(request)] if not relay else []
            for index in range(len(answers) + len(peers[: RELAYS_MAX if relay else None])):
                if index < len(answers):
                    answer: RenewAnswer | JoinRefusal = answers[index]
                else:
                    patience = JOIN_TIMEOUT_S if relay else ANSWER_PATIENCE_S
                    answer = await self._pass_on(peers[index - len(answers)], request, patience)
                match answer:
                    case RenewAnswer(chain=given):
                        try:
                            check(given)
                        except LadingError as error:
                            last = error
                        else:
                            return given
                    case JoinRefusal(reason=reason, text=text):
                        if reason != Reason.UNREACHABLE.stable_name:
                            last = LadingError(_REASONS.get(reason, Reason.REFUSED), text)
        raise last

    def _askable(self) -> list[PeerId]:
        """Connected nodes that serve this at all: another domain's do not, and must not take the places of those that do."""
        sessions, ours = self._host.peers_now.sessions, self._host.own.domain_id
        return sorted(peer for peer, session in sessions.items() if may_open(JOIN, standing_of(session.identity.domain_id, ours)))

    def decide(self, request: RenewRequest) -> RenewAnswer | JoinRefusal:
        """The answer of this node's own desks."""
        answer: RenewAnswer | JoinRefusal = JoinRefusal(Reason.UNREACHABLE.stable_name, "this node does not hold that issuing key")
        for desk in self._host.desks():
            answer = decide_renewal(
                request,
                desk=desk,
                revocations=self._host.knowledge.revocations,
                now=self._host.now(),
                serial=self._entropy.token(16),
            )
            if isinstance(answer, RenewAnswer) or answer.reason != Reason.UNREACHABLE.stable_name:
                return answer
        return answer

    async def serve(self, request: RenewRequest, asker: PeerId, stream: Stream) -> None:
        """A proven peer's request: answered here, or asked on once if it wants that."""
        answer = self.decide(request)
        if request.relay and isinstance(answer, JoinRefusal) and answer.reason == Reason.UNREACHABLE.stable_name:
            onward = RenewRequest(renewal=request.renewal, relay=False)
            with trio.move_on_after(JOIN_TIMEOUT_S - ANSWER_PATIENCE_S):
                for peer in self._askable():
                    if peer != asker:
                        answer = await self._pass_on(peer, onward, ANSWER_PATIENCE_S)
                        if isinstance(answer, RenewAnswer):
                            break
        await stream.send(encode_message("join", answer))
        await stream.finish()

    async def _pass_on(self, peer: PeerId, request: RenewRequest, patience_s: float) -> RenewAnswer | JoinRefusal:
        try:
            stream = await self._host.peers_now.open_stream(peer, JOIN)
            await stream.send(encode_message("join", request))
            await stream.finish()
            with trio.move_on_after(patience_s) as patience:
                answer = decode_message("join", await stream.receive())
            if not patience.cancelled_caught and isinstance(answer, RenewAnswer | JoinRefusal):
                return answer
            stream.reset()
        except (StreamBroken, StreamEnded, DecodeError) as error:
            log.info("no answer to a renewal peer=%s error=%s", peer.hex()[-8:], error)
        return JoinRefusal(Reason.UNREACHABLE.stable_name, "no answer")


class Check(Protocol):
    """Raises LadingError for a chain that is not what was asked for."""

    def __call__(self, chain: tuple[bytes, ...], /) -> None: ...


_REASONS = {reason.stable_name: reason for reason in Reason}


def _is_of_interest(fact: object) -> bool:
    return isinstance(fact, PeerConnected) or (isinstance(fact, FactsAccepted) and FactKind.ANNOUNCEMENT in fact.kinds)


def with_chain(member_keys: bytes, chain: tuple[bytes, ...]) -> bytes:
    """The member's key file with a newer chain; empty stays empty."""
    if not member_keys:
        return b""
    content = decode_key_file(member_keys).content
    assert isinstance(content, MemberKey)
    return encode_key_file(key_file(content.with_chain(chain)))


def kept_chain(encoded: bytes | None, own: OwnKeys, now: int) -> tuple[tuple[bytes, ...], NodeIdentity] | None:
    """The newer certificates that an earlier run kept, if they are ours and end later. Those that have run out since still say under
    which member's certificate a new one can be made."""
    if encoded is None:
        return None
    try:
        chain = decode(encoded, tuple[bytes, ...])
        begins, ends = chain_validity(chain, NODE)
        identity = verify_chain(chain, own.roots, now=max(begins, min(now, ends - 1)), revocations=None)
    except (DecodeError, InvalidObject) as error:
        log.warning("kept certificate not used error=%s", error)
        return None
    ours = (own.peer_id, own.domain_id, own.member_id, own.owner)
    if (identity.peer_id, identity.domain_id, identity.member_id, identity.owner) != ours or _rank(chain) <= _rank(own.node_chain):
        return None
    return chain, identity


def _rank(chain: Sequence[bytes]) -> tuple[UnixSeconds, UnixSeconds]:
    """Ends of the member's part, then of the whole."""
    return chain_validity(chain[1:], MEMBER)[1], chain_validity(chain, NODE)[1]
