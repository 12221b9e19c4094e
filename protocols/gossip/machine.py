"""One end of a gossip stream. Ids first, bodies on demand, sets reconciled on connect and from time to time; nothing is taken on trust.

The machine knows no facts itself: it asks with FilterUnknown and LoadBodies and hands what arrives up with Deliver. What the
surroundings accept comes back to the machines of other peers as HaveFacts.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..effects import Close, Effect, Send
from ..errors import Reason, RemoteError
from ..machine import Machine, Outcome, Row
from .facts import fact_id
from .messages import Announce, Bodies, BucketIds, Seen, Summary, Want
from .sketch import BUCKET_COUNT, SKETCH_BYTES, differing_buckets

IDS_PER_MESSAGE_MAX = 1024  # 32 KiB of ids
BODIES_BYTES_MAX = 256 * 1024  # in one message, so that a frame stays far below its limit
WANTED_MAX = 4096  # ids asked for and not yet answered; more wait for the next reconciliation
ASKED_MAX = 4 * WANTED_MAX  # ids that the peer wants and has not got; more are dropped, and wanted again after a reconciliation
LOAD_IDS_MAX = 64  # bodies in memory at once for one peer
WANT_PATIENCE_S = 20.0  # after that another neighbour may be asked for the same id
BEAT_INTERVAL_S = 3.0
SILENCE_MAX_S = 12.0  # four beats: an unplugged or frozen peer is noticed within 20 s (RECORDS, Places)
RECONCILE_INTERVAL_S = 30.0
SEEN_ENTRIES_MAX = 512
PEER_ID_BYTES = 38
BODY_BYTES_MAX = 200 * 1024


class GossipState(enum.Enum):
    IDLE = "idle"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream stands. count and sketch describe our own set."""

    count: int
    sketch: bytes


@dataclass(frozen=True, slots=True)
class HaveFacts:
    """Facts that were accepted and committed here, not heard from this peer."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Answer to FilterUnknown: those of the ids that we lack and want."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Answer to LoadBodies: what was found."""

    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class OurSet:
    """Answer to DescribeSet."""

    count: int
    sketch: bytes


@dataclass(frozen=True, slots=True)
class BucketLoaded:
    """Answer to LoadBucket: all our ids in it."""

    bucket: int
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LifeSigns:
    """Answer to CollectLife: (peer id, age in seconds) to pass on."""

    entries: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come (see wake_at)."""


@dataclass(frozen=True, slots=True)
class FilterUnknown:
    """Which of these do we lack? Answer: Unknown."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoadBodies:
    """Answer: Loaded."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoadBucket:
    """Answer: BucketLoaded."""

    bucket: int


@dataclass(frozen=True, slots=True)
class DescribeSet:
    """Answer: OurSet."""


@dataclass(frozen=True, slots=True)
class CollectLife:
    """Answer: LifeSigns."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Facts from this peer, unchecked: (kind, body)."""

    items_untrusted: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class HeardOf:
    """Signs of life from this peer: itself, and what it says of others (peer id, age in seconds)."""

    entries: tuple[tuple[bytes, int], ...]
    rtt_s: float | None


_ONLY_OPEN = frozenset({GossipState.OPEN})


class GossipMachine(Machine):
    """See the module. ``now_s`` is a monotonic clock in seconds."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (GossipState.IDLE, Opened): ("opened", _ONLY_OPEN),
        (GossipState.OPEN, HaveFacts): ("have_facts", _ONLY_OPEN),
        (GossipState.OPEN, Announce): ("announced", _ONLY_OPEN),
        (GossipState.OPEN, Unknown): ("unknown", _ONLY_OPEN),
        (GossipState.OPEN, Want): ("wanted", _ONLY_OPEN),
        (GossipState.OPEN, Loaded): ("loaded", _ONLY_OPEN),
        (GossipState.OPEN, Bodies): ("bodies", _ONLY_OPEN),
        (GossipState.OPEN, Summary): ("summary", _ONLY_OPEN),
        (GossipState.OPEN, OurSet): ("our_set", _ONLY_OPEN),
        (GossipState.OPEN, BucketIds): ("bucket_ids", _ONLY_OPEN),
        (GossipState.OPEN, BucketLoaded): ("bucket_loaded", _ONLY_OPEN),
        (GossipState.OPEN, Seen): ("seen", _ONLY_OPEN),
        (GossipState.OPEN, LifeSigns): ("life_signs", _ONLY_OPEN),
        (GossipState.OPEN, Tick): ("tick", frozenset({GossipState.OPEN, GossipState.CLOSED})),
        (GossipState.CLOSED, Tick): ("after_close", frozenset({GossipState.CLOSED})),
    }

    def __init__(self) -> None:
        super().__init__(GossipState.IDLE)
        self._wanted: OrderedDict[bytes, float] = OrderedDict()  # id -> when asked
        self._asked: OrderedDict[bytes, None] = OrderedDict()  # ids that the peer wants from us, in its order
        self._loading = False
        self._their_sketch: bytes | None = None
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._reconcile_at = 0.0
        self._ping = 0
        self._ping_sent_at: float | None = None
        self.lost_announcements = 0

    def wake_at(self) -> float | None:
        if self.state is not GossipState.OPEN:
            return None
        times = [self._beat_at, self._heard_at + SILENCE_MAX_S, self._reconcile_at]
        return min(times)

    # --- moves ------------------------------------------------------------------------------------------------------

    def opened(self, event: Opened, now_s: float) -> Outcome:
        self._heard_at = now_s
        self._beat_at = now_s + BEAT_INTERVAL_S
        self._reconcile_at = now_s + RECONCILE_INTERVAL_S
        return GossipState.OPEN, (Send(Summary(event.count, event.sketch)), CollectLife())

    def have_facts(self, event: HaveFacts, now_s: float) -> Outcome:
        """Announced at once: batching happens where facts are accepted, a whole commit at a time."""
        effects: list[Effect] = []
        for start in range(0, len(event.ids), IDS_PER_MESSAGE_MAX):
            effects.append(Send(Announce(event.ids[start : start + IDS_PER_MESSAGE_MAX])))
        return GossipState.OPEN, tuple(effects)

    def announced(self, event: Announce, now_s: float) -> Outcome:
        self._heard_at = now_s
        return GossipState.OPEN, (FilterUnknown(_checked_ids(event.ids)),)

    def unknown(self, event: Unknown, now_s: float) -> Outcome:
        fresh: list[bytes] = []
        for wanted_id in event.ids:
            asked_at = self._wanted.get(wanted_id)
            if asked_at is not None and now_s - asked_at < WANT_PATIENCE_S:
                continue
            if asked_at is None and len(self._wanted) >= WANTED_MAX:
                break
            self._wanted[wanted_id] = now_s
            self._wanted.move_to_end(wanted_id)
            fresh.append(wanted_id)
        return GossipState.OPEN, tuple(
            Send(Want(tuple(fresh[start : start + IDS_PER_MESSAGE_MAX]))) for start in range(0, len(fresh), IDS_PER_MESSAGE_MAX)
        )

    def wanted(self, event: Want, now_s: float) -> Outcome:
        self._heard_at = now_s
        for asked_id in _checked_ids(event.ids):
            if len(self._asked) < ASKED_MAX:
                self._asked[asked_id] = None
        return GossipState.OPEN, self._load_more()

    def _load_more(self) -> tuple[Effect, ...]:
        if self._loading or not self._asked:
            return ()
        self._loading = True
        count = min(LOAD_IDS_MAX, len(self._asked))
        return (LoadBodies(tuple(self._asked.popitem(last=False)[0] for _ in range(count))),)

    def loaded(self, event: Loaded, now_s: float) -> Outcome:
        self._loading = False
        effects: list[Effect] = []
        batch: list[tuple[int, bytes]] = []
        batch_bytes = 0
        for kind, body in event.items:
            if batch and batch_bytes + len(body) > BODIES_BYTES_MAX:
                effects.append(Send(Bodies(tuple(batch))))
                batch, batch_bytes = [], 0
            batch.append((kind, body))
            batch_bytes += len(body)
        if batch:
            effects.append(Send(Bodies(tuple(batch))))
        return GossipState.OPEN, (*effects, *self._load_more())

    def bodies(self, event: Bodies, now_s: float) -> Outcome:
        self._heard_at = now_s
        if len(event.items) > IDS_PER_MESSAGE_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.items)} facts at once, at most {IDS_PER_MESSAGE_MAX} wanted")
        if any(len(body) > BODY_BYTES_MAX for _, body in event.items):
            raise RemoteError(Reason.TOO_LONG, f"a fact of more than {BODY_BYTES_MAX} bytes")
        # One byte of the kind is hashed: with a greater number a refused fact would have the id of a lawful one.
        if any(not 0 <= kind <= 255 for kind, _ in event.items):
            raise RemoteError(Reason.MALFORMED, "a kind of fact that is not one byte")
        kept: list[tuple[int, bytes]] = []
        for kind, body in event.items:
            if self._wanted.pop(fact_id(kind, body), None) is None:
                continue  # never asked for, or answered twice: ignored, so nobody can fill our memory unasked
            kept.append((kind, body))
        return GossipState.OPEN, (Deliver(tuple(kept)),) if kept else ()

    def summary(self, event: Summary, now_s: float) -> Outcome:
        self._heard_at = now_s
        if len(event.buckets) != SKETCH_BYTES:
            raise RemoteError(Reason.MALFORMED, f"sketch of {len(event.buckets)} bytes, {SKETCH_BYTES} wanted")
        self._their_sketch = event.buckets
        return GossipState.OPEN, (DescribeSet(),)

    def our_set(self, event: OurSet, now_s: float) -> Outcome:
        if self._their_sketch is None:  # our own turn to start a reconciliation
            return GossipState.OPEN, (Send(Summary(event.count, event.sketch)),)
        theirs, self._their_sketch = self._their_sketch, None
        return GossipState.OPEN, tuple(LoadBucket(bucket) for bucket in differing_buckets(event.sketch, theirs))

    def bucket_loaded(self, event: BucketLoaded, now_s: float) -> Outcome:
        parts = [event.ids[i : i + IDS_PER_MESSAGE_MAX] for i in range(0, len(event.ids), IDS_PER_MESSAGE_MAX)] or [()]
        return GossipState.OPEN, tuple(Send(BucketIds(event.bucket, part, number == len(parts) - 1)) for number, part in enumerate(parts))

    def bucket_ids(self, event: BucketIds, now_s: float) -> Outcome:
        self._heard_at = now_s
        if not 0 <= event.bucket < BUCKET_COUNT:
            raise RemoteError(Reason.MALFORMED, f"bucket {event.bucket}")
        return GossipState.OPEN, (FilterUnknown(_checked_ids(event.ids)),) if event.ids else ()

    def seen(self, event: Seen, now_s: float) -> Outcome:
        self._heard_at = now_s
        if len(event.entries) > SEEN_ENTRIES_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.entries)} signs of life at once")
        if any(len(peer) != PEER_ID_BYTES or age_s < 0 for peer, age_s in event.entries):
            raise RemoteError(Reason.MALFORMED, "a sign of life of no peer id, or from the future")
        if min(event.ping, event.pong) < 0:
            raise RemoteError(Reason.MALFORMED, "a negative ping")
        rtt_s = None
        if event.pong and event.pong == self._ping and self._ping_sent_at is not None:
            rtt_s, self._ping_sent_at = now_s - self._ping_sent_at, None
        answer: tuple[Effect, ...] = ()
        if event.ping:
            answer = (Send(Seen((), 0, event.ping)),)
        return GossipState.OPEN, (HeardOf(event.entries, rtt_s), *answer)

    def life_signs(self, event: LifeSigns, now_s: float) -> Outcome:
        self._ping += 1
        self._ping_sent_at = now_s
        return GossipState.OPEN, (Send(Seen(event.entries[:SEEN_ENTRIES_MAX], self._ping, 0)),)

    def tick(self, event: Tick, now_s: float) -> Outcome:
        if now_s >= self._heard_at + SILENCE_MAX_S:
            return GossipState.CLOSED, (Close(f"no sign of life for {SILENCE_MAX_S:.0f} s"),)
        effects: list[Effect] = []
        if now_s >= self._beat_at:
            self._beat_at = now_s + BEAT_INTERVAL_S
            effects.append(CollectLife())
        if now_s >= self._reconcile_at:
            self._reconcile_at = now_s + RECONCILE_INTERVAL_S
            while self._wanted:
                oldest, asked_at = next(iter(self._wanted.items()))
                if now_s - asked_at < WANT_PATIENCE_S:
                    break
                del self._wanted[oldest]
            effects.append(DescribeSet())
        return GossipState.OPEN, tuple(effects)

    def after_close(self, event: Tick, now_s: float) -> Outcome:
        return GossipState.CLOSED, ()


def _checked_ids(ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if len(ids) > IDS_PER_MESSAGE_MAX:
        raise RemoteError(Reason.FLOOD, f"{len(ids)} ids at once, at most {IDS_PER_MESSAGE_MAX} wanted")
    if any(len(one) != 32 for one in ids):
        raise RemoteError(Reason.MALFORMED, "an id that is not 32 bytes")
    return ids
