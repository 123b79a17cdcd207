"""`python -m bincount` is the command `bincount`."""

from bincount.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
