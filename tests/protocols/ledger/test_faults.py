"""What peers are worth after what they brought."""

from __future__ import annotations

import pytest

from protocols.errors import Verdict
from protocols.ledger.faults import Faults
from protocols.limits import FAULT_HALF_LIFE_S, FAULTY_PEERS_MAX
from protocols.types import PeerId

ANN, BOB = PeerId(b"ann"), PeerId(b"bob")


@pytest.mark.parametrize(
    ("pause_s", "verdicts"),
    [
        (0.0, "drop drop ban ban"),
        (600.0, "drop drop ban ban"),
        (1700.0, "drop drop drop ban"),
        (3600.0, "drop drop drop drop drop drop drop drop drop drop"),
    ],
)
def test_peer_is_banned_for_many_faults_in_little_time_and_never_for_one_an_hour(pause_s: float, verdicts: str) -> None:
    """Goal: a lie a minute ends quickly, mistakes of a life do not add up. Method: faults at even distances; another peer pays for none."""
    faults = Faults()
    found = [faults.note(ANN, 100.0 + number * pause_s) for number in range(len(verdicts.split()))]
    assert found == [Verdict(one) for one in verdicts.split()]
    assert faults.note(BOB, 100.0) is Verdict.DROP


def test_score_halves_with_time_and_the_worst_peer_stands_first() -> None:
    """Goal: a figure for people. Method: three faults of one peer, one of another, and what is left of them an hour later."""
    faults = Faults()
    for peer in (BOB, ANN, ANN, ANN):
        faults.note(peer, 50.0)
    assert faults.scores(50.0) == ((ANN, 3.0), (BOB, 1.0))
    assert faults.scores(50.0 + FAULT_HALF_LIFE_S) == ((ANN, 1.5), (BOB, 0.5))
    assert faults.score(PeerId(b"nobody"), 50.0) == 0.0


def test_as_many_peers_are_remembered_as_the_bound_says_and_the_worst_longest() -> None:
    """Goal: names cost nothing to make up, so they fill nothing and wash nobody clean. Method: one peer with two faults among three times
    as many as are remembered with one each; its third one bans."""
    faults = Faults()
    faults.note(ANN, 0.0)
    faults.note(ANN, 0.0)
    for number in range(3 * FAULTY_PEERS_MAX):
        faults.note(PeerId(number.to_bytes(4, "big")), 1.0)
    assert len(faults.scores(1.0)) == FAULTY_PEERS_MAX
    assert faults.note(ANN, 1.0) is Verdict.BAN
