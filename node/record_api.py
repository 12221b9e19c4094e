"""What this node's member says on the chain about records: approvals, later ends, erasures that other owners have to agree to.

Nothing is queued: what awaits an answer stands in the state, what was answered just now in the pool, and whoever asks again is told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from protocols.codec import Record
from protocols.errors import InvalidTransaction, LadingError, Reason, Refused, UsageError
from protocols.ledger.context import Kind
from protocols.ledger.envelope import decode_body
from protocols.ledger.filing import Intent, check_intent
from protocols.ledger.pool import Origin
from protocols.ledger.transactions import approve, erase, expiry_extend
from protocols.ledger.transactions.records import CHANGES, RECORD, Change, Parent, RecordState, record_key
from protocols.types import AccountId, MemberId, RecordKey, TxId, UnixMillis

from .actors.anchoring import Anchoring, read_record
from .http.contract import Answer, iso, seconds_of
from .ledger_rows import notice_row
from .pendings import Waits, find_waits

if TYPE_CHECKING:
    from .chain_acts import Acts
    from .wiring import Node

Args = Mapping[str, object]
_Body = TypeVar("_Body", bound=Record)
PREFIX_CHARS_MIN = 6
NEVER = "never"


class RecordApi:
    """The operations ``inbox``, ``approve`` and ``file.extend`` of one node; intents of puts, erasures of what several own."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.operations: Mapping[str, Callable[..., Awaitable[Answer]]] = {
            "inbox": self._inbox,
            "approve": self._approve,
            "file.extend": self._extend,
        }

    # --- what a put asks for ------------------------------------------------------------------------------------------

    def intent(self, args: Args) -> Intent | None:
        """What the anchor shall say besides the statement, None for nothing. Raises UsageError, LadingError(NOT_FOUND), Refused."""
        parents, change, note = cast(Sequence[str], args.get("parent") or ()), str(args.get("change") or ""), str(args.get("reason") or "")
        owners, approvers = (self._accounts(cast(Sequence[str], args.get(name) or ())) for name in ("owner", "approver"))
        asks = (parents, change, note, owners, approvers, args.get("schema"), args.get("threshold"), args.get("deadline_s"))
        if not any(asks) and args.get("level") is None:
            return None
        self._anchoring("nothing that would say what became of a record, or who owns it")
        if owners or approvers:
            self._check_kept()
        if change not in (*CHANGES, ""):
            raise UsageError(f"--change {change!r}: {', '.join(sorted(CHANGES.keys() - {'restore'}))} wanted")
        found = sorted(self._node.files.find(text).key for text in parents)
        intent = Intent(
            cast(Change, change or ("modify" if parents else "create")),
            tuple(Parent(*key) for key in found),
            (("reason", note),) if note else (),
            tuple(name for name in owners if name != AccountId(self._node.own.member_id)),
            approvers,
            cast(int, args.get("threshold") or 0),
            cast("int | None", args.get("level")),
            str(args.get("schema") or ""),
            int(1000 * cast(float, args.get("deadline_s") or 0)),
        )
        try:
            check_intent(intent)
        except InvalidTransaction as error:
            hint = "name the records that it comes from with --parent" if change and not parents else "lading put --help"
            raise UsageError(error.message, hint=hint) from error
        return intent

    def _accounts(self, names: Sequence[str]) -> tuple[AccountId, ...]:
        """By rising id, each once."""
        return tuple(sorted({self._account(text) for text in names}))

    def _account(self, text: str) -> AccountId:
        return AccountId(self._node.membership.member_named(text))

    # --- approvals ----------------------------------------------------------------------------------------------------

    async def _inbox(self, args: Args, **_: object) -> Answer:
        anchoring = self._anchoring("nothing that would await an answer")
        self._check_kept()
        me = self._acts().account
        said = self._said_in_pool(me)
        rows: list[dict[str, object]] = []
        asked: list[dict[str, object]] = []
        for one in await self._waits(me):
            row = self.row(anchoring, one)
            if me in one.lacking:
                rows.append(row | {"said": said.get(one.id, ""), "is_known_here": self._is_known(one.key)})
            elif one.pending.sender == me:
                asked.append(row)
        knowledge, rulings = self._node.knowledge, self._node.rulings
        notices = () if rulings is None else rulings.notices()
        told = [notice_row(one, knowledge.member_name(MemberId(one.target))) for one in notices]
        return Answer({"waiting": rows, "asked": asked, "notices": told})

    async def _approve(self, args: Args, **_: object) -> Answer:
        anchoring = self._anchoring("nothing to approve")
        self._check_kept()
        acts = self._acts()
        me = acts.account
        yes = not args.get("refuse")
        one = self._named(str(args["id"]), [one for one in await self._waits(me) if me in one.pending.approvers])
        data: dict[str, object] = {"id": one.id.hex(), "record": one.key[1].hex(), "kind": one.kind_name, "said": "yes" if yes else "no"}
        if me not in one.lacking:
            raise Refused(Reason.CONFLICT, "this member has said its word about it already", hint="lading file status shows who lacks")
        if args.get("dry_run"):
            return Answer(data | self.row(anchoring, one) | {"dry_run": True})
        if (before := self._said_in_pool(me).get(one.id)) is not None:
            if before != data["said"]:
                raise Refused(Reason.CONFLICT, f"this member has said {before} a moment ago, and one says it once")
            return Answer(data | {"state": "pooled"}, ["said already: it waits for the next block"])
        body = approve.Body(one.id, yes, str(args.get("note") or ""))
        name = await acts.by_member(approve.KIND, body, until_ms=one.pending.deadline_ms)
        return Answer(data | {"transaction": name.hex(), "state": "pooled"})

    async def _waits(self, account: AccountId) -> list[Waits]:
        """What names this member, as the state at the head has it."""
        return await self._acts().chain.plan(lambda snapshot: find_waits(snapshot, account))

    def _named(self, text: str, waits: Sequence[Waits]) -> Waits:
        """By the beginning of its id, or of its record's. Raises UsageError, LadingError(NOT_FOUND)."""
        wanted = text.strip().lower()
        if len(wanted) < PREFIX_CHARS_MIN:
            raise UsageError(f"{text!r} is too short", hint=f"at least {PREFIX_CHARS_MIN} characters of the id: lading inbox")
        found = [one for one in waits if one.id.hex().startswith(wanted) or one.key[1].hex().startswith(wanted)]
        if not found:
            raise LadingError(Reason.NOT_FOUND, f"nothing that begins with {text!r} waits for this member", hint="lading inbox")
        if len(found) > 1:
            raise UsageError(f"{len(found)} that begin with {text!r} wait for this member", hint="give the id: lading inbox --json")
        return found[0]

    def _said_in_pool(self, me: AccountId) -> dict[TxId, str]:
        """What this member has said and no block has yet, by what it is about."""
        chain = self._acts().chain
        found: dict[TxId, str] = {}
        for waiting in (one for origin in Origin for one in chain.pool.list(origin)):
            content = waiting.transaction.content
            if content.sender == me and content.kind == approve.KIND.number:
                body = decode_body(waiting.transaction, approve.Body)
                found[TxId(body.target)] = "yes" if body.yes else "no"
        return found

    @staticmethod
    def row(anchoring: Anchoring, one: Waits) -> dict[str, object]:
        """A waiting transaction with times as text."""
        row = anchoring.wait_row(one)
        return {key: iso(cast(float, value)) if key in ("deadline", "valid_until") else value for key, value in row.items()}

    def _is_known(self, key: RecordKey) -> bool:
        """Whether this node knows the record that it is about, so that `file status` and `get` may say more."""
        facts = self._node.knowledge.records.get(key)
        return facts is not None and bool(facts.objects)

    # --- what all owners decide ---------------------------------------------------------------------------------------

    async def _extend(self, args: Args, **_: object) -> Answer:
        text = str(args["until"])
        until = UnixMillis(0 if text == NEVER else seconds_of(text) * 1000)
        key = self._node.files.find(str(args["record"])).key
        body = expiry_extend.Body(*key, until)
        if args.get("dry_run"):
            record = await self._record(key)
            return Answer({"record": key[1].hex(), "valid_until": iso(until / 1000), "dry_run": True} | self._who_decides(record))
        return Answer(await self._ask_owners(expiry_extend.KIND, body, key) | {"valid_until": iso(until / 1000)})

    async def erase_shared(self, text: str, act: str, *, dry_run: bool) -> Answer | None:
        """A record that several own is erased when all of them have said so; None for one that is its owner's alone.

        Raises Refused for a delete: a tombstone is one owner's word.
        """
        if self._node.anchoring is None:
            return None
        key = self._node.files.find(text).key
        record = await self._state_of(key)
        if record is None or len(record.owners.owners) < 2 or record.status == "erased":
            return None
        if act != "erase":
            raise Refused(
                Reason.REFUSED, "several own this record: it is not deleted by one of them", hint=f"lading file erase {key[1].hex()[:16]}"
            )
        if dry_run:
            return Answer({"record": key[1].hex(), "act": act, "dry_run": True} | self._who_decides(record))
        data = await self._ask_owners(erase.KIND, erase.Body(*key, "chunks", ""), key)
        return Answer(data | {"act": act}, ["it is erased at all holders when its other owners have approved: lading inbox at theirs"])

    async def check_restated(self, text: str) -> None:
        """A statement of the same content is a *restore* on the chain, which names no parents. Raises Refused where there are some."""
        if self._node.anchoring is None:
            return
        key = self._node.files.find(text).key
        record = await self._state_of(key)
        if record is not None and record.parents:
            raise Refused(
                Reason.REFUSED,
                f"this record is a {record.change} of another, which the ledger would forget if it were stated anew",
                hint=f"lading file pin {key[1].hex()[:16]} --on NODE",
            )

    async def _ask_owners(self, kind: Kind[_Body], body: _Body, key: RecordKey) -> dict[str, object]:
        """Submits an act of this member that needs all owners; once, however often it is asked for. Raises Refused, InvalidTransaction."""
        acts = self._acts()
        record = await self._record(key)
        data = {"record": key[1].hex()} | self._who_decides(record)
        for one in await self._waits(acts.account):
            if (one.key, one.body, one.pending.sender) == (key, body, acts.account):
                return data | {"transaction": one.id.hex(), "state": "pending"}
        chain = acts.chain
        for waiting in chain.pool.list(Origin.OUTBOUND):
            content = waiting.transaction.content
            if (content.kind, content.sender) == (kind.number, acts.account) and decode_body(waiting.transaction, kind.body) == body:
                return data | {"transaction": waiting.id.hex(), "state": "pooled"}
        return data | {"transaction": (await acts.by_member(kind, body)).hex(), "state": "pooled"}

    async def _record(self, key: RecordKey) -> RecordState:
        """Raises Refused, LadingError(NOT_FOUND)."""
        self._anchoring("nothing that would hold for everybody")
        self._check_kept()
        found = await self._state_of(key)
        if found is None:
            short = key[1].hex()[:16]
            raise LadingError(Reason.NOT_FOUND, f"record {short} is not on the ledger yet", hint=f"lading file status {short}")
        return found

    def _who_decides(self, record: RecordState) -> dict[str, object]:
        """Whose word is needed besides this member's."""
        me = self._acts().account
        names = self._node.knowledge.members()
        others = [MemberId(name) for name in record.owners.owners if name != me]
        return {"needs": [names[name].member if name in names else name.hex()[:8] for name in others]}

    # --- means --------------------------------------------------------------------------------------------------------

    def _anchoring(self, what: str) -> Anchoring:
        if self._node.anchoring is None:
            raise Refused(Reason.REFUSED, f"this node follows no chain: there is {what}", hint="lading config get ledger")
        return self._node.anchoring

    def _acts(self) -> Acts:
        node = self._node
        assert node.port is not None, "asked after _anchoring"
        return node.acts[node.port.chain]

    def _check_kept(self) -> None:
        """What waits for approvals is found in the whole state alone. Raises Refused(NOT_KEPT) on a light node."""
        if self._node.light is not None:
            raise Refused(
                Reason.NOT_KEPT,
                "this node is light and does not keep what waits for the word of several",
                hint="ask a full node of this member, or: lading config set ledger full",
            )

    async def _state_of(self, key: RecordKey) -> RecordState | None:
        """A record as the state has it; on a light node as it was proven last, where nobody proves it now."""
        chain = self._acts().chain
        with suppress(Refused):
            await chain.bring([(RECORD, record_key(*key))], is_fresh=False)
        return await chain.plan(lambda snapshot: read_record(snapshot, key))
