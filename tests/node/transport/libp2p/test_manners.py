"""The libp2p twin keeps the manners of every transport, over real sockets on loopback."""

from __future__ import annotations

import pytest

from ..manners import Manners
from .loopback import LoopbackWorld


@pytest.fixture
def world() -> LoopbackWorld:
    return LoopbackWorld()


@pytest.fixture
def clock() -> None:
    """The real one."""


class TestLibp2p(Manners):
    """The contract over TCP."""
