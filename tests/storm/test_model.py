"""The scale model: its queue against a simulation of every event, its fit, and what its report says."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fit
import model
import published
import results as measured
import scale
import stormresults
from stations import Station, pipeline, times

VISITS = stormresults.VISITS


@pytest.fixture(scope="module")
def made():
    return stormresults.make()


@given(
    ranks=st.integers(1, 24),
    own=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 10.0, 30.0]),
    cpu=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    cores=st.integers(1, 4),
    slots=st.integers(1, 4),
    even=st.booleans(),
)
@settings(max_examples=60)
def test_the_queue_is_within_a_fifth_of_a_simulation_of_every_event(ranks, own, cpu, cores, slots, even):
    simulated = stormresults.simulate(ranks, own=own, cpu=cpu, cores=cores, service=1.0, slots=slots, even=even)
    stations = [Station(1.0, slots), Station(cpu, cores, 0.0 if even else 1.0)]
    assert times(stations, own, [ranks])[ranks] == pytest.approx(simulated, rel=0.2)


@given(
    demands=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 8)), max_size=3),
    own=st.floats(0, 100),
    ranks=st.integers(1, 5000),
)
@settings(max_examples=60)
def test_nobody_is_served_faster_than_the_server_serves(demands, own, ranks):
    stations = [Station(demand, places) for demand, places in demands]
    said = times(stations, own, [1, ranks, 262_144])
    alone = own + sum(demand for demand, _ in demands)
    slowest = max((demand / places for demand, places in demands), default=0.0)
    assert said[1] == pytest.approx(alone)
    for count, seconds in said.items():
        assert seconds >= max(alone, count * slowest) * (1 - 1e-9)
        assert seconds <= alone * count * (1 + 1e-9)
    assert said[1] <= said[ranks] * (1 + 1e-9) <= said[262_144] * (1 + 1e-8)


def test_two_equal_stations_with_random_services_are_told_exactly():
    stations = [Station(1.0, spread=1.0), Station(1.0, spread=1.0)]
    for ranks, seconds in times(stations, 0.0, [1, 2, 3, 10, 50]).items():
        assert seconds == pytest.approx(ranks + 1)  # each of M balanced stations: N + M - 1


def test_a_pipeline_is_as_fast_as_its_slowest_stage_and_fills_hop_by_hop():
    assert pipeline(0, [1e9], 10, 1.0) == 0
    assert pipeline(1e9, [1e9, 5e8, 2e9], 0, 1.0) == pytest.approx(2.0)
    assert pipeline(1e9, [5e8], 16, 0.001, chunk=5e5) == pytest.approx(2.0 + 16 * 0.002)


def test_a_reader_spares_the_server_all_that_the_others_would_ask():
    site = scale.Site(service_s=0.001, per_node=32)
    plain = scale.Program(every_ops=2800, cpu_s=1.0)
    through = scale.Program(every_ops=100, root_ops=2700, cpu_s=1.0)
    ranks = 65_536
    assert scale.seconds(plain, site, [ranks])[ranks] == pytest.approx(ranks * 2.8, rel=0.01)
    assert scale.seconds(through, site, [ranks])[ranks] == pytest.approx(ranks * 0.1 + 2.7, rel=0.01)
    assert scale.seconds(through, site, [1])[1] == pytest.approx(0.1 + 2.7 + 1.0)
    once = site._replace(once=True)
    assert scale.seconds(through, once, [ranks])[ranks] == pytest.approx(2048 * 0.1 + 2.7, rel=0.02)


def test_what_is_counted_is_told_apart_into_every_rank_and_the_reader(made):
    runs = measured.by_method(made)["mpi+manifest"]
    found = fit.counted({n: runs[n] for n in (1, 2, 4)})
    assert (found.every_ops, found.root_ops) == (260, 1300)
    assert found.every_bytes == pytest.approx(2_600_000)
    assert found.root_bytes == pytest.approx(65_000_000)


def test_the_fit_of_few_nodes_tells_eight_and_sixteen_within_a_fifth(made):
    points = fit.validate(made, fit.fit(made))
    told = [point for point in points if not point.seen]
    assert {point.nodes for point in told} == {8, 16}
    assert {point.method for point in told} == {"floor", "plain", "mpi+manifest"}
    for point in points:
        assert abs(point.error) <= 0.2, point


def test_the_fit_does_not_look_at_what_it_is_to_predict(made):
    few = made | {"runs": [run for run in made["runs"] if run["nodes"] <= fit.FEW]}
    assert fit.fit(few) == fit.fit(made)


def test_a_published_remedy_is_told_within_a_fifth_from_the_plain_figure():
    check = published.check(published.FIGURES[0])
    assert check.with_s == pytest.approx(check.figure.with_s, rel=0.2)


@pytest.mark.parametrize("figure", [f for f in published.FIGURES if f.plain_s], ids=lambda f: f.name)
def test_the_solved_rate_makes_the_model_say_the_published_figure(figure):
    plain = scale.Program(every_ops=figure.ops, own_s=figure.base_s)
    for once in (False, True):
        rate = published.rate(figure, once=once)
        site = scale.Site(1 / rate, per_node=figure.per_node, once=once)
        assert scale.seconds(plain, site, [figure.ranks])[figure.ranks] == pytest.approx(figure.plain_s, rel=0.01)


def test_the_report_says_what_is_model_and_what_is_measured(made, tmp_path):
    said = model.text(made, fit.fit(made))
    for words in (
        "measurement beside model",
        "65,536 ranks on 1,024 nodes: model only",
        "are within 20%",
        "the goal of 60 s",
    ):
        assert words in said
    for figure in published.FIGURES:
        assert figure.source in said


def test_the_command_prints_the_report(made, tmp_path, run_python, root):
    (tmp_path / "results.json").write_text(json.dumps(made))
    script = root / "examples" / "import_storm" / "model.py"
    said = run_python(
        [script, tmp_path / "results.json", "--ranks", "512", "--per-node", "32"], env={"PYTHONPATH": None}
    )
    assert "512 ranks on 16 nodes" in said.stdout
    wrong = run_python([script, tmp_path / "results.json", "--ranks", "8"], env={"PYTHONPATH": None}, check=False)
    assert wrong.rc == 2
    assert "no more a node than all" in wrong.stderr


@pytest.mark.parametrize(
    ("content", "words"), [(None, "does not exist: run storm.py"), ("{", "run it again"), ("{}", "has no machine")]
)
def test_what_is_no_results_file_is_refused_with_what_to_do(tmp_path, content, words):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match=words):
        measured.load(path)


def test_the_model_needs_nothing_that_has_to_be_installed(run_python, root):
    lab = root / "examples" / "import_storm"
    code = f"import sys; sys.path.insert(0, {str(lab)!r}); import model; print('matplotlib' in sys.modules)"
    assert run_python(["-S", "-c", code], python=sys.executable).stdout == "False\n"
