"""A wire between two nodes that a test owns: it records what passes, slows one direction down, and can be cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

READ_BYTES = 65536


@dataclass(eq=False)
class _End:
    """One socket of a pair. queue: (not before when, bytes) on their way to it."""

    socket: socket.socket
    is_listener: bool
    other: _End | None = None
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)


class Wire:
    """Listens on a loopback port and passes every connection on to ``target_port``. delay_s: of what the listener answers.

    recorded: all bytes in both directions, as far as ``keep`` asks for them.
    """

    def __init__(self, target_port: int, *, port: int = 0, delay_s: float = 0.0, keep: bool = False) -> None:
        self.recorded = bytearray()
        self._target_port = target_port
        self._delay_s = delay_s
        self._keep = keep
        self._ends: list[_End] = []
        self._cut = threading.Event()
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def multiaddr(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    def cut(self) -> None:
        """Ends everything on the wire, and the wire."""
        self._cut.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with contextlib.closing(self._server), selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            while not self._cut.is_set():
                for key, _ in selector.select(0.02):
                    if key.fileobj is self._server:
                        self._connect(selector)
                    else:
                        self._read(selector, key.data)
                now = time.monotonic()
                for end in list(self._ends):
                    self._write(selector, end, now)
            for end in self._ends:
                end.socket.close()

    def _connect(self, selector: selectors.BaseSelector) -> None:
        caller, _ = self._server.accept()
        try:
            target = socket.create_connection(("127.0.0.1", self._target_port), timeout=5)
        except OSError:
            caller.close()
            return
        one, two = _End(caller, is_listener=False), _End(target, is_listener=True)
        one.other, two.other = two, one
        for end in (one, two):
            end.socket.settimeout(5)
            self._ends.append(end)
            selector.register(end.socket, selectors.EVENT_READ, end)

    def _read(self, selector: selectors.BaseSelector, end: _End) -> None:
        if end not in self._ends:
            return
        assert end.other is not None
        try:
            data = end.socket.recv(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(selector, end)
            return
        if self._keep:
            self.recorded += data
        end.other.queue.append((time.monotonic() + (self._delay_s if end.is_listener else 0.0), data))

    def _write(self, selector: selectors.BaseSelector, end: _End, now: float) -> None:
        while end.queue and end.queue[0][0] <= now:
            try:
                end.socket.sendall(end.queue.popleft()[1])
            except OSError:
                self._drop(selector, end)
                return

    def _drop(self, selector: selectors.BaseSelector, end: _End) -> None:
        for one in (end, end.other):
            if one in self._ends:
                assert one is not None
                self._ends.remove(one)
                selector.unregister(one.socket)
                one.socket.close()
