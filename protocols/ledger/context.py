"""What a rule sees of the chain while a block is applied, and what holds of every transaction. Source: SPEC.md §Common rules.

A kind is a function on a ``Context``: it checks first, raising InvalidTransaction, and writes after. The same function runs in the pool,
in a block that is being made, received, synced or replayed; what it wrote before it raised is rolled back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from ..codec import Record
from ..crypto import Label
from ..errors import InvalidTransaction, Reason
from ..signed import Signed
from ..types import AccountId, ChainId, OwnerKey, UnixMillis
from .checks import check_that, u64
from .envelope import NO_SERIAL, Transaction, decode_body
from .profile import Council, Policy, Profile, is_admitted
from .state import Overlay

CHAIN = "chain"
ACCOUNT = "account"
CERTIFICATE = "certificate"
KEY = "key"
SEEN = "seen"
FORGET = "forget"
DUE = "due"
AT = "at"
_PROFILE, _COUNCIL, _POLICY, _GENESIS = b"profile", b"council", b"policy", b"genesis"

T = TypeVar("T", bound=Record)


class Account(Record, frozen=True):
    """A certified account as it stands.

    type: person, institution, device, node. role: what it may do beyond every account ("manager" issues certificates).
    status: what the certificate manager or the council says; warnings, suspensions, revocations: penalties in force.
    """

    id: AccountId
    serial: bytes
    key: OwnerKey
    enc_key: bytes
    type: str
    role: str
    level: int
    country: str
    institution: str
    attributes: tuple[tuple[str, str], ...]
    from_ms: UnixMillis
    to_ms: UnixMillis
    status: Literal["active", "suspended", "revoked"]
    warnings: int
    suspensions: int
    revocations: int

    def attribute(self, name: str) -> str | None:
        """The account's attribute of that name; type, role, country and institution are attributes too."""
        own = {"type": self.type, "role": self.role, "country": self.country, "institution": self.institution}
        return own.get(name, dict(self.attributes).get(name))


class KeyUse(Record, frozen=True):
    """Whose a key was, from when, until when (0: still)."""

    account: AccountId
    from_ms: UnixMillis
    to_ms: UnixMillis


class Genesis(Record, frozen=True):
    """Where slots are counted from."""

    time_ms: UnixMillis


@dataclass(frozen=True, slots=True)
class Event:
    """What a block did, for indexes and people: a name and the ids that it touches."""

    name: str
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Keys of which ``threshold`` must have signed."""

    keys: frozenset[bytes]
    threshold: int


@dataclass(slots=True)
class Context:
    """One block being applied. time_ms: block time, the start of its slot. version: of the rule set in force."""

    state: Overlay
    chain: ChainId
    profile: Profile
    height: int
    slot: int
    time_ms: UnixMillis
    term: int
    version: int
    events: list[Event] = field(default_factory=list)
    said: list[Transaction] = field(default_factory=list)  # of this block, as ``remember`` took them, for ``conditions.note_ends``

    @property
    def council(self) -> Council:
        """The council in force."""
        found = self.state.load(CHAIN, _COUNCIL, Council)
        assert found is not None
        return found

    @property
    def policy(self) -> Policy:
        """The policy list in force."""
        found = self.state.load(CHAIN, _POLICY, Policy)
        assert found is not None
        return found

    def seat_council(self, council: Council) -> None:
        """The council from now on."""
        self.state.save(CHAIN, _COUNCIL, council)

    def enact_policy(self, policy: Policy) -> None:
        """The policy list from now on."""
        self.state.save(CHAIN, _POLICY, policy)

    def emit(self, name: str, *ids: bytes) -> None:
        """Notes what happened."""
        self.events.append(Event(name, ids))

    def load(self, space: str, key: bytes, kind: type[T], what: str) -> T:
        """The record at (space, key). Raises InvalidTransaction(NOT_FOUND)."""
        found = self.state.load(space, key, kind)
        if found is None:
            raise InvalidTransaction(Reason.NOT_FOUND, f"no {what} {key.hex()[:16]}… on this chain")
        return found

    def account(self, name: AccountId) -> Account:
        """An account that may act at block time.

        Raises InvalidTransaction(NOT_MEMBER | CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID | SUSPENDED | REVOKED | POLICY).
        """
        found = self.state.load(ACCOUNT, name, Account)
        if found is None:
            raise InvalidTransaction(Reason.NOT_MEMBER, f"no account {name.hex()[:8]}… on this chain")
        check_standing(found, self.policy, self.time_ms)
        return found

    def is_in_standing(self, name: AccountId) -> bool:
        """True when the account may act at block time."""
        try:
            self.account(name)
        except InvalidTransaction:
            return False
        return True

    def owner_of_key(self, key: bytes) -> AccountId | None:
        """The account that a key belongs or belonged to."""
        use = self.state.load(KEY, key, KeyUse)
        return None if use is None else use.account


def check_standing(account: Account, policy: Policy, time_ms: int) -> None:
    """Whether an account may act at a time. Raises InvalidTransaction(CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID | SUSPENDED | …)."""
    check_that(account.from_ms <= time_ms, "certificate is not valid yet", Reason.CERTIFICATE_NOT_YET_VALID)
    check_that(time_ms < account.to_ms, "certificate has expired", Reason.CERTIFICATE_EXPIRED)
    check_that(account.status != "revoked" and not account.revocations, "account is revoked", Reason.REVOKED)
    check_that(account.status != "suspended" and not account.suspensions, "account is suspended", Reason.SUSPENDED)
    if not is_admitted(policy, account.country):
        raise InvalidTransaction(Reason.POLICY, f"country {account.country!r} is not admitted")


class KindPort(Protocol):
    """A kind of transaction as the schedule lists it."""

    @property
    def number(self) -> int: ...

    @property
    def name(self) -> str: ...

    def run(self, context: Context, transaction: Transaction) -> None:
        """Decodes the body and executes. Raises InvalidTransaction."""
        ...

    def carried(self, transaction: Transaction) -> Iterable[tuple[Label, Signed]]:
        """Signed objects in the body, that ``run`` verifies under these labels. Raises InvalidTransaction."""
        ...


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """number: in envelopes. body: its record. execute: checks everything that is special to the kind, then writes.

    signed: objects of others' making that a body carries, with the label of each one's signature.
    """

    number: int
    name: str
    body: type[T]
    execute: Callable[[Context, Transaction, T], None]
    signed: Callable[[T], Iterable[tuple[Label, Signed]]] | None = None

    def run(self, context: Context, transaction: Transaction) -> None:
        """Decodes the body and executes. Raises InvalidTransaction."""
        self.execute(context, transaction, decode_body(transaction, self.body))

    def carried(self, transaction: Transaction) -> Iterable[tuple[Label, Signed]]:
        """Signed objects in the body, that ``run`` verifies under these labels. Raises InvalidTransaction."""
        return () if self.signed is None else self.signed(decode_body(transaction, self.body))


def load_profile(state: Overlay) -> Profile:
    """The chain's profile."""
    found = state.load(CHAIN, _PROFILE, Profile)
    assert found is not None, "every state begins with a genesis"
    return found


def save_genesis(state: Overlay, profile: Profile, time_ms: UnixMillis) -> None:
    """What never changes."""
    state.save(CHAIN, _PROFILE, profile)
    state.save(CHAIN, _GENESIS, Genesis(time_ms))


def genesis_time_ms(state: Overlay) -> UnixMillis:
    """Start of slot 0."""
    found = state.load(CHAIN, _GENESIS, Genesis)
    assert found is not None, "every state begins with a genesis"
    return found.time_ms


# --- the common rules ---------------------------------------------------------------------------------------------


def check_common(context: Context, transaction: Transaction) -> None:
    """What holds of every transaction besides its kind: chain, times, not seen before, sizes, links.

    Raises InvalidTransaction(WRONG_CHAIN | BAD_TIME | EXPIRED | SEEN | TOO_LONG | UNKNOWN_LINK).
    """
    content, profile, now = transaction.content, context.profile, context.time_ms
    check_that(content.chain == context.chain, "transaction of another chain", Reason.WRONG_CHAIN)
    if content.ts_ms > now + profile.tx_ahead_ms:
        raise InvalidTransaction(Reason.BAD_TIME, f"ts {content.ts_ms} is ahead of block time {now}")
    if now > content.until_ms:
        raise InvalidTransaction(Reason.EXPIRED, f"until {content.until_ms}, block time {now}")
    check_that(0 <= content.until_ms - content.ts_ms <= profile.tx_life_ms, "until is too far from ts", Reason.BAD_TIME)
    check_that(context.state.get(SEEN, transaction.id) is None, "transaction is on the chain already", Reason.SEEN)
    for link in content.links:
        check_that(context.state.get(SEEN, link) is not None, f"link {link.hex()[:8]}… is not known", Reason.UNKNOWN_LINK)


def remember(context: Context, transaction: Transaction) -> None:
    """The id is known until its ``until`` has passed, to the minute."""
    context.state.put(SEEN, transaction.id, u64(transaction.content.until_ms))
    context.said.append(transaction)


def need_signatures(transaction: Transaction, *groups: Group) -> None:
    """Every group's threshold is reached, and nobody else signed. Signatures themselves were verified by ``check_form``.

    Raises InvalidTransaction(NOT_SIGNED | UNEXPECTED_SIGNER).
    """
    keys = unknown = transaction.keys
    for group in groups:
        got = len(keys & group.keys)
        if got < group.threshold:
            raise InvalidTransaction(Reason.NOT_SIGNED, f"{got} signatures of a group, {group.threshold} wanted")
        unknown -= group.keys
    check_that(not unknown, "signed by a key that has no say in this", Reason.UNEXPECTED_SIGNER)


def need_any(transaction: Transaction, *alternatives: Iterable[Group]) -> None:
    """At least one alternative is satisfied; the error is that of the last. Raises InvalidTransaction."""
    failure: InvalidTransaction | None = None
    for groups in alternatives:
        try:
            need_signatures(transaction, *groups)
        except InvalidTransaction as error:
            failure = error
        else:
            return
    assert failure is not None
    raise failure


def need_sender(context: Context, transaction: Transaction) -> Account:
    """The sender, in standing, who alone signed under its current certificate. Raises InvalidTransaction."""
    account = sender_account(context, transaction)
    need_signatures(transaction, Group(frozenset({account.key}), 1))
    return account


def sender_account(context: Context, transaction: Transaction) -> Account:
    """The sender, in standing, under its current certificate; signatures are the caller's. Raises InvalidTransaction."""
    account = context.account(transaction.content.sender)
    check_that(transaction.content.serial == account.serial, "not the sender's current certificate", Reason.BAD_CERTIFICATE)
    return account


def council_group(context: Context) -> Group:
    """m of the council's keys."""
    council = context.council
    return Group(council.keys, council.threshold)


def managers_group(context: Context) -> Group:
    """So many of the accounts in standing with role "manager" as the policy list says."""
    keys = set()
    for name, _ in context.state.iterate(MANAGER):
        if context.is_in_standing(AccountId(name)):
            keys.add(bytes(context.account(AccountId(name)).key))
    return Group(frozenset(keys), context.policy.issuers_threshold)


MANAGER = "manager"


def need_council(context: Context, transaction: Transaction) -> None:
    """An act of the council: m of its keys, sent in the name of one of its members. Raises InvalidTransaction."""
    check_council_sender(context, transaction)
    need_signatures(transaction, council_group(context))


def check_council_sender(context: Context, transaction: Transaction) -> None:
    """Raises InvalidTransaction(NOT_MEMBER | BAD_CERTIFICATE) unless a council member is named as sender, without certificate."""
    content = transaction.content
    check_that(context.council.member(content.sender) is not None, "sender has no seat on the council", Reason.NOT_MEMBER)
    check_that(content.serial == NO_SERIAL, "council acts name no certificate", Reason.BAD_CERTIFICATE)


def need_council_or_managers(context: Context, transaction: Transaction) -> None:
    """An act of the council, or of the certificate managers. Raises InvalidTransaction."""
    if context.council.member(transaction.content.sender) is not None and transaction.content.serial == NO_SERIAL:
        need_signatures(transaction, council_group(context))
        return
    account = sender_account(context, transaction)
    check_that(account.role == "manager", "sender is no certificate manager", Reason.NOT_ELIGIBLE)
    need_signatures(transaction, managers_group(context))


# --- what fires by itself -----------------------------------------------------------------------------------------


class Action(enum.IntEnum):
    """What a timed condition does; conditions.py has the table."""

    LAPSE = 1
    EXPIRE = 2
    END_PENALTY = 3
    ENACT_POLICY = 4


def fire_at_time(context: Context, time_ms: int, action: Action, name: bytes) -> None:
    """The action fires in the first block whose time is at least ``time_ms``."""
    context.state.put(DUE, u64(time_ms) + bytes([action]) + name, b"")


def fire_at_height(context: Context, height: int, action: Action, name: bytes) -> None:
    """The action fires in the block at ``height``."""
    context.state.put(AT, u64(height) + bytes([action]) + name, b"")
