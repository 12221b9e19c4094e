"""Commands that need no running node: what they hand to node.home and node.run, and where secrets come from."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from node import config
from node.cli.main import run
from protocols.errors import LadingError, Reason


class _Home:
    """Stands for node.home and node.run: keeps what it was asked, answers what it was told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[object, ...], dict[str, object]]] = []
        self.answer: dict[str, object] = {"node": "office"}
        self.code = 0

    def _keep(self, name: str) -> Callable[..., dict[str, object]]:
        def keep(*args: object, **options: object) -> dict[str, object]:
            options = {key: value() if callable(value) and key == "passphrase" else value for key, value in options.items()}
            self.asked.append((name, args, options))
            return self.answer

        return keep

    def run_node(self, *args: object, **options: object) -> int:
        self._keep("run_node")(*args, **options)
        return self.code

    def modules(self) -> Mapping[str, object]:
        names = ("init_home", "export_keys", "import_keys", "make_testnet", "slot_clocks")
        return {
            "node.joining": SimpleNamespace(join_home=self._keep("join_home")),
            "node.home": SimpleNamespace(**{name: self._keep(name) for name in names}),
            "node.run": SimpleNamespace(run_node=self.run_node),
        }


@pytest.fixture
def fake_home(monkeypatch: pytest.MonkeyPatch) -> _Home:
    fake = _Home()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    return fake


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "pass"
    path.write_bytes("päss wörd \r\nsecond line\n".encode())
    return path


SECRET = "päss wörd ".encode()


def test_init_hands_everything_over(fake_home: _Home, tmp_path: Path, secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: every flag of init arrives; the passphrase is the file's first line. The kit is printed whole."""
    fake_home.answer = {"node": "office", "domain": "ACME", "protected": True, "recovery_kit": "LADING RECOVERY KIT\n01: AAAA / BB\n"}
    home = tmp_path / "home"
    line = ["init", "--domain", "ACME", "--name", "office", "--country", "DE", "--listen", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"]
    assert run(["--home", str(home), *line, "--passphrase-file", str(secret)]) == 0
    wanted = {
        "domain": "ACME",
        "name": "office",
        "country": "DE",
        "listen": ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"),
        "passphrase": SECRET,
    }
    assert fake_home.asked == [("init_home", (home,), wanted)]
    printed = capsys.readouterr().out
    assert "office of ACME is ready" in printed
    assert "LADING RECOVERY KIT\n01: AAAA / BB\n" in printed
    assert "Next:  lading start" in printed
    assert run(["init", "--domain", "A", "--home", str(home), "--no-passphrase", "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == "LADING RECOVERY KIT\n01: AAAA / BB"
    assert fake_home.asked[1][2]["passphrase"] is None
    assert fake_home.asked[1][2]["listen"] == config.Config().listen


def test_passphrase_comes_from_descriptor_environment_or_prompt(
    fake_home: _Home, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: every way without an argument works; a prompt asks twice and refuses what differs or is empty."""
    init = ["--home", str(tmp_path / "home"), "init", "--domain", "A"]
    reading, writing = os.pipe()
    os.write(writing, SECRET + b"\n")
    os.close(writing)
    assert run([*init, "--passphrase-fd", str(reading)]) == 0
    os.close(reading)
    monkeypatch.setenv("LADING_PASSPHRASE_FILE", str(secret))
    assert run(init) == 0
    monkeypatch.delenv("LADING_PASSPHRASE_FILE")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    typed: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: typed.pop(0))
    for words, code in ((["päss wörd ", "päss wörd "], 0), (["one", "two"], 2), ([""], 2)):
        typed[:] = words
        assert run(init) == code
        assert typed == []
    assert [options["passphrase"] for _, _, options in fake_home.asked] == [SECRET] * 3


def test_without_any_passphrase_nothing_is_written(fake_home: _Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: unprotected keys only when asked for. Method: no flag and no terminal; an empty file; a file that is not there."""
    (tmp_path / "empty").write_text("\nsecond")
    init = ["--home", str(tmp_path / "home"), "init", "--domain", "A"]
    for extra in ([], ["--passphrase-file", str(tmp_path / "empty")], ["--passphrase-file", "/nowhere"], ["--passphrase-fd", "987"]):
        assert run([*init, *extra]) == 2
        assert "passphrase" in capsys.readouterr().err
    assert run([*init, "--no-passphrase", "--passphrase-file", "x"]) == 2
    assert fake_home.asked == []


@pytest.mark.parametrize("way", ["argument", "dash", "file"])
def test_join_takes_its_ticket_three_ways(fake_home: _Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Goal: a ticket from a message, a pipe or a file, white space around it forgiven."""
    (tmp_path / "ticket").write_text("\n  lading1abc \n")
    with (tmp_path / "ticket").open() as source:
        monkeypatch.setattr(sys, "stdin", source)
        words = {"argument": ["lading1abc"], "dash": ["-"], "file": ["--ticket-file", str(tmp_path / "ticket")]}[way]
        assert run(["--home", str(tmp_path / "home"), "join", *words, "--name", "pi4", "--no-passphrase"]) == 0
    ((name, args, options),) = fake_home.asked
    assert (name, args) == ("join_home", (tmp_path / "home", "lading1abc"))
    assert callable(options.pop("on_progress"))
    assert options == {"name": "pi4", "listen": config.Config().listen, "passphrase": None}


def test_join_refuses_what_is_no_ticket(fake_home: _Home, tmp_path: Path) -> None:
    """Goal: a mistaken file is found before anything is dialled. Method: two tickets, an empty and a binary file, two sources at once."""
    (tmp_path / "two").write_text("a b")
    (tmp_path / "none").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for words in (["--ticket-file", "two"], ["--ticket-file", "none"], ["--ticket-file", "binary"], ["x", "--ticket-file", "two"]):
        words = [str(tmp_path / word) if word in ("two", "none", "binary") else word for word in words]
        assert run(["--home", str(tmp_path / "home"), "join", *words, "--no-passphrase"]) == 2
    assert fake_home.asked == []


def test_start_hands_its_settings_on_and_its_code_back(fake_home: _Home, tmp_path: Path, secret: Path) -> None:
    """Goal: flags of start are overrides in the settings' own kinds; the exit code is the node's."""
    config.write_new(tmp_path, {})
    fake_home.code = 9
    line = [
        "--listen",
        "/ip4/1.2.3.4/tcp/1",
        "--profile",
        "pi",
        "--log-level",
        "debug",
        "--set",
        "store_budget_bytes=20 GiB",
        "--set",
        "mdns=off",
    ]
    assert run(["--json", "--home", str(tmp_path), "start", *line, "--passphrase-file", str(secret)]) == 9
    wanted = {
        "store_budget_bytes": 20 * config.GIB,
        "mdns": False,
        "listen": ("/ip4/1.2.3.4/tcp/1",),
        "profile": "pi",
        "log_level": "debug",
    }
    assert fake_home.asked == [("run_node", (tmp_path,), {"overrides": wanted, "json_ready": True, "passphrase": SECRET})]


def test_keys_go_out_and_in_but_nothing_is_overwritten(fake_home: _Home, tmp_path: Path, secret: Path) -> None:
    """Goal: an exported file is never lost to a second export; an import needs its file."""
    file = tmp_path / "office.keys"
    words = ["--home", str(tmp_path), "keys", "export", str(file), "--passphrase-file", str(secret)]
    assert run(words) == 0
    file.write_text("keys")
    assert run(words) == Reason.CONFLICT.exit_code
    words[3] = "import"
    assert run(words) == 0
    assert run([*words[:4], str(tmp_path / "nowhere"), "--passphrase-file", str(secret)]) == Reason.NOT_FOUND.exit_code
    assert [(name, args, options) for name, args, options in fake_home.asked] == [
        ("export_keys", (tmp_path, file), {"passphrase": SECRET}),
        ("import_keys", (tmp_path, file), {"passphrase": SECRET}),
    ]


def test_testnet_goes_into_an_empty_folder_only(fake_home: _Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: no file of somebody's is mixed with homes; the next step is printed."""
    fake_home.answer = {"directory": "D", "nodes": [{"node": "n1", "home": "D/n1"}], "start": "D/start.sh"}
    assert run(["testnet", "3", str(tmp_path / "net")]) == 0
    assert "sh D/start.sh" in capsys.readouterr().out
    assert fake_home.asked == [("make_testnet", (3, tmp_path / "net"), {"signers": 0, "clocks": {}})]
    (tmp_path / "file").touch()
    assert run(["testnet", "3", str(tmp_path)]) == Reason.CONFLICT.exit_code


def test_demo_tells_its_story_beside_the_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: people read it on stdout, programs find one object there; a broken promise is its exit code."""

    def run_demo(paths: list[Path], *, say: Callable[[str], None], keep: bool) -> dict[str, object]:
        say("five nodes")
        if not paths:
            raise LadingError(Reason.INTEGRITY, "a byte differs")
        return {"paths": [str(path) for path in paths], "keep": keep}

    monkeypatch.setitem(sys.modules, "node.demo", SimpleNamespace(run_demo=run_demo))
    monkeypatch.chdir(tmp_path)
    assert run(["demo", "x", "--keep"]) == 0
    assert capsys.readouterr().out == "five nodes\n"
    assert run(["demo", "x", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["data"] == {"paths": [str(tmp_path / "x")], "keep": False}
    assert printed.err == "five nodes\n"
    assert run(["demo", "--quiet"]) == Reason.INTEGRITY.exit_code


def test_config_commands_read_and_change_the_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: get, set, show --origin, validate and schema agree with config.py. Method: one key through all of them."""
    home = ["--home", str(tmp_path)]
    assert run([*home, "config", "set", "copies", "4"]) == Reason.NOT_INITIALISED.exit_code
    config.write_new(tmp_path, {"name": "pi4"})
    assert run([*home, "config", "set", "store_budget_bytes", "20 GiB"]) == 0
    (tmp_path / "api.sock").touch()
    assert run([*home, "config", "set", "listen", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"]) == 0
    printed = capsys.readouterr()
    assert printed.out == '✓ store_budget_bytes = "20 GiB"\n✓ listen = ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"]\n'
    assert printed.err.endswith("! the running node takes it over at its next start\n")
    assert run([*home, "config", "get", "store_budget_bytes"]) == 0
    assert run([*home, "config", "get", "listen"]) == 0
    assert run([*home, "config", "get", "mdns"]) == 0
    assert capsys.readouterr().out == f"{20 * config.GIB}\n/ip4/1.2.3.4/tcp/1\n/ip4/1.2.3.4/tcp/2\ntrue\n"
    monkeypatch.setenv("LADING_COPIES", "7")
    assert run([*home, "config", "set", "copies", "4"]) == 0
    assert "environment LADING_COPIES still decides: copies counts as 7" in capsys.readouterr().err
    assert run([*home, "config", "show", "--origin"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert next(line for line in shown if line.startswith("copies =")).endswith("  # environment LADING_COPIES")
    assert next(line for line in shown if line.startswith("name =")).endswith("# file")
    assert run([*home, "config", "show", "--origin", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["data"]["settings"]
    assert {"key": "store_budget_bytes", "value": 20 * config.GIB, "unit": "bytes", "origin": "file"} in rows
    monkeypatch.delenv("LADING_COPIES")
    assert run([*home, "config", "validate"]) == 0
    (tmp_path / "config.toml").write_text("coppies = 3\n")
    assert run([*home, "config", "validate"]) == 2
    assert run([*home, "config", "validate", str(tmp_path / "none")]) == 4
    capsys.readouterr()
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(config.schema(), default=list))


def test_version_is_one_word_with_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: scripts compare versions. Method: --quiet and --json say the same."""
    assert run(["version", "-q"]) == 0
    word = capsys.readouterr().out.strip()
    assert run(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["version"] == word


def test_fault_of_ours_is_a_sentence_and_an_exit_code(fake_home: _Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: no traceback for people, but one for whoever asks. Method: a home that answers nonsense."""
    fake_home.answer = None  # type: ignore[assignment]
    assert run(["testnet", "1", str(tmp_path / "net")]) == 1
    printed = capsys.readouterr().err
    assert "a fault of ours" in printed
    assert "Traceback" not in printed
    assert run(["testnet", "1", str(tmp_path / "net"), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err
