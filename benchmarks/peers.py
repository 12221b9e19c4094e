"""The same files through Lading and through Syncthing, in the same run, taking turns; a clear TCP socket beside them.

Clocks. Lading's `get`: from the call to the reader until it has answered (every chunk verified and opened, file fsynced and renamed) and
syncfs has returned; the record was put and shared before. Syncthing: from the rename into the sender's folder, through the sender's scan,
to the final name at the receiver (every block verified, file fsynced), and syncfs. The scan is what `put` is to Lading, so the ratio of the
two flatters `get`: both fairer ones stand beside it, `get` against Syncthing without its scan, and `put` and `get` together against all
of Syncthing. Many files: publishing is in both clocks. One member puts them all in one call (`put --each --ack quorum`) in a network of two
nodes, so an answer comes when the other node has committed the record to its store and signed for it; Syncthing's appear by one rename.

What comes of it differs: of many, Lading's receiver holds sealed records and Syncthing's plain files; Lading seals and signs, Syncthing
does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .harness import (
    MIB,
    Load,
    Row,
    TestNet,
    documents,
    keep_off,
    load_of,
    member_of,
    memory_of,
    processor_s,
    put_timed,
    random_file,
    rate_mb_s,
    settle,
    sync_file_system,
    wait_quiet,
    wait_shared,
)
from .syncthing import SyncthingPair, program_version

KIB = 1024
WARM_BYTES = 8 * MIB
WARM_COUNT = 20
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Spent:
    """What one transfer took. processor_s: of the two ends together. peak_mib: RssAnon + RssShmem of each process by name."""

    took_s: float
    processor_s: float
    peak_mib: Mapping[str, float]
    load: Load

    @property
    def peaks(self) -> Mapping[str, float]:
        return {name: round(mib, 1) for name, mib in self.peak_mib.items()}


def _spend(ends: Mapping[str, int], beside: Sequence[int], place: Path, act: Callable[[], None]) -> Spent:
    """Does ``act``, then syncfs of ``place``, with everything written before already on the disk, and nobody at work any more on what came
    of the turn before: after a put nodes look at it again and its anchors become final, for some seconds.

    ends: processes by name whose processor time and memory count. beside: processes of ours that rest meanwhile.
    """
    wait_quiet([*ends.values(), *beside])
    settle()
    with memory_of(ends) as peaks, load_of([*ends.values(), *beside]) as load:
        used = sum(map(processor_s, ends.values()))
        began = time.perf_counter()
        act()
        sync_file_system(place)
        took = time.perf_counter() - began
        used = sum(map(processor_s, ends.values())) - used
    return Spent(took, used, {name: peak.own_mib for name, peak in peaks.items()}, load)


def _same(one: Path, other: Path) -> None:
    """Raises RuntimeError when two files differ."""
    digests = set()
    for path in (one, other):
        with path.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").digest())
    if len(digests) != 1:
        raise RuntimeError(f"{other} is not what was sent")


def _in_turn(run: int, turns: Sequence[Callable[[], None]]) -> None:
    """Each run begins with another one, so that none always finds the machine as the same one left it."""
    first = run % len(turns)
    for turn in (*turns[first:], *turns[:first]):
        turn()


# --- one file -------------------------------------------------------------------------------------------------------


def _get(net: TestNet, pair: SyncthingPair, record: str, source: Path) -> Spent:
    """`get` at the reader, from the one holder; the content is compared afterwards."""
    holder, reader = net.nodes
    output = source.with_name("got")
    sources: list[str] = []

    def act() -> None:
        sources.extend(reader.call("get", record=record, output=str(output))["sources"])  # type: ignore[arg-type]

    spent = _spend({"holder": holder.pid, "reader": reader.pid}, list(pair.pids.values()), output.parent, act)
    if len(sources) != 1:
        raise RuntimeError(f"{len(sources)} nodes sent chunks; the row is about one holder")
    _same(source, output)
    output.unlink()
    return spent


def _sync(pair: SyncthingPair, net: TestNet, source: Path) -> tuple[Spent, float]:
    """Syncthing moves a file, or a folder of files. Second: seconds until its scan had ended."""
    staged = pair.directory / source.name
    names = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
    if names:
        staged.mkdir()
        for name in names:
            os.link(source / name, staged / name)
    else:
        os.link(source, staged)
    scanned: list[float] = []
    spent = _spend(pair.pids, net.pids, pair.directory, lambda: scanned.append(pair.move(staged, names)))
    for name in names or [""]:
        _same(source / name, pair.receiver.seat.folder / source.name / name)
    pair.clear(source.name)
    return spent, scanned[0]


def _socket_mb_s(source: Path) -> tuple[float, Load]:
    """MB/s of a clear TCP connection between two processes, hashed, written and fsynced."""
    command = [sys.executable, "-m", "benchmarks.bounds"]
    output = source.with_name("taken")
    settle()
    with load_of([]) as load, subprocess.Popen([*command, "offer", str(source)], stdout=subprocess.PIPE) as offering:
        try:
            assert offering.stdout is not None
            port = offering.stdout.readline().decode().strip()
            words = [*command, "take", port, str(output)]
            done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
        finally:
            offering.kill()
    _same(source, output)
    output.unlink()
    return float(json.loads(done.stdout)["mb_s"]), load


def _carried(
    run: int, net: TestNet, pair: SyncthingPair, record: str, source: Path
) -> tuple[Spent, tuple[Spent, float], tuple[float, Load]]:
    """The same file by `get`, by Syncthing, by the socket; each as its own function says."""
    got: list[Spent] = []
    synced: list[tuple[Spent, float]] = []
    sent: list[tuple[float, Load]] = []
    _in_turn(
        run,
        (
            lambda: got.append(_get(net, pair, record, source)),
            lambda: synced.append(_sync(pair, net, source)),
            lambda: sent.append(_socket_mb_s(source)),
        ),
    )
    return got[0], synced[0], sent[0]


def _one_file(pair: SyncthingPair, folder: Path, runs: int, mib: int) -> list[Row]:
    size = mib * MIB
    ratio = Row(
        "peers_get", f"`get` of {mib} MiB from one holder, verified, to syncfs: rate over Syncthing's on the same file", "×", "0.8", "1.25"
    )
    moving = Row("peers_get_moving", "the same, over Syncthing without its scan", "×", "", "")
    whole = Row("peers_put_get", "`put --ack local` and `get` together, rate over Syncthing's with its scan", "×", "", "")
    share = Row("peers_get_socket", "the `get`, share of a clear TCP socket with SHA-256 and fsync", "", "0.45", "0.7")
    work = Row("peers_processor", "processor of the `get`, holder and reader together", "s/GB", "7", "5")
    work_theirs = Row("peers_processor_syncthing", "Syncthing's, both ends, its scan included", "s/GB", "", "")
    held = Row(
        "peers_memory", f"memory at {mib} MiB, `put` and `get`, the higher of holder and reader (RssAnon + RssShmem)", "MiB", "160", "110"
    )
    held_theirs = Row("peers_memory_syncthing", "Syncthing's, the higher of its two ends", "MiB", "", "")
    ours_rate = Row("peers_get_rate", "rate of the `get`", "MB/s", "", "")
    theirs_rate = Row("peers_syncthing_rate", "rate of Syncthing", "MB/s", "", "")
    socket_rate = Row("peers_socket_rate", "rate of the clear socket", "MB/s", "", "")
    with TestNet(2) as net:
        owner, reader = net.nodes
        reader_id = member_of(reader)
        keep_off(net, reader)

        def published(source: Path) -> tuple[str, Spent]:
            records: list[str] = []

            def put() -> None:
                records.append(str(put_timed(owner, source, ack="local")[0]["record"]))

            spent = _spend({"holder": owner.pid}, [reader.pid, *pair.pids.values()], folder, put)
            owner.call("share", record=records[0], to=reader_id)
            wait_shared(reader, records[0])
            return records[0], spent

        warm = random_file(folder / "warm", WARM_BYTES, 1)
        record, _ = published(warm)
        _get(net, pair, record, warm)
        _sync(pair, net, warm)
        for run in range(runs):
            source = random_file(folder / f"bulk{run}", size, 20 + run)
            record, putting = published(source)
            ours, (theirs, scan_s), (limit, socket_load) = _carried(run, net, pair, record, source)
            rate = rate_mb_s(size, ours.took_s)
            ours_rate.add(rate, ours.load, s=round(ours.took_s, 3), put_s=round(putting.took_s, 3))
            theirs_rate.add(rate_mb_s(size, theirs.took_s), theirs.load, s=round(theirs.took_s, 3), scan_s=round(scan_s, 3))
            socket_rate.add(limit, socket_load)
            ratio.add(theirs.took_s / ours.took_s)
            moving.add((theirs.took_s - scan_s) / ours.took_s)
            whole.add(theirs.took_s / (putting.took_s + ours.took_s))
            share.add(rate / limit)
            both = putting.processor_s + ours.processor_s
            work.add(ours.processor_s / (size / 1e9), with_put=round(both / (size / 1e9), 2))
            work_theirs.add(theirs.processor_s / (size / 1e9))
            held.add(max(*ours.peak_mib.values(), *putting.peak_mib.values()), get=ours.peaks, put=putting.peaks)
            held_theirs.add(max(theirs.peak_mib.values()), both=theirs.peaks)
            source.unlink()
    ratio.notes.append("flatters: Syncthing's time has its scan in it, and the `get` no `put`; the two rows after it do not")
    work.notes.append("of the two node processes; the caller of the `get` is not counted. with_put: of `put` and `get` together")
    for row in (held, held_theirs):
        row.notes.append("value of the row: the highest, not the median; the same two processes in all runs")
    return [ratio, moving, whole, share, work, work_theirs, held, held_theirs, ours_rate, theirs_rate, socket_rate]


# --- many files -----------------------------------------------------------------------------------------------------


def _put_all(net: TestNet, pair: SyncthingPair, source: Path) -> Spent:
    """Every file of the folder a record of its own, all at once, until all are durable at the other node."""
    owner, other = net.nodes
    paths = [str(path) for path in sorted(source.iterdir())]
    records: list[str] = []

    def act() -> None:
        records.extend(str(one) for one in owner.call("put", paths=paths, each=True, ack="quorum", replicas=2)["record"])  # type: ignore[attr-defined]

    spent = _spend({"owner": owner.pid, "other": other.pid}, list(pair.pids.values()), net.directory, act)
    for record in records:
        status = owner.call("file.status", record=record)
        held = {str(row["name"]).rpartition("/")[2]: row["have"] for row in status["holders"]}  # type: ignore[attr-defined]
        if held.get(other.name) != status["sequences"]:
            raise RuntimeError(f"{other.name} does not hold all of {record}: {held} of {status['sequences']}")
    return spent


def _published(run: int, net: TestNet, pair: SyncthingPair, source: Path) -> tuple[Spent, tuple[Spent, float]]:
    """The same files put as records and moved by Syncthing."""
    put: list[Spent] = []
    synced: list[tuple[Spent, float]] = []
    _in_turn(run, (lambda: put.append(_put_all(net, pair, source)), lambda: synced.append(_sync(pair, net, source))))
    return put[0], synced[0]


def _of_one_size(folder: Path, count: int, seed: int, size: int) -> None:
    documents(folder, count, seed, lambda _: size)


def _many_files(pair: SyncthingPair, folder: Path, runs: int, count: int) -> list[Row]:
    rows: list[Row] = []
    runs += runs % 2  # each begins as often as the other: who comes second finds the machine slower
    with TestNet(2) as net:
        warm = folder / "many-warm"
        _of_one_size(warm, WARM_COUNT, 300, 10 * KIB)
        _put_all(net, pair, warm)
        _sync(pair, net, warm)
        for name, text, size, floor, aim in (("10k", "10 KiB", 10 * KIB, "1.0", "2.0"), ("1m", "1 MiB", MIB, "0.8", "1.2")):
            what = f"{count} × {text} until durable at the receiver: Syncthing's time over Lading's"
            ratio = Row(f"peers_many_{name}", what, "×", floor, aim)
            ours_s = Row(f"peers_many_{name}_lading", f"{count} × {text}: `put --each --ack quorum`, one other holder", "s", "", "")
            theirs_s = Row(f"peers_many_{name}_syncthing", f"{count} × {text}: Syncthing", "s", "", "")
            for run in range(runs):
                source = folder / f"many-{name}-{run}"
                _of_one_size(source, count, 301 + run, size)
                ours, (theirs, scan_s) = _published(run, net, pair, source)
                ours_s.add(ours.took_s, ours.load, ends_processor_s=round(ours.processor_s, 2), peak_mib=ours.peaks)
                more = {"peak_mib": theirs.peaks, "scan_s": round(scan_s, 3)}
                theirs_s.add(theirs.took_s, theirs.load, ends_processor_s=round(theirs.processor_s, 2), **more)
                ratio.add(theirs.took_s / ours.took_s)
                for path in source.iterdir():
                    path.unlink()
            rows += [ratio, ours_s, theirs_s]
    return rows


def peer_rows(runs: int, *, bulk_mib: int, count: int) -> list[Row]:
    """bulk_mib: of the one file. count: of the many. Raises Skipped when Syncthing is not installed."""
    version = program_version()
    with SyncthingPair() as pair, tempfile.TemporaryDirectory(prefix="lading-bench-") as name:
        rows = _one_file(pair, Path(name), runs, bulk_mib) + _many_files(pair, Path(name), runs, count)
    for row in rows:
        row.notes.append(f"beside: {version}")
    return rows
