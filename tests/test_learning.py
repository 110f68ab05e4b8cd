"""CartPole is learned with nothing but defaults, by every algorithm that has a policy."""

import numpy as np
import pytest

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

STILL = 1e-12  # a rate at which nothing is learned

# Units of time, fewer than the command line has by default: enough for what is asked below.
PAIRS = {
    **dict.fromkeys(("fedpg", "scaffold-pg", "fedprox-pg", "fast-fedpg", "fedsvrpg-m"), 25),
    **dict.fromkeys(("fedavgm-pg", "fedadam-pg"), 40),
    **dict.fromkeys(("fedhapg-m", "reinforce", "lapg"), 60),
    **{"afedpg": 150, "a3c-pg": 200, "fedppo": 120, "feda2c": 800, "feddqn": 8000},
}
FOURS = {
    **dict.fromkeys(("es", "espc", "iw-es"), 400),
    **dict.fromkeys(("nsr-es", "nsra-es"), 1000),
}
# Of these a mean return of 150 is asked. Novelty is half of what these two look for, and each of
# five sets of parameters has a fifth of the rounds.
LEAST = {**dict.fromkeys({**PAIRS, **FOURS}, 150), "nsr-es": 60, "nsra-es": 60}
DAILY = {"es": 400, "reinforce": 80}


def returns(name, num_agents, num_steps, seeds=(0, 1)):
    """Late mean returns [seed], with the defaults and where nothing is learned."""
    one = ALGORITHMS[name].make(frl.envs.gymnax_task("CartPole-v1"))
    metric = next(n for n in ("return", "episode_return") if n in one.metrics)
    said = one.describe(one.config)
    rates = [n for n in ("learning_rate", "server_learning_rate") if n in said]
    cells = [
        # Both in one program, as rates are traced.
        frl.Cell(num_agents, seed, {n: STILL if still else said[n] for n in rates})
        for still in (False, True)
        for seed in seeds
    ]
    every = num_steps // 20
    made = frl.run_cells(one, cells, num_steps=num_steps, record_every=every, metrics=(metric,))
    last = made[metric].isel(time=slice(-4, None)).mean("time").values
    return np.split(last, 2)


def check(name, num_agents, num_steps):
    learned, still = returns(name, num_agents, num_steps)
    print(f"{name}: {learned.round()} learned, {still.round()} still")
    # The first policies balance the pole for 10 to 40 steps, of which 500 are the most.
    assert (still < 50).all()
    assert learned.mean() > LEAST[name]
    assert (learned > 1.5 * still.max()).all()


@pytest.mark.parametrize("name", DAILY)
def test_cartpole_is_learned_with_defaults(name):
    check(name, 4 if name in FOURS else 2, DAILY[name])


@pytest.mark.thorough
@pytest.mark.parametrize("name", {**PAIRS, **FOURS})
def test_cartpole_is_learned_with_defaults_by_every_policy(name):
    check(name, 4 if name in FOURS else 2, {**PAIRS, **FOURS}[name])


def test_every_algorithm_with_a_policy_is_asked():
    """But those that look for novelty alone, or have their own test of CartPole."""
    task = frl.envs.gymnax_task("CartPole-v1")
    places = {n: one.environments for n, one in ALGORITHMS.items() if "task" in one.environments}
    del places["fedapg"]  # pushes to the left or to the right have no derivative
    with_policies = {
        name
        for name in places
        if {"return", "episode_return"} & {*ALGORITHMS[name].make(task).metrics}
    }
    assert with_policies - {"ns-es", "a3c"} == {*PAIRS, *FOURS}
