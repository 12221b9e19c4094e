"""Signatures verified ahead of the judge: what he says is what he says without it, whatever is wrong and wherever the two meet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace as replace_draft

import pytest

from protocols import crypto
from protocols.codec import decode, encode, replace
from protocols.crypto import SigningKey, forget_verified
from protocols.errors import InvalidBlock, Reason
from protocols.files.holdings import node_peer, sign_receipt
from protocols.ledger import ahead
from protocols.ledger.ahead import verify_ahead
from protocols.ledger.block import Block, block_merkle_root, decode_block
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.schedule import RULES_1
from protocols.ledger.transactions import record_anchor, storage_receipt
from protocols.ledger.transition import apply_block
from tests.protocols.files import records as files

from .chains import Chain, key_of, owned, start

COUNT = 12


def anchors(chain: Chain, count: int = COUNT) -> list[Transaction]:
    return [chain.by("ann", "RecordAnchor", chain.anchor("ann", f"record {number}")) for number in range(count)]


def verified() -> int:
    """Signatures that were verified, not remembered, since all was forgotten."""
    return crypto._verify_once.cache_info().misses


def block_of(chain: Chain, transactions: Sequence[Transaction]) -> Block:
    """A block that is right but for these transactions in the places of good ones."""
    draft, name = chain.draft(anchors(chain))
    header = replace_draft(draft.header, merkle_root=block_merkle_root(draft.info, tuple(transactions)))
    return chain.finish(replace_draft(draft, transactions=tuple(transactions), header=header), name)


def go_ahead(chain: Chain, block: Block, *, is_over: Callable[[], bool] = lambda: False) -> int:
    return verify_ahead(reversed(block.transactions), chain.profile.network, RULES_1.kinds, is_over=is_over)


def verdict(chain: Chain, block: Block) -> tuple[Reason, str] | None:
    try:
        apply_block(chain.view, chain.header, block, chain=chain.chain)
    except InvalidBlock as error:
        return error.reason, error.message
    return None


def test_judge_verifies_nothing_of_the_transactions_that_was_verified_ahead() -> None:
    """Goal: two signatures of an anchor, and those of receipts that a transaction carries, are all known. Method: what judging verifies
    without and with it: the difference is everything but the block's seal."""
    chain = start()
    block = block_of(chain, anchors(chain))
    forget_verified()
    assert verdict(chain, block) is None
    assert verified() == 2 * COUNT + 1
    forget_verified()
    assert go_ahead(chain, block) == 2 * COUNT
    assert verified() == 2 * COUNT
    assert verdict(chain, decode_block(encode(block))) is None
    assert verified() == 2 * COUNT + 1
    holders = [SigningKey(bytes([number]) * 32) for number in (1, 2)]
    receipts = [
        sign_receipt(replace(files.receipt("h", ["s"]), holder=node_peer(one), network=chain.profile.network), one) for one in holders
    ]
    body = storage_receipt.Body(tuple(sorted(receipts, key=lambda one: one.object_hash)))
    forget_verified()
    assert verify_ahead([chain.by("bob", "StorageReceipt", body)], chain.profile.network, RULES_1.kinds, is_over=lambda: False) == 3
    assert verified() == 3


def _with_signature(one: Transaction, signature: bytes) -> Transaction:
    return Transaction(one.content, (replace(one.signatures[0], signature=signature),))


def _flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def wrong_signature(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return _with_signature(good, _flipped(good.signatures[0].signature))


def signature_of_another(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return _with_signature(good, other.signatures[0].signature)


def other_content(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return Transaction(replace(good.content, ts_ms=good.content.ts_ms + 1), good.signatures)


def wrong_statement(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    body = decode(good.content.body, record_anchor.Body)
    signed = replace(body.statement, signature=_flipped(body.statement.signature))
    return chain.by("ann", "RecordAnchor", replace(body, statement=signed))


def undecodable(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return sign_transaction(replace(good.content, body=b"\xc1"), [key_of("ann")])


def unknown_kind(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return sign_transaction(replace(good.content, kind=999), [key_of("ann")])


def short_key(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return Transaction(good.content, (replace(good.signatures[0], key=b"short"),))


def without_right(chain: Chain, good: Transaction, other: Transaction) -> Transaction:
    return chain.by("bob", "RecordAnchor", replace(chain.anchor("bob", "x", key=key_of("ann")), owners=owned("bob")))


LIES = (wrong_signature, signature_of_another, other_content, wrong_statement, undecodable, unknown_kind, short_key, without_right)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_what_is_wrong_is_named_as_without_it_wherever_the_two_meet(lie: Callable[[Chain, Transaction, Transaction], Transaction]) -> None:
    """Goal: order and blame of errors do not depend on what was verified before. Method: one lie at the fourth place and a bad signature at
    the ninth; nothing is ahead, then all of it, then so much that it ends before, at and after the lies. Twice each: a lie is never
    remembered as something that held."""
    chain = start()
    good = anchors(chain)
    made = [*good[:3], lie(chain, good[3], good[4]), *good[4:8], wrong_signature(chain, good[8], good[9]), *good[9:]]
    block = block_of(chain, made)
    forget_verified()
    wanted = verdict(chain, block)
    assert wanted is not None
    assert wanted[1].startswith("transaction 4: ")
    for steps in (2 * COUNT + 1, *range(0, 2 * COUNT, 3)):
        left = iter(range(steps))
        forget_verified()
        looked_at = go_ahead(chain, block, is_over=lambda left=left: next(left, None) is None)  # type: ignore[misc]
        assert looked_at <= steps
        for _ in range(2):
            assert verdict(chain, decode_block(encode(block))) == wanted


def test_no_more_is_verified_ahead_than_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what comes first to the judge is not pushed out by what was verified after it, nor one transaction without end. Method: a bound
    of seven signatures, for many transactions and for one with many signatures."""
    assert 2 * ahead.AHEAD_SIGNATURES_MAX <= crypto.VERIFIED_KEPT_MAX
    monkeypatch.setattr(ahead, "AHEAD_SIGNATURES_MAX", 7)
    chain = start()
    forget_verified()
    assert go_ahead(chain, block_of(chain, anchors(chain))) == 7
    many = chain.by("ann", "RecordAnchor", chain.anchor("ann", "x"), *(f"signer {number}" for number in range(20)))
    forget_verified()
    assert verify_ahead([many], chain.profile.network, RULES_1.kinds, is_over=lambda: False) == 7
    assert verified() == 7
