"""AFedPG, and algorithms on a clock."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from federations import end_of

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.algorithms.afedpg import Model, first_model, point_ahead, server_of
from fedjax_rl.federation.clock import METRICS
from fedjax_rl.studies import Stage, estimates, numbers
from fedjax_rl.studies.afedpg import STUDY, exact, tables, timing
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.runs import Results
from fedjax_rl.studies.study import Meter


@functools.cache
def m3():
    return envs.tabular_task(envs.dirichlet_mdp(), max_steps=25)


def run(algorithm, **options):
    values = {"num_agents": 4, "seeds": range(2), "num_steps": 12, "record_every": 1}
    return frl.sweep(algorithm, **{**values, **options})


# Rounds and arrivals


ALGORITHMS = {
    "fedpg with momentum, compressed": lambda: frl.fedavgm_pg(
        m3(), local_steps=2, learning_rate=0.2, uplink=frl.uplinks.top_k(3)
    ),
    "fedq": lambda: frl.fedq(frl.envs.random_mdp(seed=0), learning_rate=0.1, sync_period=5),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_clock_of_equal_times_that_waits_for_all_is_rounds_exactly(name):
    plain = ALGORITHMS[name]()
    length = 5 if plain.periodic else 1
    rounds = run(plain, num_steps=12 * length, record_every=length)
    clock = frl.Clock("semi-synchronous", wait_for=4)
    on_clock = run(plain.replace(clock=clock))
    shared = [n for n in rounds.data_vars if n in on_clock and n not in ("phase", "diverged")]
    for metric in shared:
        np.testing.assert_array_equal(on_clock[metric].values, rounds[metric].values, metric)
    assert len(shared) > 8
    np.testing.assert_array_equal(on_clock.simulated_time[0], np.arange(1, 13))
    assert (on_clock.staleness == 0).all()


@pytest.mark.thorough
def test_evolution_strategies_on_a_clock():
    task = envs.gymnax_task("CartPole-v1", max_steps=30)
    plain = frl.es(task, shaping="center")
    rounds = run(plain)
    together = run(plain.replace(clock=frl.Clock("synchronous")))
    np.testing.assert_array_equal(together.reward, rounds.reward)
    np.testing.assert_array_equal(together.bytes_up, rounds.bytes_up)


def test_only_those_who_arrive_are_simulated_and_paid_for():
    clock = frl.Clock("asynchronous", distribution="two_class", slow_factor=3.0)
    algorithm = frl.afedpg(m3(), episodes_per_step=2, clock=clock)
    result = run(algorithm, num_steps=48, metrics=list(METRICS))
    # Two agents come every unit of time, two every third: 8 arrivals in 3 units of time.
    np.testing.assert_allclose(result.simulated_time[:, -1], 18)
    assert (result.env_steps == 48 * 2 * 25).all()
    # The gradient and alpha; the point ahead and alpha.
    assert (result.floats_up == 48 * 16).all()
    assert (result.floats_down == 48 * 16).all()
    ages = [result[name].values[:, -1] for name in METRICS if name.startswith("age_")]
    assert (sum(ages) == 48).all()
    np.testing.assert_array_equal(result.uploads_of_agent.isel(time=-1)[0], [18, 18, 6, 6])
    assert (result.idle_of_agent == 0).all()


@pytest.mark.thorough
def test_the_table_moves_by_the_share_of_those_who_arrive():
    """FedAsync: after one arrival the server has moved a quarter of the way to that table."""
    base = frl.fedq(frl.envs.random_mdp(seed=0), learning_rate=0.5, sync_period=4, epsilon=1.0)
    one = base.replace(clock=frl.Clock("asynchronous"))

    def tables(algorithm, agents, steps):
        _, state = end_of(algorithm, agents, steps, seed=3)
        return np.asarray(jax.tree.leaves(state.server)), state

    local, _ = tables(base.replace(clock=frl.Clock()), 1, 1)
    after, state = tables(one, 4, 1)
    np.testing.assert_allclose(
        after[:, 0] - initial(one), 0.25 * (local[:, 0] - initial(one)), rtol=1e-4, atol=1e-6
    )
    assert int(state.time) == 1


def initial(algorithm):
    """The server's first table."""
    from fedjax_rl import streams
    from fedjax_rl.federation import population
    from fedjax_rl.federation.algorithm import bind

    one = population(4)
    params = bind([algorithm.parameters(algorithm.config, 4)])
    keys = streams.agent_keys(np.zeros(4, np.int32), np.arange(4))
    state = algorithm.functions(algorithm.config).init(one, params, keys)
    return np.asarray(jax.tree.leaves(state.server))[:, 0]


@pytest.mark.thorough
def test_federations_of_different_sizes_and_clocks_share_a_population():
    cells = [
        frl.Cell(n, 0, {"clock": frl.Clock("asynchronous", compute_time=t)})
        for n in (1, 4)
        for t in (1.0, 2.0)
    ]
    one = frl.afedpg(m3())
    options = {"num_steps": 9, "record_every": 3, "metrics": ("gap", "simulated_time")}
    together = frl.run_cells(one, cells, **options)
    alone = frl.run_cells(one, cells[-1:], **options)
    np.testing.assert_allclose(together.gap[-1], alone.gap[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(together.simulated_time[:, -1], [9, 18, 3, 6])


@pytest.mark.thorough
def test_federations_on_clocks_lie_on_several_devices():
    """Sixteen of three on eight; three more and one of eight, whose members stay together."""
    cells = [*(frl.Cell(3, seed, {}) for seed in range(19)), frl.Cell(8, 0, {})]
    one = frl.afedpg(m3(), clock=frl.Clock("asynchronous", distribution="exponential"))
    options = {"num_steps": 6, "record_every": 6, "metrics": ("gap", "simulated_time")}
    single, eight = (frl.run_cells(one, cells, devices=d, **options) for d in (1, 8))
    for metric in options["metrics"]:
        np.testing.assert_allclose(eight[metric], single[metric], rtol=1e-4, atol=1e-6)


def test_a_federation_goes_on_while_agents_fail_and_return():
    clock = frl.Clock("synchronous", distribution="exponential", failure_time=1.0, return_time=2.0)
    algorithm = frl.fedpg(m3(), local_steps=1, learning_rate=0.3, clock=clock, gradient="exact")
    result = run(algorithm, num_steps=60, record_every=20)
    assert (result.lost[:, -1] > 10).all()
    assert np.isfinite(result.gap).all()
    assert (result.gap[:, -1] < result.gap[:, 0]).all()
    # Everything that has arrived has been paid for, nothing else.
    ages = sum(result[name][:, -1] for name in METRICS if name.startswith("age_"))
    np.testing.assert_array_equal(ages, result.messages_up)
    # So has the model that is handed to who comes back; some of the four may still be away.
    again, lost = (result.messages_down - result.messages_up).values, result.lost.values[:, -1]
    assert (again <= lost).all()
    assert (again >= lost - 4).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: frl.fast_fedpg(m3(), clock=c), "clock is given for fast-fedpg"),
        (
            lambda c: frl.es(envs.simple_grid(), antithetic=True, clock=c),
            "antithetic is True on a clock",
        ),
        (
            lambda c: frl.es(envs.simple_grid(), evaluate=True, clock=c),
            "evaluate is True on a clock",
        ),
        (lambda c: frl.afedpg(m3(), local_steps=2, clock=c), "local_steps is 2"),
        (lambda c: frl.afedpg(m3(), momentum=0.0, clock=c), "momentum is 0.0"),
        (lambda c: frl.afedpg(m3(), delay_compensation=-1.0, clock=c), "delay_compensation is -1"),
    ],
)
def test_what_cannot_be_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make(frl.Clock("asynchronous"))


# AFedPG


def params(**values):
    own = {
        "messages": 1.0,
        "momentum": 0.1,
        "learning_rate": 0.05,
        "delay_compensation": 0.0,
        "momentum_decay": 0.0,
        "learning_rate_decay": 0.0,
        "decay_start": 50.0,
        **values,
    }
    return {name: jnp.asarray(value, float) for name, value in own.items()}


def test_a_step_is_that_of_the_paper():
    """Two arrivals of messages with alphas of their own, against the formulas in NumPy."""
    config = frl.afedpg(m3()).config
    server, own = server_of(config), params()
    here = np.array([1.0, -2.0, 0.5], np.float32)
    model = first_model(jnp.asarray(here))
    gradients = np.array([[0.3, 0.4, 0.0], [-1.0, 2.0, 2.0]], np.float32)
    model, _ = server.step(model, (), (jnp.float32(0.1) * gradients[0], jnp.float32(0.1)), own)
    np.testing.assert_allclose(model.direction, gradients[0], rtol=1e-6)  # the first: d = g
    moved = here + 0.05 * gradients[0] / 0.5
    np.testing.assert_allclose(model.parameters, moved, rtol=1e-6)
    point, alpha = point_ahead(config, model, own)
    np.testing.assert_allclose(point, moved + 9 * (moved - here), rtol=1e-5)
    np.testing.assert_allclose(alpha, 0.1)
    model, _ = server.step(model, (), (jnp.float32(0.2) * gradients[1], jnp.float32(0.2)), own)
    direction = 0.8 * gradients[0] + 0.2 * gradients[1]
    np.testing.assert_allclose(model.direction, direction, rtol=1e-6)
    np.testing.assert_allclose(
        model.parameters, moved + 0.05 * direction / np.linalg.norm(direction), rtol=1e-6
    )
    assert int(model.steps) == 2


def test_lookahead_cancels_the_age_of_the_momentum():
    """Of a quadratic, without delay and noise, d is the gradient at the server's model."""
    with jax.enable_x64(True):
        config, own = frl.afedpg(m3()).config, params()
        server = server_of(config)
        rng = np.random.default_rng(0)
        half = rng.normal(size=(4, 4))
        hessian = -jnp.asarray(half @ half.T)
        model = first_model(jnp.asarray(rng.normal(size=4)))
        for _ in range(20):
            point, alpha = point_ahead(config, model, own)
            before = model.parameters
            model, _ = server.step(model, (), (alpha * (hessian @ point), alpha), own)
            np.testing.assert_allclose(model.direction, hessian @ before, rtol=0, atol=1e-13)


@pytest.mark.thorough
def test_the_verdicts_of_what_is_exact(tmp_path):
    """A9, A10 and the like: delays, clocks alone, and one agent beside N-PG-IGT."""
    lines = STUDY.run(tmp_path, ["lookahead", "clock"], scale="smoke")["targets"]
    assert {line["id"]: line["verdict"] for line in lines} == dict.fromkeys(
        ("A9", "A9 compensated", "A14", "A10", "A10 delay", "time ratio"), "reproduced"
    )
    moved = Results(tmp_path, Meter(None, {"transport": 1.0}))[exact.ALONE]["parameters"]
    assert np.abs(moved).max() > 0.1


# The study


def invented(gaps, name="invented"):
    """A stage with these gaps [setting, seed, time] at the times 1, 2, ..."""
    gaps = np.asarray(gaps, float)[None]
    data = {"gap": (("method", "setting", "seed", "time"), gaps * tables.first_gap())}
    data["simulated_time"] = (data["gap"][0], np.ones_like(gaps).cumsum(-1))
    dataset = xr.Dataset(data, {"method": ["a"], "setting": ["N = 1", "N = 2"]})
    dataset = dataset.assign_coords(seed=range(gaps.shape[2]), time=10 * np.arange(gaps.shape[3]))

    def make(meter):
        meter.stage(name)
        return dataset

    return Stage(name, make)


def results(path):
    return Results(path, Meter(None, {"invented": 1.0}))


def test_a_target_is_reached_when_the_mean_of_the_window_is_there(tmp_path):
    falling = np.ones((2, 3, 50))
    falling[0, 0, 5:] = 0  # 20 gaps of 0.1 in the mean: two of them are 1
    falling[0, 1, 45:] = 0  # never
    found = tables.reached(invented(falling))["a"](results(tmp_path))
    np.testing.assert_array_equal(found[0], [23, np.inf, np.inf])
    shares = tables.parts(0.5, 0.1)
    found = tables.reached(invented(falling), shares, 1, "time")["a"](results(tmp_path))
    np.testing.assert_array_equal(
        found.sel(setting="N = 1").transpose("eps", ...)[0], [50, 450, np.inf]
    )


def test_medians_and_exponents_take_runs_that_never_came_there_as_censored(tmp_path):
    median = estimates.median_time(np.array([1.0, 2, 3, np.inf, np.inf]), np.full(5, 9.0))
    assert (median.value, median.runs) == (3.0, 5)
    assert median.high == np.inf
    never = estimates.median_time(np.full(4, np.inf), np.full(4, 9.0))
    assert (never.value, never.low) == (np.inf, 9.0)
    rng = np.random.default_rng(0)
    agents = np.array([1.0, 2, 4, 8])
    times = 100 / agents * np.exp(rng.normal(scale=0.2, size=(20, 4)))
    ends = np.broadcast_to(100.0 / agents, times.shape)

    def number(values):
        array = xr.DataArray(values, {"seed": range(20), "num_agents": agents})
        return Number(lambda results: array, ())

    late = np.where(times > ends, np.inf, times)
    assert np.isinf(late).any(axis=0).all()
    for own in (times, late):
        (found,) = estimates.time_exponent(number(own), number(ends), "num_agents")(None)
        assert found.low < -1 < found.high
        assert found.high - found.low < 0.4
    never = number(np.full((20, 4), np.inf))
    assert np.isnan(estimates.time_exponent(never, number(ends), "num_agents")(None)[0][0])


def test_settings_of_numbers_of_agents_lie_along_them(tmp_path):
    stage = invented(np.ones((2, 3, 4)))
    own = numbers.along(stage["gap"].last(), "num_agents", {"N = 2": 2, "N = 1": 1})
    both = numbers.beside(own, own)(results(tmp_path))
    assert set(both.dims) == {"method", "num_agents", "seed"}
    assert both["num_agents"].values.tolist() == [2, 1]


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_every_claim_is_declared_and_controlled(scale):
    figures = STUDY.declare(list(STUDY.figures), STUDY.size(scale))
    claims = {own.claim.id: own for figure in figures for own in figure.claims}
    for name in ("claim 1", "claim 2", "claim 4", "claim 5", "claim 6", "E1 hopper"):
        assert name in claims
    assert sum(own.claim.kind == "control" for own in claims.values()) >= 6
    assert claims["E1 hopper"].there == (scale == "quick")
    assert not claims["E1 humanoid"].there


def test_a_direction_of_no_length_does_not_move():
    config, own = frl.afedpg(m3()).config, params()
    model = first_model(jnp.ones(3))
    model, _ = server_of(config).step(model, (), (jnp.zeros(3), jnp.float32(0.1)), own)
    np.testing.assert_array_equal(model.parameters, np.ones(3))


def test_several_messages_make_as_large_a_step_as_one_by_one():
    config = frl.afedpg(m3()).config
    many = params(messages=4.0)
    model = Model(jnp.zeros(2), jnp.zeros(2), jnp.asarray([0.0, 1.0]), jnp.uint32(3))
    _, alpha = point_ahead(config, model, many)
    np.testing.assert_allclose(alpha, 0.4)
    np.testing.assert_allclose(point_ahead(config, model, params(messages=16.0))[1], 1.0)
    total = alpha * jnp.asarray([0.0, 2.0]), alpha
    moved, _ = server_of(config).step(model, (), total, many)
    np.testing.assert_allclose(moved.parameters, [0.0, 4 * 0.05], rtol=1e-6)
    np.testing.assert_allclose(moved.direction, [0.0, 0.6 + 0.8], rtol=1e-6)


def test_step_sizes_decay_from_their_start():
    config = frl.afedpg(m3()).config
    own = params(momentum_decay=0.8, learning_rate_decay=1.0)
    model = Model(jnp.zeros(2), jnp.zeros(2), jnp.asarray([0.0, 1.0]), jnp.uint32(50))
    _, alpha = point_ahead(config, model, own)
    np.testing.assert_allclose(alpha, 0.1 * 0.5**0.8, rtol=1e-6)
    moved, _ = server_of(config).step(model, (), (alpha * jnp.ones(2), alpha), own)
    np.testing.assert_allclose(np.linalg.norm(moved.parameters), 0.025, rtol=1e-5)


def test_ablations_are_what_their_names_say():
    bare = frl.a3c_pg(m3()).config
    assert (bare.momentum, bare.lookahead, bare.normalize_step) == (1.0, False, False)
    plain = frl.afedpg(m3(), lookahead=False).config
    model = Model(jnp.ones(2), jnp.zeros(2), jnp.ones(2), jnp.uint32(4))
    np.testing.assert_array_equal(point_ahead(plain, model, params())[0], model.parameters)
    step, _ = server_of(bare).step(
        model, (), (jnp.asarray([2.0, 0.0]), jnp.float32(1.0)), params(momentum=1.0)
    )
    np.testing.assert_allclose(step.parameters, [1.1, 1.0])


@pytest.mark.thorough
def test_it_learns_and_more_agents_are_faster():
    algorithm = frl.afedpg(m3(), episodes_per_step=8)
    runs = run(algorithm, num_agents=[1, 8], seeds=range(6), num_steps=200, record_every=20)
    gaps = runs.gap.mean("seed")
    start = tables.first_gap()
    assert start == pytest.approx(1.1234792, abs=1e-6)
    assert float(gaps.sel(num_agents=8)[-1]) < 0.25 * start
    # At the same simulated time eight agents have sent eight times as many messages.
    assert float(gaps.sel(num_agents=8)[-1]) < 0.6 * float(gaps.sel(num_agents=1)[0])
    np.testing.assert_allclose(runs.simulated_time.sel(num_agents=8)[:, -1], 25)
    np.testing.assert_allclose(runs.simulated_time.sel(num_agents=1)[:, -1], 200)


def test_a_ratio_of_medians_has_infinite_times_in_it_without_a_warning():
    """Half of the runs never come there, so that medians of resamples are infinite."""

    def times(*values):
        return Number(lambda results: xr.DataArray(np.array(values), dims=("seed",)), ())

    (found,) = timing.median_ratio(times(6.0, 6.0, 6.0, 6.0), times(2.0, 2.0, 2.0, 2.0))(None)
    assert found[:3] == pytest.approx((3.0, 3.0, 3.0))
    some = times(2.0, 3.0, 4.0, np.inf, np.inf)
    with np.errstate(all="raise"):
        (found,) = timing.median_ratio(times(8.0, 8.0, 8.0, 8.0, 8.0), some)(None)
    assert found.value == pytest.approx(2.0)
    assert found.low == 0  # where most of a resample never comes there
    assert np.isfinite(found.high)
