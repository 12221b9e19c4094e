"""The engine on a real disk: growth, full and read-only disks, damage, and death in the middle of a write."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.crypto import sha256
from protocols.errors import Reason, Refused, StoreDamaged, StoreFull
from protocols.types import ChunkName, OwnerKey, UnixSeconds
from storage import check, chunks
from storage.body_file import BODIES_FILE, EXTENT_BODY_BYTES_MIN
from storage.engine import Delete, Env, Put
from storage.lmdb_engine import DATA_FILE, LmdbEngine
from storage.lock import HomeLock
from storage.overlay import Overlay
from storage.tables import BODIES, CHUNKS, OWNERS

from .contract import BODY, fill, fill_rows, name

MIB = 1024 * 1024
# Names that make a body: one that stays in the database, one that has an extent.
INSIDE_AND_APART = (2048, EXTENT_BODY_BYTES_MIN // 32 + 1)
OWNER = OwnerKey(bytes(32))
PROTECTION = chunks.Protection(OWNER, b"put", UnixSeconds(1_000_000))


def open_engine(path: Path, *, budget_bytes: int = 64 * MIB, reserve_bytes: int = 0) -> LmdbEngine:
    return LmdbEngine(path, Env.CHUNKS, budget_bytes=budget_bytes, reserve_bytes=reserve_bytes)


def keep_bodies(engine: LmdbEngine, count: int, *, names_each: int = 2048) -> list[ChunkName]:
    """Real chunks through the store, under a protection. names_each: their bytes over 32."""
    bodies = [(ChunkName(sha256(body)), body) for body in (name(index) * names_each for index in range(count))]
    with engine.snapshot() as snapshot:
        writes = chunks.keep(snapshot, bodies, PROTECTION, now=UnixSeconds(1))
    engine.write(writes)
    return [chunk for chunk, _ in bodies]


def bytes_on_disk(folder: Path) -> int:
    return sum((folder / file).stat().st_size for file in (DATA_FILE, BODIES_FILE))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB that nobody else writes to."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", mount], check=False).returncode:
        pytest.skip("mounting a small file system needs root, and in a container CAP_SYS_ADMIN")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def use_up(disk: Path) -> Path:
    """Fills the disk to the last byte with somebody else's file."""
    hog = disk / "hog"
    with hog.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    assert shutil.disk_usage(disk).free == 0
    return hog


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    """Goal: durable. Method: write, close, open, read."""
    engine = open_engine(tmp_path / "e")
    engine.write([Put(CHUNKS, b"a", b"1"), Put(BODIES, b"b", BODY)])
    engine.close()
    engine = open_engine(tmp_path / "e")
    with engine.snapshot() as snapshot:
        assert snapshot.get(CHUNKS, b"a") == b"1"
        assert snapshot.get(BODIES, b"b") == BODY
    engine.close()


def test_map_grows_under_readers_and_never_beyond_the_budget(tmp_path: Path) -> None:
    """Goal: no fixed map to outgrow. Method: three threads read all the time while the file grows from 4 MiB to its budget."""
    engine = open_engine(tmp_path / "e", budget_bytes=40 * MIB)
    engine.write([Put(BODIES, name(0), BODY)])
    failures: list[BaseException] = []
    reads = [0, 0, 0]
    stop = threading.Event()

    def read(reader: int) -> None:
        try:
            while not stop.wait(0.001):
                with engine.snapshot() as snapshot:
                    assert snapshot.get(BODIES, name(0)) == BODY
                    before = snapshot.count(BODIES)
                    assert sum(1 for _ in snapshot.scan(BODIES, start=name(max(0, before - 3)))) == min(3, before)
                reads[reader] += 1
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(reader,)) for reader in range(3)]
    for reader in readers:
        reader.start()
    try:
        with pytest.raises(StoreFull):
            fill(engine, 200, start=1)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert all(reads)
    assert bytes_on_disk(tmp_path / "e") <= 40 * MIB
    with engine.snapshot() as snapshot:
        assert snapshot.count(BODIES) > 100
    engine.close()


def test_file_is_reused_and_stays_within_its_budget_under_churn(tmp_path: Path) -> None:
    """Goal: deleted space comes back. Method: replace everything, batch by batch, five times over."""
    engine = open_engine(tmp_path / "e", budget_bytes=24 * MIB, reserve_bytes=4 * MIB)
    fill(engine, 48)
    for turn in range(1, 6):
        for index in range(0, 48, 4):
            engine.write([Delete(BODIES, name((turn - 1) * 1000 + index + offset)) for offset in range(4)])
            engine.write([Put(BODIES, name(turn * 1000 + index + offset), BODY) for offset in range(4)])
    with engine.snapshot() as snapshot:
        assert snapshot.count(BODIES) == 48
    assert bytes_on_disk(tmp_path / "e") <= 24 * MIB
    engine.close()


def test_bodies_leave_the_reserve_of_the_disk_to_others(small_disk: Path) -> None:
    """Goal: files are refused before the ledger could meet a full disk. Method: a budget larger than the disk, 6 MiB in reserve."""
    engine = open_engine(small_disk / "e", reserve_bytes=6 * MIB)
    with pytest.raises(StoreFull) as refusal:
        fill(engine, 100)
    assert refusal.value.details["resource"] == "disk"
    assert shutil.disk_usage(small_disk).free >= 5 * MIB
    other = LmdbEngine(small_disk / "ledger", Env.LEDGER, budget_bytes=8 * MIB, reserve_bytes=0)
    other.close()
    engine.close()


@pytest.mark.parametrize("names_each", INSIDE_AND_APART)
def test_full_disk_refuses_puts_stays_readable_and_takes_deletes(small_disk: Path, names_each: int) -> None:
    """Goal: disk full is a state, not an end. Method: fill to the last byte; put, read, delete, reopen with zero free bytes, collect."""
    engine = open_engine(small_disk / "e")
    names = keep_bodies(engine, 40, names_each=names_each)
    hog = use_up(small_disk)
    with pytest.raises(StoreFull):
        fill(engine, 100)
    with engine.snapshot() as snapshot:
        assert chunks.get(snapshot, names[0]) is not None
    engine.close()
    engine = open_engine(small_disk / "e")
    with engine.snapshot() as snapshot:
        assert check.scrub(snapshot, limit=1000).damaged == ()
        assert chunks.has_many(snapshot, names) == (True,) * 40
    while True:  # the collector's batches are not deletes alone: owners' sums change
        with engine.snapshot() as snapshot:
            writes = chunks.collect(snapshot, PROTECTION.expires_at, 8)
        if not writes:
            break
        engine.write(writes)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0
        assert check.check_rows(snapshot) == ()
    engine.write([Put(BODIES, name(1), BODY)])
    assert shutil.disk_usage(small_disk).free == 0
    hog.unlink()
    fill(engine, 30, start=100)
    engine.close()


def test_small_bodies_go_into_free_extents_when_the_disk_has_no_more_for_the_database(small_disk: Path) -> None:
    """Goal: what was deleted makes room for whatever comes.

    Method: full bodies until the disk is at its reserve; all deleted; small ones.
    """
    engine = open_engine(small_disk / "e", reserve_bytes=4 * MIB)
    with pytest.raises(StoreFull):
        fill(engine, 200)
    with engine.snapshot() as snapshot:
        kept = snapshot.count(BODIES)
    engine.write([Delete(BODIES, name(index)) for index in range(kept)])
    extents = engine._extents.there
    small = [Put(BODIES, name(1000 + index), name(index) * 1900) for index in range(kept)]
    for start in range(0, kept, 8):
        engine.write(small[start : start + 8])
    assert engine._extents.there == extents
    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, put.key) for put in small] == [put.value for put in small]
    engine.close()


def test_deletes_pass_when_rows_have_used_all_there_is(small_disk: Path) -> None:
    """Goal: rows cannot eat what deletes need. Method: full disk, rows until refused, then delete everything row by row."""
    engine = open_engine(small_disk / "e")
    fill(engine, 20)
    use_up(small_disk)
    with pytest.raises(StoreFull):
        fill_rows(engine, 100_000, bytes(1000))
    for index in range(20):
        engine.write([Delete(BODIES, name(index))])
    with engine.snapshot() as snapshot:
        assert snapshot.count(BODIES) == 0
        assert snapshot.count(OWNERS) > 0
    engine.close()


def test_new_store_on_a_full_disk_is_refused_not_half_made(small_disk: Path) -> None:
    """Goal: even the first start may meet a full disk. Method: start on one, free it, start again."""
    hog = use_up(small_disk)
    with pytest.raises(StoreFull):
        open_engine(small_disk / "e")
    hog.unlink()
    engine = open_engine(small_disk / "e")
    fill(engine, 2)
    engine.close()


def test_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """Goal: other ways to run out of room look the same. Method: RLIMIT_FSIZE in a child process."""
    code = """
import resource, signal, sys
from storage.engine import Delete, Env, Put
from storage.lmdb_engine import LmdbEngine
from storage.tables import BODIES
from protocols.errors import StoreFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
engine = LmdbEngine(sys.argv[1], Env.CHUNKS, budget_bytes=64 << 20, reserve_bytes=0)
kept = 0
try:
    while True:
        engine.write([Put(BODIES, kept.to_bytes(32, "big"), bytes(262160))])
        kept += 1
except StoreFull:
    pass
engine.write([Delete(BODIES, (0).to_bytes(32, "big"))])
with engine.snapshot() as snapshot:
    assert snapshot.count(BODIES) == kept - 1
print(kept)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "e"], capture_output=True, text=True, check=True)
    assert 15 <= int(done.stdout) <= 31


def test_read_only_disk_opens_reads_and_refuses_writes(small_disk: Path) -> None:
    """Goal: an SD card that went read-only still serves. Method: remount, open, read, write."""
    engine = open_engine(small_disk / "e")
    fill(engine, 2)
    engine.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    engine = open_engine(small_disk / "e")
    assert engine.read_only
    with engine.snapshot() as snapshot:
        assert snapshot.get(BODIES, name(1)) == BODY
    for write in (Put(CHUNKS, b"a", b""), Delete(BODIES, name(1))):
        with pytest.raises(StoreFull) as refusal:
            engine.write([write])
        assert refusal.value.details["resource"] == "read-only"
    engine.close()


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.02])
def test_truncated_file_is_damage_not_a_crash(tmp_path: Path, keep: float) -> None:
    """Goal: a file cut off by a lost write is refused with a reason; mapped, it would be a SIGBUS. Method: cut the file, open it."""
    engine = open_engine(tmp_path / "e")
    fill(engine, 30)
    end = engine._end_bytes()
    engine.close()
    os.truncate(tmp_path / "e" / DATA_FILE, int(end * keep))
    with pytest.raises(StoreDamaged):
        open_engine(tmp_path / "e")


def test_file_of_something_else_is_damage(tmp_path: Path) -> None:
    """Goal: whatever lies there, no crash. Method: zeros, text, nothing but a header."""
    for content in (bytes(100_000), b"not a database" * 1000, bytes(10)):
        shutil.rmtree(tmp_path / "e", ignore_errors=True)
        (tmp_path / "e").mkdir()
        (tmp_path / "e" / DATA_FILE).write_bytes(content)
        with pytest.raises(StoreDamaged):
            open_engine(tmp_path / "e")


CORRUPTED_READER = """
import sys
from storage import check, chunks
from storage.engine import Env, Put
from storage.lmdb_engine import LmdbEngine
from storage.tables import ALL, OWNERS
from protocols.errors import StoreDamaged
answer = "intact"
try:
    engine = LmdbEngine(sys.argv[1], Env.CHUNKS, budget_bytes=64 << 20, reserve_bytes=0)
    with engine.snapshot() as snapshot:
        if check.scrub(snapshot, limit=10**6).damaged or check.check_rows(snapshot) or chunks.chunk_count(snapshot) != 30:
            answer = "found"
    engine.write([Put(OWNERS, b"x", b"")])
    engine.close()
except StoreDamaged:
    answer = "damaged"
print(answer)
"""


def test_corrupted_pages_are_reported_never_fatal(tmp_path: Path) -> None:
    """Goal: bit rot in the tree pages gives StoreDamaged or a finding, not a dead process.

    Method: overwrite one used page after the other with noise, each in a fresh copy, and read everything in a child process.
    """
    engine = open_engine(tmp_path / "good")
    keep_bodies(engine, 30)
    pages = engine._end_bytes() // 4096
    engine.close()
    chance = random.Random(7)
    answers = []
    for page in [2, *chance.sample(range(2, pages), 5)]:
        copy = tmp_path / f"page{page}"
        shutil.copytree(tmp_path / "good", copy)
        with (copy / DATA_FILE).open("r+b") as file:
            file.seek(page * 4096 + 16)
            file.write(chance.randbytes(4080))
        done = subprocess.run([sys.executable, "-c", CORRUPTED_READER, copy], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (page, done.returncode, done.stderr)
        answers.append(done.stdout.strip())
    assert set(answers) <= {"intact", "found", "damaged"}
    assert {"found", "damaged"} & set(answers)


@pytest.mark.parametrize(("names_each", "file"), [(INSIDE_AND_APART[0], DATA_FILE), (INSIDE_AND_APART[1], BODIES_FILE)])
def test_one_flipped_bit_on_disk_is_found_by_the_scrub(tmp_path: Path, names_each: int, file: str) -> None:
    """Goal: bit rot in a body does not go unnoticed. Method: flip one bit of one body in the file; scrub in steps; quarantine."""
    engine = open_engine(tmp_path / "e")
    names = keep_bodies(engine, 20, names_each=names_each)
    engine.close()
    data = tmp_path / "e" / file
    raw = bytearray(data.read_bytes())
    place = raw.find(name(7) * 64) + 1000
    raw[place] ^= 4
    data.write_bytes(raw)
    engine = open_engine(tmp_path / "e")
    found: list[check.Damage] = []
    after = None
    with engine.snapshot() as snapshot:
        while True:
            step = check.scrub(snapshot, after=after, limit=3)
            found.extend(step.damaged)
            assert step.checked <= 3
            after = step.after
            if after is None:
                break
    assert [damage.name for damage in found] == [names[7]]
    with engine.snapshot() as snapshot:
        writes = chunks.quarantine(snapshot, found[0].name, found_hash=found[0].found_hash, now=UnixSeconds(2))
    engine.write(writes)
    with engine.snapshot() as snapshot:
        assert chunks.missing(snapshot, names) == (names[7],)
        assert check.scrub(snapshot, limit=100).damaged == ()
    engine.close()


WRITER = """
import os, sys
from protocols.crypto import sha256
from protocols.types import UnixSeconds, OwnerKey
from storage import chunks
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
engine = LmdbEngine(sys.argv[1], Env.CHUNKS, budget_bytes=256 << 20, reserve_bytes=0)
turn, names_each = int(sys.argv[2]), int(sys.argv[3])
for batch in range(10_000):
    bodies = []
    for index in range(4):
        body = (turn << 40 | batch << 8 | index).to_bytes(32, "big") * names_each
        bodies.append((sha256(body), body))
    protection = chunks.Protection(OwnerKey(bytes(32)), b"%d-%d" % (turn, batch), UnixSeconds(100 if batch % 3 else 1))
    with engine.snapshot() as snapshot:
        writes = chunks.keep(snapshot, bodies, protection, now=UnixSeconds(1))
    engine.write(writes)
    if batch % 3:
        os.write(1, b"".join(name for name, _ in bodies))
    else:
        with engine.snapshot() as snapshot:
            writes = chunks.collect(snapshot, UnixSeconds(10), 8)
        engine.write(writes)
"""


@pytest.mark.parametrize("names_each", INSIDE_AND_APART)
def test_killed_in_the_middle_of_writes_nothing_acknowledged_is_lost(tmp_path: Path, names_each: int) -> None:
    """Goal: kill -9 at any instant loses nothing that was said to be durable and leaves whole batches.

    Method: a child writes, collects, and says what is durable; it is killed after a random number of words, 12 times on one store.
    """
    chance = random.Random(11)
    acknowledged: list[bytes] = []
    for turn in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "e", str(turn), str(names_each)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 12)):
                words = child.stdout.read(128)
                assert len(words) == 128
                acknowledged.extend(words[start : start + 32] for start in range(0, 128, 32))
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
            acknowledged.extend(rest[start : start + 32] for start in range(0, len(rest), 32))
        engine = open_engine(tmp_path / "e", budget_bytes=256 * MIB)
        with engine.snapshot() as snapshot:
            assert all(chunks.has_many(snapshot, [ChunkName(word) for word in acknowledged]))
            assert check.check_rows(snapshot) == ()
            assert check.scrub(snapshot, limit=10**6).damaged == ()
        engine.close()
    assert len(acknowledged) > 100


LOCKER = """
import sys
from storage.lock import HomeLock
with HomeLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_who_has_the_home(tmp_path: Path) -> None:
    """Goal: one process to a home, and a killed one leaves no lock. Method: a child locks; we are refused with its id; it is killed."""
    with subprocess.Popen([sys.executable, "-c", LOCKER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        with pytest.raises(Refused) as refusal:
            HomeLock(tmp_path)
        assert refusal.value.reason is Reason.LOCKED
        assert refusal.value.details["pid"] == str(child.pid)
        child.kill()
        child.wait()
    with HomeLock(tmp_path), pytest.raises(Refused):
        HomeLock(tmp_path)
    HomeLock(tmp_path).release()


def test_lock_can_be_taken_on_a_full_and_on_a_read_only_disk(small_disk: Path) -> None:
    """Goal: the lock never keeps a node from starting. Method: take it on both kinds of disk after it was there once."""
    HomeLock(small_disk).release()
    hog = use_up(small_disk)
    HomeLock(small_disk).release()
    hog.unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with HomeLock(small_disk), pytest.raises(Refused):
        HomeLock(small_disk)


def test_several_transactions_of_one_batch_survive_reopening(tmp_path: Path) -> None:
    """Goal: overlay and engine agree on a disk too. Method: keep and trash in one batch, reopen, read."""
    engine = open_engine(tmp_path / "e")
    body = bytes(5000)
    chunk = ChunkName(sha256(body))
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        overlay.add(chunks.keep(overlay, [(chunk, body)], PROTECTION, now=UnixSeconds(1)))
        overlay.add(chunks.unprotect(overlay, OWNER, PROTECTION.id))
        overlay.add(chunks.collect(overlay, UnixSeconds(1), 10))
    engine.write(overlay.writes)
    engine.close()
    engine = open_engine(tmp_path / "e")
    with engine.snapshot() as snapshot:
        assert chunks.get(snapshot, chunk) is None
        assert check.check_rows(snapshot) == ()
    engine.close()


def resident_bytes(path: Path, start: int, stop: int) -> int:
    """How much of a stretch of a file the system has in memory (mincore(2)). start: a multiple of the page size."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), stop - start, flags=mmap.MAP_PRIVATE, offset=start) as view:
        pages = (stop - start + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        found = (ctypes.c_ubyte * pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(stop - start), found):
            raise OSError(ctypes.get_errno(), "mincore")
        gc.collect()  # the view cannot be closed while ctypes points into it
    return sum(page & 1 for page in found) * mmap.PAGESIZE


def tells_what_is_in_memory(folder: Path) -> bool:
    """Whether mincore(2) knows there of space that was read and never written: not of a tmpfs, which is in memory as it is."""
    probe = folder / "probe"
    with probe.open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, mmap.PAGESIZE)
        assert os.pread(file.fileno(), mmap.PAGESIZE, 0) == bytes(mmap.PAGESIZE)
    found = resident_bytes(probe, 0, mmap.PAGESIZE)
    probe.unlink()
    return found == mmap.PAGESIZE


def test_space_beyond_the_last_page_is_made_ready_and_again_when_an_eighth_of_it_is_used(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    engine.write([Put(BODIES, name(1), BODY)])
    steps = 0
    while engine.prepare():
        steps += 1
    end = (int(engine._lmdb.info()["last_pgno"]) + 1) * mmap.PAGESIZE
    ready = 64 * MIB // 8
    assert steps == ready // MIB
    if tells_what_is_in_memory(tmp_path):
        # Not all of it: the system may take some pages back before they are counted. Without preparing there is none.
        assert resident_bytes(tmp_path / DATA_FILE, end, end + ready) > ready // 2
    assert not engine.prepare()  # one look at a store that needs nothing
    engine.write([Put(BODIES, name(2), bytes(MIB // 2))])
    assert not engine.prepare()  # half a MiB of eight is used
    engine.write([Put(BODIES, name(index), bytes(MIB)) for index in range(3, 8)])
    while engine.prepare():
        steps += 1
    assert steps > ready // MIB
    with engine.snapshot() as snapshot:
        assert snapshot.get(BODIES, name(1)) == BODY
        assert snapshot.get(BODIES, name(7)) == bytes(MIB)
    engine.close()
    assert not engine.prepare()


def test_no_more_space_is_made_ready_than_a_sixteenth_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Method: the disk has just enough beyond the reserve; what is taken from it; then a byte less."""
    reserve, ready = 8 * MIB, 32 * MIB
    engine = open_engine(tmp_path, budget_bytes=1024 * MIB, reserve_bytes=reserve)
    engine.write([Put(BODIES, name(1), BODY)])
    free = reserve + 16 * ready
    monkeypatch.setattr(engine, "_disk_free_bytes", lambda: free)
    before = (tmp_path / DATA_FILE).stat().st_size
    while engine.prepare():
        pass
    taken = (tmp_path / DATA_FILE).stat().st_size - before
    assert 0 < taken <= ready
    free -= 1
    engine.write([Put(BODIES, name(index), bytes(MIB)) for index in range(2, 22)])
    assert not engine.prepare()
    engine.close()


def test_no_space_is_made_ready_on_a_disk_that_is_nearly_full(small_disk: Path) -> None:
    engine = open_engine(small_disk / "store")  # eight MiB ready would be half of this disk
    engine.write([Put(BODIES, name(1), BODY)])
    before = os.statvfs(small_disk).f_bavail
    assert not engine.prepare()
    assert os.statvfs(small_disk).f_bavail == before
    engine.close()
