"""Rounds in a kernel are the rounds of the program without one, of all sizes and properties."""

import dataclasses
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl
from fedjax_rl import backend, streams
from fedjax_rl import federation as fed
from fedjax_rl.algorithms.fedq_kernel import LARGEST_THRESHOLDS, kernel_of
from fedjax_rl.federation import kernels
from fedjax_rl.federation.algorithm import bind


def mdp(num_states, num_actions, seed=0):
    """A random MDP of any size, with rewards that depend on all of (s, a, s')."""
    rng = np.random.default_rng(seed)
    shape = (num_states, num_actions, num_states)
    return frl.envs.tabular_mdp(
        rng.dirichlet(np.ones(num_states), shape[:2]), rng.normal(size=shape), discount=0.9
    )


PAPER = frl.envs.paper_mdp()
FAMILY = frl.envs.dirichlet_mdps(12, num_states=3, num_actions=2)
LARGE = mdp(7, 4)
MANY_NEXT = mdp(12, 2)
POLICY = np.full((PAPER.num_states, PAPER.num_actions), 1 / PAPER.num_actions)

FALLING = frl.schedule(optax.linear_schedule(1.0, 0.1, 10))

# Of every property values that are not the default, and what of a round is then a kernel.
PROPERTIES = {
    "mdp": {"round": [{"mdp": FAMILY}], None: [{"mdp": LARGE}, {"mdp": MANY_NEXT}]},
    "learning_rate": {
        "round": [{"learning_rate": np.linspace(0.1, 0.9, 12)}],
        None: [{"learning_rate": FALLING}],
    },
    "sync_period": {"round": [{"sync_period": 3}]},
    "sampling": {
        "round": [{"sampling": "iid"}],
        None: [{"sampling": "generative"}, {"sampling": "expected"}],
    },
    "behaviour": {"round": [{"behaviour": "greedy", "epsilon": 0.2}]},
    "epsilon": {
        "round": [{"epsilon": 1.0}, {"epsilon": np.linspace(0, 1, 12)}],
        None: [{"epsilon": FALLING}],
    },
    "beta": {"round": [{"beta": 2.0}]},
    "policy": {"round": [{"behaviour": "policy", "policy": POLICY}]},
    "discount": {"round": [{"discount": 0.5}]},
    "initial_q": {"round": [{"initial_q": 0.3}]},
    "reference": {"round": [{"reference": np.zeros_like(POLICY)}]},
    "visit_exponent": {"round": [{"visit_exponent": 0.7}]},
    "reward_noise": {"round": [{"reward_noise": 0.5}]},
    "aggregation": {"steps": [{"aggregation": "importance"}]},
    "weights": {
        "steps": [
            {"aggregation": "fixed", "weights": np.full(12, 1 / 12)},
            {"aggregation": "learned", "weights": np.zeros(12)},
        ]
    },
    "mixing": {
        "round": [{"mixing": 0.4}],
        None: [{"mixing": FALLING}],
    },
    "participation": {"steps": [{"participation": 0.5}]},
    "uplink": {
        "round": [{"uplink": frl.uplinks.full()}],
        "steps": [{"uplink": frl.uplinks.top_k(2)}],
    },
    "server_optimizer": {"steps": [{"server_optimizer": optax.adam(0.1)}]},
    "clock": {None: [{"clock": frl.Clock()}]},
    "generator": {"round": [{"generator": "hash"}]},
    "derivative": {
        "round": [{"derivative": "pathwise"}],
        None: [{"derivative": "score"}, {"derivative": "relaxed"}],
    },
    "relaxation": {None: [{"derivative": "relaxed", "relaxation": 0.3}]},
}


def program(algorithm, sizes, periods=3, how=None):
    """`advance` of a population, `num_steps -> state`, and what it is called with."""
    functions = algorithm.functions(algorithm.config)
    population = fed.population(sizes)
    params = bind([algorithm.parameters(algorithm.config, n) for n in sizes])
    periods = np.asarray(periods, np.uint32)
    where = params.federation if periods.ndim else params.shared
    where["sync_period"] = jnp.asarray(periods)
    seeds = np.repeat(np.arange(len(sizes)), sizes)
    keys = streams.agent_keys(seeds, population.member_of)

    def run(params, keys, num_steps):
        state = functions.init(population, params, keys)
        # Asked for while the program is made.
        with mock.patch.dict(backend.KERNELS, {"cpu": how}):
            # Twice: the second time from a step at which nobody is due.
            state = functions.advance(population, params, state, num_steps)
            return functions.advance(population, params, state, num_steps)

    return run, params, keys


def compared(algorithm, sizes, num_steps=5, periods=3, exact=False):
    """The states with and without kernel are one another's."""
    found = []
    for how in (None, "interpret"):
        run, params, keys = program(algorithm, sizes, periods, how)
        traced = jax.jit(run).trace(params, keys, jnp.uint32(num_steps))
        assert ("pallas_call" in str(traced.jaxpr)) == (how is not None)
        state = traced.lower().compile()(params, keys, jnp.uint32(num_steps))
        found.append(dataclasses.replace(state, keys=jax.random.key_data(state.keys)))
    for (path, plain), own in zip(
        jax.tree_util.tree_leaves_with_path(found[0]), jax.tree.leaves(found[1]), strict=True
    ):
        what = jax.tree_util.keystr(path)
        assert plain.dtype == own.dtype, what
        if exact or not jnp.issubdtype(plain.dtype, jnp.floating):
            np.testing.assert_array_equal(plain, own, err_msg=what)
        else:
            np.testing.assert_allclose(plain, own, rtol=1e-5, atol=1e-6, err_msg=what)


def test_every_property_is_in_the_kernel_or_not():
    names = set(frl.fedq(PAPER).properties)
    assert set(PROPERTIES) == names
    for name, kinds in PROPERTIES.items():
        for kind, cases in kinds.items():
            for case in cases:
                assert name in case
                config = frl.fedq(**{"mdp": PAPER, **case}).at(12).config.resolved()
                assert kernel_of(config) == kind, case
    assert kernel_of(frl.fedq(PAPER).config) == "round"
    # Which is left out for its many next states, not for its table.
    assert LARGEST_THRESHOLDS < 24 * 11


@pytest.mark.parametrize(("kind", "sampling", "calls"), [("cpu", "iid", 0), ("gpu", "iid", 1)])
def test_a_gpu_alone_has_kernels(kind, sampling, calls):
    algorithm = frl.fedq(PAPER, sampling=sampling)
    first = frl.init(algorithm, num_agents=2)
    first.params.shared["sync_period"] = jnp.uint32(1)
    place, without = "fedjax_rl.algorithms.assemble.in_kernels", lambda drive, *how: drive
    with backend.made_for(kind), mock.patch(place, side_effect=without) as called:
        advance = algorithm.functions(algorithm.config).advance
        # Not before a program is made: a command line looks at algorithms before JAX starts.
        assert called.call_count == 0
        go = functools.partial(advance, fed.population(2))
        jax.eval_shape(go, first.params, first.state, jnp.uint32(1))
    assert called.call_count == calls


SIZES = [1, 1, 1, 2, 5, 5, 8]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("sizes", "largest", "periods"),
    [(SIZES, 1024, 3), (SIZES, 4, 3), ([3, 3, 3, 3, 3], 1024, [1, 2, 3, 2**32 - 1, 5])],
)
def test_odd_sizes(sizes, largest, periods, monkeypatch):
    """Blocks of four: tails of federations and of members, and federations that do not fit."""
    monkeypatch.setattr(kernels, "_BLOCK", 4)
    monkeypatch.setattr(kernels, "LARGEST", largest)
    compared(frl.fedq(mdp(3, 2), epsilon=1.0, learning_rate=0.5), sizes, 5, periods)


@pytest.mark.thorough
def test_odd_tables():
    """One state, or one action; to the bit, as sums of two are in the same order."""
    for num_states, num_actions in ((1, 3), (2, 1)):
        algorithm = frl.fedq(mdp(num_states, num_actions), learning_rate=0.5)
        compared(algorithm, [1, 2], 7, [1, 2], exact=True)


# All of a covered round: behaviours, families, what an agent counts, and what a server does.
COVERED = {
    "greedy": {
        **{"behaviour": "greedy", "epsilon": 0.2, "mixing": 0.4},
        **{"visit_exponent": 0.7, "reward_noise": 0.5},
    },
    "softmax": {"mdp": FAMILY, "beta": 2.0, "epsilon": [0.1, 0.2, 0.3], "generator": "hash"},
    "importance": {"sampling": "iid", "aggregation": "importance"},
    "policy": {"behaviour": "policy", "policy": POLICY, "participation": 0.5},
}


def covered(case):
    return frl.fedq(**{"mdp": PAPER, "learning_rate": 0.3, **COVERED[case]})


@pytest.mark.thorough
@pytest.mark.parametrize("case", COVERED)
def test_properties_in_the_kernel(case):
    compared(covered(case), [3, 3], 7, 3)


@pytest.mark.thorough
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("case", COVERED)
def test_kernels_are_lowered_for_gpus(case, double):
    """On a machine without one."""
    with jax.enable_x64(double):
        run, params, keys = program(covered(case), [3, 3], how="triton")
        traced = jax.jit(run).trace(params, keys, jnp.uint32(2))
        assert "xla.gpu.triton" in traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.thorough
def test_derivatives_are_those_without_a_kernel():
    algorithm = frl.fedq(mdp(2, 2), epsilon=1.0)
    found = []
    for how in (None, "interpret"):
        run, params, keys = program(algorithm, [3], how=how)

        def table(rate, run=run, params=params, keys=keys):
            agent = {**params.agent, "learning_rate": jnp.broadcast_to(rate, (3,))}
            own = dataclasses.replace(params, agent=agent)
            return jnp.stack(run(own, keys, jnp.uint32(4)).server)

        found.append(jax.jit(jax.jacfwd(table))(jnp.float32(0.3)))
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0]).max() > 0


def test_a_loop_of_several_turns_at_a_time_is_the_loop():
    @jax.jit
    def run(first, last):
        with mock.patch.dict(backend.UNROLL, {"cpu": 3}):
            return backend.repeat(first, last, lambda i, x: x * jnp.uint32(3) + i, jnp.uint32(1))

    for first, last in ((0, 0), (0, 7), (1, 0), (2, 5)):
        expected = 1
        for i in range(first, last):
            expected = expected * 3 + i
        assert int(run(jnp.uint32(first), jnp.uint32(last))) == expected
