"""Transactions that wait, of two kinds, with quotas: a pure value, no clock, no arrival time. Source: SPEC.md §Pool.

*Inbound*: heard by gossip, or returned by a reorganisation. *Outbound*: made here, kept across restarts, announced again until final.
Every transaction was judged by ``transition.check_transaction`` before it is offered. Over a bound the worst goes, by an order that
every node shares.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..codec import encode
from ..errors import InvalidTransaction, Reason, Refused
from ..limits import POOL_BYTES_MAX, POOL_PER_PEER_MAX, POOL_PER_SENDER_MAX, POOL_TRANSACTIONS_MAX
from ..types import AccountId, TxId, UnixMillis
from .envelope import Transaction


class Origin(enum.Enum):
    """The two kinds of the design."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class SizeClass(enum.IntEnum):
    """What a transaction costs others; a smaller class goes first."""

    SMALL = 0
    MEDIUM = 1
    LARGE = 2


SMALL_BYTES_MAX = 1024
MEDIUM_BYTES_MAX = 8 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """A transaction in the pool. peer: who brought it, empty when it was made here."""

    id: TxId
    transaction: Transaction
    origin: Origin
    peer: bytes
    size: int

    @property
    def sender(self) -> AccountId:
        return self.transaction.content.sender

    @property
    def size_class(self) -> SizeClass:
        if self.size <= SMALL_BYTES_MAX:
            return SizeClass.SMALL
        return SizeClass.MEDIUM if self.size <= MEDIUM_BYTES_MAX else SizeClass.LARGE


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one pool."""

    transactions_max: int = POOL_TRANSACTIONS_MAX
    bytes_max: int = POOL_BYTES_MAX
    per_sender_max: int = POOL_PER_SENDER_MAX
    per_peer_max: int = POOL_PER_PEER_MAX


class Pool:
    """What waits. Methods say what changed; nothing is thrown away unsaid."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._waiting: dict[TxId, Waiting] = {}
        self._bytes = 0
        self._of_sender: dict[AccountId, int] = {}
        self._of_peer: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, name: object) -> bool:
        return name in self._waiting

    def get(self, name: TxId) -> Transaction | None:
        """The transaction, None when it does not wait here."""
        waiting = self._waiting.get(name)
        return None if waiting is None else waiting.transaction

    @property
    def size(self) -> int:
        """Encoded bytes of all that waits."""
        return self._bytes

    def counts(self) -> Mapping[Origin, int]:
        """How many of each kind."""
        return {origin: sum(one.origin is origin for one in self._waiting.values()) for origin in Origin}

    def list(self, origin: Origin) -> tuple[Waiting, ...]:
        """All of one kind, by id."""
        return tuple(one for _, one in sorted(self._waiting.items()) if one.origin is origin)

    def made_here(self) -> tuple[TxId, ...]:
        """Names of the outbound ones, as they came."""
        return tuple(name for name, one in self._waiting.items() if one.origin is Origin.OUTBOUND)

    def offer(self, transaction: Transaction, origin: Origin, peer: bytes = b"") -> tuple[Waiting, ...]:
        """Takes a judged transaction; result: what had to go for it, worst first.

        Raises Refused(QUOTA) when its sender or the peer has too many here, or when it would itself be the worst of a full pool.
        One that is here already stays as it is, but becomes outbound when it is made here too.
        """
        name = transaction.id
        known = self._waiting.get(name)
        if known is not None:
            if origin is Origin.OUTBOUND and known.origin is Origin.INBOUND:
                self._remove(name)
                self._add(Waiting(name, transaction, origin, b"", known.size))
            return ()
        one = Waiting(name, transaction, origin, peer, len(encode(transaction)))
        if self._of_sender.get(one.sender, 0) >= self._limits.per_sender_max:
            raise Refused(Reason.QUOTA, f"{self._limits.per_sender_max} transactions of this account wait already")
        if peer and self._of_peer.get(peer, 0) >= self._limits.per_peer_max:
            raise Refused(Reason.QUOTA, f"{self._limits.per_peer_max} transactions of this peer wait already")
        self._add(one)
        gone: list[Waiting] = []
        while len(self._waiting) > self._limits.transactions_max or self._bytes > self._limits.bytes_max:
            worst = max(self._waiting.values(), key=self._badness)
            self._remove(worst.id)
            if worst.id == name:
                for other in gone:
                    self._add(other)
                raise Refused(Reason.QUOTA, "the pool is full of transactions that come first")
            gone.append(worst)
        return tuple(gone)

    def _badness(self, one: Waiting) -> tuple[bool, int, SizeClass, bytes]:
        """What goes first: heard before made here, of the account with most here, larger class, greater id."""
        return (one.origin is Origin.INBOUND, self._of_sender.get(one.sender, 0), one.size_class, one.id)

    def _add(self, one: Waiting) -> None:
        self._waiting[one.id] = one
        self._bytes += one.size
        self._of_sender[one.sender] = self._of_sender.get(one.sender, 0) + 1
        if one.peer:
            self._of_peer[one.peer] = self._of_peer.get(one.peer, 0) + 1

    def _remove(self, name: TxId) -> Waiting:
        one = self._waiting.pop(name)
        self._bytes -= one.size
        _less(self._of_sender, one.sender)
        if one.peer:
            _less(self._of_peer, one.peer)
        return one

    def included(self, names: Iterable[TxId]) -> tuple[Waiting, ...]:
        """A block on the chain carries them: they leave. The caller keeps outbound ones until they are final."""
        return tuple(self._remove(name) for name in names if name in self._waiting)

    def returned(self, transactions: Iterable[Transaction], own: frozenset[TxId]) -> tuple[Waiting, ...]:
        """A reorganisation gives them back, as what they were; result: what had to go for them. own: ids that are outbound."""
        gone: list[Waiting] = []
        for transaction in transactions:
            origin = Origin.OUTBOUND if transaction.id in own else Origin.INBOUND
            try:
                gone += self.offer(transaction, origin)
            except Refused:
                continue
        return tuple(gone)

    def expire(self, block_time_ms: UnixMillis) -> tuple[Waiting, ...]:
        """What no later block can carry any more leaves."""
        over = [name for name, one in self._waiting.items() if one.transaction.content.until_ms < block_time_ms]
        return tuple(self._remove(name) for name in over)

    def drop(self, refused: Iterable[tuple[TxId, InvalidTransaction]]) -> tuple[Waiting, ...]:
        """What a draft refused leaves with its reason, which the caller keeps; what may become valid by waiting stays."""
        names = [name for name, error in refused if error.reason not in MAY_BECOME_VALID and name in self._waiting]
        return tuple(self._remove(name) for name in names)

    def select(self, bytes_max: int, count_max: int) -> tuple[Transaction, ...]:
        """What goes into a draft, fair to senders: in rounds, one of each sender a round, smaller classes and older ``ts`` first.

        The order of one sender's own transactions is that of their ``ts``, so that numbered kinds follow one another.
        """
        lines: dict[AccountId, list[Waiting]] = {}
        for one in sorted(self._waiting.values(), key=lambda one: (one.transaction.content.ts_ms, one.id)):
            lines.setdefault(one.sender, []).append(one)
        taken: list[Transaction] = []
        depth = 0
        while any(depth < len(line) for line in lines.values()) and len(taken) < count_max:
            round_ = [line[depth] for line in lines.values() if depth < len(line)]
            for one in sorted(round_, key=lambda one: (one.size_class, one.transaction.content.ts_ms, one.id)):
                if one.size <= bytes_max and len(taken) < count_max:
                    taken.append(one.transaction)
                    bytes_max -= one.size
            depth += 1
        return tuple(taken)


MAY_BECOME_VALID = frozenset(
    {Reason.SEQUENCE, Reason.UNKNOWN_LINK, Reason.CERTIFICATE_NOT_YET_VALID, Reason.BAD_TIME, Reason.SUSPENDED, Reason.NOT_FOUND}
)
"""Reasons that waiting may cure: what they wait for may come with a later block."""


K = TypeVar("K", bound=bytes)


def _less(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
