"""What is promised of every algorithm."""

import functools
import json

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smallest import environment, kind_of, smallest

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

GOLDEN = json.loads(golden.PATH.read_text())

everybody = pytest.mark.parametrize("name", ALGORITHMS)


@functools.cache
def baseline(name):
    """The short run that everything is held against."""
    return golden.run(name)


@everybody
def test_numbers_do_not_move(name):
    now, before = golden.last(baseline(name)), GOLDEN[name]
    assert now["ledger"] == before["ledger"]
    for metric, value in before["metrics"].items():
        np.testing.assert_allclose(
            now["metrics"][metric], value, rtol=1e-6, atol=1e-6, err_msg=metric
        )


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


# Nothing of these is drawn from what is learned.
EXACT = ("ef-td", "qavg", "pavg")


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
