"""Two auth machines and the wire between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

from protocols.auth.machine import AuthMachine, AuthRole, AuthState, Failed, Proven
from protocols.codec import encode
from protocols.crypto import SigningKey, sha256
from protocols.effects import Send
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.revocation import RevocationSet, check_revocation
from protocols.limits import FRAME_BYTES_MAX_UNPROVEN
from protocols.registry import decode_message, encode_message
from protocols.types import DomainId, PeerId
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, Node, seed

ROOTS = ACME.roots | CUSTOMS.roots
ALICE = ACME.member("Alice")
BOB = CUSTOMS.member("Bob")
PI = ALICE.node("pi")
NAS = BOB.node("nas")
FIRST_FENCE = FenceSet([check_fence(ACME.fence(1, time=NOW - 1000), NETWORK, ROOTS)])
T = TypeVar("T")


def revoked(*entries: object) -> RevocationSet:
    return RevocationSet(check_revocation(entry, NETWORK, ROOTS) for entry in entries)  # type: ignore[arg-type]


def fence_id(fences: FenceSet) -> bytes:
    greatest = fences.greatest()
    assert greatest is not None
    return greatest.value.secret_hash


def machine(
    role: AuthRole,
    node: Node,
    peer_id: PeerId,
    *,
    revocations: RevocationSet | None = None,
    fences: FenceSet = FIRST_FENCE,
    connection_fence: bytes | None = None,
    versions: tuple[int, int] = (1, 3),
    features: Sequence[str] = ("relay",),
    handshake_hash: bytes = seed("handshake"),
    nonce: bytes | None = None,
    roots: Mapping[DomainId, bytes] = ROOTS,
    chain: Sequence[bytes] | None = None,
    key: SigningKey | None = None,
    now: int = NOW,
    clock_unsafe: bool = False,
    clock_agreed: bool = False,
) -> AuthMachine:
    return AuthMachine(
        role=role,
        network=NETWORK,
        chain=node.chain if chain is None else chain,
        key=key or node.key,
        roots=roots,
        revocations=revocations if revocations is not None else RevocationSet(),
        fences=fences,
        connection_fence=fence_id(FIRST_FENCE) if connection_fence is None else connection_fence,
        version_min=versions[0],
        version_max=versions[1],
        features=features,
        nonce=nonce or sha256(role.name.encode(), encode(node.chain)),
        handshake_hash=handshake_hash,
        peer_id=peer_id,
        now=now,
        clock_unsafe=clock_unsafe,
        clock_agreed=clock_agreed,
    )


def dialler(node: Node = PI, peer: Node = NAS, **changes: object) -> AuthMachine:
    return machine(AuthRole.INITIATOR, node, peer.peer_id, **changes)  # type: ignore[arg-type]


def answerer(node: Node = NAS, peer: Node = PI, **changes: object) -> AuthMachine:
    return machine(AuthRole.RESPONDER, node, peer.peer_id, **changes)  # type: ignore[arg-type]


def converse(left: AuthMachine, right: AuthMachine) -> tuple[list[object], list[object]]:
    """Runs both to the end over real frames; all effects of either side."""
    sides = (left, right)
    effects: tuple[list[object], list[object]] = ([], [])
    wire: deque[tuple[int, bytes]] = deque()

    def take(side: int, new: Sequence[object]) -> None:
        effects[side].extend(new)
        for effect in new:
            if isinstance(effect, Send):
                frame = encode_message("auth", effect.message)
                assert len(frame) <= FRAME_BYTES_MAX_UNPROVEN
                wire.append((1 - side, frame))

    take(0, left.start(0.0))
    take(1, right.start(0.0))
    while wire:
        side, frame = wire.popleft()
        if sides[side].state is not AuthState.FAILED:
            take(side, sides[side].step(decode_message("auth", frame), 0.0))
    return effects


def only(effects: Sequence[object], kind: type[T]) -> T:
    """The one effect of a kind."""
    found = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found) == 1, effects
    return found[0]


def outcome(effects: Sequence[object]) -> Proven | Failed:
    """How it ended for one side: the last word."""
    return [effect for effect in effects if isinstance(effect, Proven | Failed)][-1]


def sent(effects: Sequence[object], kind: type[T]) -> T:
    """The one message of a kind that was sent."""
    return only([effect.message for effect in effects if isinstance(effect, Send)], kind)
