"""A light node with real processes: what it puts becomes final and is proven to it, also without a peer; then full, then light again;
beside a chain that it keeps."""

from __future__ import annotations

from pathlib import Path

from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.test_anchors import file_of, ledger_of
from tests.functional.test_joining import QUIET, join, ticket_of
from tests.functional.test_ledger import FINAL_S, chain_of, wait_one_place
from tests.functional.test_several_chains import chains_of


def wait_final_at(node: HomeNode, record: str) -> None:
    wait_until(lambda: ledger_of(node, record)["state"] == "final", "final", timeout_s=FINAL_S, poll_s=0.5)


def bring_light(processes: Processes, full: list[HomeNode]) -> HomeNode:
    """A newcomer whose node is light."""
    assert join(processes, ticket_of(full[0]), "light").code == 0
    node = processes.node(processes.directory / "light", **QUIET, ledger="light")
    start_all([node], among=[*full, node])
    return node


def test_records_of_a_light_node_become_final_and_it_goes_on_without_the_peer_that_it_asked(processes: Processes, tmp_path: Path) -> None:
    """Goal: put, status, lists, folder, share and get work on a light node; one full node less stops nothing; the way to full and back.
    Method: three full nodes and a newcomer that is light; a kill; restarts with the other setting."""
    full = processes.testnet(3)
    light = bring_light(processes, full)
    first = str(light.run("put", str(file_of(tmp_path, "first"))).data["record"])
    assert ledger_of(light, first)["state"] in ("local", "pooled", "in_block", "final")
    wait_final_at(light, first)
    said = ledger_of(light, first)
    assert (said["status"], said["is_this_statement"], said["proof"]) == ("active", True, "record and place")
    wait_final_at(full[1], first)
    assert ledger_of(full[1], first)["height"] == said["height"]
    assert {row["record"]: row["state"] for row in light.run("ls").data["records"]} == {first: "final"}
    row = chain_of(light)
    assert (row["role"], row["seals"]) == ("light", False)
    assert 0 < row["headers"] <= 16
    assert row["disk_bytes"] > 0
    assert chain_of(full[0])["role"] == "archive"
    assert light.run("ledger", "show", str(said["tx"])).data["height"] == said["height"]
    assert light.run("ledger", "show", "0").error == "E-NOT-KEPT"
    assert light.run("miner", "status").error == "E-NOT-KEPT"
    assert light.run("ledger", "history").data["blocks"]

    assert light.run("share", first, "--to", full[2].member).code == 0
    wait_until(lambda: first in str(full[2].call("ls")["records"]), "the wrap to arrive")
    full[2].get(first, tmp_path / "read")
    assert (tmp_path / "read").read_bytes() == (tmp_path / "first.txt").read_bytes()

    full[1].kill()
    second = str(light.run("put", str(file_of(tmp_path, "second"))).data["record"])
    wait_final_at(light, second)

    def filed() -> list[str]:
        folder = light.run("folder")
        return [one["record"] for one in folder.data["records"]] if folder.code == 0 else []

    wait_until(lambda: filed() == [first, second], "its own folder by proof", timeout_s=FINAL_S, poll_s=1.0)
    full[1].start()

    assert light.stop() in (0, 143)
    assert light.run("ledger", "verify").error == "E-NOT-KEPT"
    light.settings["ledger"] = "full"
    start_all([light], among=[*full, light])
    wait_one_place([full[0], light])
    assert chain_of(light)["role"] == "archive"
    wait_final_at(light, first)
    assert light.stop() in (0, 143)
    light.settings["ledger"] = "light"
    start_all([light], among=[*full, light])
    wait_until(lambda: chain_of(light)["role"] == "light" and chain_of(light)["finalized_height"], "light again", timeout_s=FINAL_S)
    third = str(light.run("put", str(file_of(tmp_path, "third"))).data["record"])
    wait_final_at(light, third)
    assert not light.status()["alerts"]


def test_light_node_keeps_a_further_chain_and_leaves_what_waits_for_several_to_full_ones(processes: Processes, tmp_path: Path) -> None:
    """Goal: light is the domain's chain alone; what needs a list of all that waits is refused under its name. Method: a newcomer founds a
    chain, and starts light; both chains are final there; it answers and puts what it can prove, and no more."""
    full = processes.testnet(2)
    assert join(processes, ticket_of(full[0]), "light").code == 0
    home = processes.directory / "light"
    assert processes.run("ledger", "found", "trials", "--seal", "authority", home=home).code == 0
    light = processes.node(home, **QUIET, ledger="light")
    start_all([light], among=[*full, light])

    def roles() -> list[tuple[str, bool]]:
        return [(str(row["role"]), bool(row["finalized_height"])) for row in light.call("ledger.status")["chains"]]

    assert light.run("miner", "status", "--chain", "trials").code == 0
    record = str(light.run("put", str(file_of(tmp_path, "alone"))).data["record"])
    wait_final_at(light, record)
    wait_until(lambda: roles()[0] == ("light", True), "the domain's chain by proofs", timeout_s=FINAL_S, poll_s=0.5)
    assert [role for role, _ in roles()] == ["light", "archive"]
    assert chains_of(light)["trials"]["seals"]
    assert set(light.status()["ledger"]) == set(chains_of(light))
    for words in (("inbox",), ("approve", record), ("file", "extend", record, "--until", "never")):
        assert light.run(*words).error == "E-NOT-KEPT", words
    shared = ("put", str(file_of(tmp_path, "shared")), "--owner", full[1].member)
    assert light.run(*shared).error == "E-NOT-KEPT"
    assert light.run("file", "erase", record, "--yes").code == 0
