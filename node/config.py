"""The settings of a node: one frozen record, each with unit, default and the default's reason.

Precedence: flag, environment (LADING_<KEY>), config.toml, profile, default; ``load`` remembers which one won. config.toml is a flat
list of ``key = value`` lines, read by tomllib; the writer below changes one key and keeps everything else, comments included.
Sizes may be written "50 GiB", times "10m"; an unknown key is an error that names the nearest.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, get_type_hints

from protocols.errors import LadingError, Reason, UsageError
from storage.folders import sync_folder

FILE_NAME = "config.toml"
ENVIRONMENT_PREFIX = "LADING_"
# Names with our prefix that are not settings: where the home is, and where secrets and test seeds come
# from, and where the loop's probe writes.
ENVIRONMENT_OTHERS = frozenset({"LADING_HOME", "LADING_PASSPHRASE_FILE", "LADING_SEED", "LADING_SEEDS", "LADING_LOOP_PROBE"})
# Every setting with its comments fits ten times; a larger file is not ours.
FILE_BYTES_MAX = 256 * 1024

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class About:
    """What a setting's annotation says of it. reason: of the default. among: the only values; former: how files of before may write some
    of them. least, most: bounds, in ``unit``."""

    reason: str
    unit: str = ""
    among: tuple[str, ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a node."""

    profile: Annotated[str, About("suits a laptop or server; pi is for small boards with an SD card", among=("default", "pi"))] = "default"
    name: Annotated[str, About("what people call this node; empty means a short form of its id")] = ""
    country: Annotated[str, About("two letters (ISO 3166); country rules need it once there are some")] = ""

    listen: Annotated[tuple[str, ...], About("all interfaces, one port that a firewall rule can name", unit="multiaddrs")] = (
        "/ip4/0.0.0.0/tcp/4747",
    )
    announce: Annotated[
        tuple[str, ...], About("empty announces the addresses of the interfaces; set it behind a port forwarding", unit="multiaddrs")
    ] = ()
    static_peers: Annotated[
        tuple[str, ...], About("nodes to dial at every start, beside the remembered ones", unit="multiaddrs ending in /p2p/ID")
    ] = ()
    lane: Annotated[
        str,
        About(
            "own: our session and muxer; stock: the library's, five to seven times slower, the same wire behind the same fence",
            among=("own", "stock"),
        ),
    ] = "own"
    mdns: Annotated[bool, About("nodes of one LAN find each other without anybody's help")] = True
    connections_max: Annotated[int, About("two connections to each node of a network of 64", unit="connections", least=4, most=4096)] = 128
    ping_interval_s: Annotated[
        float, About("with the time-out, a frozen node is noticed within 20 s", unit="seconds", least=0.1, most=600)
    ] = 5.0
    ping_timeout_s: Annotated[
        float, About("a loaded board answers late; interval and time-out stay under 20 s", unit="seconds", least=0.1, most=600)
    ] = 12.0

    store_budget_bytes: Annotated[int, About("generous for records, small for today's disks", unit="bytes", least=16 * MIB)] = 50 * GIB
    store_budget_share: Annotated[
        float,
        About("a guest takes at most half of the disk; the smaller budget counts", unit="share of the disk", least=0.001, most=1),
    ] = 0.5
    store_reserve_bytes: Annotated[
        int, About("part of the budget kept for the ledger, so that files cannot stop it", unit="bytes", least=MIB)
    ] = 256 * MIB
    member_quota_bytes: Annotated[int, About("four fifths of the budget: no single member can fill a holder", unit="bytes", least=0)] = (
        40 * GIB
    )

    copies: Annotated[int, About("two holders may die at once and the record lives", unit="nodes", least=1, most=64)] = 3
    copies_all: Annotated[bool, About("where there are at most five nodes, each holds everything; false keeps to copies")] = True
    ack: Annotated[str, About("put returns when a second node has it on disk, not before", among=("local", "quorum", "full"))] = "quorum"
    repair_grace_s: Annotated[
        float, About("a restart or a pulled cable must not start copies", unit="seconds", least=0.1, most=7 * 86400)
    ] = 600.0
    repair_bytes_per_s: Annotated[
        int, About("a quarter of a gigabit link: repair never starves people's work", unit="bytes per second", least=64 * KIB)
    ] = 32 * MIB
    scrub_period_s: Annotated[
        float, About("three readings within the 30 days that a receipt lives", unit="seconds", least=60, most=29 * 86400)
    ] = 10 * 86400.0
    trash_window_s: Annotated[float, About("a week to notice a mistaken delete", unit="seconds", least=0, most=400 * 86400)] = 7 * 86400.0

    member_lifetime_s: Annotated[
        float,
        About("two years, renewed from two thirds on: eight months to find an issuer", unit="seconds", least=5, most=20 * 365 * 86400),
    ] = 2 * 365 * 86400.0
    node_lifetime_s: Annotated[
        float, About("one year, renewed by the node's own member", unit="seconds", least=5, most=20 * 365 * 86400)
    ] = 365 * 86400.0

    ledger: Annotated[
        str,
        About(
            "a domain's nodes keep its chain; light follows it by proofs, off does not follow it",
            among=("full", "light", "off"),
            former=(("true", "full"), ("yes", "full"), ("on", "full"), ("false", "off"), ("no", "off")),
        ),
    ] = "full"
    ledger_blocks_kept: Annotated[
        int,
        About(
            "0 keeps all, an archive; else so many below the final one, 1,000 at least, once enough others hold all; no seat without all",
            unit="blocks of each chain",
            least=0,
        ),
    ] = 0
    miner_cpu_share: Annotated[
        float,
        About(
            "a block takes a tenth of a second of one core; half of it leaves files their turn",
            unit="share of one core",
            least=0.01,
            most=1,
        ),
    ] = 0.5

    log_level: Annotated[str, About("a few lines a minute on a quiet day", among=("debug", "info", "warning", "error"))] = "info"


PROFILES: Mapping[str, Mapping[str, Value]] = MappingProxyType(
    {
        "default": MappingProxyType({}),
        # A board with 1 to 4 GiB of memory, 100 Mbit/s to 1 Gbit/s and a card that wears out by writing.
        "pi": MappingProxyType(
            {
                "connections_max": 48,
                "store_budget_bytes": 8 * GIB,
                "store_reserve_bytes": 128 * MIB,
                "member_quota_bytes": 6 * GIB,
                "repair_bytes_per_s": 8 * MIB,
                "miner_cpu_share": 0.25,
                "scrub_period_s": 20 * 86400.0,
            }
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting: its key, kind (the type of its default), default, and what Config says about it."""

    key: str
    kind: type
    default: Value
    about: About

    @property
    def environment_name(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.key.upper()


def _settings() -> dict[str, Setting]:
    hints = get_type_hints(Config, include_extras=True)
    defaults = Config()
    found: dict[str, Setting] = {}
    for item in fields(Config):
        default: Value = getattr(defaults, item.name)
        (about,) = hints[item.name].__metadata__
        found[item.name] = Setting(item.name, type(default), default, about)
    return found


SETTINGS: Mapping[str, Setting] = MappingProxyType(_settings())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and, for each key, who decided: "flag", "environment LADING_X", "file", "profile pi" or "default"."""

    config: Config
    origins: Mapping[str, str]


def home_path(flag: str | None, environment: Mapping[str, str]) -> Path:
    """The home directory: flag, LADING_HOME, else `lading` in the XDG state directory. Absolute. Raises UsageError where that is in the
    folder of a person who has none."""
    chosen = flag or environment.get("LADING_HOME")
    if chosen:
        return Path(os.path.abspath(_expanded(chosen)))
    state = environment.get("XDG_STATE_HOME") or os.path.join(_expanded("~"), ".local", "state")
    return Path(os.path.abspath(state)) / "lading"


def _expanded(path: str) -> str:
    found = os.path.expanduser(path)
    if path.startswith("~") and found == path:
        raise UsageError(f"{path}: whose folder this is, is not known here", hint="give --home DIR, or set LADING_HOME or HOME")
    return found


def load(home: Path, *, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None) -> Loaded:
    """The configuration of ``home``; a missing file counts as empty.

    flags: overrides by key, as text or already of the setting's kind. environment: usually os.environ.
    Raises UsageError naming key, origin, got and wanted.
    """
    layers: list[tuple[str, Mapping[str, object]]] = [("flag", dict(flags or {})), *_environment_layers(environment or {})]
    layers.append(("file", read_file(home / FILE_NAME)))
    known = [(origin, {key: parse(key, value, origin) for key, value in layer.items()}) for origin, layer in layers]
    profile = next((layer["profile"] for _, layer in known if "profile" in layer), SETTINGS["profile"].default)
    assert isinstance(profile, str)
    known.append((f"profile {profile}", dict(PROFILES[profile])))
    known.append(("default", {key: setting.default for key, setting in SETTINGS.items()}))
    values: dict[str, Value] = {}
    origins: dict[str, str] = {}
    for origin, layer in known:
        for key, value in layer.items():
            if key not in values:
                values[key], origins[key] = value, origin
    config = Config(**values)  # type: ignore[arg-type]  # parse gave each its kind
    _check_together(config)
    return Loaded(config, {key: origins[key] for key in SETTINGS})


def _environment_layers(environment: Mapping[str, str]) -> list[tuple[str, Mapping[str, object]]]:
    layers: list[tuple[str, Mapping[str, object]]] = []
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in ENVIRONMENT_OTHERS:
            layers.append((f"environment {name}", {name.removeprefix(ENVIRONMENT_PREFIX).lower(): environment[name]}))
    return layers


def store_budget(config: Config, disk_bytes: int) -> int:
    """Bytes that the store may take on a disk of ``disk_bytes``: the smaller of the two budgets."""
    return min(config.store_budget_bytes, int(disk_bytes * config.store_budget_share))


# --- values -----------------------------------------------------------------------------------------------------------


def setting(key: str) -> Setting:
    """What is known of ``key``. Raises UsageError naming the nearest key."""
    found = SETTINGS.get(key)
    if found is None:
        near = get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
        raise UsageError(f"no setting is called {key!r}", hint=f"did you mean {near[0]}?" if near else "lading config schema")
    return found


def parse(key: str, value: object, origin: str = "flag") -> Value:
    """``value`` as the kind of ``key``: text in the forms people write, or already that kind.

    Raises UsageError naming origin, key, got and wanted.
    """
    known = _known(key, origin)
    try:
        parsed = _as_kind(known, value)
    except ValueError as error:
        raise UsageError(f"{key} from {origin}: {error}", hint=_wanted(known)) from error
    if known.about.among and parsed not in known.about.among:
        near = get_close_matches(str(parsed), known.about.among, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise UsageError(f"{key} from {origin}: got {parsed!r}, wanted one of {', '.join(known.about.among)}", hint=hint)
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise UsageError(f"{key} from {origin}: got {value}, wanted a number", hint=_wanted(known))
    if isinstance(parsed, int | float):
        least, most = known.about.least, known.about.most
        if least is not None and parsed < least:
            raise UsageError(f"{key} from {origin}: got {value}, at least {format_value(known, least)} wanted")
        if most is not None and parsed > most:
            raise UsageError(f"{key} from {origin}: got {value}, at most {format_value(known, most)} wanted")
    return parsed


def _known(key: str, origin: str) -> Setting:
    try:
        return setting(key)
    except UsageError as error:
        where = origin if origin.startswith("environment") else f"{key} from {origin}"
        raise UsageError(f"{error.message} ({where})", hint=error.hint) from None


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _as_kind(known: Setting, value: object) -> Value:
    """Raises ValueError(got and wanted)."""
    if known.about.former and isinstance(value, str | bool):
        text = str(value).lower()
        return dict(known.about.former).get(text, text)
    match known.kind, value:
        case _, str(text) if known.kind is tuple:
            return tuple(item for item in re.split(r"[,\s]+", text) if item)
        case _, list() | tuple() if known.kind is tuple and all(isinstance(item, str) for item in value):
            return tuple(value)
        case _, str(text) if known.kind is bool:
            truth = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}.get(
                text.lower()
            )
            if truth is None:
                raise ValueError(f"got {text!r}, wanted true or false")
            return truth
        case _, bool() if known.kind is not bool:
            raise ValueError(f"got {value}, wanted {known.about.unit or 'text'}")
        case _, str(text) if known.kind in (int, float):
            number = parse_quantity(text, known.about.unit)
            return int(number) if known.kind is int else float(number)
        case _, int() if known.kind is float:
            return float(value)
        case _, str() | bool() | int() | float() if isinstance(value, known.kind):
            return value
    raise ValueError(f"got {value!r}, wanted {known.about.unit or known.kind.__name__}")


_SIZES = {"": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_TIMES = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_quantity(text: str, unit: str) -> float:
    """A number written by people: "50 GiB", "2.5MB" where bytes are wanted; "10m", "24h", "500ms" where seconds are.

    Raises ValueError(got and wanted).
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)(/s)?\s*", text.lower())
    factors = _SIZES if unit.startswith("bytes") else _TIMES if unit.startswith("seconds") else {"": 1}
    if match is not None and match[2] == "" and match[3] is None and unit.startswith("share"):
        return float(match[1])
    if match is None or match[2] not in factors or (match[3] and not unit.endswith("per second")):
        example = "50 GiB" if factors is _SIZES else "10m or 24h" if factors is _TIMES else "12"
        raise ValueError(f"got {text!r}, wanted {unit or 'a number'}, like {example}")
    number = float(match[1]) * factors[match[2]]
    return int(number) if number.is_integer() else number


def format_value(known: Setting, value: Value) -> str:
    """``value`` as it stands in config.toml, sizes and times in the unit that says them exactly."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_quote(item) for item in value) + "]"
    if isinstance(value, str):
        return _quote(value)
    if known.about.unit.startswith("bytes"):
        for name, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
            if value and value % factor == 0:
                return _quote(f"{int(value // factor)} {name}")
    if known.about.unit == "seconds":
        for name, factor in (("d", 86400), ("h", 3600), ("m", 60)):
            if value and value % factor == 0:
                return _quote(f"{int(value // factor)}{name}")
    return repr(value)


def _quote(text: str) -> str:
    """A TOML basic string."""
    out = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else c for c in text.replace("\\", "\\\\").replace('"', '\\"'))
    return f'"{out}"'


def _wanted(known: Setting) -> str:
    return f"{known.key} is {known.about.unit or known.kind.__name__}; default {format_value(known, known.default)}"


def _check_together(config: Config) -> None:
    """What no single value can break."""
    if config.store_reserve_bytes >= config.store_budget_bytes:
        raise UsageError(
            f"store_reserve_bytes ({config.store_reserve_bytes}) leaves nothing of store_budget_bytes ({config.store_budget_bytes})",
            hint="lading config set store_budget_bytes '50 GiB'",
        )
    if config.country and not re.fullmatch("[A-Z]{2}", config.country):
        raise UsageError(f"country: got {config.country!r}, wanted two capital letters like DE")


# --- the file ---------------------------------------------------------------------------------------------------------


def read_file(path: Path) -> Mapping[str, object]:
    """The keys of a config.toml, unchecked; empty when there is none. Raises UsageError with file and line, LadingError(FAILED)."""
    return _parse_text(_read_text(path), path)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise UsageError(f"{path} is larger than {FILE_BYTES_MAX} bytes")
        return data.decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise LadingError(Reason.FAILED, f"cannot read {path}: {error.strerror or error}") from error


def _parse_text(text: str, path: Path) -> Mapping[str, object]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", hint="lading config validate") from error
    for key, value in values.items():
        if isinstance(value, dict):
            raise UsageError(f"{path}: [{key}] is a table; settings are plain lines, key = value")
    return values


def set_key(path: Path, key: str, value: object) -> Value:
    """Sets one key in the file at ``path``, and nothing else: comments, order and other keys stay. Returns the value as read.

    The whole configuration is checked before the file is replaced, in one step and on disk. Raises UsageError, LadingError(FAILED).
    """
    parsed = parse(key, value, "command line")
    text = _read_text(path)
    before = _parse_text(text, path)
    after_text = with_key(text, key, parsed)
    after = _parse_text(after_text, path)
    assert {k: v for k, v in after.items() if k != key} == {k: v for k, v in before.items() if k != key}
    assert parse(key, after[key], "file") == parsed
    _check_values(after)
    _replace(path, after_text)
    return parsed


def check_file(path: Path) -> None:
    """Raises UsageError at the first thing that is wrong in the file at ``path``, taken for itself."""
    _check_values(read_file(path))


def _check_values(values: Mapping[str, object]) -> None:
    known = {key: parse(key, value, "file") for key, value in values.items()}
    profile = known.get("profile", SETTINGS["profile"].default)
    assert isinstance(profile, str)
    merged = {key: item.default for key, item in SETTINGS.items()} | dict(PROFILES[profile]) | known
    _check_together(Config(**merged))  # type: ignore[arg-type]  # parse gave each its kind


def with_key(text: str, key: str, value: Value) -> str:
    """``text`` of a config.toml with ``key`` set. A value that was there is replaced where it stands, a new one goes below the
    commented line that explains it, else to the end."""
    known = setting(key)
    new = f"{key} = {format_value(known, value)}"
    lines = text.splitlines(keepends=True)
    for start, line in enumerate(lines):
        if re.match(rf"\s*(?:{key}|\"{key}\"|'{key}')\s*=", line):
            end = _statement_end(lines, start)
            lines[start:end] = [new + _comment_of(lines[start:end]) + "\n"]
            return "".join(lines)
    for start, line in enumerate(lines):
        if re.match(rf"#\s*{key}\s*=", line):
            lines[start : start + 1] = [line if line.endswith("\n") else line + "\n", new + "\n"]
            return "".join(lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join([*lines, new + "\n"])


def _statement_end(lines: Sequence[str], start: int) -> int:
    """Index after the statement that begins at ``start``; lists and long strings go over several lines."""
    for end in range(start + 1, len(lines) + 1):
        if _is_toml("".join(lines[start:end])):
            return end
    raise AssertionError("the whole text was valid TOML, so each of its statements ends")


def _comment_of(lines: Sequence[str]) -> str:
    """The comment at the end of a statement, with the space before it; empty where there is none."""
    last = lines[-1].rstrip("\r\n")
    head = "".join(lines[:-1])
    for found in re.finditer("#", last):
        if _is_toml(head + last[: found.start()]):
            return "  " + last[found.start() :]
    return ""


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def new_text(values: Mapping[str, object]) -> str:
    """A whole new config.toml: every setting explained, ``values`` set, all others commented out at their default."""
    for key in values:
        setting(key)
    blocks = ["# Settings of this node. Every line may be left out; `lading config show --origin` says what counts and why.\n"]
    for key, known in SETTINGS.items():
        unit = f" ({known.about.unit})" if known.about.unit else f" (one of {', '.join(known.about.among)})" if known.about.among else ""
        blocks.append(f"\n# {key}{unit}: {known.about.reason}.\n# {key} = {format_value(known, known.default)}\n")
        if key in values:
            blocks.append(f"{key} = {format_value(known, parse(key, values[key]))}\n")
    return "".join(blocks)


def write_new(home: Path, values: Mapping[str, object]) -> None:
    """Writes the config.toml of a new home, readable by its owner only. Raises LadingError(FAILED)."""
    _replace(home / FILE_NAME, new_text(values))


def _replace(path: Path, text: str) -> None:
    """Puts ``text`` at ``path`` in one step that a power cut cannot halve."""
    part = path.with_name(path.name + ".part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        raise LadingError(Reason.FAILED, f"cannot write {path}: {error.strerror or error}") from error


def schema() -> dict[str, object]:
    """JSON Schema of config.toml, for editors and scripts."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", tuple: "array"}
    properties: dict[str, object] = {}
    for key, known in SETTINGS.items():
        default = list(known.default) if isinstance(known.default, tuple) else known.default
        row: dict[str, object] = {"type": kinds[known.kind], "default": default, "description": known.about.reason}
        if known.about.unit.startswith(("bytes", "seconds")):
            row["type"] = [row["type"], "string"]
        if known.kind is tuple:
            row["items"] = {"type": "string"}
        if known.about.unit:
            row["unit"] = known.about.unit
        if known.about.among:
            row["enum"] = list(known.about.among)
        if known.about.least is not None:
            row["minimum"] = known.about.least
        if known.about.most is not None:
            row["maximum"] = known.about.most
        row["environment"] = known.environment_name
        properties[key] = row
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a lading node",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
