"""`python -m bincount` is the command `bincount`."""

import os

from bincount import machine
from bincount.cli import main

if __name__ == "__main__":
    if parent := os.environ.pop(machine.PARENT, None):
        machine.end_without(int(parent))
    raise SystemExit(main())
