"""What every test shares: profiles of Hypothesis, and none of the operator's own settings."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: a loaded machine is not a failure; speed claims are benchmarks. print_blob: a failure prints one line that replays it.
# derandomize under CI: the same commit gives the same answer; new cases are found by make test-long and on people's machines.
settings.register_profile("lading", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("lading"), derandomize=True)
settings.register_profile("long", settings.get_profile("lading"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "lading"))

# A test never meets the home or the settings of the person who runs it. LADING_LANE chooses what carries the transport's tests and the
# processes of the functional ones: make test-stock.
for _name in list(os.environ):
    if _name.startswith("LADING_") and _name not in ("LADING_LANE", "LADING_LIES", "LADING_SEED", "LADING_SEEDS"):
        del os.environ[_name]
