"""A whole process on a machine without clock battery."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path

from tests.functional.conftest import MIB
from tests.functional.nodes import Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder


def test_process_that_boots_in_1970_comes_back_with_the_members_time(processes: Processes, tmp_path: Path) -> None:
    """Goal: a Pi after a power cut. Method: three members; one restarts with its clock at zero: it hears the two others, uses their time,
    says so in `status` and `doctor`, gets what was put before and puts what the others get, with today's time on it."""
    first, second, board = processes.testnet(3)
    before = random_folder(tmp_path / "before", seed=1, size=1 * MIB)
    record = board.put(before, ack="full")["record"]
    board.kill()
    board.program = (sys.executable, "-m", "tests.functional.wrong_clock", "100")
    start_all([board], among=[first, second, board])
    wait_until(lambda: board.status()["clock"]["source"] == "agreed", "two members to agree on the time")
    clock = board.status()["clock"]
    assert abs(datetime.fromisoformat(clock["time"]).timestamp() - time.time()) < 60
    assert clock["machine"].startswith("1970-01-01")
    (check,) = [check for check in board.call("doctor")["checks"] if check["name"] == "clock"]
    assert check["level"] == "warn"
    assert "1970-01-01" in check["message"]
    board.get(record, tmp_path / "got")
    assert_same(before, tmp_path / "got")
    after = random_folder(tmp_path / "after", seed=2, size=1 * MIB)
    put = board.put(after, ack="full")["record"]
    rows = {row["record"]: row for row in first.call("ls", {"all": True})["records"]}
    assert abs(datetime.fromisoformat(rows[put]["time"]).timestamp() - time.time()) < 60


def test_process_an_hour_ahead_votes_by_network_time(processes: Processes, tmp_path: Path) -> None:
    """Goal: the chain's clock is its members'. Method: of three members one restarts an hour ahead; it learns the time of the two others,
    says so, and when the third is killed its vote makes blocks final."""
    first, second, ahead = processes.testnet(3)
    wait_until(lambda: all(node.call("clock")["network"]["members"] == 3 for node in (first, second)), "the members to be heard")
    ahead.kill()
    ahead.program = (sys.executable, "-m", "tests.functional.wrong_clock", str(time.time() + 3600))
    start_all([ahead], among=[first, second, ahead])
    wait_until(lambda: ahead.call("clock")["network"]["set"], "network time to be set", timeout_s=60)
    found = ahead.call("clock")
    assert found["network"]["state"] == "set"
    assert found["network"]["members"] == 3
    assert abs(found["network"]["offset_ms"] + 3_600_000) < 10_000
    assert found["network"]["spread_ms"] < 2_000
    assert abs(datetime.fromisoformat(found["network"]["time"]).timestamp() - time.time()) < 10
    first.kill()
    before = second.status()["ledger"]
    (name,) = before
    second.put(random_folder(tmp_path / "folder", seed=3, size=100_000), ack="local")
    wait_until(lambda: second.status()["ledger"][name]["finalized"] > before[name]["finalized"], "a final block by two", timeout_s=90)
