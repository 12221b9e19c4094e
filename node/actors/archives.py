"""Which nodes hold all of a chain, and whether this one may let a part of it go.

Nobody claims it: a node that is asked for the chain's first transaction and shows it keeps all, since history goes from its beginning on
and comes back to it last. A node that is to prune stops showing it before it counts the others; of several that would go at one time
each then misses the rest, and none relies on another that goes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import trio

from protocols.codec import decode
from protocols.crypto import sha256
from protocols.errors import LadingError, LocalError, Reason, Refused, RemoteError
from protocols.ledger.context import CHAIN
from protocols.ledger.light import check_inclusion
from protocols.ledger.machine import LightAnswer
from protocols.ledger.messages import AskInclusion, Included
from protocols.ledger.profile import Policy
from protocols.limits import LEDGER_PATIENCE_S
from protocols.types import PeerId, TxId
from storage import chain as store
from storage.engine import Snapshot

from ..clock import Clock
from .chain import ChainActor
from .talk import Talks

log = logging.getLogger(__name__)

# Who came or went is seen at once; a peer that fetches its history, or prunes, by asking again.
TICK_S = 5.0
LOOK_S = 600.0
# A node that is to prune and has not begun looks more often, each at times of its own: of two that would go together one goes first.
DUE_S_MIN, DUE_S_MAX = 30.0, 90.0


@dataclass(frozen=True, slots=True)
class Archived:
    """wanted: archives that the policy list asks for. others: peers that showed the first block. is_here: this node holds all too."""

    wanted: int
    others: frozenset[PeerId]
    is_here: bool

    @property
    def count(self) -> int:
        """Archives that are connected, this node included."""
        return len(self.others) + self.is_here


class Archives:
    """See the module."""

    def __init__(self, chain: ChainActor, talks: Talks, own: PeerId, clock: Clock) -> None:
        self.found: Archived | None = None
        """What the last look found; None before one."""
        self._chain = chain
        self._talks = talks
        self._own = own
        self._clock = clock
        self._holds: dict[PeerId, bool] = {}
        self._again_s = 0.0
        self._looks = 0

    def warnings(self) -> list[str]:
        """What of it needs somebody."""
        found, kept = self.found, self._chain.heights_kept
        if found is None:
            return []
        said: list[str] = []
        if found.count < found.wanted:
            said.append(
                f"{found.count} connected nodes hold all of the ledger, the policy list wants {found.wanted}: "
                "more full nodes with ledger_blocks_kept = 0"
            )
        if kept is not None and found.is_here and not self._chain.may_let_go:
            said.append(f"this node keeps all of the ledger, and not {kept} blocks of it, as long as too few others do")
        return said

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(TICK_S)
            try:
                await self._look_if_due()
            except LocalError:
                raise
            except LadingError as error:
                log.warning("archives not counted now, again later error=%s", error)

    async def _look_if_due(self) -> None:
        chain, now = self._chain, self._clock.monotonic()
        if chain.tree is None:
            return
        talking = self._talking()
        is_due = now >= self._again_s
        if is_due:
            self._holds = {}
        elif self._holds.keys() == talking:
            return
        self._holds = {peer: holds for peer, holds in self._holds.items() if peer in talking}
        wanted, lowest = await chain.plan(_read)
        goes = chain.heights_kept is not None and not lowest
        if goes and is_due:
            # From here on this node counts for nobody; who showed the first block before this is asked again.
            chain.may_let_go, chain.is_leaving = False, True
        await self._ask(peer for peer in talking if peer not in self._holds)
        others = frozenset(peer for peer, holds in self._holds.items() if holds)
        if goes and is_due:
            chain.may_let_go = chain.is_leaving = len(others) >= wanted
        if is_due:
            self._again_s = now + (self._pause_s() if goes else LOOK_S)
        self.found = Archived(wanted, others, is_here=not lowest)

    def _talking(self) -> Collection[PeerId]:
        return {peer for peer, end in self._talks.ends.items() if end.is_open}

    def _pause_s(self) -> float:
        """Another one each time, and for each node."""
        self._looks += 1
        drawn = sha256(self._own, self._chain.chain, self._looks.to_bytes(8, "big"))
        return DUE_S_MIN + (DUE_S_MAX - DUE_S_MIN) * drawn[0] / 255

    async def _ask(self, peers: Iterable[PeerId]) -> None:
        async with trio.open_nursery() as nursery:
            for peer in sorted(peers):
                nursery.start_soon(self._ask_one, peer)

    async def _ask_one(self, peer: PeerId) -> None:
        name = TxId(self._chain.chain)
        try:
            answer = await self._talks.question(peer, AskInclusion(0, name), patience_s=LEDGER_PATIENCE_S)
            self._holds[peer] = self._is_first(answer, name)
        except Refused:
            self._holds[peer] = False
        except RemoteError as error:
            self._holds[peer] = False
            await self._talks.drop(peer, error)

    def _is_first(self, answer: LightAnswer, name: TxId) -> bool:
        """Raises RemoteError for what no honest peer shows."""
        assert isinstance(answer, Included)
        for one in answer.found:
            check_inclusion(one, self._chain.chain, None, name)
            if one.row.info.height:
                raise RemoteError(Reason.INTEGRITY, "a first transaction that is not in the first block")
            return True
        return False


def _read(snapshot: Snapshot) -> tuple[int, int]:
    """In a pool thread: archives wanted by the policy list in force, and the lowest height that is kept."""
    data = store.ChainState(snapshot).get(CHAIN, b"policy")
    return (0 if data is None else decode(data, Policy).archives_min), store.lowest_height(snapshot)
