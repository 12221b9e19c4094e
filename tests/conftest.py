"""What every test shares: profiles of Hypothesis, none of the operator's own settings, and how processes share the tests."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a loaded machine is not a failure; speed claims are benchmarks. print_blob: a failure prints one line that replays it.
# derandomize under CI: the same commit gives the same answer; new cases are found by make test-long and on people's machines.
settings.register_profile("lading", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("lading"), derandomize=True)
settings.register_profile("long", settings.get_profile("lading"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "lading"))

# Python looks for garbage after 700 new objects, in suites that hold millions: an eighth of the time. What a test must not leave, it
# collects itself.
gc.set_threshold(50_000, 20, 20)

# A test never meets the home or the settings of the person who runs it. LADING_LANE chooses what carries the transport's tests and the
# processes of the functional ones: make test-stock.
for _name in list(os.environ):
    if _name.startswith("LADING_") and _name not in ("LADING_LANE", "LADING_LIES", "LADING_SEED", "LADING_SEEDS"):
        del os.environ[_name]

# Where the long tests are. Several processes begin with them and fill up with the short ones, so that none is left alone with a long one.
_LONG = ("functional", "simulation")


def _shares_fixtures(item: pytest.Item) -> bool:
    """Whether it uses something that the tests of its module share, such as nodes that run."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info is not None else ()
    return any(one.scope == "module" and one.baseid for several in definitions for one in several)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several processes (`--dist loadgroup --no-loadscope-reorder`): a test goes to whoever is free, those of a module that share
    something go to one, and the long ones go first, those that share before the others."""
    if not hasattr(config, "workerinput"):
        return
    sharing = {item for item in items if _shares_fixtures(item)}
    for item in sharing:
        item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(config.rootpath))))

    def turn(item: pytest.Item) -> tuple[int, bool]:
        room = item.path.relative_to(config.rootpath).parts[1]
        return _LONG.index(room) if room in _LONG else len(_LONG), item not in sharing

    items.sort(key=turn)


def pytest_collection_finish() -> None:
    """What stands once all tests are read is not looked at again by each of the many collections of the simulated worlds."""
    gc.collect()
    gc.freeze()
