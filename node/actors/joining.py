"""A state fetched node by node from all peers that have it, checked against the root that an anchor's block names.

Asked whenever something may have changed: a peer is there, a peer gave something, time went by.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from protocols.errors import InvalidObject, Reason, Refused, RemoteError, StoreDamaged, Verdict
from protocols.ledger import machine as m
from protocols.ledger.snapshot import Frontier, NodeAt, StateNode, check_state_node
from protocols.ledger.votes import Checkpoint
from protocols.limits import JOIN_PATIENCE_S, LEDGER_PATIENCE_S
from protocols.types import PeerId

from ..clock import Clock
from .chain import ChainActor

log = logging.getLogger(__name__)


class FetchEnd(Protocol):
    """What is needed of a conversation with one peer."""

    is_open: bool

    def hint(self, event: object) -> None:
        """Says something to the machine, in its turn."""


class _Question:
    """One question that somebody waits for. nodes: None until there is an answer."""

    def __init__(self, names: frozenset[bytes]) -> None:
        self.done = trio.Event()
        self.nodes: dict[bytes, StateNode] | None = None
        self._names = names

    def answer(self, nodes: Sequence[StateNode]) -> None:
        """Raises RemoteError for nodes that are not what they were asked for as."""
        self.done.set()
        try:
            for one in nodes:
                check_state_node(one)
        except InvalidObject as error:
            raise RemoteError(error.reason, f"state: {error.message}", verdict=Verdict.BAN) from error
        self.nodes = {one.name: one for one in nodes if one.name in self._names}


class StateFetch:
    """One node's. It does nothing while its chain does not join."""

    def __init__(self, chain: ChainActor, clock: Clock, ends: Mapping[PeerId, FetchEnd]) -> None:
        self._chain = chain
        self._clock = clock
        self._ends = ends
        self._frontier: Frontier | None = None
        self._asked_s: dict[PeerId, float] = {}
        self._unable: set[PeerId] = set()
        self._progress_s: float | None = None
        self._lock = trio.Lock()
        self._asking: dict[PeerId, _Question] = {}

    @property
    def is_alone(self) -> bool:
        """There is at most one conversation."""
        return sum(end.is_open for end in self._ends.values()) <= 1

    async def advance(self) -> None:
        """Asks whoever can be asked; ends the join when all is here, or nobody has it. Raises StoreFull, StoreDamaged, ActorGone."""
        if not self._chain.is_joining:
            return
        async with self._lock:
            now = self._clock.monotonic()
            ends = {peer: end for peer, end in self._ends.items() if end.is_open}
            if self._progress_s is None and ends:
                self._progress_s = now
            if self._chain.joining_block is not None and self._frontier is None:
                self._frontier = Frontier(await self._chain.missing_state())
                self._asked_s.clear()  # those were asked for the block
            if self._frontier is not None and self._frontier.is_done:
                await self._end(is_whole=True)
            elif self._progress_s is not None and now - self._progress_s > JOIN_PATIENCE_S:
                await self._end(is_whole=False)
            else:
                self._ask(ends, now)

    async def deliver(self, peer: PeerId, nodes: tuple[StateNode, ...], lacking: tuple[bytes, ...]) -> None:
        """What a peer gave. Raises RemoteError for nodes that are not what they were asked for as."""
        question = self._asking.pop(peer, None)
        if question is not None:
            question.answer(nodes)
            return
        if self._frontier is None or not self._chain.is_joining:
            return
        self._asked_s.pop(peer, None)
        try:
            good = self._frontier.take(peer, nodes)
        except InvalidObject as error:
            raise RemoteError(error.reason, f"state: {error.message}", verdict=Verdict.BAN) from error
        if good:
            await self._chain.take_state(good)
            self._progress_s = self._clock.monotonic()
        if lacking and not good:
            self._unable.add(peer)
        await self.advance()

    def drop(self, peer: PeerId) -> None:
        """The peer is gone."""
        question = self._asking.pop(peer, None)
        if question is not None:
            question.done.set()
        self._asked_s.pop(peer, None)
        self._unable.discard(peer)
        if self._frontier is not None:
            self._frontier.drop(peer)

    async def ask(self, peer: PeerId, at: Checkpoint, nodes: Sequence[NodeAt]) -> Mapping[bytes, StateNode]:
        """Checked nodes of a peer's state after a block, by name; those that it lacks left out. Raises Refused(UNREACHABLE | CONFLICT)."""
        end = self._ends.get(peer)
        if end is None or not end.is_open:
            raise Refused(Reason.UNREACHABLE, "no conversation with this peer about the chain")
        if peer in self._asking or self._chain.is_joining:
            raise Refused(Reason.CONFLICT, "this peer is asked for something else just now")
        question = self._asking[peer] = _Question(frozenset(name for _, name in nodes))
        end.hint(m.WantState(at, tuple(nodes)))
        with trio.move_on_after(LEDGER_PATIENCE_S):
            await question.done.wait()
        if not question.done.is_set():
            self._asking.pop(peer, None)
        if question.nodes is None:
            raise Refused(Reason.UNREACHABLE, "the peer did not answer")
        return question.nodes

    async def _end(self, *, is_whole: bool) -> None:
        self._frontier = None
        self._progress_s = None
        try:
            await self._chain.end_join(is_whole=is_whole)
        except StoreDamaged as error:
            log.error("the state that was fetched does not hold error=%s", error)

    def _ask(self, ends: Mapping[PeerId, FetchEnd], now_s: float) -> None:
        for peer in [peer for peer, asked_s in self._asked_s.items() if now_s - asked_s > 2 * LEDGER_PATIENCE_S]:
            self.drop(peer)  # the question never left; a peer that does not answer one is dropped by its own conversation
        anchor = self._chain.anchor
        assert anchor is not None
        free = [peer for peer in sorted(ends) if peer not in self._asked_s and peer not in self._unable]
        for index, peer in enumerate(free):
            end = ends[peer]
            if self._frontier is None:
                self._asked_s[peer] = now_s - LEDGER_PATIENCE_S
                end.hint(m.WantBlock(anchor.hash))
            elif batch := self._frontier.ask(peer, among=len(free) - index):
                self._asked_s[peer] = now_s
                end.hint(m.WantState(anchor, batch))
