"""`python -m tests.torture --cycles 1000 --seed 0`: exit status 1 when anything was lost, damaged or different."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.cycles import Torture


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000, help="lives that end by a signal")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    where = Path(tempfile.mkdtemp(prefix="torture-"))
    started = time.monotonic()
    tally = Torture(where, arguments.seed).go(arguments.cycles)
    print(tally)
    print(f"seconds      {time.monotonic() - started:.0f}, seed {arguments.seed}")
    if tally.mismatches:
        print(f"the runs are in {where}")
        return 1
    shutil.rmtree(where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
