"""The header of every frame: version, type, flags, stream, length; 12 bytes, big-endian. SPEC.md beside it is normative."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from ..errors import DecodeError, Reason

VERSION = 0
HEADER = struct.Struct("!BBHII")
HEADER_BYTES = HEADER.size


class Kind(enum.IntEnum):
    """Type of a frame."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


SYN, ACK, FIN, RST = 1, 2, 4, 8
FLAGS_ALL = SYN | ACK | FIN | RST


class GoAwayCode(enum.IntEnum):
    """Why a session ends. Others invent further ones."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class Data:
    """Header of a frame of ``value`` bytes."""

    flags: int
    stream_id: int
    value: int


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """``value`` bytes more may be sent."""

    flags: int
    stream_id: int
    value: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks with SYN, answers with ACK and the same value."""

    flags: int
    stream_id: int
    value: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer takes no new streams; ``value`` says why."""

    flags: int
    stream_id: int
    value: int


Frame = Data | WindowUpdate | Ping | GoAway
_TYPES: tuple[type[Data] | type[WindowUpdate] | type[Ping] | type[GoAway], ...] = (Data, WindowUpdate, Ping, GoAway)


def encode_header(kind: Kind, flags: int, stream_id: int, value: int) -> bytes:
    """The 12 bytes."""
    return HEADER.pack(VERSION, kind, flags, stream_id, value)


def decode_header(data: bytes | bytearray | memoryview) -> Frame:
    """Of exactly 12 bytes. Raises DecodeError(MALFORMED)."""
    version, kind, flags, stream_id, value = HEADER.unpack(data)
    if version != VERSION or kind >= len(_TYPES) or flags & ~FLAGS_ALL:
        raise DecodeError(Reason.MALFORMED, f"muxer frame of version {version}, type {kind}, flags {flags:#x}")
    if (stream_id == 0) != (kind >= Kind.PING):
        raise DecodeError(Reason.MALFORMED, f"muxer frame of type {kind} for stream {stream_id}")
    frame: Frame = _TYPES[kind](flags, stream_id, value)
    return frame
