"""What a program can ask of a running node. The command line, the examples and later front ends use only this."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import trio

from protocols.errors import LadingError, Partial, Reason, Refused, UsageError
from protocols.files.keys import RecordClass
from protocols.identity.announce import CheckedAnnouncement
from protocols.identity.peers import peer_id_text
from protocols.limits import TICKET_LIFETIME_S
from protocols.types import HashId, MemberId, OwnerKey, PeerId

from .actors.chain import BlockFinal, HeadMovedTo, time_trouble
from .actors.facts import FactsAccepted
from .actors.peers import PeerConnected, PeerLost
from .actors.puts import PutOptions
from .actors.rulings import PenaltyTold
from .clock import CLOCK_HINT, clock_trouble
from .http.contract import Answer, error_to_json, iso, seconds_of
from .ledger_api import LedgerApi
from .ledger_rows import notice_row
from .record_api import RecordApi
from .wiring import Node, OfChain

Progress = Callable[[Mapping[str, object]], None]
Output = Callable[[bytes], Awaitable[None]]
Args = Mapping[str, object]

ACK_LEVELS = ("local", "quorum", "full")
EXPIRES_S_MAX = 30 * 86400
NODE_PREFIX_CHARS_MIN = 6
PROGRESS_AFTER_S = 0.3
HELD_NAMED_MAX = 5
# Of `put --each`: enough to fill groups and the pauses of disks; more would all begin before the first one ends.
EACH_AT_ONCE_MAX = 96
PATIENT = frozenset({"put", "get", "check"})


class NodeApi:
    """Implements http.contract.Dispatcher over one Node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.ledger = LedgerApi(node)
        self.records = RecordApi(node)
        self._operations: Mapping[str, Callable[..., Awaitable[Answer]]] = {
            "status": self._status,
            "ledger.diff": self._ledger_diff,
            "peers": self._peers,
            "doctor": self._doctor,
            "stop": self._stop,
            "invite": self._invite,
            "invite.list": self._invite_list,
            "invite.cancel": self._invite_cancel,
            "member.list": self._member_list,
            "member.renew": self._member_renew,
            "member.revoke": self._member_revoke,
            "put": self._put,
            "get": self._get,
            "ls": self._ls,
            "file.status": self._file_status,
            "file.forget": self._file_forget,
            "file.delete": self._file_delete,
            "file.erase": self._file_erase,
            "file.pin": self._file_pin,
            "file.unpin": self._file_unpin,
            "file.reaffirm": self._file_reaffirm,
            "file.copies": self._file_copies,
            "folder": self._folder,
            "what-if": self._what_if,
            "share": self._share,
            "check": self._check,
            "clock": self._tell_clock,
            "watch": self._watch,
            **self.ledger.operations,
            **self.records.operations,
        }

    async def call(
        self,
        operation: str,
        args: Args,
        *,
        body: AsyncIterator[bytes] | None,
        progress: Progress,
        output: Output | None,
    ) -> Answer:
        """See Dispatcher. Raises LadingError."""
        handler = self._operations.get(operation)
        if handler is None:
            raise LadingError(Reason.NOT_FOUND, f"this node does not know the operation {operation!r}")
        if operation in PATIENT and not args.get("each"):  # where lines of progress are results
            progress = self._from_then_on(progress)
        return await handler(args, body=body, progress=progress, output=output)

    def _from_then_on(self, progress: Progress) -> Progress:
        """Progress that nobody would have time to read is not told: for small records the telling costs more than the work."""
        begins_at = self.node.clock.monotonic() + PROGRESS_AFTER_S

        def tell(facts: Mapping[str, object]) -> None:
            if self.node.clock.monotonic() >= begins_at:
                progress(facts)

        return tell

    # --- the node ---------------------------------------------------------------------------------------------------

    def _alerts(self) -> list[str]:
        node = self.node
        alerts = [*node.replication.alerts.values(), *node.membership.alerts.values(), *self.ledger.alerts()]
        if node.anchoring is not None:
            alerts += node.anchoring.alerts.values()
        if node.rulings is not None:
            alerts += node.rulings.alerts.values()
        held = [facts.key[1].hex()[:16] for facts in node.knowledge.held_records()]
        if held:
            names = ", ".join(held[:HELD_NAMED_MAX]) + (" and others" if len(held) > HELD_NAMED_MAX else "")
            text = "known to this node alone after its long absence, in quarantine; their owners say: lading file reaffirm RECORD"
            alerts.append(f"{len(held)} records {text} ({names})")
        left = node.membership.own.identity.not_after - node.clock.now()
        if left < min(30 * 86400, node.config.node_lifetime_s // 3):
            alerts.append(f"this node's certificate ends {iso(node.membership.own.identity.not_after)}; renew: lading member renew")
        return alerts

    def _peer_rows(self) -> list[dict[str, object]]:
        node = self.node
        rows: list[dict[str, object]] = []
        now = node.clock.monotonic()
        for peer, entry in sorted(
            ((PeerId(entry.value.peer_id), entry) for entry in node.knowledge.book.entries), key=lambda item: item[1].identity.host
        ):
            if peer == node.own.peer_id:
                continue
            session = node.peers.sessions.get(peer)
            rows.append(
                {
                    "node": entry.identity.host,
                    "member": entry.identity.member,
                    "member_id": entry.identity.member_id.hex(),
                    "domain": entry.identity.domain,
                    "domain_id": entry.identity.domain_id.hex(),
                    "peer_id": peer_id_text(peer),
                    "addresses": list(entry.value.addresses),
                    "connected": session is not None,
                    "path": session.connection.path.value if session is not None else None,
                    "rtt_ms": round(session.rtt_s * 1000, 2) if session is not None and session.rtt_s is not None else None,
                    "since": iso(node.clock.now() - (now - session.since)) if session is not None else None,
                    "revoked": node.knowledge.is_out(entry.identity),
                    "last_error": "" if session is not None else node.peers.dial_error(peer),
                }
            )
        return rows

    async def _status(self, args: Args, **_: object) -> Answer:
        node = self.node
        usage = node.world.chunks.usage()
        identity = node.own.identity
        data = {
            "node": identity.host,
            "peer_id": peer_id_text(node.own.peer_id),
            "member": node.own.member_id.hex(),
            "member_name": identity.member,
            "domain": identity.domain,
            "domain_id": node.own.domain_id.hex(),
            "domains": node.domains(),
            "listen": list(node.listen),
            "peers": self._peer_rows(),
            "ledger": self.ledger.summary(),
            "records": len(cast(Sequence[object], node.files.ls(everything=False)["records"])),
            "store": {
                "bytes": usage.bytes_used,
                "budget": usage.bytes_budget,
                "free": max(0, min(usage.bytes_budget - usage.bytes_used, usage.bytes_disk_free)),
            },
            "clock": self._clock(),
            "alerts": self._alerts(),
            "started": iso(node.started_at),
        }
        return Answer(data, await self.ledger.warnings())

    def _clock(self) -> dict[str, object]:
        """Which time is used, and how it lies to that of members."""
        clock = self.node.clock
        found = clock.compare()
        network = self._network_time()
        return {
            "source": clock.source.value,
            "time": iso(clock.now()),
            "machine": iso(clock.machine_s),
            "members_agreeing": found.agreeing,
            "members_differing": found.differing,
            "ahead_s": found.ahead_s,
            "synchronised": clock.is_synchronised,
            **({"network": network} if network is not None else {}),
        }

    def _network_time(self) -> dict[str, object] | None:
        """The chain's clock; None where this node keeps no chain."""
        chain = self.node.chain
        if chain is None:
            return None
        found = chain.time.agreement()
        return {
            "time": iso(chain.now_ms() / 1000),
            "state": found.state.value,
            "set": chain.time.may_act,
            "offset_ms": found.ahead_ms,
            "members": found.members,
            "spread_ms": found.spread_ms,
            "gap_ms": found.gap_ms,
        }

    async def _tell_clock(self, args: Args, **_: object) -> Answer:
        node = self.node
        data = self._clock()
        if node.chain is not None and node.chain.facts is not None:
            data["network_time"] = iso(node.chain.now_ms() / 1000)
            data["drift_ms_max"] = node.chain.facts.profile.drift_ms_max
        trouble = clock_trouble(node.clock)
        if node.chain is not None and (text := time_trouble(node.chain.time)):
            raise Refused(Reason.CLOCK_UNSAFE, text, hint=CLOCK_HINT, **data)
        return Answer(data, [trouble] if trouble else [])

    async def _ledger_diff(self, args: Args, **_: object) -> Answer:
        return await self.ledger.diff(self._node(str(args["peer"])), args)

    async def _peers(self, args: Args, **_: object) -> Answer:
        return Answer({"peers": self._peer_rows()})

    async def _doctor(self, args: Args, **_: object) -> Answer:
        node = self.node
        checks: list[dict[str, object]] = []

        def add(name: str, ok: bool, text: str, hint: str = "") -> None:
            checks.append({"name": name, "level": "ok" if ok else "warn", "message": text, "hint": "" if ok else hint})

        rows = self._peer_rows()
        up = sum(bool(row["connected"]) for row in rows)
        add("peers", not rows or up > 0, f"{up} of {len(rows)} known nodes connected", "lading peers shows why each is not")
        trouble = clock_trouble(node.clock)
        backing = node.clock.compare().agreeing
        add("clock", not trouble, trouble or f"{iso(node.clock.now())}, {backing} members say the same", CLOCK_HINT)
        if node.chain is not None:
            agreed = node.chain.time.agreement()
            text = f"{agreed.state.value}, {agreed.members} counted, {agreed.spread_ms} ms between them, {agreed.ahead_ms} ms ahead of here"
            wrong = time_trouble(node.chain.time)
            add("network-time", not wrong, wrong or text, CLOCK_HINT)
        usage = node.world.chunks.usage()
        free = min(usage.bytes_budget - usage.bytes_used, usage.bytes_disk_free)
        add("store", not node.holdings.read_only, f"{max(0, free)} bytes free", "free space or raise store_budget_bytes")
        days = int((node.membership.own.identity.not_after - node.clock.now()) / 86400)
        add("certificate", days > 30, f"valid for {days} more days", "lading member renew")
        weak = [
            row
            for row in cast(Sequence[Mapping[str, object]], node.files.ls(everything=False)["records"])
            if isinstance(row["survives"], int) and row["survives"] < 1
        ]
        add("records", not weak, f"{len(weak)} records would not survive the loss of one node", "add nodes, or wait for repair")
        fence = node.knowledge.fences.greatest()
        add("fence", fence is not None, f"fence {fence.value.number}" if fence is not None else "no fence is known", "join again")
        if (standing := self.ledger.finality()) is not None:
            heard, needed, height, final = standing
            text = f"height {height}, final up to {final}; {heard} members heard, {needed} needed"
            add("ledger", heard >= needed, text, "start the nodes of the other members, or lading council recover where keys are lost")
            bad = self.ledger.refused_lately()
            text = f"{bad} refused of the kinds last seen within a day" if bad else "nothing bad came within a day"
            add("refused", not bad, text, "lading ledger status names what, why and from whom")
        for text in await self.ledger.warnings():
            add("ledger-policy", False, text, "lading ledger status")
        for text in self._alerts():
            add("alert", False, text)
        return Answer({"checks": checks, "healthy": all(check["level"] == "ok" for check in checks)})

    async def _stop(self, args: Args, **_: object) -> Answer:
        self.node.stop()
        return Answer({"stopping": True})

    # --- membership -------------------------------------------------------------------------------------------------

    async def _invite(self, args: Args, **_: object) -> Answer:
        role = str(args.get("role") or "member")
        node = bool(args.get("node"))
        domain = bool(args.get("domain")) or role == "domain"
        if role not in ("member", "holder", "full", "domain"):
            raise UsageError(f"--role {role!r}: member, holder, full or domain wanted")
        if domain and (node or role not in ("member", "domain")):
            raise UsageError("a ticket is for a domain or for a node, not for both", hint="lading invite --domain")
        expires_s = int(cast(int, args.get("expires_s") or TICKET_LIFETIME_S))
        if not 0 < expires_s <= EXPIRES_S_MAX:
            raise UsageError(f"a ticket for {expires_s} s, at most {EXPIRES_S_MAX} wanted")
        data = await self.node.membership.invite(node=node, holder_only=role != "full", expires_s=expires_s, domain=domain)
        return Answer(data | {"expires": iso(cast(int, data["expires"]))})

    async def _invite_list(self, args: Args, **_: object) -> Answer:
        rows = [row | {"expires": iso(cast(int, row["expires"]))} for row in self.node.membership.tickets()]
        return Answer({"tickets": rows})

    async def _invite_cancel(self, args: Args, **_: object) -> Answer:
        return Answer(await self.node.membership.cancel_ticket(str(args["id"])))

    async def _member_list(self, args: Args, **_: object) -> Answer:
        rows = [
            row
            | {key: iso(cast(int, row[key])) for key in ("not_before", "not_after")}
            | {"nodes_not_after": {peer: iso(end) for peer, end in cast(Mapping[str, int], row["nodes_not_after"]).items()}}
            for row in self.node.membership.members()
        ]
        return Answer({"members": rows})

    async def _member_renew(self, args: Args, **_: object) -> Answer:
        if args.get("member") and self.node.membership.member_named(str(args["member"])) != self.node.own.member_id:
            raise Refused(Reason.REFUSED, "a member renews its own certificates", hint="run it there: lading member renew")
        data = await self.node.membership.renewal.renew_now()
        return Answer(data | {key: iso(cast(int, data[key])) for key in ("not_before", "not_after", "member_not_after")})

    async def _member_revoke(self, args: Args, **_: object) -> Answer:
        member = self.node.membership.member_named(str(args["member"]))
        if args.get("dry_run"):
            identity = self.node.knowledge.members()[member]
            nodes = [row for row in self._peer_rows() if row["member_id"] == member.hex()]
            return Answer({"member": member.hex(), "name": identity.member, "nodes": nodes, "dry_run": True})
        return Answer(await self.node.membership.revoke(str(args["member"]), str(args.get("cause") or "")))

    # --- records ----------------------------------------------------------------------------------------------------

    async def _put(self, args: Args, *, body: AsyncIterator[bytes] | None, progress: Progress, **_: object) -> Answer:
        ack = str(args.get("ack") or self.node.config.ack)
        if ack not in ACK_LEVELS:
            raise UsageError(f"--ack {ack!r}: {', '.join(ACK_LEVELS)} wanted")
        if args.get("resume"):
            data, warnings = await self.node.files.resume_put(str(args["resume"]), ack, progress)
            return Answer(data, warnings)
        paths = [Path(path) for path in cast(Sequence[str], args["paths"])]
        stdin = [str(path) for path in paths] == ["-"]
        if not paths or (any(not path.is_absolute() for path in paths) and not stdin):
            raise UsageError("put needs absolute paths")
        record_class = str(args.get("class") or "dedup")
        if record_class not in ("dedup", "confidential"):
            raise UsageError(f"--class {record_class!r}: dedup or confidential wanted")
        if args.get("dry_run"):
            return await self._put_dry(paths)
        valid_until = args.get("valid_until")
        options = PutOptions(
            replicas=int(cast(int, args.get("replicas") or 0)),
            ack=ack,
            record_class=RecordClass(record_class),
            tags=tuple(sorted(cast(Mapping[str, str], args.get("tag") or {}).items())),
            valid_until_s=seconds_of(str(valid_until)) if valid_until else 0,
            intent=self.records.intent(args),
            wait_final=self._waits_final(args),
        )
        if args.get("each"):
            if stdin:
                raise UsageError("standard input is one record")
            return await self._put_each(paths, options, progress)
        data, warnings = await self.node.files.put(
            paths, options, progress=progress, body=body if stdin else None, name=str(args.get("name") or "stdin")
        )
        return Answer(data, warnings)

    def _waits_final(self, args: Args) -> bool:
        wait = str(args.get("wait") or "")
        if wait not in ("", "final"):
            raise UsageError(f"--wait {wait!r}: final wanted")
        if wait and self.node.anchoring is None:
            raise Refused(Reason.REFUSED, "this node follows no chain: nothing becomes final", hint="lading config get ledger")
        return bool(wait)

    async def _put_each(self, paths: Sequence[Path], options: PutOptions, progress: Progress) -> Answer:
        """A record of its own for every path, all at once. Raises Partial naming what was published and what was not."""
        done: dict[int, Mapping[str, object]] = {}
        warnings: dict[str, None] = {}
        failed: list[LadingError] = []

        async def one(number: int, path: Path) -> None:
            try:
                data, told = await self.node.files.put([path], options)
            except LadingError as error:
                failed.append(error)
                done[number] = {"path": str(path), "error": error_to_json(error)}
            else:
                warnings.update(dict.fromkeys(told))
                done[number] = {"path": str(path), **data}
            progress({"phase": "published", "records": len(done), "records_total": len(paths), **done[number]})

        left = iter(enumerate(paths))

        async def some() -> None:
            for number, path in left:
                await one(number, path)

        async with trio.open_nursery() as nursery:
            for _ in range(min(len(paths), EACH_AT_ONCE_MAX)):
                nursery.start_soon(some)
        records = [done[number] for number in sorted(done)]
        if failed:
            if len(failed) == len(records) == 1:
                raise failed[0]
            raise Partial(
                failed[0].reason,
                f"{len(failed)} of {len(records)} not published as asked: {failed[0].message}",
                hint="the details name each; put those again: what is stored already is not stored twice",
                records=records,
            )
        return Answer({"records": records, "record": [one["record"] for one in records]}, list(warnings))

    async def _put_dry(self, paths: Sequence[Path]) -> Answer:
        from .sources import scan

        items = await self.node.world.offload.run(scan, paths)
        return Answer({"dry_run": True, "entries": len(items), "bytes": sum(item.size for item in items), "holders": []})

    async def _get(self, args: Args, *, progress: Progress, output: Output | None, **_: object) -> Answer:
        inline = bool(args.get("inline"))
        entry = args.get("entry")
        target, directory = args.get("output"), args.get("directory")
        if inline and output is None:
            raise UsageError("inline bytes were asked for, and there is nowhere to send them")
        for path in (target, directory):
            if path is not None and not Path(str(path)).is_absolute():
                raise UsageError("get needs absolute paths")
        data = await self.node.files.get(
            str(args["record"]),
            output=Path(str(target)) if target else None,
            directory=Path(str(directory)) if directory else None,
            entry=str(entry) if entry else None,
            keep=bool(args.get("keep")),
            inline=output if inline else None,
            progress=progress,
            wait_s=float(cast(float, args["wait_s"])) if args.get("wait_s") else None,
        )
        validity = self.node.files.validity(self.node.files.find(str(data["record"])))
        warnings = [f"this record is {validity}: it is no longer in effect"] if validity in ("expired", "invalid") else []
        return Answer(data | {"validity": validity}, warnings + await self._newer(str(data["record"])))

    async def _newer(self, record: str) -> list[str]:
        """A warning for whoever reads a record that was corrected or replaced."""
        if self.node.anchoring is None:
            return []
        newest = [name.hex()[:16] for name in await self.node.anchoring.newest(self.node.files.find(record).key)]
        return [f"there is a newer version of this record: {', '.join(newest)}"] if newest else []

    async def _ls(self, args: Args, **_: object) -> Answer:
        data = self.node.files.ls(everything=bool(args.get("all")))
        rows = [row | {"time": iso(cast(int, row["time"]))} for row in cast(Sequence[dict[str, object]], data["records"])]
        if self.node.anchoring is not None:
            open_rows = [row for row in rows if row["state"] == "local"]
            keys = [(OwnerKey(bytes.fromhex(str(row["owner_key"]))), HashId(bytes.fromhex(str(row["record"])))) for row in open_rows]
            for row, standing in zip(open_rows, await self.node.anchoring.standings(keys), strict=True):
                row.update(standing)
        return Answer({"records": rows})

    async def _folder(self, args: Args, **_: object) -> Answer:
        """What an owner's folder says, recomputed here. member: whose; none: ours. root: an earlier version."""
        node = self.node
        if node.anchoring is None:
            raise Refused(Reason.REFUSED, "this node follows no chain: there are no folders")
        owner, root = node.own.owner, str(args.get("root") or "")
        if args.get("member"):
            owner = node.knowledge.members()[node.membership.member_named(str(args["member"]))].owner
        try:
            return Answer(await node.anchoring.folder(owner, bytes.fromhex(root) if root else None))
        except ValueError as error:
            raise UsageError(f"--root {root!r}: 64 hexadecimal digits wanted") from error

    async def _file_status(self, args: Args, **_: object) -> Answer:
        data = await self.node.files.status(str(args["record"]))
        holders = [row | {"verified": iso(cast(int, row["verified"]))} for row in cast(Sequence[dict[str, object]], data["holders"])]
        if "ledger" in data:
            data["ledger"] = _with_times(cast(Mapping[str, object], data["ledger"]))
        return Answer(data | {"holders": holders})

    async def _file_forget(self, args: Args, **_: object) -> Answer:
        return Answer(await self.node.files.forget(str(args["record"]), dry_run=bool(args.get("dry_run"))))

    async def _file_delete(self, args: Args, **_: object) -> Answer:
        return await self._remove(args, "delete")

    async def _file_erase(self, args: Args, *, progress: Progress, **_: object) -> Answer:
        return await self._remove(args, "erase")

    async def _remove(self, args: Args, act: str) -> Answer:
        record, dry_run = str(args["record"]), bool(args.get("dry_run"))
        shared = await self.records.erase_shared(record, act, dry_run=dry_run)
        if shared is not None:
            return shared
        data, warnings = await self.node.files.remove(record, act, dry_run=dry_run)
        return Answer(data, warnings)

    async def _file_pin(self, args: Args, **_: object) -> Answer:
        return Answer(await self.node.files.pin(str(args["record"]), self._node(str(args["on"])), "in", dry_run=bool(args.get("dry_run"))))

    async def _file_unpin(self, args: Args, **_: object) -> Answer:
        return Answer(await self.node.files.pin(str(args["record"]), self._node(str(args["on"])), "out", dry_run=bool(args.get("dry_run"))))

    async def _file_reaffirm(self, args: Args, **_: object) -> Answer:
        return Answer(await self.node.files.reaffirm(str(args["record"])))

    async def _file_copies(self, args: Args, **_: object) -> Answer:
        copies = cast(int, args["copies"])
        await self.records.check_restated(str(args["record"]))
        return Answer(await self.node.files.restate(str(args["record"]), copies, dry_run=bool(args.get("dry_run"))))

    async def _what_if(self, args: Args, **_: object) -> Answer:
        killed = frozenset(self._node(name) for name in cast(Sequence[str], args["kill"]))
        return Answer(self.node.files.what_if(killed))

    async def _share(self, args: Args, **_: object) -> Answer:
        member = self.node.membership.member_named(str(args["to"]))
        return Answer(await self.node.files.share(str(args["record"]), member))

    async def _check(self, args: Args, *, progress: Progress, **_: object) -> Answer:
        sample = 1.0 if args.get("all") else float(cast(float, args.get("sample") or 0.05))
        if not 0 < sample <= 1:
            raise UsageError(f"--sample {sample}: above 0 and at most 1 wanted")
        data = await self.node.replication.check(sample=sample, repair=bool(args.get("repair")), progress=progress)
        if self.node.anchoring is not None:
            data["ledger"] = await self.node.anchoring.audit()
        if data["damaged"] and not args.get("repair"):
            raise LadingError(
                Reason.INTEGRITY,
                f"{data['damaged']} of {data['checked']} sequences are damaged here",
                hint="lading check --all --repair",
                **data,
            )
        return Answer(data)

    def _node(self, text: str) -> PeerId:
        """A node by name, id, or unique prefix or ending of its id, ours before another domain's. Raises NOT_FOUND, UsageError."""
        node = self.node
        found = [PeerId(entry.value.peer_id) for entry in node.knowledge.book.entries if _is_called(text, entry)]
        if not found:
            raise LadingError(Reason.NOT_FOUND, f"no node is called {text!r}", hint="lading peers")
        ours = node.knowledge.addresses(of=node.own.domain_id)
        found = [peer for peer in found if peer in ours] or found
        if len(found) > 1:
            raise UsageError(f"{len(found)} nodes are called {text!r}", hint="give the peer id: lading peers --json")
        return found[0]

    # --- events -----------------------------------------------------------------------------------------------------

    async def _watch(self, args: Args, *, progress: Progress, **_: object) -> Answer:
        """Events as they happen, until the caller leaves or the node stops."""
        node = self.node
        known = set(node.knowledge.records)
        with node.bus.subscribe(
            FactsAccepted, PeerConnected, PeerLost, HeadMovedTo, BlockFinal, OfChain, PenaltyTold, name="watch"
        ) as news:
            progress({"event": "watching", "node": node.own.identity.host, "time": iso(node.clock.now())})
            async for fact in news:
                now = iso(node.clock.now())
                match fact:
                    case PeerConnected(peer):
                        progress({"event": "peer connected", "node": node.knowledge.peer_name(peer), "time": now})
                    case PeerLost(peer, why):
                        progress({"event": "peer lost", "node": node.knowledge.peer_name(peer), "why": why, "time": now})
                    case HeadMovedTo() | BlockFinal():
                        assert node.port is not None
                        progress(_chain_event(node.port.chain, fact) | {"time": now})
                    case OfChain(chain, told):
                        progress(_chain_event(chain, told) | {"time": now})
                    case PenaltyTold(notice, has_ended):
                        event = "penalty ended" if has_ended else "penalty"
                        name = node.knowledge.member_name(MemberId(notice.target))
                        progress({"event": event, **notice_row(notice, name), "time": now})
                    case FactsAccepted():
                        for key in sorted(set(node.knowledge.records) - known):
                            known.add(key)
                            owner = node.knowledge.owner_name(key[0])
                            progress({"event": "record", "record": key[1].hex(), "owner": owner, "state": "local", "time": now})
        await trio.lowlevel.checkpoint()
        return Answer({})


def _chain_event(chain: bytes, fact: HeadMovedTo | BlockFinal) -> dict[str, object]:
    """What moved on which chain."""
    match fact:
        case HeadMovedTo(head, final):
            moved: dict[str, object] = {"event": "head", "height": head.height, "block": head.hash.hex(), "finalized": final.height}
        case BlockFinal(height, block):
            moved = {"event": "final", "height": height, "block": block.hex()}
    return moved | {"chain": chain.hex()}


def _with_times(ledger: Mapping[str, object]) -> dict[str, object]:
    """Times of a record on the ledger as text."""
    times = ("block_time", "sender_time", "upload_time", "valid_from", "valid_until", "deadline", "time")
    shown = {key: iso(cast(float, value)) if key in times else value for key, value in ledger.items()}
    for rows in ("log", "pending"):
        if rows in shown:
            shown[rows] = [_with_times(row) for row in cast(Sequence[Mapping[str, object]], shown[rows])]
    return shown


def _is_called(text: str, entry: CheckedAnnouncement) -> bool:
    identity = entry.identity
    peer = peer_id_text(PeerId(entry.value.peer_id))
    by_id = len(text) >= NODE_PREFIX_CHARS_MIN and (peer.startswith(text) or peer.endswith(text))
    return by_id or text in (identity.host, identity.member, f"{identity.member}/{identity.host}")
