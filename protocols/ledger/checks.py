"""Small checks that every value of the ledger shares. Each raises with the reason it is given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..errors import InvalidTransaction, Reason
from ..limits import NUMBER_MAX, TEXT_BYTES_MAX


def check_that(fact: bool, what: str, reason: Reason = Reason.BAD_BODY) -> None:
    """Raises InvalidTransaction(reason) naming what does not hold."""
    if not fact:
        raise InvalidTransaction(reason, what)


def check_lengths(wanted: int, **fields: bytes) -> None:
    """Raises InvalidTransaction(BAD_BODY) for a field of another length, in bytes."""
    for name, value in fields.items():
        if len(value) != wanted:
            raise InvalidTransaction(Reason.BAD_BODY, f"{name} of {len(value)} bytes, {wanted} wanted")


def check_numbers(**fields: int) -> None:
    """Raises InvalidTransaction(BAD_BODY) for a number outside 0..NUMBER_MAX."""
    for name, value in fields.items():
        if not 0 <= value <= NUMBER_MAX:
            raise InvalidTransaction(Reason.BAD_BODY, f"{name} is {value}, 0 to {NUMBER_MAX} wanted")


def check_texts(**fields: str) -> None:
    """Raises InvalidTransaction(BAD_BODY) for a text of more than TEXT_BYTES_MAX bytes of UTF-8."""
    for name, value in fields.items():
        size = len(value.encode("utf-8", "replace"))
        if size > TEXT_BYTES_MAX:
            raise InvalidTransaction(Reason.BAD_BODY, f"{name} of {size} bytes, at most {TEXT_BYTES_MAX} wanted")


def is_rising(values: Sequence[bytes] | Sequence[str]) -> bool:
    """True when every value is greater than the one before it: sorted and none twice."""
    return len(values) < 2 or all(a < b for a, b in pairwise(values))  # type: ignore[operator]  # both of one type


def u64(number: int) -> bytes:
    """8 bytes, big-endian: the form of numbers inside keys and hashes."""
    return number.to_bytes(8, "big")
