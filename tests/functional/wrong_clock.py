"""`lading` on a machine whose clock is wrong: ``python -m tests.functional.wrong_clock TIME WORDS...``, TIME in unix seconds at the start.

The program itself has no such setting, so that none can weaken a node; here its one door to the wall clock is replaced from outside.
"""

from __future__ import annotations

import sys
import time

from node.clock import SystemClock


def main() -> None:
    """Runs the command line with a clock that began at TIME."""
    offset_s = float(sys.argv[1]) - time.time()
    SystemClock.is_synchronised = False  # type: ignore[assignment,method-assign]  # whatever the kernel says of the true one
    SystemClock.now = lambda self: time.time() + offset_s  # type: ignore[method-assign]  # the point of this program
    from node.cli.main import run

    sys.exit(run(sys.argv[2:]))


if __name__ == "__main__":
    main()
