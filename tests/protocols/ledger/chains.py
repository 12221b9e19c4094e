"""A chain in memory for tests: people and keys from names, blocks by whoever leads, states kept for every block."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from protocols.codec import Record, encode, replace
from protocols.crypto import SigningKey, sha256
from protocols.files.hashid import c_value, hash_id
from protocols.files.objects import sign_statement
from protocols.files.precedence import Next
from protocols.ledger.block import ZERO_REVEAL, Block, Header, decode_header, sign_seal
from protocols.ledger.draw import reveal_tip
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, Transaction, sign_transaction
from protocols.ledger.genesis import Body as GenesisBody
from protocols.ledger.genesis import apply_genesis, genesis_block, sign_genesis
from protocols.ledger.profile import DEFAULT_POLICY, Cluster, Council, CouncilMember, Policy, Profile, default_profile
from protocols.ledger.schedule import RULES_1
from protocols.ledger.seals.port import Found
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import MemoryState, Overlay, StateChange
from protocols.ledger.state import undo as undo_change
from protocols.ledger.terms import MINER, Miner, load_tip, slot_leader
from protocols.ledger.transactions import cert_issue, miner_certify, record_anchor
from protocols.ledger.transactions.records import Change, Owners, Parent
from protocols.ledger.transition import Applied, Draft, apply_block, carriable_votes, draft_block, finish_block, next_term, sealed_header
from protocols.ledger.votes import Checkpoint, Vote, sign_vote
from protocols.types import AccountId, BlockHash, ChainId, Digest, OwnerKey, UnixMillis, UnixSeconds
from tests.protocols.files import records as files

START_MS = UnixMillis(1_800_000_000_000)
TO_MS = UnixMillis(START_MS + 365 * 86_400_000)
TIP_COUNT = 1000
NUMBERS = {kind.name: number for number, kind in RULES_1.kinds.items()}


def account_of(name: str) -> AccountId:
    return AccountId(sha256(b"account", name.encode()))


def key_of(name: str, purpose: str = "sign") -> SigningKey:
    return SigningKey(sha256(b"key", purpose.encode(), name.encode()))


def serial_of(name: str, generation: int = 0) -> bytes:
    return sha256(b"serial", name.encode(), bytes([generation]))[:16]


def certificate(name: str, *, role: str = "", country: str = "CN", **changes: object) -> cert_issue.Body:
    body = cert_issue.Body(
        serial=serial_of(name),
        subject=account_of(name),
        key=key_of(name).public,
        enc_key=sha256(b"enc", name.encode()),
        type="institution",
        role=role,
        level=3,
        country=country,
        institution="",
        attributes=(),
        from_ms=UnixMillis(START_MS - 1000),
        to_ms=TO_MS,
    )
    return replace(body, **changes)


def certify(name: str, cluster: str = "all") -> miner_certify.Body:
    return miner_certify.Body("certify", account_of(name), cluster, key_of(name, "seal").public, tip_of(name), TIP_COUNT)


_TIPS: dict[str, list[bytes]] = {}


def reveals_of(name: str) -> list[bytes]:
    """The miner's chain, the tip first."""
    if name not in _TIPS:
        line = [bytes(reveal_tip(sha256(b"reveal", name.encode()), 0))]
        for _ in range(TIP_COUNT):
            line.append(sha256(line[-1]))
        _TIPS[name] = line[::-1]
    return _TIPS[name]


def tip_of(name: str) -> bytes:
    return reveals_of(name)[0]


def council_of(names: Sequence[str], threshold: int, sequence: int = 0) -> Council:
    members = [CouncilMember(account_of(name), key_of(name, "council").public, key_of(name, "vote").public) for name in names]
    recovery = sorted(key_of(name, "recovery").public for name in names)
    return Council(sequence, tuple(sorted(members, key=lambda one: one.id)), threshold, tuple(recovery), threshold)


MEMBERS = ("a", "b", "c", "d")
PEOPLE = ("ann", "bob", "cid", "dan", "eve")


@dataclass
class Chain:
    """One chain as one node has it. blocks[h], headers[h], states before each block by undo; view is the state of the tip."""

    profile: Profile
    members: tuple[str, ...]
    miners: tuple[str, ...]
    view: MemoryState = field(default_factory=MemoryState)
    blocks: list[Block] = field(default_factory=list)
    changes: list[StateChange] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)
    purposes: dict[str, str] = field(default_factory=dict)

    @property
    def chain(self) -> ChainId:
        return self.blocks[0].info.chain

    @property
    def height(self) -> int:
        return len(self.blocks) - 1

    @property
    def header(self) -> Header:
        return decode_header(self.blocks[-1].header)

    @property
    def state(self) -> Overlay:
        return Overlay(self.view)

    @property
    def slot(self) -> int:
        return load_tip(self.state).slot

    def time_ms(self, slot: int) -> UnixMillis:
        return UnixMillis(START_MS + slot * self.profile.slot_ms)

    @property
    def now_ms(self) -> UnixMillis:
        return self.time_ms(self.slot)

    def sealer(self, name: str) -> SigningKey:
        """The key that a miner seals with now."""
        return key_of(name, self.purposes.get(name, "seal"))

    # transactions

    def content(self, kind: str, body: Record, sender: AccountId, own: bytes, **changes: object) -> Content:
        content = Content(
            version=ENVELOPE_VERSION,
            chain=self.chain,
            kind=NUMBERS[kind],
            sender=sender,
            serial=own,
            ts_ms=self.now_ms,
            until_ms=UnixMillis(self.now_ms + 3_600_000),
            links=(),
            body=encode(body),
        )
        return replace(content, **changes)

    def by(self, name: str, kind: str, body: Record, *co: str, **changes: object) -> Transaction:
        """A transaction of an account, signed by it and by others."""
        content = self.content(kind, body, account_of(name), serial_of(name), **changes)
        return sign_transaction(content, [key_of(name), *(key_of(one) for one in co)])

    def by_council(self, kind: str, body: Record, *, signers: Sequence[str] | None = None, **changes: object) -> Transaction:
        """An act of the council."""
        names = self.members[:3] if signers is None else signers
        content = self.content(kind, body, account_of(self.members[0]), NO_SERIAL, **changes)
        return sign_transaction(content, [key_of(name, "council") for name in names])

    def by_key(self, name: str, purpose: str, kind: str, body: Record, **changes: object) -> Transaction:
        """A transaction of a node's key."""
        return sign_transaction(self.content(kind, body, account_of(name), NO_SERIAL, **changes), [key_of(name, purpose)])

    # blocks

    def draft(
        self, transactions: Iterable[Transaction] = (), *, slot: int | None = None, votes: Iterable[Vote] = (), miner: str | None = None
    ) -> tuple[Draft, str]:
        slot = self.slot + 1 if slot is None else slot
        name = self.names[slot_leader(self.state, next_term(self.view, slot), slot)] if miner is None else miner
        draft = draft_block(
            self.view,
            self.header,
            chain=self.chain,
            t_stamp_ms=UnixMillis(self.time_ms(slot) + 50),
            miner=account_of(name),
            reveal=self.reveal(name),
            transactions=tuple(transactions),
            votes=carriable_votes(self.view, self.header, votes, chain=self.chain),
        )
        return draft, name

    def reveal(self, name: str) -> bytes:
        miner = self.state.load(MINER, account_of(name), Miner)
        assert miner is not None
        return reveals_of(name)[TIP_COUNT - miner.left + 1] if miner.left else ZERO_REVEAL

    def finish(self, draft: Draft, name: str) -> Block:
        target = int.from_bytes(draft.info.target, "big")
        found = SEALS[self.profile.seal].search(draft.header, target, first=0, count=1 << 22)
        assert isinstance(found, Found)
        block_hash = sealed_header(draft, found.nonce).hash
        return finish_block(draft, found.nonce, sign_seal(self.sealer(name), self.chain, draft.info.slot, block_hash))

    def make(
        self, transactions: Iterable[Transaction] = (), *, slot: int | None = None, votes: Iterable[Vote] = (), miner: str | None = None
    ) -> Block:
        wanted = list(transactions)
        draft, name = self.draft(wanted, slot=slot, votes=votes, miner=miner)
        if draft.refused:
            raise draft.refused[0][1]
        return self.finish(draft, name)

    def judge(self, block: Block) -> Applied:
        return apply_block(self.view, self.header, block, chain=self.chain)

    def take(self, block: Block) -> Applied:
        applied = self.judge(block)
        self.view.commit(applied.change)
        self.blocks.append(block)
        self.changes.append(applied.change)
        self.applied.append(applied)
        return applied

    def add(self, *transactions: Transaction, slot: int | None = None, votes: Iterable[Vote] = (), miner: str | None = None) -> Applied:
        return self.take(self.make(transactions, slot=slot, votes=votes, miner=miner))

    def run(self, count: int, *, voting: bool = False, dead: Sequence[str] = ()) -> None:
        """So many blocks, each in the first slot that a live miner leads; voting: everybody votes for each block."""
        votes: list[Vote] = []
        for _ in range(count):
            slot = self.slot + 1
            while self.names[slot_leader(self.state, next_term(self.view, slot), slot)] in dead:
                slot += 1
            self.add(slot=slot, votes=votes)
            votes = self.votes() if voting else []

    def pop(self) -> None:
        """Takes the tip back."""
        self.view.commit(undo_change(self.view, self.changes.pop().undo))
        self.blocks.pop()
        self.applied.pop()

    def votes(self, members: Sequence[str] | None = None, *, source: int | None = None) -> list[Vote]:
        """Votes of the members from the tip's parent (or another height) to the tip."""
        height = self.height
        at = max(0, height - 1) if source is None else source
        return [
            sign_vote(key_of(name, "vote"), self.chain, self.checkpoint(at), self.checkpoint(height), account_of(name))
            for name in (self.members if members is None else members)
        ]

    def checkpoint(self, height: int) -> Checkpoint:
        return Checkpoint(height, BlockHash(self.blocks[height].hash))

    # records

    def anchor(
        self,
        name: str,
        record: str,
        *,
        change: Change = "create",
        parents: Sequence[Parent] = (),
        owners: Owners | None = None,
        seq: int = 1,
        valid_until_s: int = 0,
        key: SigningKey | None = None,
        **changes: object,
    ) -> record_anchor.Body:
        """The body of an anchor of a small record of that name."""
        key = key_of(name) if key is None else key
        after = Next(seq, b"" if seq == 1 else bytes(32), ())
        statement = files.statement(after, record, OwnerKey(key.public))
        c = c_of(record)
        statement = replace(
            statement,
            c=c,
            hash_id=hash_id(OwnerKey(key.public), c),
            network=self.profile.network,
            domain=self.profile.domain,
            time_s=UnixSeconds(START_MS // 1000),
            valid_until_s=UnixSeconds(valid_until_s),
        )
        body = record_anchor.Body(
            statement=sign_statement(statement, key),
            change=change,
            parents=tuple(sorted(parents, key=lambda one: one.owner + one.hash_id)),
            owners=owned(name) if owners is None else owners,
            valid_from_ms=UnixMillis(0),
            level=1,
            schema="",
            size_class=40,
            tags=(),
            log_head=bytes(32),
        )
        return replace(body, **changes)


def owned(*owners: str, approvers: Sequence[str] | None = None, threshold: int = 1, deadline_ms: int = 10_000) -> Owners:
    names = tuple(sorted(account_of(name) for name in owners))
    readers = names if approvers is None else tuple(sorted(account_of(name) for name in approvers))
    return Owners(names, readers, threshold, deadline_ms)


def c_of(record: str) -> Digest:
    return c_value(bytes(32), sha256(record.encode()))


def record_id(name: str, record: str, key: SigningKey | None = None) -> Parent:
    """(owner, HashID) of a record made by ``Chain.anchor``."""
    owner = key_of(name).public if key is None else key.public
    return Parent(OwnerKey(owner), hash_id(OwnerKey(owner), c_of(record)))


def genesis_body(
    *,
    profile: Profile,
    members: Sequence[str] = MEMBERS,
    threshold: int = 3,
    miners: Sequence[str] = MEMBERS,
    people: Sequence[str] = PEOPLE,
    policy: Policy = DEFAULT_POLICY,
    seats: int = 3,
) -> GenesisBody:
    certificates = [certificate(name) for name in sorted({*miners, *people})] + [certificate("manager", role="manager")]
    return GenesisBody(
        profile=profile,
        council=council_of(members, threshold),
        policy=policy,
        clusters=(Cluster("all", (), seats),),
        certificates=tuple(certificates),
        miners=tuple(sorted((certify(name) for name in miners), key=lambda one: one.candidate)),
        time_ms=START_MS,
        version=1,
        salt=bytes(32),
    )


def profile_of(seal: str = "authority", **changes: object) -> Profile:
    profile = default_profile(files.NETWORK, files.DOMAIN, "test", seal=seal)
    return replace(profile, **{"term_blocks": 8, **changes})


def start(
    body: GenesisBody | None = None, *, members: Sequence[str] = MEMBERS, miners: Sequence[str] = MEMBERS, **changes: object
) -> Chain:
    """A chain with its genesis applied. changes: of the profile."""
    seal = str(changes.pop("seal", "authority"))
    if body is None:
        body = genesis_body(profile=profile_of(seal, **changes), members=members, miners=miners)
    transaction = sign_genesis(body, sender=account_of(members[0]), keys=[key_of(name, "council") for name in members])
    block = genesis_block(transaction)
    chain = Chain(body.profile, tuple(members), tuple(miners))
    applied = apply_genesis(block)
    chain.view.commit(applied.change)
    chain.blocks.append(block)
    chain.changes.append(applied.change)
    chain.applied.append(applied)
    chain.names = {account_of(name): name for name in {*miners, *PEOPLE, "new"}}
    return chain
