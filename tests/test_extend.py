"""Several algorithms on an axis, results that get more seeds and steps, and bars."""

import gc
import importlib
import io
import re
import sys
import types
import weakref

import jax
import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.sweeps import progress as bars

sweeping = importlib.import_module("fedjax_rl.sweeps.sweep")


GRID = {"num_agents": [1, 3], "learning_rate": [0.1, 0.3], "record_every": 10, "chunk": 2}


@pytest.fixture(scope="module")
def algorithms():
    mdp = frl.envs.paper_mdp()
    one = frl.fedq(mdp, sync_period=4, reward_noise=0.1)
    return {"uniform": one, "softmax": one.replace(behaviour="softmax", sync_period=3)}


@pytest.fixture(scope="module")
def whole(algorithms):
    """Everything in one call."""
    return same(frl.sweep(algorithms, seeds=[5, 2, 9], num_steps=65, **GRID))


def same(result):
    """Without the seconds, which no two runs have in common."""
    return result.assign_attrs(seconds="")


def test_algorithms_beside_each_other_are_each_alone(algorithms, whole):
    assert whole.error_server.dims == ("algorithm", "num_agents", "learning_rate", "seed", "time")
    assert list(whole["algorithm"].values) == ["uniform", "softmax"]
    for label, one in algorithms.items():
        alone = frl.sweep(one, seeds=[5, 2, 9], num_steps=65, **GRID)
        mine = whole.sel(algorithm=label, drop=True)
        xr.testing.assert_equal(mine, alone)


@pytest.mark.thorough
def test_what_one_algorithm_lacks_is_nan_there():
    task = frl.envs.simple_grid(max_steps=4)
    options = {"num_agents": 2, "num_steps": 2, "seeds": [0, 1]}
    both = frl.sweep([frl.es(task), frl.espc(task)], **options)
    assert list(both["algorithm"].values) == ["es", "espc"]
    for one in (frl.es(task), frl.espc(task)):
        alone = frl.sweep(one, **options)
        mine = both.sel(algorithm=one.name, drop=True)
        xr.testing.assert_equal(mine[list(alone.data_vars)], alone)
        for name in set(both.data_vars) - set(alone.data_vars):
            assert np.isnan(mine[name]).all()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda q, e: [], {}, "algorithm is .*; allowed: at least one algorithm"),
        (lambda q, e: [q, 3], {}, "algorithm is 3; allowed: an algorithm"),
        (lambda q, e: {"": q}, {}, "a label of algorithm is ''; allowed"),
        (lambda q, e: [q, q], {}, r"fedq twice; allowed: \{label: algorithm\}"),
        (lambda q, e: [q, e], {}, "'fedq', which counts time in steps, and 'es', which counts"),
        (lambda q, e: [q, q.replace(clock=frl.Clock())], {}, "fedq twice"),
        (lambda q, e: [q, e], {"beta": [1.0]}, "'beta' is no argument of sweep or property of es"),
        (lambda q, e: q, {"numsteps": 3}, "did you mean num_steps"),
    ],
)
def test_algorithms_that_cannot_be_compared_are_refused(algorithms, make, options, message):
    given = make(algorithms["uniform"], frl.es(frl.envs.simple_grid()))
    with pytest.raises(ValueError, match=message):
        frl.sweep(given, **{"num_steps": 4, **options})


def test_cells_name_their_algorithm(algorithms, whole):
    own = [frl.Cell(3, 2, {"learning_rate": 0.3}, label) for label in ("softmax", "uniform")]
    made = frl.run_cells(algorithms, own, num_steps=65, record_every=10)
    there = whole.sel(algorithm=["softmax", "uniform"], num_agents=3, learning_rate=0.3, seed=2)
    np.testing.assert_array_equal(made["error_server"], there["error_server"])
    assert list(made["algorithm"].values) == ["softmax", "uniform"]
    with pytest.raises(ValueError, match=r"cells\[0\].algorithm is None; allowed: uniform, soft"):
        frl.run_cells(algorithms, [frl.Cell(3, 2, {})], num_steps=4)


def test_more_seeds_and_steps_are_the_same_bits(algorithms, whole):
    first = frl.sweep(algorithms, seeds=[5], num_steps=30, **GRID)
    seen = []
    more = frl.extend(first, seeds=2)
    longer = frl.extend(more, num_steps=65, progress=lambda *at: seen.append(at))
    # What is there is only counted: four federations of 30 steps, two algorithms, two seeds.
    assert seen[-1] == (2 * 2 * 2 * (1 + 3) * 60, 2 * 2 * 2 * (1 + 3) * 60)
    assert seen[0][0] > 0
    xr.testing.assert_identical(same(frl.extend(longer, seeds=[5, 9])), whole)
    xr.testing.assert_identical(same(frl.extend(first, seeds=[2, 9], num_steps=65)), whole)
    # Seeds and steps that are there are nothing new.
    xr.testing.assert_identical(same(frl.extend(first, seeds=5)), same(first))


def test_more_seeds_steps_and_algorithms_in_a_directory_are_the_same_bits(
    algorithms, whole, tmp_path
):
    one = {"uniform": algorithms["uniform"]}
    options = {**GRID, "checkpoints": tmp_path}
    frl.sweep(one, seeds=[5], num_steps=30, **options)
    first = frl.sweep(algorithms, seeds=[5, 2], num_steps=30, **options)
    xr.testing.assert_identical(same(frl.extend(first, seeds=9, num_steps=65)), whole)
    xr.testing.assert_identical(
        same(frl.sweep(algorithms, seeds=[5, 2, 9], num_steps=65, **options)), whole
    )
    for change, message in (
        ({"seeds": [5, 2]}, r"seeds is .*, there"),
        ({"seeds": [2, 5, 9]}, r"seeds is .*, there"),
        ({"learning_rate": [0.1, 0.2]}, r"learning_rate is \[0.1, 0.2\], there \[0.1, 0.3\]"),
        ({"num_steps": 30}, "num_steps is too short"),
    ):
        with pytest.raises(ValueError, match=message):
            frl.sweep(algorithms, **{"seeds": [5, 2, 9], "num_steps": 65, **options, **change})
    with pytest.raises(ValueError, match="of another run, of algorithm softmax"):
        frl.sweep(one, seeds=[5, 2, 9], num_steps=65, **options)


@pytest.mark.thorough
def test_a_run_over_devices_on_a_clock_goes_on_too():
    one = frl.fedq(frl.envs.paper_mdp(), clock=frl.Clock(distribution="exponential"))
    options = {"num_agents": 2, "seeds": [1, 2, 3], "record_every": 5, "devices": 2}
    whole = frl.sweep(one, num_steps=20, **options)
    longer = frl.extend(frl.sweep(one, num_steps=10, **options), num_steps=20)
    xr.testing.assert_identical(same(longer), same(whole))


def test_a_stop_rule_ends_what_goes_on_where_it_ends_one_call(algorithms):
    def rule(times, records, cells):
        return records["error_server"][-1] < 1.7

    options = {**GRID, "seeds": [0, 1], "num_agents": 2, "stop": rule, "workers": 1}
    options["learning_rate"] = frl.each([0.3])
    whole = frl.sweep(algorithms["uniform"], num_steps=400, **options)
    assert 4 < whole.sizes["time"] < 40
    longer = frl.extend(frl.sweep(algorithms["uniform"], num_steps=40, **options), num_steps=400)
    xr.testing.assert_identical(same(longer), same(whole))


def test_what_cannot_be_extended_is_refused_by_name(algorithms, monkeypatch):
    one = algorithms["uniform"]
    result = frl.sweep(one, num_steps=20, record_every=10)
    for given, options, message in (
        (result, {}, "neither seeds nor num_steps"),
        (result, {"num_steps": 10}, "num_steps is 10; allowed: whole numbers from 20"),
        (result, {"seeds": -1}, "seeds is -1; allowed"),
        (result, {"seeds": 1, "progress": 3}, "progress is 3; allowed: True for a bar"),
        (result.copy(), {"seeds": 1}, "result is a Dataset that no sweep of this process"),
        (None, {"seeds": 1}, "result is None that no sweep"),
    ):
        with pytest.raises(ValueError, match=message):
            frl.extend(given, **options)
    with jax.enable_x64(True), pytest.raises(ValueError, match="result is of float32; allowed: fl"):
        frl.extend(result, seeds=1)
    monkeypatch.setattr(sweeping, "MOST_KEPT", 0)
    large = frl.sweep(one, num_steps=20, record_every=10)
    both = frl.sweep(one, num_steps=20, record_every=10, seeds=[0, 1])
    xr.testing.assert_identical(same(frl.extend(large, seeds=1)), same(both))
    with pytest.raises(ValueError, match="num_steps is 40, but the end of this result is not in"):
        frl.extend(large, num_steps=40)


def test_what_a_result_keeps_goes_with_it(algorithms):
    result = frl.sweep(algorithms["uniform"], num_steps=20, record_every=10)
    state = sweeping._RESULTS[id(result)][1].begun[0].outcomes[0].state
    there, known = weakref.ref(state), len(sweeping._RESULTS)
    del state, result
    gc.collect()
    assert there() is None
    assert len(sweeping._RESULTS) < known


def test_a_bar_says_what_is_done(algorithms, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    frl.sweep(algorithms, seeds=[5, 2], num_steps=30, progress=True, **GRID)
    said = " ".join(capsys.readouterr().err.split())
    assert "fedq: 16 of 16 cells" in said
    assert "100%" in said
    assert "agent-steps/s" in said
    assert re.search(r"left error server \d", said)  # the mean over cells, as watched last
    frl.sweep(algorithms, seeds=[5, 2], num_steps=30, progress=False, **GRID)
    assert capsys.readouterr().err == ""


def test_where_ipython_runs_a_bar_is_the_default(algorithms, capsys, monkeypatch):
    told, run = [], {"num_steps": 30, "watch": lambda values: told.append(values)}
    for shell, said in ((None, False), (object(), True)):
        ipython = types.SimpleNamespace(get_ipython=lambda: shell)  # noqa: B023
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        told.clear()
        frl.sweep(algorithms["uniform"], **run)
        assert ("fedq: 1 of 1 cells" in " ".join(capsys.readouterr().err.split())) == said
        assert told[-1]["error_server"] > 0
    frl.sweep(algorithms["uniform"], progress=False, **run)
    assert capsys.readouterr().err == ""


def test_a_notebook_draws_one_output_again_and_again(monkeypatch):
    """IPython is asked for one display, which is then updated, never for another."""
    drawn = []

    class Handle:
        def update(self, data, raw):
            drawn.append(data["text/plain"])

    class Display:
        @staticmethod
        def display(data, raw, display_id):
            assert (raw, display_id) == (True, True)
            drawn.append(data["text/plain"])
            return Handle()

    from rich import console

    monkeypatch.setitem(sys.modules, "IPython.display", Display)
    monkeypatch.setattr(console, "_is_jupyter", lambda: True)
    monkeypatch.setattr(bars, "_PAUSE", 0.0)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with bars.bar(3, "es", "agent-episodes", "reward") as (report, look):
        report(50, 100, 1)
        look({"reward": 7.5, "size": 4.0})
        report(100, 100, 3)
    assert "es: compiling" in drawn[0]
    assert "es: 1 of 3 cells" in drawn[1]
    assert "50%" in drawn[1]
    assert "reward 7.5" in drawn[-1]
    assert "es: 3 of 3 cells" in drawn[-1]
    assert "100%" in drawn[-1]
