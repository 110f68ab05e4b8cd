"""What can be differentiated is, to nine digits; what cannot be says so."""

import dataclasses
import functools
import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl
from fedjax_rl import streams
from fedjax_rl.envs.family_optimum import traced_optimum
from fedjax_rl.federation.algorithm import Algorithm, bind
from fedjax_rl.federation.population import population

SEEDS = np.arange(4)
SIZES = {"num_agents": 8, "num_steps": 600, "record_every": 600}

module = importlib.import_module("fedjax_rl.algorithms.fedq_environment")


@pytest.fixture
def double():
    module._remembered.cache_clear()
    with jax.enable_x64(True):
        yield
    module._remembered.cache_clear()


@functools.cache
def paper():
    return frl.envs.paper_mdp()


def objective(properties, seeds=SEEDS, sizes=SIZES):
    """The mean over federations of the server's final error, as a function of a number."""

    def value(x):
        algorithm = frl.fedq(**{"mdp": paper(), "sync_period": 10, "epsilon": 1.0, **properties(x)})
        run = functools.partial(frl.simulate, algorithm, **sizes)
        return jnp.mean(jax.vmap(lambda seed: run(seed=seed).metrics["error_server"][-1])(seeds))

    return value


EVERYTHING = {
    "rate": 0.05,
    "rate_at_300": 0.06,
    "logit": 0.1,
    "mixing": 0.7,
    "reward": 0.0,
    "discount": 0.6,
    "noise": 0.3,
}


def everything(x):
    """All that is differentiable at once, under a fixed policy that is not uniform."""
    x = dict(zip(EVERYTHING, x, strict=True))
    change = jnp.zeros((1, 1, 4)).at[0, 0, 1].set(x["reward"])
    return {
        "behaviour": "policy",
        "policy": np.tile([0.2, 0.3, 0.5], (4, 1)),
        "epsilon": 0.0,
        "learning_rate": frl.schedule(
            lambda step: jnp.where(step == 300, x["rate_at_300"], x["rate"])
        ),
        "aggregation": "learned",
        "weights": jnp.zeros(8).at[2].set(x["logit"]),
        "mixing": x["mixing"],
        "mdp": paper().replace(reward=paper().reward + change),
        "discount": x["discount"],
        "reward_noise": x["noise"],
    }


@pytest.mark.thorough
@pytest.mark.usefixtures("double")
def test_reverse_forward_and_finite_differences_agree():
    """The specification, section 9.1: to nine digits, relative errors below 1e-5."""
    value, at = objective(everything), list(EVERYTHING.values())

    @jax.jit
    def all_three(x, step):
        basis = jnp.eye(x.size)
        slopes = jax.lax.map(lambda tangent: jax.jvp(value, (x,), (tangent,))[1], basis)
        points = jnp.concatenate([x[None] + step * basis, x[None] - step * basis])
        above, below = jnp.split(jax.lax.map(value, points), 2)
        return jax.grad(value)(x), slopes, (above - below) / (2 * step)

    reverse, forward, difference = map(np.asarray, all_three(jnp.asarray(at), 1e-6))
    assert np.abs(difference).min() > 1e-5
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    np.testing.assert_allclose(reverse, difference, rtol=1e-5)


def both_modes(value):
    """The derivative of a function of a number in reverse and in forward mode."""
    return (jax.grad(value), lambda x: jax.jvp(value, (x,), (jnp.ones_like(x),))[1])


def all_of(value, at, step):
    """Both, and the finite difference, from one program."""

    @jax.jit
    def three(x, step):
        near = jax.lax.map(value, jnp.stack([x + step, x - step]))
        reverse, forward = (derivative(x) for derivative in both_modes(value))
        return reverse, forward, (near[0] - near[1]) / (2 * step)

    return tuple(map(float, three(jnp.float32(at), jnp.float32(step))))


def refused(value, at, match):
    """Whether both modes are refused, before anything compiles and whatever is around them."""
    wrapped = jax.checkpoint(jax.vmap(jax.jit(value)))
    for derivative in both_modes(lambda x: jnp.sum(wrapped(jnp.stack([x, x])))):
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(derivative, jnp.float32(at))
    with pytest.raises(ValueError, match=match):
        jax.grad(value)(at)


def small(**properties):
    """The final error of two agents after four steps."""
    common = {"mdp": paper(), "epsilon": 1.0, "sync_period": 2}
    algorithm = frl.fedq(**{**common, **properties})
    return frl.simulate(algorithm, num_agents=2, num_steps=4).metrics["error_server"][-1]


# Ways into a simulation whose actions are drawn from the table, each as properties of a number.
ROUTES = {
    "a property": lambda x: {"learning_rate": x},
    "the closure of a schedule": lambda x: {"learning_rate": frl.schedule(lambda step: x)},
    "the closure of an optimiser": lambda x: {"server_optimizer": optax.sgd(x)},
    "the environment": lambda x: {"mdp": paper().replace(reward=x * paper().reward)},
}


@pytest.mark.parametrize("route", ROUTES)
def test_derivatives_through_sampled_actions_are_refused(route):
    match = r"derivative is None for fedq.*'uniform'.*derivative='pathwise'"
    behaviour = {"behaviour": "greedy"} if route == "a property" else {"beta": 4.0}
    refused(lambda x: small(epsilon=0.1, **behaviour, **ROUTES[route](x)), 0.2, match)


DRAWS = {
    "epsilon": lambda x: {"epsilon": x},
    "beta": lambda x: {"epsilon": 0.1, "beta": x},
    "participation": lambda x: {"participation": x},
    "uplink": lambda x: {"uplink": frl.uplinks.partial(x)},
    "uplink of a threshold": lambda x: {"uplink": frl.uplinks.event_triggered(x)},
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_only_decides_draws_has_no_derivative_even_where_the_bias_is_accepted(name):
    value = lambda x: small(derivative="pathwise", **DRAWS[name](x))
    refused(value, 0.5, f"{name.split()[0]} of fedq is differentiated")


@pytest.mark.thorough
def test_a_choice_by_the_size_of_a_message_is_refused():
    for uplink in (frl.uplinks.top_k(2), frl.uplinks.event_triggered(0.1), frl.uplinks.lazy()):
        refused(lambda x, u=uplink: small(learning_rate=x, uplink=u), 0.1, f"uplink {uplink.name}")
    # Who is heard by chance leaves the derivative what it is.
    value = lambda x: small(learning_rate=x, uplink=frl.uplinks.partial(0.5))
    reverse, forward, difference = all_of(value, 0.1, 1e-2)
    assert reverse == pytest.approx(forward, rel=1e-4)
    assert reverse == pytest.approx(difference, rel=1e-2)


def test_numbers_of_a_clock_and_tables_that_draws_come_from_are_refused():
    def on_clock(x):
        return small(clock=frl.Clock("asynchronous", distribution="two_class", slow_factor=x))

    def drawn(x):
        grid = frl.envs.windy_grid(max_steps=3)
        tables = dataclasses.replace(grid.grid, probability=x * grid.grid.probability)
        task = grid.replace(grid=tables, params=tables, name="mine")
        return frl.simulate(frl.dql(task), num_agents=2, num_steps=1).metrics["reward"][-1]

    refused(on_clock, 2.0, "slow_factor is traced")
    refused(drawn, 1.0, "are traced|derivative is None for dql")


def test_physics_by_the_parameters_of_a_task_are_refused():
    task = frl.envs.gymnax_task("CartPole-v1", max_steps=3)

    def value(x):
        own = task.replace(params=dataclasses.replace(task.params, gravity=x))
        algorithm = frl.fedpg(own, local_steps=1, evaluation_episodes=1)
        return frl.simulate(algorithm, num_agents=1, num_steps=1).metrics["return"][-1]

    refused(value, 9.8, "derivative is None for fedpg")


def test_a_round_by_hand_is_guarded_too():
    algorithm = frl.dql(frl.envs.simple_grid(max_steps=4))
    functions, one = algorithm.functions(algorithm.config), population(2)
    params = bind([algorithm.parameters(algorithm.config, 2)])
    keys = streams.agent_keys(jnp.zeros(2, int), one.member_of)

    def value(x):
        state = functions.init(one, params, keys)
        state = dataclasses.replace(state, server=state.server + x)
        return jnp.sum(functions.measure(one, params, state)["reward"])

    refused(value, 0.0, "derivative is None for dql")


def test_an_algorithm_of_ones_own_is_refused_until_it_says_that_it_is_exact():
    known = frl.pavg(family())
    silent = {f.name: getattr(known, f.name) for f in dataclasses.fields(known) if f.init}
    del silent["sampled"]

    def last(algorithm):
        return frl.simulate(algorithm, num_agents=2, num_steps=1).metrics["objective"][-1]

    def value(x):
        config = dataclasses.replace(known.config, learning_rate=x)
        return last(Algorithm(**{**silent, "name": "mine", "config": config}))

    refused(value, 0.1, "derivative is None for mine")


@functools.cache
def family(num_agents=2):
    members = frl.envs.dirichlet_mdps(num_agents, kernels=0.5, num_states=3, num_actions=2)
    return frl.envs.tabular_task(members, max_steps=4)


EXACT = {
    "fedpg": lambda x: frl.fedpg(family(), gradient="exact", local_steps=2, learning_rate=x),
    "entropy": lambda x: frl.fedpg(family(), gradient="exact", local_steps=1, entropy=x),
    "fast": lambda x: frl.fast_fedpg(family(), gradient="exact", local_steps=2, learning_rate=x),
    "pavg": lambda x: frl.pavg(family(), local_steps=2, learning_rate=x),
    "clock": lambda x: frl.fedq(
        paper(), epsilon=1.0, learning_rate=x, sync_period=3, clock=frl.Clock("asynchronous")
    ),
    "ef_td": lambda x: frl.ef_td(frl.envs.simple_grid(), learning_rate=x),
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.thorough
def test_what_draws_nothing_that_is_learned_is_exact(name):
    sizes = {"num_agents": 4, "num_steps": 5} if name == "ef_td" else SHORT

    def value(x):
        algorithm = EXACT[name](x)
        return frl.simulate(algorithm, **sizes).metrics[algorithm.headline][-1]

    reverse, forward, difference = all_of(value, 0.1, 5e-3)
    assert reverse == pytest.approx(forward, rel=1e-4)
    assert reverse == pytest.approx(difference, rel=5e-3)
    if name == "ef_td":
        assert reverse == pytest.approx(-2.6427, abs=1e-4)


SHORT = {"num_agents": 2, "num_steps": 3}


def test_the_best_value_changes_with_a_traced_environment():
    """By the envelope theorem, against finite differences of the solver on the host."""
    base = frl.envs.dirichlet_mdps(2, kernels=0.5, num_states=3, num_actions=2)
    push = np.random.default_rng(0).normal(size=base.reward.shape)

    def moved(x):
        return base.replace(reward=base.reward + x * push)

    for tau in (0.0, 0.3):
        value = lambda x, tau=tau: traced_optimum(moved(x), jnp.float32(tau))
        exact = lambda x, tau=tau: frl.envs.optimum(moved(x), tau)
        difference = (exact(1e-4) - exact(-1e-4)) / 2e-4
        assert float(jax.jit(value)(0.0)) == pytest.approx(exact(0.0), rel=1e-5)
        for derivative in both_modes(value):
            assert float(jax.jit(derivative)(0.0)) == pytest.approx(difference, rel=1e-3)


def test_the_best_value_of_families_side_by_side_is_double_in_double_precision():
    """A callback has a thread of its own, in which precision is another."""
    members = [frl.envs.dirichlet_mdps(2, seed=s, num_states=3, num_actions=2) for s in (0, 1)]
    wanted = [frl.envs.optimum(own, 0.3) for own in members]
    with jax.enable_x64(True):
        every = jax.tree.map(lambda *x: jnp.stack(x), *members)
        found = jax.jit(jax.vmap(lambda own: traced_optimum(own, jnp.asarray(0.3))))(every)
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


def of_mjx():
    return frl.envs.brax_task("inverted_pendulum", max_steps=2, backend="mjx")


def of_a_flag():
    task = frl.envs.lqr(max_steps=2)
    env = types.SimpleNamespace(reset=task.env.reset, step=task.env.step, reversible=False)
    return dataclasses.replace(task, env=env)


@pytest.mark.parametrize("make", [of_a_flag, pytest.param(of_mjx, marks=pytest.mark.thorough)])
def test_loops_of_unknown_length_have_no_pathwise_derivative(make):
    task = make()
    with pytest.raises(ValueError, match=f"derivative is 'pathwise' on {task.name}"):
        frl.fedpg(task, derivative="pathwise")


def test_the_pathwise_gradient_of_sampled_actions_is_biased():
    """The specification, section 9.2: finite difference -8.17, pathwise -12.93 (K = T)."""
    seeds = np.arange(8192)
    sizes = {"num_agents": 2, "num_steps": 60, "record_every": 60}
    common = {"epsilon": 0.0, "beta": 4.0, "sync_period": 60, "derivative": "pathwise"}
    value = objective(lambda x: {**common, "learning_rate": x}, seeds, sizes)

    @jax.jit
    def both(x, step):
        slope = jax.jvp(value, (x,), (jnp.ones_like(x),))[1]
        near = jax.lax.map(value, jnp.stack([x + step, x - step]))
        return slope, (near[0] - near[1]) / (2 * step)

    pathwise, difference = map(float, both(jnp.float32(0.2), jnp.float32(0.02)))
    assert abs(pathwise + 12.93) < 0.3
    assert abs(difference + 8.17) < 1.0
    assert pathwise < difference - 3


@pytest.mark.thorough
def test_memory_of_reverse_mode_grows_with_the_rounds_and_not_with_the_steps():
    def bytes_of(period, rounds):
        sizes = {"num_agents": 8, "num_steps": period * rounds, "record_every": period * rounds}
        value = objective(lambda x: {"learning_rate": x, "sync_period": period}, SEEDS, sizes)
        compiled = jax.jit(jax.grad(value)).lower(jnp.float32(0.05)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    base = bytes_of(20, 400)
    # One table of 12 floats per round and agent has to be there; one per step is not.
    tables = 400 * SEEDS.size * 8 * 12 * 4
    assert tables < base < 5 * tables
    assert bytes_of(40, 400) < 1.1 * base
