"""What decides a result is told apart by content, not by name."""

import dataclasses
import functools
import logging
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_rl as frl
from fedjax_rl.identity import content, digest, parts
from fedjax_rl.remembered import remembered

RATE = 0.1


def scaled(factor):
    return lambda num_agents: factor / num_agents


def by_global(num_agents):
    return RATE / num_agents


def windy(wind):
    task = frl.envs.windy_grid()
    return dataclasses.replace(task, params=jax.tree.map(lambda x: x * wind, task.params))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        float,
        np.float32,
        lambda x: np.full(3, x),
        jnp.float32,
        lambda x: {"a": [x, (x, None)]},
        scaled,
        lambda x: optax.exponential_decay(x, 10, 0.5),
        optax.adam,
        frl.uplinks.top_k,
        lambda x: frl.Clock(latency=x),
        lambda x: frl.envs.random_mdp(seed=x),
        windy,
        lambda x: frl.envs.procgen_task("BigFish", max_steps=x),
        lambda x: jax.random.key(x),
        lambda x: frl.fedq(frl.envs.paper_mdp(), sync_period=x),
    ],
)
def test_equal_content_is_equal_and_other_content_is_not(make):
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


def test_a_function_is_what_it_reads(monkeypatch):
    before = digest(by_global)
    monkeypatch.setattr(sys.modules[__name__], "RATE", 0.2)
    assert digest(by_global) != before


def test_the_same_in_another_process():
    code = (
        "import fedjax_rl as frl; from fedjax_rl.identity import digest;"
        "rate = frl.by_agents(lambda n: 0.1 / n);"
        "print(digest(frl.es(frl.envs.simple_grid(), learning_rate=rate)))"
    )
    words = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(words) == 1


def test_what_cannot_be_looked_into_is_itself():
    lock = threading.Lock()
    assert content(lock) == content(lock) != content(threading.Lock())
    with pytest.raises(ValueError, match="lock has no content"):
        digest(lock)
    with pytest.raises(ValueError, match=r"clock.trace is .*lock"):
        parts("clock", Held(lock))


@dataclasses.dataclass
class Held:
    trace: object


def test_what_differs_has_a_name():
    one, two = (parts("mdp", frl.envs.random_mdp(discount=d)) for d in (0.5, 0.6))
    assert [n for n in one if one[n] != two[n]] == ["mdp.discount"]
    assert one["mdp.discount"][0] == "0.5"


LOG = logging.getLogger("simulator")


class Simulator:
    """What somebody may write: it logs, it remembers what it has worked out."""

    def __init__(self, size):
        self.size = size

    @functools.cached_property
    def table(self):
        LOG.info("once")
        return np.ones(self.size)

    @functools.partial(jax.jit, static_argnums=0)
    def step(self, x):
        return x + self.table[0]


def test_what_an_object_has_worked_out_is_no_part_of_it():
    used = Simulator(3)
    used.step(1.0)
    assert "table" in vars(used)
    assert digest(used) == digest(Simulator(3)) != digest(Simulator(4))


def test_what_is_kept_outlives_the_program_that_asked_first():
    @remembered()
    def made(size):
        return jnp.arange(size) + 1

    assert jax.jit(lambda x: x + made(3)[2])(jnp.int32(1)) == 4
    np.testing.assert_array_equal(made(3), [1, 2, 3])


@pytest.mark.thorough
def test_a_round_within_a_program_leaves_nothing_of_it_behind():
    task = frl.envs.gymnax_task("CartPole-v1")
    one = frl.fedppo(
        task, num_envs=2, rollout_steps=4, minibatches=2, passes=1, network={"hidden": (4,)}
    )
    state = frl.init(one, num_agents=2)
    jax.jit(lambda own: frl.round(one, own)[0])(state)
    for _ in range(3):
        state, metrics = frl.round(one, state)
    assert np.isfinite(metrics["entropy"])


def test_what_is_remembered_computes_nothing_of_what_it_only_traces():
    """Weights are not drawn where shapes are asked for, and what is kept is no tracer."""
    traced = []

    @remembered()
    def shapes(size):
        return jax.eval_shape(lambda: traced.append(jnp.zeros(size)) or traced[-1])

    @remembered()
    def numbers(size):
        return jnp.arange(size)

    assert shapes(3).shape == (3,)
    assert isinstance(traced[0], jax.core.Tracer)
    assert int(jax.jit(lambda x: x + numbers(4)[-1])(1)) == 4
    assert not isinstance(numbers(4), jax.core.Tracer)
