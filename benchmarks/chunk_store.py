"""Where sealed chunks should live: LMDB values, an append-only value log with an LMDB index, or one file each.

Every candidate runs in a process of its own: writes distinct 262,160-byte values in durable batches of 16, reads them all
back in random order and hashes them, then deletes every second one and writes as many again (growth of the files).
CPU is user + system of the process; RssAnon is its peak while writing.

    python benchmarks/chunk_store.py --directory DIR [--mib 512] [--runs 3] [--output FILE.json]
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import mmap
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import lmdb

CHUNK_BYTES = 256 * 1024 + 16
BATCH_CHUNKS = 16
MIB = 1024 * 1024
# Compaction rewrites a segment when less than half of it lives: the usual bargain between growth and rewriting.
SEGMENT_BYTES = 64 * MIB
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


class Candidate(Protocol):
    def put(self, batch: Sequence[tuple[bytes, bytes]]) -> None: ...
    def get(self, name: bytes) -> bytes: ...
    def delete(self, names: Sequence[bytes]) -> None: ...
    def close(self) -> None: ...


class InLmdb:
    """Bodies as LMDB values (overflow pages)."""

    def __init__(self, directory: Path, lib_version: int = 0) -> None:
        self.env = lmdb.open(str(directory), map_size=4096 * MIB, max_dbs=2, lib_version=lib_version)
        self.bodies = self.env.open_db(b"bodies")

    def put(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        with self.env.begin(write=True, db=self.bodies) as txn:
            for name, body in batch:
                txn.put(name, body)

    def get(self, name: bytes) -> bytes:
        with self.env.begin(db=self.bodies) as txn:
            value = txn.get(name)
            assert value is not None
            return bytes(value)

    def delete(self, names: Sequence[bytes]) -> None:
        with self.env.begin(write=True, db=self.bodies) as txn:
            for name in names:
                txn.delete(name)

    def close(self) -> None:
        self.env.close()


class ValueLog:
    """Bodies appended to segments with writev and fdatasync, then (segment, offset, length) committed to LMDB."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = lmdb.open(str(directory / "index"), map_size=256 * MIB, max_dbs=2)
        self.index = self.env.open_db(b"index")
        self.segment = -1
        self.offset = SEGMENT_BYTES
        self.file = -1
        self.live: dict[int, int] = {}
        self.readers: dict[int, int] = {}

    def _roll(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.segment += 1
        self.offset = 0
        self.file = os.open(self.directory / f"{self.segment:08}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        directory = os.open(self.directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def put(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        if self.offset >= SEGMENT_BYTES:
            self._roll()
        bodies = [body for _, body in batch]
        wanted = sum(map(len, bodies))
        written = os.writev(self.file, bodies)
        assert written == wanted
        os.fdatasync(self.file)
        with self.env.begin(write=True, db=self.index) as txn:
            for name, body in batch:
                txn.put(name, self.segment.to_bytes(4, "big") + self.offset.to_bytes(8, "big") + len(body).to_bytes(4, "big"))
                self.offset += len(body)
        self.live[self.segment] = self.live.get(self.segment, 0) + wanted

    def _where(self, name: bytes) -> tuple[int, int, int]:
        with self.env.begin(db=self.index) as txn:
            value = txn.get(name)
            assert value is not None
            return int.from_bytes(value[:4], "big"), int.from_bytes(value[4:12], "big"), int.from_bytes(value[12:], "big")

    def _read(self, segment: int, offset: int, length: int) -> bytes:
        file = self.readers.get(segment)
        if file is None:
            file = self.readers[segment] = os.open(self.directory / f"{segment:08}.log", os.O_RDONLY)
        return os.pread(file, length, offset)

    def get(self, name: bytes) -> bytes:
        return self._read(*self._where(name))

    def delete(self, names: Sequence[bytes]) -> None:
        with self.env.begin(write=True, db=self.index) as txn:
            for name in names:
                value = txn.get(name)
                assert value is not None
                self.live[int.from_bytes(value[:4], "big")] -= int.from_bytes(value[12:], "big")
                txn.delete(name)
        for segment in sorted(self.live):
            if segment != self.segment and self.live[segment] <= SEGMENT_BYTES // 2:
                self._compact(segment)

    def _compact(self, segment: int) -> None:
        with self.env.begin(db=self.index) as txn:
            living = [
                (bytes(name), self._read(segment, int.from_bytes(at[4:12], "big"), int.from_bytes(at[12:], "big")))
                for name, at in txn.cursor()
                if int.from_bytes(at[:4], "big") == segment
            ]
        for start in range(0, len(living), BATCH_CHUNKS):
            self.put(living[start : start + BATCH_CHUNKS])
        del self.live[segment]
        reader = self.readers.pop(segment, None)
        if reader is not None:
            os.close(reader)
        os.unlink(self.directory / f"{segment:08}.log")

    def close(self) -> None:
        for file in (self.file, *self.readers.values()):
            os.close(file)
        self.env.close()


class DirectLog(ValueLog):
    """The same past the page cache: each batch is copied to an aligned buffer and written with O_DIRECT into allocated segments."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.buffer = mmap.mmap(-1, 2 * BATCH_CHUNKS * CHUNK_BYTES // mmap.PAGESIZE * mmap.PAGESIZE)

    def _roll(self) -> None:
        super()._roll()
        os.close(self.file)
        self.file = os.open(self.directory / f"{self.segment:08}.log", os.O_WRONLY | os.O_DIRECT)
        os.posix_fallocate(self.file, 0, SEGMENT_BYTES + len(self.buffer))

    def put(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        if self.offset >= SEGMENT_BYTES:
            self._roll()
        end = 0
        for _, body in batch:
            self.buffer[end : end + len(body)] = body
            end += len(body)
        whole = (end + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        written = os.pwrite(self.file, memoryview(self.buffer)[:whole], self.offset)
        assert written == whole
        os.fdatasync(self.file)
        at = self.offset
        with self.env.begin(write=True, db=self.index) as txn:
            for name, body in batch:
                txn.put(name, self.segment.to_bytes(4, "big") + at.to_bytes(8, "big") + len(body).to_bytes(4, "big"))
                at += len(body)
        self.offset += whole
        self.live[self.segment] = self.live.get(self.segment, 0) + end


class OneFileEach:
    """One file per body under 256 folders: write, fdatasync each, rename, fsync the folders touched."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for shard in range(256):
            (directory / f"{shard:02x}").mkdir()

    def _path(self, name: bytes) -> str:
        return f"{self.directory}/{name[0]:02x}/{name.hex()}"

    def put(self, batch: Sequence[tuple[bytes, bytes]]) -> None:
        opened = []
        for name, body in batch:
            file = os.open(self._path(name) + ".part", os.O_CREAT | os.O_WRONLY, 0o600)
            os.write(file, body)
            opened.append(file)
        for (name, _), file in zip(batch, opened, strict=True):
            os.fdatasync(file)
            os.close(file)
            os.rename(self._path(name) + ".part", self._path(name))
        for shard in {name[0] for name, _ in batch}:
            folder = os.open(self.directory / f"{shard:02x}", os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)

    def get(self, name: bytes) -> bytes:
        with open(self._path(name), "rb") as file:
            return file.read()

    def delete(self, names: Sequence[bytes]) -> None:
        for name in names:
            os.unlink(self._path(name))

    def close(self) -> None:
        pass


CANDIDATES: dict[str, Callable[[Path], Candidate]] = {
    "lmdb": InLmdb,
    "lmdb, malloc thresholds": InLmdb,
    "lmdb 1.0 engine": lambda directory: InLmdb(directory, lib_version=1),
    "value log": ValueLog,
    "value log past the page cache": DirectLog,
    "one file each": OneFileEach,
}


def tune_malloc() -> None:
    """LMDB keeps dirty overflow pages in malloc blocks of 256 KiB: above the threshold each is an mmap and a munmap.

    32 MiB is the most that glibc takes for the first; it refuses more without a word but its result.
    """
    libc = ctypes.CDLL(None)
    for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
        if libc.mallopt(option, 32 * MIB) != 1:
            raise RuntimeError("this libc refuses the malloc thresholds")


def rss_anon_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("no RssAnon in /proc/self/status")


def disk_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class PeakRss:
    """Samples RssAnon every 5 ms from a thread of its own."""

    def __enter__(self) -> PeakRss:
        self.start_kib = self.peak_kib = rss_anon_kib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            self.peak_kib = max(self.peak_kib, rss_anon_kib())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def bodies(chunk_count: int, salt: int) -> list[tuple[bytes, bytes]]:
    """Distinct bodies under random 32-byte names; a random base with a counter, so that making them costs nothing."""
    chance = random.Random(salt)
    base = chance.randbytes(CHUNK_BYTES - 8)
    return [(chance.randbytes(32), (salt * 1_000_000 + index).to_bytes(8, "big") + base) for index in range(chunk_count)]


def write_all(store: Candidate, values: Sequence[tuple[bytes, bytes]]) -> None:
    for start in range(0, len(values), BATCH_CHUNKS):
        store.put(values[start : start + BATCH_CHUNKS])


def measure(candidate: str, directory: Path, chunk_count: int) -> dict[str, float]:
    """One run, in this process."""
    if "malloc" in candidate:
        tune_malloc()
    values = bodies(chunk_count, 1)
    payload = chunk_count * CHUNK_BYTES
    store = CANDIDATES[candidate](directory)
    os.sync()
    with PeakRss() as peak:
        cpu, started = cpu_s(), time.perf_counter()
        write_all(store, values)
        write_s, write_cpu_s = time.perf_counter() - started, cpu_s() - cpu
    disk_first = disk_bytes(directory)
    names = [name for name, _ in values]
    random.Random(2).shuffle(names)
    started = time.perf_counter()
    for name in names:
        hashlib.sha256(store.get(name)).digest()
    read_s = time.perf_counter() - started
    started = time.perf_counter()
    for start in range(0, chunk_count // 2, BATCH_CHUNKS):
        store.delete(names[start : min(start + BATCH_CHUNKS, chunk_count // 2)])
    delete_s = time.perf_counter() - started
    started = time.perf_counter()
    write_all(store, bodies(chunk_count // 2, 3))
    rewrite_s = time.perf_counter() - started
    disk_second = disk_bytes(directory)
    store.close()
    return {
        "write_mb_s": payload / write_s / 1e6,
        "write_cpu_s_per_gb": write_cpu_s / payload * 1e9,
        "rss_anon_mib": (peak.peak_kib - peak.start_kib) / 1024,
        "read_and_hash_mb_s": payload / read_s / 1e6,
        "delete_half_s": delete_s,
        "rewrite_half_mb_s": payload / 2 / rewrite_s / 1e6,
        "disk_per_payload": disk_first / payload,
        "disk_after_reuse_per_payload": disk_second / payload,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--candidate", choices=CANDIDATES, help="one run of one candidate in this process, as JSON")
    options = parser.parse_args()
    chunk_count = options.mib * MIB // CHUNK_BYTES // BATCH_CHUNKS * BATCH_CHUNKS
    if options.candidate:
        print(json.dumps(measure(options.candidate, options.directory, chunk_count)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for _ in range(options.runs):  # candidates take turns, so that a slow minute of the machine hits all alike
        for name in CANDIDATES:
            directory = Path(tempfile.mkdtemp(prefix="chunk-store-", dir=options.directory))
            try:
                command = [sys.executable, __file__, "--candidate", name, "--directory", str(directory), "--mib", str(options.mib)]
                results[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            finally:
                shutil.rmtree(directory)
    for name, runs in results.items():
        print(name)
        for figure in runs[0]:
            values = sorted(run[figure] for run in runs)
            print(f"  {figure:30} median {statistics.median(values):9.2f}   [{values[0]:.2f}-{values[-1]:.2f}]")
    if options.output:
        facts = {
            "load_average": os.getloadavg(),
            "machine": platform.platform(),
            "python": platform.python_version(),
            "lmdb": lmdb.version(),
            "mib": options.mib,
        }
        options.output.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
