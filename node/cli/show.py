"""Answers as text for people. Each function takes the data of one command and yields lines; what the node did not tell is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .text import Style, duration, pairs, plural, printable, size, table

# A list longer than this is one for --json; people get its beginning and its length.
_LIST_ITEMS_MAX = 12


def show_any(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Any data: single values as pairs, then lists of objects as tables."""
    simple = {key: value for key, value in data.items() if not _is_rows(value)}
    yield from pairs([(_label(key), value_text(key, value, style)) for key, value in simple.items()], style)
    is_first = not simple
    for key, value in data.items():
        if not _is_rows(value):
            continue
        if not is_first:
            yield ""
        is_first = False
        yield style.bold(_label(key))
        yield from rows_table(_rows(value), style, indent="  ")


def show_status(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Is it healthy, is my data safe, is the ledger moving, what needs me."""
    peers = _list_of(data.get("peers"))
    store = _object(data.get("store"))
    alerts = _texts(data.get("alerts"))
    yield from pairs(
        [
            ("node", f"{style.bold(_id(data, 'name', style) or _id(data, 'node', style))}  {_id(data, 'peer_id', style)}".strip()),
            ("member", _id(data, "member", style)),
            ("domain", _id(data, "domain", style)),
            ("listen", "\n".join(_texts(data.get("listen")))),
            ("peers", _peers_line(data.get("peers"), peers, style)),
            ("records", _number(data.get("records"))),
            ("store", _store_line(store)),
            ("clock", _clock_line(_object(data.get("clock")))),
            ("ledger", "\n".join(_ledger_line(chain, style) for chain in _chains(data.get("ledger")))),
            ("alerts", "\n".join(style.careful(style.ids_in(alert)) for alert in alerts) or style.good("none")),
        ],
        style,
    )


def _clock_line(clock: Mapping[str, object]) -> str:
    """`2027-01-31T00:00:00Z (agreed on by two members)`, and in a line of its own how the chain's time stands."""
    if not clock.get("time"):
        return ""
    source = {"machine": "this machine's", "agreed": "agreed on by two members", "floor": "not before this; unsafe"}
    line = f"{clock['time']} ({source.get(str(clock.get('source')), 'unknown')})"
    network = _object(clock.get("network"))
    if not network:
        return line
    counted, apart = network.get("members"), network.get("spread_ms")
    return f"{line}\nnetwork time {network.get('state')}: {counted} counted, {apart} ms apart, {network.get('offset_ms')} ms ahead"


def show_clock(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Whose time it is, and how network time lies to it."""
    network = _object(data.get("network"))
    lines = [
        ("time", f"{data.get('time')}  {data.get('source')}{', kept right by a time server' if data.get('synchronised') else ''}"),
        ("members", f"{data.get('members_agreeing')} say the same, {data.get('members_differing')} say otherwise"),
    ]
    if network:
        lines += [
            ("network time", f"{network.get('time')}  {network.get('state')}"),
            ("ahead of here", f"{network.get('offset_ms')} ms"),
            (
                "counted",
                f"{network.get('members')} members, {network.get('spread_ms')} ms between them, {network.get('gap_ms')} ms from here",
            ),
            ("blocks ahead", f"at most {data.get('drift_ms_max')} ms"),
        ]
    yield from pairs(lines, style)


def show_peers(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Who is there, how they are reached, and who is away."""
    peers = _list_of(data.get("peers"))
    if not peers:
        yield "No other node is known yet. Bring one in: lading invite"
        return
    rows = []
    for peer in sorted(peers, key=lambda peer: (not peer.get("connected"), str(peer.get("node")))):
        rtt = peer.get("rtt_ms")
        rows.append(
            (
                _name(peer, style),
                _id(peer, "member", style),
                _text(peer.get("domain")),
                style.good("connected") if peer.get("connected") else style.bad("away"),
                _text(peer.get("path")),
                f"{rtt:.1f} ms" if isinstance(rtt, int | float) else "",
                _text(peer.get("since")),
                next(iter(_texts(peer.get("addresses"))), ""),
            )
        )
    yield from table(("NODE", "MEMBER", "DOMAIN", "STATE", "PATH", "RTT", "SINCE", "ADDRESS"), rows, style, right=(5,))


def show_put(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Who holds it now and what it survives."""
    if "records" in data:
        yield from _show_each(_list_of(data["records"]), style)
        return
    holders = _list_of(data.get("holders"))
    facts = _joined(
        _count(data, "entries", "entry", "entries"), _size(data), _count(data, "sequences", "sequence"), _chunks(data), separator=", "
    )
    if data.get("dry_run"):
        yield f"Would publish {facts}. Nothing was stored."
        return
    yield f"{style.good('✓')} {style.bold(_id(data, 'record', style))}  {facts}"
    if holders:
        rows = [
            (_id(holder, "name", style) or _id(holder, "node", style), _count(holder, "sequences", "sequence"), _receipt(holder, style))
            for holder in holders
        ]
        yield from table(("HOLDER", "HOLDS", "RECEIPT"), rows, style, indent="  ")
    yield from ("  " + line for line in pairs([("survives", _survives(data.get("survives"), style)), *_after_put(data, style)], style))


def _show_each(records: Sequence[Mapping[str, object]], style: Style) -> Iterator[str]:
    """A line for every record of `put --each`."""
    rows = [
        (_id(one, "record", style), _size(one), _survives(one.get("survives"), style), printable(_text(one.get("path")))) for one in records
    ]
    yield from table(("RECORD", "SIZE", "SURVIVES", "PATH"), rows, style)


def _after_put(data: Mapping[str, object], style: Style) -> list[tuple[str, str]]:
    took = _object(data.get("elapsed_ms"))
    times = ", ".join(f"{name} {duration(value / 1000)}" for name, value in took.items() if isinstance(value, int | float))
    readers = [style.id(item) for item in _texts(data.get("opens_without_owner"))]
    return [("opens without owner", ", ".join(readers)), ("ledger", _text(data.get("state"))), ("took", times)]


def show_get(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """What was written where."""
    took = data.get("elapsed_ms")
    sources = data.get("sources")
    count = (
        len(sources) if isinstance(sources, Sequence) and not isinstance(sources, str) else sources if isinstance(sources, int) else None
    )
    parts = _joined(
        _size(data),
        _count(data, "entries", "entry", "entries"),
        f"from {plural(count, 'holder')}" if count else "",
        f"in {duration(took / 1000)}" if isinstance(took, int | float) else "",
        separator=", ",
    )
    yield f"{style.good('✓')} {style.bold(printable(_text(data.get('path')) or _id(data, 'record', style)))}  {parts}, every byte verified"


def show_ls(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The records known here."""
    records = _list_of(data.get("records"))
    if not records:
        yield "No records yet. Publish one: lading put PATH"
        return
    rows = [
        (
            _id(record, "record", style),
            _number(record.get("entries")),
            _size(record),
            _survives(record.get("survives"), style, is_short=True),
            _text(record.get("state")),
            _validity(record, style),
            _id(record, "owner", style),
        )
        for record in records
    ]
    yield from table(("RECORD", "ENTRIES", "SIZE", "SURVIVES", "STATE", "VALIDITY", "OWNER"), rows, style, right=(1, 2))


def _validity(record: Mapping[str, object], style: Style) -> str:
    text = _text(record.get("validity"))
    return text if text in ("", "valid") else style.careful(text)


def show_file(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """Want and have of a record, then what the ledger says of it."""
    yield from show_any({key: value for key, value in data.items() if key != "ledger"}, style)
    ledger = _object(data.get("ledger"))
    if ledger:
        yield ""
        yield style.bold("ledger")
        yield from ("  " + line for line in show_any(ledger, style))


def show_inbox(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """What waits for this member, and what it waits for itself: a line each."""
    for key, title in (("waiting", "Waits for you"), ("asked", "Asked of others")):
        found = _list_of(data.get(key))
        if not found:
            continue
        yield style.bold(title)
        rows = [
            (
                _id(one, "id", style),
                _joined(_text(one.get("kind")), _text(one.get("change")), separator=" "),
                _id(one, "record", style),
                _text(_object(one.get("asked_by")).get("name")),
                _names(one.get("approved")),
                _names(one.get("lacking")),
                _text(one.get("deadline")),
                _text(one.get("said")),
            )
            for one in found
        ]
        yield from table(("ID", "WHAT", "RECORD", "ASKED BY", "APPROVED", "LACKING", "LAPSES", "SAID"), rows, style)
    if not _list_of(data.get("waiting")):
        yield "Nothing waits for you."
    if notices := _list_of(data.get("notices")):
        yield style.bold("Penalties that concern you")
        told = [
            (
                _id(one, "transaction", style),
                _text(one.get("level")),
                "you" if one.get("is_this_member") else _text(one.get("name")),
                _text(one.get("from")),
                _text(one.get("until")),
                ", ".join(_text(record)[:16] for record in _texts(one.get("own_records"))),
                _text(one.get("reason")),
            )
            for one in notices
        ]
        yield from table(("ID", "LEVEL", "WHO", "FROM", "UNTIL", "ABOUT YOUR RECORDS", "REASON"), told, style)


def _names(members: object) -> str:
    return ", ".join(_text(one.get("name")) for one in _list_of(members))


def show_home(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """A new home: who it is, the recovery kit where there is one, and what comes next."""
    node, domain = _name(data, style) or "this node", _text(data.get("domain")) or "the domain"
    yield f"{style.good('✓')} {style.bold(node)} of {style.bold(domain)} is ready"
    rest = {key: value for key, value in data.items() if key not in ("recovery_kit", "node", "name", "domain", "protected")}
    yield from ("  " + line for line in pairs([(_label(key), value_text(key, value, style)) for key, value in rest.items()], style))
    if data.get("protected") is False:
        yield style.careful("  The keys on this disk are not protected by a passphrase.")
    if data.get("recovery_kit"):
        yield ""
        yield style.bold("Print this or copy it by hand, now. It is kept nowhere else, and nobody can make another one.")
        yield ""
        yield from printable(str(data["recovery_kit"])).rstrip("\n").split("\n")
    yield ""
    yield style.dim("Next:  lading start")


def show_testnet(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The homes, and the two lines to go on with."""
    yield from rows_table(_list_of(data.get("nodes")), style)
    start = _text(data.get("start"))
    if start:
        yield ""
        yield style.dim(f"Start them all:  sh {start}")


def show_invite(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """The ticket on a line of its own, and what to do with it; or the table of tickets, or the one that was cancelled."""
    if "tickets" in data:
        yield from rows_table(_list_of(data.get("tickets")), style)
        return
    if "ticket" not in data:
        yield from show_any(data, style)
        return
    yield str(data.get("ticket", ""))
    expires = _text(data.get("expires"))
    use = "lading init --domain NAME --network TICKET" if data.get("role") == "domain" else "lading join TICKET"
    yield style.dim(f"Single use{', until ' + expires if expires else ''}. On the new computer:  {use}   then   lading start")


def show_doctor(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """One line per check, and what to do where one fails."""
    marks = {"ok": style.good("✓"), "warn": style.careful("!"), "fail": style.bad("✗")}
    checks = _list_of(data.get("checks"))
    if not checks:
        yield from show_any(data, style)
    for check in checks:
        level = check_level(check)
        yield f"{marks.get(level, '?')} {_text(check.get('name'))}  {style.ids_in(_text(check.get('message')))}".rstrip()
        if level != "ok" and check.get("hint"):
            yield f"    Try: {_text(check.get('hint'))}"


def check_level(check: Mapping[str, object]) -> str:
    """ok, warn or fail of one of the doctor's checks."""
    level = check.get("level")
    return str(level) if level else "ok" if check.get("ok", True) else "fail"


def show_event(facts: Mapping[str, object], style: Style) -> str:
    """One event on one line: time, what, facts."""
    rest = (f"{key}={value_text(key, value, style)}" for key, value in facts.items() if key not in ("time", "event"))
    return _joined(style.dim(_text(facts.get("time"))), style.bold(_text(facts.get("event"))), " ".join(rest), separator="  ")


def show_nothing(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """For commands that told everything while it happened."""
    yield from ()


# --- values -----------------------------------------------------------------------------------------------------------


def value_text(key: str, value: object, style: Style) -> str:
    """One value as people read it; its key says whether it is bytes or a time."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key == "bytes" or key.endswith("_bytes") or key in ("budget", "free"):
            return size(value)
        if key.endswith("_ms"):
            return duration(value / 1000)
        return duration(value) if key.endswith("_s") else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_label(str(name))} {value_text(str(name), item, style)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = [value_text(key, item, style) for item in value[:_LIST_ITEMS_MAX]]
        return ", ".join(shown) + (f" and {len(value) - _LIST_ITEMS_MAX} more" if len(value) > _LIST_ITEMS_MAX else "")
    return style.ids_in(printable(str(value)))


def rows_table(rows: Sequence[Mapping[str, object]], style: Style, *, indent: str = "") -> Iterator[str]:
    """A table of objects, one column per key that any of them has."""
    keys = list(dict.fromkeys(str(key) for row in rows for key in row))
    cells = [[value_text(key, row.get(key), style) for key in keys] for row in rows]
    numbers = [i for i, key in enumerate(keys) if all(isinstance(row.get(key), int | float) for row in rows)]
    yield from table([_label(key).upper() for key in keys], cells, style, right=numbers, indent=indent)


def _label(key: str) -> str:
    for ending in ("_ms", "_s", "_bytes"):
        key = key.removesuffix(ending)
    return key.replace("_", " ")


def _rows(value: object) -> Sequence[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) and not isinstance(value, str) else []


def _is_rows(value: object) -> bool:
    return bool(_rows(value))


def _list_of(value: object) -> Sequence[Mapping[str, object]]:
    """The objects of a list, or of an object's `list` or `peers`."""
    if isinstance(value, Mapping):
        return _rows(value.get("list") or value.get("peers"))
    return _rows(value)


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    return "" if value is None else printable(str(value))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [printable(value)] if value else []
    if not isinstance(value, Sequence):
        return []
    return [
        _text(item.get("message") or item.get("member") or item.get("name")) if isinstance(item, Mapping) else _text(item) for item in value
    ]


def _number(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(len(value)) if isinstance(value, list) else _text(value)


def _id(data: Mapping[str, object], key: str, style: Style) -> str:
    return style.id(_text(data.get(key)))


def _name(node: Mapping[str, object], style: Style) -> str:
    return _id(node, "name", style) or _id(node, "node", style)


def _size(data: Mapping[str, object]) -> str:
    value = data.get("bytes")
    return size(value) if isinstance(value, int | float) else ""


def _count(data: Mapping[str, object], key: str, one: str, many: str = "") -> str:
    value = data.get(key)
    if isinstance(value, list):
        value = len(value)
    return plural(value, one, many) if isinstance(value, int) else ""


def _chunks(data: Mapping[str, object]) -> str:
    new = data.get("chunks_new")
    return _count(data, "chunks", "chunk") + (f" ({new} new)" if isinstance(new, int) and new != data.get("chunks") else "")


def _receipt(holder: Mapping[str, object], style: Style) -> str:
    return style.dim(_id(holder, "receipt", style))


def _joined(*parts: str, separator: str) -> str:
    return separator.join(part for part in parts if part)


def _survives(value: object, style: Style, *, is_short: bool = False) -> str:
    if not isinstance(value, int):
        return ""
    text = f"any {plural(value, 'loss', 'losses')}" if value else "no loss"
    if not is_short:
        text = f"the loss of any {plural(value, 'holder')}" if value else "nothing: it has one copy only"
    return style.good(text) if value > 1 else style.careful(text) if value else style.bad(text)


def _peers_line(whole: object, peers: Sequence[Mapping[str, object]], style: Style) -> str:
    known = whole.get("count") if isinstance(whole, Mapping) else len(peers)
    connected = sum(bool(peer.get("connected", True)) for peer in peers)
    text = f"{connected} connected of {known} known"
    return text if not peers or connected == known else style.careful(text)


def _store_line(store: Mapping[str, object]) -> str:
    used, budget, free = (store.get(key) for key in ("bytes", "budget", "free"))
    parts = [size(used) if isinstance(used, int | float) else ""]
    if isinstance(budget, int | float):
        parts.append(f"of {size(budget)} used")
    return " ".join(part for part in parts if part) + (f", {size(free)} free" if isinstance(free, int | float) else "")


def _chains(ledger: object) -> list[tuple[str, Mapping[str, object]]]:
    """(name, facts) of each chain, whether the node tells one, several by name, or a list."""
    if isinstance(ledger, Mapping):
        if "height" in ledger:
            return [(_text(ledger.get("chain")), ledger)]
        return [(str(name), chain) for name, chain in ledger.items() if isinstance(chain, Mapping)]
    return [(_text(chain.get("chain")), chain) for chain in _rows(ledger)]


def _ledger_line(named: tuple[str, Mapping[str, object]], style: Style) -> str:
    name, chain = named
    facts = ((key, chain.get(key)) for key in ("height", "finalized", "tip"))
    return _joined(style.id(name), *(f"{key} {style.id(_text(value))}" for key, value in facts if value is not None), separator="  ")
