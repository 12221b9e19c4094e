"""Bytes kept as the pieces they came in, so that a large body is copied once, when it is joined for its reader."""

from __future__ import annotations

from collections import deque

from ..limits import SMALL_PIECE_BYTES

Piece = bytes | bytearray | memoryview
# Small pieces are gathered in buffers up to this size: single bytes cost a byte each, not an object each.
_TAIL_BYTES_MAX = 64 * 1024


class Pieces:
    """A queue of bytes. Holds at most about twice the memory of its bytes, whatever the pieces were."""

    __slots__ = ("_pieces", "byte_count")

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.byte_count = 0

    def __len__(self) -> int:
        return self.byte_count

    def put(self, piece: Piece) -> None:
        """Takes a piece over, which nobody changes any more. A view of under half of its buffer is copied out of it."""
        size = len(piece)
        if not size:
            return
        self.byte_count += size
        if size < SMALL_PIECE_BYTES:
            tail = self._pieces[-1] if self._pieces else None
            if isinstance(tail, bytearray) and len(tail) + size <= _TAIL_BYTES_MAX:
                tail += piece
            else:
                self._pieces.append(bytearray(piece))
        elif isinstance(piece, bytearray) or (isinstance(piece, memoryview) and 2 * size < len(memoryview(piece.obj))):
            self._pieces.append(bytes(piece))
        else:
            self._pieces.append(piece)

    def take(self, size_max: int) -> list[Piece]:
        """The first bytes, at most ``size_max``, as pieces that nobody else changes."""
        taken: list[Piece] = []
        while size_max > 0 and self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > size_max:
                whole = memoryview(bytes(piece) if isinstance(piece, bytearray) else piece)
                self._pieces.appendleft(whole[size_max:])
                piece = whole[:size_max]
            taken.append(piece)
            size_max -= len(piece)
            self.byte_count -= len(piece)
        return taken

    def take_all(self) -> list[Piece]:
        """Everything."""
        taken = list(self._pieces)
        self.clear()
        return taken

    def peek(self, size: int) -> bytes:
        """The first bytes, at most ``size`` (a header's worth); they stay."""
        out = b""
        for piece in self._pieces:
            out += bytes(piece[: size - len(out)])
            if len(out) == size:
                break
        return out

    def put_back(self, piece: Piece) -> None:
        """In front of everything."""
        if piece:
            self._pieces.appendleft(bytes(piece))
            self.byte_count += len(piece)

    def clear(self) -> None:
        self._pieces.clear()
        self.byte_count = 0


def joined(pieces: list[Piece]) -> bytes:
    """One bytes object; no copy when there is only one already."""
    if len(pieces) == 1 and isinstance(pieces[0], bytes):
        return pieces[0]
    return b"".join(pieces)
