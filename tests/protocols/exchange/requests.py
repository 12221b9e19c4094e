"""Small sequences of chunks with right names, and signed answers that nobody checks here."""

from __future__ import annotations

from protocols.crypto import sha256
from protocols.exchange.messages import ByOffer, Place
from protocols.merkle import merkle_root
from protocols.signed import Signed

ANSWER = Signed(b"answer", b"\1" * 32, b"\2" * 64)
OFFER = ByOffer(Signed(b"offer", b"\1" * 32, b"\2" * 64))


def bodies_of(count: int, size: int = 1040) -> tuple[bytes, ...]:
    """Different sealed chunks of ``size`` bytes."""
    return tuple(index.to_bytes(4, "big") * (size // 4) for index in range(count))


def place_of(bodies: tuple[bytes, ...], *, request: int = 1) -> Place:
    """The request that these be kept."""
    names = tuple(bytes(sha256(body)) for body in bodies)
    return Place(request, merkle_root(names), names, tuple(len(body) for body in bodies), OFFER)
