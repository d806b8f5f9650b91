"""Slurm's lists of hosts, against scontrol's own answers and a simple model."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import collfs_slurm
from collfs_slurm import LIMIT, expand, tasks_on

# what `scontrol show hostnames` of Slurm 22.05 said
SCONTROL = {
    "cn[001-003,007],gpu[1-2]x[0-3]": "cn001 cn002 cn003 cn007 gpu1x0 gpu1x1 gpu1x2 gpu1x3 gpu2x0 gpu2x1 gpu2x2 gpu2x3",
    "a[8-11]": "a8 a9 a10 a11",
    "a[08-11]": "a08 a09 a10 a11",
    "a[099-101]": "a099 a100 a101",
    "a[1-02]": "a1 a2",
    "a[1,1]": "a1 a1",
    "[1-2]": "1 2",
    "x,y,x": "x y x",
    "a,,b": "a b",
    "a b": "a b",
    "": "",
    "host7": "host7",
    "n[1-2][3-4]": "n13 n14 n23 n24",
    "n1-ib,n2-ib": "n1-ib n2-ib",
    "b[2,1,3]": "b2 b1 b3",
    # several brackets: the last counts fastest, then the first, then the second
    "z,a[1-2]b[1-2]c[1-2],y": "z a1b1c1 a1b1c2 a2b1c1 a2b1c2 a1b2c1 a1b2c2 a2b2c1 a2b2c2 y",
    "a[1,3]b[2,1]c[2,1]": "a1b2c2 a1b2c1 a3b2c2 a3b2c1 a1b1c2 a1b1c1 a3b1c2 a3b1c1",
    "r[1-2]c[01-02]n[0-1]": "r1c01n0 r1c01n1 r2c01n0 r2c01n1 r1c02n0 r1c02n1 r2c02n0 r2c02n1",
}
BAD = ["a[]", "a[3-1]", "a[x-y]", "a[ 1-2 ]", "a[1-2", "a]b", "a[1[2]]", "a[-1]", "a[1-]", "a[1,]", "a[1]]", "a[1-2-3]"]


@pytest.mark.parametrize("text", SCONTROL)
def test_a_list_is_read_as_scontrol_reads_it(text):
    assert expand(text) == tuple(SCONTROL[text].split())


@pytest.mark.parametrize("text", BAD)
def test_a_broken_list_is_an_error(text):
    with pytest.raises(ValueError, match=r"brackets|range"):
        expand(text)


names = st.text("abgn-._", min_size=1, max_size=4)


@st.composite
def items(draw):
    """One item of a list as (its text, the names that it stands for)."""
    brackets = draw(st.integers(0, 3))
    parts = [draw(names)]
    values = []
    text = parts[0]
    for index in range(brackets):
        inside, found = [], []
        for _ in range(draw(st.integers(1, 3))):
            low, more, width = draw(st.integers(0, 1200)), draw(st.integers(0, 4)), draw(st.integers(1, 5))
            start = f"{low:0{width}}"
            inside.append(f"{start}-{low + more}" if more or draw(st.booleans()) else start)
            found += [str(number).zfill(len(start)) for number in range(low, low + more + 1)]
        part = "" if index == brackets - 1 else draw(st.text("xyz", max_size=2))  # Slurm takes no text at the end
        parts.append(part)
        values.append(found)
        text += f"[{','.join(inside)}]{part}"
    *slow, fast = values or [[""]]
    made = []
    # itertools counts its last factor fastest: so the ones before the last bracket go in backwards
    for choice in itertools.product(*reversed(slow), fast):
        chosen = [*reversed(choice[:-1]), choice[-1]]
        made.append("".join(part + value for part, value in zip(parts, [*chosen, ""])) if values else parts[0])
    return text, made


lists = st.lists(items(), max_size=4)


@given(lists)
def test_every_list_stands_for_the_names_of_the_model(found):
    assert expand(",".join(text for text, _ in found)) == tuple(name for _, made in found for name in made)


@given(st.text("ab01,[]-  x\t9", max_size=30))
def test_any_text_is_a_list_or_a_value_error(text):
    try:
        found = expand(text)
    except ValueError:
        return
    assert all(name and not set(name) & set("[], \t") for name in found)


def test_scontrol_and_the_model_agree(tmp_path):
    if shutil.which("scontrol") is None:
        pytest.skip("scontrol is not installed here: apt-get install slurm-client")
    lines = []

    @given(lists)
    def ask(found):
        if found:
            text = ",".join(text for text, _ in found)
            lines.append((f"h,{text}", ["h", *(name for _, made in found for name in made)]))

    ask()
    bare = tmp_path / "slurm.conf"
    bare.write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    for text, made in lines[:25]:
        said = subprocess.run(
            ["scontrol", "show", "hostnames", text],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={"SLURM_CONF": str(bare), "PATH": "/usr/bin:/bin"},
        )
        assert said.returncode == 0, said.stderr
        assert said.stdout.split() == made


@pytest.mark.parametrize(
    "text",
    [
        f"a[0-{LIMIT}]",
        "a[1-999999999]",
        "a[1-1001]b[1-1000]",
        "a[1-9999]b[1-9999]c[1-9999]d[1-9999]",
        "a[1-600000],b[1-600000]",
        "a[1-600000,1-600000]",
        "a[1-99999999999999999999]",
    ],
)
def test_a_list_of_too_many_names_is_refused_before_it_is_made(text):
    start = time.process_time()
    with pytest.raises(ValueError, match=r"names|range"):
        expand(text)
    assert time.process_time() - start < 5


def test_the_limit_counts_names_without_brackets_too(monkeypatch):
    monkeypatch.setattr(collfs_slurm, "LIMIT", 3)
    assert expand("a,b[1-2]") == ("a", "b1", "b2")
    for text in ("a,b[1-3]", "b[1-3],a", "a,b,c,d"):
        with pytest.raises(ValueError, match="more than 3 names"):
            expand(text)


def test_ten_thousand_nodes_are_no_burden():
    start = time.process_time()
    assert len(expand("cn[00001-10000]")) == 10000
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2(x3),1", [2, 2, 2, 1, -1]),
        ("3,1(x2)", [3, 1, 1, -1]),
        ("4", [4, -1]),
        ("", [-1]),
        ("2(x3", [-1]),
        ("2(x),1", [-1, -1]),
        ("(x2)", [-1, -1]),
        ("2(x0),1", [-1, -1]),
    ],
)
def test_the_ranks_of_a_node_are_counted_as_slurm_writes_them(text, expected):
    assert [tasks_on(text, node) for node in range(len(expected))] == expected
    assert tasks_on(text, -1) == -1
