"""The laboratory's results as pictures and as a table for the README.

    python pictures.py results.json [--out DIR]

``storm.svg``, ``storm.png``: time, operations and bytes over the number of nodes, one curve a method: measured.
``model.svg``, ``model.png``: time over the number of ranks, up to 262,144: the scale model, and marked so.
``storm.md``: the table, with machine and date.

Rules of the file: no background, neutral greys, and colours that show on white and on nearly black; each method keeps
its colour in all pictures, plain Python's is orange. Every number is in results.json or comes from the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, TypedDict

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

import results as measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from results import Results, Run

GREY = "#808080"
# Contrast of each to white and to #0d1117 is at least 3 (WCAG 2.1, 1.4.11).
COLOURS = {
    "floor": GREY,
    "plain": "#d9700a",
    "tar": "#8a862c",
    "local": "#9467d8",
    "mpi": "#2f81e0",
    "zmq": "#1f9d63",
    "mpi+zmq": "#d6498a",
}
WIDTH = 7.2  # inches; at 100 dots each, as wide as a README's column
STYLE = {
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.titlesize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "import_storm",  # the same results, the same bytes
}


class Look(TypedDict):
    """Of a curve."""

    color: str
    linestyle: str
    marker: str
    markersize: float
    markerfacecolor: str
    linewidth: float


def look(method: str, marker: str = "o") -> Look:
    """How the curve of *method* looks: with a manifest solid and filled, without one dashed and empty."""
    name, _, _ = method.partition("+manifest")
    manifest = name != method
    whole = manifest or name in ("plain", "floor", "tar")
    colour = COLOURS.get(name, GREY)
    return {
        "color": colour,
        "linestyle": ":" if name == "floor" else "-" if whole else "--",
        "marker": marker,
        "markersize": 3.5,
        "markerfacecolor": colour if whole else "none",
        "linewidth": 1.6,
    }


def short(value: float, _position: object = None) -> str:
    """An axis' number.

    >>> short(45500), short(0.5), short(2)
    ('45.5k', '0.5', '2')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def draw(results: Results, out: Path) -> None:
    """Write storm.svg, storm.png and storm.md to *out*."""
    found = measured.by_method(results)
    panels: Sequence[tuple[str, Callable[[list[Run]], float]]] = (
        ("seconds to the end of the import", measured.seconds),
        ("operations at the file server", measured.operations),
        ("bytes read from it", measured.read_bytes),
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1))
        for index, (title, value) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), index + 1)
            for method, counts in found.items():
                points = {n: y for n, runs in counts.items() if (y := value(runs)) > 0}  # a logarithm has no zero
                axes.plot(list(points), list(points.values()), label=method, **look(method))
            _axes(axes, title, "nodes", sorted({run["nodes"] for run in results["runs"]}), spread=index > 0)
        _finish(figure, f"Measured: {_program(results)}, cold", _machine(results))
        _save(figure, out / "storm")
    (out / "storm.md").write_text(table(results))


def draw_model(results: Results, panels: Mapping[str, Mapping[str, Mapping[int, float]]], out: Path) -> None:
    """Write model.svg and model.png to *out*.

    :param panels: for each title, seconds over ranks for each method
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.3))
        for index, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), index + 1, sharey=figure.axes[0] if index else None)
            for method, points in curves.items():
                axes.plot(list(points), list(points.values()), label=method, **look(method, marker=""))
            ranks = sorted({n for points in curves.values() for n in points})
            _axes(axes, title, "ranks", ranks, spread=True)
            axes.axhline(60, color=GREY, linewidth=0.8, linestyle=(0, (1, 4)))
            axes.annotate("one minute", (ranks[0], 60), (0, 3), textcoords="offset points")
        server = results["server"]
        served = f"{server['slots']} x {server['service_s'] * 1e3:g} ms"
        title = f"MODEL, not measured: seconds for {_program(results)}; file server: {served}"
        _finish(figure, title, f"fitted to runs on few nodes; {_machine(results)}")
        _save(figure, out / "model")


def table(results: Results) -> str:
    """Seconds and operations of every method for each number of nodes, as Markdown."""
    found, nodes = measured.by_method(results), sorted({run["nodes"] for run in results["runs"]})
    lines = [
        "| | "
        + " | ".join(f"{n} node{'s' if n > 1 else ''}" for n in nodes)
        + f" | operations, {nodes[-1]} nodes | of the reader |",
        "|---|" + "---:|" * (len(nodes) + 2),
    ]
    for method, counts in found.items():
        cells = [f"{measured.seconds(counts[n]):.1f} s" if n in counts else "" for n in nodes]
        last = counts.get(nodes[-1])
        cells += [f"{measured.operations(last):,.0f}", f"{max(last[0]['by_node']):,}"] if last else ["", ""]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    server = results["server"]
    rounds = max(run["round"] for run in results["runs"]) + 1
    served = f"file server: {server['slots']} x {server['service_s'] * 1e3:g} ms for each metadata operation"
    return "\n".join(
        [*lines, "", f"(Measured: {_machine(results)}; {_program(results)}; {served}; median of {rounds}.)", ""]
    )


def _program(results: Results) -> str:
    return "import " + ", ".join(results["program"])


def _machine(results: Results) -> str:
    machine = results["machine"]
    return f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"


def _axes(axes: Axes, title: str, along: str, numbers: Sequence[int], *, spread: bool) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(along)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value < 1024 else f"{value / 1024:,.0f}k")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    if spread:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)


def _finish(figure: Figure, title: str, machine: str) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(5, len(labels))
    rows = -(-len(labels) // columns)
    below = (0.17 * rows + 0.22) / figure.get_figheight()
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.19 / figure.get_figheight()), ncols=columns
    )
    figure.text(0.99, 0.01, machine, ha="right", fontsize=6.5)
    figure.tight_layout(rect=(0, below, 1, 1))


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path.with_suffix(".svg"), transparent=True, metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), transparent=True, dpi=200, metadata={"Software": None})


def main(arguments: list[str] | None = None) -> int:
    """The command line: the measured pictures and the table."""
    parser = argparse.ArgumentParser(description="Draw what storm.py has measured.")
    parser.add_argument("results", type=Path, help="results.json")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    draw(measured.load(given.results), given.out)
    print(f"wrote storm.svg, storm.png and storm.md to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
