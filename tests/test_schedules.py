"""Every number of every algorithm that can differ between federations, and follow time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smallest import smallest

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.sweeps.cells import Cell
from fedjax_rl.sweeps.sweep import run_cells

# Local steps, uplinks that read properties, servers with and without memory, and on a clock.
SHORT = ("ef-td", "reinforce", "afedpg", "qavg")
# Properties without which others do nothing, and the first values of those that are None or 0.
GIVEN = {
    "fedq": {"sync_period": 2, "visit_exponent": 0.5, "reward_noise": 0.5, "mixing": 0.5},
    "afedpg": {"clock": frl.Clock(), "delay_compensation": 0.5},
    "a3c": {"clock": frl.Clock()},
    "a3c-pg": {"clock": frl.Clock()},
    "reinforce": {"optimizer": "momentum"},
    "fedavgm-pg": {"optimizer": "momentum"},
    "ef-td": {"radius": 0.5},
    "fedsvrpg-m": {"weight_clip": 1.5},
    "fedhapg-m": {},
    "fedapg": {"gradient_clip": 5.0, "actions": "drawn"},
    "fedppo": {"sync_period": 2},
}
ROUNDS = 4


def scheduled(name):
    """The properties that may follow a schedule and their values, (first, then)."""
    algorithm = smallest(name, **GIVEN.get(name, {}))
    found = {}
    for each in algorithm.config.resolved().properties():
        may = each.by in ("agent", "federation") and each.allowed.scheduled is not None
        if may and each.value is not None:
            first = float(each.value) or 0.25
            found[each.name] = (first, first / 2)
    return algorithm, found


def replaced(state, values):
    """A federation with other values of its properties."""
    params = state.params
    own = {
        side: {n: jnp.full_like(x, values[n]) if n in values else x for n, x in entries.items()}
        for side, entries in (("agent", params.agent), ("federation", params.federation))
    }
    return frl.sweeps.stepping.FederationState(
        type(params)(own["agent"], own["federation"], params.shared), state.state
    )


def switched(first, then, at, time):
    """First one value, then another."""
    return jnp.where(time < at, first, then)


@pytest.mark.parametrize(
    "name", [n if n in SHORT else pytest.param(n, marks=pytest.mark.thorough) for n in ALGORITHMS]
)
def test_a_schedule_is_one_value_and_then_another(name):
    """One program with all properties scheduled, and one whose properties are replaced midway."""
    plain, values = scheduled(name)
    assert "learning_rate" in values
    period = plain.config.sync_period if plain.periodic else 1
    half = ROUNDS // 2 * period
    schedules = {
        # An exchange after local steps is of the time after them.
        n: frl.schedule(functools.partial(switched, *pair, half + (n == "mixing")))
        for n, pair in values.items()
    }
    plain = plain.replace(**{n: first for n, (first, _) in values.items()})
    follows = plain.replace(**schedules)
    one, other = (frl.init(x, num_agents=3, seed=5) for x in (plain, follows))
    assert not set(values) & (set(other.params.agent) | set(other.params.federation))
    middle = None
    for turn in range(ROUNDS):
        if turn == ROUNDS // 2:
            middle = one
            one = replaced(one, {n: then for n, (_, then) in values.items()})
        one, told = frl.round(plain, one)
        other, said = frl.round(follows, other)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, other.state.server, one.state.server)
    assert other.costs == one.costs
    for metric in told:
        close(said[metric], told[metric], err_msg=metric)
    # What comes then makes a difference.
    for _ in range(ROUNDS - ROUNDS // 2):
        middle, _ = frl.round(plain, middle)
    ends = (jax.tree.leaves(x.state.server)[0] for x in (middle, one))
    assert np.max(np.abs(np.subtract(*ends))) > 1e-4


@pytest.mark.parametrize(
    "name", [n if n == "ef-td" else pytest.param(n, marks=pytest.mark.thorough) for n in ALGORITHMS]
)
def test_numbers_beside_others_are_those_alone(name):
    """A federation with all numbers changed, in a sweep beside the one that it was changed from."""
    plain, values = scheduled(name)
    cells = [Cell(3, 5, {n: pair[place] for n, pair in values.items()}) for place in (0, 1)]
    length = {"num_steps": ROUNDS, "record_every": ROUNDS}
    swept = run_cells(plain, cells, metrics=tuple(plain.metrics), **length)
    alone = plain.replace(**cells[1].properties)
    alone = run_cells(alone, [Cell(3, 5, {})], metrics=tuple(plain.metrics), **length)
    for metric in plain.metrics:
        there = (x[metric].transpose("cell", ...).values for x in (swept, alone))
        one, other = (np.asarray(x, float) for x in there)
        np.testing.assert_allclose(one[1], other[0], rtol=2e-4, atol=1e-5, err_msg=metric)
