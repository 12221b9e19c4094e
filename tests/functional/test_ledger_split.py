"""A chain whose hosts are cut into three and two, written to on both sides, and joined again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.functional.lan import Lan, NoLan, lan
from tests.functional.nodes import PROGRAM, HomeNode, Processes, wait_meshed, wait_until
from tests.functional.test_ledger import FINAL_S, chain_of, nominate, place_of, state_of, wait_final, wait_one_place

HOSTS = 5
PORT = 4747
SPLIT_S = float(os.environ.get("FUNCTIONAL_SPLIT_S", "20"))
"""How long both sides are written to; the project's own figure is 60."""


@pytest.fixture
def hosts() -> Iterator[Lan]:
    try:
        with lan(HOSTS) as found:
            yield found
    except NoLan as why:
        pytest.skip(str(why))


def start_on(hosts: Lan, processes: Processes) -> list[HomeNode]:
    nodes = processes.testnet_homes(HOSTS, ping_interval_s=1, ping_timeout_s=2)
    first = ""
    for host, node in enumerate(nodes, 1):
        node.program = (*hosts.command(host), *PROGRAM)
        node.settings |= {"listen": f"/ip4/{hosts.address(host)}/tcp/{PORT}", "static_peers": first}
        node.start()
        first = first or f"/ip4/{hosts.address(1)}/tcp/{PORT}/p2p/{node.peer_id}"
    wait_meshed(nodes)
    return nodes


@pytest.mark.slow
def test_chain_cut_in_two_and_written_to_on_both_sides_agrees_after_healing(hosts: Lan, processes: Processes) -> None:
    """Goal: a partition costs time, never a final block or a transaction. Method: five seats on five hosts, a switch cut three to two; a
    transaction on each side now and then for SPLIT_S, in blocks on both and final on none; joined again, all of them are final everywhere
    and what was final before is where it was. Prints the time from joining to agreement."""
    nodes = start_on(hosts, processes)
    wait_final(nodes, nominate(nodes[0], "n2"))
    _, _, final_before = wait_one_place(nodes)
    before = {str(row["block"]) for row in nodes[0].call("ledger.history", {"limit": 1000})["blocks"] if row["height"] <= final_before}
    majority, minority = nodes[:3], nodes[3:]
    hosts.split({4, 5})
    for node in nodes:
        wait_until(lambda node=node: not chain_of(node)["committee"]["finality_goes_on"], "the others to be missed", poll_s=0.5)  # type: ignore[misc]
    written: list[str] = []
    ends_at, turn = time.monotonic() + SPLIT_S, 0
    while time.monotonic() < ends_at or turn < 2:
        for side in (majority, minority):
            written.append(nominate(side[turn % len(side)], f"n{(turn + 2) % HOSTS + 1}", withdraw=bool(turn // 10 % 2)))
        for node in (majority[0], minority[0]):
            last = written[-2 if node is majority[0] else -1]
            wait_until(lambda node=node, last=last: state_of(node, last) == "in_block", "in a block", timeout_s=FINAL_S, poll_s=0.5)  # type: ignore[misc]
        turn += 1
    assert place_of(majority[0])[0] != place_of(minority[0])[0]
    assert all(state_of(node, one) != "final" for node in (majority[0], minority[0]) for one in written)
    hosts.heal()
    joined_at = time.monotonic()
    for one in written:
        wait_final(nodes, one)
    wait_one_place(nodes)
    print(
        f"\ncut for {SPLIT_S:.0f} s, {len(written)} transactions: all final everywhere {time.monotonic() - joined_at:.1f} s after joining"
    )
    after = {str(row["block"]) for row in nodes[4].call("ledger.history", {"limit": 1000})["blocks"]}
    assert before <= after
