"""Who is asked for which body, transaction and vote; what a draft takes."""

from __future__ import annotations

from node.actors.sealer import DRAFT_TELLING, drafted_max
from node.actors.talk import ITEM_PATIENCE_S, WITHHELD_S, Claims, ItemClaims
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


# --- who is asked for what is announced -------------------------------------------------------------------------------


def test_one_of_several_announcers_is_asked_and_then_the_next() -> None:
    """Goal: a body is fetched once, and still comes when the first peer does not give it. Method: three announce the same id; the first
    keeps silent, the second goes."""
    claims = ItemClaims()
    name = b"\x01" * 32
    first, second, third = (PeerId(bytes([number]) * 38) for number in (1, 2, 3))
    assert claims.take([name], first, 0.0) == (name,)
    assert claims.take([name], second, 0.1) == ()
    assert claims.take([name], third, 0.2) == ()
    assert claims.overdue(1.0) == {}
    assert claims.overdue(ITEM_PATIENCE_S) == {second: (name,)}
    assert claims.overdue(ITEM_PATIENCE_S + 0.1, gone=second) == {third: (name,)}
    assert claims.overdue(3 * ITEM_PATIENCE_S) == {}  # nobody is left: whoever announces it again is asked
    assert claims.take([name], first, 9.0) == (name,)
    claims.done([name])
    assert claims.overdue(99.0) == {}


def test_draft_takes_what_fits_its_slot() -> None:
    """Goal: a busy machine makes smaller blocks, an idle one is not held back, and something always goes in."""
    assert drafted_max(1000, 0.3) > 600
    assert drafted_max(1000, 2.0) == 100
    assert drafted_max(1000, 1e9) == DRAFT_TELLING
    assert 0 < drafted_max(1000, 0.0) <= 256
