"""Bytes as text that people carry about, with a checksum that finds every slip of the hand."""

from __future__ import annotations

import base64
import binascii

from ..crypto import Label, equal, hash_labelled
from ..errors import DecodeError, Reason

# 64 bits: one altered text in 2^64 passes by chance; against intent the fingerprint and the signatures stand.
CHECKSUM_BYTES = 8


def checksum(data: bytes, context: bytes) -> bytes:
    """CHECKSUM_BYTES bytes over the data and what kind of text it stands in."""
    return hash_labelled(Label.CHECKSUM, context, data)[:CHECKSUM_BYTES]


def with_checksum(data: bytes, context: bytes) -> bytes:
    """data | checksum."""
    return data + checksum(data, context)


def without_checksum(data: bytes, context: bytes, reason: Reason) -> bytes:
    """The data in front of a right checksum. Raises DecodeError(reason)."""
    body, got = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if len(data) < CHECKSUM_BYTES or not equal(got, checksum(body, context)):
        raise DecodeError(reason, "the checksum does not fit: a character is missing, added or changed")
    return body


def base64url(data: bytes) -> str:
    """RFC 4648 §5 without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str, reason: Reason) -> bytes:
    """Strict inverse of ``base64url``. Raises DecodeError(reason)."""
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise DecodeError(reason, f"not base64url: {error}") from error
    if base64url(data) != text:
        raise DecodeError(reason, "not base64url in the form that we write")
    return data


def base32(data: bytes) -> str:
    """RFC 4648 §6, upper case, without padding."""
    return base64.b32encode(data).rstrip(b"=").decode()


def from_base32(text: str, reason: Reason) -> bytes:
    """Strict inverse of ``base32``. Raises DecodeError(reason)."""
    try:
        data = base64.b32decode(text.encode("ascii") + b"=" * (-len(text) % 8))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise DecodeError(reason, f"not base32: {error}") from error
    if base32(data) != text:
        raise DecodeError(reason, "not base32 in the form that we write")
    return data
