"""Add up the JUnit files that the tox cells left behind, and end with one line that a reader of logs understands."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET


def main(folder: str, *cells: str) -> int:
    """Print one line for each cell and the sum. Exit status 1 if anything failed, or if no test ran at all.

    :param cells: in each of these some test must have passed: tox passes over a cell without a word that anybody reads
    """
    passed = failed = skipped = 0
    idle = set(cells)
    for path in sorted(Path(folder).glob("*.xml")):
        suites = ET.parse(path).getroot().iter("testsuite")
        t, f, s, seconds = 0, 0, 0, 0.0
        for suite in suites:
            t += int(suite.get("tests", "0"))
            f += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
            s += int(suite.get("skipped", "0"))
            seconds += float(suite.get("time", "0"))
        if t > f + s:
            idle.discard(path.stem)
        print(f"{path.stem:18} {t - f - s:5} passed {f:4} failed {s:4} skipped {seconds:7.1f} s")
        passed, failed, skipped = passed + t - f - s, failed + f, skipped + s
    for cell in sorted(idle):
        print(f"{cell:18} no test passed here: the cell is missing, or all was skipped")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed and not idle else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
