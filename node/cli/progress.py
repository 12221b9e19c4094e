"""Progress on stderr: one live line on a terminal, one line every 30 s elsewhere, and after 10 s of standstill what is missing."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from .text import Style, display_width, duration, plural, printable, size

LINE_INTERVAL_S = 30.0
STANDSTILL_S = 10.0
# Long enough to even out single commits, short enough that a rate follows a change.
_RATE_WINDOW_S = 10.0
# Over less time than this a rate is noise.
_RATE_TIME_MIN_S = 0.2
# A person does not read faster, and a terminal over a slow line is not flooded.
_REDRAW_INTERVAL_S = 0.1
_COUNTED = ("bytes", "sequences", "holders")


class Progress:
    """Shows the facts of one call. Use ``tell`` for each progress line, ``tick`` while waiting, ``end`` before any other output."""

    def __init__(
        self, title: str, stream: TextIO, style: Style, *, is_live: bool, is_quiet: bool = False, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._stream = stream
        self._style = style
        self._is_live = is_live
        self._is_quiet = is_quiet
        self._now = now
        self._facts: dict[str, object] = {}
        self._notes: set[str] = set()
        self._moved_at = self._printed_at = self._began_at = now()
        self._drawn_at = float("-inf")
        self._is_drawn = False
        self._is_standing = False
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def facts(self) -> Mapping[str, object]:
        """The newest value of every fact told so far."""
        return self._facts

    def tell(self, facts: Mapping[str, object]) -> None:
        """Takes a progress line of the node."""
        now = self._now()
        moved = [self._facts.get(key) for key in _COUNTED] != [facts.get(key, self._facts.get(key)) for key in _COUNTED]
        self._facts.update(facts)
        if moved:
            self._moved_at = now
            self._is_standing = False
        count = self._number("bytes")
        if count is not None:
            self._samples.append((now, count))
            while len(self._samples) > 2 and now - self._samples[0][0] > _RATE_WINDOW_S:
                self._samples.popleft()
        note = facts.get("note")
        if isinstance(note, str) and note not in self._notes:
            self._notes.add(note)
            self._print(printable(note))
        self.tick()

    def tick(self) -> None:
        """Called now and then while waiting."""
        now = self._now()
        if now - self._moved_at >= STANDSTILL_S and not self._is_standing:
            self._is_standing = True
            self._print(self._style.careful(f"{self._title}: no progress for {duration(now - self._moved_at)}; {self._waiting()}"))
        if self._is_live:
            if now - self._drawn_at >= _REDRAW_INTERVAL_S and now - self._began_at >= _REDRAW_INTERVAL_S:
                self._draw(now)
        elif now - self._printed_at >= LINE_INTERVAL_S:
            self._printed_at = now
            self._print(self._line(now))

    def end(self) -> None:
        """Takes the live line away."""
        if self._is_drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._is_drawn = False

    def _print(self, line: str) -> None:
        if self._is_quiet:
            return
        self.end()
        self._stream.write(line + "\n")
        self._stream.flush()

    def _draw(self, now: float) -> None:
        if self._is_quiet:
            return
        self._drawn_at = now
        columns = shutil.get_terminal_size().columns
        line = self._line(now)
        if display_width(line) >= columns:
            line = line[: columns - 2] + "…"
        self._stream.write("\r\x1b[2K" + line)
        self._stream.flush()
        self._is_drawn = True

    def _line(self, now: float) -> str:
        """`put sealing  12.3 of 40.0 MiB 31 %  3/10 sequences  2/3 holders  8.1 MiB/s  3 s left  waiting for nas2`"""
        parts = [f"{self._title} {printable(str(self._facts.get('phase', '')))}".rstrip()]
        count, total = self._number("bytes"), self._number("bytes_total")
        if count is not None:
            parts.append(f"{size(count)} of {size(total)} {100 * count // total} %" if total else size(count))
        for key in ("sequences", "holders"):
            done, wanted = self._number(key), self._number(f"{key}_total")
            if done is not None:
                parts.append(f"{done}/{wanted} {key}" if wanted is not None else plural(done, key.removesuffix("s")))
        rate = self._rate(now)
        if rate:
            parts.append(f"{size(rate)}/s")
            if total and count is not None and total > count:
                parts.append(f"{duration((total - count) / rate)} left")
        if self._facts.get("waiting_for"):
            parts.append(self._waiting())
        elif len(parts) == 1:
            parts.append(duration(now - self._began_at))
        return "  ".join(parts)

    def _waiting(self) -> str:
        what = self._facts.get("waiting_for")
        if isinstance(what, list | tuple):
            what = ", ".join(str(item) for item in what)
        return f"waiting for {self._style.ids_in(printable(str(what)))}" if what else "waiting for the node"

    def _rate(self, now: float) -> float:
        """Bytes per second since the oldest sample kept; sinks while nothing comes. 0 when unknown."""
        if len(self._samples) < 2 or now - self._samples[0][0] < _RATE_TIME_MIN_S:
            return 0.0
        (first_at, first), (_, last) = self._samples[0], self._samples[-1]
        return max(0.0, (last - first) / (now - first_at))

    def _number(self, key: str) -> int | None:
        value = self._facts.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None
