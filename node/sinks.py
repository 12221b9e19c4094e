"""What `get` writes: opened chunks into files or to whoever called. The counterpart of sources."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from protocols.errors import InvalidObject, LadingError, Reason, UsageError
from protocols.files.entries import EntryVerifier
from protocols.files.manifest import Manifest, PlannedChunk
from protocols.limits import BLOCK_BYTES
from storage.folders import sync_folder

from .offload import Offload

PART_SUFFIX = ".part"
RESUME_SUFFIX = ".resume"
# From here on a file is written past the page cache: its pages would be used once and push others out, and finding memory for them
# took 40 % of the reader's processor at 512 MiB. Smaller ones are likely to be read next.
DIRECT_BYTES_MIN = 16 * 1024 * 1024
# Written at once: as many blocks as come together.
ROOM_BYTES = 4 * BLOCK_BYTES

Taken = Sequence[tuple[PlannedChunk, bytes]]
"""Chunks of one sequence with their sealed bytes, which were hashed just now."""


class Sink:
    """Where opened bytes go."""

    async def open(self) -> None: ...

    def has(self, sequence_index: int) -> bool:
        """Already there from an earlier, interrupted get."""
        return False

    async def take(self, chunks: Taken, *, is_last: bool) -> int:
        """Opens chunks and passes their content on. is_last: nothing else of their sequence will come. Result: plain bytes."""
        raise NotImplementedError

    async def finish(self) -> str:
        raise NotImplementedError

    def abort(self) -> None: ...


class InlineSink(Sink):
    """One entry's bytes, in order, to whoever called."""

    def __init__(self, manifest: Manifest, entry_index: int, output: Callable[[bytes], Awaitable[None]], offload: Offload) -> None:
        self._manifest = manifest
        self._offload = offload
        self._entry = entry_index
        self._output = output
        self._verifier = EntryVerifier(manifest.entries[entry_index])
        self._waiting: dict[int, bytes] = {}
        self._at = 0

    async def open(self) -> None:
        inline = self._manifest.inline_of(self._entry)
        if inline:
            await self._take(0, inline)

    async def take(self, chunks: Taken, *, is_last: bool) -> int:
        count = await self._offload.run(self._open_all, chunks)
        while self._at in self._waiting:
            await self._take(self._at, self._waiting.pop(self._at))
        return count

    def _open_all(self, chunks: Taken) -> int:
        count = 0
        for chunk, sealed in chunks:
            plain = chunk.open(sealed, hashed=True)
            count += len(plain)
            for part in chunk.slices:
                if part.entry_index == self._entry:
                    self._waiting[part.entry_offset] = bytes(plain[part.chunk_offset : part.chunk_offset + part.length])
        return count

    async def _take(self, offset: int, data: bytes) -> None:
        self._verifier.add(offset, data)
        self._at = offset + len(data)
        await self._output(data)

    async def finish(self) -> str:
        self._verifier.finish()
        return "-"


class FileSink(Sink):
    """Files under a name that says they are not whole yet; renamed when every digest is right."""

    def __init__(self, manifest: Manifest, wanted: Sequence[int], target: Path, offload: Offload) -> None:
        self._manifest = manifest
        self._target = target
        self._offload = offload
        self._wanted = wanted
        self._is_folder = not (len(wanted) == 1 and manifest.entries[wanted[0]].kind == "file")
        self._part = target.with_name(target.name + PART_SUFFIX)
        self._resume = target.with_name(target.name + RESUME_SUFFIX)
        self._verifiers = {index: EntryVerifier(manifest.entries[index]) for index in wanted if manifest.entries[index].kind == "file"}
        self._done: set[int] = set()
        self._rooms: list[mmap.mmap] = []
        """Where blocks are opened, each at the start of a page as direct writing wants it; those that nobody uses now."""
        self._is_direct = hasattr(os, "O_DIRECT")

    def _place(self, entry_index: int) -> Path:
        return self._part / self._manifest.entries[entry_index].path if self._is_folder else self._part

    async def open(self) -> None:
        await self._offload.run(self._open)

    def _open(self) -> None:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            if self._target.exists() and (self._target.is_dir() != self._is_folder or (self._is_folder and any(self._target.iterdir()))):
                raise UsageError(f"{self._target} is in the way", hint="choose another -o PATH")
            resumed = self._read_resume()
            if self._is_folder:
                self._part.mkdir(exist_ok=True)
            for index in self._wanted:
                entry = self._manifest.entries[index]
                place = self._place(index)
                if self._is_folder:
                    place.parent.mkdir(parents=True, exist_ok=True)
                if entry.kind == "folder":
                    place.mkdir(exist_ok=True)
                elif entry.kind == "file":
                    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | (0 if resumed else os.O_TRUNC)
                    descriptor = os.open(place, flags, 0o777 if entry.executable else 0o666)
                    try:
                        os.ftruncate(descriptor, entry.size)
                        inline = self._manifest.inline_of(index)
                        if inline:
                            _pwrite(descriptor, memoryview(inline), 0)
                            self._verifiers[index].add(0, inline)
                    finally:
                        os.close(descriptor)
            if resumed:
                self._recheck(resumed)
            self._write_resume()
        except OSError as error:
            raise _disk_error(error, self._target) from error

    def _read_resume(self) -> set[int]:
        try:
            lines = self._resume.read_text().split()
        except FileNotFoundError:
            return set()
        if not lines or lines[0] != self._manifest.statement.chunks_root.hex() or not self._part.exists():
            return set()
        return {int(line) for line in lines[1:] if line.isdigit()}

    def _write_resume(self) -> None:
        text = "\n".join([self._manifest.statement.chunks_root.hex(), *map(str, sorted(self._done))]) + "\n"
        temporary = self._resume.with_name(self._resume.name + "~")
        try:
            temporary.write_text(text)
            temporary.replace(self._resume)
        except OSError as error:
            raise _disk_error(error, self._target) from error

    def _recheck(self, claimed: set[int]) -> None:
        """What an earlier get left behind is believed only after every chunk of it was sealed again and has its name."""
        parts: dict[int, list[PlannedChunk]] = {}
        for chunk in self._manifest.plan():
            if chunk.sequence_index in claimed:
                parts.setdefault(chunk.sequence_index, []).append(chunk)
        for index, chunks in sorted(parts.items()):
            try:
                if all(self._is_there(chunk) for chunk in chunks):
                    self._done.add(index)
            except (InvalidObject, OSError):
                continue

    def _is_there(self, chunk: PlannedChunk) -> bool:
        """Whether the files have the content of a chunk. Not of one that has something of other entries too: it is fetched again."""
        if any(part.entry_index not in self._verifiers for part in chunk.slices):
            return False
        content = bytearray(chunk.content_bytes)
        for part in chunk.slices:
            descriptor = os.open(self._place(part.entry_index), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                content[part.chunk_offset : part.chunk_offset + part.length] = os.pread(descriptor, part.length, part.entry_offset)
            finally:
                os.close(descriptor)
        if not chunk.is_content(content):
            return False
        view = memoryview(content)
        for part in chunk.slices:
            self._verifiers[part.entry_index].add(part.entry_offset, view[part.chunk_offset : part.chunk_offset + part.length])
        return True

    def has(self, sequence_index: int) -> bool:
        return sequence_index in self._done

    async def take(self, chunks: Taken, *, is_last: bool) -> int:
        return await self._offload.run(self._take, chunks, is_last)

    def _take(self, chunks: Taken, is_last: bool) -> int:
        count = 0
        whole: list[tuple[PlannedChunk, bytes]] = []
        for chunk, sealed in chunks:
            if self._is_block(chunk):
                whole.append((chunk, sealed))
                count += BLOCK_BYTES
            else:
                count += self._take_slices(chunk, sealed)
        for start in range(0, len(whole), ROOM_BYTES // BLOCK_BYTES):
            self._take_blocks(whole[start : start + ROOM_BYTES // BLOCK_BYTES])
        if is_last:
            self._note_done(chunks[0][0].sequence_index)
        return count

    def _is_block(self, chunk: PlannedChunk) -> bool:
        """Whether it is one whole block of a wanted file that is large enough to be written past the page cache."""
        if not self._is_direct or len(chunk.slices) != 1 or chunk.content_bytes != BLOCK_BYTES:
            return False
        part = chunk.slices[0]
        is_whole = part.length == BLOCK_BYTES and part.entry_offset % BLOCK_BYTES == 0
        return is_whole and part.entry_index in self._verifiers and self._manifest.entries[part.entry_index].size >= DIRECT_BYTES_MIN

    def _take_slices(self, chunk: PlannedChunk, sealed: bytes) -> int:
        """Through the page cache: small files, and ends of large ones."""
        view = memoryview(chunk.open(sealed, hashed=True))
        for part in chunk.slices:
            if part.entry_index in self._verifiers:
                data = view[part.chunk_offset : part.chunk_offset + part.length]
                self._verifiers[part.entry_index].add(part.entry_offset, data)
                self._write(part.entry_index, data, part.entry_offset, is_direct=False)
        return len(view)

    def _take_blocks(self, chunks: Taken) -> None:
        """At most a room full of whole blocks; those that follow each other are written at once."""
        try:
            room = self._rooms.pop()
        except IndexError:  # several threads take rooms
            room = mmap.mmap(-1, ROOM_BYTES)
        # A failure ends the get: its room is not given back, and the views of it die with the error.
        view = memoryview(room)
        runs: list[tuple[int, int, int, int]] = []  # entry, offset there, begin and end in the room
        end = 0
        for chunk, sealed in chunks:
            part = chunk.slices[0]
            begin, end = end, end + BLOCK_BYTES
            chunk.open_into(sealed, view[begin:end])
            self._verifiers[part.entry_index].add(part.entry_offset, view[begin:end])
            last = runs[-1] if runs else None
            if last is not None and (last[0], last[1] + last[3] - last[2]) == (part.entry_index, part.entry_offset):
                runs[-1] = (last[0], last[1], last[2], end)
            else:
                runs.append((part.entry_index, part.entry_offset, begin, end))
        for entry_index, offset, begin, stop in runs:
            self._write(entry_index, view[begin:stop], offset, is_direct=True)
        self._rooms.append(room)

    def _write(self, entry_index: int, data: memoryview, offset: int, *, is_direct: bool) -> None:
        """is_direct: past the page cache if the file system can; data begins at a page, data and offset are whole blocks."""
        place = self._place(entry_index)
        flags = os.O_WRONLY | os.O_NOFOLLOW
        try:
            if is_direct and self._is_direct:
                try:
                    _write_to(place, flags | os.O_DIRECT, data, offset)
                    return
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._is_direct = False  # a file system without it, or with larger sectors than a page
            _write_to(place, flags, data, offset)
        except OSError as error:
            raise _disk_error(error, self._target) from error

    def _note_done(self, sequence_index: int) -> None:
        """One more sequence is whole. A line that is cut by a kill may name another one: what is claimed is looked at anyway."""
        self._done.add(sequence_index)
        try:
            with self._resume.open("ab", buffering=0) as file:
                file.write(f"{sequence_index}\n".encode())
        except OSError as error:
            raise _disk_error(error, self._target) from error

    async def finish(self) -> str:
        await self._offload.run(self._finish)
        return str(self._target)

    def _finish(self) -> None:
        for verifier in self._verifiers.values():
            verifier.finish()
        try:
            # Links last: while they are not there, nothing that is written can be led outside by one.
            for index in self._wanted:
                entry = self._manifest.entries[index]
                place = self._place(index)
                if entry.kind == "file":
                    with place.open("rb+") as file:
                        os.fsync(file.fileno())
                    modified = self._manifest.attributes[index].modified_ns
                    if modified is not None:
                        os.utime(place, ns=(modified, modified))
                elif entry.kind == "symlink":
                    place.unlink(missing_ok=True)
                    place.symlink_to(entry.target)
            if self._is_folder and self._target.is_dir():
                self._target.rmdir()
            self._part.replace(self._target)
            sync_folder(self._target.parent)
            self._resume.unlink(missing_ok=True)
        except OSError as error:
            raise _disk_error(error, self._target) from error


def _write_to(place: Path, flags: int, data: memoryview, offset: int) -> None:
    descriptor = os.open(place, flags)
    try:
        _pwrite(descriptor, data, offset)
    finally:
        os.close(descriptor)


def _pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


def _disk_error(error: OSError, target: Path) -> LadingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LadingError(
            Reason.STORE_FULL, f"{target}: no space left on that disk", hint="what was fetched is kept: free space and get again"
        )
    return LadingError(Reason.FAILED, f"{target}: {error.strerror}")
