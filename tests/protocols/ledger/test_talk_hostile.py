"""A peer that promises more chain than it gives: headers without bodies, endless headers, nothing at all while it says it lives."""

from __future__ import annotations

from protocols.effects import Close
from protocols.errors import Reason
from protocols.ledger import machine as m
from protocols.ledger import messages as say
from protocols.ledger.sync import HeaderRow, header_row
from protocols.ledger.votes import Checkpoint
from protocols.limits import BLOCKS_PER_PAGE_MAX, HEADERS_PER_PAGE_MAX, LEDGER_PATIENCE_S
from protocols.types import BlockHash
from tests.protocols.ledger import chains

from .test_talk import MINE, THEIRS, TOLD, refusal, sends

FAR = Checkpoint(10**9, BlockHash(bytes([7]) * 32))


def page_of(count: int) -> tuple[chains.Chain, tuple[HeaderRow, ...]]:
    chain = chains.start(term_blocks=1000)
    chain.run(count)
    return chain, tuple(header_row(block) for block in chain.blocks[1:])


def asked_for_headers(chain: chains.Chain) -> m.TalkMachine:
    """An open stream to a peer that claims a head a thousand million blocks up; its first page of headers was asked for."""
    machine = m.TalkMachine()
    machine.step(m.Opened(chain.chain, MINE), 0.0)
    machine.step(say.Hello(chain.chain, THEIRS), 0.0)
    genesis = BlockHash(chain.blocks[0].hash)
    machine.step(say.Tip(FAR, Checkpoint(0, genesis)), 1.0)
    assert sends(machine.step(m.Located((genesis,)), 1.0)) == [say.AskHeaders((genesis,))]
    return machine


def test_deep_header_chain_without_bodies_costs_one_page_and_ends_at_patience() -> None:
    """Goal: a claim of a thousand million blocks buys one page. Method: a full page of true headers, then nothing but signs of life and
    greater claims; no further page is asked for, a second one nobody asked for ends the stream, and so does patience."""
    chain, rows = page_of(HEADERS_PER_PAGE_MAX)
    machine = asked_for_headers(chain)
    machine.step(say.Headers(rows), 2.0)
    names = tuple(BlockHash(block.hash) for block in chain.blocks[1:])
    asked = [one for one in sends(machine.step(m.Missing(names), 2.0)) if isinstance(one, say.AskBlocks)]
    assert [len(one.hashes) for one in asked] == [BLOCKS_PER_PAGE_MAX]
    said: list[object] = []
    for counter, now_s in enumerate(range(4, 20, 3), 1):
        said += sends(machine.step(say.Alive(counter, TOLD, ()), float(now_s)))
        said += sends(machine.step(say.Tip(Checkpoint(10**9 + counter, FAR.hash), Checkpoint(0, FAR.hash)), float(now_s)))
        assert not any(isinstance(effect, Close) for effect in machine.step(m.Tick(), float(now_s)))
    assert not any(isinstance(one, say.AskHeaders | say.AskBlocks) for one in said)
    assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), 2.0 + LEDGER_PATIENCE_S + 1))


def test_headers_that_nobody_asked_for_end_the_stream() -> None:
    """Goal: no peer fills memory with headers. Method: a second page while the bodies of the first are on their way."""
    chain, rows = page_of(4)
    machine = asked_for_headers(chain)
    machine.step(say.Headers(rows), 2.0)
    machine.step(m.Missing(tuple(BlockHash(block.hash) for block in chain.blocks[1:])), 2.0)
    assert refusal(machine, say.Headers(rows), 3.0) is Reason.OUT_OF_ORDER


def test_body_that_is_withheld_ends_the_stream() -> None:
    """Goal: bodies come as they were asked for, or are named as lacking. Method: another chain's block; an end without them, and with one
    passed over; nothing at all until patience ends. What is named as lacking is no lie."""
    chain, rows = page_of(3)
    other = chains.start(term_blocks=999)
    other.run(1)
    names = tuple(BlockHash(block.hash) for block in chain.blocks[1:])

    def asked_for_bodies() -> m.TalkMachine:
        machine = asked_for_headers(chain)
        machine.step(say.Headers(rows), 2.0)
        machine.step(m.Missing(names), 2.0)
        return machine

    assert refusal(asked_for_bodies(), say.GiveBlock(other.blocks[1]), 3.0) is Reason.OUT_OF_ORDER
    assert refusal(asked_for_bodies(), say.Given(()), 3.0) is Reason.OUT_OF_ORDER
    assert refusal(asked_for_bodies(), say.Given(names[:2]), 3.0) is Reason.OUT_OF_ORDER
    machine = asked_for_bodies()
    machine.step(say.GiveBlock(chain.blocks[2]), 3.0)
    machine.step(say.GiveBlock(chain.blocks[3]), 3.0)
    assert refusal(machine, say.GiveBlock(chain.blocks[1]), 3.0) is Reason.OUT_OF_ORDER
    assert refusal(machine, say.Given(()), 3.0) is Reason.OUT_OF_ORDER
    asked_for_bodies().step(say.Given(names), 3.0)
    machine = asked_for_bodies()
    machine.step(say.GiveBlock(chain.blocks[1]), 3.0)
    machine.step(say.Alive(1, TOLD, ()), 10.0)
    machine.step(say.Alive(2, TOLD, ()), 20.0)
    assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), 3.0 + LEDGER_PATIENCE_S + 1))
