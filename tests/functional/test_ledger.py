"""The chain with real processes: founded, followed, taken along as a file; its council; lost promises. Under load: test_ledger_load.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.signed import read_signers, sign_many
from node.chain_founding import certificate_of
from node.chain_home import read_chain_file
from node.chain_keys import act_key
from node.home import member_key_file, open_home
from protocols.codec import encode, replace
from protocols.errors import LadingError, Reason
from protocols.identity.certificates import verify_member_chain
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, sign_transaction
from protocols.ledger.offers import encode_signed
from protocols.ledger.transactions import cert_status, miner_nominate
from protocols.types import AccountId, UnixMillis
from tests.functional.nodes import HomeNode, Processes, free_port, start_all, wait_until
from tests.functional.test_joining import QUIET, found, join_words, ticket_of

# A node listens for ten seconds before its first seal or vote; final a moment later. A disk that others keep busy stalls every block of
# five nodes, and after a vote that came too late the next block waits twice as long.
FINAL_S = 180.0


def chain_of(node: HomeNode) -> Mapping[str, Any]:
    (row,) = node.call("ledger.status")["chains"]
    assert isinstance(row, Mapping)
    return row


def place_of(node: HomeNode) -> tuple[str, str, int]:
    """Where a node stands: tip, state root, final height."""
    row = chain_of(node)
    return str(row["tip"]), str(row.get("state_root")), int(row["finalized_height"])


def nominate(node: HomeNode, name: str, *, withdraw: bool = False) -> str:
    """A transaction of the node's member; the candidate is said yes or no to in turn."""
    return str(node.call("miner.nominate", {"member": name, "withdraw": withdraw})["transaction"])


def state_of(node: HomeNode, transaction: str) -> str:
    """`pooled`, `in_block` or `final`; empty while the node does not know it."""
    try:
        return str(node.call("ledger.show", {"what": transaction})["state"])
    except LadingError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return ""


def is_final(node: HomeNode, kind: str) -> bool:
    """Whether a transaction of this kind is."""
    return any(kind in row["kinds"] and row["state"] == "final" for row in node.call("ledger.history")["blocks"])


def wait_final(nodes: Sequence[HomeNode], transaction: str) -> None:
    for node in nodes:
        try:
            wait_until(lambda node=node: state_of(node, transaction) == "final", "final", timeout_s=FINAL_S, poll_s=0.5)  # type: ignore[misc]
        except AssertionError as error:
            told = [(one.home.name, dict(chain_of(one))) for one in nodes if one.is_up]
            raise AssertionError(f"not final at {node.home.name}: {told}, {nodes[0].call('ledger.history')}") from error


def wait_one_place(nodes: Sequence[HomeNode]) -> tuple[str, str, int]:
    """Until all stand at one tip with one state root and one final height."""
    wait_until(lambda: len({place_of(node) for node in nodes}) == 1, "one place", timeout_s=FINAL_S, poll_s=0.5)
    return place_of(nodes[0])


def test_domain_founds_a_chain_and_who_joins_is_known_to_it_and_follows(processes: Processes) -> None:
    """Goal: from `init` and `join` to one head that two processes follow. Method: a founder; a newcomer, who gets an account by a block
    that becomes final at both; the newcomer's offer is certified; the running home refuses to be verified, the stopped one holds; the
    newcomer is put out, and the chain says so."""
    founder = found(processes)
    assert chain_of(founder)["height"] == 0
    assert len(chain_of(founder)["miners"]) == 1
    joined = processes.run("join", ticket_of(founder), *join_words("b"), home=processes.directory / "b")
    assert joined.code == 0, joined
    newcomer = processes.node(processes.directory / "b", **QUIET)
    start_all([newcomer], among=[founder, newcomer])
    wait_until(lambda: is_final(founder, "CertIssue"), "an account for the newcomer, final", timeout_s=FINAL_S, poll_s=0.5)
    tip, root, final = wait_one_place([founder, newcomer])
    assert final >= 1
    assert root != "None"
    assert chain_of(newcomer)["chain"] == chain_of(founder)["chain"]
    assert founder.status()["ledger"]["ACME"] == {
        "height": chain_of(founder)["height"],
        "tip": tip,
        "finalized": final,
        "chain": chain_of(founder)["chain"],
    }

    assert [(chain_of(node)["refused"], chain_of(node)["peers_at_fault"]) for node in (founder, newcomer)] == [([], [])] * 2
    assert [check["level"] for check in founder.call("doctor")["checks"] if check["name"] == "refused"] == ["ok"]

    offer = newcomer.run("miner", "offer").data["offer"]
    assert newcomer.run("miner", "certify", offer).error == "E-NOT-MEMBER"
    certified = founder.run("miner", "certify", "-", stdin=offer.encode())
    wait_final([founder, newcomer], certified.data["transaction"])
    assert newcomer.call("miner.status")["here"]["certified"] is True
    seated = founder.run("council", "propose", "--seat", offer)
    wait_final([founder, newcomer], seated.data["transaction"])
    assert len(newcomer.call("council.inbox")["planned"]["members"]) == 2

    told = newcomer.run("ledger", "diff", founder.peer_id)
    assert (told.data, told.json["warnings"]) == (
        {"stopped": False, "differs": None},
        ["this node has not stopped: its state is that of every block it follows"],
    )
    assert founder.run("ledger", "verify").error == "E-LOCKED"
    wait_one_place([founder, newcomer])
    here = chain_of(newcomer)
    assert newcomer.stop() in (0, 143)
    verified = newcomer.run("ledger", "verify").data
    assert (verified["tip"], verified["state_root"], verified["height"]) == (here["tip"], here["state_root"], here["height"])
    assert founder.run("member", "revoke", newcomer.member, "--cause", "left").code == 0
    wait_until(lambda: is_final(founder, "CertStatus"), "the account revoked, final", timeout_s=FINAL_S, poll_s=0.5)


def test_member_that_the_ledger_revokes_is_out_of_the_domain_from_that_block_on(processes: Processes, tmp_path: Path) -> None:
    """Goal: a revocation on the chain is one everywhere.

    Method: a founder who is the council, a light node, a member; the council revokes the member's account by a transaction alone. What the
    member anchored before stands; what it signs afterwards is refused; both others end its connections; the founder's node makes a
    revocation and a new fence by itself, once, so the light node knows it too; the member does not come back by starting again.
    """
    founder = found(processes)
    for name in ("light", "c"):
        assert processes.run("join", ticket_of(founder), *join_words(name), home=processes.directory / name).code == 0
    light = processes.node(processes.directory / "light", **QUIET, ledger="light")
    out = processes.node(processes.directory / "c", **QUIET)
    start_all([light, out], among=[founder, light, out])
    (tmp_path / "letter.txt").write_text("written before")
    record = str(out.put(tmp_path / "letter.txt")["record"])

    def state_of_record() -> object:
        return founder.call("file.status", {"record": record})["ledger"]["state"]

    wait_until(lambda: state_of_record() == "final", "its record, final", timeout_s=FINAL_S, poll_s=0.5)
    fence = fence_of(founder)
    assert fence_of(light) == fence

    now = UnixMillis(int(time.time() * 1000))
    own = open_home(out.home, None)
    member, kept = member_key_file(founder.home, None), read_chain_file(founder.home)
    assert own.member is not None
    assert member is not None
    assert kept is not None
    chain = own.node_chain[1:]
    serial = certificate_of(verify_member_chain(chain, own.roots, now=now // 1000, revocations=None), chain, country="", role="").serial
    act = Content(
        version=ENVELOPE_VERSION,
        chain=kept.chain,
        kind=cert_status.KIND.number,
        sender=AccountId(open_home(founder.home, None).member_id),
        serial=NO_SERIAL,
        ts_ms=now,
        until_ms=UnixMillis(now + 3_600_000),
        links=(),
        body=encode(cert_status.Body(serial, "revoke", "by the council")),
    )
    file = tmp_path / "act.txt"
    file.write_text(encode_signed(sign_transaction(act, [act_key(member.seed, own.domain_id)])))
    assert founder.run("ledger", "submit", str(file)).code == 0
    wait_until(lambda: is_final(founder, "CertStatus"), "the account revoked, final", timeout_s=FINAL_S, poll_s=0.5)
    wait_until(lambda: fence_of(light) == fence_of(founder) == fence + 1, "another fence at both", timeout_s=30, poll_s=0.5)
    names = [{row["name"] for row in node.call("member.list")["members"] if not row["revoked"]} for node in (founder, light)]
    assert names == [{"founder", "light"}] * 2
    assert founder.connected() == {light.peer_id}
    assert light.connected() == {founder.peer_id}
    assert state_of_record() == "final"
    account = AccountId(own.member_id)
    content = replace(
        act,
        kind=miner_nominate.KIND.number,
        sender=account,
        serial=serial,
        body=encode(miner_nominate.Body(act.sender, True)),
    )
    file.write_text(encode_signed(sign_transaction(content, [own.member.signing])))
    refused = founder.run("ledger", "submit", str(file))
    assert refused.code == 5
    assert "revoked" in str(refused.json["error"])

    out_id = out.peer_id
    assert out.stop() in (0, 143)
    out.start()
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        assert not any(out_id in node.connected() for node in (founder, light))
        time.sleep(0.5)
    assert fence_of(founder) == fence + 1


def fence_of(node: HomeNode) -> int:
    """Number of the greatest fence that a node knows."""
    (text,) = (check["message"] for check in node.call("doctor")["checks"] if check["name"] == "fence")
    return int(str(text).split()[-1])


def test_chain_travels_as_a_file_and_goes_back_to_a_height(processes: Processes) -> None:
    """Goal: what people do to a chain that stands still. Method: export from one node; another rolls back to the first block, imports
    the file and stands where the first one stood; an altered file is refused; a home without a chain follows it."""
    nodes = processes.testnet(2)
    wait_final(nodes, nominate(nodes[0], "n2"))
    tip, root, _ = wait_one_place(nodes)
    for node in nodes:
        assert node.stop() in (0, 143)
    exported = processes.directory / "net.chain"
    assert nodes[0].run("ledger", "export", str(exported)).data["blocks"] >= 2
    assert nodes[1].run("ledger", "rollback", "0").data["height"] == 0
    altered = processes.directory / "altered.chain"
    data = bytearray(exported.read_bytes())
    data[-10] ^= 1
    altered.write_bytes(data)
    assert nodes[1].run("ledger", "import", str(altered)).code == 6
    found_again = nodes[1].run("ledger", "import", str(exported)).data
    assert (found_again["tip"], found_again["state_root"]) == (tip, root)
    for name in ("chain", "chain.key", "promises"):
        (nodes[1].home / "identity" / name).unlink()
    assert nodes[1].run("ledger", "verify").error == "E-NOT-FOUND"
    assert nodes[1].run("ledger", "import", str(exported)).code == 0
    nodes[1].start()
    assert place_of(nodes[1])[:2] == (tip, root)
    assert nodes[1].call("miner.status")["here"]["has_keys"] is False


def test_council_of_three_acts_when_two_have_signed(processes: Processes) -> None:
    """Goal: m of n, each on his own machine. Method: one proposes that all three must agree; alone it is refused a place; what it says is
    read before it is signed; the second signature sends it; the same change again is no change."""
    nodes = processes.testnet(3)
    proposed = nodes[0].run("council", "propose", "--threshold", "3").data
    assert (proposed["missing"], proposed["state"]) == (1, "proposed")
    assert [one["missing"] for one in nodes[0].call("council.inbox")["acts"]] == [1]
    read = nodes[1].run("council", "approve", "-", "--dry-run", stdin=proposed["act"].encode()).data
    assert (read["kind"], read["body"]["council"]["threshold"]) == ("CouncilUpdate", 3)
    assert nodes[0].run("council", "approve", proposed["act"]).data["missing"] == 1
    approved = nodes[1].run("council", "approve", proposed["act"]).data
    assert (approved["missing"], approved["transaction"]) == (0, proposed["transaction"])
    wait_final(nodes, approved["transaction"])
    assert nodes[2].call("council.inbox")["planned"]["threshold"] == 3
    assert nodes[2].run("council", "propose", "--threshold", "2").error == "E-USAGE"


def test_lost_promises_end_the_vote_and_the_founders_kit_brings_it_back(processes: Processes) -> None:
    """Goal: a founder alone is never locked out of his chain. Method: the promises of the only seat are lost, and status says so; the kit
    makes a new voting key; the act that says so, and what comes after it, become final."""
    home = processes.directory / "founder"
    made = processes.run("init", "--domain", "ACME", "--listen", f"/ip4/127.0.0.1/tcp/{free_port()}", "--no-passphrase", home=home)
    (processes.directory / "kit.txt").write_text(made.data["recovery_kit"])
    founder = processes.node(home, **QUIET).start()
    assert founder.stop() in (0, 143)
    (home / "identity" / "promises").unlink()
    founder.start()
    wait_until(lambda: any("lading council recover KIT" in alert for alert in founder.status()["alerts"]), "what mends it")
    assert founder.run("council", "recover", str(processes.directory / "kit.txt")).error == "E-LOCKED"
    assert founder.stop() in (0, 143)
    transaction = founder.run("council", "recover", str(processes.directory / "kit.txt")).data["transaction"]
    founder.start()
    wait_final([founder], transaction)
    assert not founder.status()["alerts"]
    assert founder.run("ledger", "show", transaction).data["kind"] == "CouncilRecover"
    wait_final([founder], nominate(founder, founder.member))


def test_voting_key_is_rotated_live_and_after_its_promises_were_lost(processes: Processes) -> None:
    """Goal: by its own member, by one command. Method: three members, two are a quorum. One rotates and the third is killed: finality needs
    the new key. Then its promises are deleted: it is silent, status and doctor name the command, the command mends it while the others make
    the change final, and finality needs it again."""
    first, second, third = processes.testnet(3)
    key = key_of_seat(first)
    rotated = first.run("council", "rotate").data
    wait_final([first, second, third], rotated["transaction"])
    assert key_of_seat(second, first.member) == rotated["key"] != key
    third.kill()
    wait_final([first, second], nominate(first, first.member))
    third.start()
    assert first.stop() in (0, 143)
    (first.home / "identity" / "promises").unlink()
    first.start()
    wait_until(lambda: any("lading council rotate" in alert for alert in first.status()["alerts"]), "what mends it")
    assert any("lading council rotate" in check["message"] for check in first.call("doctor")["checks"])
    wait_final([second, third], nominate(second, second.member))
    mended = first.run("council", "rotate").data
    wait_final([first, second, third], mended["transaction"])
    wait_until(lambda: not any("does not vote" in alert for alert in first.status()["alerts"]), "nothing to mend")
    third.kill()
    wait_final([first, second], nominate(second, second.member, withdraw=True))
    assert key_of_seat(second, first.member) == mended["key"]


def key_of_seat(node: HomeNode, member: str = "") -> str:
    """The voting key of a member of the council, by default of the node's own."""
    seats = node.call("council.inbox")["members"]
    return str(next(seat["votes_with"] for seat in seats if seat["id"] == (member or node.member)))


def test_home_without_a_chain_works_as_before(processes: Processes) -> None:
    """Goal: homes made before there were chains. Method: two homes, one without the files of a chain; a record goes over."""
    nodes = processes.testnet_homes(2)
    for name in ("chain", "chain.key", "promises"):
        (nodes[1].home / "identity" / name).unlink()
    start_all(nodes)
    assert nodes[1].status()["ledger"] == {}
    assert nodes[1].call("ledger.status")["chains"] == []
    (processes.directory / "letter.txt").write_text("a letter")
    assert len(nodes[1].put(processes.directory / "letter.txt", ack="full", replicas=2)["holders"]) == 2


def test_transactions_signed_elsewhere_are_handed_over_and_become_final(processes: Processes) -> None:
    """Goal: a program that signs for itself gets its word onto the chain, and hears what was refused.

    Method: a network with two such members; a broken text; a file of four good ones, which become final; the same file again.
    """
    directory = processes.directory / "net"
    assert processes.run("testnet", "1", str(directory), "--signers", "2").code == 0
    node = processes.node(directory / "n1")
    start_all([node])
    signed = sign_many(read_signers(directory), 4, "elsewhere")
    file = processes.directory / "signed.txt"
    file.write_text("".join(text + "\n" for _, text in signed))
    with_broken = processes.directory / "broken.txt"
    with_broken.write_text(signed[0][1][:-4] + "\n")
    assert processes.run("--home", str(node.home), "ledger", "submit", str(with_broken)).code != 0
    assert processes.run("--home", str(node.home), "ledger", "submit", str(file)).code == 0
    wait_until(lambda: all(state_of(node, name) == "final" for name, _ in signed), "all of them final", timeout_s=FINAL_S)
    assert processes.run("--home", str(node.home), "ledger", "submit", str(file)).code != 0
    assert sum(chain_of(node)["mempool"].values()) == 0
