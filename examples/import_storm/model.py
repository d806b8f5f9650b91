"""The scale model's report: how well it tells the laboratory's runs and published figures, and what it says of 65,536.

    python model.py results.json [--ranks 65536] [--per-node 64]

scale.py is the model, fit.py its numbers, published.py the figures of others. storm.py calls this at its end.

Rules of the file: every table says whether it is measurement or model. Nothing is left out because it looks bad.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import fit as fitting
import published
import results as measured
import scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from results import Results

RANKS, PER_NODE = 65_536, 64
BANDWIDTH = 100e9  # bytes a second of a parallel file system as a whole; assumed
GOAL_ERROR, GOAL_SECONDS = 0.2, 60.0
CURVE = (1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144)
fit = fitting.fit


def servers(results: Results) -> dict[str, scale.Site]:
    """File servers to reckon with, at a site with the laboratory's network and memory and a core for each rank."""
    lab = fitting.site(results)._replace(cores=0)
    found = {"the laboratory's": lab}
    for figure in published.FIGURES:
        if figure.plain_s and not (figure.with_s and figure.ops_source == published.MEASURED):
            slots = published.rate(figure, once=False) * published.LATENCY
            served = lab._replace(service_s=published.LATENCY, slots=slots, bandwidth=BANDWIDTH)
            found[f"as by {figure.name}"] = served
    return found


def curves(
    results: Results, programs: Mapping[str, scale.Program], ranks: Sequence[int] = CURVE, per_node: int = PER_NODE
) -> dict[str, dict[str, dict[int, float]]]:
    """Seconds over ranks for each method, before the laboratory's server: if every rank asks it, or each node once."""
    site = fitting.site(results)._replace(cores=0, per_node=per_node)
    return {
        title: {name: scale.seconds(program, site._replace(once=once), ranks) for name, program in programs.items()}
        for title, once in (("every rank asks", False), (f"a node of {per_node} ranks asks once", True))
    }


def duration(seconds: float) -> str:
    """For people.

    >>> duration(0.25), duration(75), duration(90000)
    ('0.25 s', '75 s', '25.0 h')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As Markdown."""
    rule = ["---" if index == 0 else "---:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def validation(points: Sequence[fitting.Point]) -> str:
    """The laboratory's runs beside the model, and whether the goal is reached."""
    rows = []
    for point in points:
        seen = "fitted" if point.seen else "predicted"
        times = (f"{point.measured_s:.2f} s", f"{point.model_s:.2f} s", f"{point.error:+.0%}")
        active = f"{point.active_s:.2f} s" if point.active_s else ""
        rows.append((point.method, str(point.nodes), *times, active, f"{point.model_active_s:.2f} s", seen))
    told = [point for point in points if not point.seen]
    if not told:
        return table(_VALIDATION, rows) + f"\n\nNothing predicted: no runs with more than {fitting.FEW} nodes.\n"
    beyond = [point for point in told if abs(point.error) > GOAL_ERROR]
    far = ", ".join(f"{point.method} on {point.nodes} nodes {point.error:+.0%}" for point in beyond)
    verdict = f"Of {len(told)} predictions, {len(told) - len(beyond)} are within {GOAL_ERROR:.0%}."
    return f"{table(_VALIDATION, rows)}\n\n{verdict}{f' Beyond: {far}.' if far else ''}\n"


_VALIDATION = ("method", "nodes", "measured", "model", "error", "of it the start", "model of that", "")


def numbers(programs: Mapping[str, scale.Program]) -> str:
    """What the model reckons with."""
    rows = []
    for method, program in programs.items():
        after = program.after
        start = (f"{program.every_ops:,.0f}", f"{program.own_s:.2f} s", f"{program.cpu_s:.2f} s")
        reads = (f"{program.root_ops:,.0f}", f"{after.own_s - program.behind_s:+.2f} s")
        how = "" if not program.root_ops else "by turns" if program.turns else "at the same time"
        rows.append((method, *start, *reads, f"{after.ops:,.0f}", f"{after.cpu_s:.2f} s", how))
    return table(_NUMBERS, rows)


_NUMBERS = (
    "method",
    "start: operations",
    "alone",
    "on cores",
    "reader: operations",
    "and",
    "import: operations",
    "on cores",
    "reader and cores",
)


def others() -> str:
    """Published figures beside the model."""
    rows = []
    for figure in published.FIGURES:
        check = published.check(figure)
        plain = duration(figure.plain_s) if figure.plain_s else "not published"
        rates = f"{check.rate:,.0f} ({check.rate_once:,.0f})" if check.rate else ""
        said = f"{duration(check.with_s)}" if check.with_s else ""
        with_s = f"{duration(figure.with_s)} ({figure.with_what})" if figure.with_s else ""
        ops = f"{figure.ops:,} ({figure.ops_source})"
        rows.append((f"{figure.name} [{figure.source}]", f"{figure.ranks:,}", ops, plain, rates, with_s, said))
    head = (
        "published by",
        "ranks",
        "operations a rank",
        "plain",
        "so the server's rate",
        "with a remedy",
        "model of that",
    )
    return table(head, rows)


def forecast(results: Results, programs: Mapping[str, scale.Program], ranks: int, per_node: int) -> str:
    """What so many ranks would take before each of the servers, with and without collfs."""
    parts = []
    for name, site in servers(results).items():
        rows, best = [], dict.fromkeys(_ASKING, (float("inf"), ""))
        for method, program in programs.items():
            silent = program._replace(every_ops=0.0, every_bytes=0.0, again=0.0)
            cells = []
            for asking, start, once in zip(_ASKING, (program, program, silent), (False, True, True)):
                if start is silent and not program.root_ops:
                    cells.append("")
                    continue
                said = scale.seconds(start, site._replace(per_node=per_node, once=once), [ranks])[ranks]
                cells.append(duration(said))
                if program.root_ops:
                    best[asking] = min(best[asking], (said, method))
            asks = program.every_ops + program.after.ops
            rows.append((method, f"{asks:,.0f}", f"{program.root_ops:,.0f}", *cells))
        rate = f"{site.slots / site.service_s:,.0f} operations a second" if site.service_s else "no waiting"
        verdict = "".join(
            f"* {asking}: {method} {duration(said)}, {'within' if said <= GOAL_SECONDS else 'beyond'} the goal of "
            f"{GOAL_SECONDS:.0f} s\n"
            for asking, (said, method) in best.items()
            if method
        )
        shown = table(("method", "operations of a rank", "and of the reader", *_ASKING), rows)
        parts.append(f"### File server: {name}, {rate}\n\n{shown}\n\n{verdict or 'No run with collfs across nodes.'}")
    return "\n".join(parts)


_ASKING = ("every rank asks", "a node asks once", "nobody asks")


def text(results: Results, programs: Mapping[str, scale.Program], ranks: int = RANKS, per_node: int = PER_NODE) -> str:
    """The whole report, as Markdown."""
    machine, points, lab = results["machine"], fitting.validate(results, programs), fitting.site(results)
    where = f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    program = ", ".join(results["program"])
    return f"""# The scale model

Measured: the laboratory's runs ({program}; {where}). Published: what others have measured.
Everything else is **model**, and marked so.

## The laboratory: measurement beside model

Fitted to the runs with up to {fitting.FEW} nodes; predicted for the others. The start ends when collfs is active on the
last node that doesn't read; a node alone reads.

{validation(points)}
The model reckons with these: what each rank does in the start; the reader's operations, and what it takes beside them
(negative: so much of a node's work is done while it waits for the server); what each node does in the import. Seconds
on cores are those of one that has nothing beside it; the laboratory's {machine["cores"]} are worth {lab.cores:.2f}.

{numbers(programs)}

## Published figures: measurement of others, beside model

The rate of their server, in operations a second, is what makes the model say their figure for plain Python, if every
rank asks for itself (in brackets: if the kernel of a node asks once for all of its ranks). The last column is the model
with that rate and the operations of the remedy; for Copper it is collfs' way, without Copper's own cost of each call.

{others()}

## {ranks:,} ranks on {ranks // per_node:,} nodes: model only

Operations and costs are the laboratory's (costs of its FUSE mounts among them), each rank has a core of its own. Before
collfs acts, every rank asks the server itself; or the kernel of a node asks once for all of its ranks, as NFS does for
some seconds; or nobody asks, if interpreter and transport come from the node itself. Servers of others are assumed to
answer in {published.LATENCY * 1e3} ms without a queue and to send {BANDWIDTH / 1e9:.0f} GB a second.

{forecast(results, programs, ranks, per_node)}"""


def report(results: Results, programs: Mapping[str, scale.Program], out: Path) -> None:
    """Write model.md and the picture of the model's curve to *out*, and print the text."""
    import pictures

    said = text(results, programs)
    (out / "model.md").write_text(said)
    pictures.draw_model(results, curves(results, programs), out)
    print(said)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="What the scale model says, and how well it tells what was measured.")
    parser.add_argument("results", type=Path, help="results.json, as storm.py has written it")
    parser.add_argument("--ranks", type=int, default=RANKS, help="to forecast (default: %(default)s)")
    parser.add_argument("--per-node", type=int, default=PER_NODE, help="ranks of a node there (default: %(default)s)")
    given = parser.parse_args(arguments)
    if not 1 <= given.per_node <= given.ranks:
        parser.error(
            f"--ranks {given.ranks} --per-node {given.per_node}: at least one rank, and no more a node than all"
        )
    found = measured.load(given.results)
    print(text(found, fit(found), given.ranks, given.per_node))
    return 0


if __name__ == "__main__":
    sys.exit(main())
