"""Homes, the processes that run on them, and how tests ask and wait: the API client, the command line, polls with a deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

from node.http.client import SOCKET_NAME, call
from protocols.codec import from_json
from protocols.errors import LadingError

from .forks import Process, forks

PROGRAM = (sys.executable, "-m", "node")
# Two cores may carry the whole test suite of several people; a node alone is ready in under two seconds.
READY_TIMEOUT_S = 40.0
CALL_TIMEOUT_S = 90.0
# SIGTERM: out within this time (the figure).
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05


class NotReady(AssertionError):
    """A node ended, or said nothing, instead of becoming ready. exit_code: None while it still runs."""

    def __init__(self, text: str, exit_code: int | None) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def wait_until(condition: Callable[[], object], what: str, *, timeout_s: float = 30.0, poll_s: float = POLL_S) -> Any:
    """The first true answer of ``condition``. A foreign process can only be polled; a missed deadline fails the test."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(poll_s)


@dataclass(frozen=True)
class Ran:
    """A command line that has ended. json: the object it printed, empty when there was none."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def json(self) -> Mapping[str, Any]:
        lines = self.stdout.splitlines()
        found = from_json(lines[-1]) if lines else {}
        assert isinstance(found, Mapping)
        return found

    @property
    def data(self) -> Mapping[str, Any]:
        assert self.code == 0, (self.code, self.stdout[-2000:], self.stderr[-2000:])
        found = self.json["data"]
        assert isinstance(found, Mapping)
        return found

    @property
    def error(self) -> str:
        """Stable name of the error that --json told."""
        assert self.code != 0, self.stdout[-2000:]
        return str(self.json["error"]["name"])


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a child: ours, and ``settings`` as LADING_ variables."""
    return {**os.environ, **{f"LADING_{key.upper()}": str(value) for key, value in settings.items()}}


@dataclass(eq=False)
class HomeNode:
    """One home and, while it runs, its process. settings: passed to every start as environment. program: what is started from nothing;
    empty: `lading`, forked where it is loaded already (`forks`)."""

    owner: Processes
    home: Path
    settings: dict[str, object] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    process: Process | None = None
    ready: Mapping[str, Any] = field(default_factory=dict)
    _identity: Mapping[str, Any] | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    def launch(self, *flags: str) -> None:
        """Starts the process; whether it becomes ready is another question."""
        assert not self.is_up, f"{self.home} runs already"
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with (self.home.parent / f"{self.home.name}.log").open("ab") as log:
            words = ["--home", str(self.home), "start", "--json", *flags]
            if self.program:
                self.process = self.owner.start([*self.program, *words], stdout=subprocess.PIPE, stderr=log, settings=self.settings)
            else:
                self.process = self.owner.start_program(words, stdout=subprocess.PIPE, stderr=log, settings=self.settings)

    def wait_ready(self) -> None:
        """Reads the ready line. Raises NotReady with the end of the log."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = _line(self.process.stdout, READY_TIMEOUT_S)
        if not line.startswith(b'{"ready":'):
            code = self.process.wait(STOP_TIMEOUT_S) if not line or b'"ok":false' in line else None
            raise NotReady(f"{self.home.name}: {line[:500]!r}\n{self.log[-3000:]}", code)
        found = from_json(line)
        assert isinstance(found, Mapping)
        self.ready = found

    def start(self, *flags: str) -> HomeNode:
        self.launch(*flags)
        self.wait_ready()
        return self

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        path = self.home.parent / f"{self.home.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait_ended(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """The exit code, negative for an unhandled signal. Fails when it takes longer."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def kill(self) -> None:
        """kill -9: no warning, no goodbye."""
        self.signal(signal.SIGKILL)
        self.wait_ended()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_ended()

    # --- asking -------------------------------------------------------------------------------------------------------

    def call(self, operation: str, args: Mapping[str, object] | None = None, *, timeout_s: float = CALL_TIMEOUT_S) -> Mapping[str, Any]:
        """One call through the API's client. Raises what the node answered."""
        return call(self.home, operation, args or {}, timeout_s=timeout_s).data

    def run(self, *words: str, stdin: bytes | None = None, timeout_s: float = CALL_TIMEOUT_S, as_json: bool = True) -> Ran:
        """One command line, to its end."""
        return self.owner.run(*words, home=self.home, stdin=stdin, timeout_s=timeout_s, as_json=as_json)

    def launch_command(self, *words: str) -> subprocess.Popen[bytes]:
        """A command line that the test will interrupt."""
        return self.owner.start([*PROGRAM, "--home", str(self.home), "--json", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def put(self, *paths: Path, replicas: int = 0, ack: str = "quorum", **more: object) -> Mapping[str, Any]:
        return self.call("put", {"paths": [str(path) for path in paths], "replicas": replicas, "ack": ack, **more})

    def get(self, record: str, output: Path, **more: object) -> Mapping[str, Any]:
        return self.call("get", {"record": record, "output": str(output), **more})

    def status(self) -> Mapping[str, Any]:
        return self.call("status")

    @property
    def member(self) -> str:
        """Member id, as `share --to` takes it."""
        return str(self._who["member"])

    @property
    def peer_id(self) -> str:
        return str(self._who["peer_id"])

    @property
    def _who(self) -> Mapping[str, Any]:
        if self._identity is None:
            self._identity = self.status()
        return self._identity

    def connected(self) -> set[str]:
        """Peer ids of those that have a session with this node."""
        return {str(row["peer_id"]) for row in self.call("peers")["peers"] if row["connected"]}

    def copies_live(self, record: str) -> int:
        """Copies that every sequence of a record has at least, as this node sees it; 0 while the record is not known here."""
        try:
            return int(self.call("file.status", {"record": record})["copies_live"])
        except LadingError:
            return 0

    @property
    def socket_path(self) -> Path:
        return self.home / SOCKET_NAME


def _line(stream: IO[bytes], timeout_s: float) -> bytes:
    """The first line of a pipe; what came of it when the pipe ended or the time was over."""
    deadline = time.monotonic() + timeout_s
    found = b""
    while not found.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([stream], [], [], left_s)[0]:
            break
        data = os.read(stream.fileno(), 1)
        if not data:
            break
        found += data
    return found


class Processes:
    """Everything that a test has started. ``end`` kills what still runs, frozen ones too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[HomeNode] = []
        self._started: list[Process] = []

    def start(
        self,
        words: Sequence[str],
        *,
        stdout: int | BinaryIO,
        stderr: int | BinaryIO,
        stdin: int | BinaryIO = subprocess.DEVNULL,
        settings: Mapping[str, object] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A child in a process group of its own, so that its children end with it."""
        process = subprocess.Popen(
            words, stdin=stdin, stdout=stdout, stderr=stderr, env=environment_of(settings or {}), start_new_session=True
        )
        self._started.append(process)
        return process

    def start_program(
        self,
        words: Sequence[str],
        *,
        stdout: int | BinaryIO,
        stderr: int | BinaryIO,
        stdin: int | BinaryIO = subprocess.DEVNULL,
        settings: Mapping[str, object] | None = None,
    ) -> Process:
        """As ``start``, of a command line of `lading`: forked from a process that has loaded it already (`forks`)."""
        if os.environ.get("FUNCTIONAL_EXEC"):
            return self.start([*PROGRAM, *words], stdout=stdout, stderr=stderr, stdin=stdin, settings=settings)
        process = forks().start(words, stdin=stdin, stdout=stdout, stderr=stderr, environment=environment_of(settings or {}))
        self._started.append(process)
        return process

    def run(
        self,
        *words: str,
        home: Path | None = None,
        stdin: bytes | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        as_json: bool = True,
    ) -> Ran:
        """One command line, to its end. stdin: its bytes, else nothing."""
        where = ["--home", str(home)] if home is not None else []
        line = [*where, *(["--json"] if as_json else []), *words]
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
            given.write(stdin or b"")
            given.seek(0)
            code = self.start_program(line, stdin=given, stdout=said, stderr=told).wait(timeout_s)
            said.seek(0)
            told.seek(0)
            return Ran(code, said.read(), told.read().decode(errors="replace"))

    def node(self, home: Path, **settings: object) -> HomeNode:
        """A home, which need not exist yet."""
        found = HomeNode(self, home, dict(settings))
        self.nodes.append(found)
        return found

    def testnet(self, count: int, name: str = "net", **settings: object) -> list[HomeNode]:
        """Homes of one domain, started and meshed."""
        homes = self.testnet_homes(count, name, **settings)
        start_all(homes)
        return homes

    def testnet_homes(self, count: int, name: str = "net", **settings: object) -> list[HomeNode]:
        """Homes of one domain, not started."""
        directory = self.directory / name
        assert self.run("testnet", str(count), str(directory)).code == 0
        return [self.node(directory / f"n{number}", **settings) for number in range(1, count + 1)]

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                # The group, not the process alone; a child that has just ended has no group any more.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def start_all(nodes: Sequence[HomeNode], *, among: Sequence[HomeNode] = ()) -> None:
    """Starts nodes side by side and waits until they, and those ``among`` whom they come back, all see each other."""
    for node in nodes:
        node.launch()
    for node in nodes:
        node.wait_ready()
    wait_meshed(among or nodes)


def wait_meshed(nodes: Sequence[HomeNode], *, timeout_s: float = 30.0) -> None:
    """Until every one of ``nodes`` has a session with every other."""
    ids = {node.peer_id for node in nodes}
    for node in nodes:
        wait_until(lambda node=node: ids - {node.peer_id} <= node.connected(), f"{node.home.name} to see the others", timeout_s=timeout_s)  # type: ignore[misc]
