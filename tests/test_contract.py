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
from fedjax_rl import streams
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.federation.algorithm import bind
from fedjax_rl.federation.population import population

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
    assert not baseline(name)["diverged"].any()
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


@everybody
def test_no_nan_is_made(name):
    """Nor is any used for what is not there: users look for theirs with this switch."""
    baseline(name)  # compiled
    with jax.debug_nans(True):
        golden.run(name)


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
    single = golden.last(baseline(name))
    with jax.enable_x64(True):
        double = golden.last(golden.run(name))
        jax.eval_shape(lambda: frl.simulate(smallest(name), num_agents=3, num_steps=2).metrics)
    for way in ("messages_up", "floats_up", "bytes_down"):
        assert (double["ledger"][way] > 0) == (single["ledger"][way] > 0)
    for metric, value in double["metrics"].items():
        assert np.all(np.isfinite(value)) or not np.all(np.isfinite(single["metrics"][metric]))


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
