"""Signatures verified ahead of whoever judges, in a second thread: verifying leaves the interpreter to others, judging does not.

Nothing is decided here. What holds is remembered (``crypto.verify_raw``) under its exact key, bytes and signature, and found by whoever
judges; what does not hold, or does not decode, is verified or decoded again there, in its turn, and named there. So a verdict depends on
nothing that happens here, not even on whether this runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from ..crypto import VERIFIED_KEPT_MAX, Label, is_remembered, verify
from ..errors import InvalidObject, InvalidTransaction
from ..types import NetworkId, Signature
from .context import KindPort
from .envelope import Transaction

# Half of what is remembered: what is verified last must not push out what the judge has not come to yet.
AHEAD_SIGNATURES_MAX = VERIFIED_KEPT_MAX // 2


def verify_ahead(
    transactions: Iterable[Transaction], network: NetworkId, kinds: Mapping[int, KindPort], *, is_over: Callable[[], bool]
) -> int:
    """Verifies what the transactions are signed with, and the signed objects that they carry, until ``is_over``.

    transactions: those that the judge comes to last come first, since he verifies what he meets unverified: the two meet midway.
    Result: how many signatures were looked at, AHEAD_SIGNATURES_MAX at most. Raises nothing.
    """
    count = 0
    for transaction in transactions:
        for key, signature, label, domain, body in _claims(transaction, network, kinds):
            if count == AHEAD_SIGNATURES_MAX or is_over():
                return count
            count += 1
            with suppress(InvalidObject):
                verify(key, signature, label, domain, body)
    return count


def _claims(
    transaction: Transaction, network: NetworkId, kinds: Mapping[int, KindPort]
) -> Iterator[tuple[bytes, Signature, Label, NetworkId, bytes]]:
    """Key, signature, and what it is over."""
    chain = NetworkId(transaction.content.chain)
    for one in transaction.signatures:
        yield one.key, Signature(one.signature), Label.TRANSACTION, chain, transaction.id
    kind = kinds.get(transaction.content.kind)
    if kind is not None:
        with suppress(InvalidTransaction):
            for label, signed in kind.carried(transaction):
                if is_remembered(label, signed.body):
                    yield signed.signer, Signature(signed.signature), label, network, signed.body
