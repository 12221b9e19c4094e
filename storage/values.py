"""How the stores write and read their values: canonical records in, typed records out, damage told apart from absence."""

from __future__ import annotations

from typing import TypeVar

from protocols.codec import Record, decode
from protocols.errors import DecodeError, StoreDamaged
from protocols.limits import FRAME_BYTES_MAX

from .engine import Table

T = TypeVar("T")
FORMAT = 1
SUITE = 1
HASH_BYTES = 32
NUMBER_BYTES = 8


class Stored(Record, frozen=True):
    """Base of every stored value. format, suite: as in signed objects; the table's version counts steps between them."""

    format: int
    suite: int


def load(table: Table, data: bytes, kind: type[T], *, bytes_max: int = FRAME_BYTES_MAX) -> T:
    """The value that a store wrote. Raises StoreDamaged: nobody but us writes here."""
    try:
        return decode(data, kind, bytes_max=bytes_max)
    except DecodeError as error:
        raise StoreDamaged(f"a value of {table.name} is not what was written: {error}", table=table.name) from error


def number(value: int) -> bytes:
    """8 bytes, big-endian, so that keys sort as numbers do."""
    return value.to_bytes(NUMBER_BYTES, "big")


def join_names(names: tuple[bytes, ...] | list[bytes]) -> bytes:
    """32-byte names one after the other."""
    assert all(len(name) == HASH_BYTES for name in names)
    return b"".join(names)


def split_names(table: Table, joined: bytes) -> tuple[bytes, ...]:
    """Inverse of ``join_names``. Raises StoreDamaged."""
    if len(joined) % HASH_BYTES:
        raise StoreDamaged(f"{len(joined)} bytes of names in {table.name}, a multiple of {HASH_BYTES} wanted", table=table.name)
    return tuple(joined[i : i + HASH_BYTES] for i in range(0, len(joined), HASH_BYTES))
