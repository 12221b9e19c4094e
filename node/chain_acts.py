"""Transactions of this node's member: its own, and acts of the council by one of its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from protocols.codec import Record, encode, replace
from protocols.crypto import SigningKey
from protocols.errors import LadingError, Reason, Refused
from protocols.ledger.context import ACCOUNT, Account, Kind
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, Transaction, sign_transaction
from protocols.ledger.light import COUNCIL_KEY
from protocols.ledger.profile import Council
from protocols.ledger.state import Overlay
from protocols.ledger.terms import MINER, Miner
from protocols.ledger.transactions import key_rotate
from protocols.types import AccountId, TxId, UnixMillis
from storage import chain as store
from storage.engine import Snapshot

from .actors.chain_port import ChainPort
from .chain_keys import act_key
from .entropy import Entropy
from .own import MemberKeys, OwnKeys

T = TypeVar("T", bound=Record)


class Acts:
    """What the member of this node may say on its domain's chain."""

    def __init__(self, chain: ChainPort, own: Callable[[], OwnKeys], entropy: Entropy) -> None:
        self.chain = chain
        self._own = own
        self._entropy = entropy

    @property
    def account(self) -> AccountId:
        """The member's account."""
        return AccountId(self._own().member_id)

    async def own_account(self) -> Account | None:
        """As it stands in the state at the head; None before the chain knows it."""
        account = self.account
        await self.chain.bring([(ACCOUNT, account)])
        return await self.chain.plan(lambda snapshot: load_account(snapshot, account))

    async def by_member(self, kind: Kind[T], body: T, *, until_ms: int | None = None) -> TxId:
        """The member says it. until_ms: it is of no use later than that. Raises Refused, InvalidTransaction."""
        keys = self._member_keys()
        account = await self.own_account()
        if account is None:
            raise Refused(
                Reason.NOT_MEMBER,
                "the chain does not know this member yet",
                hint="a node that lets others in must be running; its word comes with the next block",
            )
        content = self._content(kind, body, account.serial)
        if until_ms is not None:
            content = replace(content, until_ms=UnixMillis(max(content.ts_ms, min(content.until_ms, until_ms))))
        return await self.chain.submit(sign_transaction(content, [keys.signing]))

    async def by_council(self, kind: Kind[T], body: T) -> tuple[Transaction, int]:
        """An act of the council under this member's key, and how many more keys it needs; with 0 it was submitted.

        Raises Refused, InvalidTransaction.
        """
        act, council = await self._act_key()
        content = self._content(kind, body, NO_SERIAL)
        return await self._sent_when_enough(sign_transaction(content, [act]), council)

    async def approve(self, transaction: Transaction) -> tuple[Transaction, int]:
        """Another's act under this member's key too; as ``by_council``."""
        act, council = await self._act_key()
        content = transaction.content
        if content.chain != self.chain.chain:
            raise Refused(Reason.WRONG_CHAIN, "this act is for another chain")
        mine = sign_transaction(content, [act]).signatures
        others = tuple(one for one in transaction.signatures if one.key != act.public)
        together = Transaction(content, tuple(sorted((*others, *mine), key=lambda one: one.key)))
        return await self._sent_when_enough(together, council)

    async def rotate_vote(self) -> tuple[TxId, bytes]:
        """Another voting key for this member's seat, made and kept here before it is told. Result: the transaction, the new public key.

        Raises Refused, InvalidTransaction.
        """
        act, council = await self._act_key()
        member = council.member(self.account)
        if member is None:
            raise Refused(Reason.NOT_MEMBER, "this member has no seat on the council", hint="lading council inbox shows who has")
        new = await self.chain.make_key("vote", self._entropy.token(32))
        body = key_rotate.Body("vote", self.account, member.vote_key, new.public, b"")
        content = self._content(key_rotate.KIND, body, NO_SERIAL)
        return await self.chain.submit(sign_transaction(content, [act, new])), new.public

    async def rotate_seal(self) -> tuple[TxId, bytes]:
        """The same for the key with which this node seals."""
        keys, account, mine = self._member_keys(), await self.own_account(), self.account
        await self.chain.bring([(MINER, mine)])
        miner = await self.chain.plan(lambda snapshot: Overlay(store.ChainState(snapshot)).load(MINER, mine, Miner))
        if account is None or miner is None:
            raise Refused(Reason.NOT_ELIGIBLE, "this member is no certified miner", hint="lading miner status")
        new = await self.chain.make_key("seal", self._entropy.token(32))
        body = key_rotate.Body("seal", mine, miner.key, new.public, b"")
        return await self.chain.submit(
            sign_transaction(self._content(key_rotate.KIND, body, account.serial), [keys.signing, new])
        ), new.public

    async def council(self) -> Council:
        """The council in force at the head."""
        await self.chain.bring([COUNCIL_KEY])
        return await self.chain.plan(load_council)

    async def _sent_when_enough(self, transaction: Transaction, council: Council) -> tuple[Transaction, int]:
        missing = council.threshold - len(transaction.keys & council.keys)
        if missing <= 0:
            await self.chain.submit(transaction)
        return transaction, max(0, missing)

    async def _act_key(self) -> tuple[SigningKey, Council]:
        own, keys = self._own(), self._member_keys()
        act = act_key(keys.signing.seed, own.domain_id)
        council = await self.council()
        if act.public not in council.keys:
            raise Refused(Reason.NOT_MEMBER, "this member has no seat on the council", hint="lading council inbox shows who has")
        return act, council

    def _member_keys(self) -> MemberKeys:
        keys = self._own().member
        if keys is None:
            raise Refused(Reason.REFUSED, "this node has no keys of its member", hint="run it on the member's full node")
        return keys

    def _content(self, kind: Kind[T], body: T, serial: bytes) -> Content:
        facts = self.chain.facts
        if facts is None:
            raise LadingError(Reason.NOT_FOUND, "the chain's first block is not here yet", hint="it comes from the others: lading peers")
        now = self.chain.now_ms()
        return Content(
            version=ENVELOPE_VERSION,
            chain=self.chain.chain,
            kind=kind.number,
            sender=self.account,
            serial=serial,
            ts_ms=UnixMillis(now),
            until_ms=UnixMillis(now + facts.profile.tx_life_ms),
            links=(),
            body=encode(body),
        )


def load_account(snapshot: Snapshot, account: AccountId) -> Account | None:
    """In a pool thread."""
    return Overlay(store.ChainState(snapshot)).load(ACCOUNT, account, Account)


def load_council(snapshot: Snapshot) -> Council:
    """In a pool thread. Raises LadingError(NOT_FOUND) before the first block is here."""
    found = Overlay(store.ChainState(snapshot)).load("chain", b"council", Council)
    if found is None:
        raise LadingError(Reason.NOT_FOUND, "the chain's first block is not here yet")
    return found
