"""What collfs tells the user: through ``logging.getLogger("collfs")``, each thing once, and counted.

Rules of the file: logging is imported when there is something to say, not before; a message never fails the program.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Messages:
    """The warnings of one session."""

    __slots__ = ("_said", "quiet", "warnings")

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.warnings: list[str] = []  # for the report
        self._said: set[str] = set()

    def warn(self, key: str, text: str) -> None:
        """Say *text* unless something was said under *key* before."""
        if key in self._said:
            return
        self._said.add(key)
        self.warnings.append(text)
        self._log(text, warning=True)

    def info(self, text: str) -> None:
        """Say *text* without counting it as a warning."""
        self._log(text, warning=False)

    def _log(self, text: str, warning: bool) -> None:
        if self.quiet:
            return
        try:
            import logging

            logger = logging.getLogger("collfs")
            if warning:
                logger.warning("collfs: %s", text)
            else:
                logger.info("collfs: %s", text)
        except Exception:  # an interpreter that is shutting down has no logging any more
            pass

    def extend(self, texts: Sequence[str]) -> None:
        """Take over warnings that were said elsewhere."""
        self.warnings += texts
