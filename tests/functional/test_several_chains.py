"""A chain beside the domain's with real processes: founded by one member, followed by another, unknown to the third."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from protocols.errors import LadingError, Reason
from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.test_ledger import FINAL_S


def chains_of(node: HomeNode) -> dict[str, Mapping[str, Any]]:
    """Rows of the node's chains by name."""
    return {str(row.get("name", row["chain"])): row for row in node.call("ledger.status")["chains"]}


def final_kinds(node: HomeNode, chain: str) -> set[str]:
    """Kinds of transactions in final blocks."""
    blocks: Sequence[Mapping[str, Any]] = node.call("ledger.history", {"chain": chain})["blocks"]
    return {kind for row in blocks if row["state"] == "final" for kind in row["kinds"]}


def test_further_chain_is_founded_followed_and_grows_beside_the_domains(processes: Processes) -> None:
    """Goal: from `ledger found` and `ledger follow` to a second seat. Method: three members of one domain; the first founds, the second
    follows what `ledger found` printed, the third does neither; the founder's node gives the members accounts, the second one's offer is
    certified, final at both; the domain's chain has nothing of it, and the third node knows of one chain; a fifth chain is refused."""
    homes = processes.testnet_homes(3)
    founder, follower, other = homes
    made = processes.run("ledger", "found", "trials", "--seal", "authority", home=founder.home)
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
    wait_until(lambda: "CertIssue" in final_kinds_or_none(follower), "accounts there, final", timeout_s=FINAL_S, poll_s=0.25)
    assert set(chains_of(founder)) == set(chains_of(follower)) > set(chains_of(other))
    (domain,) = chains_of(other)
    assert len({chains_of(node)[domain]["chain"] for node in homes}) == 1
    offer = str(follower.call("miner.offer", {"chain": "trials"})["offer"])
    with pytest.raises(LadingError):
        founder.call("miner.certify", {"offer": offer})  # of another chain
    assert founder.call("miner.certify", {"offer": offer, "chain": "trials"})["missing"] == 0
    wait_until(lambda: "MinerCertify" in final_kinds(follower, "trials"), "a second candidate, final", timeout_s=FINAL_S, poll_s=0.25)
    assert "MinerCertify" not in final_kinds(founder, domain)
    rows = [chains_of(node)["trials"] for node in (founder, follower)]
    assert {row["chain"] for row in rows} == {anchor.split(":")[0]}
    shown = processes.run("ledger", "status", "--chain", "trials", home=follower.home)
    assert [row["name"] for row in shown.data["chains"]] == ["trials"]
    assert set(founder.status()["ledger"]) == {domain, "trials"}


def final_kinds_or_none(node: HomeNode) -> set[str]:
    """None while the chain is not here."""
    try:
        return final_kinds(node, "trials")
    except LadingError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return set()
