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
from fedjax_rl.studies.gains import gains
from fedjax_rl.studies.numbers import along, beside
from fedjax_rl.studies.pictures import page
from fedjax_rl.studies.runs import STILL
from fedjax_rl.studies.tuned import tuned

TASKS = ("swimmer", "hopper", "walker2d", "humanoid")  # of the paper
AGENTS = {f"N = {n}": n for n in (1, 2, 4, 8)}
MOST, TOP = 8, "N = 8"
METRICS = ("return", "episode_steps", "simulated_time", "staleness", "direction_norm")
STEPS = (0.01, 0.03, 0.1)  # Euclidean, of a server
BARE = (0.0003, 0.001, 0.003)  # of one that does not divide by the norm, which is some 30
LAST = 0.25  # of the records
FEW = "Five runs, as one takes minutes."


class Control(NamedTuple):
    """How much is run of an environment of brax.

    Attributes:
      steps: of a federation's servers, all messages together.
      tries: of those that choose a step, which have two trials each.
      trials: of each.
      max_steps: where an episode is cut; None for the usual.
      episodes: of an upload.
      seconds: of AFedPG, of the others, of who waits for everybody, roughly, on two cores.
      why: what more than the number of runs leaves claims open.
    """

    steps: int
    tries: int
    trials: int
    max_steps: int | None
    episodes: int
    seconds: tuple[int, int, int]
    why: str = ""


AT_ONCE = """The first policy gets 1, and 24 messages later, at the first record, eight agents are
at 25 of the 34 that they come to, and one is at 28, more than the 27 that it ends at, as some runs
fall back: half of what is left of the way is little beside the noise."""
NO_WALK = """A step on its feet is worth 5. In the 8,000 episodes of a run, 0.8 million steps, the
body learns to fall after 105 to 116 steps instead of 83, not to walk."""
PAPER = {
    "swimmer": Control(1000, 200, 5, None, 8, (4_000, 2_000, 1_000), AT_ONCE),
    "hopper": Control(1000, 200, 5, None, 8, (1_000, 600, 400)),
    "walker2d": Control(1000, 200, 5, None, 8, (2_000, 1_000, 600)),
    "humanoid": Control(1000, 200, 5, None, 8, (4_000, 2_000, 1_000), NO_WALK),
}
SHORT = {"hopper": Control(160, 40, 5, 100, 4, (250, 250, 150))}  # a size for two cores


def _stages(name, size):
    """AFedPG with every number of agents; others with the most; who waits for everybody."""
    there = name in (size or {})
    size = size[name] if there else PAPER[name]

    @functools.cache
    def one():
        cut = {} if size.max_steps is None else {"max_steps": size.max_steps}
        return frl.afedpg(
            envs.brax_task(name, **cut),
            episodes_per_step=size.episodes,
            momentum=0.2,
            clock=two_speeds(4),
            network={"hidden": (64, 64), "initializer": "orthogonal"},
            baseline="linear",
            observations="shared",
            normalize=True,
            discount_weight=False,
            evaluation_episodes=4,
        )

    def bare():
        own = {"momentum": 1.0, "lookahead": False, "normalize_step": False}
        return {"A3C-like": one().replace(**own)}

    most = {TOP: {"num_agents": MOST}}
    settings = {label: {"num_agents": n} for label, n in AGENTS.items()}
    settings["still"] = {"num_agents": MOST, "learning_rate": STILL}
    every = max(1, size.steps // 40 // MOST) * MOST

    def stage(stem, cost, methods, settings, steps=STEPS, messages=1):
        return tuned(
            stem,
            methods,
            {step: {"learning_rate": step} for step in steps},
            {"setting": settings},
            num_steps=size.steps // messages,
            record_every=every // messages,
            trials=size.trials if there else None,
            choosing={"num_steps": size.tries // messages, "trials": 2, "num_agents": MOST},
            metrics=METRICS,
            seconds=cost,
        )

    first, second, third = size.seconds
    waiting = lambda: {"synchronous": one().replace(clock=two_speeds(4, "synchronous"))}
    return [
        stage(name, first, lambda: {"AFedPG": one()}, settings),
        stage(
            f"{name}-others", second, lambda: {"no lookahead": one().replace(lookahead=False)}, most
        ),
        stage(f"{name}-bare", second, bare, most, BARE),
        stage(f"{name}-rounds", third, waiting, most, messages=MOST),
    ]


def _figure(name):
    """Return against messages and against simulated time in an environment of brax."""

    def of(size):
        yield from _task(name, size.brax)

    of.__doc__ = """Half of the agents take four times as long.

    The target is half of the way of one agent's mean return, from the first record to the last; a
    return is the mean of three records.
    The step of each method is the best of three, on two seeds that are not judged.
    """
    return figure(name, "return against messages and against simulated time")(of)


FIGURES = tuple(map(_figure, TASKS))


def _task(name, size):
    stages = ours, others, bare, rounds = _stages(name, size)
    there, size = ours.there, (size or PAPER).get(name, PAPER[name])
    every = functools.partial(along, dim="num_agents", settings=AGENTS)
    why = " ".join(f"{FEW} {size.why}".split())

    def reached(data, results):
        """Whether the mean of three records is half of the way of N = 1."""
        alone = results[ours]["return"].sel({"method": "AFedPG", "setting": "N = 1"}).mean("seed")
        return data["return"].rolling(time=3).mean() >= float(alone[0] + alone[-1]) / 2

    came = crossed(ours, reached)["AFedPG"]
    messages = every(crossed(ours, reached, "time")["AFedPG"]).then(_of_an_agent)
    ends = messages.then(lambda array: _of_an_agent(xr.full_like(array, size.steps)))
    later = crossed(rounds, reached, also=(ours,))["synchronous"]
    value = ours["return"]["AFedPG"]
    late, first = value.late(LAST), value.sel(setting="still").late(1.0)
    last = late.sel(setting=TOP)
    yield from gains(
        (f"E0 {name}", f"E0 null {name}"),
        "N = 1, N = 8",
        [late.sel(setting=own) for own in ("N = 1", TOP)],
        (first, late.sel(setting="still")),
        of=f"{name}: ",
        why=why,
    )
    yield number(
        f"E1 {name}",
        f"{name}: exponent in N of the messages per agent to half of the way of N = 1",
        time_exponent(messages, ends, "num_agents"),
        (-1, -0.6),
        published=-1,
        reference="-1 to -0.6",
        why=why,
    )
    yield effect(
        f"E2 {name}",
        f"{name}, N = {MOST}: simulated time there of synchronous over AFedPG",
        median_ratio(later.sel(setting=TOP), came.sel(setting=TOP)),
        published="AFedPG is faster",
        band=(1, None),
        reference=2.5,
        why=why,
    )
    for id, stage, other, words, published in (
        ("lookahead", others, "no lookahead", "that without lookahead", "lookahead helps"),
        ("A3C", bare, "A3C-like", "that of A3C-like", "A3C is worse"),
    ):
        yield effect(
            f"E2 {id} {name}",
            f"{name}, N = {MOST}: late return of AFedPG less {words}",
            last - stage["return"][other].sel(setting=TOP).late(LAST),
            published=published,
            why=why,
        )
    yield control(
        f"E1 null {name}",
        f"{name}, N = {MOST}: share of trials that come there where nothing is learned",
        tables.share_reached(came.sel(setting="still")),
        why=why,
    )
    if not there:
        return
    # Rounds of everybody are as many messages: the records are the same.

    returns = every(ours["return"]["AFedPG"])

    def at_once(metric):
        own = (stage[metric].sel(setting=TOP) for stage in stages[:-1])
        waiting = rounds[metric].sel(setting=TOP)
        return beside(*own, waiting.then(lambda array: array.assign_coords(time=MOST * array.time)))

    yield page(
        name,
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
