"""What a command is, and what its function is given."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.config import home_path
from node.http.contract import Answer

from . import show
from .output import Output, Shower


class Terminated(BaseException):
    """SIGTERM arrived while a call was open."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command's function is given."""

    args: argparse.Namespace
    environment: Mapping[str, str]
    output: Output
    command: str

    @property
    def home(self) -> Path:
        """Looked for only by commands that need one. Raises UsageError where there is none to be found."""
        return home_path(self.args.home, self.environment)


def _no_flags(parser: argparse.ArgumentParser) -> None:
    """A command without flags of its own."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    path: its words. summary: its line in the overview. paragraph, examples, exit_codes: its help page.
    run: returns the answer to print, or an exit code when it has printed for itself. show: the answer as text.
    quiet_key: the value that --quiet still prints.
    """

    group: str
    path: tuple[str, ...]
    summary: str
    paragraph: str
    examples: tuple[str, str, str]
    exit_codes: tuple[int, ...]
    run: Callable[[Invocation], Answer | int]
    add_flags: Callable[[argparse.ArgumentParser], None] = _no_flags
    show: Shower = show.show_any
    quiet_key: str = ""

    @property
    def name(self) -> str:
        """The words of the command, with blanks."""
        return " ".join(self.path)
