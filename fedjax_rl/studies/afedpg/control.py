"""MuJoCo's tasks in brax: return against messages of an agent and against simulated time."""

from __future__ import annotations

import functools
from typing import NamedTuple

import xarray as xr

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.studies.afedpg import tables
from fedjax_rl.studies.afedpg.tables import crossed, on_clock
from fedjax_rl.studies.afedpg.timing import median_ratio, two_speeds
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import time_exponent
from fedjax_rl.studies.numbers import along, beside
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import STILL, runs

TASKS = ("swimmer", "hopper", "walker2d", "humanoid")  # of the paper
AGENTS = {f"N = {n}": n for n in (1, 2, 4, 8)}
MOST, TOP = 8, "N = 8"
METRICS = ("return", "episode_steps", "simulated_time", "staleness", "direction_norm")


class Control(NamedTuple):
    """How much is run of brax.

    Attributes:
      names: of the environments.
      steps: of a federation's servers, all messages together.
      trials: of each.
      max_steps: where an episode is cut; None for the usual.
      episodes: of an upload.
      seconds: of AFedPG, of the others, of who waits for everybody, roughly, on two cores.
    """

    names: tuple[str, ...]
    steps: int
    trials: int
    max_steps: int | None
    episodes: int
    seconds: tuple[int, int, int]


PAPER = Control(TASKS, 2000, 10, None, 5, (20_000, 12_000, 8_000))
SHORT = Control(("hopper",), 160, 10, 100, 4, (250, 250, 150))  # a size for two cores


def _stages(name, size):
    """AFedPG with every number of agents; others with the most; who waits for everybody."""
    there = size is not None and name in size.names
    size = size if there else PAPER

    @functools.cache
    def one():
        cut = {} if size.max_steps is None else {"max_steps": size.max_steps}
        return frl.afedpg(
            envs.brax_task(name, **cut),
            episodes_per_step=size.episodes,
            learning_rate=0.05,
            momentum=0.2,
            clock=two_speeds(4),
            network={"hidden": (64, 64), "initializer": "orthogonal"},
            baseline="linear",
            normalize=True,
            discount_weight=False,
            evaluation_episodes=4,
        )

    def others():
        bare = {"momentum": 1.0, "lookahead": False, "normalize_step": False}
        return {
            "no lookahead": one().replace(lookahead=False),
            "A3C-like": one().replace(learning_rate=0.003, **bare),
        }

    most = {TOP: {"num_agents": MOST}}
    settings = {label: {"num_agents": n} for label, n in AGENTS.items()}
    settings["still"] = {"num_agents": MOST, "learning_rate": STILL}
    every = max(1, size.steps // 40 // MOST) * MOST

    def stage(stem, cost, methods, settings, messages=1):
        return runs(
            stem,
            methods,
            {"setting": settings},
            num_steps=size.steps // messages,
            record_every=every // messages,
            trials=size.trials if there else None,
            metrics=METRICS,
            seconds=cost,
        )

    first, second, third = size.seconds
    together = lambda: {"synchronous": one().replace(clock=two_speeds(4, "synchronous"))}
    return [
        stage(name, first, lambda: {"AFedPG": one()}, settings),
        stage(f"{name}-others", second, others, most),
        stage(f"{name}-rounds", third, together, most, messages=MOST),
    ]


@figure("brax", "brax: return against messages and against simulated time")
def brax(size):
    """Half of the agents take four times as long.

    The target is half of the way of one agent's mean return; a return is the mean of three records.
    `quick` has Hopper alone, for few messages, with episodes cut at 100 steps, whose return cannot
    rise beyond about 200: it shows that things run, more than who is better.
    """
    for name in TASKS:
        yield from _task(name, size.brax)


def _task(name, size):
    ours, others, rounds = _stages(name, size)
    every = functools.partial(along, dim="num_agents", settings=AGENTS)
    budget = 0 if size is None else size.steps

    def there(data, results):
        """Whether the mean of three records is half of the way of N = 1."""
        alone = results[ours]["return"].sel({"method": "AFedPG", "setting": "N = 1"}).mean("seed")
        return data["return"].rolling(time=3).mean() >= float(alone[0] + alone[-1]) / 2

    came = crossed(ours, there)["AFedPG"]
    messages = every(crossed(ours, there, "time")["AFedPG"]).then(_of_an_agent)
    ends = messages.then(lambda array: _of_an_agent(xr.full_like(array, budget)))
    later = crossed(rounds, there, also=(ours,))["synchronous"]
    last = ours["return"]["AFedPG"].sel(setting=TOP).late(0.1)
    yield number(
        f"E1 {name}",
        f"{name}: exponent in N of the messages per agent to half of the way of N = 1",
        time_exponent(messages, ends, "num_agents"),
        (-1, -0.6),
        published=-1,
        reference="-1 to -0.6",
    )
    yield effect(
        f"E2 {name}",
        f"{name}, N = {MOST}: simulated time there of synchronous over AFedPG",
        median_ratio(later.sel(setting=TOP), came.sel(setting=TOP)),
        published="AFedPG is faster",
        band=(1, None),
        reference=2.5,
    )
    for id, other, words, published in (
        ("lookahead", "no lookahead", "that without lookahead", "lookahead helps"),
        ("A3C", "A3C-like", "that of A3C-like", "A3C is worse"),
    ):
        yield effect(
            f"E2 {id} {name}",
            f"{name}, N = {MOST}: last return of AFedPG less {words}",
            last - others["return"][other].sel(setting=TOP).late(0.1),
            published=published,
            why="`quick` is too little of Hopper to tell: its returns cannot rise beyond 200.",
        )
    yield control(
        f"E1 null {name}",
        f"{name}, N = {MOST}: share of trials that come there where nothing is learned",
        tables.share_reached(came.sel(setting="still")),
    )
    if size is None:
        return
    # Rounds of everybody are as many messages: the records are the same.

    returns = every(ours["return"]["AFedPG"])

    def at_once(metric):
        own = (stage[metric].sel(setting=TOP) for stage in (ours, others))
        waiting = rounds[metric].sel(setting=TOP)
        return beside(*own, waiting.then(lambda array: array.assign_coords(time=MOST * array.time)))

    yield page(
        f"brax-{name}",
        on_clock(
            returns,
            returns.then(lambda array: _of_an_agent(xr.zeros_like(array, float) + array.time)),
            "num_agents",
            title="AFedPG",
            x="messages of an agent",
            y="return",
            words=lambda n: f"N = {n:g}",
            target=False,
        ),
        on_clock(
            *map(at_once, ("return", "simulated_time")),
            "method",
            title=TOP,
            y="return",
            target=False,
        ),
        title=f"{name}, {size.trials} trials, {size.episodes} episodes a message"
        + (f", cut at {size.max_steps} steps" if size.max_steps else ""),
    )


def _of_an_agent(array):
    return array / array["num_agents"]
