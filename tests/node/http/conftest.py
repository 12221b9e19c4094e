"""A node's API without a node, served over a real Unix socket."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
import trio

from node.http.client import SOCKET_NAME
from node.http.server import serve
from tests.node.http.fake_node import FakeNode


@pytest.fixture
async def fake_node(tmp_path: Path, nursery: trio.Nursery) -> FakeNode:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "config.toml").touch()
    node = FakeNode(home)
    await nursery.start(partial(serve, node, home / SOCKET_NAME, allowed_uid=os.getuid()))
    return node
