"""Ends of `/lading/ledger/1` of a light node: it asks for proofs, gives its own transactions, and keeps nothing that others ask for."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import trio

from protocols.effects import Effect
from protocols.errors import Reason, Refused
from protocols.ledger import machine as m
from protocols.ledger.alive import Told
from protocols.ledger.machine import LightAnswer, LightQuestion
from protocols.ledger.votes import Checkpoint
from protocols.limits import LEDGER_SILENCE_MAX_S
from protocols.types import BlockHash, PeerId

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..transport.port import Stream
from .chain import ChainItems
from .end import MachineEnd
from .light import LightChain
from .showing import nothing
from .talk import EVENTS_BYTES_MAX, EVENTS_MAX, SENDS_MAX, Ends, Questions, TalkPeers

log = logging.getLogger(__name__)


class LightEnd:
    """Runs one stream."""

    def __init__(self, stream: Stream, peer: PeerId, chain: LightChain, clock: Clock, challenge: bytes) -> None:
        self.peer = peer
        self.is_open = False
        self.said: tuple[Checkpoint, Checkpoint] | None = None
        self._chain = chain
        self._challenge = challenge
        self.questions = Questions(self.hint)
        self._events, self._more = trio.open_memory_channel[object](EVENTS_MAX)
        self._end = MachineEnd(
            "ledger",
            m.TalkMachine(),
            stream,
            clock,
            self._perform,
            tick=m.Tick(),
            events_max=EVENTS_MAX,
            events_bytes_max=EVENTS_BYTES_MAX,
            sends_max=SENDS_MAX,
            patience_s=LEDGER_SILENCE_MAX_S,
        )

    def hint(self, event: object) -> None:
        """Something for the machine; for a peer that takes nothing it is lost, and comes again with the next reconciliation."""
        try:
            self._events.send_nowait(event)
        except trio.WouldBlock:
            log.debug("hint lost peer=%s", self.peer.hex()[-8:])

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        try:
            await self._end.run(m.Opened(self._chain.chain, self._challenge), self._pass_hints)
        finally:
            self.questions.end()

    async def _pass_hints(self) -> None:
        async for event in self._more:
            await self._end.put(event)

    async def _perform(self, effect: Effect) -> object | None:
        chain = self._chain
        match effect:
            case m.DescribeHead():
                # It has no block to give: nobody shall ask it for one.
                none = Checkpoint(0, BlockHash(bytes(32)))
                return m.HeadMoved(none, none)
            case m.DescribeItems():
                return m.HaveItems(chain.waiting(), ())
            case m.FilterUnknown():
                return m.Unknown((), ())
            case m.LoadItems(transactions, _):
                return m.ItemsLoaded(chain.items(transactions), ())
            case m.Locate(head, _, final):
                assert final is not None
                if self.said != (head, final):
                    self.said = head, final
                    chain.wake()
                return m.Located(None)
            case m.LoadHeaders():
                return m.HeadersLoaded((), pruned=max(1, chain.checkpoints()[1].height))
            case m.LoadBlocks(hashes):
                return m.BlocksLoaded((), hashes)
            case m.DeliverBlock(block, asked):
                if asked:
                    chain.take_first(self.peer, block)
            case m.LoadHistory():
                return m.HistoryLoaded(())
            case m.LoadState(_, nodes_at):
                return m.StateLoaded((), tuple(name for _, name in nodes_at))
            case m.LoadLight(question):
                return m.LightLoaded(nothing(question))
            case m.DeliverLight(_, answer):
                self.questions.settle(answer)
            case m.MakeWitnesses(_, _, echo, held_ms):
                if not self.is_open:
                    self.is_open = True
                    chain.wake()
                return m.Witnessed(Told(0, False, echo, held_ms), ())
            case m.PlanHistory() | m.HeardAlive() | m.NotGiven() | m.DeliverItems():
                pass
            case _:
                raise AssertionError(effect)
        return None


class LightTalks(Ends[LightEnd]):
    """All of them."""

    def __init__(self, own: PeerId, chain: LightChain, peers: TalkPeers, clock: Clock, entropy: Entropy, bus: Bus) -> None:
        super().__init__(own, peers, clock, entropy)
        self._chain = chain
        self._bus = bus
        chain.ends = self

    def make(self, stream: Stream, peer: PeerId, challenge: bytes) -> LightEnd:
        return LightEnd(stream, peer, self._chain, self._clock, challenge)

    async def tell(self) -> None:
        """Own transactions, as soon as they are made."""
        with self._bus.subscribe(ChainItems, name="light talks") as news:
            async for fact in news:
                for end in list(self.ends.values()):
                    end.hint(m.HaveItems(fact.transactions, ()))

    # --- what the follower asks ---------------------------------------------------------------------------------------

    def heads(self) -> Mapping[PeerId, tuple[Checkpoint, Checkpoint]]:
        """Head and final block that each peer says it has."""
        return {peer: end.said for peer, end in self.ends.items() if end.is_open and end.said is not None}

    async def ask(self, peer: PeerId, question: LightQuestion, *, patience_s: float) -> LightAnswer:
        """Raises Refused(UNREACHABLE)."""
        end = self.ends.get(peer)
        if end is None:
            raise Refused(Reason.UNREACHABLE, "the peer is gone")
        return await end.questions.ask(question, patience_s=patience_s)

    def want_block(self, peer: PeerId, name: BlockHash) -> None:
        """Asks for a whole block."""
        end = self.ends.get(peer)
        if end is not None:
            end.hint(m.WantBlock(name))

    async def drop(self, peer: PeerId, why: str, *, ban: bool) -> None:
        """The peer broke a rule."""
        await self._peers.drop(peer, why, ban=ban)
