"""Which session and which muxer a transport runs on. Both lanes speak the same wire under the same ids, behind the same fence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from protocols.types import PeerId

from ..port import PresharedKey
from .mux import Muxer
from .noise import session_of
from .stock import StockMuxer, StockSession


class LaneSession(Protocol):
    """The session of either lane, as far as transport and connection see it."""

    remote: PeerId
    preshared_key: PresharedKey
    handshake_hash: bytes

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation. Raises LadingError."""

    async def write(self, data: bytes) -> None:
        """All of it: for negotiation. Raises LadingError."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One pair. session: of a finished handshake; muxer: of that session."""

    name: str
    session: Callable[[Any, Any, PresharedKey], LaneSession]
    muxer: Callable[..., Muxer | StockMuxer]


OWN = Lane("own", session_of, Muxer)
STOCK = Lane("stock", StockSession, StockMuxer)
LANES = {lane.name: lane for lane in (OWN, STOCK)}
"""Chosen by the setting ``lane``, never by a peer: nothing on the wire tells them apart, so there is no way down."""
