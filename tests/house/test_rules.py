"""Each rule of the house catches a violation planted in a small tree, and lets its lawful twin pass."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house import rules
from tests.house.sources import House
from tests.house.spec_tables import disagreements, rows_of_spec, rows_of_table

Rule = Callable[[House], Iterator[str]]
Tree = dict[str, str]

DOC = '"""A module."""\n'

PLANTED: list[tuple[Rule, Tree, Tree]] = [
    (rules.imports_point_down, {"protocols/a.py": "from storage.b import c"}, {"storage/b.py": "from protocols.a import c"}),
    (rules.imports_point_down, {"protocols/a.py": "import node.clock"}, {"node/clock.py": "import protocols.a"}),
    (rules.imports_point_down, {"storage/a.py": "def f():\n    from node import clock"}, {"node/a.py": "from storage import engine"}),
    (rules.imports_point_down, {"node/a.py": "from tests.world import World"}, {"node/a.py": "from node.world import World"}),
    (
        rules.no_sideways_imports,
        {"protocols/auth/machine.py": "from ..gossip.messages import Have", "protocols/gossip/messages.py": ""},
        {"protocols/auth/machine.py": "from ..identity.certificates import Chain", "protocols/identity/certificates.py": ""},
    ),
    (
        rules.no_sideways_imports,
        {"protocols/files/wraps.py": "from protocols.identity import members", "protocols/identity/members.py": ""},
        {"protocols/files/wraps.py": "from . import records", "protocols/files/records.py": ""},
    ),
    (
        rules.no_sideways_imports,
        {"protocols/files/repair.py": "from ..exchange.messages import Want", "protocols/exchange/messages.py": ""},
        {"protocols/exchange/messages.py": "from ..files.repair import Plan", "protocols/files/repair.py": ""},
    ),
    (
        rules.no_sideways_imports,
        {"protocols/files/a.py": "from ..ledger.block import Block", "protocols/ledger/block.py": ""},
        {"protocols/ledger/a.py": "from ..files.objects import S", "protocols/files/objects.py": ""},
    ),
    (
        rules.no_sideways_imports,
        {"protocols/ledger/a.py": "from ..gossip.messages import M", "protocols/gossip/messages.py": ""},
        {"protocols/gossip/a.py": "from ..ledger.block import Block", "protocols/ledger/block.py": ""},
    ),
    (
        rules.no_sideways_imports,
        {"protocols/codec.py": "from .files.records import R", "protocols/files/records.py": ""},
        {"protocols/registry.py": "from .auth.messages import M", "protocols/auth/messages.py": ""},
    ),
    (
        rules.no_cycles,
        {"storage/a.py": "from storage import b", "storage/b.py": "from .c import x", "storage/c.py": "def f():\n    import storage.a"},
        {"storage/a.py": "from storage import b, c", "storage/b.py": "from .c import x", "storage/c.py": ""},
    ),
    (rules.one_user_per_door, {"node/actors/peers.py": "from libp2p import new_host"}, {"node/transport/libp2p/host.py": "import libp2p"}),
    (rules.one_user_per_door, {"storage/chunks.py": "import lmdb"}, {"storage/lmdb_engine.py": "import lmdb"}),
    (rules.one_user_per_door, {"benchmarks/bench.py": "import lmdb"}, {"benchmarks/chunk_store.py": "import lmdb"}),
    (
        rules.one_user_per_door,
        {"protocols/files/seal.py": "from cryptography.hazmat.primitives import hashes"},
        {"protocols/crypto.py": "from cryptography.hazmat.primitives import hashes"},
    ),
    (rules.one_user_per_door, {"storage/peers.py": "import msgspec"}, {"protocols/codec.py": "import msgspec, msgpack"}),
    (rules.one_user_per_door, {"node/a.py": "import time as t\nx = t.time()"}, {"node/a.py": "import time as t\nx = t.perf_counter()"}),
    (rules.one_user_per_door, {"node/a.py": "from time import time"}, {"node/clock.py": "from time import time"}),
    (
        rules.one_user_per_door,
        {"node/a.py": "from datetime import datetime, UTC\nx = datetime.now(UTC)"},
        {"node/a.py": "from datetime import datetime, UTC\nx = datetime.fromtimestamp(0, UTC)"},
    ),
    (rules.one_user_per_door, {"node/a.py": "import os\nx = os.urandom(4)"}, {"node/entropy.py": "import os\nx = os.urandom(4)"}),
    (rules.one_user_per_door, {"node/a.py": "import secrets"}, {"node/entropy.py": "import random, secrets"}),
    (rules.one_user_per_door, {"node/a.py": "import trio\nx = trio.to_thread.run_sync"}, {"node/offload.py": "from trio import to_thread"}),
    (rules.one_user_per_door, {"node/a.py": "from threading import Lock"}, {"node/transport/libp2p/discovery.py": "import threading"}),
    (
        rules.one_user_per_door,
        {"storage/memory.py": "import threading\nt = threading.Thread()"},
        {"storage/memory.py": "import threading\nt = threading.Lock()"},
    ),
    (
        rules.one_user_per_door,
        {"storage/faulty.py": "import random\nx = random.random()"},
        {"storage/faulty.py": "import random\ndef f(chance: random.Random): return chance.random()"},
    ),
    (rules.one_user_per_door, {"node/config.py": "import argparse"}, {"node/cli/main.py": "import argparse"}),
    (rules.one_user_per_door, {"node/api.py": "import h11"}, {"node/http/server.py": "import h11"}),
    (rules.one_user_per_door, {"storage/a.py": "import trio"}, {"node/a.py": "import trio"}),
    (rules.floors_stay_pure, {"protocols/a.py": "import time"}, {"node/a.py": "import time"}),
    (rules.floors_stay_pure, {"protocols/a.py": "import random"}, {"protocols/a.py": "import hashlib"}),
    (rules.floors_stay_pure, {"protocols/a.py": "import os.path"}, {"storage/a.py": "import os"}),
    (rules.floors_stay_pure, {"protocols/a.py": "from logging import getLogger"}, {"node/a.py": "import logging"}),
    (rules.floors_stay_pure, {"storage/a.py": "import logging"}, {"node/a.py": "import logging"}),
    (rules.floors_stay_pure, {"protocols/a.py": "async def f(): ..."}, {"node/a.py": "async def f(): ..."}),
    (rules.floors_stay_pure, {"protocols/a.py": "def f(p):\n    return open(p)"}, {"protocols/a.py": "def f(p):\n    return p.open()"}),
    (
        rules.keys_are_not_drawn_below_the_entropy_door,
        {"protocols/crypto.py": "from cryptography.x import PrivateKey\nkey = PrivateKey.generate()"},
        {"protocols/crypto.py": "from cryptography.x import PrivateKey\nkey = PrivateKey.from_private_bytes(b'')"},
    ),
    (
        rules.exception_groups_only_in_the_supervisor,
        {"node/actor.py": "try:\n    pass\nexcept* ValueError:\n    pass"},
        {"node/supervisor.py": "try:\n    pass\nexcept* ValueError:\n    pass"},
    ),
    (
        rules.broad_except_only_at_doors,
        {"node/actor.py": "try:\n    pass\nexcept (OSError, Exception):\n    pass"},
        {"node/http/server.py": "try:\n    pass\nexcept Exception:\n    pass"},
    ),
    (
        rules.broad_except_only_at_doors,
        {"node/http/server.py": "try:\n    pass\nexcept:\n    pass"},
        {"node/actor.py": "try:\n    pass\nexcept BaseException:\n    raise"},
    ),
    (
        rules.packages_are_maps,
        {"node/__init__.py": '"""Roof: actor."""', "node/actor.py": "", "node/bus.py": ""},
        {"node/__init__.py": '"""Roof: actor, bus."""', "node/actor.py": "", "node/bus.py": ""},
    ),
    (
        rules.packages_are_maps,
        {"node/__init__.py": '"""Roof: bus."""\nfrom .bus import Bus', "node/bus.py": ""},
        {"node/__init__.py": '"""Roof: bus."""', "node/bus.py": ""},
    ),
    (
        rules.packages_are_maps,
        {"node/__init__.py": '"""Roof: cli/"""', "node/cli/main.py": ""},
        {"node/__init__.py": '"""Roof: cli/"""', "node/cli/main.py": "", "node/cli/__init__.py": '"""main"""'},
    ),
    (rules.nothing_is_left_to_do, {"node/a.py": "# TO" + "DO: later"}, {"node/a.py": "# what is done"}),
    (rules.nothing_is_left_to_do, {"tests/test_a.py": "# FIX" + "ME"}, {"tests/test_a.py": "# fixed"}),
    (rules.files_have_names, {"node/utils.py": ""}, {"node/utilities_bill.py": ""}),
    (rules.files_have_names, {"tests/protocols/utils.py": ""}, {"tests/protocols/vectors.py": ""}),
    (rules.modules_say_what_they_are, {"tests/test_a.py": "x = 1"}, {"tests/test_a.py": DOC + "x = 1"}),
    (
        rules.tests_belong_to_a_function_that_can_fail,
        {"tests/test_a.py": "def test_a():\n    x = 1"},
        {"tests/test_a.py": "def test_a():\n    assert 1 + 1 == 2"},
    ),
    (
        rules.requirements_name_real_tests,
        {"docs/REQUIREMENTS.md": "| STO-01 | tests/test_a.py::test_gone |", "tests/test_a.py": "def test_a():\n    assert f()"},
        {"docs/REQUIREMENTS.md": "| STO-01 | tests/test_a.py::test_a |", "tests/test_a.py": "def test_a():\n    assert f()"},
    ),
    (
        rules.requirements_name_real_tests,
        {"docs/REQUIREMENTS.md": "| STO-01 | tests/node/test_gone.py |"},
        {"docs/REQUIREMENTS.md": "| STO-01 | open |"},
    ),
    (
        rules.requirements_name_real_tests,
        {"docs/REQUIREMENTS.md": "| NET-03 | `make show` |", "Makefile": "demo: setup\n\ttrue"},
        {"docs/REQUIREMENTS.md": "| NET-03 | `make demo` |", "Makefile": "demo: setup\n\ttrue"},
    ),
    (
        rules.every_fault_names_real_tests,
        {"docs/FAULTS.md": "| cable | noticed | tests/test_a.py::test_gone |", "tests/test_a.py": "def test_a():\n    assert f()"},
        {"docs/FAULTS.md": "| cable | noticed | tests/test_a.py::test_a |", "tests/test_a.py": "def test_a():\n    assert f()"},
    ),
    (
        rules.every_fault_names_real_tests,
        {"docs/FAULTS.md": "E-GONE", "protocols/errors.py": 'X = ("E-HERE", 1)'},
        {"docs/FAULTS.md": "E-HERE", "protocols/errors.py": 'X = ("E-HERE", 1)'},
    ),
    (
        rules.every_fault_names_real_tests,
        {"docs/FAULTS.md": "| cable of tests/ | noticed | by hand |"},
        {"docs/FAULTS.md": "| fault | what happens | shown by |"},
    ),
]


def _plant(root: Path, tree: Tree) -> House:
    for path, text in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return House.read(root)


@pytest.mark.parametrize(
    ("rule", "unlawful", "lawful"), PLANTED, ids=lambda value: getattr(value, "__name__", None) or "+".join(sorted(value))
)
def test_planted_violation_is_caught(rule: Rule, unlawful: Tree, lawful: Tree, tmp_path: Path) -> None:
    """Goal: a rule that has gone blind is noticed. Method: two trees that differ in one thing."""
    assert list(rule(_plant(tmp_path / "unlawful", unlawful)))
    assert not list(rule(_plant(tmp_path / "lawful", lawful)))


def test_every_rule_has_a_planted_violation() -> None:
    """Goal: no rule without its counter-example. Method: compare the two lists."""
    assert {rule for rule, _, _ in PLANTED} == set(rules.RULES)


class _State(enum.Enum):
    NEW = 1
    DONE = 2


class _Arrived:
    """An event."""


class _Ended:
    """Another event."""


_TABLE: dict[tuple[enum.Enum, type], tuple[str, frozenset[enum.Enum]]] = {
    (_State.NEW, _Arrived): ("take", frozenset({_State.NEW, _State.DONE})),
    (_State.NEW, _Ended): ("finish", frozenset({_State.DONE})),
}
_SPEC = """
| state | event | move | next |
|---|---|---|---|
| `NEW` | `_Arrived` | `take` | `DONE`, `NEW` |
| NEW | _Ended | finish | DONE |

Prose | with a bar.
"""


def test_spec_table_that_equals_the_machine_agrees() -> None:
    """Goal: order, backticks and prose around do not matter."""
    assert not list(disagreements(rows_of_spec(_SPEC), {"Machine": rows_of_table(_TABLE)}))


@pytest.mark.parametrize(
    "spec",
    [
        _SPEC.replace("| NEW | _Ended | finish | DONE |\n", ""),
        _SPEC.replace("finish", "end"),
        _SPEC.replace("`DONE`, `NEW`", "`DONE`"),
        _SPEC.replace("| NEW | _Ended", "| DONE | _Arrived | take | DONE |\n| NEW | _Ended"),
        _SPEC + "\n" + _SPEC,
    ],
    ids=["row missing", "other move", "other next", "row too many", "table without machine"],
)
def test_spec_table_that_differs_is_caught(spec: str) -> None:
    """Goal: every way to differ is seen. Method: one change of the lawful table each."""
    assert list(disagreements(rows_of_spec(spec), {"Machine": rows_of_table(_TABLE)}))
