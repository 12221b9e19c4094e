"""Commands that need no running node: they work on the home directory, or become the node.

node.home, node.run and node.demo are imported inside the functions: `lading status` should not load a runtime that it does not use.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from node import config
from node.http.client import SOCKET_NAME
from node.http.contract import API_VERSION, Answer
from protocols.codec import to_json
from protocols.errors import LadingError, Reason, UsageError

from .command import Invocation
from .passphrase import new_passphrase, passphrase_source
from .progress import Progress
from .text import Style

# A ticket is a few hundred bytes; a hundred times that is some other file.
TICKET_BYTES_MAX = 64 * 1024
# A kit is a page of text.
KIT_BYTES_MAX = 64 * 1024


def version() -> str:
    """The version of the installed distribution."""
    try:
        return importlib.metadata.version("lading")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def init(invocation: Invocation) -> Answer:
    """A new home that founds a domain, and with it a network unless a ticket says into which one it comes."""
    args = invocation.args
    ticket = _ticket_text(args.network, None) if args.network else None
    passphrase = new_passphrase(args, what="the keys of this node")
    if ticket is None:
        from node.home import init_home

        data = init_home(
            invocation.home,
            domain=args.domain,
            name=args.name,
            country=args.country,
            listen=_listen(args.listen),
            passphrase=passphrase,
        )
        return Answer(data)
    from node.founding import found_in_network

    with _telling(invocation) as progress:
        data = found_in_network(
            invocation.home,
            ticket,
            domain=args.domain,
            name=args.name,
            country=args.country,
            listen=_listen(args.listen),
            passphrase=passphrase,
            on_progress=progress.tell,
        )
    return Answer(data)


def join(invocation: Invocation) -> Answer:
    """A new home that comes in with a ticket, or with --again an old one that comes back."""
    args = invocation.args
    if not args.again:
        return _join(invocation)
    from node.joining import join_again

    _need_home(invocation.home)
    ticket = _ticket_text(args.ticket, args.ticket_file)
    output = invocation.output
    progress = Progress(invocation.command, output.stderr, output.style, is_live=output.stderr.isatty(), is_quiet=output.is_quiet)
    ask = passphrase_source(args, what="the keys of this node")
    try:
        return Answer(join_again(invocation.home, ticket, passphrase=ask, on_progress=progress.tell))
    finally:
        progress.end()


def restore_keys(invocation: Invocation) -> Answer:
    """A new home for a member whose machines are gone: his keys from the recovery kit, the rest with a ticket; a founder needs none."""
    args = invocation.args
    if args.kit == "-" and args.ticket == "-":
        raise UsageError("kit and ticket cannot both come from standard input", hint="lading keys restore - --ticket-file FILE")
    text = kit_text(args.kit)
    if args.ticket or args.ticket_file:
        if args.peer:
            raise UsageError("a ticket names its own addresses; --peer is for a founder who comes without one")
        return _join(invocation, kit_text=text)
    from node.recovery import restore_founder

    passphrase = new_passphrase(args, what="the keys of this node")
    data = restore_founder(
        invocation.home, text, peers=args.peer or (), name=args.name or "node", listen=_listen(args.listen), passphrase=passphrase
    )
    warnings = [] if args.peer else ["no --peer: this node finds the others by discovery on its own network only"]
    return Answer(data, warnings)


def renew_issuer(invocation: Invocation) -> Answer:
    """A new issuing key for the node of this home, from a founder's kit."""
    from node.recovery import renew_issuer as renew

    _need_home(invocation.home)
    ask = passphrase_source(invocation.args, what="the keys of this node")
    data = renew(invocation.home, kit_text(invocation.args.kit), passphrase=ask)
    return Answer(data | {"not_after": iso(data["not_after"])})


def revoke_issuer(invocation: Invocation) -> Answer:
    """An issuer put out by the domain's root, from a founder's kit; without one named, which there are."""
    from node.recovery import revoke_issuer as revoke

    args = invocation.args
    _need_home(invocation.home)
    data = revoke(
        invocation.home,
        kit_text(args.kit),
        serial=args.issuer,
        cutoff=int(datetime.datetime.fromisoformat(args.cutoff).timestamp()) if args.cutoff else None,
        cause=args.cause or "",
        passphrase=passphrase_source(args, what="the keys of this node"),
    )
    if args.issuer is None:
        rows = data["issuers"]
        assert isinstance(rows, list)
        return Answer({"issuers": [row | {key: iso(row[key]) for key in ("not_before", "not_after")} for row in rows]})
    return Answer(data | {"cutoff": iso(data["cutoff"])})


def iso(seconds: object) -> str:
    """ISO-8601 UTC of whole unix seconds."""
    assert isinstance(seconds, int)
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kit_text(kit: str) -> str:
    """The text of a kit from a file or `-`. Raises UsageError."""
    try:
        if kit == "-":
            data = sys.stdin.buffer.read(KIT_BYTES_MAX)
        else:
            with Path(kit).open("rb") as source:
                data = source.read(KIT_BYTES_MAX)
        return data.decode()
    except OSError as error:
        raise UsageError(f"recovery kit {kit}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError("what was given as a recovery kit is not text") from error


def _join(invocation: Invocation, **kit: str) -> Answer:
    args = invocation.args
    ticket = _ticket_text(args.ticket, args.ticket_file)
    passphrase = new_passphrase(args, what="the keys of this node")
    from node.joining import join_home

    with _telling(invocation) as progress:
        data = join_home(
            invocation.home, ticket, name=args.name, listen=_listen(args.listen), passphrase=passphrase, on_progress=progress.tell, **kit
        )
    return Answer(data)


@contextlib.contextmanager
def _telling(invocation: Invocation) -> Iterator[Progress]:
    """Progress that is ended whatever becomes of the work."""
    output = invocation.output
    progress = Progress(invocation.command, output.stderr, output.style, is_live=output.stderr.isatty(), is_quiet=output.is_quiet)
    try:
        yield progress
    finally:
        progress.end()


def _listen(addresses: list[str] | None) -> tuple[str, ...]:
    """Addresses as given; the default where none were."""
    chosen = tuple(addresses or ()) or config.Config().listen
    for address in chosen:
        if not address.startswith("/"):
            raise UsageError(f"--listen: got {address!r}, wanted a multiaddr like /ip4/0.0.0.0/tcp/4747")
    return chosen


def _ticket_text(word: str | None, file: str | None) -> str:
    """The ticket from an argument, `-`, or a file. Raises UsageError."""
    if bool(word) == bool(file):
        raise UsageError("join needs one ticket", hint="lading join TICKET   or   lading join -   or   lading join --ticket-file FILE")
    if word and word != "-":
        return word.strip()
    try:
        if file:
            with Path(file).open("rb") as source:
                data = source.read(TICKET_BYTES_MAX)
        else:
            data = sys.stdin.buffer.read(TICKET_BYTES_MAX)
        text = data.decode("ascii").split()
    except OSError as error:
        raise UsageError(f"ticket file {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError("what was given as a ticket is not text") from error
    if len(text) != 1:
        raise UsageError(f"got {len(text)} words, wanted one ticket")
    return text[0]


def start(invocation: Invocation) -> int:
    """Becomes the node, until Ctrl-C, SIGTERM or `lading stop`."""
    args = invocation.args
    flags: dict[str, object] = {}
    for pair in args.set or ():
        key, mark, value = pair.partition("=")
        if not mark:
            raise UsageError(f"--set: got {pair!r}, wanted KEY=VALUE", hint="lading config schema")
        flags[key.strip()] = value.strip()
    for key in ("listen", "static_peers", "profile", "log_level"):
        if getattr(args, key) is not None:
            flags[key] = getattr(args, key)
    _need_home(invocation.home)
    overrides = {key: config.parse(key, value) for key, value in flags.items()}
    from node.run import run_node

    ask = passphrase_source(args, what="the keys of this node")
    return run_node(invocation.home, overrides=overrides, json_ready=invocation.output.is_json, passphrase=ask)


def export_keys(invocation: Invocation) -> Answer:
    """The private keys as one file, protected like those of the home."""
    from node.home import export_keys as export

    target = Path(os.path.abspath(invocation.args.file))
    if target.exists():
        raise LadingError(Reason.CONFLICT, f"{target} exists; it is not overwritten", hint="lading keys export ANOTHER-FILE")
    return Answer(export(invocation.home, target, passphrase=passphrase_source(invocation.args, what="the keys of this node")))


def import_keys(invocation: Invocation) -> Answer:
    """Keys from an exported file into this home."""
    from node.home import import_keys as read_in

    source = Path(os.path.abspath(invocation.args.file))
    if not source.is_file():
        raise LadingError(Reason.NOT_FOUND, f"{source}: no such file")
    return Answer(read_in(invocation.home, source, passphrase=passphrase_source(invocation.args, what=f"the keys in {source.name}")))


def testnet(invocation: Invocation) -> Answer:
    """Homes of one domain and a script that starts them."""
    from node.home import make_testnet, slot_clocks

    args = invocation.args
    directory = Path(os.path.abspath(args.dir))
    if directory.exists() and any(directory.iterdir()):
        raise LadingError(Reason.CONFLICT, f"{directory} is not empty; nothing was written", hint=f"lading testnet {args.n} ANOTHER-DIR")
    clocks = {} if args.slot_ms is None else slot_clocks(args.slot_ms)
    if args.term_blocks is not None:
        clocks["term_blocks"] = args.term_blocks
    return Answer(make_testnet(args.n, directory, signers=args.signers or 0, clocks=clocks))


def demo(invocation: Invocation) -> Answer:
    """The story of five nodes, told while it happens."""
    from node.demo import run_demo

    output = invocation.output
    stream = output.stderr if output.is_json else output.stdout

    def say(line: str) -> None:
        if not output.is_quiet:
            stream.write(line + "\n")
            stream.flush()

    return Answer(run_demo([Path(os.path.abspath(path)) for path in invocation.args.path], say=say, keep=invocation.args.keep))


def tell_version(invocation: Invocation) -> Answer:
    """Versions of the program, its API and Python."""
    return Answer(
        {"version": version(), "api": API_VERSION, "python": platform.python_version(), "platform": platform.platform(terse=True)}
    )


# --- config -----------------------------------------------------------------------------------------------------------


def _loaded(invocation: Invocation) -> config.Loaded:
    return config.load(invocation.home, environment=os.environ)


def config_show(invocation: Invocation) -> Answer:
    """Every setting; with --origin also who decided it."""
    loaded = _loaded(invocation)
    rows: list[dict[str, object]] = []
    for key, known in config.SETTINGS.items():
        row: dict[str, object] = {"key": key, "value": getattr(loaded.config, key), "unit": known.about.unit}
        if invocation.args.origin:
            row["origin"] = loaded.origins[key]
        rows.append(row)
    return Answer({"file": str(invocation.home / config.FILE_NAME), "settings": rows})


def show_config(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """`key = value` lines that could stand in the file, with the origin as a comment."""
    rows = data["settings"]
    assert isinstance(rows, list)
    lines = [(f"{row['key']} = {config.format_value(config.SETTINGS[row['key']], row['value'])}", row.get("origin")) for row in rows]
    width = max(len(line) for line, origin in lines if origin) if any(origin for _, origin in lines) else 0
    for line, origin in lines:
        yield f"{line.ljust(width)}  {style.dim('# ' + origin)}" if origin else line


def config_get(invocation: Invocation) -> Answer:
    """One setting as it counts."""
    key = config.setting(invocation.args.key).key
    loaded = _loaded(invocation)
    return Answer({"key": key, "value": getattr(loaded.config, key), "origin": loaded.origins[key]})


def show_value(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The bare value, for scripts that do not like JSON."""
    value = data["value"]
    if isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, list | tuple):
        yield from (str(item) for item in value)
    else:
        yield str(value)


def config_set(invocation: Invocation) -> Answer:
    """Changes one line of config.toml."""
    args = invocation.args
    _need_home(invocation.home)
    value = config.set_key(invocation.home / config.FILE_NAME, args.key, args.value[0] if len(args.value) == 1 else args.value)
    loaded = _loaded(invocation)
    origin = loaded.origins[args.key]
    warnings = [] if origin == "file" else [f"{origin} still decides: {args.key} counts as {getattr(loaded.config, args.key)}"]
    if (invocation.home / SOCKET_NAME).exists():
        warnings.append("the running node takes it over at its next start")
    return Answer({"key": args.key, "value": value, "file": str(invocation.home / config.FILE_NAME)}, warnings)


def show_set(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The line as it stands in the file now."""
    known = config.SETTINGS[str(data["key"])]
    value = data["value"]
    assert isinstance(value, str | int | float | bool | tuple)
    yield f"{style.good('✓')} {known.key} = {config.format_value(known, value)}"


def config_validate(invocation: Invocation) -> Answer:
    """Whether the settings can be read, each and together."""
    file = invocation.args.file
    home = Path(os.path.abspath(file)).parent if file else invocation.home
    path = Path(os.path.abspath(file)) if file else home / config.FILE_NAME
    if not path.exists():
        raise LadingError(Reason.NOT_FOUND, f"{path}: no such file", hint="lading init --domain NAME")
    config.check_file(path)
    return Answer({"file": str(path), "valid": True, "keys": len(config.read_file(path))})


def config_schema(invocation: Invocation) -> Answer:
    """JSON Schema of config.toml."""
    return Answer({"json_schema": config.schema()})


def show_schema(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The schema itself, to be saved as a file."""
    yield to_json(data["json_schema"]).decode()


def _need_home(home: Path) -> None:
    if not (home / config.FILE_NAME).exists():
        raise LadingError(
            Reason.NOT_INITIALISED, f"{home} is not the home of a node", hint="lading init --domain NAME   or   lading join TICKET"
        )
