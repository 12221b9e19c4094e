"""The only list of messages: which conversations there are, and what may be said in each.

On a stream a message is one frame: 1 byte message number, then the canonical encoding of the message's Record.
"""

from __future__ import annotations

from collections.abc import Mapping

from .auth import messages as auth
from .codec import decode, encode
from .errors import DecodeError, Reason
from .exchange import messages as exchange
from .exchange.bulk import CHUNK_NUMBER, chunk_header, chunk_of
from .gossip import messages as gossip
from .join import messages as join
from .ledger import messages as ledger
from .limits import FRAME_BYTES_MAX

CONVERSATIONS: Mapping[str, tuple[tuple[int, type], ...]] = {
    "auth": auth.MESSAGES,
    "join": join.MESSAGES,
    "gossip": gossip.MESSAGES,
    "exchange": exchange.MESSAGES,
    "ledger": ledger.MESSAGES,
}
"""Conversation name to its (message number, class); protocol id on the wire: see ``protocol_id``."""

_NUMBERS: dict[str, dict[type, int]] = {name: {kind: number for number, kind in rows} for name, rows in CONVERSATIONS.items()}
_KINDS: dict[str, dict[int, type]] = {name: dict(rows) for name, rows in CONVERSATIONS.items()}
for _name, _rows in CONVERSATIONS.items():
    assert len(_NUMBERS[_name]) == len(_rows)
    assert len(_KINDS[_name]) == len(_rows)
    assert all(0 < number < 256 for number, _ in _rows)


def protocol_id(conversation: str) -> str:
    """Name of the stream protocol that a conversation runs on."""
    assert conversation in CONVERSATIONS, conversation
    return f"/lading/{conversation}/1"


def encode_message(conversation: str, message: object) -> bytes:
    """Frame body of a message: 1 byte number | canonical encoding. A message of another conversation is our own mistake."""
    number = _NUMBERS[conversation].get(type(message))
    assert number is not None, (conversation, type(message).__name__)
    return bytes([number]) + encode(message)


def encode_parts(conversation: str, message: object) -> tuple[bytes, ...]:
    """``encode_message`` in parts, so that the sealed bytes of a Chunk are not copied."""
    if isinstance(message, exchange.Chunk):
        return chunk_header(message.request, message.index, len(message.data)), message.data
    return (encode_message(conversation, message),)


def decode_message(conversation: str, data: bytes | memoryview, *, bytes_max: int = FRAME_BYTES_MAX) -> object:
    """The message in a frame body. Raises DecodeError(TRUNCATED | UNKNOWN_MESSAGE | TOO_LONG | MALFORMED | NOT_CANONICAL) only."""
    if len(data) == 0:
        raise DecodeError(Reason.TRUNCATED, "an empty frame, at least the message number wanted")
    if data[0] == CHUNK_NUMBER and conversation == "exchange" and isinstance(data, bytes):
        if len(data) > bytes_max:
            raise DecodeError(Reason.TOO_LONG, f"{len(data)} bytes, at most {bytes_max} wanted")
        return chunk_of(data)
    kind = _KINDS[conversation].get(data[0])
    if kind is None:
        raise DecodeError(Reason.UNKNOWN_MESSAGE, f"message {data[0]} on {protocol_id(conversation)}")
    message: object = decode(memoryview(data)[1:], kind, bytes_max=bytes_max - 1)
    return message
