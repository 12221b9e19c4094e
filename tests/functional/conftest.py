"""Fixtures that own processes: whatever a test starts through them ends with it, also when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.nodes import HomeNode, Processes

MIB = 1024 * 1024
# 40 MiB make five sequences, enough that every pair of holders holds something; the full story is told with 200.
BULK_BYTES = int(os.environ.get("FUNCTIONAL_BULK_MIB", "40")) * MIB


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    owner = Processes(tmp_path)
    yield owner
    owner.end()


@pytest.fixture(scope="module")
def shared_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """As ``processes``, for nodes that all tests of a module use."""
    owner = Processes(tmp_path_factory.mktemp("shared"))
    yield owner
    owner.end()


@pytest.fixture(scope="module")
def trio_net(shared_processes: Processes) -> list[HomeNode]:
    """Three meshed nodes of three members, for tests that leave them running."""
    return shared_processes.testnet(3)
