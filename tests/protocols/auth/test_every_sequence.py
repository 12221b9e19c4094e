"""Every sequence of up to five events, in every situation of the two sets."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest

from protocols.auth.machine import AuthMachine, AuthState, Ended, Failed, Proven, Tick
from protocols.auth.messages import Difference, Fences, Hello, Known, Proof, Refusal
from protocols.effects import Send
from protocols.errors import Reason, RemoteError
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.revocation import RevocationKind, RevocationSet
from tests.protocols.auth.pairs import FIRST_FENCE, ROOTS, answerer, dialler, revoked, sent
from tests.protocols.identity.people import ACME, NETWORK, seed

EVENTS_MAX = 5
ENTRY = ACME.revoke(RevocationKind.MEMBER, seed("somebody"))
FENCE = ACME.fence(2)
NEWER = FIRST_FENCE.with_checked([check_fence(FENCE, NETWORK, ROOTS)])


def alphabet(right: AuthMachine, hello: Hello) -> dict[str, object]:
    """Every kind of event, the lawful one and where it can be wrong a wrong one. ``right`` answers to ``hello``."""
    theirs = sent(right.start(0.0), Hello)
    proof = sent(right.step(hello, 0.0), Proof)
    return {
        "hello": theirs,
        "bad hello": msgspec.structs.replace(theirs, chain=()),
        "proof": proof,
        "bad proof": Proof(signature=bytes(64)),
        "known part": Known(revocations=(bytes(32),), final=False),
        "known": Known(revocations=(ENTRY.object_hash,), final=True),
        "bad known": Known(revocations=(b"",), final=True),
        "difference": Difference(revocations=(ENTRY,), final=True),
        "bad difference": Difference(revocations=(), final=False),
        "fences": Fences(fences=(FENCE,), final=True),
        "bad fences": Fences(fences=(), final=False),
        "refusal": Refusal(reason="E-REVOKED", text=""),
        "early tick": Tick(),
        "late tick": Tick(),
        "ended": Ended(),
    }


SITUATIONS: Mapping[str, tuple[RevocationSet, FenceSet, tuple[str, ...]]] = {
    "nothing differs": (RevocationSet(), FIRST_FENCE, ("hello", "proof")),
    "revocations differ": (revoked(ENTRY), FIRST_FENCE, ("hello", "proof", "known", "difference")),
    "fences differ": (RevocationSet(), NEWER, ("hello", "proof", "fences")),
    "both differ": (revoked(ENTRY), NEWER, ("hello", "proof", "known", "difference", "fences")),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_sequence_of_five_events_keeps_the_promises(situation: str) -> None:
    """Goal: Proven comes exactly on the one lawful way; failure is final; no secret leaves before its time.

    Method: walk the whole tree of sequences (equal beginnings are walked once); after each event look at state and effects.
    """
    revocations, fences, lawful_way = SITUATIONS[situation]
    start = dialler()
    hello = sent(start.start(0.0), Hello)
    events = alphabet(answerer(revocations=revocations, fences=fences), hello)
    seen: Counter[AuthState] = Counter()

    def walk(machine: AuthMachine, way: tuple[str, ...]) -> None:
        seen[machine.state] += 1
        if len(way) == EVENTS_MAX:
            return
        for name, event in events.items():
            branch = copy.deepcopy(machine, MEMO.copy())
            before = branch.state
            if (before, type(event)) not in AuthMachine.TABLE:
                with pytest.raises(RemoteError) as caught:
                    branch.step(event, 1.0)
                assert caught.value.reason is Reason.OUT_OF_ORDER
                assert branch.state is before
                continue
            effects = branch.step(event, 99.0 if name == "late tick" else 1.0)
            look(branch, before, (*way, name), effects)
            walk(branch, (*way, name))

    def look(branch: AuthMachine, before: AuthState, way: tuple[str, ...], effects: tuple[object, ...]) -> None:
        spoken = tuple(name for name in way if name not in ("early tick", "known part"))
        proven = [effect for effect in effects if isinstance(effect, Proven)]
        failed = [effect for effect in effects if isinstance(effect, Failed)]
        assert bool(proven) is (branch.state is AuthState.PROVEN and before is not AuthState.PROVEN)
        assert bool(failed) is (branch.state is AuthState.FAILED and before is not AuthState.FAILED)
        if proven:
            assert spoken == lawful_way
        if before is AuthState.FAILED:
            assert effects == ()
        assert (branch.wake_at() is None) is (branch.state in (AuthState.PROVEN, AuthState.FAILED))
        if any(isinstance(effect, Send) and isinstance(effect.message, Fences | Known | Difference) for effect in effects):
            assert spoken[:2] == ("hello", "proof")
            assert spoken == lawful_way[: len(spoken)]

    # What a machine never changes is shared between its copies.
    MEMO = {id(part): part for part in (start._key, start._roots, start._fences, start._revocations, *events.values())}
    walk(start, ())
    assert seen[AuthState.PROVEN] > 0
    assert seen[AuthState.FAILED] > 0
    assert sum(seen.values()) > 500


def test_table_names_every_state_and_every_message() -> None:
    """Goal: no dead state, no message that is never taken. Method: look through the table."""
    states = {state for state, _ in AuthMachine.TABLE}
    assert states == set(AuthState)
    kinds = {kind for _, kind in AuthMachine.TABLE}
    assert {Hello, Proof, Known, Difference, Fences, Refusal} <= kinds
