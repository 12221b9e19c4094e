"""Replays one world: ``python -m tests.simulation SEED``. Prints its summary and the hash of its trace, or how it failed."""

from __future__ import annotations

import sys
import time

from .scheduler import SimulationFailed, first_cause
from .world import draw_options, replay


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 1 when the world failed, 2 for a wrong command line."""
    if len(arguments) != 1 or not arguments[0].isdigit():
        print("usage: python -m tests.simulation SEED", file=sys.stderr)
        return 2
    seed = int(arguments[0])
    began = time.monotonic()
    print(draw_options(seed))
    try:
        summary, digest = replay(seed)
    except SimulationFailed as failure:
        print(failure)
        print(f"seed {seed} failed: {first_cause(failure)!r}")
        return 1
    print(summary)
    print(f"{digest} seed {seed}, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
