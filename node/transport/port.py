"""The transport port: what the node needs of a network, whichever twin is behind it (libp2p/ or memory.py).

Manners every twin keeps:
- A stream is framed: ``send`` takes a whole frame body, ``receive`` gives one. Frames of one stream keep their order.
- Each stream has one writer behind a bounded queue, in a task that no caller can cancel; cancelling ``send`` never cuts a frame in
  the middle: either the frame was queued whole or it was not queued at all.
- ``receive`` raises StreamEnded only after the peer *finished* cleanly between two frames; a vanished peer or connection,
  a reset, or an end inside a frame is StreamBroken. End-of-stream alone never means that the peer was done speaking its mind:
  conversations say so in their own messages.
- A connection begins untrusted: a frame longer than FRAME_BYTES_MAX_UNPROVEN is TOO_LONG, and beyond UNREAD_BYTES_MAX_UNPROVEN of
  unread bytes (all streams together) nothing more is read from the peer, who must wait; ``trust`` ends that.
- ``finish`` half-closes after everything queued has left. ``reset`` throws both directions away.
- ``Connection.close`` first lets queued frames leave (bounded by a time-out), then closes. ``closed`` is set exactly once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from protocols.errors import LadingError, Reason
from protocols.types import PeerId

if TYPE_CHECKING:
    # A dependency of libp2p brings old stubs of trio that shadow trio's own types; theirs has this name elsewhere.
    from trio_typing import TaskStatus


class PathKind(enum.Enum):
    """How bytes reach the peer; shown to people, used by budgets."""

    DIRECT = "direct"
    RELAYED = "relayed"


class StreamEnded(LadingError):
    """The peer finished its direction cleanly, between two frames."""

    def __init__(self) -> None:
        super().__init__(Reason.UNREACHABLE, "the peer finished this stream")


class StreamBroken(LadingError):
    """The stream is gone: reset, lost connection, violated limit."""

    def __init__(self, message: str = "the stream broke") -> None:
        super().__init__(Reason.UNREACHABLE, message)


class DialFailed(LadingError):
    """No connection: nobody there, wrong peer, fence refused, time-out. ``reason`` says which."""


@dataclass(frozen=True, slots=True)
class PresharedKey:
    """One Noise pre-shared key and where it comes from.

    kind: "fence" (a fence of the network) or "join" (an open ticket). id: fence hash or ticket id. secret: 32 bytes.
    """

    kind: str
    id: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"PresharedKey({self.kind}, {self.id.hex()[:8]})"


class Stream(Protocol):
    """One framed, bounded, two-way stream with one writer."""

    protocol: str

    async def send(self, *parts: bytes) -> None:
        """Queues one frame body (0 to limits.FRAME_BYTES_MAX bytes), in parts that are not copied where that can be avoided; waits for
        room. Raises StreamBroken, also after ``finish``."""

    async def flush(self) -> None:
        """Returns when everything queued so far has been handed to the connection. Raises StreamBroken."""

    async def receive(self) -> bytes:
        """Next frame body. Raises StreamEnded, StreamBroken, DecodeError(TOO_LONG) (the stream is reset then)."""

    async def finish(self) -> None:
        """Half-closes behind everything queued, and returns when that has left; receiving goes on. Raises StreamBroken.

        Cancelling it cancels the waiting only, the end is queued; finishing twice is finishing once."""

    def reset(self) -> None:
        """Throws the stream away, both directions, at once."""


class Connection(Protocol):
    """One fenced, encrypted connection to one peer."""

    remote: PeerId
    outbound: bool
    path: PathKind
    handshake_hash: bytes
    """32 bytes, the same on both sides and nowhere else: what `auth` binds itself to."""
    preshared_key: PresharedKey
    """Which key let this connection through the fence."""
    remote_address: str
    closed: trio.Event

    @property
    def unread_bytes(self) -> int:
        """Read from the peer and not yet received from its streams."""

    async def open_stream(self, protocol: str) -> Stream:
        """New stream. Raises StreamBroken when the peer does not speak the protocol or the connection is gone."""

    async def accept_stream(self) -> Stream:
        """Next stream that the peer opened. Raises StreamBroken when the connection is gone."""

    def trust(self) -> None:
        """The peer is proven, or it is the one whom we came to ask: from now on it may send frames of FRAME_BYTES_MAX."""

    async def close(self, reason: str = "") -> None:
        """Lets queued frames leave, then closes. Never raises; bounded in time."""


class Transport(Protocol):
    """A node's network. ``run`` is a service: it reports its addresses when ready, ends when cancelled, leaves nothing behind."""

    peer_id: PeerId

    async def run(self, *, task_status: TaskStatus[Sequence[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens until cancelled. Started value: addresses listened on, as multiaddrs without /p2p part.
        Raises LadingError(FAILED) naming the address when none could be bound."""

    async def accept(self) -> Connection:
        """Next inbound connection that passed the fence."""

    async def dial(self, address: str, peer: PeerId | None, preshared_key: PresharedKey) -> Connection:
        """Connects to one multiaddr, expecting ``peer`` if given. The caller bounds the time. Raises DialFailed
        (FENCE when refused at the first handshake message, WRONG_PEER, UNREACHABLE, TIMEOUT)."""

    def set_preshared_keys(self, keys: Sequence[PresharedKey]) -> None:
        """The keys a responder tries on the first handshake message, in this order (at most 64 fences + 64 tickets)."""
