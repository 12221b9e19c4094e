"""Offers and acts as text: they come back as they were, every slip is found, nobody speaks for another chain."""

from __future__ import annotations

import pytest

from protocols.codec import encode
from protocols.crypto import Label
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason
from protocols.identity.textform import base64url, with_checksum
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.offers import OFFER_PREFIX, MinerOffer, decode_act, encode_act, open_offer, sign_offer
from protocols.signed import sign_object
from protocols.types import ChainId, NetworkId
from tests.protocols.ledger import chains

CHAIN = ChainId(bytes(range(32)))


def an_offer(chain: ChainId = CHAIN, tip_count: int = 7, tip: bytes = b"t" * 32) -> str:
    parts = {"seal": b"s" * 32, "vote": b"v" * 32, "act": b"a" * 32}
    return sign_offer(chains.key_of("ann"), chain, chains.account_of("ann"), tip=tip, tip_count=tip_count, **parts)


def test_offer_comes_back_with_its_signer_and_breaks_at_every_slip() -> None:
    """Goal: what is carried by hand arrives whole or not at all. Method: blanks are dropped; altered or missing characters are refused."""
    text = an_offer()
    offer, signer = open_offer(f"  {text[:40]}\n{text[40:]} ", CHAIN)
    assert signer == chains.key_of("ann").public
    assert (offer.account, offer.seal, offer.tip, offer.tip_count) == (chains.account_of("ann"), b"s" * 32, b"t" * 32, 7)
    for place in range(0, len(text), 7):
        altered = text[:place] + ("B" if text[place] != "B" else "C") + text[place + 1 :]
        for wrong in (altered, text[:place] + text[place + 1 :]):
            with pytest.raises(DecodeError) as refused:
                open_offer(wrong, CHAIN)
            assert refused.value.reason is Reason.MALFORMED


def test_offer_of_another_chain_and_of_impossible_parts_is_refused() -> None:
    """Goal: an offer is for one chain. Method: another chain's; a short tip; no reveal at all; another chain named inside."""
    cases = (
        (an_offer(ChainId(bytes(32))), Reason.BAD_SIGNATURE),
        (an_offer(tip=b"t"), Reason.MALFORMED),
        (an_offer(tip_count=0), Reason.MALFORMED),
    )
    inner = MinerOffer(1, 1, ChainId(bytes(32)), chains.account_of("ann"), b"s" * 32, b"t" * 32, 7, b"v" * 32, b"a" * 32)
    signed = encode(sign_object(inner, chains.key_of("ann"), Label.MINER_OFFER, NetworkId(CHAIN)))
    hidden = OFFER_PREFIX + base64url(with_checksum(signed, b"miner offer"))
    for text, reason in (*cases, (hidden, Reason.WRONG_CHAIN)):
        with pytest.raises(InvalidObject) as refused:
            open_offer(text, CHAIN)
        assert refused.value.reason is reason


def test_act_gathers_signatures_from_text_to_text() -> None:
    """Goal: three members sign one act, each on his own machine. Method: each decodes, adds his key, encodes; the chain takes the last."""
    chain = chains.start()
    alone = chain.by_council("MinerCertify", chains.certify("ann"), signers=("a",))
    with pytest.raises(LadingError):
        chain.add(alone)
    text = encode_act(alone)
    for name in ("b", "c"):
        act = decode_act(text)
        more = sign_transaction(act.content, [chains.key_of(name, "council")]).signatures
        text = encode_act(Transaction(act.content, tuple(sorted((*act.signatures, *more), key=lambda one: one.key))))
    chain.add(decode_act(text))
    assert chain.height == 1
