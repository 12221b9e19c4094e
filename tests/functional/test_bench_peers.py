"""The benchmark row that needs Syncthing: says so where it is missing, and keeps it on this machine where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmark
from benchmarks.harness import RESULTS, Skipped
from benchmarks.syncthing import SyncthingPair, program

LOOPBACK_IPV4 = "0100007F"
UNCONNECTED = "00000000:0000"


def _sockets(pids: list[int]) -> list[tuple[str, str, str]]:
    """Kind (tcp, tcp6, udp, udp6), own and other address of each Internet socket of the processes, as /proc/net writes them."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    found: list[tuple[str, str, str]] = []
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in inodes:
                found.append((kind, words[1], words[2]))
    return found


def test_row_peers_when_syncthing_is_missing_then_is_skipped_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Goal: `make bench` goes on without it. Method: an empty PATH; the reason is printed and no result file is written."""
    results = RESULTS / "peers.json"
    before = results.read_bytes() if results.exists() else None
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["benchmarks", "peers"])
    benchmark.main()
    assert "skipped: peers: syncthing is not on the PATH; on Debian: apt-get install syncthing" in capsys.readouterr().out
    assert (results.read_bytes() if results.exists() else None) == before


def test_syncthing_pair_when_it_moves_files_then_speaks_on_loopback_alone(tmp_path: Path) -> None:
    """Goal: the benchmark sends nothing beyond the machine, and moves what it says. Method: one file and one folder; all sockets listed."""
    try:
        program()
    except Skipped as why:
        pytest.skip(str(why))
    with SyncthingPair() as pair:
        single = pair.directory / "single"
        single.write_bytes(b"one file")
        pair.move(single, [])
        folder = pair.directory / "some"
        folder.mkdir()
        for name in ("a", "b", "c"):
            (folder / name).write_text(name)
        pair.move(folder, ["a", "b", "c"])
        received = pair.receiver.seat.folder
        assert (received / "single").read_bytes() == b"one file"
        assert sorted(path.read_text() for path in (received / "some").iterdir()) == ["a", "b", "c"]
        pids = [*pair.sender.pids(), *pair.receiver.pids()]
        sockets = _sockets(pids)
        assert {kind for kind, _, _ in sockets} == {"tcp"}
        for _, own, other in sockets:
            assert own.startswith(LOOPBACK_IPV4)
            assert other == UNCONNECTED or other.startswith(LOOPBACK_IPV4)
        pair.clear("some")
        assert not (received / "some").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
