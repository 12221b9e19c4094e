"""One function per row of docs/PERFORMANCE.md. Each measures its bound beside it, in the same run, taking turns."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from node.http.client import call

from . import ledger_net
from .chain import chain_rows
from .gossipsub import gossipsub_rows
from .harness import (
    MIB,
    Called,
    Load,
    Row,
    RunningNode,
    TestNet,
    call_at_once,
    documents,
    keep_off,
    load_of,
    member_of,
    memory_of,
    put_timed,
    random_file,
    rate_mb_s,
    rest,
    settle,
    wait_shared,
)
from .lane import lane_rows
from .light import light_rows
from .wires import wire_rows

RUNS = int(os.environ.get("BENCH_RUNS", "5"))
BULK_MIB = int(os.environ.get("BENCH_BULK_MIB", "512"))
MEMORY_MIB = int(os.environ.get("BENCH_MEMORY_MIB", "1024"))
SMALL_COUNT = int(os.environ.get("BENCH_SMALL_COUNT", "300"))
REPAIR_MIB = int(os.environ.get("BENCH_REPAIR_MIB", "256"))
CURVE = (1, 10, 20, 40, 80, 120, 180, 240, 300)
GRACE_S = 2.0


def _bound(*words: object) -> float:
    """MB/s of a bound that runs in one process."""
    command = [sys.executable, "-m", "benchmarks.bounds", *map(str, words)]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["mb_s"])


def _ingest_bound(source: Path) -> float:
    directory = Path(tempfile.mkdtemp(prefix="lading-bound-"))
    try:
        settle()
        return _bound("ingest", source, directory)
    finally:
        shutil.rmtree(directory)


def _stream_bound(source: Path) -> float:
    """One bare stream of the stock library between two processes."""
    directory = Path(tempfile.mkdtemp(prefix="lading-bound-"))
    try:
        settle()
        address = directory / "address"
        command = [sys.executable, "-m", "benchmarks.bounds"]
        receiving = [*command, "receive", str(address), str(source.stat().st_size // MIB), str(directory / "out")]
        with subprocess.Popen(receiving, stderr=subprocess.DEVNULL) as receiver:
            try:
                sent = subprocess.run(
                    [*command, "send", str(address), str(source)], check=True, capture_output=True, text=True, timeout=120
                )
            finally:
                receiver.kill()
        return float(json.loads(sent.stdout)["mb_s"])
    finally:
        shutil.rmtree(directory)


# --- bulk -----------------------------------------------------------------------------------------------------------


def ingest() -> list[Row]:
    """`put --ack local` against a straight loop."""
    row = Row("put_local", f"`put --ack local` of {BULK_MIB} MiB, share of the straight loop's rate", "", "0.6", "0.9")
    rate = Row("put_local_rate", "the same, rate", "MB/s", "", "")
    bound = Row("put_local_bound", "bound: read, hash, seal, hash, durable store in one loop", "MB/s", "", "")
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        for run in range(RUNS):
            source = random_file(Path(folder) / "bulk", BULK_MIB * MIB, run)
            with load_of([]) as bound_load:
                limit = _ingest_bound(source)
            bound.add(limit, bound_load)
            # A new store each time, as the bound has: one that fills pages of erased records again is up to twice as fast.
            with TestNet(1) as net:
                settle()
                with load_of(net.pids) as load:
                    _, took = put_timed(net.nodes[0], source, ack="local")
            reached = rate_mb_s(BULK_MIB * MIB, took)
            rate.add(reached, load)
            row.add(reached / limit, load)
    return [row, rate, bound]


def bulk() -> list[Row]:
    """Replication to one holder and cold `get` from three, each against one bare stream of the stock library."""
    size = BULK_MIB * MIB
    bare = Row("bare_stream", "bound: one bare stream of stock libp2p, hashed, written, fsync", "MB/s", "", "")
    copy = Row("replicate", f"replication of {BULK_MIB} MiB to one holder, durable, share of a bare stream", "", "0.7", "0.95")
    copy_rate = Row("replicate_rate", "the same, rate (read, seal and store at the sender included)", "MB/s", "", "")
    cold = Row("get_cold", f"cold `get` of {BULK_MIB} MiB from three holders, share of a bare stream", "", "0.7", "0.95")
    cold_rate = Row("get_cold_rate", "the same, rate", "MB/s", "", "")
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        source = random_file(Path(folder) / "bulk", size, 1)
        streams: list[float] = []
        for _ in range(RUNS):
            with load_of([]) as load:
                streams.append(_stream_bound(source))
            bare.add(streams[-1], load)
            with TestNet(2) as net:
                settle()
                with load_of(net.pids) as load:
                    _, took = put_timed(net.nodes[0], source, ack="quorum", replicas=2)
                copy_rate.add(rate_mb_s(size, took), load)
                copy.add(rate_mb_s(size, took) / streams[-1], load)
        _cold(source, streams, cold, cold_rate)
    return [copy, copy_rate, cold, cold_rate, bare]


def _cold(source: Path, streams: Sequence[float], cold: Row, cold_rate: Row) -> None:
    size = source.stat().st_size
    with TestNet(4) as net:
        owner, reader = net.nodes[0], net.nodes[3]
        reader_id = member_of(reader)
        keep_off(net, reader)
        data, _ = put_timed(owner, source, ack="full", replicas=3)
        record = str(data["record"])
        owner.call("share", record=record, to=reader_id)
        wait_shared(reader, record)
        for run in range(RUNS):
            output = source.with_name(f"out{run}")
            settle()
            with load_of(net.pids) as load:
                began = time.perf_counter()
                got = reader.call("get", record=record, output=str(output))
                took = time.perf_counter() - began
            assert output.stat().st_size == size
            output.unlink()
            cold_rate.add(rate_mb_s(size, took), load, sources=len(got["sources"]))  # type: ignore[arg-type]
            cold.add(rate_mb_s(size, took) / statistics.median(streams), load)


# --- many records ---------------------------------------------------------------------------------------------------


def _document_bytes(index: int) -> int:
    """4 to 64 KiB, every size as often as the others."""
    return 4096 + (index * 7919) % 61441


def _many(net: TestNet, files: Sequence[Path], ack: str = "quorum") -> tuple[list[Called], float, Load]:
    settle()
    calls = [{"paths": [str(path)], "ack": ack} for path in files]
    with load_of(net.pids) as load:
        began = time.perf_counter()
        called = call_at_once(net.nodes[0].home, "put", calls)
        took = time.perf_counter() - began
    return called, took, load


def _in_one_call(net: TestNet, files: Sequence[Path]) -> tuple[list[float], float, Load]:
    """`put --each` of all: seconds until each record was told of, until the answer, and the load."""
    settle()
    waits: list[float] = []
    with load_of(net.pids) as load:
        began = time.perf_counter()

        def hear(facts: Mapping[str, object]) -> None:
            if "record" in facts:
                waits.append(time.perf_counter() - began)

        call(net.nodes[0].home, "put", {"paths": [str(path) for path in files], "ack": "quorum", "each": True}, hear)
        took = time.perf_counter() - began
    if len(waits) != len(files):
        raise RuntimeError(f"{len(waits)} of {len(files)} records were told of")
    return waits, took, load


def small() -> list[Row]:
    """300 records of 10 KiB at once, all acknowledged at quorum; then 1,000 (P8)."""
    row = Row("many_small", "300 records of 10 KiB at once, `--ack quorum`, all acknowledged", "s", "1.0", "0.3")
    each = Row("many_small_each", "the same in one call (`put --each`)", "s", "", "")
    thousand = Row("p8_thousand", "P8: 1,000 records of 10 KiB at once, all acknowledged", "s", "all succeed", "latency linear")
    with TestNet(3) as net, tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        _many(net, documents(Path(folder) / "warm", 20, 99, lambda _: 10240))
        for run in range(RUNS):
            _, took, load = _many(net, documents(Path(folder) / f"s{run}", 300, run, lambda _: 10240))
            row.add(took, load, records_before=20 + run * 600)
            _, took, load = _in_one_call(net, documents(Path(folder) / f"e{run}", 300, 500 + run, lambda _: 10240))
            each.add(took, load, records_before=320 + run * 600)
        for run in range(2):
            called, took, load = _many(net, documents(Path(folder) / f"t{run}", 1000, 50 + run, lambda _: 10240))
            thousand.add(took, load, answered=len(called), mean_ms=round(statistics.mean(c.ended - c.began for c in called) * 1000, 1))
    return [row, each, thousand]


def curve() -> list[Row]:
    """P3: mean ack of n documents at the same instant."""
    row = Row("p3_180", "P3: mean ack of 180 documents of 4–64 KiB at once, `quorum`", "ms", "200", "50")
    p95 = Row("p3_180_p95", "the same, 95th percentile", "ms", "", "")
    each = Row("p3_180_each", "P3: the same 180 documents in one call (`put --each`), mean until each is told of", "ms", "", "")
    slope = Row("p3_slope", "slope of the mean after 180, of that before", "×", "1.5", "1.5 to 1,000")
    points: dict[int, list[float]] = {count: [] for count in CURVE}
    with TestNet(3) as net, tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        _many(net, documents(Path(folder) / "warm", 20, 98, _document_bytes))
        for run in range(RUNS):
            for count in CURVE:
                files = documents(Path(folder) / f"c{run}-{count}", count, 1000 + run * 1000 + count, _document_bytes)
                rest()  # a burst, not the load of many: what follows the one before would be a quarter of the work
                called, _, load = _many(net, files)
                waits = sorted((one.ended - one.began) * 1000 for one in called)
                points[count].append(statistics.mean(waits))
                if count == 180:
                    row.add(statistics.mean(waits), load)
                    p95.add(waits[int(len(waits) * 0.95)], load)
                    files = documents(Path(folder) / f"e{run}", count, 500_000 + run, _document_bytes)
                    rest()
                    told, _, load = _in_one_call(net, files)
                    each.add(statistics.mean(told) * 1000, load)
    medians = {count: statistics.median(values) for count, values in points.items()}
    before = (medians[180] - medians[20]) / 160
    after = (medians[300] - medians[180]) / 120
    slope.add(after / before, None, before_ms=round(before, 3), after_ms=round(after, 3))
    row.notes.append(json.dumps({"medians_ms": {str(count): round(value, 1) for count, value in medians.items()}}))
    row.notes.append(json.dumps({"points_ms": {str(count): [round(v, 1) for v in values] for count, values in points.items()}}))
    from .plots import plot_curve

    plot_curve(points, before, after)
    return [row, p95, each, slope]


def single() -> list[Row]:
    """P2a, P2b and P7: one record at a time."""
    put = Row("p2a_put", "P2a: ack of one file of 1–5 MB, mean over the range", "ms", "50", "25")
    put5 = Row("p2a_put_5mb", "P2a: the same at 5 MB, 95th percentile", "ms", "70", "50")
    warm = Row("p2b_warm", "P2b: `get` of 5 MB, chunks local, 95th percentile", "ms", "50", "25")
    cold = Row("p2b_cold", "P2b: `get` of 5 MB, chunks on others only, 95th percentile", "ms", "400", "100")
    parts = Row("p7_parts", "P7: ack of one record with 100 parts, of that of one file of equal bytes", "×", "2", "1.2")
    with TestNet(4) as net, tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        owner, reader = net.nodes[0], net.nodes[3]
        reader_id = member_of(reader)
        keep_off(net, reader)
        records: list[str] = []
        fives: list[float] = []
        for run in range(max(RUNS, 8)):
            waits: list[float] = []
            for number, megabytes in enumerate((1, 2, 3, 4, 5, 5, 5)):  # more of those whose tail is looked at
                source = random_file(Path(folder) / f"p{run}-{number}", megabytes * 1_000_000, 7000 + run * 10 + number)
                settle()
                with load_of(net.pids) as load:
                    data, took = put_timed(owner, source, ack="quorum")
                waits.append(took * 1000)
                if megabytes == 5:
                    fives.append(took * 1000)
                    records.append(str(data["record"]))
            put.add(statistics.mean(waits[:5]), load, each_ms=[round(wait, 1) for wait in waits])
        put5.add(_p95(fives))
        for record in records:
            owner.call("share", record=record, to=reader_id)
            wait_shared(reader, record)
        for node, row in ((owner, warm), (reader, cold)):
            waits = []
            for number, record in enumerate(records * 2):
                began = time.perf_counter()
                node.call("get", record=record, output=str(Path(folder) / f"{node.name}-{number}"))
                waits.append((time.perf_counter() - began) * 1000)
            row.add(_p95(waits), None, median_ms=round(statistics.median(waits), 1))
        for run in range(RUNS):
            whole = random_file(Path(folder) / f"whole{run}", 100 * 20_000, 8000 + run)
            documents(Path(folder) / f"parts{run}", 100, 900 + run, lambda _: 20_000)
            _, one = put_timed(owner, whole, ack="quorum")
            _, many = put_timed(owner, Path(folder) / f"parts{run}", ack="quorum")
            parts.add(many / one, None, parts_ms=round(many * 1000, 1), one_ms=round(one * 1000, 1))
    return [put, put5, warm, cold, parts]


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


# --- memory and the loop --------------------------------------------------------------------------------------------


def memory() -> list[Row]:
    """Peak RssAnon + RssShmem: idle, and while bulk moves either way; the longest hold of the loop meanwhile."""
    idle = Row("memory_idle", "memory, idle (RssAnon + RssShmem)", "MiB", "140", "100")
    moving = Row("memory_moving", f"memory, highest of all nodes while moving {MEMORY_MIB} MiB either way", "MiB", "220", "160")
    held = Row("loop_held", "event loop held by one step, longest, while moving bulk and 300 records", "ms", "50", "20")
    held_cpu = Row("loop_held_processor", "the same, time on a processor", "ms", "", "")
    size = MEMORY_MIB * MIB
    with TestNet(4, probe=True) as net, tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        time.sleep(2)
        pids = {node.name: node.pid for node in net.nodes}
        with memory_of(pids) as peaks:
            time.sleep(3)
        for name, peak in peaks.items():
            idle.add(peak.own_mib, None, node=name, file_mib=round(peak.file_mib))
        owner, reader = net.nodes[0], net.nodes[3]
        reader_id = member_of(reader)
        keep_off(net, reader)
        pids = {node.name: node.pid for node in net.nodes}
        source = random_file(Path(folder) / "bulk", size, 5)
        since = time.time()

        def note(what: str, peaks: Mapping[str, object], load: Load) -> None:
            for name, peak in peaks.items():
                moving.add(peak.own_mib, load, node=name, doing=what, file_mib=round(peak.file_mib))  # type: ignore[attr-defined]

        with memory_of(pids) as peaks, load_of(net.pids) as load:
            data, _ = put_timed(owner, source, ack="quorum")
        note("put", peaks, load)
        owner.call("share", record=str(data["record"]), to=reader_id)
        wait_shared(reader, str(data["record"]))
        with memory_of(pids) as peaks, load_of(net.pids) as load:
            reader.call("get", record=str(data["record"]), output=str(Path(folder) / "out"))
        note("get", peaks, load)
        _many(net, documents(Path(folder) / "many", 300, 77, lambda _: 10240))
        for node in net.nodes:
            rows = node.held(since)
            if rows:
                worst = rows[0]
                held.add(float(worst["held_ms"]), load, node=node.name, **{k: v for k, v in worst.items() if k not in ("at", "held_ms")})
                cpu = max(rows, key=lambda row: float(row["processor_ms"]))
                held_cpu.add(float(cpu["processor_ms"]), load, node=node.name, task=cpu["task"], waits_in=cpu["waits_in"])
            held.notes.append(f"{node.name}: " + json.dumps([{k: v for k, v in row.items() if k != "at"} for row in rows[:8]]))
    moving.notes.append("value of the row: the highest, not the median")
    held.notes.append("value of the row: the highest, not the median")
    return [idle, moving, held, held_cpu]


# --- losses ---------------------------------------------------------------------------------------------------------


def loss() -> list[Row]:
    """kill -9 of a holder: when the others notice, and when every sequence has its copies again."""
    noticed = Row("loss_noticed", "a killed holder noticed", "s", "1", "0.2")
    repaired = Row(
        "loss_repaired", f"full copies of {REPAIR_MIB} MiB again after the grace time ({GRACE_S:.0f} s)", "s", "120 for 1 GiB", "30"
    )
    repaired_rate = Row("loss_repaired_rate", "the same, rate", "MB/s", "", "")
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        source = random_file(Path(folder) / "bulk", REPAIR_MIB * MIB, 3)
        for _ in range(min(RUNS, 3)):
            with TestNet(4, {"LADING_REPAIR_GRACE_S": str(GRACE_S), "LADING_COPIES_ALL": "false"}) as net:
                owner = net.nodes[0]
                data, _ = put_timed(owner, source, ack="full", replicas=3)
                record = str(data["record"])
                status = owner.call("file.status", record=record)
                holder = next(r for r in status["holders"] if not str(r["name"]).endswith("/n1"))  # type: ignore[attr-defined]
                victim = next(node for node in net.nodes if str(holder["name"]).endswith("/" + node.name))
                lost = int(holder["have"])
                settle()
                at: dict[str, float] = {}
                watcher = threading.Thread(target=_watch_loss, args=(owner, str(holder["node"]), at))
                watcher.start()
                with load_of(net.pids) as load:
                    killed = time.perf_counter()
                    victim.kill()
                    watcher.join(20)
                    noticed.add(at["noticed"] - killed)
                    deadline = killed + 240
                    time.sleep(GRACE_S)
                    while True:
                        status = owner.call("file.status", record=record)
                        if _copies_full(status):
                            break
                        if time.perf_counter() > deadline:
                            repaired.notes.append("given up after 240 s: " + json.dumps(status)[:400])
                            break
                        time.sleep(0.05)
                took = time.perf_counter() - killed - GRACE_S
                repaired.add(took, load, sequences_lost=lost)
                repaired_rate.add(rate_mb_s(lost * 4 * MIB, took), load)
    return [noticed, repaired, repaired_rate]


def _watch_loss(watching: RunningNode, peer: str, at: dict[str, float]) -> None:
    """Notes when ``peer`` is no longer connected, for at most 20 s."""
    deadline = time.perf_counter() + 20
    while time.perf_counter() < deadline:
        rows = watching.call("peers")["peers"]
        if not next(row for row in rows if row["peer_id"] == peer)["connected"]:  # type: ignore[attr-defined]
            at["noticed"] = time.perf_counter()
            return
        time.sleep(0.005)


def _copies_full(status: Mapping[str, object]) -> bool:
    want = int(status["want"])  # type: ignore[call-overload]
    rows = status["sequence_list"]
    full = [row for row in rows if int(row["have"]) >= want]  # type: ignore[attr-defined]
    return len(full) >= int(status["sequences"])  # type: ignore[call-overload,no-any-return]


def wires() -> list[Row]:
    """Long, lossy and narrow lines, beside a plain socket."""
    from .plots import plot_wires

    rows = wire_rows(min(RUNS, 3))
    plot_wires({row.name: row.values for row in rows})
    return rows


def lane() -> list[Row]:
    """Session and muxer alone, against the stock library's."""
    from .plots import plot_lane

    rows = lane_rows(RUNS, BULK_MIB)
    plot_lane({row.name: row.values for row in rows})
    return rows


def chain() -> list[Row]:
    """The ledger: durable anchors, replay, search, proofs, batches."""
    return chain_rows(RUNS)


def anchors() -> list[Row]:
    """P5, P6, P22: the ledger through five nodes."""
    from .plots import plot_anchors

    rows, steps = ledger_net.anchors(RUNS)
    plot_anchors([(step.offered, step.rate, step.block_ms, step.final_ms) for step in steps])
    return rows


def burst() -> list[Row]:
    """A burst of transactions from one of ten nodes."""
    return ledger_net.burst(RUNS)


def light() -> list[Row]:
    """P20: a light node's disk."""
    from .plots import plot_light

    rows = light_rows()
    plot_light(json.loads(rows[0].notes[0])["records_full_light_bytes"])
    return rows


def peers() -> list[Row]:
    """The same files through Lading and through Syncthing."""
    from .peers import peer_rows
    from .plots import plot_peers

    rows = peer_rows(RUNS, bulk_mib=BULK_MIB, count=SMALL_COUNT)
    plot_peers({row.name: row.values for row in rows}, bulk_mib=BULK_MIB, count=SMALL_COUNT)
    return rows


ROWS: Mapping[str, Callable[[], list[Row]]] = {
    "ingest": ingest,
    "bulk": bulk,
    "small": small,
    "curve": curve,
    "single": single,
    "memory": memory,
    "loss": loss,
    "chain": chain,
    "anchors": anchors,
    "late": ledger_net.late_node,
    "race": ledger_net.race,
    "ledger_memory": ledger_net.chain_memory,
    "burst": burst,
    "gossip": ledger_net.gossip,
    "gossipsub_5": partial(gossipsub_rows, 5),
    "gossipsub_10": partial(gossipsub_rows, 10),
    "light": light,
    "lane": lane,
    "wires": wires,
    "peers": peers,
}
