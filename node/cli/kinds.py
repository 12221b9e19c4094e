"""Kinds of values in arguments: text to value, or a sentence with got and wanted."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime

from node.config import parse_quantity


def seconds(text: str) -> float:
    """`30s`, `10m`, `24h`, `7d`. Raises argparse.ArgumentTypeError."""
    try:
        return parse_quantity(text, "seconds")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def share_of_all(text: str) -> float:
    """`5%` or `0.05`, above 0 and at most everything. Raises argparse.ArgumentTypeError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a share like 5% or 0.05")
    return value


def copies(text: str) -> int:
    """A whole number from 1. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number of copies from 1")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number")
    return int(text)


def time_or_never(text: str) -> str:
    """A point in time, or `never`. Raises argparse.ArgumentTypeError."""
    return text if text == "never" else point_in_time(text)


def tag(text: str) -> tuple[str, str]:
    """`KEY=VALUE`. Raises argparse.ArgumentTypeError."""
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted KEY=VALUE")
    return key, value


def point_in_time(text: str) -> str:
    """An ISO-8601 time, as UTC with Z: `2027-01-31`, `2027-01-31T12:00Z`. Without a zone it is UTC. Raises argparse.ArgumentTypeError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a time like 2027-01-31 or 2027-01-31T12:00Z") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
