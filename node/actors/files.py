"""Records in and out: `put` and `get`, their progress, and what people ask about a record."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import trio

from protocols.codec import encode, replace
from protocols.crypto import FORMAT, SUITE
from protocols.errors import InvalidObject, LadingError, Partial, Reason, Refused, RemoteError, UsageError, Verdict
from protocols.files.hashid import cid_text
from protocols.files.manifest import Manifest, PlannedChunk, open_manifest
from protocols.files.objects import (
    Pin,
    Reaffirm,
    Statement,
    Tombstone,
    make_wrap,
    sign_pin,
    sign_reaffirm,
    sign_statement,
    sign_tombstone,
    sign_wrap,
    unwrap_key,
)
from protocols.files.sequences import SequenceDescriptor, check_sequence, sequence_count, sequence_root
from protocols.files.survive import smallest_kill_set, survives, what_if
from protocols.gossip.facts import FactKind
from protocols.identity.attested import Attested
from protocols.limits import OFFER_LIFETIME_S
from protocols.signed import Signed
from protocols.types import ChunkName, Digest, MemberId, PeerId, RecordKey, SequenceRoot, UnixSeconds

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..offload import Offload
from ..own import MemberKeys, OwnKeys
from ..sinks import FileSink, InlineSink, Sink
from ..transport.port import StreamBroken
from .anchoring import Anchoring, Anew
from .exchange import DELIVERED_CHUNKS_MAX, Deliver
from .facts import FactsAccepted, FactsHandle
from .holdings import HeldSequence, Holdings
from .knowledge import Knowledge, RecordFacts
from .peers import PeerConnected, PeerLost, Peers
from .puts import Progress, PutOptions, Puts
from .replication import Holders, Replication

log = logging.getLogger(__name__)

# Records that are read, sealed, kept and shipped at the same time; others wait their turn. Enough to fill every batch of commits,
# signatures and receipts, and few enough that the first of hundreds are done while the last wait, in bounded memory.
SEQUENCES_FETCHING_MAX = 6
ACK_PATIENCE_S = 30.0
FETCH_ROUNDS = 3
# A get without --timeout waits so long, since the last chunk, for holders that are away: a restart takes seconds, a reboot half a minute.
GET_PATIENCE_S = 30.0
REMOVE_PATIENCE_S = 10.0


def _silent(_: Mapping[str, object]) -> None:
    """Nobody watches."""


class _Patience:
    """How long a get waits for holders that are away, and whom it tells. bound_s: in all; None: GET_PATIENCE_S since the last chunk."""

    def __init__(self, clock: Clock, bound_s: float | None, progress: Progress) -> None:
        self._clock = clock
        self._progress = progress
        self._is_bound = bound_s is not None
        self._began = clock.monotonic()
        self._until = self._began + (bound_s if bound_s is not None else GET_PATIENCE_S)
        self._is_waiting = False

    @property
    def waited_s(self) -> int:
        return int(self._clock.monotonic() - self._began)

    def note_progress(self) -> None:
        """A chunk has come."""
        if not self._is_bound:
            self._until = self._clock.monotonic() + GET_PATIENCE_S
        if self._is_waiting:
            self._is_waiting = False
            self._progress({"waiting_for": []})

    def has_more(self, away: Sequence[str]) -> bool:
        """Whether to wait on for these nodes; says so."""
        if not away or self._clock.monotonic() >= self._until:
            return False
        self._is_waiting = True
        self._progress({"waiting_for": [f"holder {name}, offline" for name in away]})
        return True


class Files:
    """See the module."""

    def __init__(
        self,
        own: OwnKeys,
        facts: FactsHandle,
        holdings: Holdings,
        replication: Replication,
        peers: Peers,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        bus: Bus,
    ) -> None:
        self._own = own
        self._facts = facts
        self._holdings = holdings
        self._replication = replication
        self._peers = peers
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._bus = bus
        self._puts = Puts(own, lambda: self.knowledge, holdings, replication, clock, entropy, offload, note_entries=facts.note_entries)
        replication.attach(self.fetch_sequence)
        self._anchoring: Anchoring | None = None

    def attach(self, anchoring: Anchoring) -> None:
        """This node follows a chain."""
        self._anchoring = anchoring
        self._puts.intend = anchoring.intend

    @property
    def knowledge(self) -> Knowledge:
        return self._facts.knowledge

    def _now(self) -> UnixSeconds:
        return UnixSeconds(int(self._clock.now()))

    def use_keys(self, own: OwnKeys) -> None:
        """The same keys under newer certificates."""
        self._own = own

    def _member(self) -> MemberKeys:
        if self._own.member is None:
            raise Refused(Reason.NO_KEY, "this node is holder-only: it keeps sequences and signs for no member")
        return self._own.member

    async def run_puts(self) -> None:
        """Until cancelled: what takes small records in."""
        await self._puts.groups.run()

    # --- finding a record -------------------------------------------------------------------------------------------

    def find(self, text: str) -> RecordFacts:
        """A record by its HashID in hex, a unique prefix, or a tag-free CID-less name. Raises NOT_FOUND, UsageError, DELETED."""
        wanted = text.strip().lower()
        found = [facts for key, facts in self.knowledge.records.items() if key[1].hex().startswith(wanted)] if wanted else []
        if not found:
            raise LadingError(Reason.NOT_FOUND, f"no record begins with {text!r}", hint="lading ls --all")
        if len(found) > 1:
            raise UsageError(f"{len(found)} records begin with {text!r}", hint="give more of the id")
        return found[0]

    def statement_of(self, facts: RecordFacts) -> tuple[Signed, Statement]:
        """The statement in force. Raises LadingError(DELETED | NOT_FOUND)."""
        verdict = self.knowledge.verdict(facts)
        if verdict.statement is not None:
            return facts.statement(verdict.statement)
        if verdict.tombstone is not None:
            raise LadingError(Reason.DELETED, f"record {facts.key[1].hex()[:16]} was deleted by its owner")
        if facts.key in self.knowledge.erased:
            raise LadingError(Reason.DELETED, f"record {facts.key[1].hex()[:16]} was erased, says the ledger", hint="lading file status")
        raise LadingError(Reason.NOT_FOUND, f"nothing in force is known of record {facts.key[1].hex()[:16]}")

    def _check_given_out(self, facts: RecordFacts) -> None:
        """Raises Refused while an erasure of it is under way: what takes away works at once."""
        if facts.key in self.knowledge.withheld:
            text = f"an erasure of record {facts.key[1].hex()[:16]} is under way on the ledger"
            raise Refused(Reason.DELETED, text, hint="lading file status")

    # --- put --------------------------------------------------------------------------------------------------------

    async def put(
        self,
        paths: Sequence[Path],
        options: PutOptions,
        *,
        progress: Progress = _silent,
        body: AsyncIterator[bytes] | None = None,
        name: str = "stdin",
    ) -> tuple[dict[str, object], list[str]]:
        """Publishes a record. Result: the data of INTERFACE's `put` and warnings. Raises Partial(QUORUM_WRITE) naming the record
        when the copies asked for did not answer in time; what failed before that leaves nothing visible."""
        member = self._member()
        if self._anchoring is not None:
            await self._anchoring.check_first_use("" if options.intent is None else options.intent.schema)
        began = self._clock.monotonic()
        put = await self._puts.put(member, paths, body, name, options, progress)
        sent = self._clock.monotonic()
        holders = await self._wait_ack(put.facts, put.statement, options.ack, progress, resumed=put.already_stored)
        ended = self._clock.monotonic()
        anew = Anew.NOTHING
        if put.already_stored and self._anchoring is not None:
            anew = await self._anchoring.put_again(put.facts.key, options.intent)
        confirmed: float | None = None
        if options.wait_final and self._anchoring is not None:
            await self._anchoring.wait_final(put.facts.key, progress)
            confirmed = round((self._clock.monotonic() - began) * 1000, 1)
        is_new = not put.already_stored and not options.wait_final
        data = self.describe_put(put.facts, put.statement, holders, put.entry_count, put.content_bytes, is_new=is_new)
        data |= {
            "chunks_new": put.chunks_new,
            "bytes_new": put.bytes_new,
            "bytes_saved": max(0, put.sealed_bytes - put.bytes_new),
            "already_stored": put.already_stored,
            "elapsed_ms": {
                "ack": round((ended - began) * 1000, 1),
                "local": round((put.local_at - began) * 1000, 1),
                "replicated": round((sent - began) * 1000, 1),
                "confirmed": confirmed,
            },
        }
        warnings = list(put.warnings)
        if anew is Anew.ASKED:
            warnings.append("its other owners are asked again")
        elif anew is Anew.HERE:
            warnings.append("another node of this member published it: its anchor, as asked for now, is made here too")
        elif put.already_stored and options.intent is not None:
            warnings.append(f"it exists as it is: nothing says that it is a {options.intent.change} of another")
        if data["survives"] == 0 and options.ack != "local":
            warnings.append("survives 0: the loss of one node loses the record; add nodes or ask for more --replicas")
        return data, warnings

    async def _wait_ack(self, facts: RecordFacts, statement: Statement, ack: str, progress: Progress, *, resumed: bool = False) -> Holders:
        """Until receipts say what was asked for. Result: who holds what then. Raises Partial(QUORUM_WRITE) after ACK_PATIENCE_S without
        progress."""
        holders = self._replication.holders(facts)
        if ack == "local" or not self._replication.lacking(facts, statement, ack, holders):
            return holders
        patience_at = self._clock.monotonic() + ACK_PATIENCE_S
        best = -1

        def wanted(fact: object) -> bool:
            return not isinstance(fact, FactsAccepted) or not fact.records or facts.key in fact.records

        with self._bus.subscribe(FactsAccepted, PeerConnected, PeerLost, name="ack", wanted=wanted) as news:
            if resumed:
                self._replication.look_again(facts.key)
            while True:
                holders = self._replication.holders(facts)
                missing = self._replication.lacking(facts, statement, ack, holders)
                if not missing:
                    return holders
                have = sum(map(len, holders.values()))
                if have > best:
                    best, patience_at = have, self._clock.monotonic() + ACK_PATIENCE_S
                progress({"phase": "waiting for receipts", "holders": have, "waiting_for": [missing]})
                left = patience_at - self._clock.monotonic()
                if left <= 0:
                    raise Partial(
                        Reason.QUORUM_WRITE,
                        f"record {statement.hash_id.hex()[:16]}: stored here, but not on as many other nodes as asked ({ack})",
                        hint=f"lading put --resume {statement.hash_id.hex()[:16]}   or   lading peers",
                        record=statement.hash_id.hex(),
                        waiting_for=[missing],
                    )
                with trio.move_on_after(min(left, 1.0)):
                    await news.__anext__()
                    news.take_nowait()  # one look answers them all

    async def resume_put(self, text: str, ack: str, progress: Progress) -> tuple[dict[str, object], list[str]]:
        """Waits for a record that exists to reach its copies."""
        facts = self.find(text)
        _, statement = self.statement_of(facts)
        began = self._clock.monotonic()
        holders = await self._wait_ack(facts, statement, ack, progress, resumed=True)
        manifest = await self.manifest_of(facts)
        data = self.describe_put(facts, statement, holders, len(manifest.entries), manifest.head.content_bytes)
        elapsed = round((self._clock.monotonic() - began) * 1000, 1)
        return data | {"chunks_new": 0, "already_stored": True, "elapsed_ms": {"ack": elapsed}}, []

    def describe_put(
        self, facts: RecordFacts, statement: Statement, holders: Holders, entries: int, content_bytes: int, *, is_new: bool = False
    ) -> dict[str, object]:
        """The facts of INTERFACE's `put` data that are known from receipts. is_new: it was published here just now."""
        per_node: dict[PeerId, int] = {}
        for nodes in holders.values():
            for node in nodes:
                per_node[node] = per_node.get(node, 0) + 1
        return {
            "record": statement.hash_id.hex(),
            "root": statement.chunks_root.hex(),
            "bytes": content_bytes,
            "entries": entries,
            "chunks": statement.data_chunks + statement.manifest_chunks,
            "sequences": sequence_count(statement),
            "holders": [
                {
                    "node": self.knowledge.peer_text(node),
                    "name": self.knowledge.peer_name(node),
                    "sequences": count,
                    "receipt": self.knowledge.receipt_of(facts, node),
                }
                for node, count in sorted(per_node.items(), key=lambda item: self.knowledge.peer_name(item[0]))
            ],
            "survives": self._replication.survives_with(statement, holders),
            "opens_without_owner": [member.hex() for member in facts.grantees()],
            **self._standing(facts.key, is_new=is_new),
        }

    def _standing(self, key: RecordKey, *, is_new: bool) -> dict[str, object]:
        """`tx` and `state`."""
        if self._anchoring is None:
            return {"tx": None, "state": "local"}
        return self._anchoring.standing_of_new(key) if is_new else self._anchoring.standing(key)

    # --- keys -------------------------------------------------------------------------------------------------------

    def record_key(self, facts: RecordFacts, statement: Statement) -> bytes:
        """The record key: derived by the owner, unwrapped by a grantee. Raises Refused(NO_KEY) for everybody else."""
        member = self._own.member
        if member is None:
            raise Refused(Reason.NO_KEY, "this node is holder-only: it opens no record")
        if statement.owner == self._own.owner:
            return member.secrets.record_key(statement.hash_id, statement.epoch)
        for wrap in facts.wraps_for(self._own.member_id):
            with contextlib.suppress(InvalidObject):
                return unwrap_key(wrap, member.hpke, statement.commitment)
        owner = self.knowledge.owner_name(statement.owner)
        raise Refused(
            Reason.NO_KEY,
            f"record {statement.hash_id.hex()[:16]} of {owner} is not shared with this member",
            hint=f"ask {owner} for: lading share {statement.hash_id.hex()[:16]} --to {self._own.member_id.hex()[:16]}",
        )

    async def share(self, text: str, to: MemberId) -> dict[str, object]:
        """An owner-signed wrap of the record key for one member."""
        member = self._member()
        facts = self.find(text)
        _, statement = self.statement_of(facts)
        self._check_given_out(facts)
        if statement.owner != self._own.owner:
            raise Refused(Reason.WRONG_OWNER, "only the owner shares a record", hint=f"ask {self.knowledge.owner_name(statement.owner)}")
        identity = self.knowledge.members().get(to)
        if identity is None:
            raise LadingError(Reason.NOT_FOUND, f"member {to.hex()[:16]} is not known here", hint="lading member list")
        if identity.domain_id != self._own.domain_id:
            raise Refused(
                Reason.WRONG_DOMAIN,
                f"{identity.member} is a member of {identity.domain}; records do not cross domains before there are grants",
                hint="share with a member of this domain: lading member list",
            )
        wrap = make_wrap(
            statement,
            member.secrets.record_key(statement.hash_id, statement.epoch),
            grantee=to,
            recipient=identity.hpke,
            ephemeral_seed=self._entropy.token(32),
            time_s=self._now(),
        )
        signed = sign_wrap(wrap, member.signing)
        await self._facts.submit_own((FactKind.WRAP, encode(signed)))
        kept = await self._replication.spread_wrap(facts, signed)
        return {
            "record": statement.hash_id.hex(),
            "to": to.hex(),
            "name": identity.member,
            "kept_by": sorted(self.knowledge.peer_name(peer) for peer in kept),
        }

    # --- get --------------------------------------------------------------------------------------------------------

    def _away(self, facts: RecordFacts, root: SequenceRoot | None) -> list[str]:
        """Names of nodes that hold a sequence, any of the record if ``root`` is not known, and are not connected."""
        counted = self.knowledge.counting(facts, now=self._now())
        every = {peer for peers in counted.values() for peer in peers}
        have = every if root is None else counted.get(root, every)
        return sorted(self.knowledge.peer_name(peer) for peer in have if peer != self._own.peer_id and not self._peers.is_connected(peer))

    async def manifest_of(self, facts: RecordFacts, patience: _Patience | None = None) -> Manifest:
        """Sequence 0, from this disk or from holders, opened and checked against the statement."""
        signed, statement = self.statement_of(facts)
        key = self.record_key(facts, statement)
        names = await self._manifest_names(facts, statement, patience)
        chunks: dict[int, bytes] = {}

        async def deliver(found: Sequence[tuple[int, bytes]]) -> None:
            chunks.update(found)

        await self.fetch_sequence(facts, SequenceRoot(sequence_root(names)), dict(enumerate(names)), deliver, set(), patience)
        ordered = [chunks[index] for index in range(len(names))]
        manifest = await self._offload.run(open_manifest, statement, key, ordered)
        self._facts.note_entries(signed.object_hash, len(manifest.entries))
        self._replication.learn_roots(statement, [sequence_root(names), *(sequence.root for sequence in manifest.sequences)])
        return manifest

    async def _manifest_names(self, facts: RecordFacts, statement: Statement, patience: _Patience | None) -> tuple[bytes, ...]:
        held = await self._holdings.sequence_of(facts.key, 0)
        if held is not None and statement.manifest_chunks == len(held.names):
            with contextlib.suppress(InvalidObject):
                check_sequence(statement, 0, held.names, held.path)
                return held.names
        for attempt in itertools.count(1):
            # Of this round: the first one, which is that of a node with a receipt if there is one, says the most.
            errors: list[LadingError] = []
            for peer in self._replication.likely_holders(facts, None):
                try:
                    client = await self._peers.exchange(peer)
                    described = await client.describe(statement.owner, statement.hash_id, 0)
                    check_sequence(statement, 0, described.names, described.path)
                    return described.names
                except (StreamBroken, RemoteError, InvalidObject) as error:
                    errors.append(error)
            # A stream broke and its peer may be here again: the other connection of a pair stays when both have dialled.
            is_broken = attempt < FETCH_ROUNDS and any(isinstance(error, StreamBroken) for error in errors)
            if not is_broken and (patience is None or not patience.has_more(self._away(facts, None))):
                break
            await trio.sleep(1.0 + self._entropy.uniform())  # a holder may be coming back
        last = errors[0] if errors else None
        raise self._unreachable(facts, f"no holder of record {statement.hash_id.hex()[:16]} can be reached", None, last, patience)

    def _unreachable(
        self, facts: RecordFacts, text: str, root: SequenceRoot | None, last: LadingError | None, patience: _Patience | None
    ) -> LadingError:
        """What is missing, with whom it is, how long was waited and how to go on."""
        away = self._away(facts, root)
        if last is not None:
            text += f" ({last.message})"
        if away and patience is not None:
            text += f"; waited {patience.waited_s} s for {', '.join(away)}, offline"
        short = facts.key[1].hex()[:16]
        hint = f"lading get {short} --timeout 10m waits longer and goes on where this ended   or   " if away else ""
        return LadingError(Reason.UNREACHABLE, text, hint=f"{hint}lading file status {short}", waiting_for=away)

    async def fetch_sequence(
        self,
        facts: RecordFacts,
        root: SequenceRoot,
        names: Mapping[int, bytes],
        deliver: Deliver,
        sources: set[PeerId],
        patience: _Patience | None = None,
    ) -> None:
        """All wanted chunks of one sequence, this disk first, then holder after holder; each was hashed before it is delivered.
        patience: for holders that are away; without it only FETCH_ROUNDS are made.
        Raises LadingError(UNREACHABLE) naming what is missing."""
        left = dict(names)
        bodies = await self._holdings.bodies([ChunkName(left[index]) for index in sorted(left)])
        local = [(index, data) for index, data in zip(sorted(left), bodies, strict=True) if data is not None]
        for start in range(0, len(local), DELIVERED_CHUNKS_MAX):
            await deliver(local[start : start + DELIVERED_CHUNKS_MAX])
        for index, _ in local:
            del left[index]
        last: LadingError | None = None

        async def take(found: Sequence[tuple[int, bytes]]) -> None:
            await deliver(found)
            for index, _ in found:
                left.pop(index, None)
            if patience is not None:
                patience.note_progress()

        attempt = 0
        while left:
            for peer in self._replication.likely_holders(facts, root, spread=attempt):
                if not left:
                    return
                try:
                    client = await self._peers.exchange(peer)
                    await client.fetch(root, dict(left), take)
                    sources.add(peer)
                except RemoteError as error:
                    last = error
                    if error.verdict is Verdict.BAN:
                        await self._peers.drop(peer, str(error), ban=True)
                except StreamBroken as error:
                    last = error
            attempt += 1
            if left and attempt >= FETCH_ROUNDS and (patience is None or not patience.has_more(self._away(facts, root))):
                text = f"{len(left)} chunks of sequence {root.hex()[:8]} are with nobody who can be reached"
                raise self._unreachable(facts, text, root, last, patience)
            if left:
                await trio.sleep(1.0 + self._entropy.uniform())  # a holder may be reconnecting

    async def get(
        self,
        text: str,
        *,
        output: Path | None,
        directory: Path | None,
        entry: str | None,
        keep: bool,
        inline: Callable[[bytes], Awaitable[None]] | None,
        progress: Progress = _silent,
        wait_s: float | None = None,
    ) -> dict[str, object]:
        """Fetches, verifies and opens a record into files, or one entry into ``inline``. See INTERFACE, `get`.

        wait_s: how long to wait for holders that are away, in all; None: GET_PATIENCE_S since the last chunk."""
        began = self._clock.monotonic()
        facts = self.find(text)
        _, statement = self.statement_of(facts)
        self._check_given_out(facts)
        progress({"phase": "opening the manifest"})
        patience = _Patience(self._clock, wait_s, progress)
        manifest = await self.manifest_of(facts, patience)
        wanted = tuple(range(len(manifest.entries)))
        if entry is not None:
            try:
                wanted = (manifest.index_of(entry),)
            except InvalidObject as error:
                raise LadingError(Reason.NOT_FOUND, f"the record has no entry {entry!r}", hint="lading file status") from error
        sources: set[PeerId] = set()
        files = [index for index in wanted if manifest.entries[index].kind == "file"]
        if inline is not None:
            if len(files) != 1:
                raise UsageError(f"{len(files)} files cannot go to one output", hint="name one with --entry")
            sink: Sink = InlineSink(manifest, files[0], inline, self._offload)
        else:
            assert output is not None or directory is not None
            target = self._target(manifest, wanted, files, statement, output, directory)
            sink = FileSink(manifest, wanted, target, self._offload)
        await sink.open()
        done = 0
        total = sum(manifest.entries[index].size for index in files)
        # In a thread: 5 GiB are 20,480 chunks.
        planned_chunks = await self._offload.run(_plan, manifest, frozenset(files))
        sequences = {index: chunks for index, chunks in planned_chunks.items() if not sink.has(index)}
        roots = [sequence.root for sequence in manifest.sequences]

        async def bring(index: int, slots: trio.CapacityLimiter) -> None:
            nonlocal done
            async with slots:
                planned = {chunk.chunk_index: chunk for chunk in sequences[index]}

                async def deliver(found: Sequence[tuple[int, bytes]]) -> None:
                    nonlocal done
                    chunks = [(planned.pop(chunk_index), data) for chunk_index, data in found]
                    opened = await sink.take(chunks, is_last=not planned)
                    done += opened  # in a line of its own: others add while this waits
                    progress({"phase": "fetching", "bytes": done, "bytes_total": total, "sequences_total": len(roots)})
                    if keep:
                        bodies = [(chunk.name, data) for chunk, data in chunks]
                        await self._holdings.keep_chunks(statement.hash_id[:16], self._now() + OFFER_LIFETIME_S, bodies)

                names = {chunk_index: chunk.name for chunk_index, chunk in planned.items()}
                await self.fetch_sequence(facts, SequenceRoot(roots[index - 1]), names, deliver, sources, patience)

        try:
            slots = trio.CapacityLimiter(1 if inline is not None else SEQUENCES_FETCHING_MAX)
            if inline is not None:
                for index in sorted(sequences):
                    await bring(index, slots)
            else:
                async with trio.open_nursery() as nursery:
                    for index in sorted(sequences):
                        async with slots:
                            pass
                        nursery.start_soon(bring, index, slots)
            path = await sink.finish()
        except BaseException:
            sink.abort()
            raise
        return {
            "record": statement.hash_id.hex(),
            "bytes": total,
            "entries": len(wanted),
            "sources": sorted(self.knowledge.peer_text(peer) for peer in sources),
            "path": path,
            "elapsed_ms": round((self._clock.monotonic() - began) * 1000, 1),
        }

    def _target(
        self,
        manifest: Manifest,
        wanted: Sequence[int],
        files: Sequence[int],
        statement: Statement,
        output: Path | None,
        directory: Path | None,
    ) -> Path:
        """One file goes to the path itself (or into the folder that it names); everything else becomes a folder."""
        single = len(wanted) == 1 and len(files) == 1
        base = Path(manifest.entries[files[0]].path).name if single else statement.hash_id.hex()[:16]
        if output is None:
            assert directory is not None
            return directory / base
        if single and output.is_dir():
            return output / base
        return output

    # --- questions --------------------------------------------------------------------------------------------------

    async def status(self, text: str) -> dict[str, object]:
        """Want, have and verified of every sequence, side by side."""
        facts = self.find(text)
        ledger = None if self._anchoring is None else await self._anchoring.report(facts.key)
        if ledger is not None and ledger.get("status") == "erased" and self.knowledge.verdict(facts).statement is None:
            return self._erased(facts, ledger)
        _, statement = self.statement_of(facts)
        report = self._replication.report(facts, statement)
        names: list[dict[str, object]] = []
        held = await self._holdings.sequences_of(facts.key)
        for sequence in held:
            names.append({"sequence": sequence.index, "chunks": [cid_text(ChunkName(name)) for name in sequence.names]})
        entries: list[dict[str, object]] = []
        with contextlib.suppress(Refused):
            manifest = await self.manifest_of(facts)
            entries = [
                {"path": entry.path, "kind": entry.kind, "size": entry.size, "digest": entry.digest.hex()} for entry in manifest.entries
            ]
        return {
            "record": statement.hash_id.hex(),
            "owner": self.knowledge.owner_name(statement.owner),
            "owner_key": statement.owner.hex(),
            "validity": _validity(statement, self._now()) if ledger is None else ledger["validity"],
            "class": statement.record_class.value,
            "seq": statement.seq,
            "sealed_bytes": statement.sealed_bytes,
            "entries": entries,
            "here": names,
            "opens_without_owner": [member.hex() for member in facts.grantees()],
            **({} if ledger is None else {"ledger": ledger}),
            **report,
        }

    def _erased(self, facts: RecordFacts, ledger: Mapping[str, object]) -> dict[str, object]:
        """What is left to say of a record that is erased: hashes and history stay, and who has signed that its copy is gone."""
        return {
            "record": facts.key[1].hex(),
            "owner": self.knowledge.owner_name(facts.key[0]),
            "owner_key": facts.key[0].hex(),
            "validity": "invalid",
            "erased_by": sorted(self.knowledge.peer_name(peer) for peer in map(PeerId, facts.erasures)),
            "holders": [],
            "ledger": ledger,
        }

    def validity(self, facts: RecordFacts) -> str:
        """Whether a record is in effect: by the chain, where there is one."""
        if self._anchoring is not None:
            return str(self._anchoring.standing(facts.key)["validity"])
        verdict = self.knowledge.verdict(facts)
        return "invalid" if verdict.statement is None else _validity(facts.statement(verdict.statement)[1], self._now())

    def ls(self, *, everything: bool) -> dict[str, object]:
        """Own records and those shared with us; with ``everything`` all that this node knows."""
        rows: list[dict[str, object]] = []
        for facts in self.knowledge.records.values():
            verdict = self.knowledge.verdict(facts)
            if verdict.statement is None:
                if everything and verdict.tombstone is not None:
                    rows.append(
                        {
                            "record": facts.key[1].hex(),
                            "owner": self.knowledge.owner_name(facts.key[0]),
                            "entries": None,
                            "bytes": None,
                            "state": "deleted",
                            "validity": "invalid",
                            "survives": None,
                            "time": 0,
                        }
                    )
                continue
            signed, statement = facts.statement(verdict.statement)
            own = statement.owner == self._own.owner
            if not everything and not own and not facts.wraps_for(self._own.member_id):
                continue
            rows.append(
                {
                    "record": statement.hash_id.hex(),
                    "owner": self.knowledge.owner_name(statement.owner),
                    "owner_key": statement.owner.hex(),
                    "entries": self._facts.entries_of(signed.object_hash),
                    "bytes": statement.sealed_bytes,
                    "state": "conflict" if verdict.conflict else "local",
                    "validity": _validity(statement, self._now()),
                    "survives": self._replication.survives(facts, statement),
                    "time": statement.time_s,
                }
            )
        rows.sort(key=lambda row: (-int(str(row["time"])), str(row["record"])))
        return {"records": rows}

    # --- going away -------------------------------------------------------------------------------------------------

    async def remove(self, text: str, act: str, *, dry_run: bool) -> tuple[dict[str, object], list[str]]:
        """Deletes or erases a record of ours: a tombstone, then a look at which holders have followed it.

        Raises Refused(WRONG_OWNER), LadingError(CONFLICT) when a statement that we did not know of stays in force.
        """
        member = self._member()
        facts = self.find(text)
        _, statement = self.statement_of(facts)
        if statement.owner != self._own.owner:
            raise Refused(Reason.WRONG_OWNER, "only the owner takes a record back", hint="lading file forget drops this node's copy")
        holders = sorted({peer for nodes in self._replication.holders(facts).values() for peer in nodes})
        rows = [{"node": self.knowledge.peer_text(peer), "name": self.knowledge.peer_name(peer)} for peer in holders]
        said = [
            "the owner could always derive the keys of this record again",
            "whoever has read the record may have kept what he read",
        ]
        if dry_run:
            return {"record": statement.hash_id.hex(), "act": act, "dry_run": True, "holders": rows}, said
        following = self.knowledge.next_after(facts)
        tombstone = Tombstone(
            format=FORMAT,
            suite=SUITE,
            network=self._own.network_id,
            domain=self._own.domain_id,
            owner=statement.owner,
            hash_id=statement.hash_id,
            c=statement.c,
            seq=following.seq,
            follows=following.follows,
            covers=tuple(Digest(covered) for covered in following.covers),
            act="erase" if act == "erase" else "delete",
            time_s=self._now(),
        )
        await self._facts.submit_own((FactKind.TOMBSTONE, encode(sign_tombstone(tombstone, member.signing))))
        verdict = self.knowledge.verdict(facts)
        if verdict.statement is not None:
            raise LadingError(
                Reason.CONFLICT,
                f"record {statement.hash_id.hex()[:16]} stays: another node of yours published it again meanwhile",
                hint=f"lading file {act} {statement.hash_id.hex()[:16]} once more takes that back too",
            )
        left = await self._wait_gone(facts, holders, act)
        for row, peer in zip(rows, holders, strict=True):
            row["state"] = "unconfirmed" if peer in left else ("erased" if act == "erase" else "in trash")
        warnings = said if act == "erase" else [f"holders keep it in trash for their window, then collect it; {said[1]}"]
        if left:
            names = ", ".join(self.knowledge.peer_name(peer) for peer in sorted(left))
            warnings = [f"not confirmed yet by {names}: they follow when they hear of it", *warnings]
        return {"record": statement.hash_id.hex(), "act": act, "holders": rows, "unconfirmed": len(left)}, warnings

    async def _wait_gone(self, facts: RecordFacts, holders: Sequence[PeerId], act: str) -> set[PeerId]:
        """Waits a little for connected holders to follow a tombstone. Result: those that have not said so."""
        with self._bus.subscribe(FactsAccepted, name="remove") as news, trio.move_on_after(REMOVE_PATIENCE_S):
            self._replication.look_again(facts.key)
            while any(self._peers.is_connected(peer) or peer == self._own.peer_id for peer in self._unfollowed(facts, holders, act)):
                await news.__anext__()
        return self._unfollowed(facts, holders, act)

    def _unfollowed(self, facts: RecordFacts, holders: Sequence[PeerId], act: str) -> set[PeerId]:
        if act == "erase":
            return {peer for peer in holders if peer not in facts.erasures}
        promised = {receipt.holder for receipt in facts.receipts.values()}
        return {peer for peer in holders if peer in promised}

    async def restate(self, text: str, copies: int, *, dry_run: bool) -> dict[str, object]:
        """Another number of copies for a record of ours: a statement of the same content. Raises Refused(WRONG_OWNER)."""
        member = self._member()
        facts = self.find(text)
        _, statement = self.statement_of(facts)
        if statement.owner != self._own.owner:
            raise Refused(Reason.WRONG_OWNER, "only the owner says how many copies there shall be", hint="lading file pin")
        data: dict[str, object] = {"record": statement.hash_id.hex(), "copies": copies, "before": statement.copies_wanted}
        if dry_run or copies == statement.copies_wanted:
            return data | {"changed": False}
        following = self.knowledge.next_after(facts)
        again = replace(
            statement, seq=following.seq, follows=following.follows, copies_wanted=copies, time_s=max(self._now(), statement.time_s)
        )
        await self._facts.submit_own((FactKind.STATEMENT, encode(sign_statement(again, member.signing))))
        self._replication.look_again(facts.key)
        return data | {"changed": True}

    async def reaffirm(self, text: str) -> dict[str, object]:
        """What is held back of a record of ours is meant as it stands. Raises Refused(WRONG_OWNER), LadingError(NOT_FOUND)."""
        member = self._member()
        facts = self.find(text)
        if facts.key[0] != self._own.owner:
            raise Refused(Reason.WRONG_OWNER, "only the owner re-affirms a record", hint=f"ask {self.knowledge.owner_name(facts.key[0])}")
        held = sorted(self.knowledge.held_objects(facts))
        if not held:
            raise LadingError(Reason.NOT_FOUND, "nothing of this record is in quarantine", hint="lading status")
        for object_hash in held:
            value = Reaffirm(
                format=FORMAT,
                suite=SUITE,
                network=self._own.network_id,
                domain=self._own.domain_id,
                owner=facts.key[0],
                hash_id=facts.key[1],
                c=facts.objects[object_hash][1].value.c,
                object_hash=object_hash,
                confirmer=self._own.owner,
                time_s=self._now(),
            )
            await self._facts.submit_own((FactKind.REAFFIRM, encode(sign_reaffirm(value, member.signing))))
        return {"record": facts.key[1].hex(), "reaffirmed": len(held)}

    async def forget(self, text: str, *, dry_run: bool) -> dict[str, object]:
        """This node hands its duty over, then drops its copy: a pin of our own that says so, and the usual care about surplus copies."""
        facts = self.find(text)
        data = await self.pin(facts.key[1].hex(), self._own.peer_id, "out", dry_run=dry_run)
        return data | {"act": "forget"}

    async def pin(self, text: str, node: PeerId, wish: str, *, dry_run: bool) -> dict[str, object]:
        """An operator's wish for one node and record, signed by the domain's issuing key or by the node's own member."""
        facts = self.find(text)
        data: dict[str, object] = {
            "record": facts.key[1].hex(),
            "node": self.knowledge.peer_text(node),
            "name": self.knowledge.peer_name(node),
            "wish": wish,
            "dry_run": dry_run,
        }
        if dry_run:
            return data
        own = self._own
        entry = self.knowledge.book.get(node)
        if own.issuer is not None:
            key, chain = own.issuer.signing, own.issuer.chain
        elif own.member is not None and entry is not None and entry.identity.member_id == own.member_id:
            key, chain = own.member.signing, own.member.chain
        else:
            raise Refused(
                Reason.REFUSED,
                "only the domain's operator pins on nodes of other members",
                hint="run it on the node that founded the domain",
            )
        before = [pin.seq for _, pin in facts.pins.values() if pin.node == node]
        pin = Pin(
            format=FORMAT,
            suite=SUITE,
            network=own.network_id,
            domain=own.domain_id,
            operator=key.public,
            node=node,
            owner=facts.key[0],
            hash_id=facts.key[1],
            wish="in" if wish == "in" else "out",
            seq=max(before, default=0) + 1,
            time_s=self._now(),
        )
        attested = Attested(envelope=sign_pin(pin, key), chain=chain)
        await self._facts.submit_own((FactKind.PIN, encode(attested)))
        self._replication.look_again(facts.key)
        return data

    def what_if(self, killed: frozenset[PeerId]) -> dict[str, object]:
        """What every record would be after losing these nodes."""
        rows = []
        for facts in self.knowledge.records.values():
            verdict = self.knowledge.verdict(facts)
            if verdict.statement is None:
                continue
            _, statement = facts.statement(verdict.statement)
            holders = self._replication.holders(facts)
            outcome = what_if(holders, killed)
            known = len(holders) == self._replication.root_count(statement)
            rows.append(
                {
                    "record": statement.hash_id.hex(),
                    "owner": self.knowledge.owner_name(statement.owner),
                    "lost_sequences": len(outcome.lost),
                    "readable": not outcome.lost and known,
                    "survives": outcome.survives if known else -1,
                    "smallest_kill_set": [self.knowledge.peer_text(peer) for peer in smallest_kill_set(holders)],
                    "survives_now": survives(holders) if known else -1,
                }
            )
        return {"killed": sorted(self.knowledge.peer_text(peer) for peer in killed), "records": rows}


def _sequence(index: int, sequence: SequenceDescriptor, path: tuple[bytes, ...]) -> HeldSequence:
    names = tuple(ChunkName(name) for name in sequence.names)
    return HeldSequence(index, sequence.root, names, sequence.sizes, path)


def _validity(statement: Statement, now: int) -> str:
    """Where no chain says more: by its statement and this node's clock."""
    return "expired" if 0 < statement.valid_until_s <= now else "valid"


def _plan(manifest: Manifest, files: frozenset[int]) -> dict[int, list[PlannedChunk]]:
    """The chunks that hold something of these entries, by sequence."""
    sequences: dict[int, list[PlannedChunk]] = {}
    for planned in manifest.plan():
        if files.intersection(part.entry_index for part in planned.slices):
            sequences.setdefault(planned.sequence_index, []).append(planned)
    return sequences
