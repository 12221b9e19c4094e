"""A short story on the library's own session and muxer: what `make test` shows of `make test-stock`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.functional.conftest import MIB
from tests.functional.nodes import Processes, start_all, wait_meshed, wait_until
from tests.functional.sources import assert_same, random_folder


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [("stock", "stock", "stock"), ("own", "stock", "own")], ids="-".join)
def test_nodes_on_the_stock_lane_keep_share_read_and_come_back(lanes: tuple[str, str, str], processes: Processes, tmp_path: Path) -> None:
    """Goal: the way out works, alone and beside ours. Method: three nodes; a put with three copies, a share, a get; one is killed and comes
    back, and takes a copy of the next record."""
    nodes = processes.testnet_homes(3)
    for node, lane in zip(nodes, lanes, strict=True):
        node.settings["lane"] = lane
    start_all(nodes)
    owner, other, reader = nodes
    source = random_folder(tmp_path / "source", seed=3, size=12 * MIB)
    put = owner.put(source, replicas=3, ack="full")
    assert put["survives"] == 2
    owner.call("share", {"record": put["record"], "to": reader.member})
    wait_until(lambda: reader.call("ls")["records"], "the wrap to arrive")
    reader.get(put["record"], tmp_path / "target")
    assert_same(source, tmp_path / "target")
    other.kill()
    other.start()
    wait_meshed(nodes)
    (tmp_path / "next").write_bytes(b"when it was back" * 20_000)
    assert len(owner.put(tmp_path / "next", replicas=3, ack="full")["holders"]) == 3
