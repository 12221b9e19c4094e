"""Where a passphrase comes from: a file, an open descriptor, a prompt, or nowhere because that was asked for."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from protocols.errors import UsageError

# scrypt takes any length; a file that is longer was not meant to be a passphrase.
PASSPHRASE_BYTES_MAX = 1024
_WAYS = "--passphrase-file FILE, --passphrase-fd N, or --no-passphrase"


def add_passphrase_flags(parser: argparse.ArgumentParser, *, may_be_none: bool) -> None:
    """The flags that name a passphrase without containing it."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--passphrase-file", metavar="FILE", help="first line of this file (environment LADING_PASSPHRASE_FILE)")
    group.add_argument("--passphrase-fd", metavar="N", type=int, help="first line read from this open descriptor")
    if may_be_none:
        group.add_argument("--no-passphrase", action="store_true", help="leave the keys unprotected on this disk")


def given_passphrase(args: argparse.Namespace) -> bytes | None:
    """The passphrase that flags or environment point to; None when they point nowhere. Raises UsageError."""
    file = args.passphrase_file or os.environ.get("LADING_PASSPHRASE_FILE")
    if args.passphrase_fd is not None:
        try:
            with open(args.passphrase_fd, "rb", closefd=False) as source:
                return _first_line(source.read(PASSPHRASE_BYTES_MAX + 1), f"descriptor {args.passphrase_fd}")
        except OSError as error:
            raise UsageError(f"--passphrase-fd {args.passphrase_fd}: {error.strerror or error}") from error
    if file:
        try:
            with Path(file).open("rb") as source:
                return _first_line(source.read(PASSPHRASE_BYTES_MAX + 1), str(file))
        except OSError as error:
            raise UsageError(f"passphrase file {file}: {error.strerror or error}") from error
    return None


def new_passphrase(args: argparse.Namespace, *, what: str) -> bytes | None:
    """The passphrase for keys about to be written; None only when --no-passphrase was asked for. Prompts twice on a terminal.

    Raises UsageError when nothing says where it is.
    """
    if getattr(args, "no_passphrase", False):
        return None
    given = given_passphrase(args)
    if given is not None:
        return given
    _need_terminal(what)
    first = getpass.getpass(f"Passphrase for {what}: ").encode()
    if not first:
        raise UsageError("an empty passphrase protects nothing", hint="--no-passphrase says so openly")
    if getpass.getpass("Once more: ").encode() != first:
        raise UsageError("the two passphrases differ; nothing was written")
    return first


def passphrase_source(args: argparse.Namespace, *, what: str) -> Callable[[], bytes]:
    """Gives the passphrase of existing keys when they turn out to be protected; prompts on a terminal. Raises UsageError."""

    def ask() -> bytes:
        given = given_passphrase(args)
        if given is not None:
            return given
        _need_terminal(what)
        return getpass.getpass(f"Passphrase of {what}: ").encode()

    return ask


def _need_terminal(what: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"{what} need a passphrase and there is no terminal to ask on", hint=_WAYS)


def _first_line(data: bytes, origin: str) -> bytes:
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise UsageError(f"no passphrase in {origin}: its first line is empty", hint=_WAYS)
    if len(line) > PASSPHRASE_BYTES_MAX:
        raise UsageError(f"the passphrase in {origin} is longer than {PASSPHRASE_BYTES_MAX} bytes")
    return line
