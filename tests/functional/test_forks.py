"""A forked command line is one that was started from nothing, for whoever looks from outside."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.functional.nodes import PROGRAM, HomeNode, Processes, environment_of


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["--json", "status"], {}),
        (["--json", "no-such-command"], {}),
        (["--help"], {}),
        (["--json", "config", "show", "--origin"], {"log_level": "debug"}),
        (["--json", "config", "show"], {"log_levle": "debug"}),
    ],
)
def test_forked_command_line_says_and_exits_as_a_started_one(
    processes: Processes, tmp_path: Path, words: list[str], settings: dict[str, object]
) -> None:
    """Goal: tests that fork show what users meet. Method: the same words both ways, with and without settings in the environment: the same
    bytes on both outputs, the same exit code."""
    home = tmp_path / "home"
    assert processes.run("init", "--domain", "d", "--no-passphrase", home=home).code == 0
    line = ["--home", str(home), *words]
    started = subprocess.run([*PROGRAM, *line], capture_output=True, env=environment_of(settings), check=False, stdin=subprocess.DEVNULL)
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as said, err.open("wb") as told:
        forked = processes.start_program(line, stdout=said, stderr=told, settings=settings)
        assert forked.wait(30) == started.returncode
    assert (out.read_bytes(), err.read_bytes()) == (started.stdout, started.stderr)


def test_forked_node_has_its_own_session_and_dies_of_its_signals(processes: Processes) -> None:
    """Goal: kill -9 is kill -9. Method: one node; its session and group are its own; SIGKILL ends it with that code, and only once it was
    asked for does its number go back to the system."""
    (node,) = processes.testnet(1)
    process = node.process
    assert process is not None
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert process.poll() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    node.process = None
    assert isinstance(node.start(), HomeNode)
    assert node.stop() == 128 + signal.SIGTERM
