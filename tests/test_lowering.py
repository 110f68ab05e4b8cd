"""Every program of the package is lowered for accelerators, whether or not there is one.

What only a CPU has shows here: its operations, its options, double precision on a TPU, and products
of float32 matrices of which an accelerator would keep 8 or 11 binary digits.
"""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smallest import N_STEP, SMALL, environment, smallest

import fedjax_rl as frl
from fedjax_rl import backend, memory
from fedjax_rl.algorithms import ALGORITHMS, fedppo_resources
from fedjax_rl.networks import pictures
from fedjax_rl.sweeps import compiling
from fedjax_rl.sweeps.lowering import PLATFORMS, lowered

# The package has functions of that name.
fedppo = importlib.import_module("fedjax_rl.algorithms.fedppo")
ACCELERATORS = ("cuda", "tpu")
_PRODUCT = re.compile(r"stablehlo\.(?:dot|dot_general|convolution)\b.*")
_FLOAT = re.compile(r"x(?:f32|f64|bf16)>")


def inexact(text):
    """Products of floats that are not asked for in the highest precision."""
    products = [line for line in map(str.strip, text.splitlines()) if _PRODUCT.search(line)]
    return [line for line in products if _FLOAT.search(line) and line.count("HIGHEST") < 2]


def check(lower, apart=False, double=False):
    """What is to be so of every program.

    Args:
      lower: `(*platforms) -> programs`.
      apart: whether platforms have programs of their own, each to be traced by itself.
      double: whether they compute in double precision.
    """
    for platforms in [(one,) for one in ACCELERATORS] if apart else [ACCELERATORS]:
        for name, one in lower(*platforms).items():
            text = one.mlir_module()
            assert one.platforms == platforms
            assert not inexact(text), (name, inexact(text)[:3])
            # The host is asked nothing while a program runs, and LAPACK is a CPU's.
            assert not re.search(r"custom_call @\w*(?:lapack|callback|cpu)", text), name
            assert double or "f64" not in text, name


@functools.cache
def place(name):
    """Environments by the kind of program that they make."""
    if name in ("mdp", "tabular", "grid"):
        return environment(name)
    if name == "lqr":
        return frl.envs.lqr(max_steps=4)
    if name == "gymnax":
        return frl.envs.gymnax_task("CartPole-v1", max_steps=4)
    if name == "brax":
        return frl.envs.brax_task("hopper", max_steps=4)
    return frl.envs.procgen_task("BigFish", observation=name)


KINDS = {"mdp": "mdp", "tabular": "tabular", "grid": "grid", "lqr": "task", "gymnax": "task"}
PLACES = [
    (name, where)
    for name, entry in ALGORITHMS.items()
    for where, kind in KINDS.items()
    if kind in entry.environments
]
DAILY = ("fedq", "mdp")


def made(name, where, **properties):
    """The smallest algorithm there."""
    return ALGORITHMS[name].make(place(where), **{**SMALL.get(name, {}), **properties})


@pytest.mark.parametrize(
    ("name", "where"),
    [p if p == DAILY else pytest.param(*p, marks=pytest.mark.thorough) for p in PLACES],
)
def test_every_algorithm_lowers_on_every_kind_of_environment(name, where):
    try:
        algorithm = made(name, where)
    except ValueError as error:
        assert "allowed" in str(error)  # noqa: PT017  some take discrete actions alone
        return
    lower = functools.partial(lowered, algorithm, metrics=tuple(algorithm.metrics))
    # Kernels for tables, and turns of their loops, are those of a GPU alone.
    check(lower, apart=where in ("mdp", "tabular"))


PICTURES = {"num_envs": 2, "rollout_steps": 4}
PPO = {**PICTURES, "minibatches": 2}
DQN = {**SMALL["feddqn"], "network": (4,)}
GAMES = {
    "es": ("vector", {"network": (4,)}),
    "reinforce": ("vector", {"network": (4,)}),
    "fedppo": ("vector", {**PPO, "network": {"hidden": (4,)}}),
    "feda2c": ("vector", N_STEP),
    **{
        f"fedppo {kind}": ("pixels", {**PPO, "network": kind})
        for kind in ("classic", "impala", "impala-small", "vit-3-4-16")
    },
    "fedppo impala, in turn": ("pixels", {**PPO, "network": "impala", "batching": "in turn"}),
    "fedppo impala, together": ("pixels", {**PPO, "network": "impala", "batching": "together"}),
    "feda2c classic": ("pixels", {**PICTURES, "network": "classic"}),
    "feddqn classic": ("pixels", {**DQN, "network": {"kind": "classic"}}),
    "es brax": ("brax", {"network": (4,)}),
    "reinforce brax": ("brax", {"network": (4,)}),
    "fedppo brax": ("brax", {**PPO, "network": {"hidden": (4,)}}),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", GAMES)
def test_games_physics_and_networks_lower(case):
    where, properties = GAMES[case]
    algorithm = made(case.partition(" ")[0], where, **properties)
    check(functools.partial(lowered, algorithm))


UPLINKS = {
    "partial": frl.uplinks.partial(0.5),
    "event-triggered": frl.uplinks.event_triggered(0.1),
    "probabilistic": frl.uplinks.probabilistic(1),
    "lazy": frl.uplinks.lazy(),
    "top-k": frl.uplinks.top_k(1),
    "scaled-sign": frl.uplinks.scaled_sign(),
}
CLOCKS = {
    "synchronous": {"distribution": "two_class"},
    "semi-synchronous": {"wait_for": 1, "distribution": "log_normal", "bandwidth": 1e6},
    "asynchronous": {"distribution": "exponential", "failure_time": 10.0},
    "trace": {
        "scheduler": "asynchronous",
        "distribution": "trace",
        "compute_time": ((1.0, 2.0), (3.0, 4.0)),
    },
}
SERVERS = ("fedq", "fedpg", "davia", "fedppo")


@pytest.mark.thorough
@pytest.mark.parametrize("uplink", UPLINKS)
def test_every_uplink_lowers(uplink):
    for name in SERVERS:
        check(functools.partial(lowered, smallest(name, uplink=UPLINKS[uplink])))


@pytest.mark.thorough
@pytest.mark.parametrize("clock", CLOCKS)
def test_every_clock_lowers(clock):
    one = frl.Clock(**{"scheduler": clock, **CLOCKS[clock]})
    for name in ("fedq", "fedpg", "davia"):
        check(functools.partial(lowered, smallest(name, clock=one)))


DERIVATIVES = {
    "exact": lambda x: (frl.fedq(frl.envs.paper_mdp(), epsilon=1.0, learning_rate=x), {}),
    "forward": lambda x: (smallest("fedtd", learning_rate=x), {"mode": "forward"}),
    "gradient": lambda x: (smallest("pavg", learning_rate=x), {"second": True}),
    "score": lambda x: (
        frl.fedq(frl.envs.paper_mdp(), derivative="score", learning_rate=x),
        {"second": True},
    ),
    "relaxed": lambda x: (
        frl.fedq(frl.envs.paper_mdp(), derivative="relaxed", learning_rate=x),
        {},
    ),
    "pathwise": lambda x: (smallest("fedppo", derivative="pathwise", learning_rate=x), {}),
    "solved": lambda x: (smallest("fedpg", gradient="exact", learning_rate=x), {}),
}


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:derivative is")
@pytest.mark.parametrize("kind", DERIVATIVES)
def test_derivatives_lower(kind):
    def derivative(x):
        algorithm, more = DERIVATIVES[kind](x)
        return frl.differentiate(
            algorithm, by="learning_rate", num_agents=2, num_steps=2, seeds=range(2), **more
        )

    def lower(*platforms):
        with backend.made_for(PLATFORMS[platforms[-1]]):
            made = jax.export.export(jax.jit(derivative), platforms=platforms)
            return {kind: made(jnp.float32(0.1))}

    check(lower)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["fedq", "es", "fedpg", "ef-td", "fedapg", "fedppo", "feda2c"])
def test_double_precision_lowers(name):
    with jax.enable_x64(True):
        check(functools.partial(lowered, smallest(name)), double=True)


@pytest.mark.thorough
def test_kernels_of_their_own_are_products_of_matrices_on_an_accelerator():
    """Agents by agents, a convolution and both its gradients are what they are for one of them."""
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (3, 2, 5, 4, 2))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 2, 6))

    def total(convolve):
        return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(convolve(*args))), (0, 1))

    for axes in ((0, 0), (None, 0), (0, None)):
        own = [
            value if axis == 0 else value[0] for value, axis in zip((x, kernel), axes, strict=True)
        ]
        with backend.made_for("gpu"):
            found = jax.vmap(total(pictures.convolve), axes)
            text = jax.jit(found).lower(*own).as_text()
            made = found(*own)
        expected = jax.vmap(total(pictures._convolve), axes)(*own)
        for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        grouped = re.findall(r"(?:feature|batch)_group_count = (\d+)", text)
        assert set(grouped) <= {"1"}


@pytest.mark.parametrize("together", [None, 1, 2, 3, 4, 5, 9])
def test_agents_are_as_many_at_a_time_as_have_room(together):
    def one(x):
        return 2 * x

    values = jnp.arange(5.0)
    np.testing.assert_array_equal(fedppo._each(one, together, values), 2 * values)
    text = str(jax.make_jaxpr(lambda x: fedppo._each(one, together, x))(values))
    assert ("scan" in text) == (together in (1, 2, 3, 4))


@pytest.mark.thorough
def test_an_accelerator_decides_by_its_memory(monkeypatch):
    algorithm = made("fedppo", "pixels", **PPO, network="impala")
    config = algorithm.config.resolved()
    assert fedppo_resources.together_of(config) == (1, 1)
    with backend.made_for("gpu"):
        one = fedppo_resources.memory_of(config, 1)["minibatch"]
        for room, agents in ((2 * one, 1), (7 * one, 3), (one, 1)):
            monkeypatch.setattr(memory, "available", lambda devices=None, room=room: room)
            assert fedppo_resources.together_of(config) == (None, agents)
            assert fedppo_resources.memory_of(config, 8)["minibatch"] == agents * one
        monkeypatch.setattr(memory, "available", lambda devices=None: None)
        assert fedppo_resources.together_of(config) == (None, None)
        assert fedppo_resources.together_of(config.replace(batching="in turn")) == (1, 1)


def test_products_are_exact_on_accelerators_alone_and_unless_jax_is_told_otherwise():
    def text(**options):
        product = jax.jit(backend.exact(lambda x: x @ x))
        return product.trace(jnp.ones((4, 4))).lower(**options).as_text()

    assert "HIGHEST" not in text()
    with backend.made_for("gpu"):
        assert not inexact(text(lowering_platforms=("cuda",)))
        with jax.default_matmul_precision("tensorfloat32"):
            assert inexact(text(lowering_platforms=("cuda",)))
        # What XLA has for CPUs alone would end an accelerator's compiler.
        assert not compiling.compiler_options()
    assert backend.kind() == jax.default_backend()
    assert compiling.compiler_options()
