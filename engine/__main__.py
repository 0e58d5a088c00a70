"""`python -m engine`: the command line, also where there is no console."""

import sys

from engine.cli import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m engine"))
