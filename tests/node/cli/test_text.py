"""Numbers, ids and tables as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.cli.text import Style, display_width, duration, pairs, plural, printable, short_id, size, table

COLOUR = Style(has_colour=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (250 * 2**10, "250 KiB"),
        (50 * 2**30, "50.0 GiB"),
        (2**52, "4096 TiB"),
    ],
)
def test_size_is_binary(count: int, text: str) -> None:
    """Goal: the units of the interface, three digits."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.004, "4 ms"),
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration_is_said_as_people_say_it(seconds: float, text: str) -> None:
    """Goal: never "60 s" beside "1 min", never five decimals."""
    assert duration(seconds) == text


def test_ids_are_shortened_to_a_beginning_and_only_ids() -> None:
    """Goal: what is shown is a prefix that a command takes; names and numbers stay."""
    peer = "12D3KooWAbCdEfGhJkLmNoPqRsTuVwXyZ123456789abcdefghij"
    assert short_id("ab" * 32) == "abababababab"
    assert short_id(peer) == "12D3KooWAbCdEfGh"
    assert peer.startswith(short_id(peer))
    for text in ("hospital-a/pi3", "deadbeef", "", "12D3KooW", "a" * 20):
        assert short_id(text) == text
    assert Style().ids_in(f"record {'ab' * 32} on {peer}, 3 left") == "record abababababab on 12D3KooWAbCdEfGh, 3 left"
    assert Style(full_ids=True).ids_in("ab" * 32) == "ab" * 32


def test_table_lines_up_with_colours_and_leaves_empty_columns_out() -> None:
    """Goal: colours do not push columns. Method: painted cells, one empty column, one to the right."""
    rows = [(COLOUR.good("up"), "", "1"), ("away", "", "20")]
    lines = list(table(("STATE", "PATH", "N"), rows, COLOUR, right=(2,)))
    assert [display_width(line) for line in lines] == [9, 9, 9]
    assert "PATH" not in lines[0]
    assert lines[2] == "away   20"


def test_pairs_skip_what_is_not_there_and_indent_what_goes_on() -> None:
    """Goal: no empty label; several lines of one value stay in its column."""
    assert list(pairs([("a", "1\n2"), ("nothing", ""), ("bc", "3")], Style())) == ["a   1", "    2", "bc  3"]


def test_plural() -> None:
    """Goal: 1 entry, 2 entries, 0 chunks."""
    assert [plural(1, "entry", "entries"), plural(2, "entry", "entries"), plural(0, "chunk")] == ["1 entry", "2 entries", "0 chunks"]


@given(st.text())
def test_printable_text_cannot_steer_a_terminal(text: str) -> None:
    """Goal: whatever a peer calls itself is only shown."""
    assert all(letter.isprintable() or letter == "\n" for letter in printable(text))


@given(st.floats(0, 1e15))
def test_numbers_stay_short(value: float) -> None:
    """Goal: no number breaks the live line."""
    assert len(size(value)) <= 12
    assert len(duration(value)) <= 20
