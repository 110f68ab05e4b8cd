"""From a grid to a labelled Dataset: labels, what is shared, what is refused, what diverges."""

import importlib
import json
import subprocess
import sys
import warnings

import numpy as np
import optax
import pytest

import fedjax_rl as frl

running = importlib.import_module("fedjax_rl.run")
sweeping = importlib.import_module("fedjax_rl.sweep")


@pytest.fixture(scope="module")
def algorithm():
    return frl.fedq(frl.envs.paper_mdp(), epsilon=1.0)


@pytest.fixture(scope="module")
def grid(algorithm):
    """A sweep over three names and the seeds, and how far its progress got."""
    seen = []
    result = frl.sweep(
        algorithm,
        num_agents=[1, 2, 4],
        sync_period=[1, 10],
        learning_rate=frl.by_agents(lambda num_agents: 0.02 * num_agents),
        seeds=[7, 3],
        num_steps=60,
        record_every=10,
        first_record=5,
        chunk=2,
        metrics=["error_server", "error_local"],
        progress=lambda done, total: seen.append((done, total)),
    )
    return result, seen


def test_labels_and_coordinates(grid):
    result, _ = grid
    assert result["error_server"].dims == ("num_agents", "sync_period", "seed", "time")
    assert result["error_local"].dims == ("num_agents", "sync_period", "seed", "agent", "time")
    np.testing.assert_array_equal(result["num_agents"], [1, 2, 4])
    np.testing.assert_array_equal(result["sync_period"], [1, 10])
    np.testing.assert_array_equal(result["seed"], [7, 3])
    np.testing.assert_array_equal(result["time"], [5, 15, 25, 35, 45, 55])
    assert result["learning_rate"].dims == ("num_agents",)
    np.testing.assert_allclose(result["learning_rate"], [0.02, 0.04, 0.08])
    phase = result["phase"].sel(num_agents=4, sync_period=10, seed=7)
    np.testing.assert_array_equal(phase, [5] * 6)
    assert result.attrs["algorithm"] == "fedq"
    assert json.loads(result.attrs["seconds"]).keys() == {"compile", "run"}
    assert not result["diverged"].any()


def test_every_label_stands_at_its_own_numbers(grid, algorithm):
    result, _ = grid
    for n, k, seed in ((1, 10, 7), (2, 1, 3), (4, 10, 3)):
        cell = frl.Cell(n, seed, {"sync_period": k, "learning_rate": 0.02 * n})
        alone = frl.run_cells(algorithm, [cell], num_steps=60, record_every=10, first_record=5)
        np.testing.assert_allclose(
            result["error_server"].sel(num_agents=n, sync_period=k, seed=seed),
            alone["error_server"][0],
            rtol=1e-5,
        )


def test_metrics_per_agent_end_with_the_federation(grid):
    local = grid[0]["error_local"]
    for n in (1, 2, 4):
        here = local.sel(num_agents=n).values
        assert np.isfinite(here[..., :n, :]).all()
        assert np.isnan(here[..., n:, :]).all()


def test_agents_share_their_randomness_whatever_n_is(algorithm):
    with pytest.warns(UserWarning, match="never synchronise"):
        result = frl.sweep(
            algorithm, num_agents=[1, 3], sync_period=100, num_steps=30, metrics=["error_local"]
        )
    first = result["error_local"].isel(agent=0)
    np.testing.assert_allclose(first[0], first[1], rtol=1e-5)


def test_progress_reaches_the_total(grid):
    _, seen = grid
    totals = {total for _, total in seen}
    # A federation of one is run once, whatever its period: 1 + 2 * 2 + 2 * 4 agents, two seeds.
    assert totals == {2 * (1 + 2 * 2 + 2 * 4) * 55}
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert done[-1] == totals.pop()


def test_a_federation_of_one_is_run_once_for_all_periods(grid):
    one = grid[0].sel(num_agents=1)
    np.testing.assert_array_equal(
        one["error_server"].sel(sync_period=1), one["error_server"].sel(sync_period=10)
    )
    assert (one["communications"] == 0).all()


def test_what_is_traced_needs_one_compilation(algorithm, monkeypatch):
    compiled = []

    def counting(job, original=running._compile):
        compiled.append(job)
        return original(job)

    monkeypatch.setattr(running, "_compile", counting)
    # Programs outlive a sweep; these sizes are nobody else's.
    frl.sweep(
        algorithm,
        num_agents=[3, 7],
        sync_period=[1, 2, 5, 11],
        learning_rate=[0.1, 0.2, 0.3],
        seeds=range(3),
        num_steps=22,
        record_every=11,
    )
    assert len(compiled) == 1


def test_schedules_and_switches_split_a_grid_and_keep_their_places(algorithm):
    slow, fast = (frl.schedule(optax.constant_schedule(rate)) for rate in (0.01, 0.4))
    result = frl.sweep(
        algorithm.replace(sync_period=5),
        num_agents=2,
        learning_rate=[slow, fast],
        num_steps=100,
        record_every=100,
    )
    plain = frl.sweep(
        algorithm.replace(sync_period=5),
        num_agents=2,
        learning_rate=[0.01, 0.4],
        num_steps=100,
        record_every=100,
    )
    np.testing.assert_array_equal(result["learning_rate"], [0, 1])
    np.testing.assert_allclose(result["error_server"], plain["error_server"], rtol=1e-5)


def test_a_diverged_federation_is_named_and_leaves_its_neighbours_alone(algorithm):
    options = {"num_agents": [2, 3], "num_steps": 40, "record_every": 10}
    noisy = algorithm.replace(sync_period=5)
    calm = frl.sweep(noisy, reward_noise=[0.1, 1.0, 0.3], **options)
    wild = frl.sweep(noisy, reward_noise=[0.1, 3e38, 0.3], **options)
    np.testing.assert_array_equal(wild["diverged"], [[False, True, False]] * 2)
    assert not np.isfinite(wild["error_server"].isel(reward_noise=1)).all()
    for i in (0, 2):
        np.testing.assert_array_equal(
            wild["error_server"].isel(reward_noise=i), calm["error_server"].isel(reward_noise=i)
        )
    assert not calm["diverged"].any()


def test_a_stop_rule_ends_a_run_early(algorithm):
    asked = []

    def stop(times, records, cells):
        each = zip(cells, records["error_server"].T, strict=True)
        asked.append((times[-1], {cell.num_agents: x for cell, x in each}))
        return np.full(len(cells), times[-1] >= 30)

    result = frl.sweep(
        algorithm, num_agents=[2, 1], num_steps=100, record_every=10, chunk=1, stop=stop
    )
    assert [time for time, _ in asked] == [10, 20, 30]
    assert result.sizes["time"] == 3
    for n in (1, 2):
        told = np.concatenate([records[n] for _, records in asked])
        np.testing.assert_array_equal(result["error_server"].sel(num_agents=n), told)
    assert not result["diverged"].any()
    np.testing.assert_array_equal(result["env_steps"], [60, 30])


def test_a_period_longer_than_the_run_is_warned_of(algorithm):
    with pytest.warns(UserWarning, match=r"sync_period is 50, longer than the run of 20 steps"):
        result = frl.sweep(algorithm, num_agents=2, sync_period=[50, 5], num_steps=20)
    np.testing.assert_array_equal(result["communications"], [0, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0; allowed: 1 to"),
        ({"num_steps": 2**31}, "num_steps is 2147483648; allowed"),
        ({"record_every": 11}, "record_every is 11; allowed: 1 to num_steps 10"),
        ({"first_record": 0}, "first_record is 0; allowed"),
        ({"num_agents": 0}, "num_agents is 0; allowed: whole numbers of at least 1"),
        ({"num_agents": [2, -1]}, "num_agents is -1"),
        ({"num_agents": [2.5]}, "num_agents is 2.5"),
        ({"learning_rate": []}, "learning_rate is an empty list"),
        ({"learning_rate": [0.1, 2.0]}, r"learning_rate is 2.0; allowed: in \(0, 1\]"),
        ({"sync_period": [1, 0]}, "sync_period is 0; allowed"),
        ({"behaviour": ["uniform", "sofmax"]}, "did you mean softmax"),
        ({"learningrate": 0.1}, "did you mean learning_rate"),
        ({"metrics": ["error_severe"]}, "did you mean error_server"),
        ({"devices": 64}, "devices is 64; allowed: 1 to 8"),
        ({"seeds": []}, "seed is an empty list"),
        ({"chunk": 0}, "chunk is 0; allowed"),
        ({"workers": 0}, "workers is 0; allowed"),
    ],
)
def test_bad_arguments_are_refused_before_anything_compiles(
    algorithm, arguments, message, monkeypatch
):
    monkeypatch.setattr(running, "_compile", None)
    with pytest.raises(ValueError, match=message):
        frl.sweep(algorithm, **{"num_steps": 10, **arguments})


def test_importing_the_module_of_that_name_does_not_hide_the_function():
    assert importlib.import_module("fedjax_rl.sweep").sweep is frl.sweep
    program = "import fedjax_rl.sweep, fedjax_rl as frl; frl.run_cells; assert callable(frl.sweep)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.thorough
def test_large_grids_are_cut_into_jobs_of_one_shape(algorithm, monkeypatch):
    options = {"num_agents": [3, 2], "seeds": range(5), "num_steps": 20, "record_every": 10}
    whole = frl.sweep(algorithm, **options)
    monkeypatch.setitem(sweeping.AGENTS_PER_JOB, "cpu", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = frl.sweep(algorithm, **options)
    np.testing.assert_allclose(cut["error_server"], whole["error_server"], rtol=1e-5)
    np.testing.assert_array_equal(cut["messages_up"], whole["messages_up"])
