"""`lading`, also `python -m node`."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script: runs the command line and exits with its code."""
    from node.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
