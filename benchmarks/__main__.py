"""`python -m benchmarks [ROW…]`: measures, prints the table, leaves raw samples in benchmarks/results/."""

from __future__ import annotations

import os
import sys
import time

from .harness import Row, Skipped, save
from .rows import ROWS


def main() -> None:
    chosen = sys.argv[1:] or list(ROWS)
    unknown = [name for name in chosen if name not in ROWS]
    if unknown:
        sys.exit(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    table: list[Row] = []
    skipped: list[str] = []
    for name in chosen:
        print(f"== {name} (load of the machine before: {os.getloadavg()[0]:.1f})", flush=True)
        began = time.monotonic()
        try:
            rows = ROWS[name]()
        except Skipped as why:
            print(f"   skipped: {why}", flush=True)
            skipped.append(f"skipped: {name}: {why}")
            continue
        save(rows, name=name)
        table += rows
        print(f"   took {time.monotonic() - began:.0f} s", flush=True)
    print("\n| what | measured: median [low–high, runs] | floor | aim |\n|---|---|---|---|")
    for row in table:
        print(row.line())
    for line in skipped:
        print(line)


if __name__ == "__main__":
    main()
