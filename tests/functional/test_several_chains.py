"""A chain beside the domain's with real processes: founded by one member, followed by another, unknown to the third."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from protocols.errors import LadingError, Reason
from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.test_ledger import FINAL_S, is_final


def chains_of(node: HomeNode) -> dict[str, Mapping[str, Any]]:
    """Rows of the node's chains by name."""
    return {str(row.get("name", row["chain"])): row for row in node.call("ledger.status")["chains"]}


def final_kinds(node: HomeNode, chain: str) -> set[str]:
    """Kinds of transactions in final blocks."""
    blocks: Sequence[Mapping[str, Any]] = node.call("ledger.history", {"chain": chain})["blocks"]
    return {kind for row in blocks if row["state"] == "final" for kind in row["kinds"]}


def test_further_chain_is_founded_followed_and_grows_beside_the_domains(processes: Processes) -> None:
    """Goal: from `ledger found` and `ledger follow` to a second seat, on a chain that only those read who maintain it. Method: three
    members of one domain; the first founds, the second follows what `ledger found` printed, the third does neither; the founder's node
    gives the members accounts, of which the second node is given nothing; its offer is certified, and it has all; the domain's chain has
    nothing of it, and the third node knows of one chain."""
    homes = processes.testnet_homes(3)
    founder, follower, other = homes
    made = processes.run("ledger", "found", "trials", "--seal", "authority", "--read", "private", home=founder.home)
    assert made.code == 0, made
    anchor = str(made.data["anchor"])
    for wrong, reason in ((anchor[:-1], Reason.USAGE), (anchor, Reason.CONFLICT)):
        assert processes.run("ledger", "follow", wrong, home=founder.home).error == reason.stable_name
    followed = processes.run("ledger", "follow", anchor, home=follower.home)
    assert followed.code == 0, followed
    assert followed.data["has_keys"]
    start_all(homes)
    with pytest.raises(LadingError) as unknown:
        other.call("ledger.status", {"chain": "trials"})
    assert unknown.value.reason is Reason.NOT_FOUND
    wait_until(lambda: "CertIssue" in final_kinds_or_none(founder), "accounts there, final", timeout_s=FINAL_S, poll_s=0.25)
    (domain,) = chains_of(other)
    assert len({chains_of(node)[domain]["chain"] for node in homes}) == 1
    trials = anchor.split(":")[0]
    (row,) = follower.call("ledger.status", {"chain": trials})["chains"]
    assert ("name" in row, row["height"]) == (False, 0)
    offer = str(follower.call("miner.offer", {"chain": trials})["offer"])
    with pytest.raises(LadingError):
        founder.call("miner.certify", {"offer": offer})  # of another chain
    assert founder.call("miner.certify", {"offer": offer, "chain": "trials"})["missing"] == 0
    wait_until(lambda: "MinerCertify" in final_kinds_or_none(follower), "a second candidate, final", timeout_s=FINAL_S, poll_s=0.25)
    assert set(chains_of(founder)) == set(chains_of(follower)) > set(chains_of(other))
    assert "MinerCertify" not in final_kinds(founder, domain)
    rows = [chains_of(node)["trials"] for node in (founder, follower)]
    assert {row["chain"] for row in rows} == {anchor.split(":")[0]}
    shown = processes.run("ledger", "status", "--chain", "trials", home=follower.home)
    assert [row["name"] for row in shown.data["chains"]] == ["trials"]
    assert set(founder.status()["ledger"]) == {domain, "trials"}


def test_further_chain_is_cared_for_as_the_domains_is(processes: Processes) -> None:
    """Goal: what people do to a chain works on every chain of a home. Method: a chain that two follow grows; both nodes are stopped while a
    running home refuses; it is verified, exported, taken back and imported again at the follower, to tip and root of before, once after its
    file and its database were lost; the domain's chain stands where it stood, and none takes the other's file."""
    founder, follower = homes = processes.testnet_homes(2)
    anchor = str(processes.run("ledger", "found", "trials", "--seal", "authority", home=founder.home).data["anchor"])
    assert processes.run("ledger", "follow", anchor, home=follower.home).code == 0
    start_all(homes)
    wait_until(lambda: "CertIssue" in final_kinds_or_none(follower), "accounts there, final", timeout_s=FINAL_S, poll_s=0.25)
    follower.call("miner.nominate", {"member": "n1", "withdraw": False})
    wait_until(lambda: is_final(follower, "MinerNominate"), "the domain's chain grows", timeout_s=FINAL_S, poll_s=0.25)
    history = follower.run("ledger", "history", "--chain", "trials").data
    assert (history["chain"], history["blocks"][-1]["kinds"]) == (anchor.split(":")[0], ["ChainGenesis"])
    assert follower.run("ledger", "diff", founder.peer_id, "--chain", "trials").data == {"stopped": False, "differs": None}
    assert follower.run("ledger", "diff", founder.peer_id, "--chain", "trails").error == "E-NOT-FOUND"
    for words in (["verify"], ["rollback", "0"], ["rebuild-index"], ["export", str(processes.directory / "x")]):
        assert follower.run("ledger", *words, "--chain", "trials").error == "E-LOCKED"
    for node in homes:
        assert node.stop() in (0, 143)
    verified = follower.run("ledger", "verify", "--chain", "trials")
    domains = follower.run("ledger", "verify").data
    assert verified.code == 0, verified
    assert verified.data["height"] >= 1
    assert (verified.data["chain"], domains["chain"]) == (anchor.split(":")[0], str(domains["chain"]))
    assert verified.data["chain"] != domains["chain"]
    place = (verified.data["tip"], verified.data["state_root"])

    exported, other = processes.directory / "trials.chain", processes.directory / "domain.chain"
    assert follower.run("ledger", "export", str(exported), "--chain", anchor[:12]).data["blocks"] == verified.data["height"] + 1
    assert follower.run("ledger", "export", str(exported), "--chain", "trials").error == "E-CONFLICT"
    assert follower.run("ledger", "export", str(other)).data["chain"] == domains["chain"]
    would = follower.run("ledger", "rollback", "0", "--dry-run", "--chain", "trials").data
    assert (would["height_before"], would["dry_run"]) == (verified.data["height"], True)
    assert follower.run("ledger", "rollback", "0", "--chain", "trials").data["chain"] == verified.data["chain"]
    assert follower.run("ledger", "verify", "--chain", "trials").data["height"] == 0
    assert follower.run("ledger", "rollback", "1", "--chain", "trials").error == "E-NOT-FOUND"
    assert follower.run("ledger", "rebuild-index", "--chain", "trials").data == {"chain": verified.data["chain"], "mended": 0}
    for words in ([str(exported)], [str(other), "--chain", "trials"]):
        assert follower.run("ledger", "import", *words).error == "E-WRONG-CHAIN"
    found = follower.run("ledger", "import", str(exported), "--chain", "trials").data
    assert (found["tip"], found["state_root"]) == place
    (follower.home / "identity" / "chains" / verified.data["chain"] / "chain").write_bytes(b"damaged")
    shutil.rmtree(follower.home / "chains")
    assert follower.run("ledger", "verify", "--chain", "trials").error == "E-NOT-FOUND"  # nothing here says which chain is called so
    assert follower.run("ledger", "verify", "--chain", verified.data["chain"]).error == "E-INTEGRITY"
    assert follower.run("ledger", "import", str(exported), "--chain", verified.data["chain"]).code == 0
    again = follower.run("ledger", "verify", "--chain", "trials").data
    assert (again["tip"], again["state_root"]) == place
    assert follower.run("ledger", "verify").data["tip"] == domains["tip"]
    follower.start()
    row = chains_of(follower)["trials"]
    assert (row["tip"], row["state_root"]) == place
    assert follower.call("miner.status", {"chain": "trials"})["here"]["has_keys"]


def final_kinds_or_none(node: HomeNode) -> set[str]:
    """None while the chain is not here."""
    try:
        return final_kinds(node, "trials")
    except LadingError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return set()
