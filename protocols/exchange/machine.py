"""The six request machines of the exchange: PlaceAsker, PlaceServer, FetchAsker, FetchServer, BundleAsker, BundleServer.

Each is one request's life; the conversation holder (node/actors/exchange) keeps a bounded number of them per stream. Chunks are
hashed before they leave a machine: what Store or Deliver carries is what its name says. A holder commits, and only then answers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..crypto import sha256
from ..effects import Effect, Send
from ..errors import Reason, RemoteError, Verdict
from ..limits import (
    CHUNKS_PER_SEQUENCE,
    CHUNKS_PER_SEQUENCE_MAX,
    FRAME_BYTES_MAX,
    LINK_RATE_MIN,
    MANIFEST_CHUNKS_MAX,
    RECEIPT_ITEMS_MAX,
    SEALED_CHUNK_BYTES_MAX,
)
from ..machine import Machine, Outcome, Row
from ..signed import Signed
from .messages import (
    Audit,
    Bundle,
    Bundled,
    BundledRecord,
    BundledSequence,
    Cancel,
    Chunk,
    Confirm,
    Credit,
    Describe,
    Done,
    Fetch,
    Need,
    Place,
    Placed,
    Refused,
)

REQUESTS_OPEN_MAX = 64  # of one peer at once on one stream; more are refused with FLOOD
CREDIT_BYTES = 4 * 1024 * 1024  # one sequence of 16 chunks: two in flight hide the commit of one
# A sequence of 16 chunks with their tags, which then comes without any credit on the way back.
FETCH_CREDIT_BYTES = CHUNKS_PER_SEQUENCE * SEALED_CHUNK_BYTES_MAX
SEQUENCES_MAX = 1 << 32  # of one record
SEQUENCE_CHUNKS_MAX = max(CHUNKS_PER_SEQUENCE_MAX, MANIFEST_CHUNKS_MAX)  # sequence 0 is the manifest
SMALL_BYTES_MAX = 256 * 1024  # goes in a bundle, unasked: one round trip less is worth no more than this in vain
# Goes in a bundle when many are on their way: a question, two commits and a signature for each would cost more than what is in vain.
MEDIUM_BYTES_MAX = 2 * 1024 * 1024
BUNDLE_BYTES_MAX = FRAME_BYTES_MAX - 1024  # one frame
# A chunk of so many bytes follows its bundle in a frame of its own, which nobody encodes or copies.
BEHIND_CHUNK_BYTES_MIN = 32 * 1024
BEHIND_BYTES_MAX = 3 * FETCH_CREDIT_BYTES  # of one bundle: a commit's worth
BEHIND_CHUNKS_MAX = BEHIND_BYTES_MAX // BEHIND_CHUNK_BYTES_MIN
assert MEDIUM_BYTES_MAX <= BEHIND_BYTES_MAX
LOAD_CHUNKS_MAX = 8  # read from disk at once for one request, whatever credit the peer gives: 2 MiB of memory
PLACE_PATIENCE_S = 30.0  # a request without any progress is given up, so that a stalling peer is replaced
FETCH_PATIENCE_S = 10.0
# Chunks of others on the same stream excuse a request that waits, no longer than this: 64 chunks, 16 MiB, at 0.5 Mbit/s.
SHARED_PATIENCE_S = 300.0
# A request ends whatever comes meanwhile: 64 sequences of 16 chunks at once take 36 minutes over a fair link of 1 Mbit/s, and a
# manifest may be larger than that.
REQUEST_LIFE_S = 3600.0
REQUEST_LIFE_PER_CHUNK_S = 30.0


@dataclass(frozen=True, slots=True)
class Start:
    """The asking side begins."""


@dataclass(frozen=True, slots=True)
class Checked:
    """Answer to CheckPlace: allowed; missing: indexes that are not on this disk."""

    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Answer to CheckPlace or Commit: no, with the reason's name."""

    reason: str
    text: str = ""
    refusal: Signed | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """These chunks are durable now."""

    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """The whole sequence is durable and spoken for: the signed hold or receipt."""

    answer: Signed


@dataclass(frozen=True, slots=True)
class Loaded:
    """Answer to Load: chunks in the order asked; None where this node has none."""

    chunks: tuple[tuple[int, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Consumed:
    """The asking side has used up so many bytes, of so many chunks: more credit may be given."""

    bytes: int
    chunks: int = 1


@dataclass(frozen=True, slots=True)
class Abandon:
    """Our own side no longer wants this request."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come (see wake_at)."""


@dataclass(frozen=True, slots=True)
class CheckPlace:
    """May this be kept, and what of it is missing? Answer: Checked or Rejected."""

    place: Place


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this chunk: its bytes hash to the name. Answer, when durable: Stored."""

    index: int
    name: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """All chunks are durable: take the sequence and sign for it. Answer: Committed or Rejected."""

    place: Place


@dataclass(frozen=True, slots=True)
class Load:
    """Read these chunks from disk. Answer: Loaded."""

    root: bytes
    indexes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Deliver:
    """A chunk that hashes to its name, for the asking side."""

    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Gathered:
    """So many bytes more are held until the bundle is whole."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep what may be kept of this bundle, which is whole now. Answer, when durable: Kept; or Rejected."""

    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Kept:
    """Answer to Keep."""

    answer: Bundled


@dataclass(frozen=True, slots=True)
class Finished:
    """The request ended as wished. answer: hold or receipt of a Place; missing: what a Fetch did not bring; bundled: of a Bundle."""

    answer: Signed | None = None
    missing: tuple[int, ...] = ()
    sent_bytes: int = 0
    bundled: Bundled | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended otherwise."""

    reason: Reason
    text: str


class RequestState(enum.Enum):
    NEW = "new"
    ASKED = "asked"
    CHECKING = "checking"
    MOVING = "moving"
    COMMITTING = "committing"
    ENDED = "ended"


S = RequestState
_ENDED = frozenset({S.ENDED})


def reason_named(stable_name: str) -> Reason:
    """The Reason of that name; REFUSED for a name that we do not know (a newer peer's)."""
    for reason in Reason:
        if reason.stable_name == stable_name:
            return reason
    return Reason.REFUSED


def _violation(text: str) -> RemoteError:
    return RemoteError(Reason.MALFORMED, text, verdict=Verdict.DROP)


def check_question(message: Confirm | Describe | Audit | Bundle) -> None:
    """Form of a question: every hash has 32 bytes. Raises RemoteError(MALFORMED); what the values mean is checked by the holder."""
    match message:
        case Bundle(_, records):
            hashes, numbers = _check_bundle(records)
        case Confirm(_, _, count, items, _):
            hashes = [digest for _, root, path in items for digest in (root, *path)]
            numbers = [count, *(index for index, _, _ in items)]
        case Describe(_, owner, hash_id, index):
            hashes, numbers = [owner, hash_id], [index]
            if index >= SEQUENCES_MAX:
                raise _violation(f"sequence {index}, below {SEQUENCES_MAX} wanted")
        case Audit(_, nonce, ranges):
            hashes = [nonce, *(name for name, _, _ in ranges)]
            numbers = [number for _, offset, length in ranges for number in (offset, length)]
    if any(len(digest) != 32 for digest in hashes):
        raise _violation("a hash that is not 32 bytes")
    if any(not 0 <= number < 2**63 for number in numbers):
        raise _violation("a number out of bounds")


def bundled_bytes(record: BundledRecord) -> int:
    """At most so many bytes of a bundle's frame. A bundle has BUNDLE_BYTES_MAX of them and RECEIPT_ITEMS_MAX sequences at most."""
    statement = len(record.statement.body) + 128
    return statement + sum(
        16 + 34 * len(sequence.path) + sum(5 + (0 if _is_behind(chunk) else len(chunk)) for chunk in sequence.chunks)
        for sequence in record.sequences
    )


def behind_bytes(record: BundledRecord) -> int:
    """So many bytes follow the bundle's frame: of a bundle at most BEHIND_BYTES_MAX."""
    return sum(len(chunk) for sequence in record.sequences for chunk in sequence.chunks if _is_behind(chunk))


def _is_behind(chunk: bytes) -> bool:
    return len(chunk) >= BEHIND_CHUNK_BYTES_MIN


def parted(records: Sequence[BundledRecord]) -> tuple[tuple[BundledRecord, ...], tuple[bytes, ...]]:
    """The records as their frame says them, nothing in the place of each large chunk, and those chunks in order."""
    behind: list[bytes] = []

    def said(chunk: bytes) -> bytes:
        if not _is_behind(chunk):
            return chunk
        behind.append(chunk)
        return b""

    return _mapped(records, said), tuple(behind)


def _mapped(records: Sequence[BundledRecord], change: Callable[[bytes], bytes]) -> tuple[BundledRecord, ...]:
    """The same records with other chunks."""
    return tuple(
        BundledRecord(
            record.statement, tuple(BundledSequence(one.index, one.path, tuple(map(change, one.chunks))) for one in record.sequences)
        )
        for record in records
    )


def _chunks_of(records: Sequence[BundledRecord]) -> Iterator[bytes]:
    return (chunk for record in records for sequence in record.sequences for chunk in sequence.chunks)


def _check_bundle(records: tuple[BundledRecord, ...]) -> tuple[list[bytes], list[int]]:
    """Every hash and every number of a bundle, after its own bounds were checked."""
    sequences = [sequence for record in records for sequence in record.sequences]
    if not 0 < len(sequences) <= RECEIPT_ITEMS_MAX or not all(record.sequences for record in records):
        raise _violation(f"a bundle of {len(records)} records and {len(sequences)} sequences")
    if any(len({one.index for one in record.sequences}) != len(record.sequences) for record in records):
        raise _violation("one sequence twice in a record")
    if any(not 0 < len(sequence.chunks) <= SEQUENCE_CHUNKS_MAX for sequence in sequences):
        raise _violation("a sequence without chunks, or with too many")
    if any(chunk and not 16 < len(chunk) <= SEALED_CHUNK_BYTES_MAX for chunk in _chunks_of(records)):
        raise _violation("a size out of bounds")
    if sum(not chunk for chunk in _chunks_of(records)) > BEHIND_CHUNKS_MAX:
        raise _violation("too many chunks behind a bundle")
    return [digest for sequence in sequences for digest in sequence.path], [sequence.index for sequence in sequences]


def request_life_s(chunk_count: int) -> float:
    """Seconds after which a request is given up, progress or not. chunk_count: that it may have to move, 0 for a question."""
    return REQUEST_LIFE_S + chunk_count * REQUEST_LIFE_PER_CHUNK_S


class _Request(Machine):
    """What all six share: the progress clock and the ends."""

    patience_s: ClassVar[float] = PLACE_PATIENCE_S

    def __init__(self, request: int) -> None:
        super().__init__(S.NEW)
        self.request = request
        self._progress_at: float | None = None

    @property
    def ended(self) -> bool:
        return self.state is S.ENDED

    def _waits_for_ourselves(self) -> bool:
        """What is owed is owed by our own disk or reader: the peer cannot be late."""
        return False

    def wake_at(self) -> float | None:
        if self.state is S.ENDED or self._progress_at is None or self._waits_for_ourselves():
            return None
        return self._progress_at + self.patience_s

    def _is_late(self, now_s: float) -> bool:
        wake_at = self.wake_at()
        return wake_at is not None and now_s >= wake_at

    def ignore(self, event: object, now_s: float) -> Outcome:
        return self.state, ()


class _Asker(_Request):
    """What all three that ask share: how it ends when nothing comes of it."""

    def _lateness(self) -> str:
        raise NotImplementedError

    def refused(self, event: Refused, now_s: float) -> Outcome:
        return S.ENDED, (Failed(reason_named(event.reason), event.text or "refused"),)

    def tick(self, event: Tick, now_s: float) -> Outcome:
        if not self._is_late(now_s):
            return self.state, ()
        return S.ENDED, (Send(Cancel(self.request)), Failed(Reason.STALLED, self._lateness()))

    def abandon(self, event: Abandon, now_s: float) -> Outcome:
        return S.ENDED, (Send(Cancel(self.request)),)


class _Server(_Request):
    """And all three that answer."""

    def _lateness(self) -> str:
        raise NotImplementedError

    def cancel(self, event: Cancel, now_s: float) -> Outcome:
        return S.ENDED, (Failed(Reason.CANCELLED, "the peer no longer wants it"),)

    def rejected(self, event: Rejected, now_s: float) -> Outcome:
        return S.ENDED, (
            Send(Refused(self.request, event.reason, event.text, event.refusal)),
            Failed(reason_named(event.reason), event.text),
        )

    def tick(self, event: Tick, now_s: float) -> Outcome:
        if not self._is_late(now_s):
            return self.state, ()
        why = f"{self._lateness()} for {self.patience_s:.0f} s"
        return S.ENDED, (Send(Refused(self.request, Reason.STALLED.stable_name, why)), Failed(Reason.STALLED, why))


class PlaceAsker(_Asker):
    """Asks a holder to keep one sequence and sends what it lacks."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Start): ("start", frozenset({S.ASKED})),
        (S.ASKED, Need): ("need", frozenset({S.MOVING})),
        (S.ASKED, Placed): ("placed", _ENDED),
        (S.ASKED, Refused): ("refused", _ENDED),
        (S.MOVING, Loaded): ("loaded", frozenset({S.MOVING, S.ENDED})),
        (S.ASKED, Credit): ("ignore", frozenset({S.ASKED})),
        (S.MOVING, Credit): ("credit", frozenset({S.MOVING})),
        (S.MOVING, Placed): ("placed", _ENDED),
        (S.MOVING, Refused): ("refused", _ENDED),
        (S.ASKED, Tick): ("tick", frozenset({S.ASKED, S.ENDED})),
        (S.MOVING, Tick): ("tick", frozenset({S.MOVING, S.ENDED})),
        (S.ASKED, Abandon): ("abandon", _ENDED),
        (S.MOVING, Abandon): ("abandon", _ENDED),
        (S.ENDED, Need): ("ignore", _ENDED),
        (S.ENDED, Credit): ("ignore", _ENDED),
        (S.ENDED, Placed): ("ignore", _ENDED),
        (S.ENDED, Refused): ("ignore", _ENDED),
        (S.ENDED, Loaded): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
        (S.ENDED, Abandon): ("ignore", _ENDED),
    }

    def __init__(self, place: Place) -> None:
        super().__init__(place.request)
        self.place = place
        self._credit = 0
        self._to_load: list[int] = []
        self._loading = False
        self.sent_bytes = 0

    def start(self, event: Start, now_s: float) -> Outcome:
        self._progress_at = now_s
        return S.ASKED, (Send(self.place),)

    def need(self, event: Need, now_s: float) -> Outcome:
        self._progress_at = now_s
        count = len(self.place.names)
        if len(event.missing) > count or any(not 0 <= index < count for index in event.missing):
            raise _violation("Need for chunks that were not offered")
        if event.credit < 1:
            raise _violation("no credit")
        self._credit = event.credit
        self._to_load = list(dict.fromkeys(event.missing))
        return S.MOVING, self._load_more()

    def credit(self, event: Credit, now_s: float) -> Outcome:
        if event.bytes < 1:
            raise _violation("no credit")
        self._progress_at = now_s
        self._credit += event.bytes
        return S.MOVING, self._load_more()

    def _waits_for_ourselves(self) -> bool:
        return self._loading

    def _load_more(self) -> tuple[Effect, ...]:
        if self._loading or not self._to_load:
            return ()
        take: list[int] = []
        for index in self._to_load[:LOAD_CHUNKS_MAX]:
            size = self.place.sizes[index]
            if size > self._credit:
                break
            self._credit -= size
            take.append(index)
        if not take:
            return ()
        del self._to_load[: len(take)]
        self._loading = True
        return (Load(self.place.root, tuple(take)),)

    def loaded(self, event: Loaded, now_s: float) -> Outcome:
        self._loading = False
        self._progress_at = now_s
        sends: list[Effect] = []
        for index, data in event.chunks:
            if data is None:
                sends += [Send(Cancel(self.request)), Failed(Reason.INTEGRITY, f"chunk {index} is no longer on this disk")]
                return S.ENDED, tuple(sends)
            self.sent_bytes += len(data)
            sends.append(Send(Chunk(self.request, index, data)))
        return S.MOVING, (*sends, *self._load_more())

    def placed(self, event: Placed, now_s: float) -> Outcome:
        return S.ENDED, (Finished(answer=event.answer, sent_bytes=self.sent_bytes),)

    def _lateness(self) -> str:
        return f"no progress for {self.patience_s:.0f} s"


class PlaceServer(_Server):
    """Takes one sequence: authority first, then only the chunks asked for, each hashed before it is stored."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Place): ("place", frozenset({S.CHECKING})),
        (S.CHECKING, Checked): ("checked", frozenset({S.MOVING, S.COMMITTING})),
        (S.CHECKING, Rejected): ("rejected", _ENDED),
        (S.CHECKING, Cancel): ("cancel", _ENDED),
        (S.MOVING, Chunk): ("chunk", frozenset({S.MOVING})),
        (S.MOVING, Stored): ("stored", frozenset({S.MOVING, S.COMMITTING})),
        (S.MOVING, Rejected): ("rejected", _ENDED),
        (S.MOVING, Cancel): ("cancel", _ENDED),
        (S.MOVING, Tick): ("tick", frozenset({S.MOVING, S.ENDED})),
        (S.CHECKING, Tick): ("ignore", frozenset({S.CHECKING})),
        (S.COMMITTING, Tick): ("ignore", frozenset({S.COMMITTING})),
        (S.COMMITTING, Committed): ("committed", _ENDED),
        (S.COMMITTING, Rejected): ("rejected", _ENDED),
        (S.COMMITTING, Cancel): ("ignore", frozenset({S.COMMITTING})),
        (S.ENDED, Chunk): ("ignore", _ENDED),
        (S.ENDED, Stored): ("ignore", _ENDED),
        (S.ENDED, Checked): ("ignore", _ENDED),
        (S.ENDED, Committed): ("ignore", _ENDED),
        (S.ENDED, Rejected): ("ignore", _ENDED),
        (S.ENDED, Cancel): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
    }

    def __init__(self, request: int) -> None:
        super().__init__(request)
        self._place: Place | None = None
        self._missing: set[int] = set()
        self._storing: set[int] = set()
        self._granted = 0

    def place(self, event: Place, now_s: float) -> Outcome:
        count = len(event.names)
        if not 0 < count <= SEQUENCE_CHUNKS_MAX or len(event.sizes) != count:
            raise _violation(f"a sequence of {count} chunks and {len(event.sizes)} sizes")
        if len(event.root) != 32 or any(len(name) != 32 for name in event.names):
            raise _violation("a root or chunk name that is not 32 bytes")
        if any(not 16 < size <= SEALED_CHUNK_BYTES_MAX for size in event.sizes):
            raise _violation("a size out of bounds")
        self._place = event
        self._progress_at = now_s
        return S.CHECKING, (CheckPlace(event),)

    def _check(self, event: Chunk) -> bytes:
        assert self._place is not None
        if not 0 <= event.index < len(self._place.names):
            raise _violation(f"chunk {event.index} of {len(self._place.names)}")
        name = self._place.names[event.index]
        if len(event.data) != self._place.sizes[event.index] or sha256(event.data) != name:
            raise RemoteError(Reason.WRONG_NAME, "a chunk whose bytes do not match its name", verdict=Verdict.BAN)
        return name

    def checked(self, event: Checked, now_s: float) -> Outcome:
        assert self._place is not None
        self._progress_at = now_s
        self._missing = set(event.missing)
        if not self._missing:
            return S.COMMITTING, (Commit(self._place),)
        self._granted = CREDIT_BYTES
        return S.MOVING, (Send(Need(self.request, event.missing, CREDIT_BYTES)),)

    def chunk(self, event: Chunk, now_s: float) -> Outcome:
        assert self._place is not None
        name = self._check(event)
        if event.index not in self._missing or event.index in self._storing:
            raise _violation("a chunk that was not asked for, or sent twice")
        self._granted -= len(event.data)
        if self._granted < 0:
            raise RemoteError(Reason.FLOOD, "more bytes than the credit allows")
        self._progress_at = now_s
        self._storing.add(event.index)
        return S.MOVING, (Store(event.index, name, event.data),)

    def stored(self, event: Stored, now_s: float) -> Outcome:
        assert self._place is not None
        freed = 0
        for index in event.indexes:
            if index in self._missing:
                self._missing.discard(index)
                self._storing.discard(index)
                freed += self._place.sizes[index]
        self._progress_at = now_s
        if not self._missing:
            return S.COMMITTING, (Commit(self._place),)
        self._granted += freed
        return S.MOVING, (Send(Credit(self.request, freed)),) if freed else ()

    def committed(self, event: Committed, now_s: float) -> Outcome:
        return S.ENDED, (Send(Placed(self.request, event.answer)), Finished(answer=event.answer))

    def _waits_for_ourselves(self) -> bool:
        return self.state is not S.MOVING or bool(self._storing)

    def _lateness(self) -> str:
        return "nothing came"


class FetchAsker(_Asker):
    """Asks for chunks of one sequence; hands on only those that hash to their names, in the order they come."""

    patience_s: ClassVar[float] = FETCH_PATIENCE_S
    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Start): ("start", frozenset({S.MOVING})),
        (S.MOVING, Chunk): ("chunk", frozenset({S.MOVING})),
        (S.MOVING, Consumed): ("consumed", frozenset({S.MOVING})),
        (S.MOVING, Done): ("done", _ENDED),
        (S.MOVING, Refused): ("refused", _ENDED),
        (S.MOVING, Tick): ("tick", frozenset({S.MOVING, S.ENDED})),
        (S.MOVING, Abandon): ("abandon", _ENDED),
        (S.ENDED, Chunk): ("ignore", _ENDED),
        (S.ENDED, Consumed): ("ignore", _ENDED),
        (S.ENDED, Done): ("ignore", _ENDED),
        (S.ENDED, Refused): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
        (S.ENDED, Abandon): ("ignore", _ENDED),
    }

    def __init__(self, request: int, root: bytes, names: Mapping[int, bytes], *, credit: int = FETCH_CREDIT_BYTES) -> None:
        """names: chunk index -> name, of the chunks wanted. credit: sealed bytes on the way or unread here, at least one chunk."""
        assert credit >= SEALED_CHUNK_BYTES_MAX
        super().__init__(request)
        self._root = root
        self._names = dict(names)
        self._left = set(self._names)
        self._credit = credit
        # Given back in large steps, but never so late that the holder could not send a chunk of the largest size, and soon enough for a
        # reader that takes several chunks at once and is slow.
        self._give_at = max(1, min(credit // 8, credit - SEALED_CHUNK_BYTES_MAX))
        self._owed = 0
        self._unread = 0

    def start(self, event: Start, now_s: float) -> Outcome:
        self._progress_at = now_s
        return S.MOVING, (Send(Fetch(self.request, self._root, tuple(sorted(self._names)), self._credit)),)

    def chunk(self, event: Chunk, now_s: float) -> Outcome:
        if event.index not in self._left:
            raise _violation("a chunk that was not asked for, or sent twice")
        self._credit -= len(event.data)
        if self._credit < 0:
            raise RemoteError(Reason.FLOOD, "more bytes than the credit allows")
        if sha256(event.data) != self._names[event.index]:
            raise RemoteError(Reason.WRONG_NAME, "a chunk whose bytes do not match its name", verdict=Verdict.BAN)
        self._progress_at = now_s
        self._left.discard(event.index)
        self._unread += 1
        return S.MOVING, (Deliver(event.index, event.data),)

    def consumed(self, event: Consumed, now_s: float) -> Outcome:
        self._progress_at = now_s
        self._unread = max(0, self._unread - event.chunks)
        self._owed += event.bytes
        # What is left fits the credit that the holder has already: more would only be a frame more.
        is_enough = self._credit >= len(self._left) * SEALED_CHUNK_BYTES_MAX
        if is_enough or self._owed < self._give_at:
            return S.MOVING, ()
        owed, self._owed = self._owed, 0
        self._credit += owed
        return S.MOVING, (Send(Credit(self.request, owed)),)

    def done(self, event: Done, now_s: float) -> Outcome:
        missing = tuple(sorted(self._left))
        if set(event.missing) != self._left:
            raise _violation("Done that names other chunks than those that did not come")
        return S.ENDED, (Finished(missing=missing),)

    def _waits_for_ourselves(self) -> bool:
        return self._unread > 0

    def _lateness(self) -> str:
        return f"no chunk for {self.patience_s:.0f} s"


class FetchServer(_Server):
    """Reads chunks from disk as the credit allows and sends them."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Fetch): ("fetch", frozenset({S.MOVING, S.ENDED})),
        (S.MOVING, Loaded): ("loaded", frozenset({S.MOVING, S.ENDED})),
        (S.MOVING, Credit): ("credit", frozenset({S.MOVING})),
        (S.MOVING, Cancel): ("cancel", _ENDED),
        (S.MOVING, Rejected): ("rejected", _ENDED),
        (S.MOVING, Tick): ("tick", frozenset({S.MOVING, S.ENDED})),
        (S.ENDED, Loaded): ("ignore", _ENDED),
        (S.ENDED, Credit): ("ignore", _ENDED),
        (S.ENDED, Cancel): ("ignore", _ENDED),
        (S.ENDED, Rejected): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
    }

    def __init__(self, request: int) -> None:
        super().__init__(request)
        self._root = b""
        self._left: list[int] = []
        self._credit = 0
        self._loading = False
        self._missing: list[int] = []

    def fetch(self, event: Fetch, now_s: float) -> Outcome:
        if len(event.indexes) > SEQUENCE_CHUNKS_MAX or len(set(event.indexes)) != len(event.indexes) or event.credit < 1:
            raise _violation("a Fetch out of bounds")
        if len(event.root) != 32 or any(not 0 <= index < SEQUENCE_CHUNKS_MAX for index in event.indexes):
            raise _violation("a root that is not 32 bytes or a chunk index out of bounds")
        self._root = event.root
        self._left = list(event.indexes)
        self._credit = event.credit
        self._progress_at = now_s
        if not self._left:
            return S.ENDED, (Send(Done(self.request)), Finished())
        return S.MOVING, self._load_more()

    def _waits_for_ourselves(self) -> bool:
        return self._loading

    def _load_more(self) -> tuple[Effect, ...]:
        # Sizes are known only after reading, so every chunk counts as a whole one until then.
        count = min(self._credit // SEALED_CHUNK_BYTES_MAX, len(self._left), LOAD_CHUNKS_MAX)
        if self._loading or count == 0:
            return ()
        take, self._left = tuple(self._left[:count]), self._left[count:]
        self._credit -= count * SEALED_CHUNK_BYTES_MAX
        self._loading = True
        return (Load(self._root, take),)

    def loaded(self, event: Loaded, now_s: float) -> Outcome:
        self._loading = False
        self._progress_at = now_s
        sends: list[Effect] = []
        for index, data in event.chunks:
            self._credit += SEALED_CHUNK_BYTES_MAX
            if data is None:
                self._missing.append(index)
                continue
            self._credit -= len(data)
            sends.append(Send(Chunk(self.request, index, data)))
        if not self._left:
            return S.ENDED, (*sends, Send(Done(self.request, tuple(self._missing))), Finished(missing=tuple(self._missing)))
        return S.MOVING, (*sends, *self._load_more())

    def credit(self, event: Credit, now_s: float) -> Outcome:
        if event.bytes < 1:
            raise _violation("no credit")
        self._progress_at = now_s
        self._credit += event.bytes
        return S.MOVING, self._load_more()

    def _lateness(self) -> str:
        return "no credit came"


class BundleAsker(_Asker):
    """Has small and medium records kept: the bundle, the large chunks behind it, one answer."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Start): ("start", frozenset({S.ASKED})),
        (S.ASKED, Bundled): ("bundled", _ENDED),
        (S.ASKED, Refused): ("refused", _ENDED),
        (S.ASKED, Tick): ("tick", frozenset({S.ASKED, S.ENDED})),
        (S.ASKED, Abandon): ("abandon", _ENDED),
        (S.ENDED, Bundled): ("ignore", _ENDED),
        (S.ENDED, Refused): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
        (S.ENDED, Abandon): ("ignore", _ENDED),
    }

    def __init__(self, request: int, records: Sequence[BundledRecord]) -> None:
        super().__init__(request)
        self._records, self._behind = parted(records)
        # Nothing is heard before all has arrived, and others may share the link.
        self._way_s = sum(map(len, self._behind)) / LINK_RATE_MIN

    def wake_at(self) -> float | None:
        wake_at = super().wake_at()
        return None if wake_at is None else wake_at + self._way_s

    def start(self, event: Start, now_s: float) -> Outcome:
        self._progress_at = now_s
        chunks = (Send(Chunk(self.request, index, data)) for index, data in enumerate(self._behind))
        return S.ASKED, (Send(Bundle(self.request, self._records)), *chunks)

    def bundled(self, event: Bundled, now_s: float) -> Outcome:
        return S.ENDED, (Finished(bundled=event),)

    def _lateness(self) -> str:
        return f"no answer for {self.patience_s + self._way_s:.0f} s"


class BundleServer(_Server):
    """Gathers what follows a bundle; when it is whole, all of it is judged and kept at once."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (S.NEW, Bundle): ("bundle", frozenset({S.MOVING, S.COMMITTING})),
        (S.MOVING, Chunk): ("chunk", frozenset({S.MOVING, S.COMMITTING})),
        (S.MOVING, Cancel): ("cancel", _ENDED),
        (S.MOVING, Tick): ("tick", frozenset({S.MOVING, S.ENDED})),
        (S.COMMITTING, Kept): ("kept", _ENDED),
        (S.COMMITTING, Rejected): ("rejected", _ENDED),
        (S.COMMITTING, Cancel): ("ignore", frozenset({S.COMMITTING})),
        (S.COMMITTING, Tick): ("ignore", frozenset({S.COMMITTING})),
        (S.ENDED, Chunk): ("ignore", _ENDED),
        (S.ENDED, Kept): ("ignore", _ENDED),
        (S.ENDED, Rejected): ("ignore", _ENDED),
        (S.ENDED, Cancel): ("ignore", _ENDED),
        (S.ENDED, Tick): ("ignore", _ENDED),
    }

    def __init__(self, request: int) -> None:
        super().__init__(request)
        self._records: tuple[BundledRecord, ...] = ()
        self._behind: list[bytes] = []
        self._behind_count = 0
        self._behind_bytes = 0

    def bundle(self, event: Bundle, now_s: float) -> Outcome:
        check_question(event)
        self._progress_at = now_s
        self._records = event.records
        self._behind_count = sum(not chunk for chunk in _chunks_of(event.records))
        return (S.MOVING, ()) if self._behind_count else (S.COMMITTING, (Keep(event),))

    def chunk(self, event: Chunk, now_s: float) -> Outcome:
        if event.index != len(self._behind):
            raise _violation(f"chunk {event.index} behind a bundle, {len(self._behind)} wanted")
        if not 16 < len(event.data) <= SEALED_CHUNK_BYTES_MAX:
            raise _violation("a size out of bounds")
        self._behind_bytes += len(event.data)
        if self._behind_bytes > BEHIND_BYTES_MAX:
            raise RemoteError(Reason.FLOOD, f"more than {BEHIND_BYTES_MAX} bytes behind a bundle")
        self._progress_at = now_s
        self._behind.append(event.data)
        gathered = Gathered(len(event.data))
        if len(self._behind) < self._behind_count:
            return S.MOVING, (gathered,)
        rest = iter(self._behind)
        whole = Bundle(self.request, _mapped(self._records, lambda chunk: chunk or next(rest)))
        self._records, self._behind = (), []
        return S.COMMITTING, (gathered, Keep(whole))

    def kept(self, event: Kept, now_s: float) -> Outcome:
        return S.ENDED, (Send(event.answer), Finished(bundled=event.answer))

    def _waits_for_ourselves(self) -> bool:
        return self.state is not S.MOVING

    def _lateness(self) -> str:
        return "nothing came"
