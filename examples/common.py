"""What the examples share: nodes as child processes, asked over their Unix socket; all of them end with the `with` block."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from node.http.client import call

WAIT_TIMEOUT_S = 40.0


class Nodes:
    """Running nodes by home directory. settings: for each, as `LADING_…` environment variables, e.g. repair_grace_s=2."""

    def __init__(self, **settings: object) -> None:
        self._environment = {**os.environ, **{f"LADING_{key.upper()}": str(value) for key, value in settings.items()}}
        self._running: dict[Path, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, *homes: Path) -> None:
        """`lading start --json` on each; returns when each has printed its ready line."""
        for home in homes:
            command = [sys.executable, "-m", "node", "--home", str(home), "start", "--json"]
            with (home / "start.log").open("ab") as log:
                self._running[home] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=self._environment)
        for home in homes:
            output = self._running[home].stdout
            assert output is not None
            line = output.readline() if select.select([output], [], [], WAIT_TIMEOUT_S)[0] else b""
            assert line.startswith(b'{"ready":'), f"{home} is not ready, see {home / 'start.log'}"

    def kill(self, *homes: Path) -> None:
        """No warning, no goodbye: as if somebody pulled the plug."""
        for home in homes:
            self._running[home].kill()
            self._running.pop(home).wait()

    def wait_connected(self, *homes: Path) -> None:
        """Until each of these nodes has a session with all the others."""
        for home in homes:
            wait_until(lambda home=home: len(connected(home)) >= len(homes) - 1, f"{home.name} to meet the others")  # type: ignore[misc]


def ask(home: Path, operation: str, **args: object) -> Mapping[str, Any]:
    """What the running node of ``home`` answers, as the command of that name with `--json` would print it under "data"."""
    return call(home, operation, args, timeout_s=60.0).data


def connected(home: Path) -> Sequence[Mapping[str, Any]]:
    return [peer for peer in ask(home, "peers")["peers"] if peer["connected"]]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Asks again and again: another process can only be polled."""
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {WAIT_TIMEOUT_S:.0f} s for {what}")
        time.sleep(0.05)
