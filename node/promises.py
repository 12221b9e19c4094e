"""What this node has bound itself to on the chain: a file of its own, outside databases and backups.

It is on the disk before a vote or a seal leaves. A node whose database was deleted reads here what it may no longer say; the votes that
justify the source of its last vote stand beside it, so that what it promised can be shown to others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from protocols.codec import Record, decode, encode
from protocols.errors import DecodeError
from protocols.ledger.votes import NO_PROMISES, Promises, Vote
from protocols.types import ChainId

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
        part = self._path.with_name(self._path.name + ".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            data = memoryview(encode(kept))
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
