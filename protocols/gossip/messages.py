"""What is said on `/lading/gossip/1`. A fact is (kind, body); its id is SHA-256(kind byte | body)."""

from __future__ import annotations

from ..codec import Record


class Announce(Record, frozen=True):
    """Ids of facts that the sender has and the receiver may not. At most IDS_PER_MESSAGE_MAX of 32 bytes."""

    ids: tuple[bytes, ...]


class Want(Record, frozen=True):
    """Send the bodies of these."""

    ids: tuple[bytes, ...]


class Bodies(Record, frozen=True):
    """Facts: (kind, body). Ids are recomputed by the receiver."""

    items: tuple[tuple[int, bytes], ...]


class Summary(Record, frozen=True):
    """What the sender's whole set looks like: number of facts and the 256 bucket digests of 8 bytes each, one string."""

    count: int
    buckets: bytes


class BucketIds(Record, frozen=True):
    """All ids that the sender has in one bucket, in parts; the receiver wants what it lacks. final: the last part."""

    bucket: int
    ids: tuple[bytes, ...]
    final: bool


class Seen(Record, frozen=True):
    """Signs of life: (peer id, age in whole seconds) of nodes the sender heard of. Also this stream's own heartbeat."""

    entries: tuple[tuple[bytes, int], ...]
    ping: int
    pong: int


MESSAGES: tuple[tuple[int, type], ...] = (
    (1, Announce),
    (2, Want),
    (3, Bodies),
    (4, Summary),
    (5, BucketIds),
    (6, Seen),
)
