"""What a program can ask of the chain: how it stands, what is in it, and what this node's member says on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from protocols.errors import DecodeError, LadingError, Reason, Refused, StoreDamaged, UsageError
from protocols.join.messages import ChainAnchor
from protocols.ledger.block import Block, decode_header
from protocols.ledger.committee import dead_survived
from protocols.ledger.context import Account, genesis_time_ms, load_profile
from protocols.ledger.envelope import Transaction
from protocols.ledger.offers import MinerOffer, decode_act, decode_signed, encode_act, open_offer, sign_offer
from protocols.ledger.pool import Origin
from protocols.ledger.profile import Council, CouncilMember
from protocols.ledger.sealing import has_quorum
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Overlay
from protocols.ledger.terms import MINER, Miner, load_tip, seats_of, seats_trouble, slot_leader
from protocols.ledger.transactions import council_update, miner_certify, miner_nominate
from protocols.ledger.transactions.chain_genesis import WORK
from protocols.ledger.transactions.council_update import PLANNED, PlannedCouncil
from protocols.ledger.transition import next_term, slot_of
from protocols.ledger.work import WorkState
from protocols.limits import SUBMITTED_MAX
from protocols.types import AccountId, BlockHash, MemberId, PeerId
from storage import chain as store
from storage.engine import Snapshot

from .actors.chain import ChainActor
from .actors.following import Followed
from .actors.light import LightChain
from .chain_acts import Acts, load_account, load_council
from .chain_founding import MEMBERS
from .chain_home import anchor_text, is_called, pick_chain
from .chain_keys import REVEALS_PER_CHAIN, act_key, first_tip
from .http.contract import Answer
from .ledger_rows import iso_ms, kind_name, transaction_data
from .ledger_trail import TRAIL_MAX, TrailWalk
from .light_api import LightApi

if TYPE_CHECKING:
    from .wiring import Node

Args = Mapping[str, object]
HISTORY_DEFAULT = 20
HISTORY_MAX = 1000
PREFIX_CHARS_MIN = 6
LOAD_PATIENCE_S = 10.0
_PAGE = 256
SCORE_SHOWN_MIN = 0.01
REFUSED_LATELY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the state at the head says, for people."""

    name: str
    slot_ms: int
    state_root: bytes
    miners: tuple[AccountId, ...]
    turn: AccountId | None
    term: int
    slot: int
    target: bytes
    council: Council
    planned: PlannedCouncil | None
    seats: int


class LedgerApi:
    """The operations ``ledger.*``, ``miner.*``, ``council.*`` of one node: about its domain's chain, or the one that ``chain`` names."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._chains = (ChainApi(node, node.main, node.light), *(ChainApi(node, one) for one in node.beside))
        self.operations: Mapping[str, Callable[..., Awaitable[Answer]]] = {
            **{name: partial(self._route, name) for name in self._chains[0].operations},
            "ledger.status": self._status,
        }

    async def _route(self, name: str, args: Args, **more: object) -> Answer:
        return await self._of(args).operations[name](args, **more)

    def _of(self, args: Args) -> ChainApi:
        """Raises LadingError(NOT_FOUND), UsageError for a beginning of two ids."""
        wanted = str(args.get("chain") or "")
        if not wanted:
            return self._chains[0]
        return pick_chain(wanted, [one for one in self._chains if one.is_called(wanted)])

    async def _status(self, args: Args, **_: object) -> Answer:
        wanted = (self._of(args),) if args.get("chain") else self._chains
        answers = [await one.operations["ledger.status"](args) for one in wanted]
        rows: list[object] = []
        for one in answers:
            found = one.data["chains"]
            assert isinstance(found, list)
            rows += found
        return Answer({"chains": rows}, [text for one in answers for text in one.warnings])

    async def diff(self, peer: PeerId, args: Args) -> Answer:
        """As ``ChainApi.diff``."""
        return await self._of(args).diff(peer)

    def summary(self) -> dict[str, object]:
        """Height, tip and final height of each chain, by its name; by its id while nothing of it is here, or where another has the name."""
        found: dict[str, object] = {}
        for one in self._chains:
            for name, row in one.summary().items():
                found[name if name not in found else str(one.id)] = row
        return found

    def finality(self) -> tuple[int, int, int, int] | None:
        """Of the domain's chain."""
        return self._chains[0].finality()

    def refused_lately(self) -> int:
        """As ``ChainApi.refused_lately``, on all chains."""
        return sum(one.refused_lately() for one in self._chains)

    def alerts(self) -> list[str]:
        """What of the chains needs somebody; a further one is named."""
        further = [f"chain {one.name}: {text}" for one in self._chains[1:] for text in one.alerts()]
        return [*self._chains[0].alerts(), *further]

    async def warnings(self) -> list[str]:
        """As of ``ChainApi``; of a further chain with its name."""
        further = [f"chain {one.name}: {text}" for one in self._chains[1:] for text in await one.warnings()]
        return [*await self._chains[0].warnings(), *further]


class ChainApi:
    """The operations of one chain."""

    def __init__(self, node: Node, followed: Followed | None, light: LightChain | None = None) -> None:
        """light: the chain, where the node follows it by proofs."""
        self._node = node
        self._any = light if followed is None else followed.chain
        self._followed = followed
        self._acts_seen: dict[bytes, Transaction] = {}
        self._light = None if light is None else LightApi(node, light, self._name)
        self.operations: Mapping[str, Callable[..., Awaitable[Answer]]] = {
            "ledger.status": self._status,
            "ledger.show": self._show,
            "ledger.history": self._history,
            "ledger.submit": self._submit,
            "miner.status": self._miner_status,
            "miner.offer": self._miner_offer,
            "miner.nominate": self._miner_nominate,
            "miner.certify": self._miner_certify,
            "miner.withdraw": self._miner_withdraw,
            "council.propose": self._council_propose,
            "council.approve": self._council_approve,
            "council.inbox": self._council_inbox,
            "council.rotate": self._council_rotate,
            "miner.rotate": self._miner_rotate,
        }

    @property
    def _actor(self) -> ChainActor | None:
        return None if self._followed is None else self._followed.chain

    @property
    def id(self) -> str:
        """The chain's id as text; empty without one."""
        return "" if self._any is None else self._any.chain.hex()

    @property
    def name(self) -> str:
        """What it is called; its id while nothing of it is here; empty without one."""
        if self._any is None or self._any.facts is None:
            return self.id
        return self._any.facts.profile.name

    def is_called(self, text: str) -> bool:
        """By its name, or by its id or the beginning of one."""
        return bool(self.id) and is_called(text, chain=self.id, name=self.name)

    # --- in short, for `status` ---------------------------------------------------------------------------------------

    def summary(self) -> dict[str, object]:
        """Height, tip and final height of each chain, by its name; by its id while nothing of it is here."""
        chain = self._any
        if chain is None:
            return {}
        head, final = chain.checkpoints()
        name = chain.facts.profile.name if chain.facts is not None else chain.chain.hex()
        return {name: {"height": head.height, "tip": head.hash.hex(), "finalized": final.height, "chain": chain.chain.hex()}}

    def finality(self) -> tuple[int, int, int, int] | None:
        """Members of the committee heard and needed, height, final height; None while there is no chain."""
        chain = self._actor
        if chain is None or chain.tree is None:
            return None
        committee = chain.tree.head().committee
        head, final = chain.checkpoints()
        return len(chain.heard() & committee.members), committee.quorum, head.height, final.height

    def alerts(self) -> list[str]:
        """What of the chain needs somebody."""
        return [] if self._any is None else list(self._any.alerts.values())

    async def warnings(self) -> list[str]:
        """What of the chain is not as the policy list, or good sense, would have it, and works."""
        if self._followed is None or self._followed.chain.facts is None:
            return []
        said = self._followed.archives.warnings()
        with suppress(StoreDamaged):  # which is said elsewhere
            seats = await self._followed.chain.plan(_seats)
            said += [] if seats is None else filter(None, [seats_trouble(seats)])
        return said

    # --- what stands --------------------------------------------------------------------------------------------------

    async def _status(self, args: Args, **_: object) -> Answer:
        if self._light is not None:
            return await self._light.status()
        chain = self._actor
        if chain is None:
            return Answer({"chains": []}, ["this home follows no chain"])
        await _wait_loaded(chain)
        head, final = chain.checkpoints()
        row: dict[str, object] = {
            "chain": chain.chain.hex(),
            "role": "archive" if chain.heights_kept is None else "pruned",
            "height": head.height,
            "tip": head.hash.hex(),
            "headers": head.height - chain.lowest_height + 1 if chain.facts is not None else 0,
            "disk_bytes": self._node.world.ledger.usage().bytes_used,
            "refused": self._refused(chain),
            "peers_at_fault": self._peers_at_fault(chain),
        }
        if chain.facts is None:
            return Answer({"chains": [row | {"finalized_height": 0}]}, ["the first block is not here yet; it comes from the others"])
        standing = await chain.plan(lambda snapshot: _standing(snapshot, chain.now_ms()))
        committee = chain.tree.head().committee if chain.tree is not None else None
        assert committee is not None
        heard = chain.heard()
        row |= {
            "name": standing.name,
            "read": chain.facts.profile.read,
            "maintain": chain.facts.profile.maintain,
            "state_root": standing.state_root.hex(),
            "finalized_height": final.height,
            "finalized": final.hash.hex(),
            "anchor": anchor_text(ChainAnchor(chain.chain, final.height, final.hash)),
            "miners": [one.hex() for one in standing.miners],
            "seats": standing.seats,
            "turn": standing.turn.hex() if standing.turn is not None else "",
            "slot": standing.slot,
            "slot_ms": standing.slot_ms,
            "term": standing.term,
            "mempool": {"inbound": len(chain.pool.list(Origin.INBOUND)), "outbound": len(chain.pool.list(Origin.OUTBOUND))},
            "target": standing.target.hex(),
            "votes": len(chain.votes),
            "committee": {
                "members": [seat.member.hex() for seat in committee.seats],
                "quorum": committee.quorum,
                "heard": len(heard & committee.members),
                "finality_goes_on": has_quorum(heard, committee),
                "liars_survived": committee.faults,
                "dead_survived": dead_survived(len(committee.seats), committee.faults),
            },
            "names": {one.hex(): self._name(one) for one in (*standing.miners, *committee.members)},
            "seals": chain.keys.account in standing.miners and chain.keys.seal is not None,
            "alerts": self.alerts(),
        }
        if (archives := self._here().archives.found) is not None:
            row["archives"] = {"connected": archives.count, "wanted": archives.wanted}
        return Answer({"chains": [row]}, await self.warnings())

    def _refused(self, chain: ChainActor) -> list[dict[str, object]]:
        """What was refused so far, the newest first."""
        rows = sorted(chain.refused.items(), key=lambda one: (-one[1].last_ms, one[0][0], one[0][1].stable_name))
        return [
            {
                "item": item,
                "reason": reason.stable_name,
                "count": row.count,
                "first": iso_ms(row.first_ms),
                "last": iso_ms(row.last_ms),
                "last_id": row.name.hex(),
                "last_height": row.height,
                "last_from": self._node.knowledge.peer_text(row.peer) if row.peer else "",
            }
            for (item, reason), row in rows
        ]

    def _peers_at_fault(self, chain: ChainActor) -> list[dict[str, object]]:
        """Those whose faults still count a little, the worst first."""
        text_of = self._node.knowledge.peer_text
        return [{"peer": text_of(peer), "score": round(score, 2)} for peer, score in chain.scores() if score >= SCORE_SHOWN_MIN]

    def refused_lately(self) -> int:
        """Blocks, transactions and votes of which the last of their kind was refused within a day."""
        chain = self._actor
        if chain is None:
            return 0
        since_ms = chain.now_ms() - REFUSED_LATELY_MS
        return sum(row.count for row in chain.refused.values() if row.last_ms >= since_ms)

    async def _show(self, args: Args, **_: object) -> Answer:
        what = str(args.get("what") or "").lower()
        if self._light is not None:
            return await self._light.show(what)
        chain = await self._chain()
        if not what:
            return Answer(await self._block_data(chain.checkpoints()[0].hash))
        if what.isdecimal() and len(what) < 16:
            name = await self._at_height(int(what))
            return Answer(await self._block_data(name))
        if len(what) < PREFIX_CHARS_MIN or not all(sign in "0123456789abcdef" for sign in what):
            raise UsageError(f"{what!r} is no height, block or transaction", hint=f"at least {PREFIX_CHARS_MIN} characters of its id")
        for waiting in (one for origin in Origin for one in chain.pool.list(origin)):
            if waiting.id.hex().startswith(what):
                return Answer(transaction_data(waiting.transaction) | {"state": "pooled", "origin": waiting.origin.value})
        found = await self._find(what)
        if found is None:
            if lowest := await chain.plan(store.lowest_height):
                text = f"no block or transaction {what} from height {lowest} on, and what lies below is not kept here"
                raise LadingError(Reason.PRUNED, text, hint="an archive keeps all: ask there")
            raise LadingError(Reason.NOT_FOUND, f"no block or transaction {what}", hint="lading ledger history")
        block, transaction = found
        if transaction is None:
            return Answer(await self._block_data(block.hash))
        return Answer(
            transaction_data(transaction)
            | {"state": self._state_of(block.info.height), "height": block.info.height, "block": block.hash.hex()}
        )

    async def _history(self, args: Args, **_: object) -> Answer:
        limit = min(_whole(args.get("limit"), HISTORY_DEFAULT), HISTORY_MAX)
        if self._light is not None:
            if args.get("what"):
                raise self._light.not_kept("the history of an id")
            return self._light.history(limit, _whole(args.get("before"), 0))
        chain = await self._chain()
        if what := str(args.get("what") or ""):
            walk = TrailWalk(chain, self._id_named(what), limit=_whole(args.get("limit"), TRAIL_MAX), after=_whole(args.get("after"), -1))
            return await walk.answer(self._name, with_proofs=bool(args.get("proofs")))
        top = min(_whole(args.get("before"), chain.checkpoints()[0].height + 1) - 1, chain.checkpoints()[0].height)
        rows = [self._line(block) for block in await self._blocks(top, limit)]
        return Answer({"chain": chain.chain.hex(), "blocks": rows})

    async def _submit(self, args: Args, **_: object) -> Answer:
        """Transactions that somebody signed away from this node, judged as those made here are."""
        texts = args["transactions"]
        assert isinstance(texts, Sequence)
        if not 0 < len(texts) <= SUBMITTED_MAX:
            raise UsageError(f"{len(texts)} transactions in one call, 1 to {SUBMITTED_MAX} wanted", hint="hand them over in several calls")
        made: list[Transaction | LadingError] = []
        for text in texts:
            try:
                made.append(decode_signed(str(text)))
            except DecodeError as error:
                made.append(error)
        whole = tuple(one for one in made if isinstance(one, Transaction))
        chain = await self._chain()
        errors = iter(await chain.submit_all(whole) if whole else ())
        rows = [_submitted(one, next(errors) if isinstance(one, Transaction) else one) for one in made]
        taken = sum(row["state"] == "pooled" for row in rows)
        return Answer({"pooled": taken, "refused": len(rows) - taken, "transactions": rows})

    async def diff(self, peer: PeerId) -> Answer:
        """The first key at which this node's state and a peer's differ after the block at which this node stopped. Raises Refused."""
        chain = await self._chain()
        if chain.stopped is None:
            return Answer({"stopped": False, "differs": None}, ["this node has not stopped: its state is that of every block it follows"])
        found = await self._here().talks.difference(peer)
        row: dict[str, object] = {"stopped": True, "height": chain.stopped.block.info.height, "block": chain.stopped.block.hash.hex()}
        if found is None:
            return Answer(row | {"differs": None})
        values = {name: value.hex() if value is not None else None for name, value in (("ours", found.ours), ("theirs", found.theirs))}
        return Answer(row | {"differs": {"space": found.space, "key": found.key.hex(), **values}})

    # --- miners -------------------------------------------------------------------------------------------------------

    async def _miner_status(self, args: Args, **_: object) -> Answer:
        chain = await self._chain()
        now = chain.now_ms()

        def read(snapshot: Snapshot) -> tuple[list[Miner], tuple[AccountId, ...], int]:
            state = Overlay(store.ChainState(snapshot))
            found = [state.load(MINER, key, Miner) for key, _ in list(state.iterate(MINER))]
            return [one for one in found if one is not None], _standing(snapshot, now).miners, seats_of(state)

        miners, seated, seats = await chain.plan(read)
        own = chain.keys
        mine = next((one for one in miners if one.account == own.account), None)
        is_ours = mine is not None and own.seal is not None and mine.key == own.seal.public
        rows = [
            {
                "account": one.account.hex(),
                "name": self._name(one.account),
                "cluster": one.cluster,
                "certified": one.is_certified,
                "seated": one.account in seated,
                "recommended_by": len(one.nominated),
                "sealed": one.sealed,
                "missed": one.missed,
                "reveals_left": one.left,
            }
            for one in miners
        ]
        here = {
            "account": own.account.hex(),
            "has_keys": own.seal is not None,
            "certified": is_ours,
            "seals": is_ours and own.account in seated,
            "sealed_here": self._here().sealer.sealed,
        }
        said = [] if own.seal is not None else ["this node has no keys to seal with: it follows"]
        return Answer({"here": here, "seats": seats, "miners": rows}, [*said, *filter(None, [seats_trouble(seats)])])

    async def _miner_offer(self, args: Args, **_: object) -> Answer:
        # Also before anything of the chain is here: a private one is given to nobody who has not offered to maintain it.
        node, chain = self._node, await self._kept()
        member, keys = node.own.member, chain.keys
        if member is None or keys.seal is None or keys.vote is None:
            raise Refused(Reason.REFUSED, "this node has no keys to seal and vote with", hint="run it on the first node of the member")
        text = sign_offer(
            member.signing,
            chain.chain,
            keys.account,
            seal=keys.seal.public,
            tip=first_tip(keys.reveal),
            tip_count=REVEALS_PER_CHAIN,
            vote=keys.vote.public,
            act=act_key(member.signing.seed, node.own.domain_id).public,
        )
        return Answer({"offer": text, "account": keys.account.hex()})

    async def _miner_nominate(self, args: Args, **_: object) -> Answer:
        candidate = self._account_named(str(args["member"]))
        body = miner_nominate.Body(candidate, not args.get("withdraw"))
        return Answer({"transaction": (await (await self._acts()).by_member(miner_nominate.KIND, body)).hex(), "state": "pooled"})

    async def _miner_certify(self, args: Args, **_: object) -> Answer:
        offer = await self._offer(str(args["offer"]))
        body = miner_certify.Body("certify", offer.account, MEMBERS, offer.seal, offer.tip, offer.tip_count)
        return self._act_answer(await (await self._acts()).by_council(miner_certify.KIND, body))

    async def _miner_withdraw(self, args: Args, **_: object) -> Answer:
        candidate = self._account_named(str(args["member"]))
        miner = await (await self._chain()).plan(lambda snapshot: Overlay(store.ChainState(snapshot)).load(MINER, candidate, Miner))
        if miner is None:
            raise LadingError(Reason.NOT_FOUND, "this member was never certified as a miner", hint="lading miner status")
        body = miner_certify.Body("withdraw", candidate, miner.cluster, b"", b"", 0)
        return self._act_answer(await (await self._acts()).by_council(miner_certify.KIND, body))

    # --- the council --------------------------------------------------------------------------------------------------

    async def _council_propose(self, args: Args, **_: object) -> Answer:
        """Another council: with a member more, without one, or with another threshold."""
        acts = await self._acts()
        council = await acts.council()
        members = {member.id: member for member in council.members}
        if args.get("seat"):
            offer = await self._offer(str(args["seat"]))
            members[offer.account] = CouncilMember(offer.account, offer.act, offer.vote)
        if args.get("unseat"):
            account = self._account_named(str(args["unseat"]))
            if members.pop(account, None) is None:
                raise LadingError(Reason.NOT_FOUND, "this member has no seat on the council", hint="lading council inbox")
        threshold = _whole(args.get("threshold"), len(members) // 2 + 1)
        changed = Council(
            council.sequence + 1,
            tuple(members[account] for account in sorted(members)),
            threshold,
            council.recovery,
            council.recovery_threshold,
        )
        if (changed.members, changed.threshold) == (council.members, council.threshold):
            raise UsageError("that is the council as it is", hint="--seat OFFER, --unseat MEMBER or --threshold M")
        return self._act_answer(await acts.by_council(council_update.KIND, council_update.Body(changed)))

    async def _council_approve(self, args: Args, **_: object) -> Answer:
        transaction = decode_act(str(args["act"]))
        if args.get("dry_run"):
            return Answer(transaction_data(transaction) | {"dry_run": True})
        return self._act_answer(await (await self._acts()).approve(transaction))

    async def _council_inbox(self, args: Args, **_: object) -> Answer:
        chain = await self._chain()
        council, planned = await chain.plan(lambda snapshot: (load_council(snapshot), _planned(snapshot)))
        rows = [{"id": member.id.hex(), "name": self._name(member.id), "votes_with": member.vote_key.hex()} for member in council.members]
        waiting = [
            transaction_data(one) | {"missing": max(0, council.threshold - len(one.keys & council.keys)), "act": encode_act(one)}
            for one in self._acts_seen.values()
        ]
        coming: dict[str, object] = {}
        if planned is not None:
            coming = {
                "members": [member.id.hex() for member in planned.council.members],
                "threshold": planned.council.threshold,
                "carried_at": planned.height,
                "final_in_term": planned.final_in,
            }
        return Answer({"threshold": council.threshold, "members": rows, "planned": coming, "acts": waiting})

    def _act_answer(self, made: tuple[Transaction, int]) -> Answer:
        transaction, missing = made
        data: dict[str, object] = {
            "transaction": transaction.id.hex(),
            "missing": missing,
            "state": "pooled" if not missing else "proposed",
        }
        if not missing:
            self._acts_seen.pop(transaction.id, None)
            return Answer(data)
        self._acts_seen[transaction.id] = transaction
        return Answer(data | {"act": encode_act(transaction)}, [f"{missing} more members must approve it: lading council approve ACT"])

    async def _council_rotate(self, args: Args, **_: object) -> Answer:
        made, key = await (await self._acts()).rotate_vote()
        return Answer({"transaction": made.hex(), "key": key.hex(), "state": "pooled"})

    async def _miner_rotate(self, args: Args, **_: object) -> Answer:
        made, key = await (await self._acts()).rotate_seal()
        return Answer({"transaction": made.hex(), "key": key.hex(), "state": "pooled"})

    async def _offer(self, text: str) -> MinerOffer:
        """An offer that the account's own key signed. Raises Refused(NOT_MEMBER | BAD_SIGNATURE), DecodeError, InvalidObject."""
        chain = await self._chain()
        offer, signer = open_offer(text, chain.chain)
        account: Account | None = await chain.plan(lambda snapshot: load_account(snapshot, offer.account))
        if account is None:
            raise Refused(
                Reason.NOT_MEMBER, "the chain does not know the member of this offer", hint="it does a moment after the member joined"
            )
        if account.key != signer:
            raise Refused(Reason.BAD_SIGNATURE, "the offer is not signed by the member that it names")
        return offer

    # --- means --------------------------------------------------------------------------------------------------------

    def _here(self) -> Followed:
        assert self._followed is not None, "asked after _chain"
        return self._followed

    async def _kept(self) -> ChainActor:
        if self._light is not None:
            raise self._light.not_kept("the whole state of the chain")
        chain = self._actor
        if chain is None:
            raise LadingError(Reason.NOT_FOUND, "this home follows no chain", hint="lading config get ledger")
        await _wait_loaded(chain)
        return chain

    async def _chain(self) -> ChainActor:
        chain = await self._kept()
        if chain.facts is None:
            raise LadingError(Reason.NOT_FOUND, "the chain's first block is not here yet", hint="it comes from the others: lading peers")
        return chain

    async def _acts(self) -> Acts:
        if self._light is None:
            await self._chain()
        assert self._any is not None, "asked after _chain"
        return self._node.acts[self._any.chain]

    def _name(self, account: bytes) -> str:
        """What the member is called, else the beginning of its id."""
        return self._node.knowledge.member_name(MemberId(account))

    def _account_named(self, text: str) -> AccountId:
        return AccountId(self._node.membership.member_named(text))

    def _id_named(self, text: str) -> str:
        """An id or the beginning of one as it is, a member's name as its account. Raises LadingError(NOT_FOUND), UsageError."""
        if len(text) >= PREFIX_CHARS_MIN and all(sign in "0123456789abcdef" for sign in text.lower()):
            return text.lower()
        return self._account_named(text).hex()

    def _state_of(self, height: int) -> str:
        chain = self._actor
        assert chain is not None
        return "final" if height <= chain.checkpoints()[1].height else "in_block"

    async def _at_height(self, height: int) -> BlockHash:
        chain = await self._chain()
        tree = chain.tree
        assert tree is not None
        path = {point.height: point.hash for point in tree.ancestors(tree.head().hash)}
        if height in path:
            return path[height]
        below = await chain.plan(lambda snapshot: store.blocks_at(snapshot, height)) if height < tree.final.height else ()
        if not below and height < (lowest := await chain.plan(store.lowest_height)):
            raise LadingError(Reason.PRUNED, f"this node keeps no block below height {lowest}", hint="an archive keeps all: ask there")
        if not below:
            raise LadingError(Reason.NOT_FOUND, f"the chain has no block at height {height}", hint="lading ledger status")
        return below[0]

    async def _blocks(self, top: int, limit: int) -> Sequence[Block]:
        """Blocks of our branch from a height downward."""
        if top < 0:
            return ()
        start = await self._at_height(top)

        def read(snapshot: Snapshot) -> list[Block]:
            found: list[Block] = []
            name = start
            while len(found) < limit:
                block = store.block(snapshot, name)
                if block is None:
                    break
                found.append(block)
                name = decode_header(block.header).parent
            return found

        return await (await self._chain()).plan(read)

    async def _find(self, prefix: str) -> tuple[Block, Transaction | None] | None:
        """The newest block, or transaction in a block, whose id begins so."""
        chain = await self._chain()
        top, lowest = chain.checkpoints()[0].height, await chain.plan(store.lowest_height)
        for first in range(top, lowest - 1, -_PAGE):
            for block in await self._blocks(first, _PAGE):
                if block.hash.hex().startswith(prefix):
                    return block, None
                for transaction in block.transactions:
                    if transaction.id.hex().startswith(prefix):
                        return block, transaction
        return None

    async def _block_data(self, name: BlockHash) -> dict[str, object]:
        (block,) = await (await self._chain()).blocks([name])
        header, info = decode_header(block.header), block.info
        return self._line(block) | {
            "parent": header.parent.hex(),
            "t_stamp": header.t_stamp_ms,
            "merkle_root": header.merkle_root.hex(),
            "version": header.version,
            "nonce": header.nonce,
            "term": info.term,
            "target": info.target.hex(),
            "state_root": info.state_root.hex(),
            "seal": block.seal.hex(),
            "votes": [
                {"member": self._name(vote.member), "source": vote.source.height, "target": vote.target.height} for vote in block.votes
            ],
            "transactions": [transaction_data(one) for one in block.transactions],
        }

    def _line(self, block: Block) -> dict[str, object]:
        header, info = decode_header(block.header), block.info
        return {
            "height": info.height,
            "block": block.hash.hex(),
            "slot": info.slot,
            "time": iso_ms(header.t_stamp_ms),
            "miner": self._name(info.miner) if any(info.miner) else "",
            "kinds": [kind_name(one.content.kind) for one in block.transactions],
            "votes": len(block.votes),
            "state": self._state_of(info.height),
        }


async def _wait_loaded(chain: ChainActor) -> None:
    """Just after the start the chain may still be read from the disk: whatever it is told waits for that."""
    if chain.facts is None:
        with trio.move_on_after(LOAD_PATIENCE_S):
            await chain.slot_began()


def _standing(snapshot: Snapshot, now_ms: int) -> _Standing:
    """In a pool thread."""
    view = store.ChainState(snapshot)
    state = Overlay(view)
    profile = load_profile(state)
    slot = max(slot_of(now_ms, genesis_ms=genesis_time_ms(state), slot_ms=profile.slot_ms), load_tip(state).slot + 1)
    term = next_term(view, slot)
    work = state.load(WORK, b"", WorkState)
    assert work is not None
    turn = slot_leader(state, term, slot) if SEALS[profile.seal].has_leader else None
    council = load_council(snapshot)
    return _Standing(
        profile.name,
        profile.slot_ms,
        view.root,
        term.miners,
        turn,
        term.number,
        slot,
        work.target,
        council,
        _planned(snapshot),
        seats_of(state),
    )


def _seats(snapshot: Snapshot) -> int | None:
    """None while a damaged chain is fetched again."""
    return None if store.state_at(snapshot) is None else seats_of(Overlay(store.ChainState(snapshot)))


def _planned(snapshot: Snapshot) -> PlannedCouncil | None:
    return Overlay(store.ChainState(snapshot)).load(PLANNED, b"", PlannedCouncil)


def _submitted(one: Transaction | LadingError, error: LadingError | None) -> dict[str, object]:
    """What became of one that was handed over."""
    row: dict[str, object] = {"transaction": one.id.hex() if isinstance(one, Transaction) else ""}
    if error is None:
        return row | {"state": "pooled"}
    return row | {"state": "refused", "reason": error.reason.stable_name, "message": error.message}


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
