"""What `device.py` measures, by worth: what is most wanted of an accelerator comes first."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import harness
import jax
import jax.numpy as jnp

import fedjax_rl as frl
from fedjax_rl import envs
from fedjax_rl.studies.linear_speedup import STUDY, grids, protocols
from fedjax_rl.studies.study import Meter

RESULTS = pathlib.Path(__file__).with_name("results")
# Agent-steps of a federation between two exchanges, where that is not what is looked at.
PERIOD = 100


class Sizes(NamedTuple):
    """How much is measured.

    Attributes:
      wall: seconds that a timed call should take at least.
      repeats: of it.
      agents: of federated Q-learning.
      copies: of games.
      scale: of the steps of their calls.
      many: agents of evolution strategies, and of a clock's federations.
      ppo: agents and environments of each, of the larger federation.
      pictures: agents, environments, steps and minibatches of IMPALA.
      physics: copies of brax, and steps of an episode.
      games: how many of them.
      network: with convolutions.
    """

    wall: float
    repeats: int
    agents: tuple[int, ...]
    copies: tuple[int, ...]
    scale: float
    many: tuple[int, int]
    ppo: tuple[int, int]
    pictures: tuple[int, int, int, int]
    physics: tuple[int, int]
    games: int
    network: str


SIZES = {
    "full": Sizes(
        wall=0.4,
        repeats=3,
        agents=(4096, 65_536, 1_048_576, 4_194_304),
        copies=(64, 1024, 4096, 16_384),
        scale=1.0,
        many=(100_000, 1000),
        ppo=(64, 256),
        pictures=(8, 64, 16, 4),
        physics=(2048, 100),
        games=2,
        network="impala",
    ),
    "smoke": Sizes(
        wall=0.01,
        repeats=2,
        agents=(64, 1024),
        copies=(4,),
        scale=0.01,
        many=(64, 8),
        ppo=(4, 16),
        pictures=(2, 2, 4, 2),
        physics=(4, 4),
        games=1,
        network="impala-small",
    ),
}


class Row(NamedTuple):
    """Something to be measured.

    Attributes:
      part: of the whole, by which rows are chosen.
      name: unique.
      seconds: roughly, on an H100, compiling included; or of a CPU, where little is measured.
      make: measures it; returns numbers by name, `unit` and `median` among them.
      peer: where the same stands for a CPU: file, table, row and case in `results`; None where it
        was not measured.
    """

    part: str
    name: str
    seconds: float
    make: Callable[[], dict]
    peer: tuple[str, str, str, str] | None = None


def rows(scale: str) -> list[Row]:
    """All that there is, by worth.

    Args:
      scale: of `SIZES`.
    """
    own = SIZES[scale]
    games, networks = _games(own), _networks(own)
    made = [*_tables(own), *_grids(scale), *games[:4], *networks[:4], *_physics(own)]
    made += [*networks[4:], *games[4:], *_others(own)]
    if scale == "smoke":
        # Compiling is all that takes time there.
        made = [row._replace(seconds=min(10.0, row.seconds)) for row in made]
    return made


def peer_of(row: Row) -> dict | None:
    """What a core of a CPU reaches in the same: its device and rate, as committed."""
    if row.peer is None:
        return None
    file, table, name, case = row.peer
    with contextlib.suppress(OSError, KeyError, StopIteration):
        content = json.loads((RESULTS / f"{file}-cpu.json").read_text())
        own = next(one for one in content[table] if one["name"] == name)
        found = own["cases"][case] if case else own
        return {"device": content["device"], "unit": own["unit"], "median": found["median"]}
    return None


def timed(run: Callable[[int], object], units: float, first: int, own: Sizes) -> dict:
    """Rate of something that can be done more or less often.

    Args:
      run: does it so many times, and returns arrays.
      units: of work in one of them.
      first: fewest times, of which others are multiples.
      own: says for how long.

    Returns:
      `median`, `low`, `high` in units per second of wall time, and `count` of a call.
    """

    def seconds(count: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(count))
        return time.perf_counter() - start

    seconds(first)
    count, last = first, seconds(first)
    for _ in range(4):
        if last >= own.wall / 2:
            break
        count = first * math.ceil(count / first * min(100, 1.2 * own.wall / max(last, 1e-6)))
        last = seconds(count)
    rates = [count * units / seconds(count) for _ in range(own.repeats)]
    ends = {"median": statistics.median(rates), "low": min(rates), "high": max(rates)}
    return {**ends, "count": count}


def federation(
    algorithm,
    num_agents: int,
    units: float,
    own: Sizes,
    *,
    federations: int = 1,
    first: int = 1,
    precision: str | None = None,
) -> dict:
    """Rounds of federations as a sweep runs them.

    Args:
      algorithm: of all.
      num_agents: of each.
      units: of work of an agent in one unit of the algorithm's time.
      own: sizes.
      federations: side by side.
      first: fewest units of time.
      precision: of products, if not that which the package promises.

    Returns:
      As `timed`, with the seconds it took to compile, bytes of the program and of each of its
      agents, and seconds of a unit of time.
    """
    given = contextlib.nullcontext()
    with given if precision is None else jax.default_matmul_precision(precision):
        everybody, functions, params, state = harness.started(algorithm, num_agents, federations)
        advance = functools.partial(functions.advance, everybody)
        program, compiling = harness.compiled(advance, params, state, jnp.uint32(first))
    agents = num_agents * federations
    found = timed(lambda n: program(params, state, jnp.uint32(n)), agents * units, first, own)
    inside = program.memory_analysis()
    total = inside.argument_size_in_bytes + inside.output_size_in_bytes + inside.temp_size_in_bytes
    return {
        **found,
        "agents": agents,
        "compile_seconds": compiling,
        "bytes": total,
        "bytes_per_agent": total / agents,
        "seconds_per_unit_of_time": agents * units / found["median"],
    }


# Parts --------------------------------------------------------------------------------------------


def _tables(own: Sizes) -> list[Row]:
    """Federated Q-learning, one federation of so many agents."""

    def one(agents: int, period: int) -> dict:
        algorithm = frl.fedq(envs.paper_mdp(), epsilon=1.0, sync_period=period)
        found = federation(algorithm, agents, 1, own, first=max(period, PERIOD))
        return {"unit": "agent-steps per second", **found}

    def row(agents: int, period: int, seconds: float) -> Row:
        peer = ("fedq", "rows", "fedjax_rl", "N=256 K=100" if period > 1 else "N=16 K=1")
        name = f"fedq, {agents:,} agents, K = {period}"
        return Row("fedq", name, seconds, functools.partial(one, agents, period), peer)

    return [*(row(agents, PERIOD, 8) for agents in own.agents), row(own.agents[1], 1, 8)]


def _grids(scale: str) -> list[Row]:
    """The author's grids, cold: everything that a user waits for."""
    size = STUDY.size("paper" if scale == "full" else "smoke", "paper").replace(extra=0)
    if scale == "full":
        size = size.replace(period_trials=3)
    else:
        size = size.replace(rates=(0.5,), trials=1, periods=(20, 500), period_trials=1)

    def one(name: str, cells_of: Callable) -> dict:
        cells, meter = cells_of(size), Meter(None, {name: 1.0})
        start = time.perf_counter()
        protocols.author(cells, meter, name)
        wall = time.perf_counter() - start
        return {
            "unit": "seconds",
            **dict.fromkeys(("median", "low", "high"), wall),
            "runs": len(cells),
            "compile_seconds": meter.compile_seconds,
            "run_seconds": meter.run_seconds,
        }

    parts = {"A": ("grid", grids.grid_cells), "B": ("periods", grids.period_cells)}
    return [
        Row("grids", f"grid {letter} of linear-speedup", 15, functools.partial(one, *part))
        for letter, part in parts.items()
    ]


def _games(own: Sizes) -> list[Row]:
    """Games by themselves, pictures drawn or not; the ends of the numbers of copies first."""
    import procgen_fedjax as games

    def one(game: str, kind: str, copies: int) -> dict:
        row = games.ours(game, kind, copies, own.scale)
        row.run()
        rates = []
        for _ in range(own.repeats):
            steps, _, wall = row.run()
            rates.append(steps / wall)
        ends = {"median": statistics.median(rates), "low": min(rates), "high": max(rates)}
        unit = {"unit": "steps per second", "compile_seconds": row.compile_seconds}
        return {**unit, **ends, "agents": copies}

    order = dict.fromkeys((own.copies[-1], own.copies[0], *own.copies))
    out = []
    for game in games.GAMES[: own.games]:
        for copies in order:
            for kind in games.STEPS:
                name = f"{kind}, {copies} copies"
                make = functools.partial(one, game, kind, copies)
                peer = ("procgen", "rows", name, game)
                out.append(Row("games", f"{game}, {name}", 12, make, peer))
    return out


def _networks(own: Sizes) -> list[Row]:
    """PPO with a small network, and with IMPALA, whose agents learn in turn or together."""
    passes, steps = 4, 128
    task = envs.gymnax_task("CartPole-v1")
    agents, copies = own.ppo

    def small(agents: int, copies: int) -> dict:
        algorithm = frl.fedppo(
            task, num_envs=copies, rollout_steps=steps, passes=passes, minibatches=8
        )
        found = federation(algorithm, agents, copies * steps / passes, own, first=passes)
        return {"unit": "environment steps per second", **found}

    def row(agents: int, copies: int) -> Row:
        name = f"fedppo, MLP on CartPole, {agents} agents of {copies} environments"
        peer = ("ppo", "agents", "16 agents", "256 environments in all")
        return Row("ppo", name, 25, functools.partial(small, agents, copies), peer)

    many, copies_seen, length, minibatches = own.pictures
    game = envs.procgen_task("BigFish", observation="pixels")

    def impala(batching: str, precision: str | None = None) -> dict:
        algorithm = frl.fedppo(
            game,
            network=own.network,
            num_envs=copies_seen,
            rollout_steps=length,
            minibatches=minibatches,
            passes=1,
            batching=batching,
        )
        frames = copies_seen * length
        found = federation(algorithm, many, frames, own, precision=precision)
        return {"unit": "environment steps per second", **found}

    of = f"fedppo, IMPALA on BigFish, {many} agents"
    ways = {
        "together": ("together", None),
        "in turn": ("in turn", None),
        "together, JAX's own precision": ("together", "default"),
        "in turn, JAX's own precision": ("in turn", "default"),
    }
    if own.network != "impala":  # of which no more is to be known than that it runs
        del ways["together, JAX's own precision"], ways["in turn, JAX's own precision"]
    return [
        *(row(*sizes) for sizes in dict.fromkeys([(min(agents, 16), 16), (agents, copies)])),
        *(
            Row("impala", f"{of}, {name}", 45, functools.partial(impala, *way))
            for name, way in ways.items()
        ),
    ]


def _physics(own: Sizes) -> list[Row]:
    """Steps of brax within an algorithm: episodes of one agent, side by side."""
    copies, steps = own.physics

    def one() -> dict:
        task = envs.brax_task("halfcheetah", max_steps=steps)
        algorithm = frl.afedpg(task, episodes_per_step=copies, network=(64, 64))
        found = federation(algorithm, 1, copies * steps, own)
        return {"unit": "environment steps per second", **found}

    name = f"afedpg, halfcheetah of brax, {copies} copies"
    return [Row("brax", name, 90, one, ("clock", "physics", "federated", ""))]


def _others(own: Sizes) -> list[Row]:
    """Many small networks, and federations on a clock."""
    agents, members = own.many
    federations = 16

    def strategies() -> dict:
        algorithm = frl.es(envs.gymnax_task("CartPole-v1"), network=(8, 8))
        return {"unit": "episodes per second", **federation(algorithm, agents, 1, own)}

    def clock() -> dict:
        task = envs.tabular_task(envs.dirichlet_mdp(), max_steps=25)
        timing = frl.Clock("asynchronous", distribution="exponential")
        algorithm = frl.afedpg(task, episodes_per_step=8, clock=timing)
        # A step is of a server, whatever its agents.
        found = federation(algorithm, members, 1 / members, own, federations=federations)
        return {"unit": "steps of servers per second", **found}

    peer = ("clock", "learners", "whole", "1000 agents, 16 federations")
    return [
        Row("es", f"es on CartPole, {agents:,} agents", 25, strategies),
        Row("clock", f"afedpg on a clock, {federations} x {members} agents", 15, clock, peer),
    ]
