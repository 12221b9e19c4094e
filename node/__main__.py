"""`lading`, also `python -m node`."""

from __future__ import annotations

import gc
import signal
import sys

# Imports make a hundred thousand objects that stay: looking for garbage after every 700 of them, as Python does by itself, is a tenth
# of the time in which a node starts.
GARBAGE_THRESHOLD = 50_000
INTERRUPTED = 130  # as E-CANCELLED, which is not loaded yet


def main() -> None:
    """The console script: runs the command line and exits with its code."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        from node.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command line listens to it: while this is loaded
        code = INTERRUPTED
    # All is said. Python takes its handlers away while it ends: a late second press would make a signal of the exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
