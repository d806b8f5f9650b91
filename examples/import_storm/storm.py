"""The import storm, on one machine: simulated nodes, one slow file server, every way of getting a program's files.

    python3 examples/import_storm/storm.py [--nodes 1,2,4,8,16] [--rounds 3] [--methods plain,zmq] [--out DIR]

It makes a virtual environment with numpy, scipy, pandas and this checkout of collfs, starts the program on that many
nodes by each method, one after the other, as many rounds as wanted, and writes results.json, pictures and the model's
report to the folder. README.md says what is measured and what is model. Needs root, /dev/fuse, libfuse3 and iproute2.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests" / "helpers"))  # nodes and counters are those that the tests trust

import countingfs  # noqa: E402
import environment  # noqa: E402
import nodes  # noqa: E402
from commandline import options  # noqa: E402

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from methods import Run, Setup


def prepare(given: argparse.Namespace, labels: Sequence[str], scratch: Path) -> Setup:
    """All that is the same in all runs; the program has run once on this disk, so byte code and manifests are there."""
    import methods
    from queueing import Load

    out: Path = given.out
    python = os.path.abspath(given.python or environment.make_program(out / "env"))
    load = Load(given.slots, given.service, given.bandwidth, given.attributes, given.entries, given.negatives)
    shared = (*environment.places(python), *(os.path.realpath(path) for path in given.path))
    manifests = out / "manifests"
    shutil.rmtree(manifests, ignore_errors=True)
    manifests.mkdir()
    setup = methods.Setup(
        python,
        shared,
        tuple(given.modules.split(",")),
        load,
        manifests,
        paths=tuple(os.path.realpath(path) for path in given.path),
        launcher=environment.launcher(python, out / "launcher"),
    )
    first = dict.fromkeys(["floor", *(label for label in labels if label not in ("plain", "tar"))])
    for label in first:
        say(f"preparing {label}")
        folder = scratch / f"prepare.{label}"
        folder.mkdir()
        methods.run(setup, methods.METHODS[label], min(2, max(given.nodes)), folder, prepare=True)
    if "tar" in labels:
        say("packing the archive")
        setup = setup._replace(archive=str(environment.archive(out / "archive" / "env.tar", shared)))
    return setup


def say(text: str) -> None:
    """Progress."""
    print(text, flush=True)


def shown(row: dict[str, object]) -> str:
    """One run as a line."""
    label = f"{row['method']}{'+manifest' if row['manifest'] else ''}"
    times = f"{row['slowest_s']:7.2f} s, import {row['import_s']:7.2f} s"
    before, after = row["before"], row["after"]
    assert isinstance(before, list)
    assert isinstance(after, list)
    rest = f"{row['operations']:7,} operations: first node {before[0]:,} + {after[0]:,}"
    if len(before) > 1:
        rest += f", others {max(before[1:]):,} + {max(after[1:]):,}"
    return f"{label:18} {row['nodes']:3} nodes {times}, {rest}, {int(str(row['bytes'])) / 1e6:.0f} MB"


def reasons_of(run: Run, places: Sequence[str]) -> dict[str, int]:
    """Why the last node asks the server before collfs is active there."""
    import fileserver
    from reasons import grouped

    return {reason: len(ops) for reason, ops in grouped(fileserver.paths_only(run.before[-1]), places).items()}


def main() -> int:
    """Exit status 1 if the laboratory can't be built here."""
    parser = options(__doc__)
    given = parser.parse_args()
    labels = given.methods.split(",")
    for why in (nodes.why_not(), "" if os.path.exists("/dev/fuse") else "no FUSE here: there is no /dev/fuse"):
        if why:
            print(why, file=sys.stderr)
            return 1
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    environment.use_tools(given.out / "tools")
    if countingfs.why_not():
        print(countingfs.why_not(), file=sys.stderr)
        return 1
    import costs
    import methods

    unknown = [label for label in labels if label not in methods.METHODS]
    if unknown:
        parser.error(f"no such methods: {', '.join(unknown)}. There are: {', '.join(methods.METHODS)}")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="storm-") as temporary:
        scratch = Path(temporary)
        setup = prepare(given, labels, scratch)
        for round_number in range(given.rounds):
            for count in given.nodes:
                for label in labels:
                    folder = scratch / f"{round_number}.{count}.{label}"
                    folder.mkdir()
                    run = methods.run(setup, methods.METHODS[label], count, folder, each=given.ranks)
                    row = run.row(round_number)
                    row["reasons"] = reasons_of(run, setup.places)
                    trouble = {rank.trouble for rank in run.ranks} - {"", "[]"}
                    rows.append(row)
                    say(shown(row) + (f" TROUBLE {trouble}" if trouble else ""))
                    shutil.rmtree(folder, ignore_errors=True)
        measured: dict[str, object] = {
            "tmpfs_write_Bps": costs.tmpfs_write(),
            "interpreter_cpu_s": costs.interpreter_cpu(setup.python),
            "import_cpu_s": import_cpu(rows),
            "staged_bytes": max((int(str(row["staged_bytes"])) for row in rows if row["manifest"]), default=0),
            "staged_files": max((int(str(row["staged_files"])) for row in rows if row["manifest"]), default=0),
            "archive_bytes": os.path.getsize(setup.archive) if setup.archive else 0,
        }
        if setup.launcher:
            (scratch / "bcast").mkdir()
            measured["bcast"] = costs.bcast(setup.python, setup.launcher, scratch / "bcast")
    results = {
        "machine": costs.machine(setup.python),
        "server": {
            "slots": setup.load.slots,
            "service_s": setup.load.service_s,
            "bandwidth_Bps": setup.load.bandwidth,
            "attributes_s": setup.load.attributes,
            "entries_s": setup.load.entries,
            "negatives_s": setup.load.negatives,
        },
        "program": list(setup.modules),
        "ranks_each": given.ranks,
        "costs": measured,
        "runs": rows,
    }
    (given.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    say(f"wrote {given.out / 'results.json'}")
    show(given.out)
    return 0


def import_cpu(rows: Sequence[dict[str, object]]) -> float:
    """Seconds of CPU that the import takes on a warm disk: the least of all that were measured with fewest nodes."""
    found = [
        (int(str(row["nodes"])), min(spent))
        for row in rows
        if row["method"] in ("floor", "plain") and isinstance(spent := row["import_cpu_s"], list)
    ]
    return min(found)[1] if found else 0.0


def show(out: Path) -> None:
    """Pictures and the model's report, from the results in *out*; matplotlib is loaded only for this."""
    import fit
    import model
    import pictures
    import results

    found = results.load(out / "results.json")
    pictures.draw(found, out)
    model.report(found, fit.fit(found), out)


if __name__ == "__main__":
    sys.exit(main())
