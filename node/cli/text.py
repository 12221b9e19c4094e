"""Words, numbers and colours for people. Pure functions; bytes and full ids stay in the JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Twelve hex digits: 48 bits, unique among millions of records, and short enough to read aloud.
SHORT_ID_LETTERS = 12
# All Ed25519 peer ids begin with these letters, CIDs of raw SHA-256 with the others; they say nothing.
_COMMON_BEGINNINGS = ("12D3KooW", "bafkrei")
_ID = re.compile(r"[0-9a-f]{32,}|12D3KooW[1-9A-HJ-NP-Za-km-z]{20,}|bafkrei[a-z2-7]{30,}")


@dataclass(frozen=True, slots=True)
class Style:
    """How text looks. has_colour: escape sequences allowed. full_ids: nothing is shortened (--verbose)."""

    has_colour: bool = False
    full_ids: bool = False

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.has_colour and text else text

    def bold(self, text: str) -> str:
        """For names and headings."""
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        """For what may be skipped."""
        return self._paint("2", text)

    def good(self, text: str) -> str:
        """Green."""
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        """Red."""
        return self._paint("31", text)

    def careful(self, text: str) -> str:
        """Yellow."""
        return self._paint("33", text)

    def id(self, text: str) -> str:
        """An id, shortened to a beginning that the commands accept."""
        return text if self.full_ids else short_id(text)

    def ids_in(self, text: str) -> str:
        """``text`` with every id in it shortened."""
        return text if self.full_ids else _ID.sub(lambda found: short_id(found[0]), text)


def short_id(text: str) -> str:
    """The beginning of a hash, peer id or CID; other text as it is."""
    if not _ID.fullmatch(text):
        return text
    kept = next((len(beginning) for beginning in _COMMON_BEGINNINGS if text.startswith(beginning)), 0)
    return text[: kept + SHORT_ID_LETTERS] if not kept else text[: kept + 8]


def size(count: float) -> str:
    """Bytes in binary units: 512 B, 1.5 KiB, 12.3 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    for large, large_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {large_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def plural(count: int, one: str, many: str = "") -> str:
    """1 entry, 2 entries."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], style: Style, *, right: Sequence[int] = (), indent: str = ""
) -> Iterator[str]:
    """Lines of a table, columns as wide as their widest cell; ``right``: indices of columns aligned to the right.

    Columns that are empty in every row are left out.
    """
    kept = [i for i in range(len(heads)) if any(row[i] for row in rows)]
    widths = {i: max(len(heads[i]), *(display_width(row[i]) for row in rows)) for i in kept}

    def line(cells: Sequence[str]) -> str:
        padded = (_pad(cells[i], widths[i], to_right=i in right) for i in kept)
        return (indent + "  ".join(padded)).rstrip()

    yield style.dim(line(heads))
    for row in rows:
        yield line(row)


_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def display_width(text: str) -> int:
    """Columns that ``text`` takes, colours not counted."""
    return len(_ESCAPE.sub("", text))


def _pad(text: str, width: int, *, to_right: bool) -> str:
    blank = " " * (width - display_width(text))
    return blank + text if to_right else text + blank


def pairs(rows: Sequence[tuple[str, str]], style: Style) -> Iterator[str]:
    """Lines of ``label  value``; rows without a value are left out."""
    shown = [row for row in rows if row[1]]
    width = max((len(label) for label, _ in shown), default=0)
    for label, value in shown:
        first, *more = value.split("\n")
        yield f"{style.dim(label.ljust(width))}  {first}"
        yield from (" " * (width + 2) + line for line in more)


def printable(text: str) -> str:
    """``text`` from elsewhere without control characters: nobody's file name moves our cursor."""
    return "".join(letter if letter.isprintable() or letter == "\n" else f"\\x{ord(letter):02x}" for letter in text)
