"""Every example runs, as a newcomer would run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LINES_MAX = 80
TIMEOUT_S = 90.0
# What an example must have said by its end, so that one that does nothing is not taken for one that works.
SAYS = {
    "two_nodes.py": r"alice of member \w+ is connected to bob(?s:.)*bob of member \w+ is connected to alice",
    "adhoc_lan.py": r"members of the domain: office, visitor",
    "put_and_get.py": r"every byte is the same\n.*E-NO-KEY",
    "survive_a_loss.py": r"the reader has every byte\ntwo copies again",
    "own_protocol.py": r"guesser says Say\(number=742\)\nkeeper says Say\(number=0\)",
}


def test_every_example_is_run_and_short() -> None:
    """Goal: none is forgotten, all can be read at a glance. Method: the list above against the folder; lines counted."""
    found = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert found.keys() - {"common.py"} == SAYS.keys()
    assert max(found.values()) < LINES_MAX


@pytest.mark.parametrize("name", SAYS)
def test_example_runs(name: str, tmp_path: Path) -> None:
    """Goal: examples are true. Method: run it with its temporary files in a folder of ours; exit 0, and what it must say. Its whole process
    group ends with it, however it ends."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        text=True,
        start_new_session=True,
    )
    try:
        said, complaints = process.communicate(timeout=TIMEOUT_S)
    finally:
        left_over = _kill_group(process.pid)
        process.wait()
    assert process.returncode == 0, (said, complaints)
    assert re.search(SAYS[name], said), said
    assert not left_over, "nodes were left running"
    assert not list(tmp_path.iterdir()), "temporary files were left behind"


def _kill_group(pid: int) -> bool:
    """Kills what is left of the process group; False when nothing was."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
