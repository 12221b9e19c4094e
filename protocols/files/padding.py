"""Sizes that say little: Padmé rounds up so that only O(log log n) bits of a size stay visible, at most 12 % larger.

Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019, algorithm 1.
"""

from __future__ import annotations

from ..limits import AEAD_TAG_BYTES, BLOCK_BYTES, PAD_BYTES_MIN

assert PAD_BYTES_MIN <= BLOCK_BYTES


def padme(size: int) -> int:
    """Smallest Padmé size that is not below ``size``; sizes below 2 stay."""
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def padded_bytes(content_bytes: int) -> int:
    """Size of a piece of that much content before sealing. content_bytes: 1..BLOCK_BYTES. Result: PAD_BYTES_MIN..BLOCK_BYTES."""
    assert 0 < content_bytes <= BLOCK_BYTES
    return max(PAD_BYTES_MIN, padme(content_bytes))


def sealed_bytes(content_bytes: int) -> int:
    """Size of the sealed chunk of a piece of that much content."""
    return padded_bytes(content_bytes) + AEAD_TAG_BYTES
