"""libp2p peer ids of Ed25519 keys: identity multihash of the protobuf-wrapped public key; base58 as text.

Source: libp2p specs, peer-ids.md. 0x00 identity, 0x24 = 36 bytes follow; 08 01 key type Ed25519, 12 20 data of 32 bytes.
"""

from __future__ import annotations

from functools import lru_cache

from ..errors import DecodeError, Reason
from ..types import PeerId

PEER_ID_PREFIX = bytes.fromhex("002408011220")
PEER_ID_BYTES = len(PEER_ID_PREFIX) + 32
# 38 bytes starting with one zero byte: one "1" and 51 digits of base58 at the most.
PEER_ID_TEXT_CHARS_MAX = 52
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {char: index for index, char in enumerate(ALPHABET)}


def peer_id_of(public: bytes) -> PeerId:
    """Peer id of a 32-byte Ed25519 public key. 38 bytes."""
    assert len(public) == 32
    return PeerId(PEER_ID_PREFIX + public)


def public_of(peer_id: bytes) -> bytes:
    """The 32-byte Ed25519 public key in a peer id. Raises DecodeError(MALFORMED) for every other kind of peer id."""
    if len(peer_id) != PEER_ID_BYTES or not peer_id.startswith(PEER_ID_PREFIX):
        raise DecodeError(Reason.MALFORMED, f"peer id {peer_id.hex()[:80]}, an Ed25519 one of {PEER_ID_BYTES} bytes wanted")
    return peer_id[len(PEER_ID_PREFIX) :]


@lru_cache(maxsize=1024)  # thirty long divisions each, for every holder of every record that is told of
def peer_id_text(peer_id: bytes) -> str:
    """Base58 (Bitcoin alphabet) text, as in `/p2p/12D3Koo…`."""
    zeros = len(peer_id) - len(peer_id.lstrip(b"\0"))
    number = int.from_bytes(peer_id, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = ALPHABET[digit] + digits
    return "1" * zeros + digits


def peer_id_from_text(text: str) -> PeerId:
    """The peer id that ``peer_id_text`` writes so. Raises DecodeError(MALFORMED | TOO_LONG)."""
    if len(text) > PEER_ID_TEXT_CHARS_MAX:
        raise DecodeError(Reason.TOO_LONG, f"peer id of {len(text)} characters, at most {PEER_ID_TEXT_CHARS_MAX} wanted")
    number = 0
    for char in text:
        digit = _DIGITS.get(char)
        if digit is None:
            raise DecodeError(Reason.MALFORMED, f"{char!r} is no base58 character")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    public_of(data)
    return PeerId(data)
