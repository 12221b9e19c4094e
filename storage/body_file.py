"""Bodies of full chunks beside the database: a file of extents of one size, written and read past the page cache (docs/decisions/0027).

The database says which extent holds which body and which are free; this file knows neither. An extent is written while the database calls
it free, and synced before the database speaks of it: a crash leaves a free one with something in it, and nothing else.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from protocols.errors import StoreDamaged

from .folders import sync_folder

BODIES_FILE = "bodies.dat"
# What O_DIRECT wants of addresses, lengths and places, on every disk that there is.
BLOCK_BYTES = 4096
# A full chunk has 262,160 bytes (protocols/files): 64 blocks and 16 bytes.
EXTENT_BYTES = 65 * BLOCK_BYTES
# Below that too much of an extent would stay empty: such bodies stay in the database.
EXTENT_BODY_BYTES_MIN = EXTENT_BYTES * 7 // 8
# Larger than any: all stay in the database.
NEVER_APART = EXTENT_BYTES + 1
# Copied together and written at once when their extents follow each other.
RUN_EXTENTS = 16
READ_BUFFERS_KEPT = 4
# Taken from the file system at once, so that it lays the file out in long runs.
GROW_STEP_BYTES_MAX = 64 * 1024 * 1024
# Extents read of late: one that is read again is worth memory of the system. 8,192 extents are 2 GiB.
READ_ONCE_MAX = 8192

_POINTER = struct.Struct(">QI")
POINTER_BYTES = _POINTER.size


def goes_apart(body_bytes: int, apart_from: int = EXTENT_BODY_BYTES_MIN) -> bool:
    """Whether a body has an extent and the database a pointer. What is as long as a pointer always has, or it would be taken for one."""
    return apart_from <= body_bytes <= EXTENT_BYTES or body_bytes == POINTER_BYTES


def pointer(extent: int, body_bytes: int) -> bytes:
    return _POINTER.pack(extent, body_bytes)


def pointed_at(value: bytes | memoryview) -> tuple[int, int]:
    """(extent, body_bytes) of a pointer."""
    extent, body_bytes = _POINTER.unpack(value)
    return extent, body_bytes


class BodyFile:
    """The file of one environment. One thread writes; any may read extents that the database speaks of. Methods raise OSError."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.path = folder / BODIES_FILE
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        self._file = self._direct = -1
        self._buffers: deque[mmap.mmap] = deque()
        self._run: mmap.mmap | None = None
        self._read_once: set[int] = set()
        try:
            self._file = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # on a disk that is read-only, and no body ever went there
            self.allocated_bytes = 0
            return
        self.allocated_bytes = os.fstat(self._file).st_size
        if not self.allocated_bytes and not read_only:
            sync_folder(folder)
        try:
            self._direct = os.open(self.path, flags | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
        except OSError as error:
            if error.errno != errno.EINVAL:  # file systems that refuse: through the page cache, then
                os.close(self._file)
                raise

    def reach(self, extents: int, *, bytes_max: int) -> bool:
        """Whether the file has so many extents, on blocks of the disk that are ours; takes more where there is more. bytes_max: of all."""
        wanted = extents * EXTENT_BYTES
        if wanted <= self.allocated_bytes:
            return True
        if wanted > bytes_max:
            return False
        step = min(max(self.allocated_bytes // 8, wanted - self.allocated_bytes), GROW_STEP_BYTES_MAX)
        for target in (min(wanted + step, bytes_max), wanted):
            try:
                os.posix_fallocate(self._file, self.allocated_bytes, target - self.allocated_bytes)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                self.allocated_bytes = os.fstat(self._file).st_size  # some file systems keep what they found
            else:
                self.allocated_bytes = target
                return True
        return False

    def write(self, extents: Sequence[int], bodies: Sequence[bytes | memoryview]) -> None:
        """Durable when this returns. Quickest when extents follow each other."""
        if self._run is None:
            self._run = mmap.mmap(-1, RUN_EXTENTS * EXTENT_BYTES)
        view = memoryview(self._run)
        first = filled = 0
        for extent, body in zip(extents, bodies, strict=True):
            if filled and (extent != first + filled or filled == RUN_EXTENTS):
                self._write_at(view[: filled * EXTENT_BYTES], first * EXTENT_BYTES)
                filled = 0
            if not filled:
                first = extent
            at = filled * EXTENT_BYTES
            view[at : at + len(body)] = body
            view[at + len(body) : at + EXTENT_BYTES] = bytes(EXTENT_BYTES - len(body))
            filled += 1
            self._read_once.discard(extent)
        if filled:
            self._write_at(view[: filled * EXTENT_BYTES], first * EXTENT_BYTES)
        os.fdatasync(self._file)

    def _write_at(self, data: memoryview, offset: int) -> None:
        while data:
            try:
                written = os.pwrite(self._direct if self._direct >= 0 else self._file, data, offset)
            except OSError as error:
                if error.errno != errno.EINVAL or self._direct < 0:
                    raise
                self._refuse_direct()
                continue
            if not written:
                raise OSError(errno.ENOSPC, "nothing was written", str(self.path))
            data, offset = data[written:], offset + written

    def read(self, extent: int, body_bytes: int) -> bytes:
        """What the extent holds. Raises StoreDamaged when the file ends before it."""
        is_again = extent in self._read_once
        if not is_again:
            if len(self._read_once) >= READ_ONCE_MAX:
                self._read_once.clear()
            self._read_once.add(extent)
        direct = self._direct
        if direct < 0 or is_again:
            data = os.pread(self._file, body_bytes, extent * EXTENT_BYTES)
        else:
            data = self._read_direct(direct, extent, body_bytes)
        if len(data) != body_bytes:
            raise StoreDamaged(f"{self.path} is cut off before the end of extent {extent}", path=str(self.path))
        return data

    def _read_direct(self, direct: int, extent: int, body_bytes: int) -> bytes:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = mmap.mmap(-1, EXTENT_BYTES)
        blocks = (body_bytes + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES
        try:
            with memoryview(buffer) as view:
                read = os.preadv(direct, [view[:blocks]], extent * EXTENT_BYTES)
                return bytes(view[: min(read, body_bytes)])
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._refuse_direct()
            return os.pread(self._file, body_bytes, extent * EXTENT_BYTES)
        finally:
            if len(self._buffers) < READ_BUFFERS_KEPT:
                self._buffers.append(buffer)

    def _refuse_direct(self) -> None:
        """Said late, at the first read or write: through the page cache from here on. Who is in a call keeps what he opened."""
        self._direct, self._refused = -1, self._direct

    _refused = -1

    def close(self) -> None:
        """When nobody reads or writes any more; closing twice is fine."""
        for file in (self._file, self._direct, self._refused):
            if file >= 0:
                os.close(file)
        self._file = self._direct = self._refused = -1
        self._run = None
        self._buffers.clear()
