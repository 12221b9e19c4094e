"""The port's Connection: one peer's session, its loops, its streams, and one way to end."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from protocols.errors import LadingError
from protocols.limits import STREAMS_INBOUND_MAX
from protocols.types import PeerId

from ..port import PathKind, PresharedKey, StreamBroken
from .budget import RateBudget
from .lane import Lane, LaneSession
from .mux import MuxStream
from .negotiate import propose, respond
from .stock import StockStream
from .stream import FramedStream
from .wire import Wire

log = logging.getLogger(__name__)

PROTOCOL_PREFIX = "/lading/"
NEGOTIATION_TIMEOUT_S = 10.0
# How long queued frames may take to leave when the connection is closed, and the peer to hang up in its turn.
CLOSE_FLUSH_S = 3.0
CLOSE_LINGER_S = 0.2
# How long a peer that broke a rule has to take what it is told.
LAST_WORD_S = 1.0


class Libp2pConnection:
    """One fenced, encrypted connection. Lives while ``run`` runs."""

    path = PathKind.DIRECT

    def __init__(self, wire: Wire, session: LaneSession, lane: Lane, *, outbound: bool, remote_address: str, budget: RateBudget) -> None:
        self.remote: PeerId = session.remote
        self.outbound = outbound
        self.handshake_hash: bytes = session.handshake_hash
        self.preshared_key: PresharedKey = session.preshared_key
        self.remote_address = remote_address
        self.closed = trio.Event()
        self.muxer = lane.muxer(session, initiator=outbound, opened=self._stream_opened, budget=budget)
        self._wire = wire
        self._reason = "the connection was closed"
        self._is_closing = False
        self._is_parting = False
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        # Every stream in it is open in the muxer, which bounds them.
        self._accepted_put, self._accepted_take = trio.open_memory_channel[FramedStream](STREAMS_INBOUND_MAX)

    async def run(self) -> None:
        """Serves the connection until it is lost or closed. Never raises but Cancelled; leaves nothing behind."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for loop in self.muxer.loops:
                        nursery.start_soon(self._until_lost, loop)
        finally:
            self._nursery = None
            self._is_closing = True
            self.muxer.lose(self._reason)
            self._accepted_put.close()
            self.closed.set()
            await self._wire.close()

    async def _until_lost(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except LadingError as error:
            if self.muxer.has_last_word and not self._is_parting:
                await self._part(error.message)
            self.drop(error.message)

    async def _part(self, reason: str) -> None:
        """Tells a peer that broke a rule that it did, if it takes it in time."""
        self._is_parting = True
        log.debug("the peer broke a rule: %s", reason)
        if not self._is_closing:
            self._is_closing, self._reason = True, reason
        with trio.move_on_after(LAST_WORD_S):
            await self.muxer.say_last_word()
            await self._hang_up()

    def drop(self, reason: str) -> None:
        """Ends it at once, without a goodbye."""
        if not self._is_closing:
            self._reason = reason
            log.debug("connection lost: %s", reason)
        self._scope.cancel()

    # --- streams --------------------------------------------------------------------------------------------------
    async def open_stream(self, protocol: str) -> FramedStream:
        """New stream; one round trip. Raises StreamBroken when the peer does not speak the protocol or the connection is gone."""
        self._check_open()
        stream = await self.muxer.open_stream()
        try:
            with trio.fail_after(NEGOTIATION_TIMEOUT_S):
                if not await propose(stream, protocol):
                    raise StreamBroken(f"the peer does not speak {protocol}")
        except BaseException as error:
            stream.reset()
            if isinstance(error, LadingError | trio.TooSlowError):
                raise StreamBroken(f"no stream for {protocol}: {error}") from error
            raise
        return FramedStream(stream, protocol)

    async def accept_stream(self) -> FramedStream:
        """Next stream that the peer opened. Raises StreamBroken when the connection is gone."""
        try:
            return await self._accepted_take.receive()
        except trio.EndOfChannel as error:
            raise StreamBroken(self._reason) from error

    @property
    def unread_bytes(self) -> int:
        """See port."""
        return self.muxer.unread_bytes

    def trust(self) -> None:
        """See port."""
        self.muxer.trust()

    def _stream_opened(self, stream: MuxStream | StockStream) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._welcome, stream)

    async def _welcome(self, stream: MuxStream | StockStream) -> None:
        """Agrees on the protocol of a stream that the peer opened. Whatever it says, only this stream dies of it."""
        try:
            with trio.fail_after(NEGOTIATION_TIMEOUT_S):
                protocol = await respond(stream, lambda proposed: proposed.startswith(PROTOCOL_PREFIX))
            self._accepted_put.send_nowait(FramedStream(stream, protocol))
        except (LadingError, trio.TooSlowError, trio.WouldBlock) as error:
            log.debug("stream refused: %s", error)
            stream.reset()

    def _check_open(self) -> None:
        if self._is_closing:
            raise StreamBroken(self._reason)

    # --- the end --------------------------------------------------------------------------------------------------
    async def close(self, reason: str = "") -> None:
        """Lets queued frames leave (CLOSE_FLUSH_S at most), says goodbye, closes. Never raises; a second call waits for the first."""
        await self.close_within(CLOSE_FLUSH_S, reason)

    async def close_within(self, flush_s: float, reason: str = "") -> None:
        """As ``close``, with another bound in seconds."""
        if self.closed.is_set():
            return
        if self._is_closing:
            await self.closed.wait()
            return
        self._is_closing = True
        self._reason = reason or self._reason
        try:
            with trio.move_on_after(flush_s):
                await self.muxer.say_goodbye()
                await self._hang_up()
        finally:
            self._scope.cancel()
        await self.closed.wait()

    async def _hang_up(self) -> None:
        """Ends our direction and gives the peer a moment to end its own, so that nothing on its way is answered with a reset."""
        try:
            await self._wire.finish()
            with trio.move_on_after(CLOSE_LINGER_S):
                # The muxer's reader takes what still comes, unless it was that which found the fault.
                await (self._wire.discard() if self._is_parting else self.closed.wait())
        except LadingError:
            return
