"""The live line and its quiet sister, with a clock in the test's hand."""

from __future__ import annotations

import io

import pytest

from node.cli.progress import LINE_INTERVAL_S, STANDSTILL_S, Progress
from node.cli.text import Style

MIB = 2**20


class _Hand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _progress(*, is_live: bool, is_quiet: bool = False) -> tuple[Progress, io.StringIO, _Hand]:
    hand, screen = _Hand(), io.StringIO()
    return Progress("put", screen, Style(), is_live=is_live, is_quiet=is_quiet, now=hand), screen, hand


def test_live_line_says_everything_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bytes, sequences, holders, rate, time left and what it waits for on one line. Method: two tellings, two seconds apart."""
    monkeypatch.setenv("COLUMNS", "160")
    progress, screen, hand = _progress(is_live=True)
    facts = {"phase": "placing", "bytes_total": 40 * MIB, "sequences_total": 10, "holders": 2, "holders_total": 3, "waiting_for": ["nas2"]}
    progress.tell({"bytes": 10 * MIB, "sequences": 2, **facts})
    hand.now += 2
    progress.tell({"bytes": 20 * MIB, "sequences": 5})
    line = screen.getvalue().rpartition("\x1b[2K")[2]
    assert line == "put placing  20.0 MiB of 40.0 MiB 50 %  5/10 sequences  2/3 holders  5.0 MiB/s  4.0 s left  waiting for nas2"
    assert "\n" not in screen.getvalue()
    progress.end()
    assert screen.getvalue().endswith("\r\x1b[2K")


def test_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the line can be taken away again on a narrow terminal. Method: 40 columns, a long list of hosts."""
    monkeypatch.setenv("COLUMNS", "40")
    progress, screen, hand = _progress(is_live=True)
    hand.now += 1
    progress.tell({"bytes": 1, "waiting_for": ["host"] * 50})
    assert len(screen.getvalue().rpartition("\x1b[2K")[2]) == 39


def test_without_a_terminal_one_line_every_thirty_seconds() -> None:
    """Goal: logs stay short and no escape sequence gets into them. Method: ten tellings a second for 65 seconds."""
    progress, screen, hand = _progress(is_live=False)
    for count in range(650):
        hand.now += 0.1
        progress.tell({"bytes": count * MIB})
    lines = screen.getvalue().splitlines()
    assert len(lines) == int(65 // LINE_INTERVAL_S) == 2
    assert lines[0].startswith("put  29")
    assert "10.0 MiB/s" in lines[0]
    assert "\x1b" not in screen.getvalue()


@pytest.mark.parametrize("is_live", [True, False])
def test_standstill_is_said_once_with_what_is_missing(is_live: bool) -> None:
    """Goal: nobody stares at a line that does not move without knowing why. Method: ticks only, then movement, then ticks again."""
    progress, screen, hand = _progress(is_live=is_live)
    progress.tell({"bytes": 1, "waiting_for": "receipt of customs/nas2"})

    def said() -> int:
        return screen.getvalue().count("no progress for 10 s; waiting for receipt of customs/nas2\n")

    for _ in range(int(STANDSTILL_S) - 1):
        hand.now += 1
        progress.tick()
    assert said() == 0
    for _ in range(15):
        hand.now += 1
        progress.tell({"bytes": 1})
    assert said() == 1
    progress.tell({"bytes": 2})
    for _ in range(12):
        hand.now += 1
        progress.tick()
    assert said() == 2


def test_quiet_says_nothing_at_all() -> None:
    """Goal: --quiet. Method: everything that would print."""
    for is_live in (True, False):
        progress, screen, hand = _progress(is_live=is_live, is_quiet=True)
        for _ in range(100):
            hand.now += 1
            progress.tell({"bytes": 1, "note": "look"})
        progress.end()
        assert screen.getvalue() == ""


def test_note_is_printed_once_above_the_line() -> None:
    """Goal: a remark of the node is not lost under the live line and not repeated with every telling."""
    progress, screen, hand = _progress(is_live=True)
    for _ in range(3):
        hand.now += 1
        progress.tell({"bytes": 1, "note": "two names differ by case only\x1b[2J"})
    assert screen.getvalue().count("two names differ by case only\\x1b[2J\n") == 1


def test_rate_sinks_while_nothing_comes() -> None:
    """Goal: no proud rate on a dead link. Method: 10 MiB in a second, then nine seconds of nothing."""
    progress, screen, hand = _progress(is_live=True)
    progress.tell({"bytes": 0})
    hand.now += 1
    progress.tell({"bytes": 10 * MIB})
    assert "10.0 MiB/s" in screen.getvalue().rpartition("\x1b[2K")[2]
    hand.now += 9
    progress.tick()
    assert "1.0 MiB/s" in screen.getvalue().rpartition("\x1b[2K")[2]
