"""``python -m collfs``: the same as the command ``collfs``."""

from __future__ import annotations

import sys

from collfs.cli import main

if __name__ == "__main__":
    status = main()
    if status:  # otherwise the interpreter comes to its end by itself, as after any program
        sys.exit(status)
