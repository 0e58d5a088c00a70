"""`python -m engine`: the command line, also where there is no console."""

import os
import sys

from engine.cli import main
from engine.distributed.launched import LAUNCHER

if __name__ == "__main__":
    sys.exit(main(prog=os.environ.get(LAUNCHER, "python -m engine")))
