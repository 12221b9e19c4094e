"""One TCP socket: options that notice a vanished peer, exact reads for the handshake, reads into the session's buffer."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys

import trio

from protocols.limits import BATCH_BYTES_MAX, BATCH_BYTES_MIN

from ..port import StreamBroken

# During the handshake; the session brings a buffer of its own.
READ_BYTES = 4 * 1024
# Of what a peer still says that is hung up on.
DISCARD_BYTES = 64 * 1024
# How long a write may take: this, and what its bytes need on the slowest link that is worth having. A peer's read loop never
# pauses, so whoever takes longer has stopped. (Writing in pieces, each with its own bound, cost a quarter of the speed.)
WRITE_TIMEOUT_S = 30.0
WRITE_RATE_MIN = 16 * 1024  # bytes a second
# Bytes a second. A line that takes more is given large batches, and the kernel one more to send meanwhile: 66 ms of it at most. A line that
# takes less is given smaller ones and UNSENT_BYTES_SLOW: what is in the kernel cannot be overtaken by an answer or a sign of life.
QUICK_RATE = 32 * 1024 * 1024
SLOW_RATE = QUICK_RATE // 2
# trio's own choice for every socket. The kernel then takes 128 to 192 KiB at once, each with a wait.
UNSENT_BYTES_SLOW = 16 * 1024
# Where packets are lost, more that lies unsent makes a line slower (0.1 % of them, BBR: 165 to 57 MB/s), why is not known. A line that
# lost some is tried again when so many bytes have left it in a row.
CLEAN_BYTES = 32 * 1024 * 1024
# struct tcp_info of Linux up to tcpi_total_retrans.
RETRANSMITTED = struct.Struct("=100xI")
# A peer that answers nothing for this long is gone (kernel default: 16 minutes).
VANISHED_AFTER_S = 15
KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 5


def set_options(sock: trio.socket.SocketType) -> None:
    """Keepalive, user time-out and no delay, as far as the system knows them."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", VANISHED_AFTER_S // KEEPALIVE_INTERVAL_S),
        ("TCP_USER_TIMEOUT", VANISHED_AFTER_S * 1000),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _write_some(sock: trio.socket.SocketType, data: memoryview) -> int:
    """How many bytes of ``data`` the kernel took at once. Raises OSError."""
    try:
        return os.writev(sock.fileno(), (data,))
    except BlockingIOError:
        return 0


class Wire:
    """The raw connection under Noise. Has the four methods by which the library's handshake uses it.

    One reader and one writer at a time. Every loss comes out as StreamBroken.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        set_options(stream.socket)
        self._stream = stream
        self._buffer = bytearray()
        self._is_drained = True
        self.batch_bytes = BATCH_BYTES_MIN
        """What is best written at once, about: by how quick the line was."""
        self._tried_bytes = 0
        self._tried_at = 0.0
        self._wanted_bytes = BATCH_BYTES_MAX
        self._retransmitted = 0

    async def read(self, n: int) -> bytes:
        """Exactly n bytes."""
        while len(self._buffer) < n:
            self._buffer += await self._receive()
        data = bytes(self._buffer[:n])
        del self._buffer[:n]
        return data

    def unread(self, data: bytes) -> None:
        """Puts bytes back in front."""
        self._buffer[:0] = data

    def take_buffered(self) -> bytes:
        """What was read beyond the handshake; it is the caller's from here on."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def receive_into(self, room: memoryview) -> int:
        """How many bytes were written to the front of ``room``; 0 when the peer's direction has ended. Lets others have a turn."""
        sock = self._stream.socket
        try:
            if self._is_drained:
                await trio.lowlevel.wait_readable(sock.fileno())
            else:
                await trio.lowlevel.checkpoint()
            while True:
                try:
                    size = os.readv(sock.fileno(), (room,))
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(sock.fileno())
        except (OSError, trio.ClosedResourceError) as error:
            raise StreamBroken(f"connection lost: {error}") from error
        # A read that leaves room has emptied the socket: the next one waits first, instead of trying in vain.
        self._is_drained = size < len(room)
        return size

    async def _receive(self) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(READ_BYTES))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StreamBroken(f"connection lost: {error}") from error
        if not data:
            raise StreamBroken("the peer closed the connection")
        return data

    async def write(self, data: bytes | memoryview) -> None:
        """All of it. Lets others have a turn. Raises StreamBroken, also when it takes too long; half a message may be out by then."""
        # Not the library's send_all: that comes back to the scheduler after every part, and tries in vain before each wait (decision 0013).
        await trio.lowlevel.checkpoint()
        began = trio.current_time()
        left = memoryview(data)
        sock = self._stream.socket
        try:
            left = left[_write_some(sock, left) :]
            if left:
                with trio.fail_after(WRITE_TIMEOUT_S + len(data) / WRITE_RATE_MIN):
                    while left:
                        await trio.lowlevel.wait_writable(sock.fileno())
                        left = left[_write_some(sock, left) :]
        except trio.TooSlowError as error:
            raise StreamBroken(f"the peer did not take {len(data)} bytes in time") from error
        except (OSError, trio.ClosedResourceError) as error:
            raise StreamBroken(f"connection lost: {error}") from error
        if len(data) >= BATCH_BYTES_MIN:
            self._judge(len(data), began)

    def _judge(self, size: int, began: float) -> None:
        """Whether the line is quick: by each large batch, or by small ones as long as a large one, pauses between them included, since the
        kernel takes a few at once on any line."""
        now = trio.current_time()
        if self.batch_bytes == BATCH_BYTES_MAX:
            if self._has_lost():
                self._wanted_bytes = CLEAN_BYTES
                self._set_quick(is_quick=False)
            elif size < SLOW_RATE * (now - began):
                self._set_quick(is_quick=False)
            return
        if not self._tried_bytes:
            self._tried_at = began
        self._tried_bytes += size
        if self._tried_bytes >= self._wanted_bytes:
            is_clean = not self._has_lost()
            self._wanted_bytes = BATCH_BYTES_MAX if is_clean else CLEAN_BYTES
            if is_clean and self._tried_bytes >= QUICK_RATE * (now - self._tried_at):
                self._set_quick(is_quick=True)
            self._tried_bytes = 0

    def _has_lost(self) -> bool:
        """Whether the kernel has sent anything again since this was asked last."""
        if sys.platform != "linux":
            return False
        try:
            info = self._stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, RETRANSMITTED.size)
        except OSError:  # of a socket that is gone, which says so at its next use
            return False
        before, self._retransmitted = self._retransmitted, RETRANSMITTED.unpack(info)[0]
        return self._retransmitted != before

    def _set_quick(self, *, is_quick: bool) -> None:
        self.batch_bytes = BATCH_BYTES_MAX if is_quick else BATCH_BYTES_MIN
        option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if option is not None:
            with contextlib.suppress(OSError):  # of a socket that is gone, which says so at its next use
                self._stream.socket.setsockopt(socket.IPPROTO_TCP, option, BATCH_BYTES_MAX if is_quick else UNSENT_BYTES_SLOW)

    async def finish(self) -> None:
        """Tells the peer that nothing more will come; reading goes on."""
        try:
            await self._stream.send_eof()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError) as error:
            raise StreamBroken(f"connection lost: {error}") from error

    async def discard(self) -> None:
        """Reads to the peer's end, and keeps nothing; where somebody reads already, waits for ever. Raises StreamBroken."""
        room = memoryview(bytearray(DISCARD_BYTES))
        try:
            while await self.receive_into(room):
                pass
        except trio.BusyResourceError:
            await trio.sleep_forever()

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)

    def get_remote_address(self) -> tuple[str, int] | None:
        """The library's handshake asks for it in messages to people."""
        return None
