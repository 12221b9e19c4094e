"""Both directions of one Noise session after the handshake. SPEC.md beside it is normative.

The shell receives into ``room()`` and steps ``Arrived``; it hands what is to be said to ``Say`` and writes what comes back, whole and in
that order, or the session is lost. Time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..crypto import CounterCipher
from ..effects import Effect
from ..errors import InvalidObject, LadingError, Reason, RemoteError
from ..limits import (
    AEAD_TAG_BYTES,
    HALF_RECEIVED_MAX_S,
    NOISE_LENGTH_BYTES,
    NOISE_PLAIN_BYTES_MAX,
    RECEIVE_BUFFER_BYTES_MAX,
    RECEIVE_BUFFER_BYTES_MIN,
)
from ..machine import Machine, Outcome, Row

Buffer = bytes | bytearray | memoryview
# The buffer to seal into grows in such steps.
OUT_STEP_BYTES = 64 * 1024


class SessionState(enum.Enum):
    """What is known of the peer's direction."""

    BETWEEN = "between messages"
    INSIDE = "inside a message"
    ENDED = "ended"
    FAILED = "failed"


_S = SessionState


# --- what happens -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Arrived:
    """``size`` bytes were written to the front of ``room()``."""

    size: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The peer's direction has ended underneath."""


@dataclass(frozen=True, slots=True)
class Say:
    """Bytes to be sealed, as pieces of any sizes."""

    pieces: Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


# --- what to do ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Plain:
    """What the peer said, in order: the content of whole messages whose tags held, each at least one byte."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Sealed:
    """To be written, all of it, before anything else is said: the buffer is used again."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer's direction ended between two messages."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The session is over; nothing the peer says is looked at any more, nothing is sealed any more."""

    error: LadingError


class NoiseSession(Machine):
    """One session. Holds at most RECEIVE_BUFFER_BYTES_MAX of unopened bytes, RECEIVE_BUFFER_BYTES_MIN while quiet."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        **{(state, Arrived): ("open_messages", frozenset({_S.BETWEEN, _S.INSIDE, _S.FAILED})) for state in (_S.BETWEEN, _S.INSIDE)},
        (_S.BETWEEN, Ended): ("finish", frozenset({_S.ENDED})),
        (_S.INSIDE, Ended): ("cut", frozenset({_S.FAILED})),
        (_S.BETWEEN, Tick): ("shrink", frozenset({_S.BETWEEN})),
        (_S.INSIDE, Tick): ("look_at_clock", frozenset({_S.INSIDE, _S.FAILED})),
        **{(state, Say): ("seal", frozenset({state, _S.FAILED})) for state in (_S.BETWEEN, _S.INSIDE, _S.ENDED)},
        (_S.ENDED, Tick): ("rest", frozenset({_S.ENDED})),
        **{(_S.FAILED, event): ("rest", frozenset({_S.FAILED})) for event in (Arrived, Ended, Tick, Say)},
    }

    def __init__(self, sending: CounterCipher, receiving: CounterCipher, *, buffer_bytes_max: int = RECEIVE_BUFFER_BYTES_MAX) -> None:
        """buffer_bytes_max: how far the buffer may grow; may be raised later. At least 128 KiB, in which any message fits."""
        super().__init__(_S.BETWEEN)
        self._sending = sending
        self._receiving = receiving
        self.buffer_bytes_max = buffer_bytes_max
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES_MIN)
        self._begin = 0
        self._end = 0
        self._wanted = NOISE_LENGTH_BYTES
        self._deadline_s: float | None = None
        self._is_busy = False
        self._is_quiet = False
        self._out = bytearray()
        self._has_said = False

    def wake_at(self) -> float | None:
        """When a half-received message has been awaited long enough."""
        return self._deadline_s

    @property
    def buffer_bytes(self) -> int:
        """What is held to receive into."""
        return len(self._buffer)

    @property
    def out_bytes(self) -> int:
        """What is held to seal into."""
        return len(self._out)

    def room(self) -> memoryview:
        """Where the next bytes belong, at least one byte of room. To be used before the next step only."""
        held = self._end - self._begin
        if self._is_quiet and not held:
            self._is_quiet = False
            self._buffer = bytearray(RECEIVE_BUFFER_BYTES_MIN)
        size = len(self._buffer)
        while size < self._wanted:
            size *= 2
        if size != len(self._buffer):
            self._move(bytearray(size))
        elif not held:
            self._begin = self._end = 0
        elif size - self._begin < self._wanted or size - self._end < size // 4:
            self._move(self._buffer)
        return memoryview(self._buffer)[self._end :]

    def feed(self, data: Buffer, now_s: float) -> tuple[Effect, ...]:
        """As the shell would with these bytes, however many."""
        effects: tuple[Effect, ...] = ()
        view = memoryview(data)
        while view and self.state is not _S.FAILED:
            with self.room() as room:
                size = min(len(room), len(view))
                room[:size] = view[:size]
            view = view[size:]
            effects += self.step(Arrived(size), now_s)
        return effects

    def say(self, pieces: Sequence[Buffer], now_s: float) -> memoryview:
        """What to write for these pieces, good until the next are said. Raises LadingError(FAILED) after a failure,
        InvalidObject(EXPIRED) with the last nonce used."""
        for effect in self.step(Say(pieces), now_s):
            if isinstance(effect, Sealed):
                return effect.data
            if isinstance(effect, Failed):
                raise effect.error
        raise LadingError(Reason.FAILED, "this session has failed")

    # --- moves ----------------------------------------------------------------------------------------------------
    def open_messages(self, arrived: Arrived, now_s: float) -> Outcome:
        assert arrived.size <= len(self._buffer) - self._end
        self._end += arrived.size
        is_filled = self._end == len(self._buffer)
        messages: list[bytes] = []
        effects: list[Effect] = []
        begin, end, buffer, count = self._begin, self._end, self._buffer, self._receiving.counter
        self._wanted = NOISE_LENGTH_BYTES
        with memoryview(buffer) as view:
            while end - begin >= NOISE_LENGTH_BYTES:
                size = buffer[begin] << 8 | buffer[begin + 1]
                stop = begin + NOISE_LENGTH_BYTES + size
                if size < AEAD_TAG_BYTES:
                    effects.append(
                        Failed(RemoteError(Reason.MALFORMED, f"sealed message of {size} bytes, {AEAD_TAG_BYTES} or more wanted"))
                    )
                    break
                if stop > end:
                    self._wanted = stop - begin
                    break
                try:
                    plain = self._receiving.open(view[begin + NOISE_LENGTH_BYTES : stop])
                except InvalidObject as error:
                    effects.append(Failed(RemoteError(error.reason, f"the connection was tampered with: {error.message}")))
                    break
                if plain:
                    messages.append(plain)
                begin = stop
        self._begin = begin
        if messages:
            effects.insert(0, Plain(tuple(messages)))
        if effects and isinstance(effects[-1], Failed):
            return self._failed(), tuple(effects)
        if 4 * arrived.size >= len(buffer):
            self._is_busy, self._is_quiet = True, False
        if is_filled and 2 * len(buffer) <= self.buffer_bytes_max:
            self._move(bytearray(2 * len(buffer)))
        if begin == end:
            self._deadline_s = None
            return _S.BETWEEN, tuple(effects)
        if self.state is _S.BETWEEN or self._receiving.counter != count:
            self._deadline_s = now_s + HALF_RECEIVED_MAX_S
        return _S.INSIDE, tuple(effects)

    def finish(self, _: Ended, __: float) -> Outcome:
        return _S.ENDED, (Finished(),)

    def cut(self, _: Ended, __: float) -> Outcome:
        return self._failed(), (Failed(RemoteError(Reason.TRUNCATED, "the peer's direction ended inside a sealed message")),)

    def shrink(self, _: Tick, __: float) -> Outcome:
        """A quiet connection gives its large buffer back, when the shell asks for room again: until then it may still fill this one."""
        self._is_quiet = not self._is_busy and len(self._buffer) > RECEIVE_BUFFER_BYTES_MIN
        self._is_busy = False
        self._let_out_go()
        return _S.BETWEEN, ()

    def look_at_clock(self, _: Tick, now_s: float) -> Outcome:
        assert self._deadline_s is not None
        self._let_out_go()
        if now_s < self._deadline_s:
            return _S.INSIDE, ()
        error = RemoteError(Reason.STALLED, f"a sealed message stayed half received for {HALF_RECEIVED_MAX_S:.0f} s")
        return self._failed(), (Failed(error),)

    def seal(self, say: Say, _: float) -> Outcome:
        size = sum(map(len, say.pieces))
        message_count = -(-size // NOISE_PLAIN_BYTES_MAX)
        out_bytes = size + message_count * (NOISE_LENGTH_BYTES + AEAD_TAG_BYTES)
        if out_bytes > len(self._out):
            self._out = bytearray(-(-out_bytes // OUT_STEP_BYTES) * OUT_STEP_BYTES)
        self._has_said = True
        out = memoryview(self._out)[:out_bytes]
        position = 0
        try:
            for plain in _messages(say.pieces):
                begin = position + NOISE_LENGTH_BYTES
                out[position:begin] = (len(plain) + AEAD_TAG_BYTES).to_bytes(NOISE_LENGTH_BYTES, "big")
                position = begin + len(plain) + AEAD_TAG_BYTES
                self._sending.seal_into(plain, out[begin:position])
        except InvalidObject as error:
            return self._failed(), (Failed(error),)
        assert position == out_bytes
        return self.state, (Sealed(out),)

    def rest(self, _: object, __: float) -> Outcome:
        return self.state, ()

    # --- what moves are made of -----------------------------------------------------------------------------------
    def _let_out_go(self) -> None:
        """Who says nothing between two ticks needs no buffer for it. One that is still being written lives on in its view."""
        if not self._has_said:
            self._out = bytearray()
        self._has_said = False

    def _failed(self) -> SessionState:
        self._deadline_s = None
        self._buffer = bytearray(RECEIVE_BUFFER_BYTES_MIN)
        self._begin = self._end = 0
        self._wanted = NOISE_LENGTH_BYTES
        return _S.FAILED

    def _move(self, target: bytearray) -> None:
        """Unopened bytes to the front of ``target``, which takes the buffer's place."""
        held = self._end - self._begin
        target[:held] = self._buffer[self._begin : self._end]
        self._buffer = target
        self._begin, self._end = 0, held


def _messages(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """The same bytes, cut into NOISE_PLAIN_BYTES_MAX and a rest; copied only where a message spans pieces."""
    parts: list[memoryview] = []
    room = NOISE_PLAIN_BYTES_MAX
    for piece in pieces:
        view = memoryview(piece)
        while view:
            parts.append(view[:room])
            view = view[room:]
            room -= len(parts[-1])
            if not room:
                yield parts[0] if len(parts) == 1 else b"".join(parts)
                parts, room = [], NOISE_PLAIN_BYTES_MAX
    if parts:
        yield parts[0] if len(parts) == 1 else b"".join(parts)
