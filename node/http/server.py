"""The API's server: HTTP/1.1 over a Unix socket that only this user can open. The door to h11 on the node's side.

One request per connection. One task serves it: it reads the request and runs the call. An upload has a second one, which reads on; so has
a call that takes longer than a moment: it notices the caller's going, which cancels the call. One task of the server's has the progress of
all calls written now and then. A failure inside one call is that call's answer and a line in the log; it never reaches another call.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import trio

from protocols.codec import from_json, to_json
from protocols.errors import LadingError, Reason, UsageError

from .contract import (
    API_VERSION,
    ARGS_BYTES_MAX,
    CONNECTIONS_MAX,
    HEADER_BYTES_MAX,
    HEADER_TIMEOUT_S,
    PIECE_BYTES_MAX,
    PROGRESS_LINES_MAX,
    STALL_TIMEOUT_S,
    Answer,
    Dispatcher,
    check_call,
)
from .framing import output_header, progress_line, result_line
from .sockets import PEER_CREDENTIALS_BYTES, PEER_CREDENTIALS_OPTION, peer_credentials, socket_address

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger("lading.http")

# Four kernel socket buffers: fewer wake-ups for an upload, and still half of a piece.
_READ_BYTES = 256 * 1024
assert _READ_BYTES <= PIECE_BYTES_MAX
# The last line must leave although the node is being stopped: it may be the answer to `stop`.
_LAST_WORD_TIMEOUT_S = 2.0
# Most calls end sooner, and then nobody needs to watch whether their callers are still there.
_WATCH_AFTER_S = 0.25
_END_TIMEOUT_S = 1.0
# Progress that is told together is written together; what ends sooner says it all in its last write.
_PROGRESS_PAUSE_S = 0.03
_SAFE_HEADERS = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Disposition", "attachment"),
    ("Connection", "close"),
]
_HEAD = "".join(f"{name}: {value}\r\n" for name, value in [("Content-Type", "application/x-ndjson"), *_SAFE_HEADERS])
_CHUNKED = "Transfer-Encoding: chunked\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
# What the exit codes of the interface mean to a program that looks at the HTTP status only.
_STATUS_OF_EXIT_CODE = {2: 400, 4: 404, 5: 403, 7: 504, 8: 503, 9: 409, 10: 409, 12: 507}


class _CallerGone(Exception):
    """The caller closed its end, stalled, or broke off: nobody is left to answer."""


async def serve(
    dispatcher: Dispatcher,
    socket_path: Path,
    *,
    allowed_uid: int,
    is_ready: Callable[[], bool] = lambda: True,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answers calls on ``socket_path`` until cancelled; started once the socket can be connected to. Started value: its path.

    allowed_uid: whose processes may call (root may too: it could read the home anyway). is_ready: what /health/ready answers.
    The socket file appears with mode 0600 and is taken away at the end; one left by a dead process is replaced.
    Raises LadingError(LOCKED) when another process answers there, LadingError(FAILED) when the path cannot be bound.
    """
    listening = _listen(socket_path)
    inode = os.stat(socket_path).st_ino
    server = _Server(dispatcher, allowed_uid, is_ready)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.tell_progress)
            nursery.start_soon(server.watch_callers)
            task_status.started(str(socket_path))
            await trio.serve_listeners(server.serve_connection, [trio.SocketListener(trio.socket.from_stdlib_socket(listening))])
    finally:
        _remove_own(socket_path, inode)


def _listen(path: Path) -> socket.socket:
    """A listening socket at ``path``: bound under another name, closed to others, and only then moved into place."""
    _refuse_live(path)
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.unlink(missing_ok=True)  # of a dead process that had our id
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with socket_address(hidden) as address:
            listening.bind(address)
        os.chmod(hidden, 0o600)
        listening.listen(CONNECTIONS_MAX)
        os.rename(hidden, path)
    except OSError as error:
        listening.close()
        hidden.unlink(missing_ok=True)
        raise LadingError(Reason.FAILED, f"cannot listen on {path}: {error.strerror or error}") from error
    return listening


def _refuse_live(path: Path) -> None:
    """Raises LadingError(LOCKED) when somebody answers at ``path``; a socket that nobody listens on is no obstacle."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            with socket_address(path) as address:
                probe.connect(address)
        except BlockingIOError:
            pass  # alive, with a full queue of callers
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK):
                return
            raise LadingError(Reason.FAILED, f"cannot look at {path}: {error.strerror or error}") from error
    raise LadingError(Reason.LOCKED, f"another node answers on {path}", hint="lading stop")


def _remove_own(path: Path, inode: int) -> None:
    """Takes the socket file away unless a successor already put its own there."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


class _Server:
    """What all connections share."""

    def __init__(self, dispatcher: Dispatcher, allowed_uid: int, is_ready: Callable[[], bool]) -> None:
        self.dispatcher = dispatcher
        self.is_ready = is_ready
        self._allowed_uid = allowed_uid
        self._open = 0
        self._telling: dict[_Exchange, None] = {}
        self._told = trio.Event()
        self._unwatched: dict[_Exchange, float] = {}
        self._some_unwatched = trio.Event()

    def begins(self, exchange: _Exchange) -> None:
        """A call whose caller is to be watched if it takes longer."""
        self._unwatched[exchange] = trio.current_time() + _WATCH_AFTER_S
        self._some_unwatched.set()

    def ends(self, exchange: _Exchange) -> None:
        self._unwatched.pop(exchange, None)

    async def watch_callers(self) -> None:
        """Has the callers of those calls watched that do not end at once."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._some_unwatched.wait()
                self._some_unwatched = trio.Event()
                while self._unwatched:
                    exchange, due = next(iter(self._unwatched.items()))  # the oldest: all wait for the same time
                    await trio.sleep_until(due)
                    if self._unwatched.pop(exchange, None) is not None:
                        nursery.start_soon(exchange.watch_caller)

    def has_progress(self, exchange: _Exchange) -> None:
        """Lines of this call are to be written soon."""
        self._telling[exchange] = None
        self._told.set()

    async def tell_progress(self) -> None:
        """Writes the progress of all calls, from time to time: most calls end before they would need a task of their own for it."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._told.wait()
                await trio.sleep(_PROGRESS_PAUSE_S)
                self._told = trio.Event()
                telling, self._telling = self._telling, {}
                for exchange in telling:
                    if exchange.is_running:
                        nursery.start_soon(exchange.write_progress)

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        """One connection, from its caller's credentials to its end. Raises nothing but trio's Cancelled."""
        async with stream:
            if not self._is_allowed(stream):
                return
            exchange = _Exchange(stream, self)
            self._open += 1
            try:
                if self._open > CONNECTIONS_MAX:
                    busy = LadingError(Reason.FLOOD, f"{CONNECTIONS_MAX} calls are in progress", hint="try again in a moment")
                    await exchange.finish(busy)
                    return
                await exchange.run()
            except _CallerGone:
                log.debug("caller gone")
            finally:
                self._open -= 1

    def _is_allowed(self, stream: trio.SocketStream) -> bool:
        if PEER_CREDENTIALS_OPTION is None:
            return True
        raw = stream.socket.getsockopt(socket.SOL_SOCKET, PEER_CREDENTIALS_OPTION, PEER_CREDENTIALS_BYTES)
        pid, uid = peer_credentials(raw)
        if uid in (self._allowed_uid, 0):
            return True
        log.warning("refused a caller of another user, pid=%d uid=%d", pid, uid)
        return False


class _Exchange:
    """One request and its answer."""

    def __init__(self, stream: trio.SocketStream, server: _Server) -> None:
        self._stream = stream
        self._server = server
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._writing = trio.Lock()
        self._is_cut = False  # a line was left half-written: nothing may follow it
        self._is_gone = False
        self._is_begun = False  # its head has left
        self._is_ended = False
        self._is_read = False  # the request has come to its end
        self._progress: deque[bytes] = deque(maxlen=PROGRESS_LINES_MAX)
        self._call: trio.CancelScope | None = None
        self._is_telling = False
        self._watching: trio.CancelScope | None = None

    @property
    def is_running(self) -> bool:
        """Its call is carried out."""
        return self._call is not None

    async def run(self) -> None:
        """Reads the request and answers it. Raises _CallerGone."""
        try:
            with trio.fail_after(HEADER_TIMEOUT_S):
                request = await self._next_event()
                if not isinstance(request, h11.Request):
                    raise _CallerGone
                path = request.target.decode("ascii", "replace")
                if request.method == b"GET" and path.startswith("/health/"):
                    await self._answer_health(path)
                    return
                if request.method != b"POST" or not path.startswith(f"/{API_VERSION}/"):
                    raise UsageError(
                        f"{request.method.decode('ascii', 'replace')} {path} is not served", hint=f"POST /{API_VERSION}/status"
                    )
                line, rest = await self._read_args_line()
                args = _parse_args(line)
                operation = path.removeprefix(f"/{API_VERSION}/")
                row = check_call(operation, args)
        except (h11.RemoteProtocolError, trio.TooSlowError) as error:
            await self.finish(UsageError(f"not a request: {error or 'it did not come in time'}"))
            return
        except LadingError as error:
            await self.finish(error)
            return
        has_body = row.uploads and _brings_more(request, len(line) + 1)
        wants_output = row.downloads and args.get("inline") is True
        await self._carry_out(operation, args, rest, has_body=has_body, wants_output=wants_output)

    async def finish(self, result: Answer | LadingError) -> None:
        """Writes what progress is left and the last line. Raises _CallerGone."""
        lines = b"".join(self._progress) + result_line(result)
        self._progress.clear()
        status = 200 if isinstance(result, Answer) else _STATUS_OF_EXIT_CODE.get(result.reason.exit_code, 500)
        await self._write(lines, status=status, is_last=True)

    # --- reading ---------------------------------------------------------------------------------------------------

    async def _next_event(self) -> h11.Request | h11.Data | h11.EndOfMessage:
        """Raises _CallerGone at an end before its time, h11.RemoteProtocolError on what is no HTTP."""
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request | h11.Data | h11.EndOfMessage):
                self._is_read = isinstance(event, h11.EndOfMessage)
                return event
            if event is not h11.NEED_DATA:  # closed, or paused after a message
                raise _CallerGone
            if self._http.they_are_waiting_for_100_continue:
                await self._send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _CallerGone from error
            self._http.receive_data(bytes(data))

    async def _read_args_line(self) -> tuple[bytes, bytes]:
        """The first line of the body without its line feed, and what came after it."""
        line = bytearray()
        while True:
            event = await self._next_event()
            if not isinstance(event, h11.Data):
                return bytes(line), b""
            end = event.data.find(b"\n")
            line += event.data if end < 0 else event.data[:end]
            if len(line) > ARGS_BYTES_MAX:
                raise UsageError(f"arguments of more than {ARGS_BYTES_MAX} bytes")
            if end >= 0:
                return bytes(line), bytes(event.data[end + 1 :])

    async def _pump(self, first: bytes, pieces: trio.MemorySendChannel[bytes] | None, call: trio.CancelScope) -> None:
        """Hands the upload on, piece by piece, then waits for the caller's going, which cancels ``call``."""
        try:
            if pieces is not None and first:
                await pieces.send(first)
            while not self._is_read:
                with trio.fail_after(STALL_TIMEOUT_S):
                    event = await self._next_event()
                if isinstance(event, h11.Data) and pieces is not None:
                    await pieces.send(bytes(event.data))
            if pieces is not None:
                pieces.close()
            # Whatever else it sends is not HTTP of ours; only its going matters.
            while await self._stream.receive_some(_READ_BYTES):
                pass
            raise _CallerGone
        except (trio.BrokenResourceError, trio.ClosedResourceError, _CallerGone, h11.RemoteProtocolError, trio.TooSlowError):
            self._leave(call)

    def _leave(self, call: trio.CancelScope) -> None:
        self._is_gone = True
        call.cancel()

    # --- the call --------------------------------------------------------------------------------------------------

    async def _carry_out(self, operation: str, args: Mapping[str, object], first: bytes, *, has_body: bool, wants_output: bool) -> None:
        with trio.CancelScope() as scope:
            self._call = scope
            if not has_body:
                self._server.begins(self)
                try:
                    await self._run_call(operation, args, None, scope, wants_output=wants_output)
                finally:
                    self._server.ends(self)
                    if self._watching is not None:
                        self._watching.cancel()
                if self._watching is None and not self._is_gone:
                    await self._read_to_end()
                return
            pieces_in, pieces_out = trio.open_memory_channel[bytes](1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, first, pieces_in, scope)
                await self._run_call(operation, args, _each(pieces_out), scope, wants_output=wants_output)
                nursery.cancel_scope.cancel()

    async def _read_to_end(self) -> None:
        """Of a request that was answered: who still sends its end would meet a closed connection before he reads the answer."""
        with suppress(_CallerGone, h11.RemoteProtocolError), trio.move_on_after(_END_TIMEOUT_S):
            while not self._is_read:
                await self._next_event()

    async def watch_caller(self) -> None:
        """Until the call ends: the caller's going cancels it."""
        call = self._call
        if call is None:
            return
        with trio.CancelScope() as self._watching:
            await self._pump(b"", None, call)

    async def _run_call(
        self, operation: str, args: Mapping[str, object], body: AsyncIterator[bytes] | None, scope: trio.CancelScope, *, wants_output: bool
    ) -> None:
        async def output(data: bytes) -> None:
            try:
                for start in range(0, len(data), PIECE_BYTES_MAX):
                    piece = data[start : start + PIECE_BYTES_MAX]
                    await self._write(output_header(len(piece)) + piece)
            except _CallerGone:
                # The dispatcher sees a cancelled call, however the caller left.
                self._leave(scope)
                await trio.sleep_forever()

        try:
            result: Answer | LadingError = await self._server.dispatcher.call(
                operation, args, body=body, progress=self._tell, output=output if wants_output else None
            )
        except LadingError as error:
            result = error
        except trio.Cancelled:
            if not self._is_gone:
                await self._last_word(LadingError(Reason.NOT_RUNNING, "the node stopped before it could answer", hint="lading start"))
            raise
        except Exception as error:  # the door: a fault inside one call must not take the node's API down
            result = _translate(operation, error)
        finally:
            self._call = None
        await self._last_word(result)

    async def _last_word(self, result: Answer | LadingError) -> None:
        with trio.move_on_after(_LAST_WORD_TIMEOUT_S) as shield:
            shield.shield = True
            try:
                await self.finish(result)
            except _CallerGone:
                self._is_gone = True

    def _tell(self, facts: Mapping[str, object]) -> None:
        self._progress.append(progress_line(facts))
        self._server.has_progress(self)

    async def write_progress(self) -> None:
        """Lines that were told since the last time. While some wait for a caller who does not read, later ones stay in their bounded
        queue."""
        if self._call is None or not self._progress or self._is_telling:
            return
        lines = b"".join(self._progress)
        self._progress.clear()
        self._is_telling = True
        try:
            await self._write(lines)
        except _CallerGone:
            if self._call is not None:
                self._leave(self._call)
        finally:
            self._is_telling = False
        if self._progress:
            self._server.has_progress(self)

    # --- writing ---------------------------------------------------------------------------------------------------

    async def _answer_health(self, path: str) -> None:
        is_live, is_ready = path == "/health/live", path == "/health/ready" and self._server.is_ready()
        status = 200 if is_live or is_ready else 503 if path == "/health/ready" else 404
        await self._write(to_json({"ok": status == 200}) + b"\n", status=status, is_last=True)

    async def _write(self, lines: bytes, *, status: int = 200, is_last: bool = False) -> None:
        """Sends whole lines as one chunk, with the head before the first ones and the HTTP end after the last. Raises _CallerGone."""
        async with self._writing:
            if self._is_cut or self._is_ended:
                raise _CallerGone
            head = b""
            # Else, also for what was no request, the end of the connection is the end of the answer.
            is_chunked = (self._http.their_http_version or b"") >= b"1.1"
            if not self._is_begun:
                head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{_HEAD}{_CHUNKED if is_chunked else ''}\r\n".encode()
            if is_chunked:
                lines = b"".join((b"%x\r\n" % len(lines), lines, b"\r\n", _LAST_CHUNK if is_last else b""))
            self._is_begun, self._is_ended = True, is_last
            await self._send(head + lines)

    async def _send(self, data: bytes | None) -> None:
        self._is_cut = True
        try:
            with trio.fail_after(STALL_TIMEOUT_S):
                await self._stream.send_all(data or b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise _CallerGone from error
        self._is_cut = False


async def _each(pieces: trio.MemoryReceiveChannel[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece


def _parse_args(line: bytes) -> Mapping[str, object]:
    value = from_json(line) if line.strip() else {}
    if not isinstance(value, dict):
        raise UsageError(f"arguments are a JSON object, not {type(value).__name__}")
    return value


def _brings_more(request: h11.Request, line_bytes: int) -> bool:
    """Whether the body goes on after the line of arguments."""
    for name, value in request.headers:
        if name == b"content-length":
            return int(value) > line_bytes
    return any(name == b"transfer-encoding" for name, _ in request.headers)


def _translate(operation: str, error: BaseException) -> LadingError:
    """The LadingError inside ``error``, where trio wrapped it in groups; else E-FAILED, and the log has the rest."""
    # Parts that run side by side fail side by side, of one cause more often than not: the first one tells it.
    while isinstance(error, BaseExceptionGroup) and (len(error.exceptions) == 1 or error.split(LadingError)[1] is None):
        error = error.exceptions[0]
    if isinstance(error, LadingError):
        return error
    log.error("call failed, operation=%s: report this with the lines below", operation, exc_info=error)
    return LadingError(
        Reason.FAILED, f"{operation} failed inside the node: {type(error).__name__}: {error}", hint="the node's log has the details"
    )
