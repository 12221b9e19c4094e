"""The log of what happened to a record on its way in: linked by hashes; its head is what the anchor names. Source: SPEC.md §Log.

Kept by the owner's node that anchors the record; never sent. Who is shown a log recomputes its head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..codec import Record, encode
from ..crypto import FORMAT, Label, hash_labelled
from ..errors import InvalidObject, Reason
from ..types import Digest, HashId, UnixMillis

StepName = Literal["received", "hashed", "encrypted", "deduplicated", "chunked", "replicated", "anchored", "confirmed"]
NO_HEAD = Digest(bytes(32))
# A record passes eight steps; each time that it is put again after a delete it passes them again.
STEPS_MAX = 64


class Step(Record, frozen=True):
    """One step. previous: head before it, 32 zero bytes for the first. facts: (name, number or bytes), by rising name."""

    format: int
    previous: Digest
    hash_id: HashId
    step: StepName
    time_ms: UnixMillis
    facts: tuple[tuple[str, int | bytes], ...]


def head_of(steps: Sequence[Step]) -> Digest:
    """Head of a log: hash of its last step, 32 zero bytes for none."""
    return hash_labelled(Label.JOURNAL, encode(steps[-1])) if steps else NO_HEAD


def append(steps: tuple[Step, ...], step: StepName, hash_id: HashId, time_ms: UnixMillis, **facts: int | bytes) -> tuple[Step, ...]:
    """The log with one more step; as it was when it is full, or when its last step of that name says the same."""
    said = tuple(sorted(facts.items()))
    before = [one for one in steps if one.step == step]
    if len(steps) >= STEPS_MAX or (before and before[-1].facts == said):
        return steps
    return (*steps, Step(FORMAT, head_of(steps), hash_id, step, time_ms, said))


def check_journal(steps: Sequence[Step], hash_id: HashId, head: bytes) -> int:
    """How many of the steps lead to ``head``, the first of them from nothing: what was anchored.

    Raises InvalidObject(INTEGRITY) when the steps are not one log of this record, or ``head`` is none of its heads.
    """
    previous = NO_HEAD
    found = 0 if head == NO_HEAD else None
    for number, step in enumerate(steps, start=1):
        if step.previous != previous or step.hash_id != hash_id:
            raise InvalidObject(Reason.INTEGRITY, f"step {number} of the log does not follow the one before")
        previous = head_of((step,))
        if previous == head:
            found = number
    if found is None:
        raise InvalidObject(Reason.INTEGRITY, "the anchored head is none of this log")
    return found
