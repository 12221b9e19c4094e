"""One stream's life, and its two windows. SPEC.md beside it is normative. Made and stepped by YamuxSession."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..errors import Reason, RemoteError
from ..limits import SEND_WINDOW_BYTES_MAX, STREAM_CREDIT_BYTES_MIN, STREAM_CREDIT_SHARE, STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES_MAX
from ..machine import Machine, Outcome, Row
from .pieces import Piece, Pieces


class StreamState(enum.Enum):
    """What both sides have said."""

    SAID_SYN = "opened here, not acknowledged"
    OPEN = "open"
    FINISHED = "finished here"
    ENDED = "ended there"
    CLOSED = "finished on both sides"
    BROKEN = "reset, or its session lost"


_S = StreamState
SENDING = frozenset({_S.SAID_SYN, _S.OPEN, _S.ENDED})
"""States in which our direction is open."""


# --- what the peer does -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ack:
    """Took the stream."""


@dataclass(frozen=True, slots=True)
class Credit:
    """Lets us send ``size`` bytes more."""

    size: int


@dataclass(frozen=True, slots=True)
class Announced:
    """Began a frame of ``size`` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Body:
    """Some of the bytes that were announced, as the pieces they came in."""

    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Fin:
    """Will send nothing more."""


@dataclass(frozen=True, slots=True)
class Rst:
    """Threw the stream away."""


# --- what we do ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class FinLeft:
    """Our last frame is in the writer's hands."""


@dataclass(frozen=True, slots=True)
class Break:
    """Throw it away: the application's reset, the budget, the end of the session."""

    reason: str


class YamuxStream(Machine):
    """One stream. ``incoming`` may be read until it is empty, also after the end; not after a reset."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (_S.SAID_SYN, Ack): ("open", frozenset({_S.OPEN})),
        **{(state, Ack): ("rest", frozenset({state})) for state in (_S.OPEN, _S.FINISHED, _S.ENDED)},
        **{(state, Credit): ("widen", frozenset({state})) for state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED, _S.ENDED)},
        **{(state, Announced): ("check_window", frozenset({state})) for state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED)},
        **{(state, Body): ("keep", frozenset({state})) for state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED)},
        **{(state, Fin): ("end", frozenset({_S.ENDED})) for state in (_S.SAID_SYN, _S.OPEN)},
        (_S.FINISHED, Fin): ("end", frozenset({_S.CLOSED})),
        (_S.ENDED, Fin): ("rest", frozenset({_S.ENDED})),
        **{(state, Rst): ("discard", frozenset({_S.BROKEN})) for state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED, _S.ENDED)},
        **{(state, FinLeft): ("finish", frozenset({_S.FINISHED})) for state in (_S.SAID_SYN, _S.OPEN)},
        (_S.ENDED, FinLeft): ("finish", frozenset({_S.CLOSED})),
        **{(state, Break): ("give_up", frozenset({_S.BROKEN})) for state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED, _S.ENDED)},
        # What was under way when it closed, and an owner who comes late.
        **{(state, Break): ("rest", frozenset({state})) for state in (_S.CLOSED, _S.BROKEN)},
        **{(_S.BROKEN, event): ("rest", frozenset({_S.BROKEN})) for event in (Body, Fin)},
    }

    def __init__(self, stream_id: int, *, outbound: bool) -> None:
        super().__init__(_S.SAID_SYN if outbound else _S.OPEN)
        self.stream_id = stream_id
        self.outbound = outbound
        self.lost: str | None = None
        """Why it broke."""
        self.handle: object = None
        """Whatever the shell keeps with it."""
        # incoming
        self.incoming = Pieces()
        self.window_bytes = STREAM_WINDOW_BYTES
        self.granted_bytes = STREAM_WINDOW_BYTES
        """What the peer may still send."""
        self.taken_bytes = 0
        """What the application has taken since the last credit."""
        self.drained_bytes = 0
        """What it has taken since the window last grew."""
        # outgoing
        self.outgoing = Pieces()
        self.send_window_bytes = STREAM_WINDOW_BYTES
        self.is_finishing = False
        self.put_count = 0
        self.left_count = 0

    @property
    def has_ended(self) -> bool:
        """Whether the peer finished its direction."""
        return self.state in (_S.ENDED, _S.CLOSED)

    @property
    def grown_bytes(self) -> int:
        return self.window_bytes - STREAM_WINDOW_BYTES

    @property
    def can_leave(self) -> bool:
        """Whether the writer has something to take. A shut window holds bytes back, for as long as it stays shut."""
        if self.state not in SENDING:
            return False
        if self.outgoing.byte_count:
            return self.send_window_bytes > 0
        return self.is_finishing

    def credit_due(self) -> bool:
        """Whether so much was taken that the peer, if it still sends, should hear of it."""
        due = max(self.window_bytes // STREAM_CREDIT_SHARE, STREAM_CREDIT_BYTES_MIN)
        return self.taken_bytes >= due and self.state in (_S.SAID_SYN, _S.OPEN, _S.FINISHED)

    @property
    def growth_wanted(self) -> int:
        """How much more window it deserves: as much again for one that its application empties, half a window since the last growth;
        nothing for others."""
        if 2 * self.drained_bytes < self.window_bytes or 4 * self.incoming.byte_count > self.window_bytes:
            return 0
        return min(self.window_bytes, STREAM_WINDOW_BYTES_MAX - self.window_bytes)

    # --- moves ----------------------------------------------------------------------------------------------------
    def open(self, _: Ack, __: float) -> Outcome:
        return _S.OPEN, ()

    def widen(self, credit: Credit, _: float) -> Outcome:
        self.send_window_bytes += credit.size
        if self.send_window_bytes > SEND_WINDOW_BYTES_MAX:
            raise RemoteError(Reason.FLOOD, f"a window of {self.send_window_bytes} bytes, at most {SEND_WINDOW_BYTES_MAX} wanted")
        return self.state, ()

    def check_window(self, announced: Announced, _: float) -> Outcome:
        if announced.size > self.granted_bytes:
            raise RemoteError(Reason.FLOOD, f"{announced.size} bytes sent, at most {self.granted_bytes} granted")
        self.granted_bytes -= announced.size
        return self.state, ()

    def keep(self, body: Body, _: float) -> Outcome:
        for piece in body.pieces:
            self.incoming.put(piece)
        return self.state, ()

    def end(self, _: Fin, __: float) -> Outcome:
        return (_S.CLOSED if self.state is _S.FINISHED else _S.ENDED), ()

    def finish(self, _: FinLeft, __: float) -> Outcome:
        return (_S.CLOSED if self.state is _S.ENDED else _S.FINISHED), ()

    def discard(self, _: Rst, __: float) -> Outcome:
        """A reset leaves nothing to read: unread bytes of streams that are reset over and over would be bounded by nothing."""
        self.incoming.clear()
        self.outgoing.clear()
        self.lost = "the peer reset the stream"
        return _S.BROKEN, ()

    def give_up(self, broken: Break, _: float) -> Outcome:
        self.outgoing.clear()
        self.lost = broken.reason
        return _S.BROKEN, ()

    def rest(self, _: object, __: float) -> Outcome:
        return self.state, ()
