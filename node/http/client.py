"""The API's client for the command line: one call over plain blocking sockets. The door to h11 on the caller's side.

No trio and no threads: while the answer comes in, one `select` also moves the upload and gives the caller its ticks.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import h11

from protocols.codec import to_json
from protocols.errors import DecodeError, LadingError, Reason

from .contract import API_VERSION, Answer, plain
from .framing import AnswerReader, Finished, OutputArrived, ProgressTold
from .sockets import PEER_CREDENTIALS_BYTES, PEER_CREDENTIALS_OPTION, peer_credentials, socket_address

SOCKET_NAME = "api.sock"
# A node that is alive accepts at once, even when it is busy: the kernel queues for it.
_CONNECT_TIMEOUT_S = 5.0
_READ_BYTES = 256 * 1024
# How often a waiting person is told that something is still going on.
TICK_S = 0.5


def call(
    home: Path,
    operation: str,
    args: Mapping[str, object],
    on_progress: Callable[[Mapping[str, object]], None] | None = None,
    body: BinaryIO | None = None,
    output: Callable[[bytes], object] | None = None,
    *,
    on_tick: Callable[[], None] | None = None,
    timeout_s: float | None = None,
) -> Answer:
    """Asks the node of ``home``; returns its answer.

    body: an open file with a descriptor, sent until its end. output: takes raw bytes of a download. on_tick: called at least every
    TICK_S while waiting. timeout_s: bound of the whole call, None for none. Leaving by any exception cancels the call at the node.
    Raises LadingError: NOT_INITIALISED (no home), NOT_RUNNING (nobody answers, or the answer broke off), TIMEOUT, or what the
    node answered.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with connect(home) as connection:
        exchange = _Exchange(connection, operation, args, body)
        return exchange.run(on_progress, output, on_tick, deadline)


def connect(home: Path) -> socket.socket:
    """A connection to the node of ``home``. Raises LadingError(NOT_INITIALISED | NOT_RUNNING | REFUSED)."""
    path = home / SOCKET_NAME
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_TIMEOUT_S)
    try:
        with socket_address(path) as address:
            connection.connect(address)
    except OSError as error:
        connection.close()
        if error.errno in (errno.EACCES, errno.EPERM):
            raise LadingError(Reason.REFUSED, f"{path} belongs to another user") from error
        raise _not_there(home) from error
    return connection


def node_pid(connection: socket.socket) -> int | None:
    """Process id of the node behind ``connection``, where the system tells."""
    if PEER_CREDENTIALS_OPTION is None:
        return None
    pid, _ = peer_credentials(connection.getsockopt(socket.SOL_SOCKET, PEER_CREDENTIALS_OPTION, PEER_CREDENTIALS_BYTES))
    return pid or None


def _not_there(home: Path) -> LadingError:
    if not (home / "config.toml").exists() and not (home / "identity").exists():
        return LadingError(
            Reason.NOT_INITIALISED,
            f"{home} is not the home of a node",
            hint="lading init --domain NAME   or   lading join TICKET   or   --home DIR",
        )
    return LadingError(Reason.NOT_RUNNING, f"no node is running on {home}", hint="lading start")


class _Exchange:
    """One request going out while its answer comes in."""

    def __init__(self, connection: socket.socket, operation: str, args: Mapping[str, object], body: BinaryIO | None) -> None:
        self._connection = connection
        self._body = body
        self._http = h11.Connection(h11.CLIENT)
        self._reader = AnswerReader()
        line = to_json(plain(args)) + b"\n"
        size = ("Transfer-Encoding", "chunked") if body is not None else ("Content-Length", str(len(line)))
        headers = [("Host", "lading"), ("Connection", "close"), ("Content-Type", "application/json"), size]
        self._unsent = bytearray(self._http.send(h11.Request(method="POST", target=f"/{API_VERSION}/{operation}", headers=headers)) or b"")
        self._unsent += self._http.send(h11.Data(data=line)) or b""
        if body is None:
            self._unsent += self._http.send(h11.EndOfMessage()) or b""

    def run(
        self,
        on_progress: Callable[[Mapping[str, object]], None] | None,
        output: Callable[[bytes], object] | None,
        on_tick: Callable[[], None] | None,
        deadline: float | None,
    ) -> Answer:
        self._connection.setblocking(False)
        while True:
            wait_s = TICK_S
            if deadline is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise LadingError(
                        Reason.TIMEOUT,
                        "the node did not answer within --timeout; the call was cancelled",
                        hint="give it longer: --timeout 10m",
                    )
                wait_s = min(wait_s, left_s)
            self._move(wait_s)
            for piece in self._arrived():
                match piece:
                    case ProgressTold(facts):
                        if on_progress is not None:
                            on_progress(facts)
                    case OutputArrived(data):
                        if output is not None:
                            output(data)
                    case Finished(Answer() as answer):
                        return answer
                    case Finished(LadingError() as error):
                        raise error
            if on_tick is not None:
                on_tick()

    def _move(self, wait_s: float) -> None:
        """Waits until something can move, and moves it: upload to buffer, buffer to socket."""
        body = None if self._unsent else self._body
        readers: list[socket.socket | BinaryIO] = [self._connection]
        if body is not None:
            readers.append(body)
        readable, writable, _ = select.select(readers, [self._connection] if self._unsent else [], [], wait_s)
        if body is not None and body in readable:
            self._take_body(body)
        if writable or self._unsent:
            self._send()

    def _take_body(self, body: BinaryIO) -> None:
        data = os.read(body.fileno(), _READ_BYTES)
        if data:
            self._unsent += self._http.send(h11.Data(data=data)) or b""
        else:
            self._unsent += self._http.send(h11.EndOfMessage()) or b""
            self._body = None

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
            del self._unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            # The node answers before it has read everything when it refuses; its answer is still to be read.
            self._unsent.clear()
            self._body = None

    def _arrived(self) -> list[ProgressTold | OutputArrived | Finished]:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise _broken_off() from error
        pieces: list[ProgressTold | OutputArrived | Finished] = []
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    pieces.extend(self._reader.feed(bytes(event.data)))
                elif not isinstance(event, h11.Response | h11.InformationalResponse):
                    break
        except h11.RemoteProtocolError as error:
            if data:
                raise LadingError(Reason.FAILED, f"what answers on the node's socket is not a node: {error}") from error
        except DecodeError as error:
            raise LadingError(
                Reason.FAILED, f"the node's answer cannot be read: {error.message}", hint="are node and command of the same version?"
            ) from error
        if not data and not any(isinstance(piece, Finished) for piece in pieces):
            raise _broken_off()
        return pieces


def _too_late() -> LadingError:
    return LadingError(
        Reason.TIMEOUT,
        "the node did not answer within --timeout; the call was cancelled",
        hint="give it longer: --timeout 10m",
    )


def _broken_off() -> LadingError:
    return LadingError(Reason.NOT_RUNNING, "the node stopped before it answered", hint="see its log, then: lading start")
