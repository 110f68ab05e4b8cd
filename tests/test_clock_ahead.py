"""Work that is done before its turn: of steps in which nobody comes twice."""

import itertools

import numpy as np
import pytest
import xarray as xr

import fedjax_rl as frl
from fedjax_rl.federation.clock import arrivals, timing
from fedjax_rl.federation.population import population
from fedjax_rl.sweeps.programs import PROGRAMS

MDP = frl.envs.paper_mdp()
TRACE = np.array([[1.0, 3.0, 2.0], [50.0, 1.0, 7.0], [2.0, 2.0, 2.0], [0.5, 90.0, 4.0]])
CLOCKS = {
    "constant": frl.Clock("asynchronous"),
    "exponential": frl.Clock("asynchronous", distribution="exponential"),
    "two_class": frl.Clock("asynchronous", distribution="two_class", slow_factor=7.0),
    # One comes fifty times while the others are at work.
    "uneven": frl.Clock("asynchronous", compute_time=np.array([1.0, 50.0, 50.0, 50.0])),
    "trace": frl.Clock("asynchronous", distribution="trace", compute_time=TRACE),
}
UPLINKS = {
    "none": None,
    "top_k": frl.uplinks.top_k(2),
    "event_triggered": frl.uplinks.event_triggered(0.5),
    "partial": frl.uplinks.partial(0.6),
}


def ran(monkeypatch, workers: int, algorithm, **more) -> xr.Dataset:
    """A run whose steps know the work of so many."""
    monkeypatch.setattr(timing, "_WORKERS", workers)
    PROGRAMS.clear()
    made = frl.sweep(algorithm, metrics=tuple(algorithm.metrics), cache=False, **more)
    PROGRAMS.clear()
    return made


CROWDS = [
    *itertools.product(("constant", "exponential", "two_class"), (2, 3, 7, 20)),
    *itertools.product(("uneven", "trace"), (2, 3, 4)),
]


@pytest.mark.parametrize(("clock", "num_agents"), CROWDS)
def test_every_bit_is_as_if_one_step_came_after_the_other(monkeypatch, clock, num_agents):
    """Over the ends of plans of 64 steps and of records, with fewer agents than are worked on."""
    algorithm = frl.fedq(MDP, sync_period=3, clock=CLOCKS[clock])
    run = {"num_agents": num_agents, "num_steps": 157, "record_every": 13, "seeds": [num_agents]}
    xr.testing.assert_equal(
        ran(monkeypatch, 16, algorithm, **run), ran(monkeypatch, 1, algorithm, **run)
    )


@pytest.mark.parametrize("uplink", UPLINKS)
def test_uplinks_and_the_ledger_know_nothing_of_it(monkeypatch, uplink):
    algorithm = frl.fedq(MDP, sync_period=4, uplink=UPLINKS[uplink], clock=CLOCKS["exponential"])
    run = {"num_agents": 6, "num_steps": 90, "record_every": 9, "seeds": [3]}
    xr.testing.assert_equal(
        ran(monkeypatch, 16, algorithm, **run), ran(monkeypatch, 1, algorithm, **run)
    )


@pytest.mark.parametrize(
    "make",
    [pytest.param(m, marks=pytest.mark.thorough) for m in (frl.afedpg, frl.fedhapg_m)]
    + [frl.fedtd],
    ids=lambda f: f.__name__,
)
def test_what_agents_keep_goes_with_them(monkeypatch, make):
    """Of directions, anchors and tables; sums of episodes in another order."""
    algorithm = make(MDP, clock=CLOCKS["two_class"])
    run = {"num_agents": 5, "num_steps": 40, "record_every": 4, "seeds": [1]}
    one, other = (ran(monkeypatch, workers, algorithm, **run) for workers in (16, 1))
    for name in other.data_vars:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("width", "agents"), [*itertools.product((2, 3, 5), (1, 2, 4))])
def test_how_long_ago_somebody_came(width, agents):
    draws = np.random.default_rng(width).integers(0, agents, (40, 2)).astype(np.int32)
    draws[:, 1] += agents
    found = arrivals._since(draws, width)
    for place, row in enumerate(draws):
        ago = [k for k in range(1, width) if place >= k and (draws[place - k] == row).any()]
        assert found[place] == min(ago, default=width)


def test_how_many_steps_are_worked_on_together():
    def ahead(clock, *sizes):
        return timing.Timing(clock.rules, population(sizes)).ahead

    even, random = CLOCKS["constant"], CLOCKS["exponential"]
    assert [ahead(even, n) for n in (1, 2, 8, 100)] == [1, 2, 8, 16]
    # Of eight who come at random the fourth or fifth is one who was there: sqrt(8 pi / 2) = 3.5.
    assert [ahead(random, n) for n in (1, 2, 8, 100)] == [1, 2, 4, 13]
    assert ahead(CLOCKS["uneven"], 4) == 3
    assert ahead(even, 4, 4) == 1  # two federations are enough for a CPU
    assert ahead(frl.Clock("synchronous"), 4) == 1
    assert ahead(frl.Clock("semi-synchronous", wait_for=2), 4) == 1
    assert ahead(frl.Clock("asynchronous", failure_time=5.0), 4) == 1


@pytest.mark.thorough  # nothing is compiled
def test_who_looks_for_a_mistake_sees_one_agent_after_the_other(monkeypatch):
    algorithm = frl.fedq(MDP, sync_period=1, clock=CLOCKS["constant"])
    run = {"num_agents": 2, "num_steps": 2, "record_every": 2, "seeds": [0]}
    debugged = frl.sweep(algorithm, metrics=tuple(algorithm.metrics), debug=True, **run)
    xr.testing.assert_allclose(debugged, ran(monkeypatch, 16, algorithm, **run), rtol=1e-6)
