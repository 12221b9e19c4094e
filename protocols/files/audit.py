"""Proof that a holder still has the bytes: fresh nonce, random ranges, SHA-256(nonce | bytes of the ranges). Source: SPEC.md §Audit.

A holder that fetches from others to answer is not found out by this (THREATS).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..codec import Record
from ..crypto import Label, equal, hash_labelled, sha256
from ..errors import InvalidObject, Reason
from ..limits import AUDIT_RANGE_BYTES_MAX, AUDIT_RANGES_MAX, SEALED_CHUNK_BYTES_MAX
from ..types import Digest
from .objects import check_lengths, check_that
from .sequences import SequenceDescriptor

NONCE_BYTES = 32
RANGES_DEFAULT = 8
RANGE_BYTES_DEFAULT = 4096


class Range(Record, frozen=True):
    """``length`` bytes from ``offset`` of the sealed chunk with that name."""

    name: bytes
    offset: int
    length: int


Read = Callable[[bytes, int, int], bytes]
"""(name, offset, length) to bytes of the sealed chunk on disk."""


def challenge(
    nonce: bytes, sequence: SequenceDescriptor, *, count: int = RANGES_DEFAULT, range_bytes: int = RANGE_BYTES_DEFAULT
) -> tuple[Range, ...]:
    """Ranges to ask for, spread over a sequence's chunks by the nonce alone. nonce: 32 fresh random bytes, used once."""
    assert len(nonce) == NONCE_BYTES
    assert 1 <= count <= AUDIT_RANGES_MAX
    assert 1 <= range_bytes <= AUDIT_RANGE_BYTES_MAX
    ranges = []
    for number in range(count):
        draw = hash_labelled(Label.AUDIT, nonce, sequence.root, number.to_bytes(8, "big"))
        index = int.from_bytes(draw[:16], "big") % len(sequence.names)
        length = min(range_bytes, sequence.sizes[index])
        offset = int.from_bytes(draw[16:], "big") % (sequence.sizes[index] - length + 1)
        ranges.append(Range(name=sequence.names[index], offset=offset, length=length))
    return tuple(ranges)


def check_challenge(nonce: bytes, ranges: Sequence[Range]) -> None:
    """What a holder checks before it reads for a stranger. Raises InvalidObject(INTEGRITY)."""
    check_lengths(NONCE_BYTES, nonce=nonce)
    check_that(1 <= len(ranges) <= AUDIT_RANGES_MAX, f"{len(ranges)} ranges, 1 to {AUDIT_RANGES_MAX} wanted")
    for asked in ranges:
        check_lengths(32, name=asked.name)
        check_that(1 <= asked.length <= AUDIT_RANGE_BYTES_MAX, f"range of {asked.length} bytes")
        check_that(0 <= asked.offset <= SEALED_CHUNK_BYTES_MAX - asked.length, f"range from {asked.offset}")


def answer(nonce: bytes, ranges: Sequence[Range], read: Read) -> Digest:
    """SHA-256 of the nonce and the bytes of all ranges, read now. Raises InvalidObject(INTEGRITY) for a range beyond its chunk."""
    check_challenge(nonce, ranges)
    found = []
    for asked in ranges:
        data = read(asked.name, asked.offset, asked.length)
        check_that(len(data) == asked.length, "range beyond the end of its chunk")
        found.append(data)
    return sha256(nonce, *found)


def check_answer(nonce: bytes, ranges: Sequence[Range], read: Read, answered: bytes) -> None:
    """What the asking side does with its own copy. Raises InvalidObject(INTEGRITY)."""
    if not equal(answer(nonce, ranges, read), answered):
        raise InvalidObject(Reason.INTEGRITY, "the holder's answer is not that of the bytes")
