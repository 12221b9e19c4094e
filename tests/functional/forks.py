"""Processes of `lading` without the loading: a process that has loaded the program forks whatever a test starts.

Loading is two thirds of the processor time in which a node starts, the same every time, and a test run starts some hundred of them and many
more command lines. What runs is the command line from its first line to its exit, in a process, a session and with files of its own.
FUNCTIONAL_EXEC=1 starts every one from nothing, as the demo, the examples, the benchmarks and ``Processes.start`` do anyway.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, BinaryIO, NoReturn, Protocol

# Everything that `lading start` and the commands load, and nothing that they don't.
LOADED = (
    "node.__main__",
    "node.cli.main",
    "node.home",
    "node.founding",
    "node.joining",
    "node.recovery",
    "node.chain_store",
    "node.chain_further",
    "node.run",
    "node.transport.libp2p.transport",
)
MESSAGE_BYTES_MAX = 256 * 1024
ROOT = Path(__file__).parents[2]


class Process(Protocol):
    """What tests ask of a process, forked or started from nothing."""

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None:
        """The exit code once it has ended, negative for a signal."""

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None: ...


class Forked:
    """One forked process: as subprocess.Popen, as far as Process goes."""

    def __init__(self, forks: Forks, pid: int, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self._forks = forks
        self._code: int | None = None
        self._handle = os.pidfd_open(pid)  # it stays this process until ``_forks`` has taken its exit code

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            watch = select.poll()
            watch.register(self._handle, select.POLLIN)
            if not watch.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self._code = int(self._forks.ask({"ended": self.pid}))
            os.close(self._handle)
        return self._code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, sig)


class Forks:
    """The asking side. One for each process of the test run."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, "-m", "tests.functional.forks", str(theirs.fileno())]
            self._server = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        self._lock = threading.Lock()

    def ask(self, message: Mapping[str, object], files: Sequence[int] = ()) -> str:
        """One question, one answer. files: descriptors that go along."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(message).encode()], files)
            answer = self._channel.recv(MESSAGE_BYTES_MAX).decode()
        assert answer, "the process that forks has ended; its traceback is in this run's errors"
        return answer

    def start(
        self,
        words: Sequence[str],
        *,
        stdin: int | BinaryIO,
        stdout: int | BinaryIO,
        stderr: int | BinaryIO,
        environment: Mapping[str, str],
    ) -> Forked:
        """The command line ``words``, without the program's name. Files as for subprocess.Popen: open ones, PIPE for stdout, DEVNULL."""
        with contextlib.ExitStack() as files:
            null = os.open(os.devnull, os.O_RDWR)
            files.callback(os.close, null)
            reading: IO[bytes] | None = None
            given: list[int] = []
            for wanted in (stdin, stdout, stderr):
                if wanted == subprocess.DEVNULL:
                    given.append(null)
                elif wanted == subprocess.PIPE:
                    assert wanted is stdout
                    assert reading is None
                    from_child, to_us = os.pipe()
                    files.callback(os.close, to_us)
                    reading = open(from_child, "rb", buffering=0)  # noqa: SIM115  # the process' owner closes it
                    given.append(to_us)
                else:
                    given.append(wanted if isinstance(wanted, int) else wanted.fileno())
            pid = int(self.ask({"words": list(words), "environment": dict(environment), "folder": os.getcwd()}, given))
        return Forked(self, pid, reading)


@cache
def forks() -> Forks:
    """Of this process; it ends when its asker does."""
    return Forks()


# --- the process that forks -------------------------------------------------------------------------------------------
def serve(channel: socket.socket) -> list[str] | None:
    """Answers until nobody asks any more: None. In each process that was forked: the words of its command line."""
    while True:
        data, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(3 * array.array("i").itemsize))
        if not data:
            return None
        files = array.array("i")
        for _, _, content in ancillary:
            files.frombytes(content)
        asked = json.loads(data)
        if "ended" in asked:
            _, status = os.waitpid(asked["ended"], 0)
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        assert threading.active_count() == 1, "a thread does not survive a fork, what it holds does"
        ready, tell = os.pipe()
        pid = os.fork()
        if not pid:
            channel.close()
            os.close(ready)
            _become(files, asked["environment"], asked["folder"])
            os.close(tell)
            words: list[str] = asked["words"]
            return words
        os.close(tell)
        os.read(ready, 1)  # its end: the child has a session of its own, so its group may be killed
        os.close(ready)
        for file in files:
            os.close(file)
        channel.send(str(pid).encode())


def _become(files: Sequence[int], environment: Mapping[str, str], folder: str) -> None:
    """A process as one that was just started."""
    os.setsid()
    for target, file in enumerate(files):
        os.dup2(file, target)
    for file in set(files):
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the test run, which ends this
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        for name in LOADED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        words = serve(channel)
    if words is None:
        sys.exit(0)
    sys.argv = ["lading", *words]
    importlib.import_module("node.__main__").main()
    raise AssertionError("the command line ends its process")


if __name__ == "__main__":
    main()
