"""Canonical MessagePack: same value, same bytes. The door to msgspec.

Every stored or sent value is a frozen ``Record`` written as an array. Decoding is typed, bounded, and strict: bytes that
are not exactly what ``encode`` would write are refused, so one content has one encoding and one hash.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

from .errors import DecodeError, Reason
from .limits import FRAME_BYTES_MAX


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of every value on wire or disk: fields in order, as a MessagePack array, no missing and no extra ones.

    gc=False: values that never change and hold no others than such cannot stand in a cycle, so the collector need not look at them.
    """


T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[object, msgspec.msgpack.Decoder[object]] = {}
# msgspec 0.22 learns what a record consists of when a decoder for it, or for one that holds it, is first built, and notes it down before
# it has all: a decoder that another thread builds meanwhile takes what is there, and reads through a null pointer when it is used.
_building = threading.Lock()


def encode(value: object) -> bytes:
    """Canonical bytes of a Record, tuple, int, bytes, str, bool or None. Floats, sets and dicts are not values here."""
    return _encoder.encode(value)


def decode(data: bytes | memoryview, kind: type[T], *, bytes_max: int = FRAME_BYTES_MAX) -> T:
    """The value of type ``kind`` that ``data`` is the canonical encoding of.

    Raises DecodeError(TOO_LONG | MALFORMED | NOT_CANONICAL) and nothing else, whatever the bytes are.
    """
    if len(data) > bytes_max:
        raise DecodeError(Reason.TOO_LONG, f"{len(data)} bytes, at most {bytes_max} wanted")
    decoder = _decoders.get(kind)
    if decoder is None:
        with _building:
            decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError, OverflowError) as error:
        raise DecodeError(Reason.MALFORMED, f"not a {getattr(kind, '__name__', kind)}: {error}") from error
    if _encoder.encode(value) != data:
        raise DecodeError(Reason.NOT_CANONICAL, f"a {getattr(kind, '__name__', kind)} in a form that we never write")
    return value  # type: ignore[return-value]  # Decoder(kind) returns a kind; the cache cannot say so


R = TypeVar("R", bound=Record)


def replace(value: R, **changes: object) -> R:
    """A copy of a record with some fields changed."""
    return msgspec.structs.replace(value, **changes)


def to_json(value: object) -> bytes:
    """JSON text of plain values (dicts, lists, strings, numbers), for the command line and the HTTP interface."""
    return msgspec.json.encode(value)


def from_json(data: bytes) -> object:
    """Plain values of a JSON text. Raises DecodeError(MALFORMED)."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise DecodeError(Reason.MALFORMED, f"not JSON: {error}") from error
