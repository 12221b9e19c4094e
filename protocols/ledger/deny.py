"""What is denied before it is final: suspensions, revocations and erasures that were seen in the pool or on any branch.

Outside the state. Grants take effect when final; what takes something away works at once on a node that serves, until it is final (then
the state says it) or can no longer be included. Source: SPEC.md §Deny set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidTransaction
from ..limits import DENIED_MAX
from ..types import TxId, UnixMillis
from .envelope import Transaction, decode_body
from .transactions import cert_status, equivocation, erase, penalty


@dataclass(frozen=True, slots=True)
class Denial:
    """name: an account's id, a certificate's serial, or owner | HashID of a record."""

    what: Literal["account", "certificate", "record"]
    name: bytes


def denial_of(transaction: Transaction) -> Denial | None:
    """What a (valid) transaction takes away, None when it takes nothing."""
    try:
        match transaction.content.kind:
            case cert_status.KIND.number:
                status = decode_body(transaction, cert_status.Body)
                return None if status.act == "resume" else Denial("certificate", status.serial)
            case penalty.KIND.number:
                imposed = decode_body(transaction, penalty.Body)
                return None if imposed.level == "warn" else Denial("account", imposed.target)
            case equivocation.KIND.number:
                return Denial("account", decode_body(transaction, equivocation.Body).culprit)
            case erase.KIND.number:
                erased = decode_body(transaction, erase.Body)
                return Denial("record", erased.owner + erased.hash_id)
    except InvalidTransaction:
        return None
    return None


class DenySet:
    """Denials of transactions that are not final yet."""

    def __init__(self) -> None:
        self._denied: dict[TxId, tuple[Denial, UnixMillis]] = {}

    def note(self, transactions: Iterable[Transaction]) -> None:
        """Valid ones, of the pool or of a block on any branch."""
        for one in transactions:
            denial = denial_of(one)
            if denial is not None and (one.id in self._denied or len(self._denied) < DENIED_MAX):
                self._denied[one.id] = (denial, one.content.until_ms)

    def settle(self, final: Iterable[TxId], time_ms: UnixMillis) -> None:
        """These are final; what could be included until before ``time_ms``, the time of a final block, never will be."""
        for name in final:
            self._denied.pop(name, None)
        self._denied = {name: entry for name, entry in self._denied.items() if entry[1] >= time_ms}

    def is_denied(self, denial: Denial) -> bool:
        """True for as long as one of these waits."""
        return any(entry[0] == denial for entry in self._denied.values())

    def denials(self) -> frozenset[Denial]:
        """All of them."""
        return frozenset(entry[0] for entry in self._denied.values())
