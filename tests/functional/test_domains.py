"""Two domains of two nodes each in one network, with real processes: they see each other, and records stay at home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.functional.nodes import HomeNode, Processes, Ran, free_port, start_all, wait_meshed, wait_until
from tests.functional.test_joining import QUIET, found, join, join_words, ticket_of
from tests.functional.wires import Wire


def init_in_network(processes: Processes, ticket: str, domain: str, folder: str | None = None, *, stdin: bool = False) -> Ran:
    """`lading init --domain NAME --network TICKET` into a home of its own."""
    words = ["init", "--domain", domain, "--network", "-" if stdin else ticket, *join_words(folder or domain.lower())]
    return processes.run(*words, home=processes.directory / (folder or domain.lower()), stdin=ticket.encode() if stdin else None)


@pytest.fixture
def network(processes: Processes) -> list[HomeNode]:
    """ACME of `founder` and `b`, CUSTOMS of `customs` and `d`: all running and meshed."""
    founder = found(processes)
    assert join(processes, ticket_of(founder), "b").code == 0
    made = init_in_network(processes, ticket_of(founder, "--domain"), "CUSTOMS", stdin=True)
    assert made.data["domain"] == "CUSTOMS"
    assert made.data["network"]
    assert made.data["recovery_kit"]
    others = [processes.node(processes.directory / name, **QUIET) for name in ("b", "customs")]
    start_all(others, among=[founder, *others])
    customs = others[1]
    assert join(processes, ticket_of(customs), "d").data["domain"] == "CUSTOMS"
    last = processes.node(processes.directory / "d", **QUIET)
    nodes = [founder, *others, last]
    start_all([last], among=nodes)
    return nodes


def test_two_domains_see_each_other_and_their_records_stay_inside(network: list[HomeNode], processes: Processes) -> None:
    """Goal: one network, two domains. Method: each domain publishes; every node names everybody's domain; records, holders and receipts
    are known in their own domain only; putting a member out there fences it out, and both domains go on."""
    founder, b, customs, d = network
    domains = {founder.peer_id: "ACME", b.peer_id: "ACME", customs.peer_id: "CUSTOMS", d.peer_id: "CUSTOMS"}
    for node in network:
        rows = {row["peer_id"]: row["domain"] for row in node.call("peers")["peers"]}
        assert rows == {peer: name for peer, name in domains.items() if peer != node.peer_id}
        assert node.status()["domain"] == domains[node.peer_id]
        assert node.status()["domains"] == ["ACME", "CUSTOMS"]
        members = {(row["name"], row["domain"]) for row in node.call("member.list")["members"]}
        assert members == {("founder", "ACME"), ("b", "ACME"), ("customs", "CUSTOMS"), ("d", "CUSTOMS")}
    chains = [next(iter(node.call("ledger.status")["chains"]))["chain"] for node in network]
    assert chains[0] == chains[1] != chains[2] == chains[3]

    (processes.directory / "acme.txt").write_text("of ACME")
    (processes.directory / "customs.txt").write_text("of CUSTOMS")
    ours = founder.put(processes.directory / "acme.txt", ack="full")
    theirs = customs.put(processes.directory / "customs.txt", ack="full")
    assert {row["node"] for row in ours["holders"]} == {founder.peer_id, b.peer_id}
    assert {row["node"] for row in theirs["holders"]} == {customs.peer_id, d.peer_id}
    for node, record in ((b, ours["record"]), (d, theirs["record"])):
        wait_until(lambda node=node, record=record: node.copies_live(record) == 2, "the receipts")  # type: ignore[misc]
    records = [{row["record"] for row in node.call("ls", {"all": True})["records"]} for node in network]
    assert records == [{ours["record"]}, {ours["record"]}, {theirs["record"]}, {theirs["record"]}]
    shared = founder.run("share", str(ours["record"]), "--to", d.member)
    assert (shared.code, shared.error) == (5, "E-WRONG-DOMAIN")
    asked = d.run("get", str(ours["record"]), "-o", str(processes.directory / "stolen"))
    assert (asked.code, asked.error) == (4, "E-NOT-FOUND")

    refused = founder.run("--yes", "member", "revoke", d.member)
    assert (refused.code, refused.error) == (5, "E-WRONG-DOMAIN")
    customs.call("member.revoke", {"member": d.member, "cause": "left"})
    out = d.peer_id
    for node in (founder, b, customs):
        wait_until(lambda node=node: out not in node.connected(), "the member that is out to be dropped")  # type: ignore[misc]
    wait_meshed([founder, b, customs])


def test_domain_tickets_follow_the_rules_of_every_ticket(processes: Processes) -> None:
    """Goal: single use, cancelled, altered, of the right kind. Method: one of each; nothing is left behind."""
    founder = found(processes)
    ticket = ticket_of(founder, "--domain")
    wrong = join(processes, ticket, "x")
    assert (wrong.code, wrong.error) == (2, "E-USAGE")
    members = init_in_network(processes, ticket_of(founder), "X")
    assert (members.code, members.error) == (2, "E-USAGE")
    altered = init_in_network(processes, ticket[:-3], "X")
    assert (altered.code, altered.error) == (5, "E-TICKET-ALTERED")
    assert init_in_network(processes, ticket, "CUSTOMS").code == 0
    thief = init_in_network(processes, ticket, "THIEVES")
    assert (thief.code, thief.error) == (5, "E-TICKET-USED")
    assert any("tried by another key" in alert for alert in founder.status()["alerts"])
    invited = founder.run("invite", "--domain").data
    assert invited["role"] == "domain"
    assert founder.run("invite", "--cancel", str(invited["id"])).code == 0
    cancelled = init_in_network(processes, str(invited["ticket"]), "X")
    assert (cancelled.code, cancelled.error) == (5, "E-TICKET-CANCELLED")
    same_name = init_in_network(processes, ticket_of(founder, "--domain"), "ACME", "y")
    assert (same_name.code, same_name.error) == (10, "E-CONFLICT")
    customs = processes.node(processes.directory / "customs", **QUIET).start()
    no_founder = customs.run("invite", "--domain")
    assert (no_founder.code, no_founder.error) == (5, "E-REFUSED")


def test_lost_answer_does_no_harm_and_the_same_ticket_and_root_come_in(processes: Processes) -> None:
    """Goal: a domain whose answer was lost comes in as the same domain. Method: as with a member: a wire that is slow in one direction is
    cut when the founder has noted the ticket as used; another name with the same ticket is refused, the same name is not."""
    port = free_port()
    wire = Wire(port, delay_s=0.7)
    home = processes.directory / "founder"
    listen = f"/ip4/127.0.0.1/tcp/{port}"
    processes.run("init", "--domain", "ACME", "--name", "founder", "--listen", listen, "--no-passphrase", home=home)
    founder = processes.node(home, **QUIET, announce=wire.multiaddr).start()
    invited = founder.call("invite", {"domain": True})
    ticket = str(invited["ticket"])
    customs = processes.node(processes.directory / "customs", **QUIET)
    attempt = customs.launch_command("init", "--domain", "CUSTOMS", "--network", ticket, *join_words("customs"))

    def status() -> str:
        return next(str(row["status"]) for row in founder.call("invite.list")["tickets"] if row["id"] == invited["id"])

    wait_until(lambda: status() == "used", "the founder to decide")
    wire.cut()
    assert attempt.wait(60) == 7
    assert not (customs.home / "identity").exists()
    assert founder.status()["domains"] == ["ACME", "CUSTOMS"]
    again = Wire(port, port=wire.port)
    try:
        assert init_in_network(processes, ticket, "ELSE", "customs").error == "E-USAGE"
        assert init_in_network(processes, ticket, "CUSTOMS").code == 0
        customs.start()
        wait_meshed([founder, customs])
        assert founder.status()["alerts"] == []
        assert founder.status()["domains"] == ["ACME", "CUSTOMS"]
    finally:
        again.cut()


def test_node_that_was_away_while_a_domain_came_in_and_fenced_anew_comes_back(processes: Processes) -> None:
    """Goal: who has not heard of a domain is not kept out by its fences. Method: a member's node is off; CUSTOMS comes in and puts a member
    out, so that the greatest fence is one that the node cannot judge; it is switched on again."""
    founder = found(processes)
    assert join(processes, ticket_of(founder), "b").code == 0
    b = processes.node(processes.directory / "b", **QUIET)
    start_all([b], among=[founder, b])
    b.stop()
    assert init_in_network(processes, ticket_of(founder, "--domain"), "CUSTOMS").code == 0
    customs = processes.node(processes.directory / "customs", **QUIET)
    start_all([customs], among=[founder, customs])
    assert join(processes, ticket_of(customs), "d").code == 0
    d = processes.node(processes.directory / "d", **QUIET)
    start_all([d], among=[founder, customs, d])
    customs.call("member.revoke", {"member": d.member, "cause": "left"})
    wait_until(lambda: d.peer_id not in founder.connected(), "the member that is out to be dropped")
    d.kill()
    start_all([b], among=[founder, customs, b])
    assert b.status()["domains"] == ["ACME", "CUSTOMS"]


def test_founder_of_a_second_domain_restored_from_paper_alone_rules_it_again(processes: Processes, tmp_path: Path) -> None:
    """Goal: the kit of any domain opens the network. Method: the only issuer of CUSTOMS publishes a record and is destroyed, when ACME has
    fenced anew; from its kit and the address of a node of ACME it comes back: knows both domains, reads its record, lets a newcomer in,
    puts the lost issuing key out."""
    founder = found(processes)
    for name in ("b", "enemy"):
        assert join(processes, ticket_of(founder), name).code == 0
    others = [processes.node(processes.directory / name, **QUIET) for name in ("b", "enemy")]
    start_all(others, among=[founder, *others])
    b, enemy = others
    made = init_in_network(processes, ticket_of(founder, "--domain"), "CUSTOMS")
    (tmp_path / "kit.txt").write_text(str(made.data["recovery_kit"]))
    customs = processes.node(processes.directory / "customs", **QUIET)
    start_all([customs], among=[founder, b, enemy, customs])
    assert join(processes, ticket_of(customs), "d").code == 0
    d = processes.node(processes.directory / "d", **QUIET)
    start_all([d], among=[founder, b, enemy, customs, d])
    assert founder.run("member", "revoke", enemy.member, "--yes").code == 0
    enemy.kill()
    wait_meshed([founder, b, customs, d])
    (tmp_path / "source.txt").write_text("of CUSTOMS")
    record = customs.put(tmp_path / "source.txt", ack="full")["record"]
    who = customs.member
    customs.kill()
    shutil.rmtree(customs.home)

    peer = f"{founder.ready['listen'][0]}/p2p/{founder.peer_id}"  # type: ignore[index]  # a list of addresses
    words = ["keys", "restore", str(tmp_path / "kit.txt"), "--peer", peer, *join_words("again")]
    restored = processes.run(*words, home=processes.directory / "again")
    assert restored.code == 0, restored
    again = processes.node(processes.directory / "again", **QUIET)
    start_all([again], among=[founder, b, d, again])
    assert (again.member, again.status()["domain"]) == (who, "CUSTOMS")
    assert again.status()["domains"] == ["ACME", "CUSTOMS"]
    wait_until(lambda: again.call("ls")["records"], "the record to be known")
    again.get(record, tmp_path / "read")
    assert (tmp_path / "read").read_text() == "of CUSTOMS"
    assert join(processes, ticket_of(again), "e").data["domain"] == "CUSTOMS"
    again.stop()
    issuers = again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt")).data["issuers"]
    lost = [str(row["issuer"]) for row in issuers if not row["own"]]  # type: ignore[attr-defined]  # a list of rows
    assert len(lost) == 1
    assert again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt"), lost[0][:8], "--cause", "lost").code == 0
    start_all([again], among=[founder, b, d, again])
