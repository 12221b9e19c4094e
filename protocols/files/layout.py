"""Which bytes of which entry stand in which chunk. The one place that knows the cuts (SPEC.md §Cuts).

Cuts restart at every entry of BLOCK_BYTES or more, every BLOCK_BYTES; smaller entries are packed in list order and never
split: a pack is closed before the entry that would not fit. So sizes alone say where everything is.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..limits import BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the stream of data chunks. chunk: number of chunks closed so far. fill: bytes in the open pack."""

    chunk: int
    fill: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where one entry's content begins. chunk: number of its first chunk, from 0 over all sequences. offset: in that chunk."""

    chunk: int
    offset: int


START = Position(chunk=0, fill=0)


def is_packed(size: int) -> bool:
    """Whether content of that size is packed with its neighbours (or, being empty, stands nowhere)."""
    return size < BLOCK_BYTES


def place_entry(before: Position, size: int) -> tuple[Place, Position]:
    """Place of an entry of that size, and the position after it."""
    if size == 0:
        return Place(before.chunk, before.fill), before
    if is_packed(size):
        if before.fill + size > BLOCK_BYTES:
            before = Position(before.chunk + 1, 0)
        return Place(before.chunk, before.fill), Position(before.chunk, before.fill + size)
    first = closed(before)
    return Place(first, 0), Position(first + -(-size // BLOCK_BYTES), 0)


def closed(position: Position) -> int:
    """Number of chunks when the open pack is closed."""
    return position.chunk + (1 if position.fill else 0)
