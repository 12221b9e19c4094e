"""Settings: who decides, what is refused, and a file that is changed in one place only."""

from __future__ import annotations

import pwd
import stat
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import config
from node.config import GIB, MIB, SETTINGS, Config
from protocols.errors import LadingError, Reason, UsageError


def _write(home: Path, text: str) -> None:
    (home / config.FILE_NAME).write_text(text)


def test_each_layer_outranks_the_next(tmp_path: Path) -> None:
    """Goal: flag > environment > file > profile > default, and the origin tells. Method: one key per layer, each also set below."""
    _write(tmp_path, 'profile = "pi"\ncopies = 2\nack = "full"\nrepair_grace_s = 5\nlog_level = "debug"\n')
    environment = {"LADING_COPIES": "4", "LADING_ACK": "local", "LADING_HOME": "/x", "HOME": "/y"}
    loaded = config.load(tmp_path, flags={"copies": "5"}, environment=environment)
    assert loaded.config.copies == 5
    assert loaded.config.ack == "local"
    assert loaded.config.repair_grace_s == 5.0
    assert loaded.config.connections_max == 48
    assert loaded.config.mdns is True
    wanted = {
        "copies": "flag",
        "ack": "environment LADING_ACK",
        "repair_grace_s": "file",
        "connections_max": "profile pi",
        "mdns": "default",
    }
    assert {key: loaded.origins[key] for key in wanted} == wanted
    assert loaded.origins.keys() == SETTINGS.keys()


def test_profile_may_come_from_any_layer(tmp_path: Path) -> None:
    """Goal: `--profile pi` and LADING_PROFILE work without a file."""
    assert config.load(tmp_path, flags={"profile": "pi"}).config.store_budget_bytes == 8 * GIB
    assert config.load(tmp_path, environment={"LADING_PROFILE": "pi"}).origins["store_budget_bytes"] == "profile pi"
    assert config.load(tmp_path).config == Config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("coppies = 3\n", "copies"),
        ("store_budget = 1\n", "store_budget"),
        ('copies = "three"\n', "copies"),
        ("copies = 0\n", "at least 1"),
        ("copies = true\n", "copies"),
        ("mdns = 1\n", "mdns"),
        ('ack = "quorun"\n', "quorum"),
        ('listen = "x"\nlisten = "y"\n', "line 2"),
        ("[store]\nbudget = 1\n", "[store]"),
        ('store_budget_bytes = "50 parsecs"\n', "50 GiB"),
        ('store_budget_bytes = "64 MiB"\n', "store_reserve_bytes"),
        ('country = "Germany"\n', "DE"),
        ("repair_grace_s = nan\n", "repair_grace_s"),
        ("repair_grace_s = inf\n", "repair_grace_s"),
    ],
)
def test_wrong_file_is_refused_with_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    """Goal: no setting is silently ignored or misread; the message names what is right."""
    _write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_unknown_environment_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Goal: a mistyped variable does not leave somebody with the default. Method: one letter off."""
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path, environment={"LADING_REPAIR_GRACE": "2"})
    assert "LADING_REPAIR_GRACE" in caught.value.message
    assert "repair_grace_s" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("store_budget_bytes", "50 GiB", 50 * GIB),
        ("store_budget_bytes", "2.5GiB", 5 * GIB // 2),
        ("store_budget_bytes", "1 TB", 10**12),
        ("store_budget_bytes", "1073741824", GIB),
        ("repair_bytes_per_s", "8 MiB/s", 8 * MIB),
        ("repair_grace_s", "10m", 600.0),
        ("repair_grace_s", "500ms", 0.5),
        ("trash_window_s", "7d", 7 * 86400.0),
        ("store_budget_share", "0.25", 0.25),
        ("mdns", "off", False),
        ("listen", "/ip4/1.2.3.4/tcp/1, /ip4/1.2.3.4/tcp/2", ("/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2")),
        ("listen", ["/ip4/1.2.3.4/tcp/1"], ("/ip4/1.2.3.4/tcp/1",)),
    ],
)
def test_values_are_read_as_people_write_them(key: str, text: object, value: object) -> None:
    """Goal: sizes, times, switches and lists in their usual spellings."""
    assert config.parse(key, text) == value


def test_size_is_no_time_and_time_is_no_size() -> None:
    """Goal: "10m" is ten minutes and never ten million bytes."""
    for key, text in (("store_budget_bytes", "10m"), ("repair_grace_s", "10 MiB"), ("copies", "3 s"), ("repair_grace_s", "5/s")):
        with pytest.raises(UsageError):
            config.parse(key, text)


_values = st.sampled_from(sorted(SETTINGS)).flatmap(
    lambda key: st.tuples(
        st.just(key),
        st.just(SETTINGS[key].default)
        if SETTINGS[key].about.among
        else st.lists(st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)).map(tuple)
        if SETTINGS[key].kind is tuple
        else st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
        if SETTINGS[key].kind is str
        else st.booleans()
        if SETTINGS[key].kind is bool
        else st.integers(int(SETTINGS[key].about.least or 0) + 1, int(SETTINGS[key].about.most or 2**50))
        if SETTINGS[key].kind is int
        else st.floats(SETTINGS[key].about.least or 0, SETTINGS[key].about.most or 1e6),
    )
)


@given(pair=_values)
def test_what_is_written_is_what_is_read(pair: tuple[str, config.Value]) -> None:
    """Goal: the writer and tomllib agree on every value. Method: any value of any setting into the explained file and back."""
    key, value = pair
    text = config.with_key(config.new_text({}), key, value)
    read = tomllib.loads(text)
    assert list(read) == [key]
    assert config.parse(key, read[key]) == value


def test_setting_a_key_keeps_comments_order_and_everything_else(tmp_path: Path) -> None:
    """Goal: a person's file stays a person's file. Method: every form of a statement that the writer has to step over."""
    before = (
        "# my node\n"
        "copies = 2   # two is enough # really\n"
        "\n"
        "listen = [  # inside\n"
        '  "/ip4/10.0.0.1/tcp/1",  # a # b\n'
        '  "/ip4/10.0.0.2/tcp/2",\n'
        "]  # after\n"
        'name = "a # b"\n'
        '# ack = "quorum"\n'
        "mdns = false"
    )
    _write(tmp_path, before)
    path = tmp_path / config.FILE_NAME
    config.set_key(path, "copies", "4")
    config.set_key(path, "listen", ["/ip4/10.0.0.3/tcp/3"])
    config.set_key(path, "ack", "full")
    config.set_key(path, "name", "c")
    config.set_key(path, "country", "DE")
    assert path.read_text() == (
        "# my node\n"
        "copies = 4  # two is enough # really\n"
        "\n"
        'listen = ["/ip4/10.0.0.3/tcp/3"]  # after\n'
        'name = "c"\n'
        '# ack = "quorum"\n'
        'ack = "full"\n'
        "mdns = false\n"
        'country = "DE"\n'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(item.name for item in tmp_path.iterdir()) == [config.FILE_NAME]


def test_set_that_makes_no_sense_changes_nothing(tmp_path: Path) -> None:
    """Goal: a running node's file is never left broken. Method: wrong value, unknown key, wrong together, file already broken."""
    text = 'store_budget_bytes = "1 GiB"\n'
    _write(tmp_path, text)
    path = tmp_path / config.FILE_NAME
    for key, value in (("copies", "0"), ("copeis", "3"), ("store_reserve_bytes", "2 GiB")):
        with pytest.raises(UsageError):
            config.set_key(path, key, value)
    assert path.read_text() == text
    _write(tmp_path, "copies = = 3\n")
    with pytest.raises(UsageError):
        config.set_key(path, "copies", "3")
    assert path.read_text() == "copies = = 3\n"


def test_new_file_explains_every_setting_and_sets_what_was_asked(tmp_path: Path) -> None:
    """Goal: nobody needs a manual to find a setting. Method: names in the text, and what counts after loading."""
    config.write_new(tmp_path, {"name": "pi4", "listen": ["/ip4/127.0.0.1/tcp/0"]})
    text = (tmp_path / config.FILE_NAME).read_text()
    assert all(f"# {key} = " in text for key in SETTINGS)
    loaded = config.load(tmp_path)
    assert loaded.config == Config(name="pi4", listen=("/ip4/127.0.0.1/tcp/0",))
    # Every commented default is valid TOML and says the default.
    heads = tuple(f"# {key} = " for key in SETTINGS)
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith(heads))
    _write(tmp_path, uncommented)
    assert config.load(tmp_path).config == Config()


def test_unreadable_file_is_said_so(tmp_path: Path) -> None:
    """Goal: a folder, not-UTF-8 and an endless file in place of config.toml have their own sentences."""
    (tmp_path / config.FILE_NAME).mkdir()
    with pytest.raises(LadingError) as caught:
        config.load(tmp_path)
    assert caught.value.reason is Reason.FAILED
    (tmp_path / config.FILE_NAME).rmdir()
    (tmp_path / config.FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError):
        config.load(tmp_path)
    (tmp_path / config.FILE_NAME).write_bytes(b"#" * (config.FILE_BYTES_MAX + 1))
    with pytest.raises(UsageError):
        config.load(tmp_path)


def test_schema_knows_what_load_knows() -> None:
    """Goal: one list of settings. Method: keys, defaults, bounds and choices of the schema against SETTINGS."""
    schema = config.schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert schema["additionalProperties"] is False
    defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(Config()).items()}
    assert {key: row["default"] for key, row in properties.items()} == defaults
    assert properties["ack"]["enum"] == ["local", "quorum", "full"]
    assert properties["copies"]["minimum"] == 1
    assert all(row["description"] for row in properties.values())


def test_profiles_name_settings_and_keep_their_bounds() -> None:
    """Goal: a profile cannot hold what a person could not write."""
    for profile, values in config.PROFILES.items():
        for key, value in values.items():
            assert config.parse(key, value, f"profile {profile}") == value


def test_store_budget_is_the_smaller_of_both() -> None:
    """Goal: neither bytes nor share is exceeded."""
    chosen = Config(store_budget_bytes=10 * GIB, store_budget_share=0.5)
    assert config.store_budget(chosen, 100 * GIB) == 10 * GIB
    assert config.store_budget(chosen, 8 * GIB) == 4 * GIB


def test_home_is_flag_then_environment_then_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: --home > LADING_HOME > XDG_STATE_HOME > ~/.local/state, always absolute."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    environment = {"LADING_HOME": "/e", "XDG_STATE_HOME": "/s"}
    assert config.home_path("f", environment) == tmp_path / "f"
    assert config.home_path(None, environment) == Path("/e")
    assert config.home_path(None, {"XDG_STATE_HOME": "/s"}) == Path("/s/lading")
    assert config.home_path(None, {}) == Path("/home/ada/.local/state/lading")


def test_person_without_a_folder_is_told_to_name_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no folder that is called `~`. Method: neither HOME nor an entry among the system's users."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.getpwnam("nobody that is known here"))
    for flag, environment in ((None, {}), ("~/x", {}), (None, {"LADING_HOME": "~someone-who-is-not-here/x"})):
        with pytest.raises(UsageError) as caught:
            config.home_path(flag, environment)
        assert "LADING_HOME" in caught.value.hint
    assert config.home_path(None, {"XDG_STATE_HOME": "/s"}) == Path("/s/lading")
