"""Numbers that fall when a metric has stopped improving, against a loop in Python."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from smallest import environment

import fedjax_rl as frl
from fedjax_rl.algorithms.rate_rules import Kept, kept_after

START, ROUNDS = 1.0, 14
RUN = {"num_agents": [1, 3], "seeds": [6], "num_steps": ROUNDS, "record_every": 1}


def fedpg(rate, **properties):
    """A policy gradient whose objective, which is exact, rises and falls with what is drawn."""
    return frl.fedpg(environment("tabular"), learning_rate=rate, local_steps=1, **properties)


def rates(metric, patience, factor, sign):
    """The value in every round, and after the last one, from the metric after each."""
    best, waited, now = -np.inf, 0, [START]
    for value in sign * np.asarray(metric):
        waited, best = (0, value) if value > best else (waited + 1, best)
        now.append(now[-1] * (factor if waited == patience else 1))
        waited = 0 if waited == patience else waited
    return np.asarray(now)


ALGORITHM = functools.partial(fedpg, frl.on_plateau(START, metric="objective", patience=2))


@functools.cache
def together():
    """The objectives [2, T] of two federations."""
    return frl.sweep(ALGORITHM(), **RUN).objective.values.reshape(2, ROUNDS)


@pytest.mark.thorough
def test_a_rate_falls_when_a_metric_has_not_improved():
    """A run whose rate falls by a schedule, at the times worked out here, is the same run."""
    falls = 0
    for own, count in zip(together(), RUN["num_agents"], strict=True):
        expected = rates(own, 2, 0.5, 1)
        falls += np.sum(np.diff(expected) < 0)
        told = frl.schedule(lambda time, own=expected: jnp.asarray(own)[time])
        same = frl.sweep(fedpg(told), **{**RUN, "num_agents": count}).objective.values.ravel()
        np.testing.assert_allclose(same, own, rtol=1e-5)
    assert 1 <= falls < ROUNDS  # some, and not all that there could be


@pytest.mark.thorough
def test_a_rule_is_followed_by_rounds_one_at_a_time_and_on_two_devices():
    apart = frl.sweep(ALGORITHM(), devices=2, **RUN).objective.values.reshape(2, ROUNDS)
    np.testing.assert_allclose(apart, together(), rtol=1e-5)
    state, found = frl.init(ALGORITHM(), num_agents=3, seed=RUN["seeds"][0]), []
    for _ in range(ROUNDS):
        state, metrics = frl.round(ALGORITHM(), state)
        found.append(metrics["objective"])
    np.testing.assert_allclose(found, together()[1], rtol=1e-5)
    kept = state.state.rules["learning_rate"]
    np.testing.assert_allclose(START * kept.scale[0], rates(found, 2, 0.5, 1)[-1])


@pytest.mark.parametrize("patience", [1, 3])
def test_what_is_lower_may_be_better_and_nan_never_is(patience):
    rule = frl.on_plateau(START, metric="gap", factor=0.8, patience=patience, better="lower")
    kept = Kept(jnp.ones(()), jnp.float32(-jnp.inf), jnp.int32(0))
    values, found = [3.0, 2.0, 2.0, np.nan, 2.5, 1.0, 1.0, 1.0, 1.0, 0.5], [START]
    for value in values:
        kept = kept_after(rule, kept, jnp.float32(value))
        found.append(START * float(kept.scale))
    np.testing.assert_allclose(found, rates(values, patience, 0.8, -1), rtol=1e-6)


def test_what_no_rule_can_follow_is_refused():
    rule = frl.on_plateau(0.1, metric="objective")
    with pytest.raises(ValueError, match="did you mean objective"):
        fedpg(frl.on_plateau(0.1, metric="objectve"))
    with pytest.raises(ValueError, match=r"learning_rate is on_plateau.* with clock"):
        fedpg(rule, clock=frl.Clock("asynchronous"))
    with pytest.raises(ValueError, match="learning_rate at time 0 is -1"):
        fedpg(frl.on_plateau(-1.0, metric="objective"))
    steps = frl.fedtd(environment("mdp"), learning_rate=frl.on_plateau(0.1, metric="error_server"))
    with pytest.raises(ValueError, match="whose time counts local steps"):
        frl.init(steps, num_agents=2)
    for name, value in (("factor", 1.0), ("patience", 0), ("better", "up")):
        with pytest.raises(ValueError, match=f"{name} is "):
            frl.on_plateau(0.1, metric="objective", **{name: value})
