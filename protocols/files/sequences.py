"""Sequences: runs of chunks, their roots, and their paths under chunks_root. Sequence 0 is the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from ..codec import Record
from ..errors import InvalidObject, Reason
from ..merkle import check_merkle_path, merkle_path, merkle_paths, merkle_root
from ..types import ChunksRoot, SequenceRoot
from .objects import Statement

MANIFEST_SEQUENCE = 0


class SequenceDescriptor(Record, frozen=True):
    """One sequence. names: chunk names in order, 32 bytes each. sizes: sealed bytes of each chunk."""

    root: bytes
    names: tuple[bytes, ...]
    sizes: tuple[int, ...]


def sequence_root(names: Sequence[bytes]) -> SequenceRoot:
    """Merkle root of the chunk names, at least one, in order."""
    assert names
    return SequenceRoot(merkle_root(names))


def chunks_root(roots: Sequence[bytes]) -> ChunksRoot:
    """Merkle root of the sequence roots, the manifest's first."""
    assert roots
    return ChunksRoot(merkle_root(roots))


def sequence_path(roots: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Way of one sequence root up to chunks_root."""
    return merkle_path(roots, index)


def sequence_paths(roots: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """``sequence_path`` of every sequence: a record of 5 GiB has 1,281."""
    return merkle_paths(roots)


def sequence_count(statement: Statement) -> int:
    """Number of sequences, the manifest among them."""
    return 1 + -(-statement.data_chunks // statement.chunks_per_sequence)


def chunk_count_of(statement: Statement, index: int) -> int:
    """Number of chunks of sequence ``index``. Raises InvalidObject(INTEGRITY) for a sequence that is not there."""
    if index == MANIFEST_SEQUENCE:
        return statement.manifest_chunks
    before = (index - 1) * statement.chunks_per_sequence
    if index < 0 or before >= statement.data_chunks:
        raise InvalidObject(Reason.INTEGRITY, f"sequence {index} of {sequence_count(statement)}")
    return min(statement.chunks_per_sequence, statement.data_chunks - before)


def check_sequence(statement: Statement, index: int, names: Sequence[bytes], path: Sequence[bytes]) -> SequenceRoot:
    """Root of sequence ``index`` after checking that these chunk names are it. Raises InvalidObject(INTEGRITY).

    names: chunk names in order. path: siblings from the sequence root up to chunks_root.
    """
    wanted = chunk_count_of(statement, index)
    if len(names) != wanted:
        raise InvalidObject(Reason.INTEGRITY, f"{len(names)} chunk names in sequence {index}, {wanted} wanted")
    if any(len(name) != 32 for name in names):
        raise InvalidObject(Reason.INTEGRITY, "chunk name that is not 32 bytes")
    root = sequence_root(names)
    check_merkle_path(statement.chunks_root, root, index=index, leaf_count=sequence_count(statement), path=path)
    return root
