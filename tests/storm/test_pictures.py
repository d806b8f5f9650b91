"""The pictures and the table of the import storm: complete, marked, readable on light and dark, always the same."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("matplotlib", reason="the pictures need matplotlib: tox -e py311-storm")

from matplotlib import image

import fit
import model
import pictures
import stormresults

LIGHT, DARK = "#ffffff", "#0d1117"


@pytest.fixture(scope="module")
def made():
    found = stormresults.make(nodes=(1, 2, 4))
    runs = found["runs"]
    assert isinstance(runs, list)
    for run in runs:
        run |= {
            "cpu_s": [0.6] * run["nodes"],
            "import_cpu_s": [0.5] * run["nodes"],
            "beside_cpu_s": [0.0] * run["nodes"],
        }
    return found


@pytest.fixture(scope="module")
def drawn(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("pictures")
    pictures.draw(made, out)
    model.report(made, fit.fit(made), out)
    return out


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_colour_shows_on_light_and_on_dark():
    for colour in (pictures.GREY, *pictures.COLOURS.values()):
        assert min(contrast(colour, LIGHT), contrast(colour, DARK)) >= 3, colour  # WCAG 2.1, 1.4.11


@pytest.mark.parametrize("name", ["storm", "model"])
def test_the_background_is_the_pages_own(drawn, name):
    alpha = image.imread(drawn / f"{name}.png")[:, :, 3]
    assert (alpha[0, 0], alpha[-1, 0]) == (0, 0)
    assert alpha.max() == 1
    assert (alpha == 0).mean() > 0.7


@pytest.mark.parametrize("name", ["storm", "model"])
def test_a_picture_fits_the_column_of_a_readme(drawn, name):
    width = re.search(r'<svg [^>]*width="([0-9.]+)pt"', (drawn / f"{name}.svg").read_text(), re.DOTALL)
    assert width is not None
    assert float(width[1]) / 72 * 100 <= 720
    assert (drawn / f"{name}.svg").stat().st_size < 200_000


def test_each_picture_says_whether_it_is_measured(drawn):
    assert "<!-- Measured: " in (drawn / "storm.svg").read_text()
    assert "<!-- MODEL, not measured: " in (drawn / "model.svg").read_text()
    assert "MODEL" not in (drawn / "storm.svg").read_text()


def test_every_method_has_a_curve_in_both_pictures(drawn):
    for name in ("storm", "model"):
        for method in ("floor", "plain", "mpi+manifest"):
            assert f"<!-- {method} -->" in (drawn / f"{name}.svg").read_text()


def test_the_same_results_give_the_same_bytes(made, drawn, tmp_path):
    pictures.draw(made, tmp_path)
    for name in ("storm.svg", "storm.png", "storm.md"):
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes()


def test_the_table_has_every_method_machine_and_date(made, drawn):
    said = (drawn / "storm.md").read_text()
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["floor", "plain", "mpi+manifest"]
    assert "| 1,560 |" in next(line for line in lines if "mpi" in line)
    for words in ("2026-01-01", "Some CPU, 2 cores, Python 3.11.7", "median of 2", "1 x 1 ms"):
        assert words in said


def test_a_missing_number_of_nodes_leaves_a_gap_in_the_table(made, tmp_path):
    runs = [run for run in made["runs"] if (run["method"], run["nodes"]) != ("plain", 4)]
    pictures.draw(made | {"runs": runs}, tmp_path)
    line = next(line for line in (tmp_path / "storm.md").read_text().splitlines() if line.startswith("| plain"))
    assert line.endswith("|  |  |  |")
