"""Randomness: the machine's, and the seeded one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.entropy import Entropy, SeededEntropy, SystemEntropy


@given(st.binary(max_size=40), st.lists(st.integers(0, 100), max_size=10))
def test_seeded_stream_is_the_same_however_it_is_cut(seed: bytes, sizes: list[int]) -> None:
    """Goal: bytes come from one stream. Method: many small draws against one large one."""
    pieces = SeededEntropy(seed)
    assert b"".join(pieces.token(size) for size in sizes) == SeededEntropy(seed).token(sum(sizes))


def test_seeded_stream_is_pinned() -> None:
    """Goal: a seed written down today means the same next year. Method: golden bytes."""
    assert SeededEntropy(b"seed").token(8).hex() == "22be3a48efa8d357"
    assert SeededEntropy(b"seed").fork("node 1").token(8).hex() == "1d0d4a23551a7d90"


def test_fork_is_independent_of_what_was_drawn_and_of_other_forks() -> None:
    """Goal: one more draw here moves nothing there. Method: fork before and after a draw; two labels; the parent."""
    parent = SeededEntropy(b"seed")
    before = parent.fork("a").token(32)
    parent.token(5)
    assert parent.fork("a").token(32) == before
    streams = {parent.fork("a").token(32), parent.fork("b").token(32), SeededEntropy(b"seed").token(32), SeededEntropy(b"tree").token(32)}
    assert len(streams) == 4


@pytest.mark.parametrize("entropy", [SeededEntropy(b"u"), SystemEntropy()], ids=["seeded", "system"])
def test_uniform_fills_the_unit_interval(entropy: Entropy) -> None:
    """Goal: jitter is spread. Method: of 1000 numbers each tenth gets some (misses with probability below 1e-44)."""
    numbers = [entropy.uniform() for _ in range(1000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert {int(number * 10) for number in numbers} == set(range(10))


def test_system_tokens_are_of_the_wanted_length_and_differ() -> None:
    """Goal: keys are fresh. Method: two of 32 bytes (equal with probability 2**-256)."""
    entropy = SystemEntropy()
    assert entropy.token(32) != entropy.token(32)
    assert [len(entropy.token(n)) for n in (0, 1, 33)] == [0, 1, 33]
