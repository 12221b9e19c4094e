"""Work that must survive the process: puts under way, repairs, offers to withdraw. Owner, attempt, next retry, last error.

``state`` belongs to the actor whose job it is. What keeps failing waits longer but is never dropped silently.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.codec import encode
from protocols.types import OwnerKey, UnixSeconds

from .engine import Delete, Put, Snapshot, Write
from .tables import JOBS, JOBS_DUE
from .values import FORMAT, NUMBER_BYTES, SUITE, Stored, load, number

LAST_ERROR_CHARACTERS_MAX = 512


class JobKind(enum.IntEnum):
    """Numbers are part of the keys on disk: never used twice."""

    PUT = 1
    REPAIR = 2
    GET = 3
    DELETE = 4
    WITHDRAW = 5


class _Job(Stored, frozen=True):
    owner: bytes
    state: bytes
    attempt: int
    created_at: int
    retry_at: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Job:
    """id: 1..64 bytes, unique in its kind. attempt: how often it was tried. retry_at: not before. last_error: for people."""

    kind: JobKind
    id: bytes
    owner: OwnerKey
    state: bytes
    attempt: int
    created_at: UnixSeconds
    retry_at: UnixSeconds
    last_error: str = ""


def _key(kind: JobKind, job_id: bytes) -> bytes:
    assert 1 <= len(job_id) <= 64
    return bytes((kind,)) + job_id


def _job(key: bytes, data: bytes) -> Job:
    value = load(JOBS, data, _Job)
    return Job(
        kind=JobKind(key[0]),
        id=key[1:],
        owner=OwnerKey(value.owner),
        state=value.state,
        attempt=value.attempt,
        created_at=UnixSeconds(value.created_at),
        retry_at=UnixSeconds(value.retry_at),
        last_error=value.last_error,
    )


def put(snapshot: Snapshot, job: Job) -> list[Write]:
    """Adds the job or replaces what was known of it."""
    key = _key(job.kind, job.id)
    error = job.last_error[:LAST_ERROR_CHARACTERS_MAX]
    value = _Job(FORMAT, SUITE, job.owner, job.state, job.attempt, job.created_at, job.retry_at, error)
    return [
        *_unschedule(snapshot, key),
        Put(JOBS, key, encode(value)),
        Put(JOBS_DUE, number(job.retry_at) + key, b""),
    ]


def _unschedule(snapshot: Snapshot, key: bytes) -> list[Write]:
    data = snapshot.get(JOBS, key)
    return [] if data is None else [Delete(JOBS_DUE, number(load(JOBS, data, _Job).retry_at) + key)]


def done(snapshot: Snapshot, kind: JobKind, job_id: bytes) -> list[Write]:
    """The job is over, whichever way."""
    key = _key(kind, job_id)
    return [*_unschedule(snapshot, key), Delete(JOBS, key)]


def get(snapshot: Snapshot, kind: JobKind, job_id: bytes) -> Job | None:
    data = snapshot.get(JOBS, _key(kind, job_id))
    return None if data is None else _job(_key(kind, job_id), data)


def all_of(snapshot: Snapshot, kind: JobKind | None = None) -> Iterator[Job]:
    """Every job, or those of one kind, by id."""
    for key, data in snapshot.scan(JOBS, prefix=b"" if kind is None else bytes((kind,))):
        yield _job(key, data)


def due(snapshot: Snapshot, now: UnixSeconds, *, limit: int) -> tuple[Job, ...]:
    """Jobs whose time has come, the longest waiting first. At most ``limit``."""
    found: list[Job] = []
    for key, _ in snapshot.scan(JOBS_DUE):
        if len(found) >= limit or int.from_bytes(key[:NUMBER_BYTES], "big") > now:
            break
        data = snapshot.get(JOBS, key[NUMBER_BYTES:])
        if data is not None:
            found.append(_job(key[NUMBER_BYTES:], data))
    return tuple(found)


def next_due_at(snapshot: Snapshot) -> UnixSeconds | None:
    """When the next job wants to run; None when there is none."""
    first = next(snapshot.scan(JOBS_DUE), None)
    return None if first is None else UnixSeconds(int.from_bytes(first[0][:NUMBER_BYTES], "big"))
