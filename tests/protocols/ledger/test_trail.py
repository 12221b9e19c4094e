"""The trail of an id: what touches it, and the proofs that somebody else can check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest

from protocols.codec import decode, encode
from protocols.crypto import sha256
from protocols.errors import DecodeError, InvalidObject, UsageError
from protocols.files.holdings import node_peer
from protocols.ledger.block import prove_leaf
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.history import paths
from protocols.ledger.light import Inclusion, Proven
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import prove_value
from protocols.ledger.sync import header_row
from protocols.ledger.trail import Trail, TrailHead, TrailStep, check_trail_head, check_trail_step, named_in
from protocols.ledger.transactions import (
    approve,
    cert_status,
    erase,
    folder_update,
    key_rotate,
    miner_nominate,
    penalty,
    penalty_lift,
    term_handover,
)
from protocols.ledger.transactions.term_handover import HISTORY
from protocols.ledger.votes import Checkpoint
from protocols.types import ChainId, TxId, UnixMillis

from .chains import MEMBERS, Chain, account_of, key_of, owned, record_id, serial_of, start
from .test_filing import HOLDER, receipt, record_receipts
from .test_terms import Rotating


def trail_of(chain: Chain, name: bytes) -> list[Transaction]:
    trail = Trail(name.hex())
    return [one for block in chain.blocks for one in block.transactions if trail.touches(one)]


def test_every_transaction_that_touches_an_id_is_found_and_no_other() -> None:
    """Goal: nothing is missed, nothing is added. Method: of two records and two people everything that can be said; what names an account
    by its certificate, its former or its new key, and answers that name a transaction alone."""
    chain = start()
    record, other = record_id("ann", "r"), record_id("bob", "s")
    waiting = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owned("ann", "bob")))
    chain.add(waiting, chain.by("bob", "RecordAnchor", chain.anchor("bob", "s")))
    yes = chain.by("bob", "Approve", approve.Body(waiting.id, True, ""))
    folder = chain.by("ann", "FolderUpdate", folder_update.Body("f", sha256(b"root"), bytes(32), 1))
    chain.add(yes, folder)
    warned = chain.by_council("Penalty", penalty.Body(account_of("ann"), "warn", "late", (), UnixMillis(0)))
    nominated = chain.by("bob", "MinerNominate", miner_nominate.Body(account_of("a"), True))
    chain.add(warned, nominated)
    lifted = chain.by_council("PenaltyLift", penalty_lift.Body(warned.id, "paid"))
    status = [chain.by_council("CertStatus", cert_status.Body(serial_of("ann"), act, "why")) for act in ("suspend", "resume")]
    chain.add(lifted, status[0])
    chain.add(status[1])
    new = key_of("ann", "new")
    body = key_rotate.Body("sign", account_of("ann"), key_of("ann").public, new.public, bytes(32))
    rotated = sign_transaction(chain.by("ann", "KeyRotate", body).content, [key_of("ann"), new])
    chain.add(rotated)
    ordered = chain.by_council("Erase", erase.Body(record.owner, record.hash_id, "keys", "legal"))
    chain.add(ordered)
    genesis = chain.blocks[0].transactions[0]
    assert trail_of(chain, record.hash_id) == [waiting, yes, ordered]
    assert trail_of(chain, other.hash_id) == [chain.blocks[1].transactions[1]]
    assert trail_of(chain, warned.id) == [warned, lifted]
    assert trail_of(chain, account_of("a")) == [genesis, *in_order(chain, {nominated, warned, lifted, *status, ordered})]
    assert trail_of(chain, account_of("ann")) == [
        genesis,
        *in_order(chain, {waiting, yes, folder, warned, lifted, *status, rotated, ordered}),
    ]
    assert trail_of(chain, sha256(b"nobody")) == []


def in_order(chain: Chain, wanted: set[Transaction]) -> list[Transaction]:
    ids = {one.id for one in wanted}
    return [one for block in chain.blocks for one in block.transactions if one.id in ids]


def test_signed_objects_inside_a_transaction_count_and_blocks_that_chance_chose_do_not() -> None:
    """Goal: who a receipt speaks of is found, whose block a hand-over shows is not. Method: a receipt for two records; a real hand-over."""
    chain = start()
    for name in ("r", "s"):
        chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", name)))
    assert record_receipts(chain, receipt(["r", "s"], 1)) == 1
    recorded = chain.blocks[-1].transactions[0]
    for record in ("r", "s"):
        assert trail_of(chain, record_id("ann", record).hash_id)[1:] == [recorded]
    assert trail_of(chain, node_peer(HOLDER)) == [recorded]
    world = Rotating(MEMBERS, seats=2)
    for _ in range(12):
        world.step(handing=MEMBERS)
    handed = [one for block in world.chain.blocks for one in block.transactions if one.content.kind == term_handover.KIND.number]
    assert len({one.content.sender for one in handed}) > 1
    for one in handed:
        assert named_in(one) == {one.id, one.content.sender, *one.keys}


def test_beginning_of_two_ids_is_refused() -> None:
    """Goal: no trail of two things at once. Method: the beginning that all ids have in common: none."""
    chain = start()
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    trail = Trail("")
    with pytest.raises(UsageError):
        [trail.touches(one) for block in chain.blocks for one in block.transactions]


# --- proofs -----------------------------------------------------------------------------------------------------------


def grown() -> tuple[Chain, list[Transaction]]:
    """A chain of 14 blocks, whose history before the last one is of three trees, with transactions in four of them."""
    chain = start()
    said = []
    for number in range(14):
        body = folder_update.Body(f"folder {number}", sha256(b"root"), bytes(32), 1)
        wanted = [chain.by(name, "FolderUpdate", body) for name in ("ann", "bob")]
        taken = wanted if number in (3, 9, 12, 13) else []
        chain.add(*taken)
        said += taken
    return chain, said


def shown(chain: Chain, said: Iterable[Transaction]) -> tuple[TrailHead, Checkpoint, list[TrailStep]]:
    head = TrailHead(header_row(chain.blocks[-1]), Proven(chain.view.get(HISTORY, b""), prove_value(chain.view, HISTORY, b"")))
    places = [(block, index) for one in said for block in chain.blocks for index, found in enumerate(block.transactions, 1) if found is one]
    heights = {block.info.height for block, _ in places} - {chain.height}
    siblings = paths(chain.height, heights, lambda height: chain.blocks[height].hash)
    steps = [
        TrailStep(Inclusion(header_row(block), prove_leaf(block, at), block.transactions[at - 1]), siblings.get(block.info.height, ()))
        for block, at in places
    ]
    return head, chain.checkpoint(chain.height), steps


def check(chain: Chain, head: TrailHead, trusted: Checkpoint, steps: Sequence[TrailStep], wanted: Sequence[TxId]) -> list[Checkpoint]:
    seal = SEALS[chain.profile.seal]
    peaks = check_trail_head(head, chain.chain, seal, trusted)
    pairs = zip(steps, wanted, strict=True)
    return [check_trail_step(step, chain.chain, seal, head=trusted, peaks=peaks, wanted=name) for step, name in pairs]


def test_each_step_of_a_trail_is_proven_to_who_trusts_one_final_block() -> None:
    """Goal: proofs need nothing but the chain's id and one block. Method: transactions of the history's three trees and of the head itself,
    through bytes; of another transaction, another chain, another head none holds."""
    chain, said = grown()
    head, trusted, steps = shown(chain, said)
    head, steps = decode(encode(head), TrailHead), [decode(encode(one), TrailStep) for one in steps]
    ids = [one.id for one in said]
    found = check(chain, head, trusted, steps, ids)
    assert [point.height for point in found] == [4, 4, 10, 10, 13, 13, 14, 14]
    assert all(point == chain.checkpoint(point.height) for point in found)
    for other in (ids[1:] + ids[:1], [sha256(b"another")] * len(ids)):
        with pytest.raises(InvalidObject):
            check(chain, head, trusted, steps, other)
    for point in (chain.checkpoint(13), Checkpoint(14, chain.checkpoint(13).hash), Checkpoint(13, trusted.hash)):
        with pytest.raises(InvalidObject):
            check(chain, head, point, steps, ids)
    with pytest.raises(InvalidObject):
        check_trail_head(head, ChainId(sha256(b"another chain")), None, trusted)
    chain.pop()
    before, below, _ = shown(chain, said[:1])
    with pytest.raises(InvalidObject):
        check(chain, before, below, steps[-1:], ids[-1:])


def test_every_changed_byte_of_a_trail_is_refused() -> None:
    """Goal: no proof bends. Method: each byte of a step of every tree, of a step at the head and of the head itself changed alone."""
    chain, said = grown()
    head, trusted, steps = shown(chain, said)
    seal = SEALS[chain.profile.seal]
    peaks = check_trail_head(head, chain.chain, seal, trusted)
    for step, one in list(zip(steps, said, strict=True))[::2]:
        refused = 0
        for data in altered(encode(step)):
            try:
                check_trail_step(decode(data, TrailStep), chain.chain, seal, head=trusted, peaks=peaks, wanted=one.id)
            except (InvalidObject, DecodeError):
                refused += 1
        assert refused == len(encode(step))
    refused = 0
    for data in altered(encode(head)):
        try:
            check_trail_head(decode(data, TrailHead), chain.chain, seal, trusted)
        except (InvalidObject, DecodeError):
            refused += 1
    assert refused == len(encode(head))


def altered(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
