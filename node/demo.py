"""`lading demo`: five nodes A-E in five processes lose hosts and no byte (NET-03). A is the platform's control point, B the merchant,
C a delegate near the merchant, D and E the platform's servers; each is its own member.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from protocols.errors import LadingError, Reason

from .home import make_testnet
from .http.client import call

NAMES = ("a-platform", "b-merchant", "c-delegate", "d-server", "e-server")
ROLES = (
    "the platform's computer and control point",
    "the merchant's own computer: owns the record",
    "a delegate near the merchant: keeps a backup copy",
    "a virtual server of the platform",
    "a virtual server of the platform",
)
COPIES = 3
READY_TIMEOUT_S = 40.0
REPAIR_TIMEOUT_S = 60.0
LEDGER_TIMEOUT_S = 90.0
GRACE_S = 2.0
STOP_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 120.0
WATCH_INTERVAL_S = 0.1

Say = Callable[[str], None]


@dataclass
class _Host:
    """One of the five processes."""

    letter: str
    name: str
    role: str
    home: Path
    process: subprocess.Popen[bytes] | None = None
    peer_id: str = ""
    member: str = ""

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class _Measured:
    """Rows of the closing table: what, how long, remark."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def add(self, what: str, seconds: float, remark: str = "") -> None:
        self.rows.append((what, seconds, remark))


def run_demo(paths: Sequence[Path], *, say: Say, keep: bool = False) -> dict[str, object]:
    """Plays the story with the given files (default: the trade folder of examples/data) and returns what was measured.

    say: takes one line for people. keep: leave the homes behind. Raises LadingError when any step does not hold.
    """
    sources = tuple(paths) or (default_source(),)
    directory = Path(tempfile.mkdtemp(prefix="lading-demo-"))
    try:
        return _Demo(directory, sources, say).play()
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def default_source() -> Path:
    """The trade folder that comes with the project."""
    folder = Path(__file__).resolve().parent.parent / "examples" / "data" / "trade"
    if not folder.is_dir():
        raise LadingError(Reason.NOT_FOUND, f"{folder}: the example files are not here", hint="lading demo FOLDER")
    return folder


class _Demo:
    def __init__(self, directory: Path, sources: Sequence[Path], say: Say) -> None:
        self.directory = directory
        self.sources = sources
        self.say = say
        self.measured = _Measured()
        self.hosts = [_Host(letter, name, role, directory / letter) for letter, name, role in zip("ABCDE", NAMES, ROLES, strict=True)]
        self.record = ""
        self.held: dict[str, int] = {}

    def play(self) -> dict[str, object]:
        try:
            self._set_up()
            self._publish()
            reader = self.hosts[2]
            self._wait_said(self._say_on_chain(self.hosts[0], "all five"), "final", self.hosts)
            first = self._two_victims(reader)
            self._kill(first)
            waiting = self._say_on_chain(reader, "three of five")
            self._wait_said(waiting, "in_block", [host for host in self.hosts if host.is_up])
            self._read(reader, "after two losses")
            self._wait_repaired(3)
            second = [host for host in self.hosts if host.is_up and host is not reader][:2]
            self._kill(second)
            self._read(reader, "after four losses, one node left")
            self._restart([*first, *second])
            self._wait_said(waiting, "final", self.hosts)
            self._wait_repaired(COPIES)
            self._table()
            return {
                "record": self.record,
                "measured": [
                    {"what": what, "seconds": round(seconds, 3), "remark": remark} for what, seconds, remark in self.measured.rows
                ],
            }
        finally:
            self._end_all()

    # --- scenes -----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self.say("Five computers of five members, one trust domain. No server, no cloud.\n")
        began = time.monotonic()
        make_testnet(len(self.hosts), self.directory, names=NAMES, folders="ABCDE")
        self.measured.add("keys, certificates, tickets for five members", time.monotonic() - began)
        began = time.monotonic()
        self._start(self.hosts)
        self.measured.add("five nodes started and meshed", time.monotonic() - began, "each with 4 proven peers")
        for host in self.hosts:
            self.say(f"  {host.letter}  {host.name:<12} {host.role}")
        self.say("")

    def _publish(self) -> None:
        owner = self.hosts[1]
        names = ", ".join(path.name for path in self.sources)
        self.say(f"B publishes {names}: sealed, split into sequences, {COPIES} copies asked for, signed receipts awaited …")
        began = time.monotonic()
        data = self._call(owner, "put", {"paths": [str(path.resolve()) for path in self.sources], "replicas": COPIES, "ack": "full"})
        took = time.monotonic() - began
        self.record = str(data["record"])
        self.measured.add("put, all copies acknowledged", took, f"{_size(cast(int, data['bytes']))} in {data['entries']} entries")
        self.say(f"  record {self.record[:16]}…  {data['sequences']} sequences, {data['chunks']} chunks")
        for holder in cast(Sequence[Mapping[str, object]], data["holders"]):
            self.held[str(holder["node"])] = cast(int, holder["sequences"])
            name, receipt = self._letter(str(holder["node"])), str(holder["receipt"])[:16]
            self.say(f"    held by {name:<16} {holder['sequences']} sequences   receipt {receipt}…")
        self.say(f"  survives the loss of any {data['survives']} holders\n")
        for host in self.hosts[2:3]:
            self._call(owner, "share", {"record": self.record, "to": host.member})
            self.say(f"B shares the record with {host.letter} (an owner-signed wrap; nobody else can open it)\n")

    def _say_on_chain(self, host: _Host, who: str) -> str:
        """A transaction: the host's member recommends the next one as a miner. Result: its id."""
        other = self.hosts[(self.hosts.index(host) + 1) % len(self.hosts)]
        transaction = str(self._call(host, "miner.nominate", {"member": other.member})["transaction"])
        self.say(f"The ledger, with {who} up: {host.letter} recommends {other.letter} as a miner. Transaction {transaction[:16]}…")
        return transaction

    def _wait_said(self, transaction: str, wanted: str, hosts: Sequence[_Host]) -> None:
        """Until these nodes say of a transaction that it is in a block, which is all that they can say without a quorum, or final."""
        began = time.monotonic()
        for host in hosts:
            while self._said(host, transaction) != wanted:
                self._breathe(began, LEDGER_TIMEOUT_S, f"a transaction to be {wanted} at {host.letter}")
        chain = cast(Sequence[Mapping[str, object]], self._call(hosts[0], "ledger.status", {})["chains"])[0]
        height, final = chain["height"], chain["finalized_height"]
        words = {"final": "final at all five", "in_block": "in a block, and not final: two members are missing"}
        self.measured.add(f"a transaction {words[wanted].split(',')[0]}", time.monotonic() - began, f"height {height}, final up to {final}")
        self.say(f"  {words[wanted]}; the chain's height is {height}, final up to {final}\n")

    def _said(self, host: _Host, transaction: str) -> str:
        try:
            return str(self._call(host, "ledger.show", {"what": transaction})["state"])
        except LadingError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return ""

    def _two_victims(self, reader: _Host) -> list[_Host]:
        """Two that hold everything, the owner first where he does: nothing may depend on him."""
        others = [host for host in self.hosts if host is not reader]
        others.sort(key=lambda host: (-self.held.get(host.peer_id, 0), host is not self.hosts[1]))
        return others[:2]

    def _kill(self, victims: Sequence[_Host]) -> None:
        self.say(f"kill -9 {' and '.join(host.letter for host in victims)}. No warning, no goodbye.")
        watcher = next(host for host in self.hosts if host.is_up and host not in victims)
        began = time.monotonic()
        for host in victims:
            assert host.process is not None
            host.process.kill()
        for host in victims:
            assert host.process is not None
            host.process.wait()
        gone = {host.peer_id for host in victims}
        while True:
            peers = cast(Sequence[Mapping[str, object]], (self._call(watcher, "peers", {}))["peers"])
            if not any(peer["peer_id"] in gone and peer["connected"] for peer in peers):
                break
            self._breathe(began, REPAIR_TIMEOUT_S, "the loss to be noticed")
        self.measured.add(f"loss of {' and '.join(host.letter for host in victims)} noticed", time.monotonic() - began)

    def _read(self, reader: _Host, when: str) -> None:
        target = self.directory / f"read-{len(self.measured.rows)}"
        began = time.monotonic()
        data = self._call(reader, "get", {"record": self.record, "output": str(target)})
        took = time.monotonic() - began
        compared = compare(self.sources, target)
        self.measured.add(f"get on {reader.letter} {when}", took, f"{_size(cast(int, data['bytes']))}, {compared} files bit-exact")
        self.say(f"  {reader.letter} reads everything back {when}: {compared} files, every byte the same\n")

    def _wait_repaired(self, copies: int) -> None:
        alive = [host for host in self.hosts if host.is_up]
        wanted = min(copies, len(alive))
        self.say(f"  waiting for repair: {wanted} verified copies of every sequence on {', '.join(host.letter for host in alive)} …")
        began = time.monotonic()
        while True:
            data = self._call(alive[0], "file.status", {"record": self.record})
            if cast(int, data["copies_reachable"]) >= wanted:
                break
            self._breathe(began, REPAIR_TIMEOUT_S, f"{wanted} copies (now {data['copies_reachable']})")
        took = time.monotonic() - began
        self.measured.add(f"repaired to {wanted} copies", took, f"after a grace time of {GRACE_S:.0f} s")
        self.say(f"  whole again: survives the loss of any {wanted - 1}\n")

    def _restart(self, hosts: Sequence[_Host]) -> None:
        self.say(f"The dead come back: {', '.join(host.letter for host in hosts)}.")
        began = time.monotonic()
        self._start(hosts)
        self.measured.add("dead nodes restarted and meshed", time.monotonic() - began)

    def _table(self) -> None:
        self.say("\nMeasured on this machine:")
        width = max(len(what) for what, _, _ in self.measured.rows)
        for what, seconds, remark in self.measured.rows:
            self.say(f"  {what:<{width}}  {seconds:8.2f} s  {remark}")

    # --- means ------------------------------------------------------------------------------------------------------

    def _start(self, hosts: Sequence[_Host]) -> None:
        environment = {**os.environ, "LADING_REPAIR_GRACE_S": str(int(GRACE_S))}
        for host in hosts:
            with (host.home / "demo.log").open("ab") as log:
                host.process = subprocess.Popen(
                    [sys.executable, "-m", "node", "--home", str(host.home), "start"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        began = time.monotonic()
        up = [host for host in self.hosts if host.is_up]
        for host in up:
            while True:
                if not host.is_up:
                    tail = (host.home / "demo.log").read_text(errors="replace")[-2000:]
                    raise LadingError(Reason.FAILED, f"node {host.letter} did not start:\n{tail}")
                try:
                    data = self._call(host, "status", {})
                except LadingError as error:
                    if error.reason not in (Reason.NOT_RUNNING, Reason.NOT_INITIALISED):
                        raise
                else:
                    host.peer_id, host.member = str(data["peer_id"]), str(data["member"])
                    if sum(bool(peer["connected"]) for peer in cast(Sequence[Mapping[str, object]], data["peers"])) >= len(up) - 1:
                        break
                self._breathe(began, READY_TIMEOUT_S, f"{host.letter} to be ready")

    def _call(self, host: _Host, operation: str, args: Mapping[str, object]) -> Mapping[str, object]:
        return call(host.home, operation, args, timeout_s=CALL_TIMEOUT_S).data

    def _breathe(self, began: float, patience_s: float, what: str) -> None:
        """Polls through the public API, as a person at a terminal would: the demo has no other way to see a foreign process."""
        if time.monotonic() - began > patience_s:
            raise LadingError(Reason.TIMEOUT, f"waited {patience_s:.0f} s for {what}")
        time.sleep(WATCH_INTERVAL_S)

    def _letter(self, peer_id: str) -> str:
        return next((f"{host.letter} ({host.name})" for host in self.hosts if host.peer_id == peer_id), peer_id[:12])

    def _end_all(self) -> None:
        for host in self.hosts:
            if host.is_up:
                assert host.process is not None
                host.process.send_signal(signal.SIGTERM)
        for host in self.hosts:
            if host.process is not None:
                try:
                    host.process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    host.process.kill()


def compare(sources: Sequence[Path], target: Path) -> int:
    """Number of files that are the same, byte for byte, under ``sources`` and in what was read back. Raises INTEGRITY if any is not."""
    count = 0
    alone = len(sources) == 1
    for source in sources:
        if source.is_file():
            pairs = [(source, target if alone and target.is_file() else target / source.name)]
        else:
            base = target if alone else target / source.name
            pairs = [
                (path, base / path.relative_to(source)) for path in sorted(source.rglob("*")) if path.is_file() and not path.is_symlink()
            ]
        for left, right in pairs:
            if not right.is_file() or _sha256(left) != _sha256(right):
                raise LadingError(Reason.INTEGRITY, f"{right} is not the same as {left}")
            count += 1
    return count


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
