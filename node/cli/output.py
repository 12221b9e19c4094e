"""What a run prints: the JSON envelope or people's text on stdout, errors and warnings in the house's style on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TextIO

from node.http.contract import Answer, error_to_json, plain
from protocols.codec import to_json
from protocols.errors import LadingError

from .text import Style, printable

Shower = Callable[[Mapping[str, object], Style], Iterable[str]]


class Output:
    """The two streams of one run and how to write to them. Raises BrokenPipeError when the reader of stdout has gone."""

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False, style: Style | None = None) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.style = style or Style()
        self.stdout: TextIO = sys.stdout
        self.stderr: TextIO = sys.stderr
        self.is_stdout_taken = False
        """Raw output goes to stdout: the envelope goes to stderr then."""

    def answer(self, command: str, answer: Answer, show: Shower, quiet_key: str = "") -> None:
        """The result of ``command``. quiet_key: the one value that --quiet still prints."""
        if self.is_json:
            self._envelope({"schema": schema_of(command), "ok": True, "data": plain(answer.data), "warnings": list(answer.warnings)})
            return
        target = self.stderr if self.is_stdout_taken else self.stdout
        if self.is_quiet:
            value = answer.data.get(quiet_key)
            lines: Iterable[str] = [] if value is None or self.is_stdout_taken else map(str, value if isinstance(value, list) else [value])
        else:
            lines = show(answer.data, self.style)
        for line in lines:
            target.write(line + "\n")
        target.flush()
        for warning in answer.warnings:
            self.warn(warning)

    def event(self, command: str, facts: Mapping[str, object], line: str) -> None:
        """One event of a stream: a line of NDJSON, or ``line``."""
        if self.is_json:
            self._envelope({"schema": schema_of(command), "ok": True, "data": plain(facts), "warnings": []})
        else:
            self.stdout.write(line + "\n")
            self.stdout.flush()

    def warn(self, text: str) -> None:
        """A sentence on stderr that --quiet does not hide: it speaks of the result."""
        self.stderr.write(f"{self.style.careful('!')} {printable(text)}\n")
        self.stderr.flush()

    def note(self, text: str) -> None:
        """A sentence on stderr that --quiet hides."""
        if not self.is_quiet:
            self.stderr.write(printable(text) + "\n")
            self.stderr.flush()

    def error(self, command: str, error: LadingError) -> int:
        """A failure; returns the exit code."""
        value = error_to_json(error)
        code = value["code"]
        assert isinstance(code, int)
        if self.is_json:
            self._envelope({"schema": schema_of(command), "ok": False, "error": value})
        else:
            for line in error_lines(command, value, self.style):
                self.stderr.write(line + "\n")
            self.stderr.flush()
        return code

    def _envelope(self, value: Mapping[str, object]) -> None:
        target = self.stderr if self.is_stdout_taken else self.stdout
        target.write(to_json(value).decode() + "\n")
        target.flush()


def schema_of(command: str) -> str:
    """`lading.file.status/1` of `file status`."""
    return f"lading.{'.'.join(command.split())}/1" if command else "lading/1"


def error_lines(command: str, error: Mapping[str, object], style: Style) -> Iterable[str]:
    """What failed on which object and why, host by host, what still holds, what to try, and the stable name."""
    title = f"{command}: " if command else ""
    yield f"{style.bad('✗')} {title}{style.ids_in(printable(str(error['message'])))}"
    details = error.get("details")
    if isinstance(details, Mapping):
        yield from _host_lines(details, style)
        for key in ("still_holds", "note"):
            if details.get(key):
                yield f"  {style.ids_in(printable(str(details[key])))}"
        if details.get("record"):
            yield f"  record {style.bold(style.id(str(details['record'])))}"
    name = style.dim(f"[{error['name']}, exit {error['code']}]")
    if error.get("hint"):
        yield f"  Try: {style.ids_in(printable(str(error['hint'])))}      {name}"
    else:
        yield f"  {name}"


def _host_lines(details: Mapping[object, object], style: Style) -> Iterable[str]:
    """`  hospital-a/pi3 ok · customs/nas2 refused: quota` from details.holders or details.hosts."""
    hosts = details.get("holders") or details.get("hosts")
    if not isinstance(hosts, Sequence) or isinstance(hosts, str):
        return
    words = []
    for host in hosts:
        if not isinstance(host, Mapping):
            words.append(printable(str(host)))
            continue
        name = style.id(printable(str(host.get("node") or host.get("name") or "?")))
        state = str(
            host.get("state") or host.get("error") or host.get("reason") or ("ok" if host.get("receipt") or host.get("ok") else "no answer")
        )
        shown = style.ids_in(printable(state))
        words.append(f"{name} {style.good(shown) if state == 'ok' else shown}")
    if words:
        yield "  " + " · ".join(words)
