"""What this node has bound itself to on the chain: a file of its own, outside databases and backups.

It is on the disk before a vote or a seal leaves. A node whose database was deleted reads here what it may no longer say; the votes that
justify the source of its last vote stand beside it, so that what it promised can be shown to others.

What is promised is the member's, not one key's: a key that is rotated while that is known goes on where the one before stood. The keys
that came after those of ``chain.key`` are named in a second file, by salts that are no secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from protocols.codec import Record, decode, encode
from protocols.crypto import SigningKey
from protocols.errors import DecodeError
from protocols.ledger.votes import NO_PROMISES, Promises, Vote
from protocols.types import ChainId
from storage.folders import sync_folder

PROMISES_BYTES_MAX = 256 * 1024
_FORMAT = 1


class Kept(Record, frozen=True):
    """may_vote: False for ever where promises were lost: nobody knows any more what this key has said.

    votes: those that justify the source of the last vote.
    """

    format: int
    chain: ChainId
    promises: Promises
    may_vote: bool
    votes: tuple[Vote, ...]


def fresh(chain: ChainId) -> Kept:
    """Of keys that have said nothing; made together with them, never later."""
    return Kept(_FORMAT, chain, NO_PROMISES, True, ())


def lost(chain: ChainId) -> Kept:
    """What is left where there is no file, or one that cannot be read."""
    return Kept(_FORMAT, chain, NO_PROMISES, False, ())


class PromiseStore(Protocol):
    """Where promises are kept. Both block; ``save`` returns when they are durable."""

    def load(self) -> Kept | None:
        """None where they are lost."""

    def save(self, kept: Kept) -> None:
        """Raises OSError."""


class PromiseFile:
    """One file, replaced as a whole and synced, its folder too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Kept | None:
        try:
            with self._path.open("rb") as file:
                data = file.read(PROMISES_BYTES_MAX + 1)
            found = decode(data, Kept, bytes_max=PROMISES_BYTES_MAX)
        except (FileNotFoundError, DecodeError):
            return None
        return found if found.format == _FORMAT else None

    def save(self, kept: Kept) -> None:
        _replace(self._path, encode(kept))


class Rotated(Record, frozen=True):
    """A key that was made to replace one. salt: 32 bytes.

    begins: how it stands to what was promised before. "follows": it goes on from there, as does every sealing key. "waits": nobody here
    knew what the key before had said; it votes when the change is final, and promises begin with it. "began": they did. That is written
    down first, so that they never begin twice.
    """

    what: Literal["vote", "seal"]
    salt: bytes
    begins: Literal["follows", "waits", "began"]


class KeyRing(Protocol):
    """The keys of this node that came after its first. ``load`` and ``save`` block; ``save`` returns when it is durable."""

    def load(self) -> tuple[Rotated, ...]:
        """In the order in which they were made; none where the file is lost: then nobody votes with them."""

    def save(self, rotated: tuple[Rotated, ...]) -> None:
        """Raises OSError."""

    def key(self, rotated: Rotated) -> SigningKey:
        """The key itself."""


class _Rotations(Record, frozen=True):
    format: int
    chain: ChainId
    rotated: tuple[Rotated, ...]


class RotationFile:
    """One file, replaced as a whole and synced, its folder too."""

    def __init__(self, path: Path, chain: ChainId, derive: Callable[[Rotated], SigningKey]) -> None:
        self._path = path
        self._chain = chain
        self._derive = derive

    def load(self) -> tuple[Rotated, ...]:
        try:
            with self._path.open("rb") as file:
                data = file.read(PROMISES_BYTES_MAX + 1)
            found = decode(data, _Rotations, bytes_max=PROMISES_BYTES_MAX)
        except (FileNotFoundError, DecodeError):
            return ()
        return found.rotated if (found.format, found.chain) == (_FORMAT, self._chain) else ()

    def save(self, rotated: tuple[Rotated, ...]) -> None:
        _replace(self._path, encode(_Rotations(_FORMAT, self._chain, rotated)))

    def key(self, rotated: Rotated) -> SigningKey:
        return self._derive(rotated)


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, durable."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    sync_folder(path.parent)
