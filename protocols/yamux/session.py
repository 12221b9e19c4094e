"""All streams of one connection. SPEC.md beside it is normative.

The shell hands plain bytes to ``feed`` and writes what ``collect`` gives, control frames first, then a frame of each ready stream in
turn; when a batch is out it calls ``left``. Nothing here waits: whatever the peer makes us say is queued, in bounds, and leaves
with the next batch. Of a peer that broke a rule the last batch tells it so. Time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from ..effects import Effect
from ..errors import LadingError, Reason, RemoteError
from ..limits import (
    CONTROL_FRAMES_MAX,
    DATA_FRAME_BYTES_MAX,
    HALF_RECEIVED_MAX_S,
    LINK_RATE_MIN,
    PING_IDLE_S,
    PING_PATIENCE_S,
    PONGS_WAITING_MAX,
    STREAM_WINDOW_BYTES_MAX,
    STREAMS_INBOUND_MAX,
    STREAMS_OUTBOUND_MAX,
)
from ..machine import Machine, Outcome, Row
from .budget import Budget, connection_budget
from .frames import ACK, FIN, HEADER_BYTES, RST, SYN, Data, GoAway, GoAwayCode, Kind, Ping, WindowUpdate, decode_header, encode_header
from .pieces import Piece
from .stream import Ack, Announced, Body, Break, Credit, Fin, FinLeft, Rst, StreamState, YamuxStream


class MuxState(enum.Enum):
    """Who has said goodbye."""

    OPEN = "open"
    LEAVING = "we have said goodbye"
    LEFT = "the peer has said goodbye"
    PARTING = "both have"
    LOST = "lost"


_S = MuxState
_LIVING = (_S.OPEN, _S.LEAVING, _S.LEFT, _S.PARTING)


# --- what happens, besides frames ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Open:
    """The application wants a stream."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye behind everything queued so far."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Lose:
    """The session underneath is gone."""

    reason: str


# --- what to do ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Opened:
    """The peer, or for ``Open`` this side, has a new stream."""

    stream: YamuxStream


@dataclass(frozen=True, slots=True)
class Changed:
    """Somebody who waits for this stream should look again: bytes, room, its end."""

    stream: YamuxStream


@dataclass(frozen=True, slots=True)
class Refused:
    """No stream for ``Open``."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The session is over: the peer broke a rule, fell silent or left for a reason."""

    error: LadingError


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one session. The defaults are those of protocols/limits.py; benchmarks and tests of other implementations widen them."""

    streams_inbound_max: int = STREAMS_INBOUND_MAX
    streams_outbound_max: int = STREAMS_OUTBOUND_MAX


@dataclass(slots=True)
class Batch:
    """What to write: pieces in order, and what of whom is in it."""

    pieces: list[Piece] = field(default_factory=list)
    taken: list[tuple[YamuxStream, int]] = field(default_factory=list)
    byte_count: int = 0


class YamuxSession(Machine):
    """The muxer's rules. ``feed`` never raises: a violation comes out as Failed, wherever the bytes were cut."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        **{(state, Data): ("take_data", frozenset({state})) for state in _LIVING},
        **{(state, WindowUpdate): ("take_window_update", frozenset({state})) for state in _LIVING},
        **{(state, Ping): ("take_ping", frozenset({state})) for state in _LIVING},
        **{(state, GoAway): ("take_go_away", frozenset({_S.LEFT, _S.LOST})) for state in (_S.OPEN, _S.LEFT)},
        **{(state, GoAway): ("take_go_away", frozenset({_S.PARTING, _S.LOST})) for state in (_S.LEAVING, _S.PARTING)},
        (_S.OPEN, Open): ("open_stream", frozenset({_S.OPEN})),
        **{(state, Open): ("refuse", frozenset({state})) for state in (_S.LEAVING, _S.LEFT, _S.PARTING, _S.LOST)},
        (_S.OPEN, Leave): ("say_goodbye", frozenset({_S.LEAVING})),
        (_S.LEFT, Leave): ("say_goodbye", frozenset({_S.PARTING})),
        **{(state, Leave): ("rest", frozenset({state})) for state in (_S.LEAVING, _S.PARTING, _S.LOST)},
        **{(state, Tick): ("look_at_clock", frozenset({state, _S.LOST})) for state in _LIVING},
        (_S.LOST, Tick): ("rest", frozenset({_S.LOST})),
        **{(state, Lose): ("lose", frozenset({_S.LOST})) for state in _LIVING},
        (_S.LOST, Lose): ("rest", frozenset({_S.LOST})),
    }

    def __init__(
        self, *, initiator: bool, now_s: float, budget: Budget | None = None, limits: Limits | None = None, is_trusted: bool = True
    ) -> None:
        """initiator: the side that dialled; its streams have odd ids. budget: of this connection."""
        super().__init__(_S.OPEN)
        self.budget = budget or connection_budget()
        self.limits = limits or Limits()
        self.streams: dict[int, YamuxStream] = {}
        self.is_trusted = is_trusted
        """Whether windows may grow."""
        self.reason = ""
        """Why it is LOST."""
        self.last_word: GoAwayCode | None = None
        """What the peer is told of that."""
        self._outbound_count = 0
        self._inbound_count = 0
        self._next_id = 1 if initiator else 2
        self._highest_inbound_id = 0
        # to be said
        self._control: deque[bytes] = deque()
        self._pongs: deque[bytes] = deque()
        self._credits: dict[int, int] = {}
        self._ready: dict[YamuxStream, None] = {}  # in the order of their turns
        self._leaving: list[YamuxStream] = []  # in the batch that the writer has
        # parser
        self._header = bytearray()
        self._body_left = 0
        self._body_stream: YamuxStream | None = None
        self._body_flags = 0
        self._body: list[Piece] = []  # of the frame under way, not yet its stream's
        self._deadline_s: float | None = None
        # signs of life
        self._heard_at_s = now_s
        self._asked_at_s: float | None = None
        self._asked_count = 0
        self._due_at_s = now_s + PING_IDLE_S

    # --- the application's side -----------------------------------------------------------------------------------
    def put(self, stream: YamuxStream, *pieces: Piece) -> None:
        """Queues bytes of a stream whose direction is open."""
        assert not stream.is_finishing
        assert stream.lost is None
        for piece in pieces:
            stream.outgoing.put(piece)
            stream.put_count += len(piece)
        self._schedule(stream)

    def finish(self, stream: YamuxStream) -> None:
        """Half-closes behind everything queued."""
        if not stream.is_finishing and stream.lost is None:
            stream.is_finishing = True
            self._schedule(stream)

    def take(self, stream: YamuxStream, size_max: int) -> list[Piece]:
        """What has arrived, at most that many bytes; the peer gets credit for them in time."""
        pieces = stream.incoming.take(size_max)
        self._taken(stream, sum(map(len, pieces)))
        return pieces

    def reset(self, stream: YamuxStream, reason: str) -> tuple[Effect, ...]:
        """Throws a stream away, and tells the peer."""
        if stream.state in (StreamState.CLOSED, StreamState.BROKEN):
            stream.incoming.clear()
            return ()
        self._control.append(encode_header(Kind.WINDOW_UPDATE, RST, stream.stream_id, 0))
        return self._break(stream, reason, keep_incoming=False)

    # --- the writer's side ----------------------------------------------------------------------------------------
    @property
    def has_work(self) -> bool:
        """Whether ``collect`` would give anything."""
        return bool(self._control or self._pongs or self._credits or self._ready)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was put has left, shut windows included."""
        return not self.has_work and not any(stream.left_count < stream.put_count for stream in self.streams.values())

    def collect(self, size_max: int) -> Batch:
        """The next batch: everything of the session's own, then one frame of each ready stream in turn up to about ``size_max`` bytes."""
        batch = Batch()
        pieces = batch.pieces
        pieces += self._control
        pieces += self._pongs
        pieces += (encode_header(Kind.WINDOW_UPDATE, 0, stream_id, credit) for stream_id, credit in self._credits.items())
        self._control.clear()
        self._pongs.clear()
        self._credits.clear()
        size = HEADER_BYTES * len(pieces)
        while self._ready and size < size_max:
            stream = next(iter(self._ready))
            del self._ready[stream]
            room = min(DATA_FRAME_BYTES_MAX, size_max - size, stream.send_window_bytes)
            body = stream.outgoing.take(room)
            body_bytes = sum(map(len, body))
            stream.send_window_bytes -= body_bytes
            is_last = stream.is_finishing and not stream.outgoing.byte_count
            if body:
                pieces.append(encode_header(Kind.DATA, 0, stream.stream_id, body_bytes))
                pieces += body
                size += HEADER_BYTES + body_bytes
            batch.taken.append((stream, body_bytes))
            if is_last:
                # Never on the data itself: js-libp2p ends the stream at the flag, and only then takes the frame's bytes.
                pieces.append(encode_header(Kind.WINDOW_UPDATE, FIN, stream.stream_id, 0))
                size += HEADER_BYTES
                stream.step(FinLeft(), 0.0)
                self._forget_if_over(stream)
            self._schedule(stream)
        batch.byte_count = size
        self._leaving += (stream for stream, _ in batch.taken)
        return batch

    def left(self, batch: Batch) -> tuple[Effect, ...]:
        """The batch is out."""
        del self._leaving[: len(batch.taken)]
        for stream, size in batch.taken:
            stream.left_count += size
        return tuple(Changed(stream) for stream, _ in batch.taken)

    # --- the peer's side ------------------------------------------------------------------------------------------
    def feed(self, messages: Iterable[bytes], now_s: float) -> tuple[Effect, ...]:
        """Any number of frames, cut anywhere. Result ends with Failed when the peer broke a rule."""
        if self.state is _S.LOST:
            return ()
        effects: list[Effect] = []
        self._heard_at_s = now_s
        self._asked_at_s = None
        try:
            for message in messages:
                self._parse(message, now_s, effects)
            self._keep(now_s, effects)
        except RemoteError as error:
            effects += self._fail(error)
        return tuple(effects)

    def _parse(self, message: bytes, now_s: float, effects: list[Effect]) -> None:
        position, size = 0, len(message)
        view = memoryview(message)
        while position < size and self.state is not _S.LOST:
            if self._body_left:
                stop = min(size, position + self._body_left)
                self._body_left -= stop - position
                if self._body_stream is not None:
                    self._body.append(message if stop - position == size else view[position:stop])
                position = stop
            elif not self._header and size - position >= HEADER_BYTES:
                frame = decode_header(view[position : position + HEADER_BYTES])
                position += HEADER_BYTES
                effects += self.step(frame, now_s)
            else:
                stop = min(size, position + HEADER_BYTES - len(self._header))
                self._header += view[position:stop]
                position = stop
                if len(self._header) < HEADER_BYTES:
                    self._deadline_s = now_s + HALF_RECEIVED_MAX_S
                    return
                frame = decode_header(self._header)
                self._header.clear()
                effects += self.step(frame, now_s)
            if not self._body_left:
                self._end_frame(now_s, effects)

    def _keep(self, now_s: float, effects: list[Effect]) -> None:
        """Hands what came of the frame under way to its stream."""
        if not self._body:
            return
        stream, pieces = self._body_stream, tuple(self._body)
        self._body.clear()
        assert stream is not None
        stream.step(Body(pieces), now_s)
        if stream.state is StreamState.BROKEN:
            return
        self.budget.hold(sum(map(len, pieces)))
        effects.append(Changed(stream))
        if self.budget.is_full:
            fullest = max(self.streams.values(), key=lambda each: each.incoming.byte_count)
            effects += self.reset(fullest, "too much of what the peer sent was not read")

    def _end_frame(self, now_s: float, effects: list[Effect]) -> None:
        """After a frame's last byte, when its flags count."""
        self._keep(now_s, effects)
        stream, flags = self._body_stream, self._body_flags
        self._body_stream, self._body_flags, self._deadline_s = None, 0, None
        if stream is None or not flags & (FIN | RST) or stream.state is StreamState.BROKEN:
            return
        held = stream.incoming.byte_count
        stream.step(Rst() if flags & RST else Fin(), now_s)
        if flags & RST:
            self.budget.hold(-held)
        effects.append(Changed(stream))
        self._forget_if_over(stream)

    def wake_at(self) -> float | None:
        """When a sign of life, or the end of something half received, is due."""
        if self.state is _S.LOST:
            return None
        return self._due_at_s if self._deadline_s is None else min(self._due_at_s, self._deadline_s)

    # --- moves ----------------------------------------------------------------------------------------------------
    def take_data(self, data: Data, now_s: float) -> Outcome:
        stream, effects = self._stream_of(data, now_s)
        if stream is not None:
            stream.step(Announced(data.value), now_s)
        elif data.value > STREAM_WINDOW_BYTES_MAX:
            error = f"{data.value} bytes for a stream that is gone, at most {STREAM_WINDOW_BYTES_MAX} can be on their way"
            raise RemoteError(Reason.FLOOD, error)
        self._body_left = data.value
        if data.value:
            self._deadline_s = now_s + HALF_RECEIVED_MAX_S + data.value / LINK_RATE_MIN
        return self.state, effects

    def take_window_update(self, update: WindowUpdate, now_s: float) -> Outcome:
        stream, effects = self._stream_of(update, now_s)
        if stream is not None and update.value:
            stream.step(Credit(update.value), now_s)
            self._schedule(stream)
        return self.state, effects

    def take_ping(self, ping: Ping, _: float) -> Outcome:
        if ping.flags & SYN:
            if len(self._pongs) >= PONGS_WAITING_MAX:
                raise RemoteError(Reason.FLOOD, f"{len(self._pongs)} pings wait for their answers, no more are wanted")
            self._pongs.append(encode_header(Kind.PING, ACK, 0, ping.value))
        return self.state, ()

    def take_go_away(self, farewell: GoAway, _: float) -> Outcome:
        if farewell.value != GoAwayCode.NORMAL:
            error = RemoteError(Reason.UNREACHABLE, f"the peer closed the connection with code {farewell.value}")
            return _S.LOST, self._lost(error)
        return (_S.LEFT if self.state in (_S.OPEN, _S.LEFT) else _S.PARTING), ()

    def open_stream(self, _: Open, __: float) -> Outcome:
        if self._outbound_count >= self.limits.streams_outbound_max:
            reason = f"{self._outbound_count} streams are open on this connection, no more are allowed"
            return self.state, (Refused(reason),)
        stream = YamuxStream(self._next_id, outbound=True)
        self._next_id += 2
        self._outbound_count += 1
        self.streams[stream.stream_id] = stream
        self._control.append(encode_header(Kind.WINDOW_UPDATE, SYN, stream.stream_id, 0))
        return self.state, (Opened(stream),)

    def refuse(self, _: Open, __: float) -> Outcome:
        return self.state, (Refused(self.reason or "the connection is being closed"),)

    def say_goodbye(self, _: Leave, __: float) -> Outcome:
        self._control.append(encode_header(Kind.GO_AWAY, 0, 0, GoAwayCode.NORMAL))
        return (_S.LEAVING if self.state is _S.OPEN else _S.PARTING), ()

    def look_at_clock(self, _: Tick, now_s: float) -> Outcome:
        if self._deadline_s is not None and now_s >= self._deadline_s:
            return _S.LOST, self._lost(RemoteError(Reason.STALLED, "a muxer frame stayed half received"), GoAwayCode.PROTOCOL_ERROR)
        if now_s < self._due_at_s:
            return self.state, ()
        if now_s - self._due_at_s > PING_IDLE_S:
            # It was us who stood still (a suspended machine, a stopped process): what the peer said meanwhile is not read yet.
            self._heard_at_s = now_s
            self._asked_at_s = None
        if self._asked_at_s is None and now_s - self._heard_at_s >= PING_IDLE_S:
            self._asked_at_s = now_s
            self._asked_count += 1
            self._control.append(encode_header(Kind.PING, SYN, 0, self._asked_count & 0xFFFFFFFF))
        elif self._asked_at_s is not None and now_s - self._asked_at_s >= PING_PATIENCE_S:
            silence = now_s - self._heard_at_s
            return _S.LOST, self._lost(RemoteError(Reason.STALLED, f"the peer has said nothing for {silence:.0f} s"))
        self._due_at_s = self._heard_at_s + PING_IDLE_S if self._asked_at_s is None else self._asked_at_s + PING_PATIENCE_S
        return self.state, ()

    def lose(self, lost: Lose, _: float) -> Outcome:
        self.reason = lost.reason
        return _S.LOST, self._break_all(lost.reason)

    def rest(self, _: object, __: float) -> Outcome:
        return self.state, ()

    # --- what moves are made of -----------------------------------------------------------------------------------
    def _stream_of(self, frame: Data | WindowUpdate, now_s: float) -> tuple[YamuxStream | None, tuple[Effect, ...]]:
        """The frame's stream, opened if it says so; None for one that is gone or refused."""
        effects: tuple[Effect, ...] = ()
        if frame.flags & SYN:
            effects = self._take_syn(frame.stream_id)
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            highest = self._next_id - 2 if self._is_ours(frame.stream_id) else self._highest_inbound_id
            if frame.stream_id > highest:
                raise RemoteError(Reason.MALFORMED, f"a frame for stream {frame.stream_id}, which nobody has opened")
        elif frame.flags & ACK:
            stream.step(Ack(), now_s)
        self._body_flags = frame.flags
        self._body_stream = stream
        return stream, effects

    def _is_ours(self, stream_id: int) -> bool:
        return stream_id % 2 == self._next_id % 2

    def _take_syn(self, stream_id: int) -> tuple[Effect, ...]:
        if self._is_ours(stream_id) or stream_id in self.streams:
            raise RemoteError(Reason.MALFORMED, f"the peer may not open a stream {stream_id}")
        self._highest_inbound_id = max(self._highest_inbound_id, stream_id)
        is_refused = self._inbound_count >= self.limits.streams_inbound_max or self.state in (_S.LEAVING, _S.PARTING)
        if len(self._control) >= CONTROL_FRAMES_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(self._control)} answers wait for a peer that does not read them")
        self._control.append(encode_header(Kind.WINDOW_UPDATE, RST if is_refused else ACK, stream_id, 0))
        if is_refused:
            return ()
        stream = YamuxStream(stream_id, outbound=False)
        self.streams[stream_id] = stream
        self._inbound_count += 1
        return (Opened(stream),)

    def _schedule(self, stream: YamuxStream) -> None:
        if stream.can_leave:
            self._ready.setdefault(stream)

    def _taken(self, stream: YamuxStream, size: int) -> None:
        if self.streams.get(stream.stream_id) is not stream:
            return
        self.budget.hold(-size)
        stream.taken_bytes += size
        stream.drained_bytes += size
        if stream.credit_due():
            growth = self.budget.grow(stream.growth_wanted) if self.is_trusted else 0
            credit = stream.taken_bytes + growth
            stream.window_bytes += growth
            stream.drained_bytes = 0 if growth else stream.drained_bytes
            stream.granted_bytes += credit
            stream.taken_bytes = 0
            self._credits[stream.stream_id] = self._credits.get(stream.stream_id, 0) + credit

    def _forget_if_over(self, stream: YamuxStream) -> None:
        if stream.state in (StreamState.CLOSED, StreamState.BROKEN) and self.streams.get(stream.stream_id) is stream:
            del self.streams[stream.stream_id]
            if stream.outbound:
                self._outbound_count -= 1
            else:
                self._inbound_count -= 1
            self.budget.shrink(stream.grown_bytes)
            self.budget.hold(-stream.incoming.byte_count)
            self._credits.pop(stream.stream_id, None)
            self._ready.pop(stream, None)

    def _break(self, stream: YamuxStream, reason: str, *, keep_incoming: bool) -> tuple[Effect, ...]:
        if not keep_incoming:
            self.budget.hold(-stream.incoming.byte_count)
            stream.incoming.clear()
        stream.step(Break(reason), 0.0)
        self._forget_if_over(stream)
        return (Changed(stream),)

    def _break_all(self, reason: str) -> tuple[Effect, ...]:
        """What had arrived can still be read; it is counted no more."""
        effects: tuple[Effect, ...] = ()
        for stream in tuple(self.streams.values()):
            effects += self._break(stream, reason, keep_incoming=True)
        for stream in self._leaving:
            # One that has closed is forgotten above, but somebody may wait for its last bytes to leave.
            if stream.lost is None:
                stream.lost = reason
                effects += (Changed(stream),)
        self._leaving.clear()
        self._control.clear()
        self._pongs.clear()
        self._credits.clear()
        self._header.clear()
        self._body.clear()
        self._body_left, self._body_stream, self._body_flags, self._deadline_s = 0, None, 0, None
        return effects

    def _lost(self, error: LadingError, code: GoAwayCode | None = None) -> tuple[Effect, ...]:
        """code: what the peer is told, as the last thing that leaves."""
        self.reason = error.message
        effects = self._break_all(error.message)
        self.last_word = code
        if code is not None:
            self._control.append(encode_header(Kind.GO_AWAY, 0, 0, code))
        return (*effects, Failed(error))

    def _fail(self, error: LadingError) -> tuple[Effect, ...]:
        """A violation, found in the middle of a move: there is no state to go on from."""
        effects = self._lost(error, GoAwayCode.PROTOCOL_ERROR)
        self.state = _S.LOST
        return effects
