"""The trail of an id: every transaction that touches it, from the first block on, and what shows each of them to whoever trusts one final
block. Source: SPEC.md §Trails.

A transaction touches what it names: its sender, and every id in its body and in what others signed that it carries. Who is looked for by
an account is also found by its certificates' serial numbers and its keys; and an answer to a transaction (Approve, PenaltyLift) touches
what that one touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..codec import Record, decode
from ..crypto import Label
from ..errors import DecodeError, InvalidObject, Reason, RemoteError, UsageError
from ..files.holdings import Receipt
from ..files.objects import Statement
from ..types import ChainId, TxId
from .envelope import Transaction, decode_body
from .history import Peaks, check_path
from .light import Inclusion, Proven, check_inclusion, name_of
from .schedule import SCHEDULE
from .seals.port import SealRule
from .state import check_value
from .sync import HeaderRow
from .transactions import approve, cert_issue, chain_genesis, key_rotate, penalty_lift, term_handover
from .transactions.term_handover import HISTORY
from .votes import Checkpoint

# Serial numbers have 16 bytes, accounts, records, keys and transactions 32, peer ids 38; a signature is nobody's name.
_NAME_BYTES = range(16, 49)
_CARRIED: Mapping[Label, type[Record]] = {Label.STATEMENT: Statement, Label.RECEIPT: Receipt}


def named_in(transaction: Transaction) -> frozenset[bytes]:
    """Ids that a transaction names, its own among them.

    Of a hand-over its sender alone: what else stands in it are blocks that chance chose.
    """
    content = transaction.content
    found = {transaction.id, content.sender, content.serial, *content.links, *transaction.keys}
    if content.kind != term_handover.KIND.number:
        for rules in SCHEDULE.values():
            kind = rules.kinds.get(content.kind)
            body = getattr(kind, "body", None)
            if kind is not None and body is not None:
                found.update(_bytes_in(decode_body(transaction, body)))
                for label, signed in kind.carried(transaction):
                    found.update(_bytes_in(decode(signed.body, _CARRIED[label])))
                break
    return frozenset(one for one in found if len(one) in _NAME_BYTES and any(one))


def _bytes_in(value: object) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case Record():
            for name in value.__struct_fields__:
                yield from _bytes_in(getattr(value, name))
        case tuple() | list():
            for item in value:
                yield from _bytes_in(item)


class Trail:
    """What touches one id. It is shown the transactions of a chain in their order."""

    def __init__(self, wanted: str) -> None:
        """wanted: the id, or the beginning of one, in hexadecimal digits."""
        self.id: bytes | None = None
        self._wanted = wanted
        self._names: set[bytes] = set()
        self._acts: set[bytes] = set()

    def touches(self, transaction: Transaction) -> bool:
        """Whether the next transaction does. Raises UsageError where two ids begin as the wanted one."""
        names = named_in(transaction)
        for name in sorted(names):
            if name.hex().startswith(self._wanted):
                if self.id not in (None, name):
                    raise UsageError(f"{self._wanted} is the beginning of two ids", hint="give more of it")
                self.id = name
                self._names.add(name)
        if not names & self._names and _answered(transaction) not in self._acts:
            return False
        self._acts.add(transaction.id)
        self._names.update(self._further_names(transaction))
        return True

    def _further_names(self, transaction: Transaction) -> Iterator[bytes]:
        """By what else an account is known from here on."""
        match transaction.content.kind:
            case chain_genesis.KIND.number:
                certificates = decode_body(transaction, chain_genesis.Body).certificates
            case cert_issue.KIND.number:
                certificates = (decode_body(transaction, cert_issue.Body),)
            case key_rotate.KIND.number:
                body = decode_body(transaction, key_rotate.Body)
                if body.subject == self.id:
                    yield body.new
                return
            case _:
                return
        for one in certificates:
            if one.subject == self.id:
                yield from (one.serial, one.key)


def _answered(transaction: Transaction) -> bytes:
    """The transaction that this one answers; empty for none."""
    match transaction.content.kind:
        case approve.KIND.number:
            return decode_body(transaction, approve.Body).target
        case penalty_lift.KIND.number:
            return decode_body(transaction, penalty_lift.Body).penalty
    return b""


# --- proofs -----------------------------------------------------------------------------------------------------------


class TrailHead(Record, frozen=True):
    """What the proofs of a trail lead to. row: a final block. peaks: the history tree over all blocks before it, under its state root."""

    row: HeaderRow
    peaks: Proven


class TrailStep(Record, frozen=True):
    """One transaction of a trail. siblings: of its block in the history tree, from the bottom up; none where the block is the head's."""

    inclusion: Inclusion
    siblings: tuple[bytes, ...]


def check_trail_head(head: TrailHead, chain: ChainId, seal: SealRule | None, trusted: Checkpoint) -> Peaks:
    """The history tree before a final block that the caller trusts. Raises InvalidObject(INTEGRITY | …)."""
    try:
        if name_of(head.row, chain, seal) != trusted.hash or head.row.info.height != trusted.height:
            raise InvalidObject(Reason.INTEGRITY, "another block than the trusted one")
        check_value(head.row.info.state_root, HISTORY, b"", head.peaks.value, head.peaks.proof)
        peaks = decode(head.peaks.value or b"", Peaks)
    except (RemoteError, DecodeError) as error:
        raise InvalidObject(error.reason, f"head of a trail: {error.message}") from error
    if peaks.count != trusted.height or len(peaks.hashes) != peaks.count.bit_count():
        raise InvalidObject(Reason.INTEGRITY, f"a history of {peaks.count} blocks before block {trusted.height}")
    return peaks


def check_trail_step(step: TrailStep, chain: ChainId, seal: SealRule | None, *, head: Checkpoint, peaks: Peaks, wanted: TxId) -> Checkpoint:
    """The block that carries the transaction ``wanted``: an ancestor of the head, or itself. peaks: as ``check_trail_head`` gave them.

    Raises InvalidObject(INTEGRITY | …).
    """
    try:
        found = Checkpoint(step.inclusion.row.info.height, check_inclusion(step.inclusion, chain, seal, wanted))
    except RemoteError as error:
        raise InvalidObject(error.reason, error.message) from error
    if found.height != head.height:
        check_path(peaks, index=found.height, leaf=found.hash, siblings=step.siblings)
    elif found != head or step.siblings:
        raise InvalidObject(Reason.INTEGRITY, "another block than the head at its height")
    return found
