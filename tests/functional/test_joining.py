"""Founding, inviting and joining with real processes; every bad ticket is refused with its reason."""

from __future__ import annotations

import pytest

from tests.functional.nodes import HomeNode, NotReady, Processes, Ran, free_port, start_all, wait_meshed, wait_until
from tests.functional.wires import Wire

# Two nodes on one machine need no discovery, and a test must not find somebody else's nodes.
QUIET = {"mdns": "false"}


def found(processes: Processes, name: str = "founder", **settings: object) -> HomeNode:
    """A founder that runs."""
    home = processes.directory / name
    listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
    made = processes.run("init", "--domain", "ACME", "--name", name, "--listen", listen, "--no-passphrase", home=home)
    assert made.code == 0, made
    assert made.data["recovery_kit"]
    return processes.node(home, **QUIET, **settings).start()


def join_words(name: str) -> list[str]:
    return ["--name", name, "--listen", f"/ip4/127.0.0.1/tcp/{free_port()}", "--no-passphrase"]


def join(processes: Processes, ticket: str, name: str, folder: str | None = None) -> Ran:
    """`lading join TICKET` into a home of its own."""
    return processes.run("join", ticket, *join_words(name), home=processes.directory / (folder or name))


def ticket_of(node: HomeNode, *flags: str) -> str:
    return str(node.run("invite", *flags).data["ticket"])


@pytest.fixture(scope="module")
def founder(shared_processes: Processes) -> HomeNode:
    return found(shared_processes)


def test_newcomers_join_by_argument_by_standard_input_and_by_file(processes: Processes) -> None:
    """Goal: three ways to hand over a ticket, one network. Method: a founder, three tickets, three homes; all four see each other, and a
    record of one is read by another after it was shared."""
    founder = found(processes)
    tickets = [ticket_of(founder) for _ in range(3)]
    homes = [processes.directory / name for name in ("b", "c", "d")]
    (processes.directory / "ticket.txt").write_text(tickets[2] + "\n")
    joined = [
        processes.run("join", tickets[0], *join_words("b"), home=homes[0]),
        processes.run("join", "-", *join_words("c"), home=homes[1], stdin=tickets[1].encode() + b"\n"),
        processes.run("join", "--ticket-file", str(processes.directory / "ticket.txt"), *join_words("d"), home=homes[2]),
    ]
    assert [ran.code for ran in joined] == [0, 0, 0], joined
    newcomers = [processes.node(home, **QUIET) for home in homes]
    start_all(newcomers, among=[founder, *newcomers])
    assert {row["name"] for row in founder.call("member.list")["members"]} == {"founder", "b", "c", "d"}
    (processes.directory / "letter.txt").write_text("from b to d")
    record = newcomers[0].put(processes.directory / "letter.txt")["record"]
    newcomers[0].call("share", {"record": record, "to": newcomers[2].member})
    wait_until(lambda: newcomers[2].call("ls")["records"], "the wrap to arrive")
    newcomers[2].get(record, processes.directory / "read.txt")
    assert (processes.directory / "read.txt").read_text() == "from b to d"


def test_altered_ticket_is_refused_before_anybody_is_asked(founder: HomeNode, processes: Processes) -> None:
    """Goal: a mistyped ticket says so. Method: one character in the middle changed, and a ticket cut short."""
    ticket = ticket_of(founder)
    middle = len(ticket) // 2
    altered = ticket[:middle] + ("A" if ticket[middle] != "A" else "B") + ticket[middle + 1 :]
    for text in (altered, ticket[:-3], "no ticket at all"):
        refused = join(processes, text, "x")
        assert (refused.code, refused.error) == (5, "E-TICKET-ALTERED")
    assert not (processes.directory / "x").exists()


def test_expired_ticket_is_refused(founder: HomeNode, processes: Processes) -> None:
    """Goal: tickets die by themselves. Method: one that lives a second, tried after it."""
    ticket = ticket_of(founder, "--expires", "1s")

    def is_expired() -> bool:
        return any(row["status"] == "expired" for row in founder.call("invite.list")["tickets"])

    wait_until(is_expired, "the ticket to expire")
    refused = join(processes, ticket, "x")
    assert (refused.code, refused.error) == (5, "E-TICKET-EXPIRED")


def test_used_ticket_is_refused_to_another_key_and_the_operator_hears_of_it(founder: HomeNode, processes: Processes) -> None:
    """Goal: a thief with a used ticket gets nothing and is noticed. Method: join, then the same ticket into another home."""
    ticket = ticket_of(founder)
    assert join(processes, ticket, "honest").code == 0
    refused = join(processes, ticket, "thief")
    assert (refused.code, refused.error) == (5, "E-TICKET-USED")
    assert not (processes.directory / "thief" / "identity").exists()
    assert any("tried by another key" in alert for alert in founder.status()["alerts"])


def test_cancelled_ticket_opens_nothing(founder: HomeNode, processes: Processes) -> None:
    """Goal: what was cancelled is worthless at once, and says why for as long as it would have lived. Method: invite, cancel by a prefix
    of the id, try it twice; then one that has ended since."""
    invited = founder.run("invite").data
    assert founder.run("invite", "--cancel", str(invited["id"])[:12]).code == 0
    rows = {row["id"]: row["status"] for row in founder.run("invite", "--list").data["tickets"]}
    assert rows[invited["id"]] == "cancelled"
    refused = join(processes, str(invited["ticket"]), "x")
    assert (refused.code, refused.error) == (5, "E-TICKET-CANCELLED")
    assert join(processes, str(invited["ticket"]), "x").error == "E-TICKET-CANCELLED"
    assert not (processes.directory / "x" / "identity").exists()
    short = founder.run("invite", "--expires", "2s").data
    assert founder.run("invite", "--cancel", str(short["id"])).code == 0
    wait_until(lambda: join(processes, str(short["ticket"]), "x").error == "E-TICKET-EXPIRED", "it to end")


def test_cancelled_ticket_says_so_at_a_node_that_does_not_issue(processes: Processes) -> None:
    """Goal: any node knows. Method: a member's node alone is up when the ticket is tried that the founder, away now, has cancelled."""
    founder = found(processes)
    assert join(processes, ticket_of(founder), "member").code == 0
    member = processes.node(processes.directory / "member", **QUIET).start()
    wait_meshed([founder, member])
    invited = founder.run("invite").data
    assert founder.run("invite", "--cancel", str(invited["id"])).code == 0

    def status() -> object:
        return next((row["status"] for row in member.call("invite.list")["tickets"] if row["id"] == invited["id"]), None)

    wait_until(lambda: status() == "cancelled", "the cancellation to spread")
    founder.kill()
    refused = join(processes, str(invited["ticket"]), "x")
    assert (refused.code, refused.error) == (5, "E-TICKET-CANCELLED")


def test_lost_answer_does_no_harm_and_the_same_ticket_works_again(processes: Processes) -> None:
    """Goal: a newcomer whose answer was lost gets the same certificate again. Method: the founder is reached over a wire that is slow in
    one direction; when the founder has noted the ticket as used, its answer is still on the wire, and the wire is cut."""
    port = free_port()
    wire = Wire(port, delay_s=0.7)
    home = processes.directory / "founder"
    listen = f"/ip4/127.0.0.1/tcp/{port}"
    processes.run("init", "--domain", "ACME", "--name", "founder", "--listen", listen, "--no-passphrase", home=home)
    founder = processes.node(home, **QUIET, announce=wire.multiaddr).start()
    invited = founder.call("invite", {"node": False})
    newcomer = processes.node(processes.directory / "late", **QUIET)
    attempt = newcomer.launch_command("join", str(invited["ticket"]), *join_words("late"))

    def status() -> str:
        return next(str(row["status"]) for row in founder.call("invite.list")["tickets"] if row["id"] == invited["id"])

    wait_until(lambda: status() == "used", "the founder to decide")
    wire.cut()
    assert attempt.wait(60) == 7
    assert not (newcomer.home / "identity").exists()
    # The founder moves to an address that works; the ticket still names the old one, so the wire is laid again on the same port.
    again = Wire(port, port=wire.port)
    try:
        assert join(processes, str(invited["ticket"]), "late").code == 0
        newcomer.start()
        wait_meshed([founder, newcomer])
        assert founder.status()["alerts"] == []
    finally:
        again.cut()


def test_newcomer_joins_through_another_node_while_only_that_one_reaches_the_founder(processes: Processes) -> None:
    """Goal: any node can be the one that others join through (NET-05). Method: the founder announces an address at which nobody answers,
    and dials the second node itself; the ticket names both, so that the newcomer can only come in through the second."""
    founder = found(processes)
    assert join(processes, ticket_of(founder), "second").code == 0
    second = processes.node(processes.directory / "second", **QUIET).start()
    wait_meshed([founder, second])
    founder.stop()
    nowhere = f"/ip4/127.0.0.1/tcp/{free_port()}"
    founder.settings["announce"] = nowhere
    founder.start()
    wait_meshed([founder, second])
    ticket = ticket_of(founder)
    wait_until(lambda: second.call("invite.list")["tickets"][0]["status"] == "open", "the second node to hear of the ticket")
    came = join(processes, ticket, "third")
    assert came.code == 0, came
    third = processes.node(processes.directory / "third", **QUIET).start()
    wait_meshed([second, third])
    wait_until(lambda: "third" in {row["name"] for row in founder.call("member.list")["members"]}, "the founder to hear of the third")


def test_newcomer_is_told_when_the_node_that_decides_is_away(processes: Processes) -> None:
    """Goal: a relay that reaches no issuer says so, and nothing is used up. Method: the founder stops; its ticket is tried at the second
    node, then again when the founder is back."""
    founder = found(processes)
    assert join(processes, ticket_of(founder), "second").code == 0
    second = processes.node(processes.directory / "second", **QUIET).start()
    wait_meshed([founder, second])
    ticket = ticket_of(founder)
    wait_until(lambda: any(row["status"] == "open" for row in second.call("invite.list")["tickets"]), "the ticket to spread")
    founder.stop()
    wait_until(lambda: not second.connected(), "the second node to notice")
    refused = join(processes, ticket, "third")
    assert (refused.code, refused.error) == (7, "E-UNREACHABLE")
    founder.start()
    wait_meshed([founder, second])
    assert join(processes, ticket, "third").code == 0


@pytest.mark.parametrize(("role", "reads"), [("holder", False), ("full", True)])
def test_further_node_of_a_member_holds_and_reads_only_when_it_is_full(processes: Processes, role: str, reads: bool) -> None:
    """Goal: `invite --node` brings the member's second node; a holder-only one has no key of the member. Method: both roles; put on the
    first node, get on the second."""
    first = found(processes)
    invited = first.call("invite", {"node": True, "role": role})
    assert join(processes, str(invited["ticket"]), "second").code == 0
    second = processes.node(processes.directory / "second", **QUIET).start()
    wait_meshed([first, second])
    assert second.member == first.member
    assert (second.home / "identity" / "member.key").exists() == reads
    (processes.directory / "note.txt").write_bytes(b"n" * 200_000)
    put = first.put(processes.directory / "note.txt", replicas=2, ack="full")
    assert {holder["name"] for holder in put["holders"]} == {"founder/founder", "founder/second"} or len(put["holders"]) == 2
    target = processes.directory / "read.txt"
    got = second.run("get", put["record"], "-o", str(target))
    if reads:
        assert got.code == 0, got
        assert target.read_bytes() == b"n" * 200_000
    else:
        assert (got.code, got.error) == (5, "E-NO-KEY")
        assert not target.exists()


def test_protected_home_opens_with_its_passphrase_only(processes: Processes) -> None:
    """Goal: a wrong passphrase is named, the right one works. Method: init with a passphrase file; start with another, then with it."""
    right, wrong = processes.directory / "right", processes.directory / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    home = processes.directory / "safe"
    listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
    made = processes.run("init", "--domain", "ACME", "--name", "safe", "--listen", listen, "--passphrase-file", str(right), home=home)
    assert made.code == 0
    node = processes.node(home, **QUIET)
    with pytest.raises(NotReady, match="E-WRONG-PASSPHRASE") as refused:
        node.start("--passphrase-file", str(wrong))
    assert refused.value.exit_code == 5
    node.process = None
    node.start("--passphrase-file", str(right))
    assert node.status()["domain"] == "ACME"


def test_certificates_are_renewed_by_themselves_and_the_members_other_nodes_learn_of_it(processes: Processes) -> None:
    """Goal: nobody drops out when certificates end (IDN-12). Method: members of 24 s, nodes of 16 s; a member with a holder-only node
    lives through three lifetimes; the list shows ever later ends, and both stay connected to the founder."""
    short = {"member_lifetime_s": 24, "node_lifetime_s": 16}
    founder = found(processes, **short)
    assert join(processes, ticket_of(founder), "member").code == 0
    member = processes.node(processes.directory / "member", **QUIET, **short).start()
    wait_meshed([founder, member])
    invited = member.call("invite", {"node": True, "role": "holder"})
    assert join(processes, str(invited["ticket"]), "card").code == 0
    card = processes.node(processes.directory / "card", **QUIET, **short).start()
    wait_meshed([founder, member, card])

    def ends() -> tuple[str, str]:
        row = next(row for row in founder.call("member.list")["members"] if row["name"] == "member")
        return str(row["not_after"]), str(row["nodes_not_after"][card.peer_id])

    seen = {ends()}
    first = min(seen)
    while len({end for end, _ in seen}) < 4 or len({end for _, end in seen}) < 4:
        seen.add(wait_until(lambda: ends() if ends() not in seen else None, "the next renewal"))
    assert min(max(seen)) > max(first)
    for node in (member, card):
        assert founder.peer_id in node.connected()
        assert not [alert for alert in node.status()["alerts"] if "renewed" in alert]
    (processes.directory / "note.txt").write_bytes(b"n" * 100_000)
    assert member.put(processes.directory / "note.txt", ack="full")["holders"]
