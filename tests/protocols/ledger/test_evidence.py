"""What is noticed of those who say two things, and whom it accuses."""

from __future__ import annotations

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.ledger.block import sign_seal
from protocols.ledger.envelope import NO_SERIAL, sign_transaction
from protocols.ledger.evidence import TwoSeals, TwoVotes, Watch, accusation, evidence_name, turn_of
from protocols.ledger.transactions import key_rotate
from protocols.ledger.transactions.equivocation import Sealed
from protocols.ledger.votes import Checkpoint, Vote, sign_vote
from protocols.limits import SEALS_WATCHED_MAX, VOTES_WATCHED_MAX
from protocols.types import BlockHash, ChainId

from .chains import account_of, key_of, start

ONE, OTHER = BlockHash(sha256(b"one")), BlockHash(sha256(b"other"))
D = account_of("d")


def vote(chain: ChainId, height: int, name: BlockHash, *, source: int = 0, purpose: str = "vote") -> Vote:
    return sign_vote(key_of("d", purpose), chain, Checkpoint(source, ONE), Checkpoint(height, name), D)


def sealed(chain: ChainId, slot: int, name: BlockHash) -> Sealed:
    return Sealed(name, sign_seal(key_of("d", "seal"), chain, slot, name))


def test_two_words_of_one_key_accuse_it_and_the_ledger_takes_the_accusation() -> None:
    """Goal: what is built is what the rule wants. Method: two seals, two votes at a height, a surrounding vote; each goes into a block."""
    for case in ("seals", "height", "surround"):
        chain = start()
        chain.run(6)
        watch = Watch()
        if case == "seals":
            for name in (ONE, OTHER):
                watch.note_seal(D, 3, sealed(chain.chain, 3, name))
        else:
            second = vote(chain.chain, 4, OTHER) if case == "height" else vote(chain.chain, 6, OTHER, source=1)
            for one in (vote(chain.chain, 4, ONE, source=2), second):
                watch.note_vote(one)
        (suspicion,) = watch.suspicions.values()
        body = accusation(chain.state, chain.chain, suspicion)
        assert body is not None
        chain.add(chain.by_key("a", "vote", "Equivocation", body))
        assert chain.state.get("evidence", evidence_name(body)) is not None


def test_what_no_one_key_signed_twice_accuses_nobody() -> None:
    """Goal: nobody honest is ever accused. Method: a seal and a vote of another chain; with this chain's id written in; a forged one; votes
    by the key before a rotation and the one after it; a word said twice."""
    chain, foreign = start(), start(name="other")
    chain.run(3)
    assert chain.chain != foreign.chain
    new = key_of("d", "second")
    body = key_rotate.Body("vote", D, key_of("d", "vote").public, new.public, b"")
    chain.add(sign_transaction(chain.content("KeyRotate", body, D, NO_SERIAL), [key_of("d", "council"), new]))
    true = vote(chain.chain, 4, ONE)
    for other in (
        replace(vote(foreign.chain, 4, OTHER), chain=chain.chain),
        replace(vote(chain.chain, 4, OTHER), signature=bytes(64)),
        vote(chain.chain, 4, OTHER, purpose="second"),
    ):
        watch = Watch()
        watch.note_vote(true)
        watch.note_vote(other)
        (suspicion,) = watch.suspicions.values()
        assert isinstance(suspicion, TwoVotes)
        assert accusation(chain.state, chain.chain, suspicion) is None
    watch = Watch()
    for one in (true, true, vote(foreign.chain, 4, OTHER), vote(chain.chain, 5, OTHER)):
        watch.note_vote(one)
    for name in (ONE, ONE):
        watch.note_seal(D, 3, sealed(chain.chain, 3, name))
    watch.note_seal(D, 4, sealed(chain.chain, 4, OTHER))
    assert not watch.suspicions
    first, second = sorted((sealed(chain.chain, 3, ONE), sealed(foreign.chain, 3, OTHER)), key=lambda seal: seal.hash)
    assert accusation(chain.state, chain.chain, TwoSeals(D, 3, (first, second))) is None


def test_memory_of_words_is_bounded_and_cases_come_one_at_a_time() -> None:
    """Goal: a flood fills nothing. Method: more seals, votes and contradictions than are kept."""
    chain = start().chain
    watch = Watch()
    for slot in range(1, SEALS_WATCHED_MAX + 10):
        watch.note_seal(D, slot, Sealed(ONE, b""))
    watch.note_seal(D, 1, Sealed(OTHER, b""))
    assert not watch.suspicions, "the oldest is forgotten"
    signed = vote(chain, 1, ONE)
    for height in range(1, VOTES_WATCHED_MAX + 10):
        watch.note_vote(replace(signed, target=Checkpoint(height, ONE), signature=height.to_bytes(64, "big")))
    for height in range(VOTES_WATCHED_MAX, VOTES_WATCHED_MAX + 9):
        watch.note_vote(replace(signed, target=Checkpoint(height, OTHER), signature=bytes(63) + bytes([height % 256])))
    assert list(watch.suspicions) == [("votes", D)]


def test_each_reporter_has_a_turn_of_its_own() -> None:
    """Goal: one speaks first. Method: the turns of four for one case, and for another one."""
    people = [account_of(name) for name in "abcd"]
    for name in (b"case", b"another"):
        assert sorted(turn_of(one, people, name) for one in people) == [0, 1, 2, 3]
