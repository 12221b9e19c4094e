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
