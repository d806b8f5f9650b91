"""What a server says: lines on its standard error, which a launcher, or the server's log file, keeps.

Rule of the file: no logging module; its import reads 30 paths of the shared file system on each node before anything
is served.
"""

from __future__ import annotations

import sys


class Log:
    """``quiet``: only what is wrong is said."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Something that is as it should be."""
        if not self.quiet:
            self.complain(text)

    @staticmethod
    def complain(text: str) -> None:
        """Something that isn't. A standard error that is closed or full is no reason to end."""
        try:
            sys.stderr.write(f"collfs serve: {text}\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):
            pass
