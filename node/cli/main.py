"""One run of the command line: parse, carry out, print; returns the exit code. The door where every failure becomes a sentence."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from protocols.errors import LadingError, Reason

from .arguments import HelpAsked, build_parser, command_words, parse_arguments, wants_json
from .command import Invocation, Terminated
from .commands import COMMANDS
from .local import version
from .output import Output
from .text import Style

_EXIT_READER_GONE = 1


def run(words: Sequence[str]) -> int:
    """Carries out one command line and returns its exit code."""
    parser = build_parser(COMMANDS, version())
    output = Output(is_json=wants_json(words))
    name = command_words(COMMANDS, words)
    try:
        args = parse_arguments(parser, words)
        output = _output_of(args)
        if args.command is None:
            output.stdout.write(args.parser.format_help())
            return 0 if not words else Reason.USAGE.exit_code
        command = args.command
        name = command.name
        result = command.run(Invocation(args, os.environ, output, name))
        if isinstance(result, int):
            return result
        output.answer(name, result, command.show, command.quiet_key)
        return 0
    except HelpAsked as asked:
        output.stdout.write(asked.page)
        return 0
    except LadingError as error:
        return output.error(name, error)
    except KeyboardInterrupt:
        return output.error(name, LadingError(Reason.CANCELLED, "interrupted"))
    except Terminated:
        return output.error(name, LadingError(Reason.TERMINATED, "terminated"))
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); it must not be told twice when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_READER_GONE
    except Exception as error:  # the door: a fault of ours is still one sentence and an exit code
        if "--verbose" in words or "-v" in words:
            traceback.print_exc()
        hint = "run it again with --verbose and report what it prints"
        return output.error(name, LadingError(Reason.FAILED, f"a fault of ours: {type(error).__name__}: {error}", hint=hint))


def _output_of(args: argparse.Namespace) -> Output:
    has_colour = not args.no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()
    return Output(is_json=args.json, is_quiet=args.quiet, style=Style(has_colour=has_colour, full_ids=args.verbose))
