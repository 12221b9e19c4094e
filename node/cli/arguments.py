"""argparse, tamed: global flags before and after the command, nearest names for mistyped ones, one kind of help page.

A wrong command line raises UsageError instead of ending the process, so that --json answers it too.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NoReturn

from protocols.errors import UsageError

from .command import Command
from .kinds import seconds

EXIT_CODES: Mapping[int, str] = {
    0: "done, durable to the level asked",
    1: "other failure",
    2: "usage",
    3: "partial: some items failed, or durability below target",
    4: "not found",
    5: "refused by policy, certificate or notaries",
    6: "integrity failure",
    7: "unreachable, time-out, no quorum",
    8: "not initialised or not running",
    9: "home locked by another process",
    10: "conflict or not final yet",
    11: "migration needed or version too new",
    12: "out of space or quota",
    13: "clock unsafe",
    130: "interrupted",
    143: "terminated",
}

GLOBAL_DEFAULTS: Mapping[str, object] = {
    "home": None,
    "json": False,
    "quiet": False,
    "verbose": False,
    "no_color": False,
    "timeout": None,
    "yes": False,
}


# What fits the narrowest terminal that people use, and reads well on a wide one.
_PAGE_COLUMNS = 78


class _Parser(argparse.ArgumentParser):
    """Raises UsageError with the nearest name."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        what = "command" if isinstance(action, argparse._SubParsersAction) else "/".join(action.option_strings) or str(action.dest)
        near = get_close_matches(str(value), names, n=1, cutoff=0.5)
        text = f"no such command: {value!r}" if what == "command" else f"{what}: got {value!r}, wanted one of {', '.join(names)}"
        hint = f"{self.prog} {near[0]}" if near and what == "command" else f"{self.prog} --help"
        raise UsageError(text, hint=hint)


class HelpAsked(Exception):
    """--help stands in the line; what else is wrong with it does not matter. ``page``: the text."""

    def __init__(self, page: str) -> None:
        super().__init__(page)
        self.page = page


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: object, option_string: str | None = None) -> NoReturn:
        raise HelpAsked(parser.format_help())


def build_parser(commands: Sequence[Command], version: str) -> argparse.ArgumentParser:
    """The whole command line. A parsed namespace has ``command`` (a Command, or None) and every global flag that was given."""
    top = _Parser(
        prog="lading", add_help=False, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS
    )
    top.description = _overview(commands, version)
    top.set_defaults(command=None, parser=top)
    _add_globals(top)
    choices = top.add_subparsers(metavar="COMMAND", parser_class=_Parser, help=argparse.SUPPRESS)
    groups: dict[str, argparse._SubParsersAction[_Parser]] = {}
    for command in commands:
        head, *rest = command.path
        where = choices
        if rest:
            if head not in groups:
                group = _add_parser(choices, head, f"lading {head}", _group_page(head, commands))
                group.set_defaults(command=None, parser=group)
                groups[head] = group.add_subparsers(metavar="COMMAND", parser_class=_Parser, help=argparse.SUPPRESS)
            where = groups[head]
        page = textwrap.fill(command.paragraph, _PAGE_COLUMNS)
        parser = _add_parser(where, command.path[-1], f"lading {command.name}", page, _epilog(command))
        command.add_flags(parser)
        parser.usage = _usage(command, parser)
        parser.set_defaults(command=command, parser=parser)
    return top


def _add_parser(
    choices: argparse._SubParsersAction[_Parser], name: str, prog: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    parser = choices.add_parser(
        name,
        prog=prog,
        description=description,
        epilog=epilog,
        add_help=False,
        allow_abbrev=False,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_globals(parser)
    return parser


def _add_globals(parser: argparse.ArgumentParser) -> None:
    """The same flags on every parser; SUPPRESS keeps one that comes before the command from being reset after it."""
    group = parser.add_argument_group("everywhere")
    flag = group.add_argument
    flag("-h", "--help", action=_Help, nargs=0, default=argparse.SUPPRESS, help="this page")
    flag("--home", metavar="DIR", default=argparse.SUPPRESS, help="home directory (environment LADING_HOME)")
    flag("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object on stdout; NDJSON for streams")
    flag("--quiet", "-q", action="store_true", default=argparse.SUPPRESS, help="no progress; only the essential value")
    flag("--verbose", "-v", action="store_true", default=argparse.SUPPRESS, help="full ids, and where an error came from")
    flag("--no-color", action="store_true", default=argparse.SUPPRESS, help="no colours (environment NO_COLOR)")
    flag("--timeout", metavar="TIME", type=seconds, default=argparse.SUPPRESS, help="bound of the whole call: 30s, 10m, 1h")
    flag("--yes", "-y", action="store_true", default=argparse.SUPPRESS, help="answer the question that a terminal would be asked")


def parse_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The namespace of ``words`` with defaults for global flags. Raises UsageError, HelpAsked."""
    try:
        args, extra = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from error
    for key, value in GLOBAL_DEFAULTS.items():
        if not hasattr(args, key):
            setattr(args, key, value)
    if extra:
        inner: argparse.ArgumentParser = args.parser
        raise UsageError(f"not understood: {' '.join(extra)}", hint=_nearest_flag(inner, extra[0]))
    return args


def _nearest_flag(parser: argparse.ArgumentParser, word: str) -> str:
    flags = [name for action in parser._actions for name in action.option_strings]
    near = get_close_matches(word.split("=")[0], flags, n=1, cutoff=0.5)
    return f"{parser.prog} {near[0]}" if near else f"{parser.prog} --help"


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line that could not be parsed asked for JSON."""
    return "--json" in words


def command_words(commands: Sequence[Command], words: Iterable[str]) -> str:
    """The name of the command in a line that could not be parsed; empty when there is none in it."""
    plain = [word for word in words if not word.startswith("-")]
    names = {command.name for command in commands}
    for i in range(len(plain)):
        for length in (2, 1):
            if " ".join(plain[i : i + length]) in names:
                return " ".join(plain[i : i + length])
    return ""


# --- help pages -------------------------------------------------------------------------------------------------------


def _overview(commands: Sequence[Command], version: str) -> str:
    lines = [f"lading {version}: exchange sealed records between organisations, without a server.", ""]
    group = ""
    width = max(len(command.name) for command in commands)
    for command in commands:
        if command.group != group:
            group = command.group
            lines += ["", group] if len(lines) > 2 else [group]
        lines.append(f"  {command.name.ljust(width)}  {command.summary}")
    return "\n".join([*lines, "", "lading COMMAND --help shows flags, examples and exit codes."])


def _group_page(head: str, commands: Sequence[Command]) -> str:
    mine = [command for command in commands if command.path[0] == head]
    width = max(len(command.name) for command in mine)
    return "\n".join(f"lading {command.name.ljust(width)}  {command.summary}" for command in mine)


def _usage(command: Command, parser: argparse.ArgumentParser) -> str:
    """The line that says the order of words; the flags stand below it."""
    words = [f"lading {command.name}"]
    for action in parser._actions:
        name = str(action.metavar)
        if not action.option_strings:
            words.append({"*": f"[{name}…]", "?": f"[{name}]", "+": f"{name}…"}.get(str(action.nargs), name))
        elif action.required:
            words.append(f"{action.option_strings[-1]} {name}")
    return " ".join([*words, "[flags]"])


def _epilog(command: Command) -> str:
    lines = ["examples:", *(f"  {example}" for example in command.examples), "", "exit codes:"]
    lines += [f"  {code:>3}  {EXIT_CODES[code]}" for code in command.exit_codes]
    return "\n".join(lines)
