"""What `put` reads: files and folders as entries in the order of their path bytes. Synchronous; runs in a pool thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

from protocols.errors import LadingError, Reason, UsageError

READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One entry to be. path: inside the record. location: on this machine; None for folders' and links' content. mtime_s: whole seconds."""

    path: str
    kind: str
    location: str | None
    executable: bool = False
    size: int = 0
    target: str = ""
    mtime_s: int = 0


def scan(paths: Sequence[Path]) -> tuple[SourceItem, ...]:
    """Entries of the given files and folders, sorted by path bytes.

    One folder alone: its contents are the record. Otherwise every argument stands under its own name.
    Raises UsageError for names that collide, LadingError(SOURCE_UNREADABLE | NOT_FOUND) naming the path.
    """
    return _sorted(list(_scan_all(paths)))


def scan_few(paths: Sequence[Path], entries_max: int) -> tuple[SourceItem, ...] | None:
    """The same when there are no more than ``entries_max``; else None, and no more of them were looked at."""
    items = list(islice(_scan_all(paths), entries_max + 1))
    return _sorted(items) if len(items) <= entries_max else None


def _sorted(items: list[SourceItem]) -> tuple[SourceItem, ...]:
    items.sort(key=lambda item: item.path.encode())
    for before, after in pairwise(items):
        if before.path == after.path:
            raise UsageError(f"two arguments would both be called {after.path!r} in the record", hint="put them one folder deeper")
    return tuple(items)


def _scan_all(paths: Sequence[Path]) -> Iterator[SourceItem]:
    for path in paths:
        location = os.fspath(path)
        status = _status_of(location)
        is_the_record = len(paths) == 1 and stat.S_ISDIR(status.st_mode)
        prefix = "" if is_the_record else path.resolve().name if path.name in ("", "..") else path.name
        yield from _scan_one(location, prefix, status)


def _status_of(location: str) -> os.stat_result:
    try:
        return os.lstat(location)
    except FileNotFoundError as error:
        raise LadingError(Reason.NOT_FOUND, f"{location}: no such file or folder") from error
    except OSError as error:
        raise LadingError(Reason.SOURCE_UNREADABLE, f"{location}: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise LadingError(Reason.BAD_PATH, f"{location!r}: {error}") from error


def _scan_one(location: str, path: str, status: os.stat_result) -> Iterator[SourceItem]:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise LadingError(Reason.BAD_PATH, f"{location!r}: the name is not valid UTF-8", hint="rename it first") from error
    mtime_s = int(status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        try:
            target = os.readlink(location)
        except OSError as error:
            raise LadingError(Reason.SOURCE_UNREADABLE, f"{location}: {error.strerror}") from error
        yield SourceItem(path, "symlink", None, target=target, mtime_s=mtime_s)
    elif stat.S_ISDIR(status.st_mode):
        if path:
            yield SourceItem(path, "folder", None, mtime_s=mtime_s)
        try:
            with os.scandir(location) as found:
                names = sorted(entry.name for entry in found)
        except OSError as error:
            raise LadingError(Reason.SOURCE_UNREADABLE, f"{location}: {error.strerror}") from error
        for name in names:
            under = os.path.join(location, name)
            yield from _scan_one(under, f"{path}/{name}" if path else name, _status_of(under))
    elif stat.S_ISREG(status.st_mode):
        yield SourceItem(path, "file", location, bool(status.st_mode & 0o111), status.st_size, mtime_s=mtime_s)
    else:
        raise LadingError(
            Reason.SOURCE_UNREADABLE, f"{location}: neither file, folder nor link", hint="leave sockets, pipes and devices out"
        )


class FileReader:
    """Reads one file to the end and notices if it changed under way."""

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            self._file: BinaryIO = open(location, "rb", buffering=0)  # noqa: SIM115  # closed in close()
            self._before = os.fstat(self._file.fileno())
        except OSError as error:
            raise LadingError(Reason.SOURCE_UNREADABLE, f"{location}: {error.strerror}") from error

    def read(self, bytes_max: int) -> bytes:
        """Up to ``bytes_max`` bytes; empty at the end. Raises LadingError(SOURCE_UNREADABLE | SOURCE_CHANGED)."""
        try:
            data = self._file.read(bytes_max)
        except OSError as error:
            raise LadingError(Reason.SOURCE_UNREADABLE, f"{self.location}: {error.strerror}") from error
        if not data:
            after = os.fstat(self._file.fileno())
            if (after.st_size, after.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
                raise LadingError(
                    Reason.SOURCE_CHANGED, f"{self.location} changed while it was read", hint="put it again when nobody writes to it"
                )
        return data

    def close(self) -> None:
        self._file.close()
