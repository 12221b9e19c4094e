"""A home whose node is a fake, served in a thread; the command line runs where people run it: in the main thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from node.http.client import SOCKET_NAME
from node.http.server import serve
from tests.node.http.fake_node import FakeNode


@pytest.fixture
def home_node(tmp_path: Path) -> Iterator[FakeNode]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").touch()
    node = FakeNode(home)
    is_up = threading.Event()
    stop: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, node, home / SOCKET_NAME, allowed_uid=os.getuid()))
            stop.append((trio.lowlevel.current_trio_token(), nursery.cancel_scope))
            is_up.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert is_up.wait(5)
    yield node
    token, scope = stop[0]
    token.run_sync_soon(scope.cancel)
    thread.join(5)
    assert not thread.is_alive()
