"""One conformance suite for every seal, and a fourth that is added without touching validation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidBlock, Reason
from protocols.ledger.block import Header
from protocols.ledger.seals.port import TARGET_MAX, Found, NotYet, SealRule, check_nonce
from protocols.ledger.seals.table import SEALS
from protocols.types import BlockHash, UnixMillis

from .chains import start


class Even:
    """A trivial seal: any even nonce."""

    name = "even"
    has_leader = True
    has_work = False

    def check(self, header: Header, target: int) -> None:
        check_nonce(header.nonce % 2, 0)

    def search(self, header: Header, target: int, *, first: int, count: int) -> Found | NotYet:
        return Found(first + first % 2) if first + first % 2 < first + count else NotYet(first + count)


ALL: list[SealRule] = [*SEALS.values(), Even()]
EASY = TARGET_MAX >> 3


def header(nonce: int = 0, salt: int = 0) -> Header:
    return Header(UnixMillis(1000 + salt), bytes([salt % 256]) * 32, 1, BlockHash(bytes(32)), nonce)


def with_nonce(base: Header, nonce: int) -> Header:
    return Header(base.t_stamp_ms, base.merkle_root, base.version, base.parent, nonce)


@pytest.mark.parametrize("seal", ALL, ids=lambda seal: seal.name)
def test_what_a_search_finds_is_accepted_and_what_it_passed_over_is_not(seal: SealRule) -> None:
    """Goal: search and check agree. Method: several headers; every nonce before the found one is refused with a reason."""
    for salt in range(5):
        base = header(salt=salt)
        found = seal.search(base, EASY, first=0, count=200)
        assert isinstance(found, Found)
        seal.check(with_nonce(base, found.nonce), EASY)
        for nonce in range(found.nonce):
            with pytest.raises(InvalidBlock) as caught:
                seal.check(with_nonce(base, nonce), EASY)
            assert caught.value.reason in (Reason.WORK, Reason.NONCE)


@pytest.mark.parametrize("seal", ALL, ids=lambda seal: seal.name)
def test_search_in_steps_finds_what_one_search_finds(seal: SealRule) -> None:
    """Goal: the caller may stop between any two steps and go on. Method: steps of 1, 3 and 50 against one of 200."""
    base = header(salt=7)
    whole = seal.search(base, EASY, first=0, count=200)
    for step in (1, 3, 50):
        found = seal.search(base, EASY, first=0, count=step)
        while isinstance(found, NotYet):
            found = seal.search(base, EASY, first=found.next_nonce, count=step)
        assert found == whole


@pytest.mark.parametrize("seal", [seal for seal in ALL if seal.has_work], ids=lambda seal: seal.name)
def test_search_that_finds_nothing_says_where_it_stopped(seal: SealRule) -> None:
    """Goal: work is needed. Method: an impossible target; one bit off is refused."""
    assert seal.search(header(), 0, first=10, count=5) == NotYet(15)
    base = header(salt=9)
    found = seal.search(base, EASY, first=0, count=500)
    assert isinstance(found, Found)
    with pytest.raises(InvalidBlock) as caught:
        seal.check(with_nonce(base, found.nonce), 0)
    assert caught.value.reason is Reason.WORK


@given(st.integers(0, TARGET_MAX))
def test_block_one_above_its_target_is_refused(offset: int) -> None:
    """Goal: at most the target, to the last unit. Method: the header's own hash as the target, and one less."""
    base = header(nonce=offset % (1 << 63))
    value = int.from_bytes(base.hash, "big")
    SEALS["pow"].check(base, value)
    with pytest.raises(InvalidBlock):
        SEALS["pow"].check(base, value - 1)


@pytest.mark.parametrize("name", sorted(SEALS))
def test_chain_lives_under_each_seal(name: str) -> None:
    """Goal: validation knows the port alone. Method: the same few blocks under each seal of the table."""
    chain = start(seal=name, work_bits_min=0, work_bits_first=2 if name != "authority" else 0)
    if SEALS[name].has_leader:
        chain.run(6, voting=True)
    else:
        for miner in ("a", "b", "b", "a"):  # an open race: whoever of the list finds first
            chain.add(miner=miner)
        assert [chain.names[block.info.miner] for block in chain.blocks[1:]] == ["a", "b", "b", "a"]
    assert chain.applied[-1].work >= chain.height


def test_only_the_selected_miner_works() -> None:
    """Goal: no race that wastes energy. Method: hash tries of ten blocks are those of one search each, all others stay idle."""
    chain = start(seal="pow", work_bits_min=0, work_bits_first=6)
    tries = 0
    for _ in range(10):
        draft, name = chain.draft()
        found = SEALS["pow"].search(draft.header, int.from_bytes(draft.info.target, "big"), first=0, count=1 << 16)
        assert isinstance(found, Found)
        tries += found.nonce + 1
        chain.take(chain.finish(draft, name))
    assert tries < 10 * 64 * 3
