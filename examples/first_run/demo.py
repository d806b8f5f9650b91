"""See the effect: eight processes that import numpy, scipy and pandas, plain and under collfs.

Makes a virtual environment beside this file with the three libraries and this checkout of collfs, runs job.py in eight
processes at once, and counts the path operations (stat, open, listing, ...) that reach the original files of Python and
of that environment. strace counts, so collfs can't flatter itself; without strace its own report is shown.

    python3 examples/first_run/demo.py [--ranks N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(CHECKOUT / "tests" / "helpers"))  # the counter is the one that the tests trust

import childproc  # noqa: E402
import stracecount  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

STACK = ("numpy", "scipy", "pandas")
# All ranks at once, as a job starts them. The shell lies outside the counted folders; each rank is one process.
LAUNCH = """
count=$1; shift
pids=
while [ "$count" -gt 0 ]; do
    "$@" & pids="$pids $!"
    count=$((count - 1))
done
for pid in $pids; do wait "$pid" || exit 1; done
"""
TIMEOUT = 600  # seconds for all ranks of one run under strace; two slow cores need about 60


class Run(NamedTuple):
    """One run of the job: what it printed, and the operations on the originals (None: nobody could count)."""

    name: str
    output: list[str]
    counts: stracecount.Counts | None

    def per_process(self) -> list[int]:
        """Operations of each rank."""
        return [n for n in self.counts.by_process().values() if n] if self.counts else []

    def read_by_many(self) -> int:
        """How many files were opened by more than one process."""
        return sum(len(who) > 1 for who in self.counts.openers().values()) if self.counts else 0


def make_environment(folder: Path) -> Path:
    """A virtual environment with the stack and this checkout. An existing one is used again, with collfs anew."""
    python = folder / "bin" / "python"
    print(f"installing {', '.join(STACK)} and collfs into {os.path.relpath(folder)} ...", flush=True)
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip(python, "--only-binary", ":all:", *STACK)
    pip(python, "--force-reinstall", "--no-deps", str(CHECKOUT))
    return python


def pip(python: Path, *args: str) -> None:
    """Install with the environment's own pip."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args]
    if subprocess.run(command, timeout=TIMEOUT, check=False).returncode != 0:
        sys.exit(
            f"pip could not install {' '.join(args)}: see above. Once it can, start this again: it goes on from here"
        )


def run(name: str, ranks: int, program: Sequence[str], prefixes: Sequence[str]) -> Run:
    """Start *program* in *ranks* processes at once and count what reaches the files below *prefixes*."""
    command = ["sh", "-c", LAUNCH, "sh", str(ranks), *program]
    env = {"OPENBLAS_NUM_THREADS": "1"}  # one thread a rank, as batch systems set it
    print(f"{name} ...", flush=True)
    if stracecount.why_not():
        return Run(name, sorted(childproc.run_command(command, env=env, timeout=TIMEOUT).stdout.splitlines()), None)
    result, counts = stracecount.strace_counts(command, prefixes, env=env, timeout=TIMEOUT)
    return Run(name, sorted(result.stdout.splitlines()), counts)


def show(runs: Sequence[Run]) -> None:
    """The table: one row for each process, one column for each run."""
    widths = [max(len(r.name), 9) for r in runs]
    rows = [("", [r.name for r in runs])]
    columns = [r.per_process() for r in runs]
    rows += [
        (f"process {i + 1}", [f"{c[i]:,}" if i < len(c) else "" for c in columns])
        for i in range(max(len(c) for c in columns))
    ]
    rows.append(("all", [f"{sum(c):,}" for c in columns]))
    rows.append(("files opened by more than one", [f"{r.read_by_many():,}" for r in runs]))
    print("\npath operations that reach the original files:\n")
    for label, cells in rows:
        print(f"{label:30}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths)))


def main() -> int:
    """Exit status 1 if the job printed anything else under collfs than it does plain."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=8, metavar="N", help="processes at once (default: 8)")
    parser.add_argument("--folder", type=Path, default=HERE / "results", metavar="DIR", help="where everything goes")
    options = parser.parse_args()
    if options.ranks < 1:
        parser.error(f"--ranks must be 1 or more, not {options.ranks}")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)

    python = str(make_environment(folder / "venv"))
    library = os.path.realpath(os.path.join(sys.base_prefix, "lib", "python{}.{}".format(*sys.version_info)))
    prefixes = [str(folder / "venv"), library]
    job = str(HERE / "job.py")
    manifest = folder / "manifest"
    manifest.unlink(missing_ok=True)
    report = folder / "report.json"
    collfs = [
        python,
        "-m",
        "collfs",
        "run",
        "--transport",
        "local",
        "--manifest",
        str(manifest),
        "--report",
        str(report),
    ]
    collfs += ["--quiet", *(word for p in prefixes for word in ("--prefix", p)), job]

    childproc.run_command([python, job], timeout=TIMEOUT)  # writes byte code, so that all runs start alike
    runs = [
        run("plain", options.ranks, [python, job], prefixes),
        run("collfs", options.ranks, collfs, prefixes),
        run("collfs again", options.ranks, collfs, prefixes),
    ]
    different = [r.name for r in runs if r.output != runs[0].output]
    if runs[0].counts is None:
        print(f"\nnot counted: {stracecount.why_not()}. What collfs says itself is in {os.path.relpath(report)}")
    else:
        show(runs)
        result = {
            "ranks": options.ranks,
            "runs": [{"name": r.name, "per_process": r.per_process(), "read_by_many": r.read_by_many()} for r in runs],
        }
        (folder / "counts.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n" + (f"DIFFERENT output in: {', '.join(different)}" if different else "same output in all runs"))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
