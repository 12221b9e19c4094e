"""`lading`, also `python -m node`."""

from __future__ import annotations

import gc
import sys

# Imports make a hundred thousand objects that stay: looking for garbage after every 700 of them, as Python does by itself, is a tenth
# of the time in which a node starts.
GARBAGE_THRESHOLD = 50_000


def main() -> None:
    """The console script: runs the command line and exits with its code."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    from node.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
