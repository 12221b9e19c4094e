"""Signals and pipes, with the command line as the process that it is."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trio

from node.http.contract import Answer
from tests.node.http.fake_node import Call, FakeNode

RECORD = "7f3a9c01d2e4" + "0" * 52


class _Waiting:
    """An operation that says when it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    async def __call__(self, call: Call) -> Answer:
        call.progress({"record": RECORD, "bytes": 1, "note": "begun"})
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()
        raise AssertionError


@pytest.fixture
def waiting(home_node: FakeNode) -> _Waiting:
    operation = _Waiting()
    home_node.answers["put"] = operation
    return operation


def _lading(home: Path, *words: str, **streams: object) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "node", "--home", str(home), *words]
    return subprocess.Popen(line, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_signal_cancels_the_call_and_is_the_exit_code(home_node: FakeNode, waiting: _Waiting, number: signal.Signals, code: int) -> None:
    """Goal: nothing goes on in the node that nobody waits for, and the person knows how to go on. Method: signal amid a put."""
    with _lading(home_node.home, "put", "/etc/hostname", "--json") as process:
        # The note has been printed, so the command knows the record by now.
        assert process.stderr is not None
        assert process.stderr.readline() == b"begun\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=10)
    assert process.returncode == code
    assert waiting.cancelled.wait(5)
    error = json.loads(out)["error"]
    assert (error["name"], error["code"]) == ("E-CANCELLED" if number is signal.SIGINT else "E-TERMINATED", code)
    assert RECORD in error["hint"]


def test_reader_of_stdout_that_leaves_is_no_traceback(home_node: FakeNode) -> None:
    """Goal: `lading ls | head -1` ends quietly. Method: a pipe whose reading end is closed before the answer."""

    async def ls(call: Call) -> Answer:
        return Answer({"records": [{"record": f"{i:064x}"} for i in range(5000)]})

    home_node.answers["ls"] = ls
    reading, writing = os.pipe()
    os.close(reading)
    with _lading(home_node.home, "ls", stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 1
    assert err == b""


_SERVER = """
import os, sys, trio
from functools import partial
from pathlib import Path
from node.http.server import serve

class Node:
    async def call(self, operation, args, **streams):
        os.kill(os.getpid(), 9)

async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, Node(), Path(sys.argv[1]), allowed_uid=os.getuid()))
        print("up", flush=True)

trio.run(main)
"""


def test_node_that_is_killed_in_the_middle_is_exit_8(tmp_path: Path) -> None:
    """Goal: an answer that breaks off is never a success. Method: a real process that kills itself inside the call."""
    (tmp_path / "config.toml").touch()
    with subprocess.Popen([sys.executable, "-c", _SERVER, str(tmp_path / "api.sock")], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        with _lading(tmp_path, "put", "/etc/hostname") as process:
            _, err = process.communicate(timeout=10)
    assert process.returncode == 8
    assert b"the node stopped before it answered" in err
    assert b"[E-NOT-RUNNING, exit 8]" in err


_STOPPING = _SERVER.replace(
    "os.kill(os.getpid(), 9)",
    "from node.http.contract import Answer; trio.lowlevel.spawn_system_task(leave); return Answer({'stopping': True})",
).replace("class Node", "async def leave():\n    await trio.sleep(0.3)\n    os._exit(0)\n\nclass Node")


def test_stop_returns_when_the_process_has_ended(tmp_path: Path) -> None:
    """Goal: after `lading stop` the home is free. Method: a node that answers at once and ends 0.3 s later; its socket stays behind."""
    (tmp_path / "config.toml").touch()
    with subprocess.Popen([sys.executable, "-c", _STOPPING, str(tmp_path / "api.sock")], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        # Only a process that was reaped is gone for good, and the test is its parent.
        reaper = threading.Thread(target=server.wait)
        reaper.start()
        with _lading(tmp_path, "stop") as process:
            out, _ = process.communicate(timeout=10)
        reaper.join(0)
        assert process.returncode == 0
        assert server.poll() is not None
        assert b"stopping" in out
    with _lading(tmp_path, "stop") as process:
        process.communicate(timeout=10)
    assert process.returncode == 8


def test_colours_on_a_terminal_and_none_with_no_color(home_node: FakeNode) -> None:
    """Goal: colours for people only, and NO_COLOR and --no-color are obeyed. Method: a pseudo-terminal as stdout."""

    async def status(call: Call) -> Answer:
        return Answer({"node": "office", "alerts": []})

    home_node.answers["status"] = status
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"}
    seen = {}
    for name, words, extra in (("plain", [], {}), ("flag", ["--no-color"], {}), ("environment", [], {"NO_COLOR": "1"})):
        master, slave = pty.openpty()
        with _lading(home_node.home, "status", *words, stdout=slave, env=environment | extra) as process:
            process.wait(10)
            seen[name] = b"\x1b[" in os.read(master, 10_000)
        os.close(master)
        os.close(slave)
    assert seen == {"plain": True, "flag": False, "environment": False}
