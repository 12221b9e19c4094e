"""What is said on `/lading/auth/1`. The order is fixed: Hello, Proof, Known…, Difference…, Fences; a Refusal may come at any time."""

from __future__ import annotations

from ..codec import Record
from ..identity.attested import Attested, KnownFence


class Hello(Record, frozen=True):
    """Who I am and what I speak. Its canonical encoding is what both proofs sign.

    role: 1 for the side that dialled, 2 for the other. versions: lowest and highest that I speak. chain: DER certificates,
    node first, root left out. revocations, fences: digests of my sets, 32 bytes each. nonce: 32 fresh bytes.
    time: what my time is, unix seconds. clock_safe: it is my machine's own clock, and that is not below my clock floor.
    """

    format: int
    suite: int
    role: int
    version_min: int
    version_max: int
    features: tuple[str, ...]
    chain: tuple[bytes, ...]
    revocations: bytes
    fences: bytes
    fence_number: int
    nonce: bytes
    time: int
    clock_safe: bool


class Proof(Record, frozen=True):
    """signature: by the node key over the label AUTH, my role, the handshake hash and both Hellos. 64 bytes."""

    signature: bytes


class Known(Record, frozen=True):
    """Hashes of revocations that I know, in parts, rising over all parts; final: the last part."""

    revocations: tuple[bytes, ...]
    final: bool


class Difference(Record, frozen=True):
    """Revocations that you did not name, in parts; final: the last part."""

    revocations: tuple[Attested, ...]
    final: bool


class Fences(Record, frozen=True):
    """My fences with their secrets, newest first, in parts; final: the last part."""

    fences: tuple[KnownFence, ...]
    final: bool


class Refusal(Record, frozen=True):
    """No, and why: a stable reason name and a text for people. The stream ends after it."""

    reason: str
    text: str


MESSAGES: tuple[tuple[int, type], ...] = (
    (1, Hello),
    (2, Proof),
    (3, Known),
    (4, Difference),
    (5, Fences),
    (6, Refusal),
)
