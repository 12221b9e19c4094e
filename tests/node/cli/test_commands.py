"""Commands against a fake node over a real socket: what is asked, what is printed, how it exits."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from node.cli.commands import COMMANDS
from node.cli.main import run
from node.http.contract import OPERATIONS, Answer
from protocols.errors import LadingError, Partial, Reason
from tests.node.http.fake_node import Call, FakeNode

RECORD = "7f3a9c01d2e4" + "0" * 52
PEER = "12D3KooWAbCdEfGhJkLmNoPqRsTuVwXyZ123456789abcdefghij"


def _answering(data: Mapping[str, object], *warnings: str) -> Callable[[Call], Awaitable[Answer]]:
    async def answer(call: Call) -> Answer:
        return Answer(data, warnings)

    return answer


def _failing(error: LadingError) -> Callable[[Call], Awaitable[Answer]]:
    async def fail(call: Call) -> Answer:
        raise error

    return fail


ASKED: list[tuple[str, str, dict[str, object]]] = [
    ("status", "status", {}),
    ("peers", "peers", {}),
    ("doctor", "doctor", {}),
    ("invite", "invite", {"node": False, "expires_s": 86400}),
    ("invite --node --role miner --expires 1h", "invite", {"node": True, "role": "miner", "expires_s": 3600}),
    ("invite --list", "invite.list", {}),
    ("invite --cancel ab12", "invite.cancel", {"id": "ab12"}),
    ("member list", "member.list", {}),
    ("member renew", "member.renew", {}),
    ("member renew a3f9", "member.renew", {"member": "a3f9"}),
    ("member revoke a3f9 --cause lost", "member.revoke", {"member": "a3f9", "cause": "lost", "dry_run": False}),
    (
        "put /etc/hostname --replicas 2 --ack full --class confidential --tag a=b --tag c=d=e --valid-until 2027-01-31T12:00+02:00",
        "put",
        {
            "paths": ["/etc/hostname"],
            "replicas": 2,
            "ack": "full",
            "class": "confidential",
            "tag": {"a": "b", "c": "d=e"},
            "valid_until": "2027-01-31T10:00:00Z",
        },
    ),
    ("put --resume 7f3a", "put", {"paths": [], "resume": "7f3a"}),
    (
        "put /etc/hostname --parent 7f3a --parent 8e2b --change merge --reason both",
        "put",
        {"paths": ["/etc/hostname"], "parent": ["7f3a", "8e2b"], "change": "merge", "reason": "both"},
    ),
    (
        "put /etc/hostname --owner ann --owner bob --approver cid --threshold 1 --deadline 2d --level 3 --schema invoice --wait final",
        "put",
        {
            "paths": ["/etc/hostname"],
            "owner": ["ann", "bob"],
            "approver": ["cid"],
            "threshold": 1,
            "deadline_s": 172800.0,
            "level": 3,
            "schema": "invoice",
            "wait": "final",
        },
    ),
    ("file copies 7f3a 5 --dry-run", "file.copies", {"record": "7f3a", "copies": 5, "dry_run": True}),
    ("inbox", "inbox", {}),
    ("approve 7f3a9c", "approve", {"id": "7f3a9c"}),
    ("approve 7f3a9c --refuse --note heavy --dry-run", "approve", {"id": "7f3a9c", "refuse": True, "note": "heavy", "dry_run": True}),
    ("file extend 7f3a --until 2027-01-31", "file.extend", {"record": "7f3a", "until": "2027-01-31T00:00:00Z", "dry_run": False}),
    ("file extend 7f3a --until never --dry-run", "file.extend", {"record": "7f3a", "until": "never", "dry_run": True}),
    ("folder", "folder", {}),
    ("folder ann --root 5be1", "folder", {"member": "ann", "root": "5be1"}),
    ("put /etc --dry-run", "put", {"paths": ["/etc"], "dry_run": True}),
    (
        "get 7f3a -o /tmp/x/ --entry a/b --keep",
        "get",
        {"record": "7f3a", "output": "/tmp/x/", "directory": "CWD", "entry": "a/b", "keep": True},
    ),
    ("get 7f3a", "get", {"record": "7f3a", "directory": "CWD"}),
    ("get 7f3a --timeout 1m", "get", {"record": "7f3a", "directory": "CWD", "wait_s": 57.0}),
    ("get 7f3a --timeout 2", "get", {"record": "7f3a", "directory": "CWD", "wait_s": 1.0}),
    ("ls", "ls", {"all": False}),
    ("ls --all", "ls", {"all": True}),
    ("file status 7f3a", "file.status", {"record": "7f3a"}),
    ("file forget 7f3a", "file.forget", {"record": "7f3a"}),
    ("file delete 7f3a --dry-run", "file.delete", {"record": "7f3a", "dry_run": True}),
    ("file erase 7f3a --yes", "file.erase", {"record": "7f3a"}),
    ("file pin 7f3a --on pi3", "file.pin", {"record": "7f3a", "on": "pi3", "dry_run": False}),
    ("file reaffirm 7f3a", "file.reaffirm", {"record": "7f3a"}),
    ("file unpin 7f3a --on pi3 --dry-run", "file.unpin", {"record": "7f3a", "on": "pi3", "dry_run": True}),
    ("what-if --kill a,b c", "what-if", {"kill": ["a", "b", "c"]}),
    ("share 7f3a --to a3f9", "share", {"record": "7f3a", "to": "a3f9"}),
    ("check", "check", {}),
    ("check --sample 5% --repair", "check", {"sample": 0.05, "repair": True}),
    ("check --all", "check", {"all": True}),
    ("clock", "clock", {}),
    ("ledger status", "ledger.status", {}),
    ("ledger show", "ledger.show", {}),
    ("ledger show 812", "ledger.show", {"what": "812"}),
    ("ledger history --limit 5 --before 90", "ledger.history", {"limit": 5, "before": 90}),
    ("ledger history 7f3a9c --after 7", "ledger.history", {"what": "7f3a9c", "after": 7}),
    ("ledger history pi4 --proofs --limit 3", "ledger.history", {"what": "pi4", "limit": 3, "proofs": True}),
    ("ledger diff pi4", "ledger.diff", {"peer": "pi4"}),
    ("ledger status --chain trials", "ledger.status", {"chain": "trials"}),
    ("ledger history --chain trials", "ledger.history", {"chain": "trials"}),
    ("miner offer --chain trials", "miner.offer", {"chain": "trials"}),
    ("miner certify --withdraw pi4 --chain trials", "miner.withdraw", {"member": "pi4", "chain": "trials"}),
    ("council propose --threshold 2 --chain trials", "council.propose", {"threshold": 2, "chain": "trials"}),
    ("miner status", "miner.status", {}),
    ("miner offer", "miner.offer", {}),
    ("miner nominate pi4 --withdraw", "miner.nominate", {"member": "pi4", "withdraw": True}),
    ("miner certify ladingoffer1x", "miner.certify", {"offer": "ladingoffer1x"}),
    ("miner certify --withdraw pi4", "miner.withdraw", {"member": "pi4"}),
    ("council propose --seat x --threshold 2", "council.propose", {"seat": "x", "threshold": 2}),
    ("council propose --unseat pi4", "council.propose", {"unseat": "pi4"}),
    ("council approve ladingact1x --dry-run", "council.approve", {"act": "ladingact1x", "dry_run": True}),
    ("council inbox", "council.inbox", {}),
    ("council rotate", "council.rotate", {}),
    ("miner rotate --chain grain", "miner.rotate", {"chain": "grain"}),
]


@pytest.mark.parametrize(("line", "operation", "args"), ASKED, ids=[line for line, _, _ in ASKED])
def test_command_asks_its_operation_and_json_is_one_object(
    home_node: FakeNode, capsys: pytest.CaptureFixture[str], line: str, operation: str, args: dict[str, object]
) -> None:
    """Goal: flags reach the node under their names, and --json works on every command, before and after it."""
    home_node.answers[operation] = _answering({"answer": 42, "bytes": 2**40}, "careful")
    words = line.split()
    wanted = {key: os.getcwd() if value == "CWD" else value for key, value in args.items()}
    for whole in (["--json", "--home", str(home_node.home), *words], [*words, "--json", "--home", str(home_node.home)]):
        assert run(whole) == 0
        printed = capsys.readouterr()
        name = {"invite.list": "invite", "invite.cancel": "invite", "miner.withdraw": "miner.certify"}.get(operation, operation)
        assert json.loads(printed.out) == {
            "schema": f"lading.{name}/1",
            "ok": True,
            "data": {"answer": 42, "bytes": 2**40},
            "warnings": ["careful"],
        }
        assert printed.out.count("\n") == 1
        assert printed.err == ""
    assert [(call.operation, call.args) for call in home_node.calls] == [(operation, wanted)] * 2


def test_every_operation_of_the_contract_has_a_command() -> None:
    """Goal: nothing that the node can do is out of reach, and no command asks for what it cannot do."""
    asked = {operation for _, operation, _ in ASKED} | {"stop", "watch", "ledger.submit"}  # the last one reads a file
    assert asked == set(OPERATIONS)


def test_failure_prints_the_house_style_and_its_exit_code(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: what failed, per host, what still holds, what to try, stable name. Method: the example of the interface."""
    holders = [
        {"node": "hospital-a/pi3", "state": "ok"},
        {"node": "hospital-a/pi4", "receipt": "ab"},
        {"node": "customs/nas2", "state": "refused: quota 0 B left"},
    ]
    error = Partial(
        Reason.QUORUM_WRITE,
        "stored on 2 of 3 required holders (quorum not reached)",
        hint="lading put --resume 7f3a9c01d2e4",
        holders=holders,
        record=RECORD,
        still_holds="Nothing was published. The 2 copies expire in 24 h unless completed.",
    )
    home_node.answers["put"] = _failing(error)
    assert run(["--home", str(home_node.home), "put", "/etc/hostname"]) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "✗ put: stored on 2 of 3 required holders (quorum not reached)\n"
        "  hospital-a/pi3 ok · hospital-a/pi4 ok · customs/nas2 refused: quota 0 B left\n"
        "  Nothing was published. The 2 copies expire in 24 h unless completed.\n"
        "  record 7f3a9c01d2e4\n"
        "  Try: lading put --resume 7f3a9c01d2e4      [E-QUORUM-WRITE, exit 3]\n"
    )
    assert run(["--home", str(home_node.home), "put", "/etc/hostname", "--json"]) == 3
    value = json.loads(capsys.readouterr().out)
    assert value["ok"] is False
    assert value["schema"] == "lading.put/1"
    assert value["error"] == {
        "name": "E-QUORUM-WRITE",
        "code": 3,
        "message": "stored on 2 of 3 required holders (quorum not reached)",
        "hint": "lading put --resume 7f3a9c01d2e4",
        "details": {"holders": holders, "record": RECORD, "still_holds": error.details["still_holds"]},
        "retryable": True,
    }


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_every_reason_is_its_exit_code(home_node: FakeNode, capsys: pytest.CaptureFixture[str], reason: Reason) -> None:
    """Goal: scripts may rely on the codes; no failure is ever 0."""
    home_node.answers["status"] = _failing(LadingError(reason, "because"))
    assert run(["--home", str(home_node.home), "status"]) == reason.exit_code != 0
    assert f"[{reason.stable_name}, exit {reason.exit_code}]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stauts", "lading status"),
        ("file stats x", "lading file status"),
        ("put x --replica 3", "--replicas"),
        ("put x --ack ful", "full"),
        ("put x --replicas 0", "from 1"),
        ("put", "lading put PATH"),
        ("put x --tag novalue", "KEY=VALUE"),
        ("put x --valid-until tomorrow", "2027-01-31"),
        ("put x --resume y", "--resume"),
        ("put - x", "alone"),
        ("put x --name y", "--name"),
        ("check --sample 0%", "5%"),
        ("check --sample 5% --all", "--all"),
        ("status --timeout soon", "10m"),
        ("file pin 7f3a", "--on"),
        ("config get copeis", "copies"),
        ("config set copies", "VALUE"),
        ("join", "lading join TICKET"),
        ("init", "--domain"),
        ("start --set copies", "KEY=VALUE"),
        ("start --set copies=0", "at least 1"),
        ("what-if --kill ,", "lading what-if"),
        ("testnet none /tmp/x", "from 1"),
    ],
)
def test_wrong_line_is_exit_2_and_says_the_right_one(home_node: FakeNode, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    """Goal: a person sees what was meant; a program gets the same as JSON. Nothing reaches the node."""
    words = ["--home", str(home_node.home), *line.split()]
    assert run(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "[E-USAGE, exit 2]" in printed.err
    assert run([*words, "--json"]) == 2
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], value["error"]["name"], value["error"]["code"]) == (False, "E-USAGE", 2)
    assert home_node.calls == []


def test_home_that_is_none_and_node_that_is_not_running_exit_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: each of the two has its next step."""
    assert run(["--home", str(tmp_path), "status"]) == 8
    assert "lading init --domain" in capsys.readouterr().err
    assert run(["--home", str(tmp_path), "start"]) == 8
    assert "E-NOT-INITIALISED" in capsys.readouterr().err
    (tmp_path / "config.toml").touch()
    assert run(["--home", str(tmp_path), "status"]) == 8
    assert "Try: lading start      [E-NOT-RUNNING, exit 8]" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_has_a_paragraph_three_examples_and_exit_codes(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: every page is complete, and its examples are lines that the parser takes."""
    words = command.name.split()  # type: ignore[attr-defined]
    assert run([*words, "--help"]) == 0
    page = capsys.readouterr().out
    assert f"usage: lading {' '.join(words)}" in page
    examples = page.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) == 3
    assert all("lading" in example for example in examples)
    assert "exit codes:\n    0  done" in page
    assert all(len(line) <= 100 for line in page.partition("examples:")[0].splitlines())


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: `lading` alone shows what there is."""
    assert run([]) == 0
    page = capsys.readouterr().out
    assert all(f"  {command.name} " in page for command in COMMANDS)


def test_put_is_shown_with_holders_and_survival(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a person sees who holds it and what it survives; ids short, sizes binary, unless --verbose."""
    data = {
        "record": RECORD,
        "bytes": 13 * 2**20,
        "entries": 3,
        "chunks": 52,
        "chunks_new": 50,
        "sequences": 4,
        "holders": [{"node": PEER, "sequences": 4, "receipt": "ab" * 32}],
        "survives": 2,
        "opens_without_owner": [],
        "state": "local",
        "elapsed_ms": {"ack": 420, "replicated": 61_000, "confirmed": None},
    }
    home_node.answers["put"] = _answering(data, "one thing")
    put = ["--home", str(home_node.home), "put", "/etc/hostname"]
    assert run(put) == 0
    printed = capsys.readouterr()
    assert "✓ 7f3a9c01d2e4  3 entries, 13.0 MiB, 4 sequences, 52 chunks (50 new)\n" in printed.out
    assert "the loss of any 2 holders" in printed.out
    assert "ack 0.4 s, replicated 1 min 1 s" in printed.out
    assert RECORD not in printed.out
    assert printed.err == "! one thing\n"
    assert run([*put, "--verbose"]) == 0
    assert RECORD in capsys.readouterr().out
    assert run([*put, "--quiet"]) == 0
    assert capsys.readouterr().out == RECORD + "\n"


def test_what_the_chain_refused_is_readable(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: one line says how often, why, when last and who. Method: two rows, one of them made here."""
    row = {"item": "block", "reason": "E-POLICY", "count": 3, "last": "2027-01-15T08:00:31Z", "last_from": PEER}
    own = row | {"reason": "E-STATE-ROOT", "count": 1, "last_from": ""}
    chain = {"name": "acme", "chain": "ab" * 32, "height": 812, "refused": [row, own], "peers_at_fault": [{"peer": PEER, "score": 2.5}]}
    home_node.answers |= {"ledger.status": _answering({"chains": [chain]})}
    assert run(["--home", str(home_node.home), "ledger", "status"]) == 0
    text = capsys.readouterr().out
    assert f"3 × block E-POLICY, last 2027-01-15T08:00:31Z, {PEER}" in text
    assert "1 × block E-STATE-ROOT, last 2027-01-15T08:00:31Z, made here" in text


def test_status_peers_and_ls_are_readable(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the daily pages say what people ask. Method: the shapes of the interface, and an away peer."""
    peers = [
        {"node": "pi4", "member": "ab" * 32, "peer_id": PEER, "addresses": ["/ip4/10.0.0.4/tcp/1"], "connected": True, "rtt_ms": 1.25},
        {"node": "nas2", "member": "cd" * 32, "peer_id": PEER, "addresses": [], "connected": False, "rtt_ms": None},
    ]
    status = {
        "node": "office",
        "peer_id": PEER,
        "member": "ef" * 32,
        "domain": "ACME",
        "listen": ["/ip4/10.0.0.1/tcp/4747"],
        "peers": {"count": 2, "list": peers},
        "ledger": {"acme": {"height": 812, "tip": "ab" * 32, "finalized": 806}},
        "records": 12,
        "store": {"bytes": 3 * 2**29, "budget": 50 * 2**30, "free": 2**40},
        "alerts": [],
    }
    record = {"record": RECORD, "owner": "ab" * 32, "entries": 2, "bytes": 512, "state": "local", "survives": 0}
    home_node.answers |= {
        "status": _answering(status),
        "peers": _answering({"peers": peers}),
        "ls": _answering({"records": [record]}),
    }
    for line in ("status", "peers", "ls"):
        assert run(["--home", str(home_node.home), line]) == 0
    text = capsys.readouterr().out
    for said in ("office  12D3KooWAbCdEfGh\n", "1 connected of 2 known", "1.5 GiB of 50.0 GiB used, 1.0 TiB free", "height 812", "none"):
        assert said in text
    for said in ("pi4", "connected", "1.2 ms", "nas2", "away", "7f3a9c01d2e4        2  512 B  no loss"):
        assert said in text
    assert "\x1b" not in text


def test_answer_of_an_unexpected_shape_is_still_shown(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a newer node never makes the command fail. Method: wrong kinds in every field that the pages look at."""
    keys = "notices waiting peers records holders store ledger alerts listen elapsed_ms sources checks bytes survives"
    odd: dict[str, object] = {key: [1, "two", {"three": 3}, None] for key in keys.split()}
    lines = [
        "status",
        "peers",
        "ls",
        "doctor",
        "member list",
        "file status x",
        "get x",
        "put /etc/hostname",
        "what-if --kill x",
        "check",
        "inbox",
    ]
    for line in lines:
        operation = line.split()[0] if line.split()[0] not in ("member", "file") else ".".join(line.split()[:2])
        for data in (odd, {}, dict.fromkeys(odd), dict.fromkeys(odd, "text")):
            home_node.answers[operation] = _answering(data)
            assert run(["--home", str(home_node.home), *line.split()]) == 0
    assert "fault of ours" not in capsys.readouterr().err


def test_doctor_that_finds_something_fails(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: `lading doctor || alert` works. Method: one good and one failed check."""
    checks = [
        {"name": "clock", "level": "ok", "message": "fine"},
        {"name": "disk", "level": "fail", "message": "full", "hint": "free some"},
    ]
    home_node.answers["doctor"] = _answering({"checks": checks})
    assert run(["--home", str(home_node.home), "doctor"]) == 1
    printed = capsys.readouterr()
    assert "✓ clock  fine\n✗ disk  full\n    Try: free some\n" in printed.out
    assert "1 of its checks failed: disk" in printed.err
    assert run(["--home", str(home_node.home), "doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["details"]["checks"] == checks


def test_watch_prints_events_and_ends_with_its_time(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: one line per event, NDJSON with --json; --timeout is its usual end."""

    async def watch(call: Call) -> Answer:
        import trio

        call.progress({"time": "2026-01-02T03:04:05Z", "event": "peer gone", "node": PEER})
        call.progress({"time": "2026-01-02T03:04:06Z", "event": "copied", "bytes": 2048})
        await trio.sleep_forever()
        raise AssertionError

    home_node.answers["watch"] = watch
    words = ["--home", str(home_node.home), "watch", "--timeout", "200ms"]
    assert run(words) == 0
    assert capsys.readouterr().out == (
        "2026-01-02T03:04:05Z  peer gone  node=12D3KooWAbCdEfGh\n2026-01-02T03:04:06Z  copied  bytes=2.0 KiB\n"
    )
    assert run([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["schema"] for line in lines] == ["lading.watch/1"] * 2
    assert lines[1]["data"]["bytes"] == 2048


def test_share_with_limits_is_refused_until_there_are_grants(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: no limit is promised that nobody enforces. Method: each of the three flags."""
    for flag in (["--until", "2027-01-31"], ["--actions", "read"], ["--purpose", "audit"]):
        assert run(["--home", str(home_node.home), "share", "7f3a", "--to", "a3f9", *flag]) == 5
        assert "[E-REFUSED, exit 5]" in capsys.readouterr().err
    assert home_node.calls == []


def test_put_of_a_path_that_is_not_there_is_not_found(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a typing error costs nothing. Method: one good and one missing path."""
    assert run(["--home", str(home_node.home), "put", "/etc/hostname", "/nowhere/at/all"]) == 4
    assert "/nowhere/at/all" in capsys.readouterr().err
    assert home_node.calls == []


def test_put_from_standard_input_streams_it(home_node: FakeNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: `… | lading put - --name x`. Method: a file as standard input."""

    async def put(call: Call) -> Answer:
        assert call.body is not None
        return Answer({"got": b"".join([piece async for piece in call.body]).decode()})

    home_node.answers["put"] = put
    (tmp_path / "in").write_text("hello")
    with (tmp_path / "in").open() as source:
        monkeypatch.setattr(sys, "stdin", source)
        assert run(["--home", str(home_node.home), "put", "-", "--name", "greeting"]) == 0
    assert home_node.calls[0].args == {"paths": ["-"], "name": "greeting"}


def test_get_to_standard_output_is_bytes_there_and_words_elsewhere(home_node: FakeNode, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Goal: `lading get R -o - > file` is byte-exact, also with --json. Method: bytes that are no text."""

    async def get(call: Call) -> Answer:
        assert call.output is not None
        await call.output(bytes(range(256)))
        return Answer({"record": RECORD, "bytes": 256, "sources": 2})

    home_node.answers["get"] = get
    for extra in ([], ["--json"]):
        assert run(["--home", str(home_node.home), "get", "7f3a", "-o", "-", *extra]) == 0
        printed = capfdbinary.readouterr()
        assert printed.out == bytes(range(256))
        assert RECORD[:12].encode() in printed.err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_destructive_act_asks_at_a_terminal_only(home_node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a person is asked once, a script that names the act means it, --yes answers in advance."""
    home_node.answers["file.delete"] = _answering({})
    delete = ["--home", str(home_node.home), "file", "delete", RECORD]
    for typed, extra, code in (("n\n", [], 130), ("\n", [], 130), ("y\n", [], 0), ("", ["--yes"], 0), ("", ["--dry-run"], 0)):
        monkeypatch.setattr(sys, "stdin", _Terminal(typed))
        monkeypatch.setattr(sys, "stderr", screen := _Terminal())
        before = len(home_node.calls)
        assert run([*delete, *extra]) == code
        assert len(home_node.calls) - before == (code == 0)
        assert ("Delete 7f3a9c01d2e4 everywhere?" in screen.getvalue()) == (not extra)


def test_names_from_elsewhere_cannot_move_the_cursor(home_node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a hostile file or node name is text. Method: escape sequences in an answer, an error and a warning."""
    evil = "\x1b[2Jgone\r\x07"
    home_node.answers["peers"] = _answering({"peers": [{"node": evil, "connected": True, "addresses": [evil]}]}, evil)
    assert run(["--home", str(home_node.home), "peers"]) == 0
    home_node.answers["ls"] = _failing(LadingError(Reason.FAILED, evil, hint=evil, holders=[{"node": evil, "state": evil}]))
    assert run(["--home", str(home_node.home), "ls"]) == 1
    printed = capsys.readouterr()
    assert not {"\x1b", "\r", "\x07"} & set(printed.out + printed.err)
    assert "\\x1b[2Jgone" in printed.out


def test_submit_hands_a_file_over_in_calls_that_fit_and_names_what_was_refused(
    home_node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: a file of any length is handed over; a refused one is no success. Method: more lines than one call takes; one refused."""
    home_node.answers["ledger.submit"] = _answering({"transactions": [{"transaction": "ab", "state": "pooled"}]})
    file = tmp_path / "signed.txt"
    file.write_text("ladingtx1x\n\n" * 1500)
    assert run(["--json", "--home", str(home_node.home), "ledger", "submit", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["pooled"] == 2  # one row of each of two calls
    refused = [{"transaction": "ab", "state": "refused", "message": "is on the chain already"}]
    home_node.answers["ledger.submit"] = _answering({"transactions": refused})
    assert run(["--home", str(home_node.home), "ledger", "submit", str(file)]) == 5
    assert "is on the chain already" in capsys.readouterr().err
    file.write_text("\n")
    assert run(["--home", str(home_node.home), "ledger", "submit", str(file)]) == 2
