"""What many agents and hosts cost: the page, the model behind it, and the benchmark of devices."""

import importlib
import json
import math
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from pages import DOCS, MAKER
from smallest import smallest

import fedjax_rl as frl
from fedjax_rl import analysis
from fedjax_rl.sweeps import costs

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent / "benchmarks"


def test_the_page_says_what_was_measured():
    """The tables that follow from the JSONs of `benchmarks/`, with the page's own bytes."""
    text = (DOCS / "scale.md").read_text()
    sizes = [float(x.replace(",", "")) for x in re.findall(r"A message has ([\d,]+) bytes", text)]
    works = zip(MAKER.works(), sizes, strict=True)
    tables = [MAKER.round_table(work, size) for work, size in works]
    for table in (*tables, MAKER.local_rounds(sizes[0])):
        assert table in text, "run python docs/make.py"


@pytest.mark.thorough
def test_the_page_says_what_the_programs_have():
    assert (DOCS / "scale.md").read_text() == MAKER.scale_page(), "run python docs/make.py"


_SLOW = [pytest.param(name, marks=pytest.mark.thorough) for name in ("fast-fedpg", "fedppo")]


@pytest.mark.parametrize("name", ["fedq", *_SLOW])
def test_messages_of_a_round_are_those_of_the_ledger(name):
    """Where everybody sends everything, what is said beforehand is what is spent."""
    algorithm = smallest(name)
    said = costs.costs_of(algorithm, 3).messages
    state, _ = frl.round(algorithm, frl.init(algorithm, num_agents=3))
    for way in ("messages_up", "messages_down", "floats_up", "bytes_up", "bytes_down"):
        assert state.costs[way] == 3 * said[way]


def test_a_ring_and_a_tree_are_what_their_steps_take():
    """Step by step: on a ring every host hands a part of the message on, 2 (H - 1) times."""
    link = analysis.Link(1e-5, 1e9, "ours")
    for hosts in (1, 2, 5, 8):
        steps = [link.latency + 4e6 / hosts / link.bandwidth for _ in range(2 * (hosts - 1))]
        assert analysis.all_reduce_time(4e6, hosts, link) == pytest.approx(sum(steps))
        waves, reached = 0, 1
        while reached < hosts:
            waves, reached = waves + 1, 2 * reached
        tree = analysis.all_reduce_time(4e6, hosts, link, "tree")
        assert tree == pytest.approx(2 * waves * (1e-5 + 4e-3))
    assert analysis.round_time(2.0, 5, 4e6, 2, link) == pytest.approx(6 + 2e-5 + 4e-3)
    # Large messages go round faster, small ones up and down.
    assert analysis.all_reduce_time(1e9, 64, link) < analysis.all_reduce_time(1e9, 64, link, "tree")
    assert analysis.all_reduce_time(8, 64, link) > analysis.all_reduce_time(8, 64, link, "tree")
    chips = analysis.Chips(4, 100.0, link, "ours")
    assert analysis.agents_held(30.0, chips, 0.95) == 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hosts": 0}, "hosts is 0; allowed"),
        ({"size": -1.0}, "size is -1.0; allowed"),
        ({"size": math.nan}, "size is nan; allowed"),
        ({"shape": "rong"}, "shape is 'rong'; allowed"),
        ({"link": "ring"}, "link is 'ring'; allowed: a Link"),
    ],
)
def test_what_is_no_cluster_is_refused(values, message):
    good = {"size": 8.0, "hosts": 2, "link": analysis.LINKS["100 GbE, TCP"]}
    with pytest.raises((ValueError, TypeError), match=message):
        analysis.all_reduce_time(**{**good, **values})


# Devices ------------------------------------------------------------------------------------------


@pytest.fixture
def device(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("device"), importlib.import_module("device_rows")


def test_rows_are_kept_as_they_end_and_what_failed_is_tried_last(device, tmp_path, monkeypatch):
    device, rows = device
    path, begun = tmp_path / "own.json", {"case": "device", "device": "ours", "scale": "smoke"}
    made, broken = [], [True]

    def row(name, seconds, fails=False):
        def make():
            made.append(name)
            assert json.loads(path.read_text())["running"] == name
            if fails and broken[0]:
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nwith much more")
            return {"unit": "steps", "median": 2.0, "low": 1.0, "high": 3.0, "compile_seconds": 0.5}

        return rows.Row("fedq", name, seconds, make)

    all_rows = [row("a", 1), row("b", 1, fails=True), row("c", 1e6), row("d", 1)]
    book = device.Book(path, begun, False)
    device.measure(all_rows, book, device.time.monotonic() + 100)
    assert made == ["a", "b", "d"]
    assert set(book.content["skipped"]) == {"c"}
    saved = json.loads(path.read_text())
    assert [one["name"] for one in saved["rows"]] == ["a", "d"]
    assert saved["failed"] == {"b": "RESOURCE_EXHAUSTED: out of memory"}
    assert "running" not in saved
    # As if the process had ended in the midst of a row.
    device.Book(path, begun, False).running("c")
    broken[0] = False
    book = device.Book(path, begun, False)
    assert set(book.content["failed"]) == {"b", "c"}
    device.measure([all_rows[2], *all_rows[:2], row("e", 1)], book, device.time.monotonic() + 1e7)
    assert made[3:] == ["e", "c", "b"]
    assert not book.content["failed"]
    device.show(book.content)
    other = device.Book(path, {**begun, "device": "theirs"}, False)
    assert other.content["rows"] == []
    assert device.name_of("1 x NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_rates_are_units_over_seconds_and_peers_are_there(device, monkeypatch):
    own, rows = device
    now = [0.0]
    monkeypatch.setattr(rows.time, "perf_counter", lambda: now[0])

    def run(count):
        now[0] += 0.001 * count
        return np.zeros(1)

    found = rows.timed(run, 5.0, 10, rows.SIZES["full"])
    assert found["median"] == pytest.approx(5 / 0.001)
    assert found["count"] % 10 == 0
    assert 0.2 <= 0.001 * found["count"] <= 2
    known = rows.rows("full")
    assert len({row.name for row in known}) == len(known)
    peers = [row for row in known if row.part in ("fedq", "ppo", "brax", "clock")]
    assert all(rows.peer_of(row)["median"] > 0 for row in peers)
    assert {row.part for row in known} == set(own.PARTS)


@pytest.mark.thorough
def test_the_benchmark_of_devices_runs_here_and_goes_on(tmp_path):
    line = [sys.executable, str(BENCHMARKS / "device.py"), "--scale", "smoke"]
    line += ["--json", str(tmp_path / "own.json")]
    first = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    saved = json.loads((tmp_path / "own.json").read_text())
    assert {row["part"] for row in saved["rows"]} >= {"fedq", "grids", "games", "impala", "brax"}
    assert all(row["median"] > 0 for row in saved["rows"])
    again = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    assert again.returncode == 0
    assert json.loads((tmp_path / "own.json").read_text()) == saved
