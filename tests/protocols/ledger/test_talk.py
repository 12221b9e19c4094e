"""`/lading/ledger/1`: its bytes, two ends that sync, and everything that a hostile peer may try."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field

import pytest

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.effects import Close, Send
from protocols.errors import InvalidObject, Reason, RemoteError
from protocols.ledger import machine as m
from protocols.ledger import messages as say
from protocols.ledger.alive import Told, check_alive, sign_alive
from protocols.ledger.block import decode_header
from protocols.ledger.seals.table import SEALS
from protocols.ledger.snapshot import ROOT_PLACE, StateNode, check_state_node
from protocols.ledger.sync import check_rows, header_row, locator_heights
from protocols.ledger.votes import Checkpoint
from protocols.limits import (
    BLOCKS_PER_PAGE_MAX,
    HEADERS_PER_PAGE_MAX,
    LEDGER_BEAT_S,
    LEDGER_IDS_PER_MESSAGE_MAX,
    LEDGER_PATIENCE_S,
    LEDGER_SILENCE_MAX_S,
    LEDGER_WANTED_MAX,
    LOCATOR_HASHES_MAX,
    STATE_NODES_PER_MESSAGE_MAX,
    TIME_MS_MAX,
    WITNESSES_MAX,
)
from protocols.registry import decode_message, encode_message
from protocols.types import BlockHash, ChainId
from tests.protocols.ledger import chains
from tests.vectors import recompute_ledger_talk as second

CHAIN = ChainId(sha256(b"chain"))
MINE, THEIRS = sha256(b"mine"), sha256(b"theirs")
HEAD = Checkpoint(9, BlockHash(sha256(b"head")))
TOLD = Told(1_800_000_000_000, True, 0, 0)


def opened() -> m.TalkMachine:
    machine = m.TalkMachine()
    machine.step(m.Opened(CHAIN, MINE), 0.0)
    machine.step(say.Hello(CHAIN, THEIRS), 0.0)
    return machine


def refusal(machine: m.TalkMachine, event: object, now_s: float = 1.0) -> Reason:
    with pytest.raises(RemoteError) as error:
        machine.step(event, now_s)
    return error.value.reason


def sends(effects: tuple[object, ...]) -> list[object]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def test_frames_are_those_of_the_second_implementation() -> None:
    """Goal: the bytes of every message. Method: decode the vectors, encode again, and meet every message once."""
    vectors = json.loads(second.VECTORS.read_text(encoding="utf-8"))
    assert second.recompute() == vectors
    kinds = set()
    for text in vectors["frames"].values():
        message = decode_message("ledger", bytes.fromhex(text))
        assert encode_message("ledger", message).hex() == text
        kinds.add(type(message))
    assert kinds == {kind for _, kind in say.MESSAGES}
    bodies = decode_message("ledger", bytes.fromhex(vectors["frames"]["bodies"]))
    assert isinstance(bodies, say.Bodies)
    assert m.vote_id(bodies.votes[0]).hex() == vectors["vote_id"]
    alive = decode_message("ledger", bytes.fromhex(vectors["frames"]["alive"]))
    assert isinstance(alive, say.Alive)
    check_alive(alive.witnesses[0], bodies.votes[0].chain, challenge=b"\x07" * 32, counter=alive.counter, told=alive.told)
    state = decode_message("ledger", bytes.fromhex(vectors["frames"]["give_state"]))
    assert isinstance(state, say.GiveState)
    for node in state.nodes:
        check_state_node(node)
    page = decode_message("ledger", bytes.fromhex(vectors["frames"]["headers"]))
    assert isinstance(page, say.Headers)
    check_rows(page.rows, bodies.votes[0].chain, None)


@dataclass
class End:
    """One end over a chain in memory: what the surroundings answer."""

    chain: chains.Chain
    height: int
    machine: m.TalkMachine = field(default_factory=m.TalkMachine)

    def start(self, challenge: bytes) -> list[object]:
        return self.feed(m.Opened(self.chain.chain, challenge))

    def feed(self, first: object) -> list[object]:
        out: list[object] = []
        events = [first]
        while events:
            for effect in self.machine.step(events.pop(0), 1.0):
                if isinstance(effect, Send):
                    out.append(effect.message)
                else:
                    events += self.answer(effect)
        return out

    def names(self) -> list[BlockHash]:
        return [BlockHash(block.hash) for block in self.chain.blocks]

    def answer(self, effect: object) -> list[object]:
        names = self.names()[: self.height + 1]
        match effect:
            case m.DescribeHead():
                return [m.HeadMoved(Checkpoint(self.height, names[-1]), Checkpoint(0, names[0]))]
            case m.Locate(head):
                return [m.Located(None if head.hash in names else tuple(names[at] for at in locator_heights(self.height, 0)))]
            case m.LoadHeaders(locator):
                first = max((names.index(BlockHash(name)) + 1 for name in locator if name in names), default=0)
                return [
                    m.HeadersLoaded(tuple(header_row(block) for block in self.chain.blocks[first : self.height + 1][:HEADERS_PER_PAGE_MAX]))
                ]
            case m.CheckHeaders(rows):
                found = check_rows(rows, self.chain.chain, SEALS["authority"])
                return [m.Missing(tuple(name for name in found if name not in names))]
            case m.LoadBlocks(hashes):
                return [m.BlocksLoaded(tuple(self.chain.blocks[names.index(BlockHash(name))] for name in hashes), ())]
            case m.DeliverBlock(block, asked):
                assert asked
                assert block.info.height == self.height + 1, "in order"
                self.height += 1
                return []
            case m.MakeWitnesses():
                return [m.Witnessed(TOLD, ())]
            case m.DescribeItems():
                return [m.HaveItems((), ())]
            case m.PlanHistory():
                return []
        raise AssertionError(effect)


def test_a_node_with_nothing_syncs_headers_first_in_bounded_pages() -> None:
    """Goal: 100 blocks come over in order, no page above its bound. Method: two ends, every message passed by hand."""
    chain = chains.start(term_blocks=1000)
    chain.run(100)
    full, empty = End(chain, chain.height), End(chain, 0)
    mail = [(empty, message) for message in full.start(MINE)] + [(full, message) for message in empty.start(THEIRS)]
    largest = {say.Headers: 0, say.AskBlocks: 0}
    while mail:
        target, message = mail.pop(0)
        if isinstance(message, say.Headers):
            largest[say.Headers] = max(largest[say.Headers], len(message.rows))
        if isinstance(message, say.AskBlocks):
            largest[say.AskBlocks] = max(largest[say.AskBlocks], len(message.hashes))
        other = full if target is empty else empty
        mail += [(other, answer) for answer in target.feed(message)]
    assert empty.height == 100
    assert largest == {say.Headers: HEADERS_PER_PAGE_MAX, say.AskBlocks: BLOCKS_PER_PAGE_MAX}
    assert not empty.machine.is_syncing


def test_pages_that_do_not_hold_are_refused() -> None:
    """Goal: a liar gets no body asked for. Method: break line, work, leaf, chain and count of a true page."""
    chain = chains.start()
    chain.run(4)
    rows = [header_row(block) for block in chain.blocks]
    assert check_rows(rows, chain.chain, SEALS["authority"]) == tuple(block.hash for block in chain.blocks)

    def reason(rows: list[say.HeaderRow], chain_id: ChainId = chain.chain) -> Reason:
        with pytest.raises(RemoteError) as error:
            check_rows(rows, chain_id, SEALS["authority"])
        return error.value.reason

    header = decode_header(rows[2].header)
    worked = replace(rows[2], header=replace_nonce(header.encoded))
    assert reason([rows[0], rows[2]]) is Reason.INTEGRITY
    assert reason([rows[1], rows[0]]) is Reason.INTEGRITY
    assert reason([worked]) is Reason.NONCE
    assert reason([replace(rows[2], info=rows[1].info)]) is Reason.INTEGRITY
    assert reason([replace(rows[2], header=b"short")]) is Reason.TRUNCATED
    assert reason(rows, CHAIN) is Reason.WRONG_CHAIN
    assert reason(rows * 20) is Reason.FLOOD


def replace_nonce(header: bytes) -> bytes:
    return header[:-1] + b"\x01"


def test_what_nobody_asked_for_ends_the_stream_or_is_ignored() -> None:
    """Goal: memory and order are ours. Method: unasked headers, blocks, bodies; ids too many, too short; counters standing still."""
    block = chains.start().blocks[0]
    transaction = block.transactions[0]
    ids = tuple(sha256(bytes([at % 256, at // 256])) for at in range(LEDGER_IDS_PER_MESSAGE_MAX + 1))
    witness = sign_alive(chains.key_of("a"), CHAIN, challenge=MINE, counter=1, account=chains.account_of("a"), told=TOLD)
    assert refusal(opened(), say.Headers(())) is Reason.OUT_OF_ORDER
    assert refusal(opened(), say.GiveBlock(block)) is Reason.OUT_OF_ORDER
    assert refusal(opened(), say.Hello(CHAIN, THEIRS)) is Reason.OUT_OF_ORDER
    assert refusal(opened(), say.Announce(ids, ())) is Reason.FLOOD
    assert refusal(opened(), say.Announce((b"short",), ())) is Reason.MALFORMED
    assert refusal(opened(), say.Want(ids[:600], ids[600:])) is Reason.FLOOD
    assert refusal(opened(), say.AskHeaders(ids[: LOCATOR_HASHES_MAX + 1])) is Reason.FLOOD
    assert refusal(opened(), say.AskBlocks(ids[: BLOCKS_PER_PAGE_MAX + 1])) is Reason.FLOOD
    assert refusal(opened(), say.Tip(Checkpoint(1, BlockHash(b"short")), HEAD)) is Reason.MALFORMED
    assert refusal(opened(), say.Alive(0, TOLD, ())) is Reason.OUT_OF_ORDER
    assert refusal(opened(), say.Alive(1, TOLD, (witness,) * (WITNESSES_MAX + 1))) is Reason.FLOOD
    assert refusal(opened(), say.Pruned(5)) is Reason.OUT_OF_ORDER
    assert refusal(opened(), say.GiveState((), ())) is Reason.OUT_OF_ORDER
    places = tuple((ROOT_PLACE, name) for name in ids[: STATE_NODES_PER_MESSAGE_MAX + 1])
    assert refusal(opened(), say.AskState(HEAD, places)) is Reason.FLOOD
    assert refusal(opened(), say.AskState(HEAD, ((b"\0\1", ids[0]),))) is Reason.MALFORMED
    assert refusal(opened(), say.AskState(HEAD, ((ROOT_PLACE, b"short"),))) is Reason.MALFORMED
    assert refusal(opened(), say.AskState(Checkpoint(1, BlockHash(b"short")), places[:1])) is Reason.MALFORMED
    assert refusal(opened(), say.AskHistory(BlockHash(b"short"))) is Reason.MALFORMED
    assert refusal(opened(), say.History(())) is Reason.OUT_OF_ORDER
    machine = opened()
    machine.step(m.HistoryWanted(HEAD.hash), 1.0)
    assert refusal(machine, say.History((header_row(block),) * (BLOCKS_PER_PAGE_MAX + 1))) is Reason.FLOOD
    machine = opened()
    machine.step(m.WantState(HEAD, places[:1]), 1.0)
    assert refusal(machine, say.GiveState((StateNode(b"", "", b"", b""),) * (STATE_NODES_PER_MESSAGE_MAX + 1), ())) is Reason.FLOOD
    assert opened().step(say.Bodies((transaction,), ()), 1.0) == ()
    machine = opened()
    assert sends(machine.step(m.Unknown((transaction.id,), ()), 1.0)) == [say.Want((transaction.id,), ())]
    assert machine.step(say.Bodies((transaction,), ()), 1.0) == (m.DeliverItems((transaction,), ()),)
    assert machine.step(say.Bodies((transaction,), ()), 1.0) == ()


def test_peer_of_another_chain_and_reflected_challenge_are_refused() -> None:
    """Goal: no word before both follow one chain. Method: Hello with another chain, and with our own challenge."""
    for hello, reason in ((say.Hello(ChainId(bytes(32)), THEIRS), Reason.WRONG_CHAIN), (say.Hello(CHAIN, MINE), Reason.MALFORMED)):
        machine = m.TalkMachine()
        machine.step(m.Opened(CHAIN, MINE), 0.0)
        assert refusal(machine, hello) is reason
        assert refusal(machine, say.Tip(HEAD, HEAD)) is Reason.OUT_OF_ORDER


def test_ids_asked_for_are_bounded_and_asked_again_after_patience() -> None:
    """Goal: a peer that announces for ever does not fill us. Method: more ids than may be open, then the same later."""
    machine = opened()
    ids = tuple(sha256(at.to_bytes(4, "big")) for at in range(LEDGER_WANTED_MAX + 500))
    wanted = [one for part in sends(machine.step(m.Unknown(ids, ()), 1.0)) if isinstance(part, say.Want) for one in part.transactions]
    assert len(wanted) == LEDGER_WANTED_MAX
    assert sends(machine.step(m.Unknown(ids[:5], ()), 2.0)) == []
    assert sends(machine.step(m.Unknown(ids[:5], ()), 1.0 + LEDGER_PATIENCE_S)) == [say.Want(ids[:5], ())]


def test_silence_and_stalling_close_the_stream() -> None:
    """Goal: nobody holds a page for ever. Method: nothing is heard; then signs of life, but no headers that were asked for."""
    machine = opened()
    assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), LEDGER_SILENCE_MAX_S))
    machine = opened()
    machine.step(say.Tip(HEAD, HEAD), 1.0)
    assert sends(machine.step(m.Located((HEAD.hash,)), 1.0)) == [say.AskHeaders((HEAD.hash,))]
    for counter, now_s in enumerate(range(5, 21, 5), 1):
        machine.step(say.Alive(counter, TOLD, ()), float(now_s))
        machine.step(m.Tick(), float(now_s))
    assert machine.wake_at() == 1.0 + LEDGER_PATIENCE_S
    assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), 1.0 + LEDGER_PATIENCE_S))


def test_state_and_history_are_waited_for_no_longer_than_blocks() -> None:
    """Goal: nobody holds a snapshot for ever. Method: signs of life, but no answer to a question for a state, history, one block."""
    for event in (m.WantState(HEAD, ((ROOT_PLACE, HEAD.hash),)), m.HistoryWanted(HEAD.hash), m.WantBlock(HEAD.hash)):
        machine = opened()
        assert len(sends(machine.step(event, 1.0))) == 1
        for counter, now_s in enumerate(range(5, 21, 5), 1):
            machine.step(say.Alive(counter, TOLD, ()), float(now_s))
            machine.step(m.Tick(), float(now_s))
        assert machine.wake_at() == 1.0 + LEDGER_PATIENCE_S
        assert any(isinstance(effect, Close) for effect in machine.step(m.Tick(), 1.0 + LEDGER_PATIENCE_S))


def test_peer_that_prunes_is_asked_again_from_where_it_keeps() -> None:
    """Goal: a typed answer, remembered. Method: headers are asked for, the peer says what it keeps, its next head comes."""
    machine = opened()
    machine.step(say.Tip(HEAD, HEAD), 1.0)
    machine.step(m.Located((HEAD.hash,)), 1.0)
    assert machine.step(say.Pruned(5), 1.0) == ()
    assert not machine.is_syncing
    assert machine.step(say.Tip(HEAD, HEAD), 2.0) == (m.Locate(HEAD, 5, HEAD),)
    assert sends(opened().step(m.HeadersLoaded((), 5), 1.0)) == [say.Pruned(5)]


def test_sign_of_life_counts_for_its_stream_and_moment_only() -> None:
    """Goal: no replay, and no time but the signer's. Method: other challenge, counter, chain, account; another time, echo, waiting."""
    key, account = chains.key_of("a", "vote"), chains.account_of("a")
    witness = sign_alive(key, CHAIN, challenge=MINE, counter=2, account=account, told=TOLD)
    check_alive(witness, CHAIN, challenge=MINE, counter=2, told=TOLD)
    for chain, challenge, counter, told, one in (
        (ChainId(bytes(32)), MINE, 2, TOLD, witness),
        (CHAIN, THEIRS, 2, TOLD, witness),
        (CHAIN, MINE, 3, TOLD, witness),
        (CHAIN, MINE, 2, TOLD, replace(witness, account=chains.account_of("b"))),
        (CHAIN, MINE, 2, replace(TOLD, time=TOLD.time + 1), witness),
        (CHAIN, MINE, 2, replace(TOLD, is_set=not TOLD.is_set), witness),
        (CHAIN, MINE, 2, replace(TOLD, echo=TOLD.echo + 1), witness),
        (CHAIN, MINE, 2, replace(TOLD, held_ms=TOLD.held_ms + 1), witness),
    ):
        with pytest.raises(InvalidObject) as error:
            check_alive(one, chain, challenge=challenge, counter=counter, told=told)
        assert error.value.reason is Reason.BAD_SIGNATURE


def test_way_there_and_back_is_measured_by_what_the_peer_answers_to() -> None:
    """Goal: a time is worth what its way says. Method: our greeting and first beat at 0 s, a second at 3 s, answered at 4.5 s after a
    second's waiting; then an answer to what is forgotten, and to what was never said."""
    witness = sign_alive(chains.key_of("a"), CHAIN, challenge=MINE, counter=1, account=chains.account_of("a"), told=TOLD)

    def heard(machine: m.TalkMachine, told: Told, counter: int, now_s: float) -> int | None:
        (effect,) = machine.step(say.Alive(counter, told, (witness,)), now_s)
        assert isinstance(effect, m.HeardAlive)
        assert effect.told == told
        return effect.round_trip_ms

    machine = opened()
    assert heard(machine, Told(5, True, 0, 0), 1, 0.25) == 250
    (ask, _) = machine.step(m.Tick(), LEDGER_BEAT_S)
    assert ask == m.MakeWitnesses(THEIRS, 2, 1, int((LEDGER_BEAT_S - 0.25) * 1000))
    assert heard(machine, Told(5, True, 2, 1_000), 2, LEDGER_BEAT_S + 1.5) == 500
    assert heard(machine, Told(5, True, 2, 9_000), 3, LEDGER_BEAT_S + 2.0) == -7_000  # a liar's: nobody counts it
    for beat in range(2, 12):
        machine.step(m.Tick(), LEDGER_BEAT_S * beat)
        machine.step(say.Tip(HEAD, HEAD), LEDGER_BEAT_S * beat)
    assert heard(machine, Told(5, True, 1, 0), 4, LEDGER_BEAT_S * 11) is None
    for told in (Told(5, True, 13, 0), Told(-1, True, 0, 0), Told(TIME_MS_MAX + 1, True, 0, 0), Told(5, True, -1, 0), Told(5, True, 0, -1)):
        assert refusal(opened(), say.Alive(1, told, (witness,))) is Reason.MALFORMED


def test_every_short_sequence_ends_in_a_listed_state_or_a_remote_error() -> None:
    """Goal: no message of a peer breaks an assertion. Method: all sequences of four out of what a peer may say, after Hello."""
    block = chains.start().blocks[0]
    name = BlockHash(block.hash)
    alphabet: list[object] = [
        say.Tip(HEAD, HEAD),
        say.Alive(5, TOLD, ()),
        say.Headers((header_row(block),)),
        say.GiveBlock(block),
        say.Given(()),
        say.Given((name,)),
        m.Located((name,)),
        m.Missing((name,)),
        m.WantState(HEAD, ((ROOT_PLACE, name),)),
        say.GiveState((), (name,)),
        m.HistoryWanted(name),
        say.History((header_row(block),)),
        say.Pruned(1),
        m.WantLight(say.AskFinal(0, 0)),
        say.Final((), ()),
        m.Tick(),
    ]
    refused = 0
    for sequence in itertools.product(alphabet, repeat=4):
        machine = opened()
        for event in sequence:
            try:
                machine.step(event, 2.0)
            except RemoteError:
                refused += 1
                break
    assert 0 < refused < len(alphabet) ** 4


def test_locator_reaches_from_head_to_genesis() -> None:
    """Goal: it is short and has both ends. Method: heights near and far."""
    for head, final in ((0, 0), (5, 0), (100_000, 0), (2**40, 2**39)):
        heights = locator_heights(head, final)
        assert heights[0] == head
        assert final in heights
        assert heights[-1] == 0
        assert len(heights) <= LOCATOR_HASHES_MAX
        assert list(heights) == sorted(set(heights), reverse=True)
