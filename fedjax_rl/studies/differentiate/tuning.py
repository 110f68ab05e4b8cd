"""Showcase (d): local step and server optimizer of policy gradients, by derivatives and by search.

Searches are of equal cost: what a step along the derivative costs, a search may spend on points.
"""

# ruff: noqa: RUF001 -- the labels say η, λ and β as the papers do

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.algorithms import fast_fedpg, fedsvrpg_m
from fedjax_rl.plotting.style import OKABE_ITO
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.differentiate.learning import descend
from fedjax_rl.studies.estimates import mean, together
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.policy_gradients import ENTROPY, exactly
from fedjax_rl.studies.runs import Stage
from fedjax_rl.sweeps.simulate import simulate

AGENTS, LOCAL_STEPS, ROUNDS = 4, 5, 15
COST = 6  # runs that a derivative by all three counts as; it is less
RATE = 0.5  # of Adam
# A grid from which both sides begin: the derivative in its middle.
RATES = tuple(np.geomspace(0.05, 5, 5))
MOMENTA = (0.05, 0.4, 0.7, 0.9, 0.97)
SEARCHES = ("start", "grid", "random", "derivative")
STYLES = {"start": 3, "grid": 1, "random": 2, "derivative": 0}
PROPERTIES = ("local", "server", "momentum")
SMALLEST = 1e-12  # gap, so that its logarithm is finite


def _fast(values) -> dict:
    return {
        "learning_rate": jnp.exp(values["local"]),
        "server_learning_rate": jnp.exp(values["server"]),
        "optimizer": {"name": "momentum", "momentum": jax.nn.sigmoid(values["momentum"])},
    }


def _svrpg(values) -> dict:
    return {
        "learning_rate": jnp.exp(values["local"]),
        "server_learning_rate": jnp.exp(values["server"]),
        # The weight of the newest gradient, where that above is of those before.
        "momentum": jax.nn.sigmoid(-values["momentum"]),
    }


ALGORITHMS = {"Fast-FedPG": (fast_fedpg, _fast), "FedSVRPG-M": (fedsvrpg_m, _svrpg)}


@functools.cache
def _task():
    return envs.tabular_task(envs.dirichlet_mdps(AGENTS))


def families(first: int, count: int):
    """Families of environments, arrays with a leading axis [count], and their J*."""
    made = [envs.dirichlet_mdps(AGENTS, seed=first + seed) for seed in range(count)]
    best = np.array([envs.optimum(one, ENTROPY) for one in made])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *made), jnp.asarray(best)


def log_gap(name: str, values, mdps, best):
    """log10 of J* - J after the last round of an algorithm in one family of environments."""
    make, properties = ALGORITHMS[name]
    task = _task().replace(members=lambda num_agents: mdps, name="drawn")
    algorithm = make(task, **exactly(local_steps=LOCAL_STEPS), **properties(values))
    found = simulate(algorithm, num_agents=AGENTS, num_steps=ROUNDS, record_every=ROUNDS)
    return jnp.log10(jnp.maximum(best - found.metrics["objective"][-1], SMALLEST))


def mean_log_gap(name: str, values, mdps, best):
    """The same as a mean over families, [R]; values [R], families [R, E]."""

    def of(values, mdps, best):
        every = jax.vmap(lambda mdp, best: log_gap(name, values, mdp, best))(mdps, best)
        return jnp.mean(every)

    return jax.vmap(of)(values, mdps, best)


def logit(x):
    """Inverse of the logistic function."""
    return np.log(x) - np.log1p(-np.asarray(x))


def grid() -> np.ndarray:
    """The points of the grid, [125, 3], as `log eta, log lambda, logit`; its middle is the 63rd."""
    every = itertools.product(np.log(RATES), np.log(RATES), logit(MOMENTA))
    return np.array(list(every))


def drawn(seed: int) -> np.ndarray:
    """As many points from the same box, [125, 3]."""
    points = grid()
    words = np.random.default_rng(seed).random(points.shape)
    return points.min(0) + words * (points.max(0) - points.min(0))


def named(points) -> dict[str, np.ndarray]:
    """Points [..., 3] by name."""
    return dict(zip(PROPERTIES, np.moveaxis(points, -1, 0), strict=True))


def steps() -> int:
    """Of Adam, which cost as many runs as the grid has points."""
    return len(grid()) // COST


def search(evaluate: Callable, points) -> tuple[np.ndarray, np.ndarray]:
    """The best of some points for each set.

    Args:
      evaluate: values [R] by name -> [R].
      points: [R, P, 3].

    Returns:
      The points [R, 3], and the least value after so many runs [R, P].
    """
    found = np.stack(
        [np.asarray(evaluate(named(points[:, place]))) for place in range(points.shape[1])], axis=1
    )
    # What has no value is none to choose.
    found = np.where(np.isfinite(found), found, np.inf)
    chosen = np.argmin(found, axis=1)
    return points[np.arange(len(points)), chosen], np.minimum.accumulate(found, axis=1)


def _seconds(function: Callable, *arguments, repeats: int = 10) -> np.ndarray:
    """Of every call, compiled before."""
    jax.block_until_ready(function(*arguments))
    out = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        out.append(time.perf_counter() - start)
    return np.array(out)


def _of_algorithm(name: str, sets: int, learned_from: int, unseen: int, report: Callable) -> dict:
    """Scores on unseen families [search, set], chosen points, courses and the cost."""
    count = sets * (learned_from + unseen)
    mdps, best = families(0, count)

    def part(own, first, each):
        own = own[first * sets : (first + each) * sets]
        return own.reshape(sets, each, *own.shape[1:])

    seen = jax.tree.map(lambda own: part(own, 0, learned_from), (mdps, best))
    others = jax.tree.map(lambda own: part(own, learned_from, unseen), (mdps, best))
    score = jax.jit(functools.partial(mean_log_gap, name))
    on_seen = functools.partial(_swapped, score, seen)

    points = grid()
    start = np.tile(points[len(points) // 2], (sets, 1))
    # The order of a grid decides how soon it finds what it finds.
    orders = [np.random.default_rng(own).permutation(len(points)) for own in range(sets)]
    by_grid, grid_course = search(on_seen, np.stack([points[own] for own in orders]))
    report(1, 4)
    by_chance, chance_course = search(on_seen, np.stack([drawn(own) for own in range(sets)]))
    report(2, 4)
    learned = descend(
        lambda values, seeds: mean_log_gap(name, values, *seen),
        named(start),
        steps=steps(),
        rate=RATE,
        batch=1,
    )
    report(3, 4)
    # As of a search, the best of the points that were visited, [R, I + 1, 3].
    visited = [np.concatenate([learned.path[n], [learned.values[n]]]) for n in PROPERTIES]
    visited = np.stack(visited, axis=-1).swapaxes(0, 1)
    last = on_seen(named(visited[:, -1]))
    course = np.concatenate([learned.losses.T, last[:, None]], axis=1)
    by_slope = visited[np.arange(sets), np.nanargmin(course, axis=1)]
    slopes = jax.jit(jax.grad(lambda values, *own: jnp.sum(mean_log_gap(name, values, *own))))
    cost = _seconds(slopes, named(start), *seen) / _seconds(score, named(start), *seen)
    chosen = np.stack([start, by_grid, by_chance, by_slope])
    scores = np.stack([np.asarray(score(named(own), *others)) for own in chosen])
    report(4, 4)
    return {
        "score": scores,
        "chosen": chosen,
        "searched": np.stack([grid_course, chance_course]),
        "learned": np.fmin.accumulate(course, axis=1),
        "cost": cost,
        "dropped": np.array(sum(learned.dropped.values())),
    }


def _swapped(function: Callable, more: tuple, values):
    return np.asarray(function(values, *more))


def _make(size):
    def make(meter) -> xr.Dataset:
        report = meter.stage("tuned")
        made = []
        with jax.enable_x64(True):
            for place, name in enumerate(ALGORITHMS):

                def part(done, total, place=place):
                    report(place + done / total, len(ALGORITHMS))

                made.append(_of_algorithm(name, *size.tuning, part))
        dims = {
            "score": ("search", "seed"),
            "chosen": ("search", "seed", "property"),
            "searched": ("by", "seed", "run"),
            "learned": ("seed", "step"),
            "cost": ("repeat",),
            "dropped": (),
        }
        data = {
            key: (("algorithm", *own), np.stack([one[key] for one in made]))
            for key, own in dims.items()
        }
        labels = {"algorithm": list(ALGORITHMS), "search": list(SEARCHES), "by": ["grid", "random"]}
        return xr.Dataset(data, labels)

    return make


@figure("tuning", "local step and server optimizer by derivatives, against searches of equal cost")
def tuned(size):
    """Three numbers decide how policy gradients learn: two step sizes, and a momentum.

    For each of several sets of environments they are chosen by the best of a grid, by the best of
    as many random points, and by Adam on the derivative of the gap from the middle of the grid, of
    whose steps count as six runs each. What was chosen is compared in other environments.
    """
    sets, learned_from, unseen = size.tuning
    of = (size.tuning, AGENTS, LOCAL_STEPS, ROUNDS, RATES, MOMENTA, RATE, COST)
    stage = Stage("tuned", _make(size), 120, of)
    score = stage["score"]
    ours = score.sel(search="derivative")
    names = ", ".join(ALGORITHMS)
    several = len(ALGORITHMS)
    for search_, words in (("grid", "the grid"), ("random", "random points")):
        yield effect(
            f"tuned {search_}",
            f"log10 of the gap in unseen environments by {words}, less by derivatives: {names}",
            score.sel(search=search_) - ours,
            band=((0, None),) * several,
        )
    yield control(
        "tuned null",
        f"log10 of the gap by the grid, less that where nothing is learned: {names}",
        score.sel(search="grid") - score.sel(search="start"),
        ((0, None),) * several,
    )
    yield number(
        "tuned cost",
        f"seconds of a derivative by all three in parts of those of a run: {names}",
        together(mean(stage["cost"].then(lambda own: own.rename(repeat="seed")))),
        ((1, COST),) * several,
    )
    yield page(
        "tuning",
        *(
            panel(
                functools.partial(_course, name=name), stage, title=f"{name}, while it is searched"
            )
            for name in ALGORITHMS
        ),
        panel(_unseen, stage, title="in unseen environments"),
        title=f"N = {AGENTS}, H = {LOCAL_STEPS}, {ROUNDS} rounds, exact gradients; {sets} sets of "
        f"{learned_from} families, {unseen} unseen",
        height=3.0,
    )


def _course(axis, data, name):
    own = data.sel(algorithm=name)
    for by in ("grid", "random"):
        course = own["searched"].sel(by=by).mean("seed").values
        axis.plot(1 + np.arange(len(course)), 10**course, color=OKABE_ITO[STYLES[by]], label=by)
    course = own["learned"].mean("seed").values
    spent = 1 + COST * np.arange(len(course))
    colour = OKABE_ITO[STYLES["derivative"]]
    axis.plot(spent, 10**course, "o-", color=colour, ms=3, label="derivative")
    axis.set(yscale="log", xlabel="runs that were spent", ylabel="gap J* − J, geometric mean")


def _unseen(axis, data):
    width = 0.15
    for place, search_ in enumerate(SEARCHES):
        own = data["score"].sel(search=search_)
        middle = own.mean("seed").values
        bar = 1.96 * own.std("seed").values / own.sizes["seed"] ** 0.5
        at = np.arange(len(middle)) + width * (place - 1.5)
        low, high = 10 ** (middle - bar), 10 ** (middle + bar)
        ends = [10**middle - low, high - 10**middle]
        colour = OKABE_ITO[STYLES[search_]]
        axis.errorbar(at, 10**middle, ends, fmt="o", color=colour, label=search_)
    axis.set_xticks(range(data.sizes["algorithm"]), data["algorithm"].values)
    axis.set(yscale="log", xlim=(-0.6, data.sizes["algorithm"] - 0.4))
