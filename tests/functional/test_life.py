"""One node's life: starting, refusing to start, and ending at any moment."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.functional.conftest import MIB
from tests.functional.disks import commits_of
from tests.functional.nodes import PROGRAM, STOP_TIMEOUT_S, HomeNode, Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder

# As the console script, after a word that Python itself is up.
EARLY = "import node.__main__; print(flush=True); node.__main__.main()"
SIGTERM_DELAYS_S = (0.0, 0.2, 0.4, 0.7, 1.1, 2.5)


@pytest.fixture
def alone(processes: Processes) -> HomeNode:
    """A home that nobody runs on."""
    (home,) = processes.testnet_homes(1)
    return home


def test_second_process_on_one_home_is_refused_and_the_first_goes_on(alone: HomeNode, processes: Processes) -> None:
    """Goal: one home, one process. Method: start twice; the second exits 9 and the first still answers."""
    alone.start()
    second = processes.run("start", home=alone.home)
    assert (second.code, second.error) == (9, "E-LOCKED")
    assert alone.status()["node"] == "n1"


def test_port_in_use_is_said_with_the_address(alone: HomeNode, processes: Processes) -> None:
    """Goal: a taken port is an error that names it, and costs nothing. Method: listen there ourselves, start, free it, start again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        refused = processes.run("start", "--listen", address, home=alone.home, timeout_s=30)
        assert refused.code == 1
        assert address in str(refused.json["error"]["message"])
    alone.start("--listen", address)
    assert alone.status()["listen"] == [address]


def test_unknown_key_in_config_is_refused_with_the_nearest_name(alone: HomeNode, processes: Processes) -> None:
    """Goal: a mistyped setting is not ignored. Method: a wrong key in config.toml, then the right one."""
    config = alone.home / "config.toml"
    text = config.read_text()
    config.write_text(text + 'store_bugdet_bytes = "1 GiB"\n')
    refused = processes.run("start", home=alone.home)
    assert (refused.code, refused.error) == (2, "E-USAGE")
    assert "store_budget_bytes" in str(refused.json["error"]["hint"])
    config.write_text(text + 'store_budget_bytes = "1 GiB"\n')
    assert alone.start().status()["store"]["budget"] == 1024 * MIB


def test_start_without_a_home_says_how_to_make_one(processes: Processes) -> None:
    """Goal: exit 8 and a hint. Method: start on an empty folder."""
    refused = processes.run("start", home=processes.directory / "nothing")
    assert (refused.code, refused.error) == (8, "E-NOT-INITIALISED")
    assert "lading init" in str(refused.json["error"]["hint"])


def test_sigterm_at_random_moments_ends_in_time_and_the_next_start_is_clean(processes: Processes, tmp_path: Path) -> None:
    """Goal: SIGTERM is obeyed within ten seconds whatever the node does, and loses nothing that was acknowledged. Method: two nodes; one is
    ended again and again while it puts records, sooner or later after the put began; at the end every record whose put returned is
    read."""
    node, other = processes.testnet(2, log_level="info")
    acknowledged: dict[str, Path] = {}
    for number, delay_s in enumerate(SIGTERM_DELAYS_S):
        source = random_folder(tmp_path / f"source-{number}", seed=number, size=4 * MIB + number)
        put = node.launch_command("put", str(source), "--ack", "local")
        time.sleep(delay_s)
        began = time.monotonic()
        node.signal(signal.SIGTERM)
        assert node.wait_ended(STOP_TIMEOUT_S) == 143
        assert time.monotonic() - began < STOP_TIMEOUT_S
        output, _ = put.communicate(timeout=30)
        if put.returncode == 0:
            acknowledged[output.decode().split('"record":"')[1][:64]] = source
        else:
            assert put.returncode in (7, 8), output
        assert "Traceback" not in node.log
        node.start()
    assert node.run("check", "--all").data["damaged"] == 0
    assert other.is_up
    assert acknowledged
    for number, (record, source) in enumerate(acknowledged.items()):
        node.get(record, tmp_path / f"read-{number}")
        assert_same(source, tmp_path / f"read-{number}")


def test_sigterm_before_the_node_is_ready_ends_it_too(alone: HomeNode) -> None:
    """Goal: also a node that is still starting can be ended. Method: SIGTERM after 0.1 to 1 s of starting, the
    loading included; then a clean start."""
    alone.program = PROGRAM
    for delay_s in (0.1, 0.3, 0.6, 1.0):
        alone.launch()
        time.sleep(delay_s)
        alone.signal(signal.SIGTERM)
        assert alone.wait_ended() in (143, -signal.SIGTERM)
    alone.start()
    assert alone.status()["alerts"] == []


def test_ctrl_c_ends_the_node_and_a_second_one_at_once(processes: Processes) -> None:
    """Goal: the first Ctrl-C is a clean stop, the second an immediate one, and both leave a home that starts. Method: one, then two in a
    row."""
    node, _ = processes.testnet(2)
    node.signal(signal.SIGINT)
    assert node.wait_ended() == 130
    node.start()
    node.signal(signal.SIGINT)
    node.signal(signal.SIGINT)
    began = time.monotonic()
    assert node.wait_ended() == 130
    assert time.monotonic() - began < 5
    node.start()


def commits_when_quiet(home: Path) -> int:
    """Commits of its chunk store, when what a node does for itself after a start is over: half a second without one."""
    seen, since = commits_of(home), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        if (now := commits_of(home)) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    wait_until(is_quiet, "the node to be quiet")
    return seen


def test_second_ctrl_c_in_a_long_put_ends_it_at_once_and_leaves_nothing_half(processes: Processes, tmp_path: Path) -> None:
    """Goal: whoever presses Ctrl-C twice is obeyed at once, at the command and at the node, and no half record is left. Method: a put is
    under way; its command gets the signal twice while the node hangs (SIGSTOP), so that the polite way is of no use; then another put is
    under way and the node gets it twice; nothing is listed, the store is sound, and the same put works."""
    node, _ = processes.testnet(2)
    source = random_folder(tmp_path / "source", seed=9, size=256 * MIB)
    for victim in ("command", "node"):
        base = commits_when_quiet(node.home)
        put = node.launch_command("put", str(source), "--ack", "local")
        wait_until(lambda base=base: commits_of(node.home) > base + 1, "the put to be under way", poll_s=0.001)  # type: ignore[misc]
        began = time.monotonic()
        if victim == "command":
            node.signal(signal.SIGSTOP)
            put.send_signal(signal.SIGINT)
            put.send_signal(signal.SIGINT)
            assert put.wait(STOP_TIMEOUT_S) == 130
            assert time.monotonic() - began < 5
            node.signal(signal.SIGCONT)
        else:
            node.signal(signal.SIGINT)
            node.signal(signal.SIGINT)
            assert node.wait_ended() == 130
            assert time.monotonic() - began < 5
            assert put.wait(STOP_TIMEOUT_S) in (7, 8)
            node.start()
        assert node.call("ls", {"all": True})["records"] == []
        assert node.run("check", "--all").data["damaged"] == 0
    record = node.put(source, ack="local")["record"]
    node.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")


def test_ctrl_c_while_a_command_is_loaded_is_its_exit_code_too(processes: Processes) -> None:
    """Goal: 130 and no list of Python's calls, however early. Method: the signal after some milliseconds; a home that is not there."""
    for delay_s in (0.03, 0.06, 0.09, 0.12):
        command = subprocess.Popen(
            [sys.executable, "-c", EARLY, "status", "--home", str(processes.directory / "none")],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert command.stdout is not None
        command.stdout.readline()
        time.sleep(delay_s)  # of the loading itself: nothing tells how far it is
        command.send_signal(signal.SIGINT)
        _, told = command.communicate(timeout=STOP_TIMEOUT_S)
        assert command.returncode in (8, 130, -signal.SIGINT)  # it may have ended before, or be at its very end
        assert b"Traceback" not in told


def test_lading_stop_returns_when_the_process_has_ended(alone: HomeNode) -> None:
    """Goal: after `lading stop` nothing runs any more. Method: stop, then look at the process; its exit code is 0."""
    alone.start()
    assert alone.run("stop").code == 0
    assert alone.wait_ended(2) == 0
    assert alone.run("status").code == 8


def test_killed_node_is_not_running_although_its_socket_is_there(alone: HomeNode) -> None:
    """Goal: a running node answers, a killed one is exit 8 also while its socket file is still there. Method: kill -9, then ask."""
    alone.start()
    alone.kill()
    assert alone.socket_path.exists()
    asked = alone.run("status")
    assert (asked.code, asked.error) == (8, "E-NOT-RUNNING")
    alone.start()
    assert alone.run("status").code == 0


def test_node_that_a_library_brings_down_leaves_what_its_threads_were_at(alone: HomeNode) -> None:
    """Goal: a crash outside Python can be looked into. Method: the signal that it ends with; what stands in the log then."""
    alone.start()
    alone.signal(signal.SIGSEGV)
    assert alone.wait_ended() == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in alone.log
    assert "node/offload.py" in alone.log
    assert "node/run.py" in alone.log


def test_nodes_on_different_lanes_form_one_net_and_records_move_both_ways(processes: Processes, tmp_path: Path) -> None:
    """Goal: the fallback is one node's own choice. Method: one of two nodes runs the library's session and muxer; each puts 8 MiB, asks
    for every copy, and reads the other's."""
    homes = processes.testnet_homes(2)
    homes[1].settings["lane"] = "stock"
    start_all(homes)
    for number, (owner, reader) in enumerate((homes, homes[::-1])):
        source = random_folder(tmp_path / f"source{number}", seed=number, size=8 * MIB)
        record = owner.put(source, ack="full")["record"]
        owner.call("share", {"record": record, "to": reader.member})
        wait_until(partial(_knows, reader, record), "the wrap to arrive")
        reader.get(record, tmp_path / f"target{number}")
        assert_same(source, tmp_path / f"target{number}")


def _knows(reader: HomeNode, record: str) -> bool:
    return any(row["record"] == record for row in reader.call("ls")["records"])
