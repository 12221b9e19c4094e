"""Every kind: who may, what it changes, what it refuses; what fires by itself."""

from __future__ import annotations

import pytest

from protocols.codec import Record, encode, replace
from protocols.crypto import sha256
from protocols.errors import InvalidBlock, InvalidTransaction, Reason, Undecided
from protocols.files.holdings import node_peer, sign_receipt
from protocols.files.objects import sign_statement
from protocols.ledger import conditions
from protocols.ledger.block import Block, Header, block_merkle_root, sign_seal
from protocols.ledger.carried import committee_at, final_height
from protocols.ledger.conditions import next_due_ms
from protocols.ledger.context import ACCOUNT, FORGET, SEEN, Account
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.profile import DEFAULT_POLICY, CountryRule
from protocols.ledger.schedule import RULES_1
from protocols.ledger.terms import MINER, Miner, load_tip
from protocols.ledger.transactions import (
    approve,
    cert_status,
    council_recover,
    council_update,
    equivocation,
    erase,
    expiry_extend,
    folder_update,
    key_rotate,
    miner_nominate,
    penalty,
    penalty_lift,
    policy_list_update,
    rule_activation,
    storage_receipt,
)
from protocols.ledger.transactions.folder_update import FOLDER, FolderState
from protocols.ledger.transactions.records import PENDING, RECORD, Parent, RecordState, record_key
from protocols.ledger.transactions.storage_receipt import HOLDING
from protocols.ledger.transition import check_transaction
from protocols.ledger.votes import Vote, sign_vote, votes_root
from protocols.signed import Signed
from protocols.types import BlockHash, OwnerKey, UnixMillis, UnixSeconds
from tests.protocols.files import records as files

from .chains import (
    MEMBERS,
    START_MS,
    Chain,
    account_of,
    certificate,
    certify,
    council_of,
    genesis_body,
    key_of,
    owned,
    profile_of,
    record_id,
    serial_of,
    start,
)


def refused(chain: Chain, transaction: Transaction) -> Reason:
    """Why the transaction is refused: alone, and with the whole block that carries it."""
    root = chain.view.root
    with pytest.raises(InvalidTransaction) as caught:
        check_transaction(chain.view, chain.header, transaction, slot=chain.slot + 1, chain=chain.chain)
    good = chain.make()
    draft, name = chain.draft()
    info = replace(draft.info, transaction_count=1)
    root_of_body = block_merkle_root(info, (transaction,))
    header = Header(draft.header.t_stamp_ms, root_of_body, 1, draft.header.parent, 0)
    seal = sign_seal(chain.sealer(name), chain.chain, info.slot, header.hash)
    bad = replace(good, header=header.encoded, info=info, transactions=(transaction,), seal=seal)
    with pytest.raises(InvalidBlock) as block:
        chain.judge(bad)
    assert block.value.reason is caught.value.reason
    assert chain.view.root == root
    return caught.value.reason


def record(chain: Chain, key: Parent) -> RecordState:
    found = chain.state.load(RECORD, record_key(key.owner, key.hash_id), RecordState)
    assert found is not None
    return found


def account(chain: Chain, name: str) -> Account:
    found = chain.state.load(ACCOUNT, account_of(name), Account)
    assert found is not None
    return found


# --- common rules -------------------------------------------------------------------------------------------------


def test_common_rules_each_alone() -> None:
    """Goal: chain, time, replay, certificate, signatures, links, form. Method: one good transaction, each rule broken alone."""
    chain = start()
    chain.run(2)
    body = folder_update.Body("f", sha256(b"root"), bytes(32), 1)
    now = chain.now_ms
    week = chain.profile.tx_life_ms
    good = chain.by("ann", "FolderUpdate", body)
    assert refused(chain, chain.by("ann", "FolderUpdate", body, chain=b"\1" * 32)) is Reason.WRONG_CHAIN
    assert refused(chain, chain.by("ann", "FolderUpdate", body, ts_ms=now + 200_000, until_ms=now + 300_000)) is Reason.BAD_TIME
    assert refused(chain, chain.by("ann", "FolderUpdate", body, ts_ms=now - 10, until_ms=now - 5)) is Reason.EXPIRED
    assert refused(chain, chain.by("ann", "FolderUpdate", body, until_ms=now + week + 1)) is Reason.BAD_TIME
    assert refused(chain, chain.by("ann", "FolderUpdate", body, serial=serial_of("bob"))) is Reason.BAD_CERTIFICATE
    assert refused(chain, chain.by("nobody", "FolderUpdate", body)) is Reason.NOT_MEMBER
    assert refused(chain, chain.by("ann", "FolderUpdate", body, links=(b"\1" * 32,))) is Reason.UNKNOWN_LINK
    assert refused(chain, sign_transaction(replace(good.content, kind=99), [key_of("ann")])) is Reason.UNKNOWN_KIND
    assert refused(chain, chain.by("ann", "FolderUpdate", body, version=2)) is Reason.UNKNOWN_FORMAT
    assert refused(chain, sign_transaction(replace(good.content, body=b"\x90"), [key_of("ann")])) is Reason.BAD_BODY
    assert refused(chain, chain.by("ann", "FolderUpdate", body, "bob")) is Reason.UNEXPECTED_SIGNER
    assert refused(chain, sign_transaction(good.content, [key_of("bob")])) is Reason.NOT_SIGNED
    assert refused(chain, replace(good, signatures=())) is Reason.NOT_SIGNED
    forged = replace(good, signatures=(replace(good.signatures[0], signature=bytes(64)),))
    assert refused(chain, forged) is Reason.BAD_SIGNATURE
    chain.add(good)
    assert refused(chain, good) is Reason.SEEN
    linked = chain.by("ann", "FolderUpdate", replace(body, sequence=2), links=(good.id,))
    chain.add(linked)


def test_waiting_and_reorganisation_never_kill_a_transaction_and_ids_are_forgotten_after_their_end() -> None:
    """Goal: replay is impossible while a transaction could be valid, and state does not grow for ever. Method: undo, again, later."""
    chain = start()
    transaction = chain.by("ann", "FolderUpdate", folder_update.Body("f", sha256(b"root"), bytes(32), 1), until_ms=START_MS + 20_000)
    chain.add(transaction)
    chain.pop()
    chain.run(10)
    chain.add(transaction)
    assert chain.state.get(SEEN, transaction.id) is not None
    chain.add(slot=59)
    assert chain.state.get(SEEN, transaction.id) is not None
    chain.add(slot=60)
    assert chain.state.get(SEEN, transaction.id) is None
    assert refused(chain, transaction) is Reason.EXPIRED


def test_ids_of_a_block_stand_on_few_sheets_and_go_by_whole_minutes_at_most_so_many_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: forgetting costs a block few keys, and a minute with many ids is no load for one block. Method: 150 ids of one minute and
    three of the next in one block; 64 may go at a time. Expected: 64, 64, 22 and then the three; nothing is left."""
    monkeypatch.setattr(conditions, "CONDITIONS_PER_BLOCK_MAX", 64)
    chain = start()

    def made(count: int, until_ms: int) -> list[Transaction]:
        return [
            chain.by("ann", "FolderUpdate", folder_update.Body(f"{until_ms}-{at}", sha256(b""), bytes(32), 1), until_ms=until_ms)
            for at in range(count)
        ]

    def count(space: str) -> int:
        return sum(1 for _ in chain.state.iterate(space))

    before = count(SEEN)
    chain.add(*made(150, START_MS + 59_999), *made(3, START_MS + 60_000))
    assert count(SEEN) == before + 153
    assert [len(ids) // 32 for _, ids in chain.state.iterate(FORGET)] == [64, 64, 22, 3]
    left = []
    for slot in (60, 61, 62, 119, 120):
        chain.add(slot=slot)
        left.append(count(SEEN) - before)
    assert left == [89, 25, 3, 3, 0]
    assert count(FORGET) == 0


COUNCIL_ACTS: list[tuple[str, Record]] = [
    ("PolicyListUpdate", policy_list_update.Body(100, replace(DEFAULT_POLICY, version=2))),
    ("CouncilUpdate", council_update.Body(council_of(("a", "b", "e"), 2, sequence=1))),
    ("RuleActivation", rule_activation.Body(2, 100)),
    ("Penalty", penalty.Body(account_of("ann"), "warn", "late", (), UnixMillis(0))),
    ("MinerCertify", certify("ann")),
    ("CertIssue", certificate("new")),
    ("CertStatus", cert_status.Body(serial_of("ann"), "suspend", "")),
]


@pytest.mark.parametrize(("kind", "body"), COUNCIL_ACTS, ids=lambda one: one if isinstance(one, str) else "")
def test_acts_of_the_council_need_m_of_its_n_keys(kind: str, body: Record) -> None:
    """Goal: no act with fewer than the threshold, or by others. Method: m − 1, a stranger's key besides, an account; then m."""
    chain = start()
    chain.run(1)
    assert refused(chain, chain.by_council(kind, body, signers=MEMBERS[:2])) is Reason.NOT_SIGNED
    assert refused(chain, chain.by_council(kind, body, signers=(*MEMBERS[:3], "eve"))) is Reason.UNEXPECTED_SIGNER
    assert refused(chain, chain.by("ann", kind, body)) in (Reason.NOT_MEMBER, Reason.NOT_ELIGIBLE)
    chain.add(chain.by_council(kind, body))
    again = chain.by_council(kind, body, until_ms=chain.now_ms + 5000)
    if kind != "Penalty":
        assert refused(chain, again) in (Reason.SEQUENCE, Reason.CONFLICT)


def test_every_kind_has_a_number_and_a_name_of_its_own() -> None:
    """Goal: the registry is whole. Method: numbers 1..21, names differ."""
    assert sorted(RULES_1.kinds) == list(range(1, 22))
    assert len({kind.name for kind in RULES_1.kinds.values()}) == 21


# --- accounts -----------------------------------------------------------------------------------------------------


def test_certificates_are_issued_renewed_suspended_resumed_and_revoked_by_managers() -> None:
    """Goal: the certificate server of a domain. Method: one life, every refusal on the way."""
    chain = start()
    body = folder_update.Body("f", sha256(b"root"), bytes(32), 1)
    issue = certificate("new", from_ms=UnixMillis(START_MS + 3000), to_ms=UnixMillis(START_MS + 30_000))
    assert refused(chain, chain.by("ann", "CertIssue", issue)) is Reason.NOT_ELIGIBLE
    chain.add(chain.by("manager", "CertIssue", issue))
    assert refused(chain, chain.by("new", "FolderUpdate", body)) is Reason.CERTIFICATE_NOT_YET_VALID
    chain.add(slot=3)
    assert refused(chain, chain.by("manager", "CertIssue", replace(issue, serial=serial_of("new", 1)))) is Reason.CONFLICT
    other_key = replace(issue, serial=serial_of("new", 1), to_ms=UnixMillis(START_MS + 60_000), key=OwnerKey(key_of("x").public))
    assert refused(chain, chain.by("manager", "CertIssue", other_key)) is Reason.CONFLICT
    chain.add(chain.by("manager", "CertStatus", cert_status.Body(serial_of("new"), "suspend", "check")))
    assert refused(chain, chain.by("new", "FolderUpdate", body)) is Reason.SUSPENDED
    chain.add(chain.by("manager", "CertStatus", cert_status.Body(serial_of("new"), "resume", "")))
    chain.add(chain.by("new", "FolderUpdate", body))
    assert refused(chain, chain.by("new", "FolderUpdate", body, until_ms=chain.now_ms + 60_000)) is Reason.SEQUENCE
    chain.add(slot=29)
    chain.add(slot=40)
    late = chain.by("new", "FolderUpdate", replace(body, sequence=2))
    assert refused(chain, late) is Reason.CERTIFICATE_EXPIRED
    chain.add(chain.by("manager", "CertIssue", replace(issue, serial=serial_of("new", 1), to_ms=UnixMillis(START_MS + 90_000))))
    chain.add(chain.by("new", "FolderUpdate", replace(body, sequence=2), serial=serial_of("new", 1)))
    chain.add(chain.by("manager", "CertStatus", cert_status.Body(serial_of("new", 1), "revoke", "gone")))
    gone = chain.by("new", "FolderUpdate", replace(body, sequence=3), serial=serial_of("new", 1))
    assert refused(chain, gone) is Reason.REVOKED
    assert refused(chain, chain.by("manager", "CertStatus", cert_status.Body(serial_of("new", 1), "resume", ""))) is Reason.CONFLICT


def test_leaked_key_is_rotated_by_both_keys_or_by_the_council_and_old_records_stay_their_accounts() -> None:
    """Goal: key-leak handling on the ledger. Method: rotate by both, then by recovery; the old key says nothing any more."""
    chain = start()
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    new = key_of("ann", "second")
    body = key_rotate.Body("sign", account_of("ann"), key_of("ann").public, new.public, bytes(32))
    assert refused(chain, chain.by("ann", "KeyRotate", body)) is Reason.NOT_SIGNED
    content = chain.by("ann", "KeyRotate", body).content
    chain.add(sign_transaction(content, [key_of("ann"), new]))
    assert refused(chain, chain.by("ann", "FolderUpdate", folder_update.Body("f", bytes(32), bytes(32), 1))) is Reason.NOT_SIGNED
    third = key_of("ann", "third")
    recover = key_rotate.Body("sign", account_of("ann"), new.public, third.public, bytes(32))
    by_council = chain.by_council("KeyRotate", recover)
    assert refused(chain, by_council) is Reason.NOT_SIGNED
    chain.add(sign_transaction(by_council.content, [*(key_of(name, "council") for name in MEMBERS[:3]), third]))
    assert account(chain, "ann").key == third.public
    erase_old = erase.Body(*(record_id("ann", "r").owner, record_id("ann", "r").hash_id), "keys", "")
    chain.add(sign_transaction(chain.by("ann", "Erase", erase_old).content, [third]))
    assert record(chain, record_id("ann", "r")).status == "erased"
    taken = replace(recover, old=third.public, new=key_of("bob").public)
    taken_by = sign_transaction(chain.by("ann", "KeyRotate", taken).content, [third, key_of("bob")])
    assert refused(chain, taken_by) is Reason.CONFLICT


def test_voting_and_sealing_keys_rotate_by_their_holders() -> None:
    """Goal: a member whose vote heights are lost votes again under a new key. Method: rotate two in one block; votes count by new keys."""
    chain = start()
    chain.run(2, voting=True)
    rotations = []
    for name in ("a", "b"):
        new = key_of(name, "vote2")
        body = key_rotate.Body("vote", account_of(name), key_of(name, "vote").public, new.public, b"")
        content = replace(chain.by_council("KeyRotate", body).content, sender=account_of(name))
        rotations.append(sign_transaction(content, [key_of(name, "council"), new]))
    chain.add(*rotations)
    chain.run(1)
    committee = committee_at(chain.state, chain.height)
    assert committee.key_of(account_of("a")) == key_of("a", "vote2").public
    assert committee.key_of(account_of("b")) == key_of("b", "vote2").public
    old = chain.votes(("a",))[0]
    with pytest.raises(InvalidBlock) as caught:
        chain.take(force_votes(chain, [old]))
    assert caught.value.reason is Reason.BAD_VOTE
    seal = key_rotate.Body("seal", account_of("c"), key_of("c", "seal").public, key_of("c", "seal2").public, b"")
    chain.add(sign_transaction(chain.by("c", "KeyRotate", seal).content, [key_of("c"), key_of("c", "seal2")]))
    miner = chain.state.load(MINER, account_of("c"), Miner)
    assert miner is not None
    assert miner.key == key_of("c", "seal2").public


def force_votes(chain: Chain, votes: list[Vote]) -> Block:
    draft, name = chain.draft()
    info = replace(draft.info, votes_root=votes_root(votes))
    header = Header(draft.header.t_stamp_ms, block_merkle_root(info, ()), 1, draft.header.parent, 0)
    block = chain.finish(draft, name)
    seal = sign_seal(chain.sealer(name), chain.chain, info.slot, header.hash)
    return replace(block, header=header.encoded, info=info, votes=tuple(votes), seal=seal)


def test_penalties_bind_end_by_time_and_are_lifted() -> None:
    """Goal: warn, suspend, revoke with reason and end; a suspended id is refused everywhere. Method: overlap two, end one, lift one."""
    chain = start()
    act = folder_update.Body("f", sha256(b"root"), bytes(32), 1)
    warn = chain.by_council("Penalty", penalty.Body(account_of("ann"), "warn", "late", (), UnixMillis(0)))
    chain.add(warn)
    check_transaction(chain.view, chain.header, chain.by("ann", "FolderUpdate", act), slot=chain.slot + 1, chain=chain.chain)
    ends = UnixMillis(START_MS + 10_000)
    first = chain.by_council("Penalty", penalty.Body(account_of("ann"), "suspend", "false code", (warn.id,), ends))
    second = chain.by_council("Penalty", penalty.Body(account_of("ann"), "suspend", "again", (), UnixMillis(0)))
    chain.add(first, second)
    assert refused(chain, chain.by("ann", "FolderUpdate", act)) is Reason.SUSPENDED
    assert next_due_ms(chain.state) == ends
    assert "penalty-ended" in {event.name for event in chain.add(slot=10).events}
    assert refused(chain, chain.by("ann", "FolderUpdate", act)) is Reason.SUSPENDED
    lift = penalty_lift.Body(second.id, "heard")
    assert refused(chain, chain.by_council("PenaltyLift", lift, signers=MEMBERS[:1])) is Reason.NOT_SIGNED
    chain.add(chain.by_council("PenaltyLift", lift))
    chain.add(chain.by("ann", "FolderUpdate", act))
    assert refused(chain, chain.by_council("PenaltyLift", lift, until_ms=chain.now_ms + 60_000)) is Reason.CONFLICT
    assert account(chain, "ann").warnings == 1


# --- council, policy, rules ---------------------------------------------------------------------------------------


def test_policy_comes_into_force_at_its_height_and_a_block_that_breaks_a_country_rule_is_refused() -> None:
    """Goal: versions with effective height; every record names the version used. Method: a row against one schema, a denied country."""
    chain = start()
    chain.run(1)
    rows = (CountryRule("CN", "meat", False),)
    policy = replace(DEFAULT_POLICY, version=2, country_rules=rows, denied=("XX",))
    effective = chain.height + 3
    meat = chain.anchor("ann", "r", schema="meat")
    assert (
        refused(chain, chain.by_council("PolicyListUpdate", policy_list_update.Body(effective, replace(policy, version=3))))
        is Reason.SEQUENCE
    )
    assert refused(chain, chain.by_council("PolicyListUpdate", policy_list_update.Body(chain.height, policy))) is Reason.BAD_BODY
    chain.add(chain.by_council("PolicyListUpdate", policy_list_update.Body(effective, policy)))
    chain.add(chain.by("ann", "RecordAnchor", meat))
    assert record(chain, record_id("ann", "r")).policy == 1
    chain.run(1)
    assert chain.height == effective
    other = chain.anchor("ann", "r2", schema="meat")
    assert refused(chain, chain.by("ann", "RecordAnchor", other)) is Reason.POLICY
    chain.add(chain.by("ann", "RecordAnchor", replace(other, schema="steel")))
    assert record(chain, record_id("ann", "r2")).policy == 2
    nobody = certificate("new", country="XX")
    chain.add(chain.by("manager", "CertIssue", nobody))
    assert refused(chain, chain.by("new", "FolderUpdate", folder_update.Body("f", bytes(32), bytes(32), 1))) is Reason.POLICY


def test_council_changes_at_the_second_boundary_after_it_is_final_and_finality_goes_on() -> None:
    """Goal: the new committee votes, links across need both. Method: d is replaced by e; without votes nothing ever changes."""
    quiet = start()
    quiet.add(quiet.by_council("CouncilUpdate", council_update.Body(council_of(("a", "b", "c", "e"), 3, sequence=1))))
    quiet.run(40)
    assert committee_at(quiet.state, quiet.height).generation == 0
    chain = start()
    update = chain.by_council("CouncilUpdate", council_update.Body(council_of(("a", "b", "c", "e"), 3, sequence=1)))
    chain.add(update)
    carrying, changed = chain.height, None
    members: tuple[str, ...] = MEMBERS
    votes = chain.votes()
    final_at = None
    for _ in range(40):
        chain.add(votes=votes)
        if final_at is None and final_height(chain.state) >= carrying:
            final_at = load_tip(chain.state).term
        if changed is None and committee_at(chain.state, chain.height).generation:
            changed = (load_tip(chain.state).term, load_tip(chain.state).blocks)
            members = (*MEMBERS, "e")
        votes = chain.votes([name for name in members if name != "a" or chain.height % 3])
    assert final_at is not None
    assert changed == (final_at + 2, 1)
    assert committee_at(chain.state, chain.height).key_of(account_of("e")) is not None
    assert final_height(chain.state) >= chain.height - 3
    assert refused(chain, chain.by_council("CertIssue", certificate("new"), signers=("a", "b", "d"))) in (
        Reason.NOT_SIGNED,
        Reason.UNEXPECTED_SIGNER,
    )


def test_lost_voting_keys_are_recovered_by_offline_keys_and_finality_goes_on() -> None:
    """Goal: CouncilRecover. Method: three of four voting keys are lost; new ones are seated at a final block; the new quorum finalises."""
    chain = start()
    chain.run(6, voting=True)
    final = final_height(chain.state)
    council = council_of(MEMBERS, 3, sequence=1)
    members = [replace(one, vote_key=key_of(chain.names[one.id], "vote3").public) for one in council.members]
    body = council_recover.Body(final, BlockHash(chain.blocks[final].hash), replace(council, members=tuple(members)))
    content = chain.by_council("CouncilRecover", body).content
    keys = [key_of(name, "recovery") for name in MEMBERS]
    assert refused(chain, sign_transaction(content, [key_of(name, "council") for name in MEMBERS])) is Reason.NOT_SIGNED
    assert refused(chain, sign_transaction(content, keys[:2])) is Reason.NOT_SIGNED
    wrong = replace(content, body=encode(replace(body, hash=BlockHash(bytes(32)))))
    assert refused(chain, sign_transaction(wrong, keys)) is Reason.CONFLICT
    greedy = replace(members[0], key=key_of("eve", "council").public)
    more = replace(body, council=replace(body.council, members=(greedy, *members[1:])))
    assert refused(chain, sign_transaction(replace(content, body=encode(more)), keys)) is Reason.CONFLICT
    chain.add(sign_transaction(content, keys[:3]))
    source = final
    for _ in range(4):
        target = chain.height
        votes = [
            sign_vote(key_of(name, "vote3"), chain.chain, chain.checkpoint(source), chain.checkpoint(target), account_of(name))
            for name in MEMBERS[:3]
        ]
        source = target
        chain.add(votes=votes)
    assert final_height(chain.state) >= chain.height - 3
    assert list(chain.state.iterate("recovered"))


def test_rules_are_activated_two_terms_ahead_and_stop_who_lacks_them() -> None:
    """Goal: V names the rule set; a node that lacks it stops before that height. Method: activate 2, run up to it."""
    chain = start()
    chain.run(1)
    least = chain.height + 1 + 2 * chain.profile.term_blocks
    assert refused(chain, chain.by_council("RuleActivation", rule_activation.Body(2, least - 1))) is Reason.BAD_BODY
    chain.add(chain.by_council("RuleActivation", rule_activation.Body(2, least)))
    chain.run(least - 1 - chain.height)
    with pytest.raises(Undecided) as caught:
        chain.run(1)
    assert caught.value.reason is Reason.RULE_SET


# --- miners -------------------------------------------------------------------------------------------------------


def test_members_of_the_cluster_recommend_candidates() -> None:
    """Goal: nomination counts once per member of the cluster. Method: recommend, twice, take back, not a miner."""
    chain = start()
    body = miner_nominate.Body(account_of("a"), True)
    chain.add(chain.by("ann", "MinerNominate", body), chain.by("bob", "MinerNominate", body))
    assert refused(chain, chain.by("ann", "MinerNominate", body, until_ms=chain.now_ms + 60_000)) is Reason.CONFLICT
    assert refused(chain, chain.by("ann", "MinerNominate", miner_nominate.Body(account_of("bob"), True))) is Reason.NOT_FOUND
    chain.add(chain.by("ann", "MinerNominate", replace(body, for_it=False)))
    miner = chain.state.load(MINER, account_of("a"), Miner)
    assert miner is not None
    assert miner.nominated == (account_of("bob"),)


def test_two_seals_or_two_votes_are_evidence_once_and_bring_a_penalty() -> None:
    """Goal: equivocation ends on the ledger. Method: real evidence, then altered, doubled and harmless ones."""
    chain = start()
    chain.run(6, voting=True)
    slot = 3
    names = sorted([BlockHash(sha256(b"one")), BlockHash(sha256(b"two"))])
    key = key_of("a", "seal")
    seals = tuple(equivocation.Sealed(one, sign_seal(key, chain.chain, slot, one)) for one in names)
    body = equivocation.Body("seals", account_of("a"), key.public, slot, seals, ())
    assert refused(chain, chain.by("ann", "Equivocation", replace(body, seals=(seals[0], seals[0])))) is Reason.BAD_BODY
    assert refused(chain, chain.by("ann", "Equivocation", replace(body, slot=4))) is Reason.BAD_SIGNATURE
    assert refused(chain, chain.by("ann", "Equivocation", replace(body, culprit=account_of("b")))) is Reason.NOT_FOUND
    rotate = key_rotate.Body("seal", account_of("a"), key.public, key_of("a", "seal2").public, b"")
    shared = replace(rotate, new=key_of("b", "seal").public)
    content = chain.by("a", "KeyRotate", shared).content
    assert refused(chain, sign_transaction(content, [key_of("a"), key_of("b", "seal")])) is Reason.CONFLICT
    waiting = sign_transaction(chain.by("a", "KeyRotate", rotate).content, [key_of("a"), key_of("a", "seal2")])
    check_transaction(chain.view, chain.header, waiting, slot=chain.slot + 1, chain=chain.chain)
    chain.add(waiting, chain.by("ann", "Equivocation", body))
    chain.purposes["a"] = "seal2"
    assert refused(chain, chain.by("bob", "Equivocation", body)) is Reason.CONFLICT
    assert account(chain, "a").suspensions == 1
    vote_key = key_of("b", "vote")
    one = sign_vote(vote_key, chain.chain, chain.checkpoint(2), chain.checkpoint(5), account_of("b"))
    surrounding = sign_vote(vote_key, chain.chain, chain.checkpoint(1), chain.checkpoint(6), account_of("b"))
    harmless = sign_vote(vote_key, chain.chain, chain.checkpoint(5), chain.checkpoint(6), account_of("b"))
    votes = equivocation.Body("votes", account_of("b"), vote_key.public, 0, (), (one, surrounding))
    assert refused(chain, chain.by("ann", "Equivocation", replace(votes, votes=(one, harmless)))) is Reason.BAD_BODY
    chain.add(chain.by_key("c", "seal", "Equivocation", votes))
    assert account(chain, "b").suspensions == 1


# --- folders and records ------------------------------------------------------------------------------------------


def test_folder_name_moves_with_the_next_number_alone() -> None:
    """Goal: a stable, mutable name. Method: 1, 1 again, 3, 2; another owner's folder of that name is another."""
    chain = start()
    body = folder_update.Body("trade", sha256(b"one"), sha256(b"log"), 1)
    chain.add(chain.by("ann", "FolderUpdate", body), chain.by("bob", "FolderUpdate", body))
    assert refused(chain, chain.by("ann", "FolderUpdate", replace(body, sequence=3))) is Reason.SEQUENCE
    chain.add(chain.by("ann", "FolderUpdate", replace(body, sequence=2, root=sha256(b"two"))))
    ann = chain.state.load(FOLDER, account_of("ann") + b"trade", FolderState)
    bob = chain.state.load(FOLDER, account_of("bob") + b"trade", FolderState)
    assert ann is not None
    assert bob is not None
    assert (ann.sequence, bob.sequence, ann.root) == (2, 1, sha256(b"two"))


def test_anchor_is_bound_to_owner_network_and_statement() -> None:
    """Goal: one to one, by its owner alone, three times kept. Method: every refusal, then the anchor, then once more."""
    chain = start()
    body = chain.anchor("ann", "r", tags=(("batch", "7"),))
    assert refused(chain, chain.by("bob", "RecordAnchor", body)) is Reason.WRONG_OWNER
    assert refused(chain, chain.by("ann", "RecordAnchor", replace(body, size_class=3))) is Reason.BAD_BODY
    assert refused(chain, chain.by("ann", "RecordAnchor", replace(body, owners=owned("bob")))) is Reason.WRONG_OWNER
    assert refused(chain, chain.by("ann", "RecordAnchor", replace(body, level=99))) is Reason.POLICY
    assert refused(chain, chain.by("ann", "RecordAnchor", replace(body, change="modify"))) is Reason.BAD_BODY
    forged = replace(body, statement=replace(body.statement, signature=bytes(64)))
    assert refused(chain, chain.by("ann", "RecordAnchor", forged)) is Reason.BAD_SIGNATURE
    assert refused(chain, chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", valid_until_s=5))) is Reason.BAD_BODY
    chain.run(1)
    chain.add(chain.by("ann", "RecordAnchor", body))
    state = record(chain, record_id("ann", "r"))
    assert (state.status, state.statement, state.tags) == ("active", body.statement.object_hash, (("batch", "7"),))
    assert (state.sender_ms, state.block_ms, state.upload_ms) == (START_MS + 1000, START_MS + 2000, START_MS)
    assert refused(chain, chain.by("ann", "RecordAnchor", body, until_ms=chain.now_ms + 60_000)) is Reason.CONFLICT


def test_concurrent_changes_are_siblings_and_rights_and_levels_hold() -> None:
    """Goal: rule 1 and the change kinds. Method: two changes of one original; a stranger's; a lower level; redact may; many parents."""
    chain = start()
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "d", level=3, owners=owned("ann", approvers=("ann", "bob")))))
    original = record_id("ann", "d")
    one = chain.anchor("ann", "d1", change="modify", parents=[original], level=3)
    two = chain.anchor("ann", "d2", change="correct", parents=[original], level=3)
    assert refused(chain, chain.by("ann", "RecordAnchor", replace(one, level=2))) is Reason.POLICY
    foreign = chain.anchor("cid", "x", change="annotate", parents=[original], level=3)
    assert refused(chain, chain.by("cid", "RecordAnchor", foreign)) is Reason.NOT_ELIGIBLE
    unknown = chain.anchor("ann", "y", change="modify", parents=[record_id("ann", "nothing")])
    assert refused(chain, chain.by("ann", "RecordAnchor", unknown)) is Reason.NOT_FOUND
    events = chain.add(chain.by("ann", "RecordAnchor", one), chain.by("ann", "RecordAnchor", two)).events
    assert sum(event.name == "derived" for event in events) == 2
    assert record(chain, original).status == "superseded"
    assert record(chain, record_id("ann", "d1")).parents == record(chain, record_id("ann", "d2")).parents == (original,)
    chain.add(chain.by("bob", "RecordAnchor", chain.anchor("bob", "n", change="redact", parents=[original], level=0)))
    parents = [record_id("ann", "d1"), record_id("ann", "d2")]
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "m", change="merge", parents=parents, level=3)))
    assert {record(chain, parent).status for parent in parents} == {"superseded"}
    chain.add(chain.by("ann", "Erase", erase.Body(original.owner, original.hash_id, "keys", "")))
    dead = chain.anchor("ann", "z", change="modify", parents=[original], level=3)
    assert refused(chain, chain.by("ann", "RecordAnchor", dead)) is Reason.CONFLICT


def test_erased_record_is_restored_by_a_newer_statement_alone() -> None:
    """Goal: put, delete, put again. Method: restore with the same number, with a greater one."""
    chain = start()
    key = record_id("ann", "r")
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    chain.add(chain.by("ann", "Erase", erase.Body(key.owner, key.hash_id, "chunks", "")))
    assert refused(chain, chain.by("ann", "Erase", erase.Body(key.owner, key.hash_id, "chunks", "again"))) is Reason.CONFLICT
    assert refused(chain, chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", change="restore"))) is Reason.STALE
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", change="restore", seq=2)))
    assert record(chain, key).status == "active"
    order = erase.Body(key.owner, key.hash_id, "chunks", "court 7")
    assert refused(chain, chain.by_council("Erase", replace(order, reason=""))) is Reason.BAD_BODY
    chain.add(chain.by_council("Erase", order))
    assert record(chain, key).status == "erased"


def test_change_of_a_record_of_several_owners_needs_all_and_fires_by_itself() -> None:
    """Goal: n of n for a change; the threshold fires in the block that reaches it. Method: three owners; stranger, twice, last yes."""
    chain = start()
    owners = owned("ann", "bob", "cid", approvers=("ann", "bob", "dan"), threshold=2)
    anchor = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owners))
    chain.add(anchor)
    key = record_id("ann", "r")
    assert chain.state.get(RECORD, record_key(key.owner, key.hash_id)) is None
    assert refused(chain, chain.by("dan", "Approve", approve.Body(anchor.id, True, ""))) is Reason.NOT_ELIGIBLE
    chain.add(chain.by("bob", "Approve", approve.Body(anchor.id, True, "")))
    assert refused(chain, chain.by("bob", "Approve", approve.Body(anchor.id, False, ""))) is Reason.CONFLICT
    assert "record" in {event.name for event in chain.add(chain.by("cid", "Approve", approve.Body(anchor.id, True, ""))).events}
    assert record(chain, key).status == "active"
    assert record(chain, key).anchor == anchor.id
    at_once = chain.by("ann", "RecordAnchor", chain.anchor("ann", "q", owners=owners), "bob", "cid")
    assert "record" in {event.name for event in chain.add(at_once).events}
    change = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r2", change="modify", parents=[key], owners=owned("ann")))
    assert "pending" in {event.name for event in chain.add(change).events}


def test_refusal_ends_what_is_pending_and_a_deadline_lapses_on_every_node_alike() -> None:
    """Goal: impossible: rejected; deadline: lapsed, without any transaction. Method: one no; one that waits beyond its deadline."""
    chain = start()
    owners = owned("ann", "bob", deadline_ms=5000)
    first = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owners))
    second = chain.by("ann", "RecordAnchor", chain.anchor("ann", "s", owners=owners))
    chain.add(first, second)
    events = chain.add(chain.by("bob", "Approve", approve.Body(first.id, False, "no"))).events
    assert "rejected" in {event.name for event in events}
    assert next_due_ms(chain.state) == START_MS + 6000
    assert "lapsed" not in {event.name for event in chain.add(slot=5).events}
    assert "lapsed" in {event.name for event in chain.add(slot=6).events}
    assert not list(chain.state.iterate(PENDING))
    assert refused(chain, chain.by("bob", "Approve", approve.Body(second.id, True, ""))) is Reason.NOT_FOUND


def test_record_expires_by_block_time_and_is_extended_by_all_owners() -> None:
    """Goal: validity by block time, on every node alike. Method: up to the end, beyond it, extended by two owners, an old end due."""
    chain = start()
    key = record_id("ann", "r")
    owners = owned("ann", "bob")
    anchor = chain.anchor("ann", "r", owners=owners, valid_until_s=START_MS // 1000 + 10)
    chain.add(chain.by("ann", "RecordAnchor", anchor, "bob"))
    chain.add(slot=9)
    assert record(chain, key).status == "active"
    chain.add(slot=10)
    assert record(chain, key).status == "expired"
    body = expiry_extend.Body(key.owner, key.hash_id, UnixMillis(START_MS + 20_000))
    assert refused(chain, chain.by("ann", "ExpiryExtend", replace(body, valid_until_ms=START_MS + 9000))) is Reason.BAD_BODY
    assert refused(chain, chain.by("cid", "ExpiryExtend", body)) is Reason.WRONG_OWNER
    waiting = chain.by("ann", "ExpiryExtend", body)
    chain.add(waiting)
    assert record(chain, key).status == "expired"
    chain.add(chain.by("bob", "Approve", approve.Body(waiting.id, True, "")))
    assert record(chain, key).status == "active"
    further = chain.by("ann", "ExpiryExtend", replace(body, valid_until_ms=UnixMillis(START_MS + 30_000)), "bob")
    chain.add(further)
    chain.add(slot=20)
    assert record(chain, key).status == "active"
    chain.add(slot=30)
    assert record(chain, key).status == "expired"


def test_receipts_of_holders_are_taken_in_batches_and_never_go_back() -> None:
    """Goal: replica facts on the ledger. Method: two receipts in one transaction; an older counter, a forged one, an unknown record."""
    chain = start()
    key = record_id("ann", "r")
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    holders = [key_of(name, "node") for name in ("h1", "h2")]

    def receipt(holder: int, counter: int, **changes: int) -> Signed:
        value = files.receipt("h", ["s"], counter=counter)
        item = replace(value.items[0], owner=key.owner, hash_id=key.hash_id)
        value = replace(
            value,
            network=chain.profile.network,
            holder=node_peer(holders[holder]),
            from_s=UnixSeconds(START_MS // 1000),
            until_s=UnixSeconds(START_MS // 1000 + 1000),
            items=(item,),
        )
        return sign_receipt(replace(value, **changes), holders[holder])

    def batch(*signed: Signed) -> Transaction:
        body = storage_receipt.Body(tuple(sorted(signed, key=lambda one: one.object_hash)))
        return chain.by("bob", "StorageReceipt", body)

    chain.add(batch(receipt(0, 5), receipt(1, 5)))
    assert len(list(chain.state.iterate(HOLDING))) == 2
    assert refused(chain, batch(receipt(0, 4))) is Reason.STALE
    assert refused(chain, batch(replace(receipt(0, 6), signature=bytes(64)))) is Reason.BAD_SIGNATURE
    far = receipt(0, 8, until_s=(1 << 63) - 1, from_s=(1 << 63) - 2)
    assert refused(chain, batch(far)) is Reason.BAD_BODY
    chain.add(batch(receipt(0, 6)))
    chain.add(chain.by("ann", "Erase", erase.Body(key.owner, key.hash_id, "chunks", "")))
    assert refused(chain, batch(receipt(0, 7))) is Reason.DELETED


def test_genesis_stands_in_the_first_block_alone() -> None:
    """Goal: nothing is founded twice. Method: the genesis kind in a later block, by the whole council."""
    chain = start()
    body = genesis_body(profile=profile_of())
    assert refused(chain, chain.by_council("ChainGenesis", body, signers=MEMBERS)) is Reason.CONFLICT


def test_statement_of_another_domain_is_refused() -> None:
    """Goal: a record belongs to one domain. Method: the owner's own statement, made for another domain."""
    chain = start()
    body = chain.anchor("ann", "r")
    statement = replace(files.statement(files.Next(1, b"", ()), "r", OwnerKey(key_of("ann").public)), domain=b"\x99" * 32)
    assert (
        refused(chain, chain.by("ann", "RecordAnchor", replace(body, statement=sign_statement(statement, key_of("ann")))))
        is Reason.WRONG_DOMAIN
    )
