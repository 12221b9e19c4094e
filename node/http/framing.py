"""The lines of an answer. Pure: bytes in, pieces out; server and client both use it.

An answer is a run of pieces, each beginning with one line of JSON:

    {"progress": {…}}                              any number
    {"bytes": N}                                   followed by exactly N raw bytes of output, nothing between
    {"ok": true, "data": {…}, "warnings": […]}     or
    {"ok": false, "error": {…}}                    exactly one, the last

An answer that ends without its last line was cut off: whoever reads it must not take it for success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocols.codec import from_json, to_json
from protocols.errors import DecodeError, LadingError, Reason

from .contract import PIECE_BYTES_MAX, RESULT_BYTES_MAX, Answer, error_from_json, error_to_json, plain


@dataclass(frozen=True, slots=True)
class ProgressTold:
    """One progress line."""

    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class OutputArrived:
    """A stretch of raw output."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The last line: an answer, or the error to raise."""

    result: Answer | LadingError


Piece = ProgressTold | OutputArrived | Finished


def progress_line(facts: Mapping[str, object]) -> bytes:
    """One progress line."""
    return to_json({"progress": plain(facts)}) + b"\n"


def output_header(byte_count: int) -> bytes:
    """The line that stands before ``byte_count`` (1..PIECE_BYTES_MAX) raw bytes."""
    assert 0 < byte_count <= PIECE_BYTES_MAX
    return to_json({"bytes": byte_count}) + b"\n"


def result_line(result: Answer | LadingError) -> bytes:
    """The last line."""
    if isinstance(result, LadingError):
        return to_json({"ok": False, "error": error_to_json(result)}) + b"\n"
    return to_json({"ok": True, "data": plain(result.data), "warnings": [str(text) for text in result.warnings]}) + b"\n"


class AnswerReader:
    """Cuts the bytes of an answer into pieces as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._raw_left = 0
        self.finished = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Every piece that ``data`` completes. Raises DecodeError(MALFORMED | TOO_LONG)."""
        self._buffer += data
        while self._buffer:
            if self.finished:
                raise DecodeError(Reason.MALFORMED, "bytes after the last line of an answer")
            if self._raw_left:
                piece = bytes(self._buffer[: self._raw_left])
                del self._buffer[: len(piece)]
                self._raw_left -= len(piece)
                yield OutputArrived(piece)
                continue
            end = self._buffer.find(b"\n", self._scanned)
            if end < 0:
                self._scanned = len(self._buffer)
                if self._scanned > RESULT_BYTES_MAX:
                    raise DecodeError(Reason.TOO_LONG, f"a line of more than {RESULT_BYTES_MAX} bytes")
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            piece_read = self._read_line(line)
            if piece_read is not None:
                yield piece_read

    def _read_line(self, line: bytes) -> Piece | None:
        value = from_json(line)
        match value:
            case {"progress": dict(facts)}:
                return ProgressTold(facts)
            case {"bytes": int(byte_count)} if 0 < byte_count <= PIECE_BYTES_MAX:
                self._raw_left = byte_count
                return None
            case {"ok": True, "data": dict(data), "warnings": list(warnings)}:
                self.finished = True
                return Finished(Answer(data, tuple(str(text) for text in warnings)))
            case {"ok": False, "error": error}:
                self.finished = True
                return Finished(error_from_json(error))
        raise DecodeError(Reason.MALFORMED, "a line of an answer that is neither progress, output nor result")
