"""Who is asked for which body."""

from __future__ import annotations

from node.actors.talk import WITHHELD_S, Claims
from protocols.crypto import sha256
from protocols.limits import LEDGER_PATIENCE_S
from protocols.types import BlockHash, PeerId

ANN, BOB = PeerId(b"ann"), PeerId(b"bob")
PAGE = tuple(BlockHash(sha256(bytes([number]))) for number in range(8))


def test_several_peers_share_a_page_and_what_one_did_not_give_is_asked_of_others() -> None:
    """Goal: no body twice at one time, none lost. Method: two peers take shares; one says that it lacks them, one goes, one is silent."""
    claims = Claims()
    assert claims.take(PAGE, ANN, 0.0, most=4) == PAGE[:4]
    assert claims.take(PAGE, BOB, 0.0, most=4) == PAGE[4:]
    assert claims.is_taken(PAGE[0])
    claims.drop(ANN, 1.0, PAGE[:2])
    assert claims.take(PAGE[:4], ANN, 1.0, most=4) == (), "it did not give these"
    assert claims.take(PAGE[:4], BOB, 1.0, most=4) == PAGE[:4]
    assert claims.take(PAGE[:4], BOB, 1.0 + LEDGER_PATIENCE_S, most=4) == PAGE[:4], "asked again when nothing came"
    for name in PAGE[:4]:
        claims.done(name)
    assert not claims.is_taken(PAGE[0])
    assert claims.take(PAGE[:4], ANN, 1.0 + WITHHELD_S, most=4) == PAGE[:4], "nothing is held against a peer for ever"
