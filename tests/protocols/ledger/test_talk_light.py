"""Questions of light nodes on `/lading/ledger/1`: one at a time, bounded at both ends, and what a hostile peer may answer."""

from __future__ import annotations

import pytest

from protocols.crypto import sha256
from protocols.effects import Close
from protocols.errors import Reason
from protocols.ledger import machine as m
from protocols.ledger import messages as say
from protocols.ledger.light import Inclusion, Proven
from protocols.ledger.state import MemoryState, prove_value
from protocols.ledger.sync import header_row
from protocols.limits import (
    LEDGER_PATIENCE_S,
    LIGHT_BUNDLES_PER_MESSAGE_MAX,
    LIGHT_KEY_BYTES_MAX,
    LIGHT_KEYS_PER_MESSAGE_MAX,
    LIGHT_SUCCESSIONS_MAX,
    NUMBER_MAX,
)
from protocols.types import BlockHash
from tests.protocols.ledger import chains
from tests.protocols.ledger.chains import Chain

from .test_light import light_header, link, prove_leaf, rotated, succession
from .test_talk import TOLD, opened, refusal, sends

NAME = BlockHash(sha256(b"block"))
FINAL = say.AskFinal(3, 0)
QUESTIONS: tuple[m.LightQuestion, ...] = (
    FINAL,
    say.AskBundles(NAME, after=True),
    say.AskProofs(NAME, (("chain", b"council"),)),
    say.AskInclusion(5, bytes(32)),
)
EMPTY: tuple[m.LightAnswer, ...] = (say.Final((), ()), say.Bundles(()), say.Proofs(()), say.Included(()))


@pytest.mark.parametrize(("question", "answer"), zip(QUESTIONS, EMPTY, strict=True))
def test_question_is_asked_answered_and_delivered(question: m.LightQuestion, answer: m.LightAnswer) -> None:
    """Goal: both ends of each kind. Method: one machine asks, another is asked and answers, the first delivers question and answer."""
    asking, asked = opened(), opened()
    assert sends(asking.step(m.WantLight(question), 1.0)) == [question]
    assert asking.is_waiting
    assert asked.step(question, 1.0) == (m.LoadLight(question),)
    assert sends(asked.step(m.LightLoaded(answer), 1.0)) == [answer]
    assert asking.step(answer, 2.0) == (m.DeliverLight(question, answer),)
    assert not asking.is_waiting


def test_one_question_is_under_way_at_a_time_and_only_its_answer_is_taken() -> None:
    """Goal: nobody gives what was not asked for. Method: every answer to every question, to none, and twice."""
    for answer in EMPTY:
        assert refusal(opened(), answer) is Reason.OUT_OF_ORDER
    for question, right in zip(QUESTIONS, EMPTY, strict=True):
        for answer in EMPTY:
            machine = opened()
            machine.step(m.WantLight(question), 1.0)
            assert machine.step(m.WantLight(FINAL), 1.0) == ()
            if type(answer) is type(right):
                machine.step(answer, 1.0)
            assert refusal(machine, answer) is Reason.OUT_OF_ORDER


def test_peer_that_does_not_answer_loses_the_stream_at_patience() -> None:
    """Goal: withheld proofs end. Method: signs of life and nothing else."""
    for question in QUESTIONS:
        machine = opened()
        machine.step(m.WantLight(question), 1.0)
        for counter, now_s in enumerate(range(2, 21, 3), 1):
            machine.step(say.Alive(counter, TOLD, ()), float(now_s))
            assert not any(isinstance(effect, Close) for effect in machine.step(m.Tick(), float(now_s)))
        at = machine.wake_at()
        assert at is not None
        assert at <= 1.0 + LEDGER_PATIENCE_S
        assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), 1.0 + LEDGER_PATIENCE_S))


def test_questions_beyond_their_bounds_are_refused() -> None:
    """Goal: no question costs more than its bound. Method: every field just inside and just outside."""
    short = BlockHash(b"short")
    key = ("space", b"k")
    fine: list[object] = [
        say.AskFinal(NUMBER_MAX, NUMBER_MAX),
        say.AskInclusion(NUMBER_MAX, bytes(32)),
        say.AskProofs(NAME, (key,) * LIGHT_KEYS_PER_MESSAGE_MAX),
        say.AskProofs(NAME, (("s" * 255, bytes(LIGHT_KEY_BYTES_MAX)),)),
    ]
    for question in fine:
        assert isinstance(opened().step(question, 1.0)[0], m.LoadLight)
    bad: list[tuple[object, Reason]] = [
        (say.AskFinal(-1, 0), Reason.MALFORMED),
        (say.AskFinal(0, NUMBER_MAX + 1), Reason.MALFORMED),
        (say.AskBundles(short, after=True), Reason.MALFORMED),
        (say.AskProofs(short, (key,)), Reason.MALFORMED),
        (say.AskProofs(NAME, ()), Reason.FLOOD),
        (say.AskProofs(NAME, (key,) * (LIGHT_KEYS_PER_MESSAGE_MAX + 1)), Reason.FLOOD),
        (say.AskProofs(NAME, (("", b""),)), Reason.MALFORMED),
        (say.AskProofs(NAME, (("s" * 256, b""),)), Reason.MALFORMED),
        (say.AskProofs(NAME, (("ä", b""),)), Reason.MALFORMED),
        (say.AskProofs(NAME, (("s", bytes(LIGHT_KEY_BYTES_MAX + 1)),)), Reason.MALFORMED),
        (say.AskInclusion(-1, bytes(32)), Reason.MALFORMED),
        (say.AskInclusion(1, b""), Reason.MALFORMED),
    ]
    for question, reason in bad:
        assert refusal(opened(), question) is reason


def floods(chain: Chain) -> list[tuple[m.LightQuestion, object]]:
    one = rotated()
    step, shown = succession(one.chain, one.votes(), [one.rotation]), link(one.chain, one.votes(), 1)
    bundle = light_header(chain.blocks[-1])
    view = MemoryState()
    proven = Proven(None, prove_value(view, "space", b"k"))
    included = Inclusion(header_row(chain.blocks[0]), prove_leaf(chain.blocks[0], 1), chain.blocks[0].transactions[0])
    return [
        (FINAL, say.Final((step,) * (LIGHT_SUCCESSIONS_MAX + 1), ())),
        (FINAL, say.Final((), (shown, shown))),
        (say.AskBundles(NAME, after=True), say.Bundles((bundle,) * (LIGHT_BUNDLES_PER_MESSAGE_MAX + 1))),
        (say.AskBundles(NAME, after=False), say.Bundles((bundle, bundle))),
        (QUESTIONS[2], say.Proofs((proven, proven))),
        (QUESTIONS[3], say.Included((included, included))),
    ]


def test_answers_with_more_than_was_asked_for_end_the_stream() -> None:
    """Goal: nobody fills our memory with proofs. Method: one too many of everything."""
    chain = chains.start()
    chain.run(1)
    for question, answer in floods(chain):
        machine = opened()
        machine.step(m.WantLight(question), 1.0)
        assert refusal(machine, answer) is Reason.FLOOD
