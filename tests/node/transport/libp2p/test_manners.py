"""The libp2p twin keeps the manners of every transport, over real sockets on loopback."""

from __future__ import annotations

import pytest

from ..manners import Manners
from .loopback import LoopbackWorld

LANES = ["own", "stock"]


@pytest.fixture(params=LANES)
def world(request: pytest.FixtureRequest) -> LoopbackWorld:
    """All on our lane, or all on the library's; test_lane.py pairs them."""
    return LoopbackWorld((request.param, request.param))


@pytest.fixture
def clock() -> None:
    """The real one."""


class TestLibp2p(Manners):
    """The contract over TCP."""
