"""Keeps the chain's accounts in step with the domain's certificates: who was let in gets an account, who was put out loses it.

And back: whose account the domain's chain has revoked for good is put out of the domain, by a revocation and a new fence, so that also
those who do not look at the chain refuse it: light nodes, nodes without a chain, other domains of the network.

Runs on nodes of a member that the chain knows as a certificate manager. It compares what stands, and says what is missing; so nothing is
lost by a crash, and two such nodes do no harm to each other.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from protocols.errors import InvalidTransaction, LadingError
from protocols.gossip.facts import FactKind
from protocols.identity.announce import CheckedAnnouncement
from protocols.identity.certificates import verify_member_chain
from protocols.ledger.context import ACCOUNT, Account
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import cert_issue, cert_status
from protocols.types import AccountId, MemberId
from storage import chain as store
from storage.engine import Snapshot

from ..bus import Bus
from ..chain_acts import Acts
from ..chain_founding import MANAGER, certificate_of
from ..own import OwnKeys
from .chain import BlockFinal, HeadMovedTo
from .facts import FactsAccepted
from .knowledge import Knowledge
from .rulings import is_all_final

log = logging.getLogger(__name__)

# Announcements come in bursts; one comparison serves them all.
PAUSE_S = 1.0
# What was said and stands in no block by then is looked at again; the pool knows it if it still waits.
AGAIN_S = 60.0
_PUTTING_OUT = frozenset({cert_issue.KIND.number, cert_status.KIND.number})
_KINDS = frozenset({FactKind.ANNOUNCEMENT, FactKind.REVOCATION})


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A member as the domain certifies it now."""

    account: AccountId
    serial: bytes
    certificate: cert_issue.Body
    is_out: bool


class Registrar:
    """One per node; idle where its member is no manager."""

    def __init__(
        self,
        acts: Acts,
        knowledge: Knowledge,
        own: Callable[[], OwnKeys],
        country: str,
        bus: Bus,
        *,
        put_out: Callable[[MemberId, str], Awaitable[object]] | None = None,
    ) -> None:
        """put_out: a member, and why; None where the chain says nothing of who is in the domain."""
        self._put_out = put_out
        self._acts = acts
        self._knowledge = knowledge
        self._own = own
        self._country = country
        self._bus = bus
        self._said: dict[tuple[bytes, bool], float] = {}

    async def run(self) -> None:
        if self._own().issuer is None or self._own().member is None:
            await trio.sleep_forever()
        with self._bus.subscribe(HeadMovedTo, BlockFinal, FactsAccepted, name="registrar") as news:
            await self._look()
            async for fact in news:
                if isinstance(fact, FactsAccepted) and not fact.kinds & _KINDS:
                    continue
                await trio.sleep(PAUSE_S)
                await self._look()

    async def _look(self) -> None:
        chain = self._acts.chain
        if chain.facts is None:
            return
        wanted = self._wanted()
        me = self._acts.account
        accounts, is_final = await chain.plan(lambda snapshot: _accounts(snapshot, [me, *(one.account for one in wanted)]))
        own = accounts.get(me)
        if own is None or own.role != MANAGER:
            return
        for one in wanted:
            try:
                account = accounts.get(one.account)
                await self._bring(one, account)
                if is_final and account is not None:
                    await self._follow(one, account)
            except InvalidTransaction as error:
                log.info("account not brought up to date account=%s why=%s", one.account.hex()[:8], error)
            except LadingError as error:
                log.warning("account not brought up to date account=%s error=%s", one.account.hex()[:8], error)

    async def _bring(self, one: _Wanted, account: Account | None) -> None:
        if one.is_out:
            if account is not None and account.status != "revoked" and account.serial == one.serial and self._is_due(one):
                await self._acts.by_member(cert_status.KIND, cert_status.Body(account.serial, "revoke", "revoked by its domain"))
        elif (account is None or _is_newer(one.certificate, account)) and self._is_due(one):
            await self._acts.by_member(cert_issue.KIND, one.certificate)

    async def _follow(self, one: _Wanted, account: Account) -> None:
        """account: as final blocks have left it. One that was let in again since has another key, which the chain has not heard of yet."""
        if self._put_out is None or one.is_out or account.status != "revoked" or one.certificate.key != account.key:
            return
        if account.id != self._acts.account:  # its other issuers put a member out, not its own node
            log.warning("member put out, the ledger has revoked its account member=%s", account.id.hex()[:8])
            await self._put_out(MemberId(account.id), "revoked by the ledger")

    def _is_due(self, one: _Wanted) -> bool:
        now = trio.current_time()
        key = (one.serial, one.is_out)
        if now - self._said.get(key, -AGAIN_S) < AGAIN_S:
            return False
        self._said = {name: at for name, at in self._said.items() if now - at < AGAIN_S}
        self._said[key] = now
        return True

    def _wanted(self) -> list[_Wanted]:
        """Every member of our domain that a node was announced of, under its latest certificate."""
        domain, newest = self._own().domain_id, dict[AccountId, _Wanted]()
        for entry in self._knowledge.book.entries:
            if entry.identity.domain_id != domain:
                continue
            try:
                found = self._certificate(entry)
            except LadingError:
                continue  # a chain that has ended, or is not valid yet, is nobody's account
            is_out = self._knowledge.revocations.is_revoked(entry.identity.path)
            account = AccountId(found.subject)
            before = newest.get(account)
            if before is None or before.certificate.to_ms < found.to_ms:
                newest[account] = _Wanted(account, found.serial, found, is_out)
        return sorted(newest.values(), key=lambda one: one.account)

    def _certificate(self, entry: CheckedAnnouncement) -> cert_issue.Body:
        chain, own = entry.value.chain[1:], self._own()
        now = self._acts.chain.now_ms() // 1000
        identity = verify_member_chain(chain, {own.domain_id: own.roots[own.domain_id]}, now=now, revocations=None)
        role = MANAGER if identity.member_id == own.member_id else ""
        return certificate_of(identity, chain, country=self._country, role=role)


def _is_newer(certificate: cert_issue.Body, account: Account) -> bool:
    """A renewal that the chain would take, or an admission after a revocation."""
    if account.status == "revoked":
        return certificate.serial != account.serial and certificate.key != account.key
    return certificate.key == account.key and certificate.to_ms > account.to_ms


def _accounts(snapshot: Snapshot, names: list[AccountId]) -> tuple[dict[AccountId, Account], bool]:
    """And whether nothing that was said of certificates can be taken back any more."""
    state = Overlay(store.ChainState(snapshot))
    found = {name: state.load(ACCOUNT, name, Account) for name in names}
    return {name: account for name, account in found.items() if account is not None}, is_all_final(snapshot, _PUTTING_OUT)
