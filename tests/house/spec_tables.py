"""Tables of machines in SPEC.md files, compared with the TABLEs that are stepped.

A SPEC's table has the header ``| state | event | move | next |``; a cell may be in backticks, ``next`` may name several
states separated by commas.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from protocols.machine import Machine

Rows = frozenset[tuple[str, str, str, frozenset[str]]]


def rows_of_table(table: Mapping[tuple[enum.Enum, type], tuple[str, frozenset[enum.Enum]]]) -> Rows:
    """(state, event, move, next states) by name."""
    return frozenset(
        (state.name, event.__name__, move, frozenset(after.name for after in ends)) for (state, event), (move, ends) in table.items()
    )


def rows_of_spec(text: str) -> list[Rows]:
    """One set of rows for each machine table in the text of a SPEC.md, in order."""
    tables: list[Rows] = []
    rows: set[tuple[str, str, str, frozenset[str]]] | None = None
    for line in [*text.splitlines(), ""]:
        cells = [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")] if line.strip().startswith("|") else []
        if [cell.lower() for cell in cells] == ["state", "event", "move", "next"]:
            rows = set()
        elif rows is not None and len(cells) == 4:
            if not re.fullmatch(r"[-: ]+", cells[0]):
                rows.add((cells[0], cells[1], cells[2], frozenset(re.split(r"[,\s]+", cells[3]))))
        elif rows is not None:
            tables.append(frozenset(rows))
            rows = None
    return tables


def machines_of_room(package: str) -> dict[str, Rows]:
    """Name → rows of every Machine with a TABLE that is defined in a module of ``package``."""
    found: dict[str, Rows] = {}
    room = importlib.import_module(package)
    for info in pkgutil.iter_modules(room.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Machine) and kind.__module__ == module.__name__ and "TABLE" in vars(kind):
                found[name] = rows_of_table(kind.TABLE)
    return found


def disagreements(spec: Sequence[Rows], machines: Mapping[str, Rows]) -> Iterator[str]:
    """What differs between the tables of a SPEC and the machines beside it; a SPEC without tables disagrees with nothing."""
    if not spec:
        return
    left = list(spec)
    for name, rows in machines.items():
        if rows in left:
            left.remove(rows)
            continue
        nearest = max(spec, key=lambda table: len(table & rows))
        missing = sorted(f"{state}, {event}" for state, event, _, _ in rows - nearest)
        ghosts = sorted(f"{state}, {event}" for state, event, _, _ in nearest - rows)
        yield f"{name}: no table of the SPEC equals its TABLE; nearest lacks or differs at {missing}, has besides {ghosts}"
        if nearest in left:
            left.remove(nearest)
    for table in left:
        yield f"a table of {len(table)} rows belongs to no machine"


def disagreements_of_all_rooms(root: Path) -> Iterator[str]:
    """Every protocols/<room>/SPEC.md that has machine tables."""
    for file in sorted((root / "protocols").glob("*/SPEC.md")):
        spec = rows_of_spec(file.read_text(encoding="utf-8"))
        if spec:
            for text in disagreements(spec, machines_of_room(f"protocols.{file.parent.name}")):
                yield f"{file.relative_to(root).as_posix()}: {text}"
