"""What is promised of every algorithm."""

import functools
import importlib
import json
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from smallest import RUN, environment, kind_of, last, short_run, smallest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.cli import config, parse
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.population import population
from fedjax_rl.saving.checkpoints import Checkpoints

# The package has a function of that name.
batches = importlib.import_module("fedjax_rl.sweeps.batches")

everybody = pytest.mark.parametrize("name", ALGORITHMS)


@functools.cache
def baseline(name):
    """The short run that everything is held against."""
    return short_run(name)


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if kind_of(n) == "grid"])
def test_returns_are_told_with_and_without_discount(name):
    """Every step on the grid costs 1, so that either number follows from the other."""
    end = baseline(name).isel(time=-1)
    if "return_of_agent" not in end:
        assert name == "ef-td"  # time counts its steps, which have no return
        return
    discount, undiscounted = environment("grid").discount, end.return_of_agent.values
    assert end["return"] == pytest.approx(undiscounted.mean())
    assert (undiscounted <= -7).all()
    assert (undiscounted >= -8).all()
    if name not in ("reinforce", "lapg"):  # means over several episodes
        expected = -(1 - discount**-undiscounted) / (1 - discount)
        np.testing.assert_allclose(end.reward_of_agent, expected, rtol=1e-6)


@everybody
def test_no_nan_is_made(name):
    """Nor is any used for what is not there: users look for theirs with this switch."""
    baseline(name)  # compiled
    with jax.debug_nans(True):
        short_run(name)


@everybody
def test_both_precisions_can_be_traced(name):
    """In double precision no counter grows wider, and no number stays narrow, along the way."""
    algorithm, one = smallest(name), population(3)
    with jax.enable_x64(True):
        functions = algorithm.functions(algorithm.config)
        params = bind([algorithm.parameters(algorithm.config, 3)])
        if algorithm.periodic:
            params.shared["sync_period"] = jnp.uint32(2)

        def run(params, keys):
            state = functions.init(one, params, keys)
            return functions.measure(one, params, functions.advance(one, params, state, 2))

        keys = streams.agent_keys(jnp.zeros(3, jnp.int32), one.member_of)
        assert jax.eval_shape(run, params, keys).keys() >= algorithm.metrics.keys()


@pytest.mark.thorough
@everybody
def test_both_precisions_run(name):
    """Through compiled programs; what is drawn may differ, what is counted may not be missing."""
    single = last(baseline(name))
    with jax.enable_x64(True):
        double = last(short_run(name))
        jax.eval_shape(lambda: frl.simulate(smallest(name), num_agents=3, num_steps=2).metrics)
    for way in ("messages_up", "floats_up", "bytes_down"):
        assert (double["ledger"][way] > 0) == (single["ledger"][way] > 0)
    for metric, value in double["metrics"].items():
        assert np.all(np.isfinite(value)) or not np.all(np.isfinite(single["metrics"][metric]))


# Nothing of these is drawn from what is learned.
EXACT = ("ef-td", "fedtd", "qavg", "pavg", "fedapg")


@everybody
def test_a_derivative_is_right_or_refused(name):
    def value(x):
        algorithm = smallest(name, learning_rate=x)
        run = frl.simulate(algorithm, num_agents=2, num_steps=2)
        metric = "change_norm" if name == "qavg" else algorithm.headline
        return jnp.sum(run.metrics[metric])

    def forward(x):
        return jax.jvp(value, (x,), (jnp.ones_like(x),))[1]

    if name not in EXACT:
        for derivative in (jax.grad(value), forward):
            with pytest.raises(ValueError, match=f"derivative is None for .*{'pathwise'}"):
                jax.eval_shape(derivative, 0.1)
        return

    @jax.jit
    def everything(x, step):
        difference = (value(x + step) - value(x - step)) / (2 * step)
        return jax.grad(value)(x), forward(x), difference

    reverse, along, difference = map(float, everything(0.01, 2e-3))
    assert reverse == pytest.approx(along, rel=1e-4)
    assert reverse == pytest.approx(difference, rel=1e-2)
    assert reverse != 0


# Company ------------------------------------------------------------------------------------------


def rate_of(name):
    """The learning rate that an algorithm has by default, as the program gets it."""
    algorithm = smallest(name)
    params = algorithm.at(3).parameters(algorithm.at(3).config, 3)
    return float(np.ravel({**params.federation, **params.agent}["learning_rate"])[0])


def absurd(name):
    """A learning rate that ruins a model if anything does."""
    for rate in (1e30, 1.0):
        try:
            smallest(name, learning_rate=rate)
        except ValueError:
            continue
        return rate
    raise AssertionError(f"{name} has no learning rate")


@functools.cache
def crowd(name):
    """The federation of the baseline among others, over two devices."""
    algorithm = smallest(name)
    rates, sizes = [rate_of(name), absurd(name)], [1, 3]
    run = {**RUN, "num_agents": sizes, "learning_rate": rates, "devices": 2}
    return frl.sweep(algorithm, metrics=tuple(algorithm.metrics), **run)


def alike(one, other, **tolerance):
    """Whether two results tell the same."""
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        a, b = (np.asarray(x[name], np.float64) for x in (one, other))
        np.testing.assert_allclose(a, b, err_msg=name, **tolerance)


@everybody
def test_a_federation_is_the_same_in_any_company_and_over_any_devices(name):
    """Other sizes, other values and a ruined model beside it: agents draw the same words."""
    here = crowd(name).isel(learning_rate=0).sel(num_agents=3)
    alike(here, baseline(name), rtol=2e-4, atol=1e-5)


@everybody
def test_members_are_spread_over_devices_that_do_not_divide_them(name):
    """Three on two: the last place holds nobody."""
    algorithm = smallest(name)
    spread = frl.sweep(algorithm, metrics=tuple(algorithm.metrics), devices=2, **RUN)
    alike(spread, baseline(name), rtol=2e-4, atol=1e-5)


# One for each algorithm: whoever can be driven by one can be by all, and these share their code.
CLOCKS = (
    {"scheduler": "semi-synchronous", "wait_for": 2},
    {"scheduler": "semi-synchronous", "wait_for": 2, "failure_time": 2.0},
    {"scheduler": "synchronous"},
)


@everybody
def test_members_on_a_clock_are_spread_over_devices(name):
    """Three on two, of whom two arrive: each device has one to simulate."""
    if name in CLOCKLESS:  # refused by name, see below
        return
    # One that goes with a reuse of samples is synchronous.
    place = 2 if name == "iw-es" else list(ALGORITHMS).index(name) % len(CLOCKS)
    clock = frl.Clock(distribution="exponential", **CLOCKS[place])
    algorithm = smallest(name, clock=clock)
    run = {**RUN, "metrics": tuple(algorithm.metrics)}
    alike(frl.sweep(algorithm, devices=2, **run), frl.sweep(algorithm, **run), rtol=2e-4, atol=1e-5)


@everybody
def test_what_is_not_finite_is_called_diverged(name):
    result = crowd(name)
    assert not result.diverged.isel(learning_rate=0).any()
    for n in (1, 3):
        for i in range(2):
            cell = result.isel(learning_rate=i).sel(num_agents=n)
            if "agent" in cell.dims:
                cell = cell.isel(agent=slice(n))
            recorded = [cell[m].values for m in smallest(name).metrics]
            assert bool(cell.diverged) or all(np.isfinite(x).all() for x in recorded)


@everybody
@pytest.mark.thorough
def test_one_agent_in_a_sweep_is_the_pure_function_of_one(name):
    algorithm = smallest(name)
    sizes = {"num_steps": RUN["num_steps"], "record_every": RUN["record_every"]}
    alone = jax.jit(lambda: frl.simulate(algorithm, num_agents=1, seed=5, **sizes).metrics)()
    here = crowd(name).isel(learning_rate=0).sel(num_agents=1)
    for metric, value in alone.items():
        seen = here[metric]
        seen = (
            seen.isel(agent=slice(1)).transpose("time", "agent") if "agent" in seen.dims else seen
        )
        np.testing.assert_allclose(seen, value, rtol=2e-4, atol=1e-5, err_msg=metric)


# Time ---------------------------------------------------------------------------------------------


class StopError(Exception):
    """Somebody pulled the plug."""


@everybody
def test_killed_and_resumed_is_uninterrupted(name, tmp_path, monkeypatch):
    algorithm = smallest(name)
    monkeypatch.setattr(batches, "Checkpoints", functools.partial(Checkpoints, seconds=0.0))

    def go(progress=None):
        metrics = tuple(algorithm.metrics)
        return frl.sweep(algorithm, metrics=metrics, checkpoints=tmp_path, progress=progress, **RUN)

    def stop(done, total):
        if done < total:
            raise StopError

    with pytest.raises(StopError):
        go(stop)
    xr.testing.assert_equal(go(), baseline(name))


# Configurations -----------------------------------------------------------------------------------

# Rounds of more than work and one exchange.
CLOCKLESS = ("ns-es", "nsr-es", "nsra-es", "fast-fedpg", "fedppo")
# Of every way to make a round one.
ROUNDS = ("fedq", "reinforce", "fedpg", "qavg")
PLACES = {"mdp": "paper-mdp", "tabular": "dirichlet-mdp", "grid": "simple-grid", "task": "lqr"}
HAVE_UPLINKS = [name for name in ALGORITHMS if name not in ("espc", "ebcdql", "lapg")]


@everybody
def test_a_configuration_makes_the_algorithm_again(name):
    """From the command line to config.json, to the algorithm, to JSON."""
    line = ["run", name, PLACES[kind_of(name)], "--learning-rate", "0.0625"]
    line += ["--uplink", "top-k", "--uplink.k", "2"] if name in HAVE_UPLINKS else []
    saved = json.loads(json.dumps(config.config_of(parse.read(line)[1])))
    one = config.algorithm_of(saved)
    assert one.config.learning_rate == 0.0625
    assert (getattr(one.config.uplink, "name", None) == "top-k") == (name in HAVE_UPLINKS)
    told = json.loads(json.dumps(one.describe(one.config)))
    again = one.replace(uplink=None) if name in HAVE_UPLINKS else one
    again = again.replace(**{"uplink": one.config.uplink} if name in HAVE_UPLINKS else {})
    assert json.loads(json.dumps(again.describe(again.config))) == told
    assert again.static(again.config) == one.static(one.config)


@everybody
def test_an_algorithm_is_a_value(name):
    """Of the public function that made it, and of records within its record."""
    inner = ALGORITHMS[name].make.definition.record.names()
    given = {"wire.header_bytes": 8, "network.hidden": (3,), "optimizer.momentum": 0.25}
    given |= {"loss.policy_clip": 0.3, "heterogeneity.seed": 7}
    given = {"learning_rate": 0.0625, **{n: x for n, x in given.items() if n in inner}}
    one = smallest(name, clock=frl.Clock() if name not in CLOCKLESS else None, **given)
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert hash(again) == hash(one)
    assert again.static(again.config) == one.static(one.config)
    assert one != one.replace(learning_rate=0.125)
    # From plain JSON values, as a run is saved.
    saved = json.loads(json.dumps(one.describe(one.config)))
    kept = {n: saved[n] for n in {name.partition(".")[0] for name in given}}
    made = smallest(name, **{**kept, "clock": one.config.clock})
    assert made.config.resolved() == one.config.resolved()
    for each in made.config.properties():
        if each.name in given:
            assert each.value == given[each.name]


@pytest.mark.parametrize(
    "name", [n if n in ROUNDS else pytest.param(n, marks=pytest.mark.thorough) for n in ALGORITHMS]
)
def test_rounds_by_hand_are_a_sweep(name):
    algorithm, told = smallest(name), []
    state = frl.init(algorithm, num_agents=RUN["num_agents"], seed=RUN["seeds"])
    for _ in range(RUN["num_steps"]):
        state, metrics = frl.round(algorithm, state)
        told.append(metrics)
    swept, every = baseline(name), RUN["record_every"]
    for metric in algorithm.metrics:
        values = swept[metric].transpose("time", ...).values
        found = [x[metric] for x in told[every - 1 :: every]]
        np.testing.assert_allclose(found, values, rtol=2e-4, atol=1e-5, err_msg=metric)
    assert state.costs == last(swept)["ledger"]


@pytest.mark.parametrize(
    ("of", "given", "words"),
    [
        ({}, {"network": (4,)}, r"agents\.noise is of shape \[2, 37\]; allowed: \[2, 141\], as"),
        ({"optimizer": "sgd"}, {}, r"server_state\S* is in the state; allowed: none, as"),
        ({}, {"optimizer": "sgd"}, r"server_state\S* is missing; allowed: a state as"),
        ({}, {"uplink": frl.uplinks.top_k(1)}, "of another algorithm than es, or of other"),
    ],
)
def test_the_state_of_other_properties_is_refused_in_one_sentence(of, given, words):
    algorithm, other = (frl.es(frl.envs.simple_grid(max_steps=4), **x) for x in (of, given))
    with pytest.raises(ValueError, match=words):
        frl.round(algorithm, frl.init(other, num_agents=2))


UPLINKS = {
    "partial": lambda: frl.uplinks.partial(0.5),
    "event-triggered": lambda: frl.uplinks.event_triggered(0.1),
    "probabilistic": lambda: frl.uplinks.probabilistic(1),
    "lazy": lambda: frl.uplinks.lazy(),
    "top-k": lambda: frl.uplinks.top_k(1),
    "scaled-sign": lambda: frl.uplinks.scaled_sign(),
}


def traced(algorithm):
    """Runs an algorithm on shapes alone; fails as a run would before it computes."""
    run = lambda: frl.simulate(algorithm, num_agents=2, num_steps=1).metrics
    assert set(jax.eval_shape(run)) == set(algorithm.metrics)


@everybody
def test_a_clock_drives_an_algorithm_or_is_refused_by_name(name):
    if "clock" not in smallest(name).properties:
        with pytest.raises(ValueError, match="'clock' is no property"):
            smallest(name).replace(clock=frl.Clock("asynchronous"))
        return
    try:
        algorithm = smallest(name, clock=frl.Clock("asynchronous", distribution="exponential"))
    except ValueError as error:
        assert re.match("clock is .*allowed", str(error))  # noqa: PT017  both ends are right
        return
    traced(algorithm)


@pytest.mark.thorough
@pytest.mark.parametrize("uplink", UPLINKS)
@everybody
def test_an_uplink_fits_an_algorithm_or_is_refused_by_name(name, uplink):
    try:
        algorithm = smallest(name, uplink=UPLINKS[uplink]())
    except ValueError as error:
        assert re.search("uplink.*allowed", str(error))  # noqa: PT017  both ends are right
        return
    traced(algorithm)
