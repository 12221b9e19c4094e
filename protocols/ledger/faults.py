"""What peers are worth after what they brought: a score, one more with every fault, half with every hour. Source: SPEC.md §Faults."""

from __future__ import annotations

from ..errors import Verdict
from ..limits import FAULT_HALF_LIFE_S, FAULTS_UNTIL_BAN, FAULTY_PEERS_MAX
from ..types import PeerId


class Faults:
    """Scores by peer. ``now_s`` is a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._scores: dict[PeerId, tuple[float, float]] = {}  # score, and when it was so much

    def note(self, peer: PeerId, now_s: float) -> Verdict:
        """One fault more. DROP; BAN where it and what time has left of those before come to FAULTS_UNTIL_BAN."""
        score = self.score(peer, now_s) + 1.0
        self._scores[peer] = (score, now_s)
        if len(self._scores) > FAULTY_PEERS_MAX:
            del self._scores[min(self._scores, key=lambda one: (self.score(one, now_s), one == peer))]
        return Verdict.BAN if score >= FAULTS_UNTIL_BAN else Verdict.DROP

    def score(self, peer: PeerId, now_s: float) -> float:
        """0.0 of a peer without faults."""
        score, at_s = self._scores.get(peer, (0.0, now_s))
        return float(score * 0.5 ** ((now_s - at_s) / FAULT_HALF_LIFE_S))

    def scores(self, now_s: float) -> tuple[tuple[PeerId, float], ...]:
        """Of all that are remembered, the worst first."""
        found = [(peer, self.score(peer, now_s)) for peer in self._scores]
        return tuple(sorted(found, key=lambda one: (-one[1], one[0])))
