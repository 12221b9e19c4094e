"""One piece of content to one sealed chunk and back. The nonce and the associated data are constant: the key alone decides."""

from __future__ import annotations

from ..crypto import SUITE, aead_open, aead_open_into, aead_seal, sha256
from ..errors import InvalidObject, Reason
from ..limits import AEAD_TAG_BYTES, BLOCK_BYTES, SEALED_CHUNK_BYTES_MAX
from ..types import ChunkName
from .keys import CODEC_NONE, ChunkKey, chunk_key
from .padding import padded_bytes

_ZEROS = bytes(BLOCK_BYTES)
assert BLOCK_BYTES + AEAD_TAG_BYTES == SEALED_CHUNK_BYTES_MAX


def pad(content: bytes | memoryview) -> bytes | memoryview:
    """The content with zero bytes after it, up to its padded size; a full piece as it is, without a copy."""
    missing = padded_bytes(len(content)) - len(content)
    return b"".join((content, _ZEROS[:missing])) if missing else content


def seal_piece(
    secret: bytes,
    content: bytes | memoryview,
    blocks: tuple[tuple[bytes, int], ...],
    *,
    place: tuple[int, int] | None,
) -> tuple[ChunkName, ChunkKey, bytes]:
    """Name, key and sealed bytes of one piece.

    content: 1..BLOCK_BYTES bytes, the blocks one after the other. blocks: (SHA-256, length) of each.
    place: (sequence, index) for class `confidential`, None for `dedup`.
    """
    pad_bytes = padded_bytes(len(content)) - len(content)
    key = chunk_key(secret, blocks, suite=SUITE, codec=CODEC_NONE, pad_bytes=pad_bytes, place=place)
    sealed = aead_seal(key, pad(content))
    return ChunkName(sha256(sealed)), key, sealed


def check_chunk_name(name: bytes, sealed: bytes | memoryview) -> None:
    """Raises InvalidObject(WRONG_NAME) unless ``name`` is the SHA-256 of the sealed bytes."""
    if not AEAD_TAG_BYTES < len(sealed) <= SEALED_CHUNK_BYTES_MAX:
        raise InvalidObject(Reason.WRONG_NAME, f"{len(sealed)} sealed bytes, at most {SEALED_CHUNK_BYTES_MAX} wanted")
    if sha256(sealed) != name:
        raise InvalidObject(Reason.WRONG_NAME, "sealed bytes do not have this name")


def has_name(name: bytes, key: bytes, content: bytes | bytearray) -> bool:
    """Whether content, sealed with this key, is the chunk of that name."""
    return sha256(aead_seal(key, pad(memoryview(content)))) == name


def open_chunk(
    name: bytes, key: bytes, sealed: bytes | memoryview, content_bytes: int | None = None, *, hashed: bool = False
) -> bytes | memoryview:
    """Content of a sealed chunk: its name is checked first, then its tag; then the padding is cut off.

    hashed: the caller has just compared the name.
    content_bytes: as the manifest says; without it the zero padding stays behind the content (offsets are the same).
    Raises InvalidObject(WRONG_NAME | BAD_TAG | INTEGRITY).
    """
    if not hashed:
        check_chunk_name(name, sealed)
    plain = aead_open(key, sealed)
    if content_bytes is None or content_bytes == len(plain):
        return plain
    if not 0 < content_bytes <= BLOCK_BYTES or len(plain) != padded_bytes(content_bytes):
        raise InvalidObject(Reason.INTEGRITY, f"{len(plain)} bytes opened, content of {content_bytes} wanted")
    if plain.count(0, content_bytes) != len(plain) - content_bytes:
        raise InvalidObject(Reason.INTEGRITY, "padding is not zero")
    return memoryview(plain)[:content_bytes]


def open_full_chunk_into(key: bytes, sealed: bytes | memoryview, out: memoryview) -> None:
    """Content of a sealed chunk of the largest size, whose name the caller has just compared, into ``out`` of BLOCK_BYTES.

    Raises InvalidObject(BAD_TAG | INTEGRITY); ``out`` has nothing to be used then.
    """
    if len(sealed) != SEALED_CHUNK_BYTES_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{len(sealed)} sealed bytes, a full chunk of {SEALED_CHUNK_BYTES_MAX} wanted")
    aead_open_into(key, sealed, out)
