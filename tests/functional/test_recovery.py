"""All machines of a member are gone; paper, HashIDs and the other holders are left."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.functional.conftest import MIB
from tests.functional.nodes import HomeNode, Processes, free_port, start_all, wait_meshed, wait_until
from tests.functional.sources import assert_same, random_folder

QUIET = {"mdns": "false", "repair_grace_s": 2}


def arrive(processes: Processes, name: str, *words: str, stdin: bytes | None = None) -> tuple[HomeNode, str]:
    """A home by `init`, `join` or `keys restore`. Result: it, and the recovery kit that was printed."""
    home = processes.directory / name
    listen = f"/ip4/127.0.0.1/tcp/{free_port()}"
    made = processes.run(*words, "--name", name, "--listen", listen, "--no-passphrase", home=home, stdin=stdin)
    assert made.code == 0, made
    return processes.node(home, **QUIET), str(made.data.get("recovery_kit", ""))


def test_member_restored_from_paper_reads_and_rules_his_records(processes: Processes, tmp_path: Path) -> None:
    """Goal: the recovery kit, the HashIDs and the other holders alone bring everything back. Method: a member joins and keeps the kit that
    was printed; his records are copied to two other members; his home is destroyed; a new home from kit and ticket is the same member,
    reads both records bit-exact, finds them stored already when they are put again, and deletes one."""
    founder, _ = arrive(processes, "founder", "init", "--domain", "ACME")
    founder.start()
    member, kit = arrive(processes, "old", "join", str(founder.call("invite")["ticket"]))
    third, _ = arrive(processes, "third", "join", str(founder.call("invite")["ticket"]))
    start_all([member, third], among=[founder, member, third])
    sources = [random_folder(tmp_path / f"source-{number}", seed=70 + number, size=5 * MIB) for number in range(2)]
    first = member.put(sources[0], ack="full")["record"]
    confidential = member.call("put", {"paths": [str(sources[1])], "ack": "full", "class": "confidential"})["record"]
    who = member.member
    member.kill()
    shutil.rmtree(member.home)

    (tmp_path / "kit.txt").write_text(kit)
    ticket = str(founder.call("invite")["ticket"])
    again, no_kit = arrive(processes, "new", "keys", "restore", str(tmp_path / "kit.txt"), ticket)
    assert no_kit == ""
    again.start()
    wait_meshed([founder, third, again])
    assert again.member == who
    wait_until(lambda: len(again.call("ls")["records"]) == 2, "his records to be known")
    for number, record in enumerate((first, confidential)):
        again.get(record, tmp_path / f"read-{number}")
        assert_same(sources[number], tmp_path / f"read-{number}")
    assert again.put(sources[0], ack="local")["already_stored"]
    assert again.run("file", "delete", first, "--yes").code == 0
    wait_until(lambda: all(row["record"] != first or row["state"] == "deleted" for row in third.call("ls", {"all": True})["records"]), "it")


def test_mistyped_kit_and_ticket_of_another_network_are_told_apart(processes: Processes, tmp_path: Path) -> None:
    """Goal: each mistake is named. Method: one character changed in line 3 of the kit; the kit with a ticket of another network; a further
    node's ticket; the kit from standard input works."""
    founder, kit = arrive(processes, "founder", "init", "--domain", "ACME")
    founder.start()
    stranger, _ = arrive(processes, "stranger", "init", "--domain", "OTHER")
    stranger.start()
    ticket = str(founder.call("invite")["ticket"])
    lines = kit.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("03:"))
    wrong = "A" if lines[at][4] != "A" else "C"
    mistyped = "\n".join([*lines[:at], f"03: {wrong}{lines[at][5:]}", *lines[at + 1 :]])

    def restore(text: str, with_ticket: str) -> tuple[int, str]:
        home = processes.directory / "back"
        ran = processes.run("keys", "restore", "-", with_ticket, "--no-passphrase", home=home, stdin=text.encode())
        return ran.code, str(ran.json["error"]["message"]) if ran.code else ""

    assert restore(mistyped, ticket) == (6, "line 03 is mistyped")
    assert restore(kit, str(stranger.call("invite")["ticket"]))[0] == 5
    assert restore(kit, str(founder.call("invite", {"node": True, "role": "holder"})["ticket"]))[0] == 2
    assert restore(kit, ticket)[0] == 0


def test_founder_restored_from_paper_alone_when_no_issuer_lives_rules_his_domain_again(processes: Processes, tmp_path: Path) -> None:
    """Goal: no one machine's death ends a domain. Method: the founder, its only issuing node, publishes a record, puts a member out (so
    that the fence has rotated since the kit was printed) and is destroyed; from kit and one address it comes back without a ticket: the
    same member, reads its record, invites a newcomer; the lost issuing key is put out by the root, and nobody else with it."""
    founder, kit = arrive(processes, "founder", "init", "--domain", "ACME")
    founder.start()
    arrived = [arrive(processes, name, "join", str(founder.call("invite")["ticket"]))[0] for name in ("first", "second", "enemy")]
    first, second, enemy = arrived
    start_all(arrived, among=[founder, *arrived])
    assert founder.run("member", "revoke", enemy.member, "--yes").code == 0
    enemy.kill()
    source = random_folder(tmp_path / "source", seed=80, size=5 * MIB)
    record = founder.put(source, ack="full")["record"]
    who, lost = founder.member, founder.peer_id
    founder.kill()
    shutil.rmtree(founder.home)

    (tmp_path / "kit.txt").write_text(kit)
    listen = str(first.ready["listen"][0])
    again, no_kit = arrive(processes, "again", "keys", "restore", str(tmp_path / "kit.txt"), "--peer", f"{listen}/p2p/{first.peer_id}")
    assert no_kit == ""
    again.start()
    wait_meshed([first, second, again])
    assert (again.member, again.peer_id != lost) == (who, True)
    wait_until(lambda: again.call("ls")["records"], "the record to be known")
    again.get(record, tmp_path / "read")
    assert_same(source, tmp_path / "read")
    newcomer, _ = arrive(processes, "newcomer", "join", str(again.call("invite")["ticket"]))
    start_all([newcomer], among=[first, second, again, newcomer])

    refused = again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt"))
    assert (refused.code, refused.error) == (9, "E-LOCKED")
    again.stop()
    issuers = again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt")).data["issuers"]
    assert sorted(row["own"] for row in issuers) == [False, True]
    old = next(str(row["issuer"]) for row in issuers if not row["own"])
    mine = next(str(row["issuer"]) for row in issuers if row["own"])
    assert again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt"), mine[:8]).error == "E-REFUSED"
    assert again.run("keys", "revoke-issuer", str(tmp_path / "kit.txt"), old[:8], "--cause", "lost").code == 0
    again.start()
    wait_meshed([first, second, again, newcomer])
    # Under the root's new fence, members of the lost issuer are still in, and are renewed by the new one.
    before = {row["name"]: row["not_after"] for row in first.call("member.list")["members"]}
    wait_until(lambda: first.run("member", "renew").code == 0, "the renewal")
    assert {row["name"]: row["not_after"] for row in first.call("member.list")["members"]}["first"] > before["first"]
    assert second.call("member.list")["members"]


def test_second_issuer_made_from_the_kit_goes_on_when_the_first_is_gone(processes: Processes, tmp_path: Path) -> None:
    """Goal: issuing keys on two nodes. Method: a member's node gets one from the founder's kit; the founder dies; that node lets a newcomer
    in and renews; a kit without a root and one of another domain are refused by name."""
    founder, kit = arrive(processes, "founder", "init", "--domain", "ACME")
    founder.start()
    member, members_kit = arrive(processes, "member", "join", str(founder.call("invite")["ticket"]))
    stranger, strange_kit = arrive(processes, "stranger", "init", "--domain", "OTHER")
    assert stranger.home.exists()
    for text, code in ((members_kit, 2), (strange_kit, 5)):
        assert member.run("keys", "renew-issuer", "-", stdin=text.encode()).code == code
    assert not member.run("keys", "renew-issuer", "-", stdin=kit.encode()).data["had_one"]
    start_all([member], among=[founder, member])
    founder.kill()
    newcomer, _ = arrive(processes, "newcomer", "join", str(member.call("invite")["ticket"]))
    start_all([newcomer], among=[member, newcomer])
    # A renewal of the same second as what it renews is none.
    wait_until(lambda: newcomer.run("member", "renew").code == 0, "the renewal")


def test_home_comes_back_with_a_ticket_and_its_own_keys(processes: Processes, tmp_path: Path) -> None:
    """Goal: `join --again` brings a home back that was away too long. Method: a member's and a holder-only home, stopped; tickets of the
    wrong role and network are refused by name; with the right ones both are who they were, and what others know counts at once."""
    founder, _ = arrive(processes, "founder", "init", "--domain", "ACME")
    founder.start()
    stranger, _ = arrive(processes, "stranger", "init", "--domain", "OTHER")
    stranger.start()
    member, _ = arrive(processes, "member", "join", str(founder.call("invite")["ticket"]))
    start_all([member], among=[founder, member])
    card, _ = arrive(processes, "card", "join", str(member.call("invite", {"node": True, "role": "holder"})["ticket"]))
    start_all([card], among=[founder, member, card])
    record = member.put(random_folder(tmp_path / "source", seed=90, size=1 * MIB), ack="full")["record"]
    who, before = (member.member, member.peer_id), member.call("member.list")["members"]
    cards_ticket = str(member.call("invite", {"node": True, "role": "holder"})["ticket"])
    ticket, strange = str(founder.call("invite")["ticket"]), str(stranger.call("invite")["ticket"])
    card.stop()
    assert card.run("join", ticket, "--again").code == 2
    assert card.run("join", cards_ticket, "--again").code == 0
    assert member.run("join", ticket, "--again").error == "E-LOCKED"
    member.stop()
    assert member.run("join", strange, "--again").error == "E-WRONG-NETWORK"
    assert member.run("join", ticket, "--again").data["held_back"] == 1
    start_all([member, card], among=[founder, member, card])
    member._identity = None
    assert (member.member, member.peer_id) == who
    wait_until(lambda: any(row["record"] == record for row in member.call("ls")["records"]), "what the others know to count again")
    assert not [alert for alert in member.status()["alerts"] if "quarantine" in alert]
    wait_until(lambda: member.call("member.list")["members"] != before, "the newer certificates to be announced")
