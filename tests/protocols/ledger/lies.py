"""Transactions that differ from a good one in one field, by kind of lie, with the reason for which each must be refused.

A world is one rich state. A recipe draws a good transaction of one kind on it (a *twin*, never the same twice); ``lies_about`` gives its
bad neighbours: those that every transaction has, and those of its kind. Signatures are made anew, but where they are the lie.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from protocols.codec import Record, encode, replace
from protocols.crypto import Label, SigningKey
from protocols.errors import Reason
from protocols.files.holdings import Receipt, node_peer, sign_receipt
from protocols.ledger.carried import final_height
from protocols.ledger.checks import u64
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, KeySignature, Transaction, sign_transaction
from protocols.ledger.profile import DEFAULT_POLICY, Cluster, Council
from protocols.ledger.terms import ORDER, Order, load_tip
from protocols.ledger.transactions import (
    approve,
    cert_issue,
    cert_status,
    cluster_define,
    council_recover,
    council_update,
    equivocation,
    erase,
    expiry_extend,
    folder_update,
    key_rotate,
    miner_certify,
    miner_nominate,
    penalty,
    penalty_lift,
    policy_list_update,
    rule_activation,
    storage_receipt,
)
from protocols.ledger.transactions.records import Parent
from protocols.ledger.transition import next_term
from protocols.ledger.votes import Checkpoint, sign_vote
from protocols.limits import LINKS_MAX, NUMBER_MAX, SIGNATURES_MAX, TX_BYTES_MAX
from protocols.signed import Signed
from protocols.types import AccountId, BlockHash, ChainId, HashId, NetworkId, OwnerKey, UnixMillis, UnixSeconds
from tests.protocols.files import records as files

from .chains import (
    MEMBERS,
    NUMBERS,
    START_MS,
    account_of,
    certify,
    council_of,
    key_of,
    owned,
    record_id,
    serial_of,
)
from .test_terms import Rotating, copy_of, handover_body

LONG = "x" * 257
HOLDER = key_of("h1", "node")


@dataclass(frozen=True)
class Twin:
    """A good transaction and what can be lied about it. keys: who must sign, no fewer. more: who may.

    serial_lie, sender_lie: reasons for which another serial, an unknown sender is refused; None where the rule does not ask.
    oldest_ms: no ts below. bodies: (name of the lie, the body with one field changed, reason).
    """

    kind: str
    body: Record
    sender: AccountId
    serial: bytes
    keys: tuple[SigningKey, ...]
    bodies: tuple[tuple[str, Record | bytes, Reason], ...]
    more: tuple[SigningKey, ...] = ()
    oldest_ms: int = 0
    serial_lie: Reason | None = Reason.BAD_CERTIFICATE
    sender_lie: Reason | None = Reason.NOT_MEMBER

    @property
    def signers(self) -> tuple[SigningKey, ...]:
        return (*self.keys, *self.more)


@dataclass(frozen=True)
class Lie:
    """name: of its kind. reason: the one for which it must be refused."""

    name: str
    transaction: Transaction
    reason: Reason


Recipe = Callable[["LiesWorld", random.Random], Twin]


class LiesWorld:
    """A chain on which every kind but the genesis has something to do: records, pending, folders, penalties, votes, a draw."""

    def __init__(self) -> None:
        world = Rotating((*MEMBERS, "cid"), seats=2)
        chain = self.chain = world.chain
        both = owned("ann", "bob")
        end_s = START_MS // 1000 + 40_000
        self.waiting = chain.by("ann", "RecordAnchor", chain.anchor("ann", "w", owners=owned("ann", "bob", deadline_ms=1 << 39)))
        self.penalties = [
            chain.by_council("Penalty", penalty.Body(account_of("eve"), "warn", name, (), UnixMillis(0))) for name in ("one", "two")
        ]
        self.folder = chain.by("ann", "FolderUpdate", folder_update.Body("moving", bytes(32), bytes(32), 1))
        first = [
            chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", level=2)),
            chain.by("ann", "RecordAnchor", chain.anchor("ann", "s", owners=both, valid_until_s=end_s), "bob"),
            chain.by("ann", "RecordAnchor", chain.anchor("ann", "t")),
            chain.by("bob", "RecordAnchor", chain.anchor("bob", "q")),
            self.waiting,
            self.folder,
            *self.penalties,
        ]
        world.step(*first)
        second = [
            chain.by("ann", "Erase", erase.Body(*_names("ann", "t"), "keys", "")),
            chain.by_council("PenaltyLift", penalty_lift.Body(self.penalties[1].id, "heard")),
            chain.by("bob", "StorageReceipt", storage_receipt.Body((self.receipt(counter=5),))),
            chain.by("ann", "MinerNominate", miner_nominate.Body(account_of("a"), True)),
        ]
        world.step(*second)
        self.known = (*first, *second)
        source: int | None = 0
        while not (self._has_draw() and final_height(chain.state)) or next_term(chain.view, chain.slot + 1).opens:
            chain.add(votes=chain.votes(source=source))
            world.states.append(copy_of(chain.view))
            source = None
        drawn = chain.state.load(ORDER, u64(load_tip(chain.state).term + 1), Order)
        assert drawn is not None
        self.drawn = chain.names[drawn.clusters[0][1][0]]
        self.handover = handover_body(chain, world.states, self.drawn)
        self.slot = chain.slot + 1
        self.time_ms = chain.time_ms(self.slot)

    def _has_draw(self) -> bool:
        return self.chain.state.load(ORDER, u64(load_tip(self.chain.state).term + 1), Order) is not None

    def receipt(self, name: str = "r", **changes: object) -> Signed:
        value = files.receipt("h", ["s"], counter=int(str(changes.pop("counter", 9))))
        key = record_id("ann", name)
        item = replace(value.items[0], owner=key.owner, hash_id=key.hash_id)
        value = replace(
            value,
            network=self.chain.profile.network,
            holder=node_peer(HOLDER),
            from_s=UnixSeconds(START_MS // 1000),
            until_s=UnixSeconds(START_MS // 1000 + 1000),
            items=(item,),
        )
        signed: Receipt = replace(value, **changes)
        return sign_receipt(signed, HOLDER)

    # the twin as a transaction

    def content(self, twin: Twin, rng: random.Random) -> Content:
        """Times anywhere that the rules allow: up to a week old, up to two minutes ahead."""
        profile = self.chain.profile
        ts = rng.randrange(max(twin.oldest_ms, self.time_ms - profile.tx_life_ms), self.time_ms + profile.tx_ahead_ms + 1)
        until = rng.randrange(max(ts, self.time_ms), ts + profile.tx_life_ms + 1)
        links = sorted(one.id for one in rng.sample(self.known, rng.choice((0, 0, 1, 3))))
        return Content(
            version=ENVELOPE_VERSION,
            chain=self.chain.chain,
            kind=NUMBERS[twin.kind],
            sender=twin.sender,
            serial=twin.serial,
            ts_ms=UnixMillis(ts),
            until_ms=UnixMillis(until),
            links=tuple(links),
            body=encode(twin.body),
        )


def _names(name: str, record: str) -> tuple[OwnerKey, HashId]:
    found = record_id(name, record)
    return found.owner, found.hash_id


def fresh_key(rng: random.Random) -> SigningKey:
    return SigningKey(rng.randbytes(32))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One bit of it changed."""
    bit = rng.randrange(len(data) * 8)
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


# --- twins --------------------------------------------------------------------------------------------------------


def _account(kind: str, name: str, body: Record, *bodies: tuple[str, Record, Reason], **more: object) -> Twin:
    keys = more.pop("keys", (key_of(name),))
    return Twin(kind, body, account_of(name), serial_of(name), keys, bodies, **more)  # type: ignore[arg-type]


def _council(kind: str, rng: random.Random, body: Record, *bodies: tuple[str, Record, Reason], **more: object) -> Twin:
    names = rng.sample(MEMBERS, 3)
    keys = (*(key_of(name, "council") for name in names), *more.pop("also", ()))  # type: ignore[misc]
    return Twin(kind, body, account_of(rng.choice(MEMBERS)), NO_SERIAL, keys, bodies, **more)  # type: ignore[arg-type]


def issued(world: LiesWorld, rng: random.Random) -> Twin:
    body = cert_issue.Body(
        serial=rng.randbytes(16),
        subject=AccountId(rng.randbytes(32)),
        key=OwnerKey(fresh_key(rng).public),
        enc_key=rng.randbytes(32),
        type="person",
        role=rng.choice(("", "manager")),
        level=rng.randrange(8),
        country="CN",
        institution="",
        attributes=(("branch", "x"), ("rank", str(rng.randrange(9)))),
        from_ms=UnixMillis(START_MS),
        to_ms=UnixMillis(START_MS + rng.randrange(1, 1 << 40)),
    )
    lies = (
        ("a serial that exists", replace(body, serial=serial_of("bob")), Reason.CONFLICT),
        ("ends before it begins", replace(body, to_ms=body.from_ms), Reason.BAD_BODY),
        ("somebody's key", replace(body, key=OwnerKey(key_of("bob").public)), Reason.CONFLICT),
        ("another's account", replace(body, subject=account_of("bob")), Reason.CONFLICT),
        ("a short id", replace(body, subject=AccountId(body.subject[:31])), Reason.BAD_BODY),
        ("a long text", replace(body, institution=LONG), Reason.BAD_BODY),
        ("attributes out of order", replace(body, attributes=body.attributes[::-1]), Reason.BAD_BODY),
        ("a number below zero", replace(body, level=-1), Reason.BAD_BODY),
        ("a long key", replace(body, enc_key=rng.randbytes(33)), Reason.BAD_BODY),
    )
    if rng.random() < 0.5:
        return _council("CertIssue", rng, body, *lies)
    return _account("CertIssue", "manager", body, *lies)


def status(world: LiesWorld, rng: random.Random) -> Twin:
    body = cert_status.Body(serial_of(rng.choice(("bob", "dan"))), rng.choice(("suspend", "revoke")), rng.randbytes(8).hex())
    lies = (
        ("an unknown name", replace(body, serial=rng.randbytes(16)), Reason.NOT_FOUND),
        ("a short id", replace(body, serial=body.serial[:15]), Reason.BAD_BODY),
        ("what it is already", replace(body, act="resume"), Reason.CONFLICT),
        ("a word that is none", replace(body, act="hang"), Reason.BAD_BODY),
        ("a long text", replace(body, reason=LONG), Reason.BAD_BODY),
    )
    return _council("CertStatus", rng, body, *lies) if rng.random() < 0.5 else _account("CertStatus", "manager", body, *lies)


def sign_key(world: LiesWorld, rng: random.Random) -> Twin:
    new = fresh_key(rng)
    name = rng.choice(("ann", "bob"))
    body = key_rotate.Body("sign", account_of(name), key_of(name).public, new.public, rng.randbytes(32))
    lies = (
        ("another's key", replace(body, old=key_of("dan").public), Reason.CONFLICT),
        ("somebody's key", replace(body, new=key_of("dan").public), Reason.CONFLICT),
        ("the same key", replace(body, new=body.old), Reason.CONFLICT),
        ("a short key", replace(body, enc_key=body.enc_key[:31]), Reason.BAD_BODY),
        ("another's account", replace(body, subject=account_of("dan")), Reason.CONFLICT),
        ("an unknown name", replace(body, subject=AccountId(rng.randbytes(32))), Reason.NOT_FOUND),
        ("another use of the key", replace(body, what="vote"), Reason.BAD_BODY),
    )
    if rng.random() < 0.5:
        return _council("KeyRotate", rng, body, *lies, also=(new,))
    return _account("KeyRotate", name, body, *lies, keys=(key_of(name), new))


def vote_key(world: LiesWorld, rng: random.Random) -> Twin:
    new = fresh_key(rng)
    name = rng.choice(MEMBERS)
    body = key_rotate.Body("vote", account_of(name), key_of(name, "vote").public, new.public, b"")
    lies = (
        ("another's key", replace(body, old=key_of("eve").public), Reason.CONFLICT),
        ("somebody's key", replace(body, new=key_of("c" if name != "c" else "d", "vote").public), Reason.CONFLICT),
        ("no seat", replace(body, subject=account_of("eve")), Reason.NOT_FOUND),
        ("a key too many", replace(body, enc_key=rng.randbytes(32)), Reason.BAD_BODY),
    )
    return Twin("KeyRotate", body, account_of(name), NO_SERIAL, (key_of(name, "council"), new), lies)


def seal_key(world: LiesWorld, rng: random.Random) -> Twin:
    new = fresh_key(rng)
    name = rng.choice(MEMBERS)
    body = key_rotate.Body("seal", account_of(name), key_of(name, "seal").public, new.public, b"")
    lies = (
        ("another's key", replace(body, old=key_of("eve").public), Reason.CONFLICT),
        ("no miner", replace(body, subject=account_of("eve")), Reason.NOT_FOUND),
        ("a short key", replace(body, new=body.new[:31]), Reason.BAD_BODY),
    )
    return _account("KeyRotate", name, body, *lies, keys=(key_of(name), new), sender_lie=Reason.WRONG_OWNER)


def policy(world: LiesWorld, rng: random.Random) -> Twin:
    new = replace(DEFAULT_POLICY, version=2, denied=("XX", "YY"), levels_max=rng.randrange(1 << 40))
    body = policy_list_update.Body(world.chain.height + 2 + rng.randrange(1 << 40), new)
    lies = (
        ("a number skipped", replace(body, policy=replace(new, version=3)), Reason.SEQUENCE),
        ("a number again", replace(body, policy=replace(new, version=1)), Reason.SEQUENCE),
        ("a height that is past", replace(body, effective_height=world.chain.height + 1), Reason.BAD_BODY),
        ("a number below zero", replace(body, effective_height=-1), Reason.BAD_BODY),
        ("a threshold of nobody", replace(body, policy=replace(new, issuers_threshold=0)), Reason.BAD_BODY),
        ("rows out of order", replace(body, policy=replace(new, denied=("YY", "XX"))), Reason.BAD_BODY),
        ("admitted and denied", replace(body, policy=replace(new, admitted=("XX",))), Reason.BAD_BODY),
        ("more than all", replace(body, policy=replace(new, acknowledge_percent=101)), Reason.BAD_BODY),
    )
    return _council("PolicyListUpdate", rng, body, *lies)


def council(world: LiesWorld, rng: random.Random) -> Twin:
    names = rng.sample([f"n{number}" for number in range(9)] + list(MEMBERS), rng.randrange(2, 8))
    new = council_of(names, rng.randrange(1, len(names) + 1), sequence=1)
    doubled = replace(new.members[0], vote_key=new.members[0].key)

    def with_(**changes: object) -> council_update.Body:
        return council_update.Body(replace(new, **changes))

    lies = (
        ("a number skipped", with_(sequence=2), Reason.SEQUENCE),
        ("a number again", with_(sequence=0), Reason.SEQUENCE),
        ("a threshold of nobody", with_(threshold=0), Reason.BAD_BODY),
        ("more than all", with_(threshold=len(names) + 1), Reason.BAD_BODY),
        ("rows out of order", with_(members=new.members[::-1]), Reason.BAD_BODY),
        ("one key for two things", with_(members=(doubled, *new.members[1:])), Reason.BAD_BODY),
        ("recovery by nobody", with_(recovery_threshold=0), Reason.BAD_BODY),
    )
    return _council("CouncilUpdate", rng, council_update.Body(new), *lies)


def recovery(world: LiesWorld, rng: random.Random) -> Twin:
    chain = world.chain
    height = rng.randrange(final_height(chain.state), chain.height + 1)
    old = council_of(MEMBERS, 3, sequence=1)
    members = tuple(replace(one, vote_key=fresh_key(rng).public) for one in old.members)
    new: Council = replace(old, members=members)
    body = council_recover.Body(height, BlockHash(chain.blocks[height].hash), new)
    greedy = (replace(members[0], key=fresh_key(rng).public), *members[1:])
    lies = (
        ("another block", replace(body, hash=BlockHash(flipped(body.hash, rng))), Reason.CONFLICT),
        ("another height", replace(body, height=height - 1), Reason.CONFLICT),
        ("a height to come", replace(body, height=chain.height + 1 + rng.randrange(99)), Reason.CONFLICT),
        ("a number below zero", replace(body, height=-1), Reason.CONFLICT),
        ("a number skipped", replace(body, council=replace(new, sequence=2)), Reason.SEQUENCE),
        ("another threshold", replace(body, council=replace(new, threshold=1)), Reason.CONFLICT),
        ("a key that recovery may not touch", replace(body, council=replace(new, members=greedy)), Reason.CONFLICT),
    )
    keys = tuple(key_of(name, "recovery") for name in rng.sample(MEMBERS, 3))
    return Twin("CouncilRecover", body, account_of("a"), NO_SERIAL, keys, lies, sender_lie=None)


def rules(world: LiesWorld, rng: random.Random) -> Twin:
    least = world.chain.height + 1 + 2 * world.chain.profile.term_blocks
    body = rule_activation.Body(rng.randrange(2, 1 << 32), least + rng.randrange(1 << 30))
    lies = (
        ("a height too near", replace(body, height=least - 1 - rng.randrange(8)), Reason.BAD_BODY),
        ("a number again", replace(body, version=1), Reason.SEQUENCE),
        ("a number too large", replace(body, version=1 << 32), Reason.SEQUENCE),
    )
    return _council("RuleActivation", rng, body, *lies)


def punished(world: LiesWorld, rng: random.Random) -> Twin:
    level: penalty.Level = rng.choice(("warn", "suspend", "revoke"))
    until = UnixMillis(rng.choice((0, world.time_ms + 1 + rng.randrange(1 << 40))))
    body = penalty.Body(account_of(rng.choice(("dan", "eve"))), level, rng.randbytes(8).hex(), (rng.randbytes(32),), until)
    lies = (
        ("an unknown name", replace(body, target=AccountId(rng.randbytes(32))), Reason.NOT_FOUND),
        ("over already", replace(body, until_ms=UnixMillis(world.time_ms - rng.randrange(9999))), Reason.BAD_BODY),
        ("a word that is none", replace(body, level="hang"), Reason.BAD_BODY),
        ("a short id", replace(body, evidence=(rng.randbytes(31),)), Reason.BAD_BODY),
        ("a long text", replace(body, reason=LONG), Reason.BAD_BODY),
    )
    return _council("Penalty", rng, body, *lies)


def lifted(world: LiesWorld, rng: random.Random) -> Twin:
    body = penalty_lift.Body(world.penalties[0].id, rng.randbytes(8).hex())
    lies = (
        ("an unknown name", replace(body, penalty=rng.randbytes(32)), Reason.NOT_FOUND),
        ("over already", replace(body, penalty=world.penalties[1].id), Reason.CONFLICT),
        ("a short id", replace(body, penalty=body.penalty[:31]), Reason.BAD_BODY),
    )
    return _council("PenaltyLift", rng, body, *lies)


def clustered(world: LiesWorld, rng: random.Random) -> Twin:
    cluster = Cluster("c" + rng.randbytes(4).hex(), (("country", "DE"),), rng.randrange(0, 3))
    body = cluster_define.Body(cluster)

    def with_(**changes: object) -> cluster_define.Body:
        return cluster_define.Body(replace(cluster, **changes))

    lies = (
        ("nobody's cluster is left", with_(name="all"), Reason.BAD_BODY),
        ("less than no seats", with_(seats=-1), Reason.BAD_BODY),
        ("more than all", with_(seats=1000), Reason.BAD_BODY),
        ("no name", with_(name=""), Reason.BAD_BODY),
        ("a long text", with_(predicate=(("country", LONG),)), Reason.BAD_BODY),
    )
    return _council("ClusterDefine", rng, body, *lies)


def nominated(world: LiesWorld, rng: random.Random) -> Twin:
    body = miner_nominate.Body(account_of(rng.choice(MEMBERS)), True)
    lies = (
        ("no miner", replace(body, candidate=account_of("bob")), Reason.NOT_FOUND),
        ("what was not said", replace(body, for_it=False), Reason.CONFLICT),
        ("a short id", replace(body, candidate=AccountId(body.candidate[:31])), Reason.BAD_BODY),
    )
    return _account("MinerNominate", "bob", body, *lies)


def certified(world: LiesWorld, rng: random.Random) -> Twin:
    name = rng.choice(("ann", "bob", "dan"))
    body: miner_certify.Body = replace(certify(name), key=fresh_key(rng).public, tip=rng.randbytes(32), tip_count=rng.randrange(1 << 20))
    lies = (
        ("an unknown name", replace(body, candidate=AccountId(rng.randbytes(32))), Reason.NOT_MEMBER),
        ("an unknown cluster", replace(body, cluster="nowhere"), Reason.NOT_FOUND),
        ("what it is already", replace(body, candidate=account_of("a")), Reason.CONFLICT),
        ("one key for two things", replace(body, key=key_of(name).public), Reason.CONFLICT),
        ("somebody's key", replace(body, key=key_of("a", "seal").public), Reason.CONFLICT),
        ("a short id", replace(body, tip=body.tip[:31]), Reason.BAD_BODY),
        ("a number below zero", replace(body, tip_count=-1), Reason.BAD_BODY),
        ("another act", replace(body, act="withdraw"), Reason.BAD_BODY),
    )
    return _council("MinerCertify", rng, body, *lies)


def handed(world: LiesWorld, rng: random.Random) -> Twin:
    body = world.handover
    leaf = body.leaves[0]
    lies = (
        ("another term", replace(body, term=body.term + 1 + rng.randrange(9)), Reason.NOT_ELIGIBLE),
        ("another height", replace(body, height=body.height - 1 - rng.randrange(3)), Reason.CONFLICT),
        ("another block", replace(body, header=flipped(body.header, rng)), Reason.CONFLICT),
        ("a changed proof", replace(body, peaks=flipped(body.peaks, rng)), Reason.INTEGRITY),
        ("answers missing", replace(body, keys=body.keys[:-1]), Reason.INTEGRITY),
        ("answers in another order", replace(body, keys=body.keys[::-1]), Reason.INTEGRITY),
        ("a changed leaf", replace(body, leaves=(replace(leaf, header=flipped(leaf.header, rng)), *body.leaves[1:])), Reason.INTEGRITY),
        ("another root", replace(body, info=replace(body.info, state_root=rng.randbytes(32))), Reason.INTEGRITY),
    )
    key = key_of(world.drawn, "seal")
    return Twin("TermHandover", body, account_of(world.drawn), NO_SERIAL, (key,), lies, sender_lie=Reason.NOT_FOUND)


def folder(world: LiesWorld, rng: random.Random) -> Twin:
    name = rng.choice(("ann", "bob", "cid", "dan"))
    if name == "ann" and rng.random() < 0.5:
        body = folder_update.Body("moving", rng.randbytes(32), rng.randbytes(32), 2)
    else:
        body = folder_update.Body(rng.randbytes(rng.randrange(1, 100)).hex(), rng.randbytes(32), rng.randbytes(32), 1)
    lies = (
        ("a number skipped", replace(body, sequence=body.sequence + 1 + rng.randrange(9)), Reason.SEQUENCE),
        ("a number again", replace(body, sequence=body.sequence - 1), Reason.SEQUENCE),
        ("no name", replace(body, name=""), Reason.BAD_BODY),
        ("a long text", replace(body, name=LONG), Reason.BAD_BODY),
        ("a short id", replace(body, root=body.root[:31]), Reason.BAD_BODY),
    )
    return _account("FolderUpdate", name, body, *lies)


def anchored(world: LiesWorld, rng: random.Random) -> Twin:
    chain = world.chain
    name = rng.choice(("ann", "bob", "dan"))
    record = rng.randbytes(8).hex()
    tags = (("batch", str(rng.randrange(999))), ("kind", "x"))
    more = rng.random() < 0.3
    owners = owned(name, "cid") if more else owned(name)
    body = chain.anchor(name, record, owners=owners, tags=tags, level=rng.randrange(8))
    statement = body.statement
    taken = chain.anchor("ann", "r").statement if name == "ann" else chain.anchor("bob", "q").statement
    lies: list[tuple[str, Record, Reason]] = [
        ("a forged object", replace(body, statement=replace(statement, signature=flipped(statement.signature, rng))), Reason.BAD_SIGNATURE),
        ("another's object", replace(body, statement=chain.anchor("cid", record).statement), Reason.WRONG_OWNER),
        ("an object under another's name", replace(body, statement=replace(statement, signer=key_of("cid").public)), Reason.BAD_SIGNATURE),
        ("a size too small", replace(body, size_class=3), Reason.BAD_BODY),
        ("somebody else's", replace(body, owners=owned("cid")), Reason.WRONG_OWNER),
        ("a level too high", replace(body, level=8 + rng.randrange(99)), Reason.POLICY),
        ("a number below zero", replace(body, level=-1), Reason.BAD_BODY),
        ("a change of nothing", replace(body, change="modify"), Reason.BAD_BODY),
        ("a word that is none", replace(body, change="forge"), Reason.BAD_BODY),
        ("nothing to restore", replace(body, change="restore"), Reason.NOT_FOUND),
        ("a parent too many", replace(body, parents=(record_id("ann", "r"),)), Reason.BAD_BODY),
        ("rows out of order", replace(body, tags=tags[::-1]), Reason.BAD_BODY),
        ("a short id", replace(body, log_head=body.log_head[:31]), Reason.BAD_BODY),
        ("a threshold of nobody", replace(body, owners=replace(owners, access_threshold=0)), Reason.BAD_BODY),
        ("more than all", replace(body, owners=replace(owners, access_threshold=17)), Reason.BAD_BODY),
        ("no deadline", replace(body, owners=replace(owners, deadline_ms=0)), Reason.BAD_BODY),
        ("over already", chain.anchor(name, record, owners=owners, tags=tags, valid_until_s=5), Reason.BAD_BODY),
    ]
    if name != "dan":
        lies.append(("a name that is taken", replace(body, statement=taken), Reason.CONFLICT))
    signing = (key_of("cid"),) if more and rng.random() < 0.5 else ()
    return _account("RecordAnchor", name, body, *lies, more=signing, oldest_ms=START_MS)


def derived(world: LiesWorld, rng: random.Random) -> Twin:
    chain = world.chain
    body = chain.anchor("ann", rng.randbytes(8).hex(), change="modify", parents=[record_id("ann", "r")], level=rng.randrange(2, 8))
    unknown = Parent(OwnerKey(rng.randbytes(32)), record_id("ann", "r").hash_id)
    lies = (
        ("an unknown parent", replace(body, parents=(unknown,)), Reason.NOT_FOUND),
        ("an erased parent", replace(body, parents=(record_id("ann", "t"),)), Reason.CONFLICT),
        ("a parent that it may not read", replace(body, parents=(record_id("bob", "q"),)), Reason.NOT_ELIGIBLE),
        ("a level below the parent's", replace(body, level=rng.randrange(2)), Reason.POLICY),
        ("no parent", replace(body, parents=()), Reason.BAD_BODY),
        ("a merge of one", replace(body, change="merge"), Reason.BAD_BODY),
    )
    return _account("RecordAnchor", "ann", body, *lies, oldest_ms=START_MS)


def approved(world: LiesWorld, rng: random.Random) -> Twin:
    body = approve.Body(world.waiting.id, rng.random() < 0.5, rng.randbytes(8).hex())
    lies = (
        ("an unknown name", replace(body, target=rng.randbytes(32)), Reason.NOT_FOUND),
        ("a short id", replace(body, target=body.target[:31]), Reason.BAD_BODY),
        ("a long text", replace(body, note=LONG), Reason.BAD_BODY),
    )
    return _account("Approve", "bob", body, *lies)


def held(world: LiesWorld, rng: random.Random) -> Twin:
    good = world.receipt(counter=6 + rng.randrange(1 << 30))
    erased, unknown = world.receipt("t", counter=9), world.receipt("nothing", counter=9)

    def of(*receipts: Signed) -> storage_receipt.Body:
        return storage_receipt.Body(receipts)

    lies = (
        ("a forged object", of(replace(good, signature=flipped(good.signature, rng))), Reason.BAD_SIGNATURE),
        ("a number again", of(world.receipt(counter=rng.randrange(1, 6))), Reason.STALE),
        (
            "over already",
            of(world.receipt(from_s=UnixSeconds(START_MS // 1000 - 9), until_s=UnixSeconds(START_MS // 1000 - 1))),
            Reason.EXPIRED,
        ),
        ("an unknown record", of(unknown), Reason.NOT_FOUND),
        ("an erased record", of(erased), Reason.DELETED),
        ("the same twice", of(good, good), Reason.BAD_BODY),
        ("nothing", of(), Reason.BAD_BODY),
        ("another network", of(world.receipt(network=NetworkId(rng.randbytes(32)))), Reason.BAD_SIGNATURE),
        ("another's word", of(replace(good, signer=fresh_key(rng).public)), Reason.BAD_SIGNATURE),
    )
    return _account("StorageReceipt", rng.choice(("ann", "bob", "dan")), of(good), *lies)


def extended(world: LiesWorld, rng: random.Random) -> Twin:
    until = UnixMillis(rng.choice((0, START_MS + 40_000_001 + rng.randrange(1 << 40))))
    body = expiry_extend.Body(*_names("ann", "s"), until)
    lies = (
        ("earlier than it is", replace(body, valid_until_ms=UnixMillis(START_MS + 40_000_000 - rng.randrange(1_000_000))), Reason.CONFLICT),
        ("over already", replace(body, valid_until_ms=UnixMillis(world.time_ms - rng.randrange(999))), Reason.BAD_BODY),
        ("an unknown name", replace(body, owner=OwnerKey(rng.randbytes(32))), Reason.NOT_FOUND),
        ("an erased record", replace(body, hash_id=record_id("ann", "t").hash_id), Reason.CONFLICT),
        ("a record without end", replace(body, hash_id=record_id("ann", "r").hash_id), Reason.CONFLICT),
        ("a short id", replace(body, owner=OwnerKey(body.owner[:31])), Reason.BAD_BODY),
        ("a number below zero", replace(body, valid_until_ms=UnixMillis(-5)), Reason.BAD_BODY),
    )
    return _account("ExpiryExtend", "ann", body, *lies, more=(key_of("bob"),) if rng.random() < 0.5 else ())


def erased(world: LiesWorld, rng: random.Random) -> Twin:
    order = rng.random() < 0.4
    reason = rng.randbytes(8).hex()
    body = erase.Body(*_names("ann", "r"), rng.choice(("keys", "chunks")), reason)
    lies: list[tuple[str, Record, Reason]] = [
        ("an unknown name", replace(body, owner=OwnerKey(rng.randbytes(32))), Reason.NOT_FOUND),
        ("over already", replace(body, hash_id=record_id("ann", "t").hash_id), Reason.CONFLICT),
        ("a word that is none", replace(body, scope="all"), Reason.BAD_BODY),
        ("a long text", replace(body, reason=LONG), Reason.BAD_BODY),
        ("a short id", replace(body, owner=OwnerKey(body.owner[:31])), Reason.BAD_BODY),
    ]
    if order:
        return _council("Erase", rng, body, *lies, ("an order without a reason", replace(body, reason=""), Reason.BAD_BODY))
    foreign = replace(body, owner=record_id("bob", "q").owner, hash_id=record_id("bob", "q").hash_id)
    return _account("Erase", "ann", body, *lies, ("somebody else's", foreign, Reason.WRONG_OWNER))


def two_seals(world: LiesWorld, rng: random.Random) -> Twin:
    chain, key, slot = world.chain, key_of("a", "seal"), rng.randrange(1, world.slot + 1)

    def sealed(name: bytes, **changes: object) -> equivocation.Sealed:
        number = int(str(changes.get("slot", slot)))
        on = ChainId(changes["chain"]) if "chain" in changes else chain.chain  # type: ignore[arg-type]
        return equivocation.Sealed(BlockHash(name), key.sign(Label.SEAL, NetworkId(on), u64(number) + name))

    low, high = sorted((rng.randbytes(32), rng.randbytes(32)))
    seals = (sealed(low), sealed(high))
    body = equivocation.Body("seals", account_of("a"), key.public, slot, seals, ())
    lies = (
        ("the same twice", replace(body, seals=(seals[0], seals[0])), Reason.BAD_BODY),
        ("rows out of order", replace(body, seals=seals[::-1]), Reason.BAD_BODY),
        ("one seal", replace(body, seals=seals[:1]), Reason.BAD_BODY),
        ("another slot", replace(body, slot=slot + 1 if slot < world.slot else slot - 1), Reason.BAD_SIGNATURE),
        ("a slot to come", replace(body, slot=world.slot + 1 + rng.randrange(1 << 40)), Reason.BAD_BODY),
        ("two slots", replace(body, seals=(seals[0], sealed(high, slot=slot + 1))), Reason.BAD_SIGNATURE),
        ("another chain's seal", replace(body, seals=(seals[0], sealed(high, chain=rng.randbytes(32)))), Reason.BAD_SIGNATURE),
        ("somebody else's", replace(body, culprit=account_of("b")), Reason.NOT_FOUND),
        ("another's key", replace(body, key=key_of("b", "seal").public), Reason.NOT_FOUND),
        ("a number below zero", replace(body, slot=-1), Reason.BAD_BODY),
    )
    if rng.random() < 0.5:
        return Twin("Equivocation", body, account_of("c"), NO_SERIAL, (key_of("c", rng.choice(("seal", "vote"))),), lies)
    return _account("Equivocation", "dan", body, *lies)


def two_votes(world: LiesWorld, rng: random.Random) -> Twin:
    chain, key = world.chain, key_of("b", "vote")

    def point(height: int) -> Checkpoint:
        return Checkpoint(height, BlockHash(rng.randbytes(32)))

    height = 1 + rng.randrange(4)
    one = sign_vote(key, chain.chain, point(height), point(height + 3), account_of("b"))
    if rng.random() < 0.5:
        other = sign_vote(key, chain.chain, one.source, point(height + 3), account_of("b"))
    else:
        other = sign_vote(key, chain.chain, point(height - 1), point(height + 4), account_of("b"))
    harmless = sign_vote(key, chain.chain, one.target, point(height + 4), account_of("b"))
    elsewhere = sign_vote(key, ChainId(rng.randbytes(32)), other.source, other.target, account_of("b"))
    body = equivocation.Body("votes", account_of("b"), key.public, 0, (), (one, other))
    lies = (
        ("the same twice", replace(body, votes=(one, one)), Reason.BAD_BODY),
        ("two votes that agree", replace(body, votes=(one, harmless)), Reason.BAD_BODY),
        ("one vote", replace(body, votes=(one,)), Reason.BAD_BODY),
        ("a forged object", replace(body, votes=(one, replace(other, signature=flipped(other.signature, rng)))), Reason.BAD_SIGNATURE),
        ("another chain's vote", replace(body, votes=(one, elsewhere)), Reason.WRONG_CHAIN),
        ("somebody else's", replace(body, culprit=account_of("c")), Reason.BAD_BODY),
        ("another's key", replace(body, key=key_of("c", "vote").public), Reason.NOT_FOUND),
        ("a slot of votes", replace(body, slot=1), Reason.BAD_BODY),
        ("a vote that goes back", replace(body, votes=(one, replace(other, source=replace(other.source, height=99)))), Reason.BAD_VOTE),
    )
    return _account("Equivocation", rng.choice(("ann", "dan")), body, *lies)


RECIPES: tuple[Recipe, ...] = (
    issued,
    status,
    sign_key,
    vote_key,
    seal_key,
    policy,
    council,
    recovery,
    rules,
    punished,
    lifted,
    clustered,
    nominated,
    certified,
    handed,
    folder,
    anchored,
    derived,
    approved,
    held,
    extended,
    erased,
    two_seals,
    two_votes,
)


# --- lies ---------------------------------------------------------------------------------------------------------


def lies_about(world: LiesWorld, twin: Twin, content: Content, rng: random.Random) -> Iterator[Lie]:
    """Everything that differs from the twin in one field."""
    for name, changes, reason in _contents(world, twin, content, rng):
        yield Lie(name, sign_transaction(replace(content, **changes), twin.signers), reason)
    for name, body, reason in twin.bodies:
        yield Lie(name, sign_transaction(replace(content, body=encode(body)), twin.signers), reason)
    yield from _signatures(world, twin, content, rng)


def _contents(world: LiesWorld, twin: Twin, content: Content, rng: random.Random) -> Iterator[tuple[str, dict[str, object], Reason]]:
    now, profile = world.time_ms, world.chain.profile
    ahead, life = now + profile.tx_ahead_ms, profile.tx_life_ms
    yield "of another chain", {"chain": ChainId(rng.randbytes(32))}, Reason.WRONG_CHAIN
    yield "of no chain", {"chain": ChainId(bytes(32))}, Reason.WRONG_CHAIN
    yield "ts ahead", {"ts_ms": UnixMillis(ahead + 1 + rng.randrange(1 << 30))}, Reason.BAD_TIME
    yield "until over", {"until_ms": UnixMillis(now - 1 - rng.randrange(1 << 30))}, Reason.EXPIRED
    yield "until too far", {"until_ms": UnixMillis(content.ts_ms + life + 1 + rng.randrange(1 << 30))}, Reason.BAD_TIME
    yield "ts too old", {"ts_ms": UnixMillis(content.until_ms - life - 1 - rng.randrange(1 << 30))}, Reason.BAD_TIME
    yield "a time below zero", {"ts_ms": UnixMillis(-1 - rng.randrange(1 << 30))}, Reason.BAD_BODY
    yield "a time beyond 63 bits", {"until_ms": UnixMillis(NUMBER_MAX + 1 + rng.randrange(1 << 30))}, Reason.BAD_BODY
    yield "an unknown kind", {"kind": 22 + rng.randrange(1 << 40)}, Reason.UNKNOWN_KIND
    yield "another version", {"version": rng.choice((0, 2, 3, 255))}, Reason.UNKNOWN_FORMAT
    yield "an unknown link", {"links": (rng.randbytes(32),)}, Reason.UNKNOWN_LINK
    yield "a short link", {"links": (rng.randbytes(31),)}, Reason.BAD_BODY
    yield "links out of order", {"links": tuple(sorted((one.id for one in world.known[:3]), reverse=True))}, Reason.BAD_BODY
    yield "a link twice", {"links": (world.folder.id, world.folder.id)}, Reason.BAD_BODY
    yield "too many links", {"links": tuple(sorted(rng.randbytes(32) for _ in range(LINKS_MAX + 1)))}, Reason.BAD_BODY
    yield "a short serial", {"serial": rng.randbytes(15)}, Reason.BAD_BODY
    yield "a short sender", {"sender": AccountId(content.sender[:31])}, Reason.BAD_BODY
    if twin.serial_lie is not None:
        yield "another serial", {"serial": rng.randbytes(16)}, twin.serial_lie
    if twin.sender_lie is not None:
        yield "an unknown sender", {"sender": AccountId(rng.randbytes(32))}, twin.sender_lie
    yield "a body with more behind it", {"body": content.body + rng.randbytes(1)}, Reason.BAD_BODY
    yield "a body cut short", {"body": content.body[: rng.randrange(len(content.body))]}, Reason.BAD_BODY
    yield "a body in another encoding", {"body": other_encoding(content.body)}, Reason.BAD_BODY
    yield "a body of another kind", {"body": encode((rng.randbytes(8),) * 40)}, Reason.BAD_BODY
    if rng.random() < 0.02:  # slow ones
        yield "too large", {"body": content.body + bytes(TX_BYTES_MAX)}, Reason.TOO_LONG


def other_encoding(body: bytes) -> bytes:
    """The same array with a longer head: another form of the same content."""
    assert 0x90 <= body[0] <= 0x9F, "fields of a body fit a short head"
    return b"\xdc\x00" + bytes([body[0] & 0x0F]) + body[1:]


def _signatures(world: LiesWorld, twin: Twin, content: Content, rng: random.Random) -> Iterator[Lie]:
    good = sign_transaction(content, twin.signers)

    def lie(name: str, signatures: Sequence[KeySignature], reason: Reason) -> Lie:
        return Lie(name, replace(good, signatures=tuple(signatures)), reason)

    at = rng.randrange(len(good.signatures))
    one = good.signatures[at]

    def at_it(changed: KeySignature) -> list[KeySignature]:
        return [*good.signatures[:at], changed, *good.signatures[at + 1 :]]

    stranger = fresh_key(rng)
    dropped = rng.choice(twin.keys)
    rest = [key for key in twin.signers if key is not dropped]
    key = next(key for key in twin.signers if key.public == one.key)
    other = sign_transaction(replace(content, until_ms=UnixMillis(content.until_ms ^ 1)), twin.signers)
    foreign = replace(one, signature=key.sign(Label.TRANSACTION, NetworkId(ChainId(rng.randbytes(32))), good.id))
    as_vote = replace(one, signature=key.sign(Label.VOTE, NetworkId(content.chain), good.id))
    yield lie("nobody signed", (), Reason.NOT_SIGNED)
    yield lie("one bit of a signature", at_it(replace(one, signature=flipped(one.signature, rng))), Reason.BAD_SIGNATURE)
    yield lie("signed for another chain", at_it(foreign), Reason.BAD_SIGNATURE)
    yield lie("signed as something else", at_it(as_vote), Reason.BAD_SIGNATURE)
    yield lie("signatures of another content", other.signatures, Reason.BAD_SIGNATURE)
    yield lie("a short signature", at_it(replace(one, signature=one.signature[:63])), Reason.BAD_BODY)
    yield lie("a signature twice", sorted((*good.signatures, one), key=lambda found: found.key), Reason.BAD_BODY)
    if rest:
        yield Lie("one signer missing", sign_transaction(content, rest), Reason.NOT_SIGNED)
    yield Lie("a stranger instead", sign_transaction(content, [*rest, stranger]), Reason.NOT_SIGNED)
    yield Lie("a stranger besides", sign_transaction(content, [*twin.signers, stranger]), Reason.UNEXPECTED_SIGNER)
    many = [KeySignature(bytes([number]) * 32, bytes(64)) for number in range(SIGNATURES_MAX + 1)]
    yield lie("too many signatures", many, Reason.NOT_SIGNED)
    if len(good.signatures) > 1:
        yield lie("signatures out of order", good.signatures[::-1], Reason.BAD_BODY)
    yield Lie("said already", rng.choice(world.known), Reason.SEEN)
