"""From a grid to a labelled Dataset: labels, what is shared, what is refused, what diverges."""

import dataclasses
import functools
import importlib
import itertools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl
from fedjax_rl.saving.checkpoints import Machine
from fedjax_rl.sweeps import axes, jobs
from fedjax_rl.sweeps import labels as naming
from fedjax_rl.sweeps.cells import federations
from fedjax_rl.sweeps.run_arguments import Run

running = importlib.import_module("fedjax_rl.sweeps.programs")


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
    with pytest.warns(UserWarning, match="never synchronise") as told:
        result = frl.sweep(
            algorithm, num_agents=[1, 3], sync_period=100, num_steps=30, metrics=["error_local"]
        )
    assert told[0].filename == __file__  # the line that asked for it
    first = result["error_local"].isel(agent=0)
    np.testing.assert_allclose(first[0], first[1], rtol=1e-5)


def test_a_warning_points_at_the_line_that_asked_for_cells(algorithm):
    cells = [frl.Cell(2, 0, {"sync_period": 100})]
    with pytest.warns(UserWarning, match="never synchronise") as told:
        frl.run_cells(algorithm, cells, num_steps=30)
    assert told[0].filename == __file__


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
    names = ["schedule(<lambda>) #1", "schedule(<lambda>) #2"]
    np.testing.assert_array_equal(result["learning_rate"], names)
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
        ({"num_steps": 0}, "num_steps is 0; allowed: whole numbers from 1 to 2147483647"),
        ({"num_steps": 2**31}, "num_steps is 2147483648; allowed"),
        ({"record_every": 11}, "record_every is 11; allowed: whole numbers from 1 to num_steps 10"),
        ({"first_record": 0}, "first_record is 0; allowed"),
        ({"num_agents": 0}, "num_agents is 0; allowed: whole numbers from 1 to"),
        ({"num_agents": [2, -1]}, "num_agents is -1"),
        ({"num_agents": [2.5]}, "num_agents is 2.5"),
        ({"learning_rate": []}, "learning_rate is an empty list"),
        ({"learning_rate": [0.1, 2.0]}, r"learning_rate is 2.0; allowed: in \(0, 1\]"),
        ({"sync_period": [1, 0]}, "sync_period is 0; allowed"),
        ({"behaviour": ["uniform", "sofmax"]}, "did you mean softmax"),
        ({"learningrate": 0.1}, "did you mean learning_rate"),
        ({"metrics": ["error_severe"]}, "did you mean error_server"),
        ({"devices": 64}, "devices is 64; allowed: whole numbers from 1 to 8"),
        ({"seeds": []}, "seeds is an empty list"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 10.0}, "num_steps is 10.0; allowed: whole numbers"),
        ({"num_steps": True}, "num_steps is True"),
        ({"num_agents": "4"}, "num_agents is '4'"),
        ({"num_agents": None}, "num_agents is None"),
        ({"num_agents": 2**31}, "num_agents is 2147483648; allowed: .* to 2147483647"),
        ({"num_agents": 2**31 - 1}, "num_agents is 2147483647, which needs at least 512 GiB"),
        ({"record_every": 2.0}, "record_every is 2.0"),
        ({"first_record": "1"}, "first_record is '1'"),
        ({"metrics": "error_server"}, "metrics is 'error_server'; allowed: a list of names"),
        ({"metrics": ["error_server"] * 2}, "metrics has error_server twice"),
        ({"metrics": [3]}, "metrics has 3; allowed: names"),
        ({"devices": 0}, "devices is 0; allowed: whole numbers from 1"),
        ({"devices": 2.0}, "devices is 2.0"),
        ({"workers": float("nan")}, "workers is nan; allowed: whole numbers"),
        ({"chunk": 1.5}, "chunk is 1.5"),
        ({"stop": 1}, "stop is 1; allowed: a function of"),
        ({"progress": 1}, "progress is 1; allowed: True for a bar, or a function of"),
        ({"watch": "all"}, "watch is 'all'; allowed: a function of"),
        ({"checkpoints": True}, "checkpoints is True; allowed: a directory"),
        ({"seeds": -1}, "seeds is -1; allowed: whole numbers from 0 to 4294967295"),
        ({"seeds": True}, "seeds is True"),
        ({"seeds": 0.5}, "seeds is 0.5"),
        ({"seeds": None}, "seeds is None"),
        ({"seeds": [0, 2**32]}, "seeds is 4294967296"),
        ({"seeds": [0.0, 1.0]}, "seeds is 0.0"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\], which repeats some; allowed: different"),
        ({"seeds": jax.random.PRNGKey(1)}, "seeds is a jax array of uint32"),
        ({"seeds": jax.random.key(0)}, "seeds is a jax array of key"),
        ({"seeds": itertools.count()}, "seeds has more than 16777216 entries"),
        ({"learning_rate": [0.1, 0.1]}, r"learning_rate is \[0.1, 0.1\]; allowed: values that"),
        ({"learning_rate": jnp.ones(2)}, r"jax array of shape \(2,\); allowed: \[array\] for"),
        ({"initial_q": np.zeros((4, 3))}, r"initial_q is an array of shape \(4, 3\); allowed: \["),
        ({"learning_rate": frl.each([0.1, 2.0])}, "learning_rate is 2.0; allowed"),
        ({"clock": [None, frl.Clock()]}, "clock is None, which counts time in steps, and sync"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_before_anything_compiles(
    algorithm, arguments, message, monkeypatch
):
    monkeypatch.setattr(running, "_compile", None)
    with pytest.raises(ValueError, match=message):
        frl.sweep(algorithm, **{"num_steps": 10, **arguments})


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([frl.Cell(0, 0, {})], r"cells\[0\].num_agents is 0; allowed"),
        ([frl.Cell(2, 0, {}), frl.Cell(1.5, 0, {})], r"cells\[1\].num_agents is 1.5"),
        ([frl.Cell(2, "abc", {})], r"cells\[0\].seed is 'abc'; allowed"),
        ([frl.Cell(2, 0, None)], r"cells\[0\].properties is None; allowed: a dictionary"),
        ([(2, 0, {})], r"cells\[0\] is \(2, 0, \{\}\); allowed: frl.Cell"),
        ([frl.Cell(2, 0, {"beta": b}) for b in (1.0, 2.0, 1)], r"cells\[2\] is cells\[0\] once"),
        ([], "cells is empty"),
        (None, "cells is None"),
    ],
)
def test_cells_that_are_none_are_refused(algorithm, cells, message):
    with pytest.raises(ValueError, match=message):
        frl.run_cells(algorithm, cells, num_steps=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_agents": 2.5}, "num_agents is 2.5"),
        ({"num_steps": 2**63}, "num_steps is 9223372036854775808"),
        ({"num_steps": 2.0}, "num_steps is 2.0"),
        ({"record_every": "1"}, "record_every is '1'"),
        ({"seed": 2**32}, "seed is 4294967296; allowed: whole numbers from 0 to 4294967295"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_simulate_refuses_what_sweep_does(algorithm, arguments, message):
    with pytest.raises(ValueError, match=message):
        frl.simulate(algorithm, **{"num_agents": 2, "num_steps": 2, **arguments})


def test_seeds_of_the_upper_half_are_seeds_of_their_own(algorithm):
    """Four seeds, four runs; those of simulate are the same, and a traced one too."""
    seeds = [0, 1, 2**31, 2**32 - 1]
    result = frl.sweep(algorithm, num_agents=2, num_steps=6, record_every=6, seeds=seeds)
    np.testing.assert_array_equal(result["seed"], seeds)
    ends = result["error_server"].values[:, -1]
    assert len(np.unique(ends)) == 4

    def end(seed):
        run = frl.simulate(algorithm, num_agents=2, num_steps=6, seed=seed)
        return run.metrics["error_server"][-1]

    np.testing.assert_allclose(jax.vmap(end)(jnp.uint32(np.asarray(seeds))), ends, rtol=1e-5)


def test_a_grid_of_clocks_has_what_each_clock_measures(algorithm):
    clocks = [frl.Clock("asynchronous", distribution="exponential"), frl.Clock("synchronous")]
    options = {"num_agents": 2, "num_steps": 6, "record_every": 3}
    metrics = ["error_server", "simulated_time", "uploads_of_agent"]
    swept = frl.sweep(algorithm, clock=clocks, metrics=metrics, **options)
    assert swept["time"].attrs["long_name"] == "updates of the server"
    assert "phase" not in swept
    np.testing.assert_array_equal(swept["clock"], [str(clock) for clock in clocks])
    alone = frl.sweep(algorithm.replace(clock=clocks[0]), metrics=metrics, **options)
    for name in metrics:
        np.testing.assert_array_equal(swept[name][0], alone[name])
    np.testing.assert_array_equal(swept["uploads_of_agent"][1], [[3, 6]] * 2)


def test_what_only_some_configurations_have_is_nan_in_the_others():
    """A grid is asked of each configuration, not of the one that it was given."""
    table = frl.envs.dirichlet_mdp(num_states=3, num_actions=2)
    table = frl.envs.tabular_task(table, max_steps=4)
    loops = frl.envs.simple_grid(max_steps=4)
    result = frl.sweep(
        frl.fedpg(table, local_steps=1), task=[table, loops], num_agents=2, num_steps=3
    )
    np.testing.assert_array_equal(result["task"], [table.name, loops.name])
    for name, has in (("gap", table), ("reward", loops)):
        found = result[name].sel(task=has.name)
        assert np.isfinite(found).all()
        assert np.isnan(result[name].drop_sel(task=has.name)).all()
    assert not result["diverged"].any()


def test_a_tuple_is_one_value_of_what_holds_tuples(algorithm):
    learner = frl.es(frl.envs.simple_grid(max_steps=4))
    options = {"num_agents": 2, "num_steps": 2, "metrics": ["reward"]}
    shapes = [(4, 2), (3,)]
    swept = frl.sweep(learner, **{"network.hidden": shapes}, **options)
    np.testing.assert_array_equal(swept["network.hidden"], ["(4, 2)", "(3,)"])
    one = frl.sweep(learner, network=(4, 2), **options)
    assert one["reward"].dims == ("time",)
    np.testing.assert_array_equal(one["reward"], swept["reward"][0])
    assert axes.axis([learner], "network.hidden", frl.each(shapes)) == shapes
    with pytest.raises(ValueError, match=r"hidden is \[4, 2\].*allowed: a tuple for one value"):
        frl.sweep(learner, **{"network.hidden": [4, 2]}, **options)
    # An array of rates could be those of the agents as well as several rates for all of them.
    rates = np.asarray([0.1, 0.2])
    with pytest.raises(ValueError, match=r"learning_rate is an array of shape \(2,\); allowed: \["):
        axes.axis([algorithm], "learning_rate", rates)
    assert len(axes.axis([algorithm], "learning_rate", [rates])) == 1
    assert axes.axis([algorithm], "learning_rate", frl.each(rates)) == [0.1, 0.2]
    assert axes.axis([algorithm], "sync_period", np.asarray([1, 2])) == [1, 2]
    # A record of named fields, such as an optimiser, is one value as well.
    assert axes.axis([algorithm], "server_optimizer", optax.adam(0.1)) is None
    for bad in ("ab", {1: 2}, 3, []):
        with pytest.raises(ValueError, match="each is given"):
            frl.each(bad)


def test_labels_are_numbers_or_names_or_places(algorithm):
    top, flat = frl.uplinks.top_k(1), np.zeros(3)
    for values, labels in (
        ([1, 2], [1, 2]),
        ([0.5, 1], [0.5, 1.0]),
        ([None, 0.5], [np.nan, 0.5]),
        ([None, top], ["None", str(top)]),
        ([None, ("kernels",)], ["None", "('kernels',)"]),
        ([flat, flat + 1], [0, 1]),
        ([frl.by_agents(abs), 0.3], ["by_agents(abs)", "0.3"]),
        ([frl.schedule(abs), frl.schedule(np.sin)], ["schedule(abs)", "schedule(sin)"]),
        ([algorithm.config.mdp, frl.envs.paper_mdp()], [0, 1]),
        ([optax.sgd(0.1), optax.adam(0.1)], [0, 1]),
        ([frl.Clock(wait_for=None, compute_time=flat + 1), frl.Clock()], None),
    ):
        found = naming.labels(values)
        assert len(set(found.tolist())) == len(values)
        if labels is not None:
            np.testing.assert_array_equal(found, labels)
    name = frl.envs.simple_grid().name
    twice = naming.labels([frl.envs.simple_grid(max_steps=4), frl.envs.simple_grid()])
    np.testing.assert_array_equal(twice, [f"{name} #1", f"{name} #2"])


@pytest.mark.thorough
def test_divergence_is_seen_whatever_is_recorded(algorithm):
    options = {"num_agents": 2, "num_steps": 8, "record_every": 4}
    for metrics in ([], ["sup_error_server"]):
        result = frl.sweep(algorithm, reward_noise=[0.1, 3e38], metrics=metrics, **options)
        np.testing.assert_array_equal(result["diverged"], [False, True])
        np.testing.assert_array_equal(result["time"], [4, 8])
    on_clock = algorithm.replace(clock=frl.Clock("asynchronous"))
    result = frl.sweep(on_clock, reward_noise=[0.1, 3e38], metrics=["simulated_time"], **options)
    np.testing.assert_array_equal(result["diverged"], [False, True])
    # Ranks of returns are finite whatever the policy is.
    es = frl.es(frl.envs.simple_grid(max_steps=4))
    few = {"num_agents": 2, "num_steps": 30, "seeds": [0, 1]}
    wild = frl.sweep(es, learning_rate=[0.1, 1e38], **few)
    assert np.isfinite(wild["reward"]).all()
    np.testing.assert_array_equal(wild["diverged"], [[False, False], [True, True]])
    calm = frl.sweep(es, learning_rate=[0.1, 0.2], **few)
    np.testing.assert_array_equal(calm["reward"][0], wild["reward"][0])


SIZES = [[1], [7], [3, 3, 3], [5, 5, 5, 5, 5], [1, 2, 3, 4], [1, 1, 8, 8, 8], [16], [2] * 9]


@pytest.mark.parametrize("devices", [1, 3, 8])
@pytest.mark.parametrize("kind", ["steps", "episodes", "updates"])
def test_every_federation_is_simulated_once(algorithm, kind, devices, monkeypatch):
    """Agents of all jobs are those of all federations, over limits, cores, periods and memory."""
    one = {
        "steps": algorithm,
        "episodes": frl.es(frl.envs.simple_grid(max_steps=4)),
        "updates": algorithm.replace(clock=frl.Clock("asynchronous")),
    }[kind]
    run = Run.taken({"num_steps": 8, "record_every": 4, "devices": devices})
    for sizes, limit, cores in itertools.product(SIZES, (1, 4, 9, 8192), (1, 2, 7)):
        monkeypatch.setitem(jobs.AGENTS_PER_JOB, "cpu", limit)
        periods = [{"sync_period": 2 + s % 3} if kind != "episodes" else {} for s in range(3)]
        cells = [frl.Cell(n, place, periods[place % 3]) for place, n in enumerate(sizes)]
        several = federations({None: one}, cells, 8)
        made, places = jobs.jobs_of(several, (), run, Machine(cores, None, devices))
        assert sum(job.layout.whole.num_agents for job in made) == sum(sizes)
        assert len(set(places)) == len(cells)
        for cell, (job, place) in zip(cells, places, strict=True):
            federation, member = made[job].layout.agents()
            places_of_agents = made[job].layout.places("agent")
            mine = places_of_agents[federation[places_of_agents] == place]
            np.testing.assert_array_equal(made[job].seeds[mine], cell.seed)
            np.testing.assert_array_equal(member[mine], range(cell.num_agents))
            if kind == "updates":  # of one message each: there is nothing to share out
                assert made[job].layout.blocks[1] == 1
        if devices == 1:  # no pack beyond the limit but that of one federation alone
            packs = [job.layout.population for job in made]
            assert all(p.num_agents <= limit or p.num_federations == 1 for p in packs)


def test_federations_that_fill_the_memory_run_alone(monkeypatch):
    algorithm = frl.fedppo(
        frl.envs.simple_grid(max_steps=4), num_envs=2, rollout_steps=8, network={"hidden": (4,)}
    )
    needed = algorithm.memory(algorithm.config, 4)["total"]
    run = Run.taken({"num_steps": 8, "record_every": 4})
    cells = [frl.Cell(4, seed, {"sync_period": 2}) for seed in range(3)]
    several = federations({None: algorithm}, cells, 8)
    for free, at_once in ((1.2, 1), (2.2, 2), (9.0, 4)):
        there = int(free * needed)
        monkeypatch.setattr("fedjax_rl.memory.available", lambda devices=None, x=there: x)
        made, _ = jobs.jobs_of(several, (), run, Machine(4, None))
        assert sum(len(job.seeds) for job in made) == 12
        populations = [(job.algorithm, job.layout.population.sizes) for job in made]
        assert jobs.at_once(populations, 4) == at_once
        assert at_once * max(len(job.seeds) for job in made) <= 4 * free


@pytest.mark.thorough
def test_large_grids_are_cut_into_jobs_of_one_shape(algorithm, monkeypatch):
    options = {"num_agents": [3, 2], "seeds": range(5), "num_steps": 20, "record_every": 10}
    whole = frl.sweep(algorithm, **options)
    monkeypatch.setitem(jobs.AGENTS_PER_JOB, "cpu", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut = frl.sweep(algorithm, **options)
    np.testing.assert_allclose(cut["error_server"], whole["error_server"], rtol=1e-5)
    np.testing.assert_array_equal(cut["messages_up"], whole["messages_up"])


# Programs and everything else that is kept --------------------------------------------------------


def test_a_task_of_the_same_name_is_not_the_same_task():
    """Another wind under the name and options of the windy grid, in one process, either way."""
    windy = frl.envs.windy_grid(size=3, max_steps=12, wind=0.9)
    calm = frl.envs.windy_grid(size=3, max_steps=12, wind=0.0)
    disguised = dataclasses.replace(windy, params=calm.params, grid=calm.grid)
    assert disguised != windy
    run = functools.partial(frl.sweep, num_agents=4, num_steps=12, record_every=4)
    found = [run(frl.dql(task)).reward.values for task in (disguised, windy, calm)]
    np.testing.assert_array_equal(found[0], found[2])
    assert np.any(found[0] != found[1])


def test_what_is_kept_follows_what_was_changed_in_place():
    """Tables of an MDP, and what a schedule has enclosed."""
    mdp, rate = frl.envs.random_mdp(0), [0.1]
    schedule = frl.schedule(lambda step: rate[0] + 0 * step.astype(float))
    run = functools.partial(frl.sweep, num_agents=2, num_steps=20, record_every=20)

    def now():
        result = run(frl.fedq(mdp, epsilon=1.0, learning_rate=schedule))
        return float(result.error_server.values[-1])

    first = now()
    mdp.reward[...] *= 2
    second = now()
    assert second == pytest.approx(4 * first, rel=1e-3)  # q* and all tables are twice as large
    rate[0] = 0.5
    assert now() < 0.9 * second


def test_parameters_that_are_not_those_of_the_members_are_refused():
    task = frl.envs.tabular_task(frl.envs.dirichlet_mdps(2), max_steps=5)
    other = task.params.replace(reward=2 * task.params.reward)
    with pytest.raises(ValueError, match="not those of its first member"):
        frl.sweep(frl.fedpg(dataclasses.replace(task, params=other)), num_agents=2, num_steps=1)
    assert task.replace(params=other).params is other


def test_numbers_of_agents_may_stand_in_an_array():
    algorithm = frl.fedq(frl.envs.random_mdp(seed=0))
    swept = frl.sweep(algorithm, num_agents=np.array([1, 2]), num_steps=2)
    np.testing.assert_array_equal(swept.num_agents, [1, 2])
    with pytest.raises(ValueError, match=r"num_agents is an array of shape \(1, 2\)"):
        frl.sweep(algorithm, num_agents=np.array([[1, 2]]), num_steps=2)
