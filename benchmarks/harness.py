"""Real node processes on this machine, one API client, and samples that say under what load they were taken."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h11
import trio

from node.http.client import SOCKET_NAME, call
from node.http.contract import API_VERSION, Answer
from node.http.framing import AnswerReader, Finished
from node.http.sockets import socket_address
from protocols.codec import to_json
from protocols.errors import LadingError

MIB = 1024 * 1024
RESULTS = Path(__file__).parent / "results"
LADING = (sys.executable, "-m", "node")
READY_PATIENCE_S = 40.0
SAMPLE_S = 0.01
REST_S = 2.0
QUIET_S = 1.0
QUIET_SHARE = 0.04
QUIET_PATIENCE_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def _commit() -> str:
    """What git calls the checkout; empty where there is no git, no repository, or one that git does not trust."""
    if shutil.which("git") is None:
        return ""
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()


# Asked at the start: a checkout may move on while the rows are measured.
COMMIT = _commit()


class Skipped(Exception):
    """A row that cannot be measured here; says why, and what to do."""


# --- the machine ----------------------------------------------------------------------------------------------------


def machine_facts() -> dict[str, object]:
    """What the figures were taken on."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / MIB, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("libp2p", "trio", "lmdb", "cryptography", "msgspec", "h11")},
        "commit": COMMIT,
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _machine_busy_s() -> float:
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = (int(x) for x in Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + soft + steal) / TICKS


def processor_s(pid: int) -> float:
    """User and system time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS


@dataclass
class Load:
    """What else ran meanwhile. others_cores: processors used by processes that are not of this measurement."""

    others_cores: float = 0.0
    processor_s: float = 0.0


@contextlib.contextmanager
def load_of(pids: Sequence[int]) -> Iterator[Load]:
    """Measures the load around a stretch; our own processes are this one and ``pids``."""
    load = Load()
    ours = [os.getpid(), *pids]

    def mine() -> float:
        total = 0.0
        for pid in ours:
            with contextlib.suppress(FileNotFoundError):
                total += processor_s(pid)
        children = os.times()
        return total + children.children_user + children.children_system

    began, busy, own = time.perf_counter(), _machine_busy_s(), mine()
    yield load
    took = max(1e-3, time.perf_counter() - began)
    load.processor_s = mine() - own
    load.others_cores = round(max(0.0, (_machine_busy_s() - busy - load.processor_s) / took), 2)


@dataclass
class Memory:
    """Peaks in MiB of one process. own: RssAnon + RssShmem; file: RssFile (LMDB's map, libraries) at its own peak."""

    own_mib: float = 0.0
    file_mib: float = 0.0


def memory_now(pid: int) -> Memory:
    """Of the process now."""
    values = {"RssAnon": 0, "RssShmem": 0, "RssFile": 0}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = int(rest.split()[0])
    return Memory((values["RssAnon"] + values["RssShmem"]) / 1024, values["RssFile"] / 1024)


@contextlib.contextmanager
def memory_of(pids: Mapping[str, int]) -> Iterator[dict[str, Memory]]:
    """Peaks of processes by name, sampled every 10 ms from a thread."""
    peaks = {name: Memory() for name in pids}
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_S):
            for name, pid in pids.items():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    now = memory_now(pid)
                    peaks[name].own_mib = max(peaks[name].own_mib, now.own_mib)
                    peaks[name].file_mib = max(peaks[name].file_mib, now.file_mib)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


# --- nodes ----------------------------------------------------------------------------------------------------------


@dataclass
class RunningNode:
    """One process."""

    name: str
    home: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def probe(self) -> Path:
        return self.home / "logs" / "loop.probe"

    def call(self, operation: str, **args: object) -> Mapping[str, object]:
        """One call over the Unix socket."""
        return call(self.home, operation, args).data

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def held(self, since: float = 0.0) -> list[dict[str, Any]]:
        """Steps that held the event loop since then, the longest first."""
        if not self.probe.exists():
            return []
        rows = [json.loads(line) for line in self.probe.read_text().splitlines() if line.endswith("}")]
        return sorted((row for row in rows if row["at"] >= since), key=lambda row: -float(row["held_ms"]))


@dataclass
class TestNet:
    """Nodes of one new domain in a temporary folder; all connected when ``start`` returns. options: of `lading testnet`.
    start_only: how many of them are started; all by default."""

    count: int
    environment: Mapping[str, str] = field(default_factory=dict)
    probe: bool = False
    options: Sequence[str] = ()
    start_only: int | None = None
    directory: Path = field(init=False)
    nodes: list[RunningNode] = field(init=False, default_factory=list)

    def __enter__(self) -> TestNet:
        self.directory = Path(tempfile.mkdtemp(prefix="lading-bench-"))
        words = [*LADING, "testnet", str(self.count), str(self.homes), *self.options, "--json"]
        subprocess.run(words, check=True, capture_output=True)
        for number in range(self.count if self.start_only is None else self.start_only):
            self.nodes.append(self.start(f"n{number + 1}"))
        self.wait_connected()
        return self

    @property
    def homes(self) -> Path:
        """Folder of the homes."""
        return self.directory / "net"

    def start(self, name: str, **environment: str) -> RunningNode:
        """The process of one home, ready for calls."""
        home = self.homes / name
        env = {**os.environ, **self.environment, **environment}
        if self.probe:
            env["LADING_LOOP_PROBE"] = str(home / "logs" / "loop.probe")
        (home / "logs").mkdir(exist_ok=True)
        with (home / "logs" / "bench.err").open("ab") as errors:
            process = subprocess.Popen([*LADING, "--home", str(home), "start", "--json"], stdout=subprocess.PIPE, stderr=errors, env=env)
        assert process.stdout is not None
        line = process.stdout.readline()
        if b"ready" not in line:
            raise RuntimeError(f"{name} did not start: {(home / 'logs' / 'bench.err').read_text()[-2000:]}")
        return RunningNode(name, home, process)

    def wait_connected(self, count: int | None = None) -> None:
        """Until every node sees ``count`` others connected (all of them by default)."""
        wanted = len(self.nodes) - 1 if count is None else count
        deadline = time.monotonic() + READY_PATIENCE_S
        for node in self.nodes:
            if node.process.poll() is not None:
                continue
            while sum(bool(row["connected"]) for row in node.call("peers")["peers"]) < wanted:  # type: ignore[attr-defined]
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{node.name} sees too few others")
                time.sleep(0.1)

    @property
    def pids(self) -> list[int]:
        return [node.pid for node in self.nodes]

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.terminate()
        for node in self.nodes:
            try:
                node.process.wait(10)
            except subprocess.TimeoutExpired:
                node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


# --- what rows ask of nodes -----------------------------------------------------------------------------------------


def put_timed(node: RunningNode, *paths: Path, **args: object) -> tuple[Mapping[str, object], float]:
    """One `put`: its answer and its seconds."""
    began = time.perf_counter()
    data = node.call("put", paths=[str(path) for path in paths], **args)
    return data, time.perf_counter() - began


def member_of(node: RunningNode) -> str:
    """The member whose node it is."""
    return str(node.call("status")["member"])


def keep_off(net: TestNet, node: RunningNode) -> None:
    """The reader holds nothing and says so: a reserve above its budget leaves no room, so every `get` there is cold."""
    node.process.terminate()
    node.process.wait(10)
    node.process = net.start(
        node.name,
        LADING_STORE_BUDGET_BYTES=str(100 * 1024 * MIB),
        LADING_STORE_BUDGET_SHARE="0.001",
        LADING_STORE_RESERVE_BYTES=str(99 * 1024 * MIB),
    ).process
    net.wait_connected()
    time.sleep(3.0)  # its announcement is made every two seconds and takes a moment to be everywhere


def wait_shared(node: RunningNode, record: str) -> None:
    """Until the node can open a record that was shared with its member. Raises RuntimeError after 30 s."""
    deadline = time.monotonic() + 30
    while not any(row["record"] == record for row in node.call("ls")["records"]):  # type: ignore[attr-defined]
        if time.monotonic() > deadline:
            raise RuntimeError("the wrap did not arrive")
        time.sleep(0.05)


def rate_mb_s(size: int, seconds: float) -> float:
    """MB/s, of 10^6 bytes."""
    return size / seconds / 1e6


# --- content --------------------------------------------------------------------------------------------------------


def random_file(path: Path, size: int, seed: int) -> Path:
    """Incompressible bytes that no other file shares a chunk with."""
    chance = random.Random(seed * 1_000_003 + size)
    with path.open("wb") as file:
        left = size
        while left:
            piece = chance.randbytes(min(left, 4 * MIB))
            file.write(piece)
            left -= len(piece)
    return path


def documents(folder: Path, count: int, seed: int, sizes: Callable[[int], int]) -> list[Path]:
    """``count`` random files in a new folder; sizes: bytes of the file with that index."""
    folder.mkdir()
    return [random_file(folder / f"{index:04}", sizes(index), seed * 10_000 + index) for index in range(count)]


def settle() -> None:
    """Earlier writes reach the disk now, not inside the next measurement."""
    os.sync()


def wait_quiet(pids: Sequence[int]) -> None:
    """Until these processes have done what came of earlier work: together under QUIET_SHARE of a core for QUIET_S. Raises RuntimeError."""
    deadline = time.monotonic() + QUIET_PATIENCE_S
    while True:
        before = sum(map(processor_s, pids))
        time.sleep(QUIET_S)
        if sum(map(processor_s, pids)) - before <= QUIET_SHARE * QUIET_S:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} still at work after {QUIET_PATIENCE_S:.0f} s; their logs say on what")


def rest() -> None:
    """Nodes have told one another of what came before, and have looked at it."""
    time.sleep(REST_S)
    settle()


def sync_file_system(place: Path) -> None:
    """syncfs(2): back when everything that was written to the file system of ``place`` is on the disk. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(place, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(place))
    finally:
        os.close(descriptor)


# --- many calls at once ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Called:
    """One finished call. began, ended: time.perf_counter()."""

    began: float
    ended: float
    result: Answer | LadingError


async def _one_call(
    path: Path, operation: str, args: Mapping[str, object], go: trio.Event, out: list[Called], ready: Callable[[], None]
) -> None:
    line = to_json(args) + b"\n"
    head = (
        f"POST /{API_VERSION}/{operation} HTTP/1.1\r\nHost: lading\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(line)}\r\n\r\n"
    ).encode()
    ready()
    await go.wait()
    began = time.perf_counter()
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        with socket_address(path) as address:
            await sock.connect(address)
        stream = trio.SocketStream(sock)
        await stream.send_all(head + line)
        received = bytearray()
        while data := await stream.receive_some(65536):
            received += data
    ended = time.perf_counter()
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="POST", target="/", headers=[("Host", "lading")]))
    http.send(h11.EndOfMessage())
    http.receive_data(bytes(received))
    http.receive_data(b"")
    reader = AnswerReader()
    while not isinstance(event := http.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            for piece in reader.feed(bytes(event.data)):
                if isinstance(piece, Finished):
                    out.append(Called(began, ended, piece.result))


def call_at_once(home: Path, operation: str, calls: Sequence[Mapping[str, object]]) -> list[Called]:
    """All calls from this one process, begun at the same instant. Raises the first LadingError that came back."""

    async def run() -> list[Called]:
        out: list[Called] = []
        go = trio.Event()
        waiting = 0

        def ready() -> None:
            nonlocal waiting
            waiting += 1
            if waiting == len(calls):
                go.set()

        async with trio.open_nursery() as nursery:
            for args in calls:
                nursery.start_soon(_one_call, home / SOCKET_NAME, operation, args, go, out, ready)
        return out

    out = trio.run(run)
    for one in out:
        if isinstance(one.result, LadingError):
            raise one.result
    if len(out) != len(calls):
        raise RuntimeError(f"{len(out)} of {len(calls)} calls were answered")
    return out


# --- samples --------------------------------------------------------------------------------------------------------

Sample = dict[str, object]


@dataclass
class Row:
    """One row of the table: raw samples and what they come to."""

    name: str
    what: str
    unit: str
    floor: str
    aim: str
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, value: float, load: Load | None = None, **more: object) -> None:
        sample: Sample = {"value": round(value, 4), **more}
        if load is not None:
            sample |= {"others_cores": load.others_cores, "processor_s": round(load.processor_s, 2)}
        self.samples.append(sample)
        print(f"  {self.name}: {json.dumps(sample)}", flush=True)

    @property
    def values(self) -> list[float]:
        return [float(sample["value"]) for sample in self.samples]  # type: ignore[arg-type]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def line(self) -> str:
        if not self.samples:
            return f"| {self.what} | not measured | {self.floor} | {self.aim} |"
        low, high = min(self.values), max(self.values)
        return f"| {self.what} | {self.median:.3g} {self.unit} [{low:.3g}–{high:.3g}, {len(self.samples)}] | {self.floor} | {self.aim} |"


def median_of(samples: Sequence[Sample], key: str) -> float:
    """Median of one field of the samples."""
    return statistics.median(float(sample[key]) for sample in samples)  # type: ignore[arg-type]


def save(rows: Sequence[Row], *, name: str) -> Path:
    """Everything measured, raw, with the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "machine": machine_facts(),
        "rows": [
            {"name": r.name, "what": r.what, "unit": r.unit, "floor": r.floor, "aim": r.aim, "median": r.median if r.samples else None}
            | {"samples": r.samples, "notes": r.notes}
            for r in rows
        ],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
