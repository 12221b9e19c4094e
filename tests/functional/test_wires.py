"""Real processes on lines that are long, uneven, lossy, narrow or pulled: every byte arrives, both ways, and nothing locks up.

The rates on such lines are a benchmark: the row `wires`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.harness import Skipped
from benchmarks.wires import COMMAND, Cable, cable, over_cable, over_relay, started

# A transfer of some megabytes on the slowest of the lines takes 2 s; the rest is for a loaded machine.
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def line() -> Iterator[Cable]:
    """A cable of the module's own; skipped, saying why, where none can be made."""
    try:
        with cable() as found:
            yield found
    except Skipped as why:
        pytest.skip(str(why))


@pytest.mark.parametrize(("lane", "mode"), [("own", "both"), ("stock", "one")])
def test_line_with_delay_and_jitter_carries_every_byte(lane: str, mode: str) -> None:
    """Goal: long lines. Method: 10 ms and up to 20 more each way; 8 MiB, both ways at once on our lane (two of the library's muxers lock
    up under that); hashes."""
    assert over_relay(lane, 8, mode, delay_ms=5, jitter_ms=20)["is_same"]


@pytest.mark.slow
def test_line_that_loses_packets_carries_every_byte(line: Cable) -> None:
    """Goal: loss is slow, not wrong. Method: nftables drops 3 % of the packets at both ends; 4 MiB both ways at once; hashes."""
    line.lose(3)
    try:
        assert over_cable(line, "own", 4, "both")["is_same"]
    finally:
        line.lose(0)


@pytest.mark.slow
def test_narrow_line_carries_every_byte(line: Cable) -> None:
    """Goal: a line much slower than the sender. Method: 10 Mbit/s by tc tbf; 1 MiB both ways at once; hashes; no faster than the line."""
    line.narrow(10)
    try:
        found = over_cable(line, "own", 1, "both")
    finally:
        line.narrow(0)
    assert found["is_same"]
    assert found["seconds"] > 1.0 * 8 * 1.048 / 10 * 0.8, "the line was narrow"


@pytest.mark.slow
def test_cable_pulled_for_a_moment_costs_a_moment(line: Cable) -> None:
    """Goal: who stumbles over a cable loses no transfer. Method: 100 Mbit/s, 8 MiB; when some of it has gone, the link goes down for a
    second, which is less than any patience; the transfer ends, hashes equal."""
    line.narrow(100)
    try:
        with started(line.at(line.far, *COMMAND, "serve", "own", line.far_host)) as address:
            words = line.at(line.near, *COMMAND, "talk", "own", address, "8", "both")
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as talk:
                try:
                    sent = line.wait_sent(2_000_000, timeout_s=PATIENCE_S)
                    line.plug(is_in=False)
                    with pytest.raises(subprocess.TimeoutExpired):
                        talk.wait(1.0)
                    line.plug(is_in=True)
                    out, _ = talk.communicate(timeout=PATIENCE_S)
                finally:
                    talk.kill()
    finally:
        line.narrow(0)
    assert 2_000_000 <= sent < 8_000_000, "it was pulled in the middle"
    assert json.loads(out)["is_same"]
