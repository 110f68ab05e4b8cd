"""Holds the games against what Procgen itself does: the same levels, the same statistics.

The reference numbers are measurements of Procgen 0.10.7, taken for this package; policies are
blind, so that a game is judged without learning.
"""

import functools
import importlib.resources
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_rl.envs.procgen import bigfish, coinrun, fish, generator, levels
from fedjax_rl.envs.procgen.play import Episodes, play
from fedjax_rl.names import check_known

# Episodes of a run at most; None is as many as the reference has.
SCALES = {"smoke": 256, "quick": 2048, "paper": None}
_COPIES = 256
_DEVIATIONS = 3.5  # combined standard errors between two means
_SURVIVAL, _ENOUGH = 0.02, 20_000  # largest difference of fractions, at so many episodes
_LEAST_P = 0.001
_TRACE = 1e-3  # largest difference along a trace
_TRACE_STEPS = 300
_EQUAL = 0.99  # least share of levels with equal length and return

# Actions of the traces, from the step (0 at the first action) and the level.
_TRACE_ACTIONS: dict[str, Callable[[int, int], int]] = {
    "act": lambda t, seed: (5 * t * t + 3 * t + 7 * seed + 1) % 15,
    "held": lambda t, seed: (4 * (t // 6) ** 2 + 3 * (t // 6) + 5 * seed + 1) % 9,
    "cr_act": lambda t, seed: (8, 7, 7, 8, 7, 8, 7, 1)[((t // 4) * (seed + 3) + 1) % 8],
}


class _Game(NamedTuple):
    """What differs between the games here."""

    dynamics: Any
    make: Callable[..., Any]
    watch: Callable[[Any], tuple]


_GAMES = {
    "BigFish": _Game(
        bigfish.BigFishDynamics(),
        bigfish.bigfish_params,
        lambda s: (s.x, s.y, s.vx, s.vy, s.radius, jnp.sum(s.shoal.born > 0, dtype=jnp.int32)),
    ),
    "CoinRun": _Game(
        coinrun.CoinRunDynamics(),
        coinrun.coinrun_params,
        lambda s: (s.x, s.y, s.vx, s.vy),
    ),
}


def load_reference(path: str | os.PathLike | None = None) -> dict[str, Any]:
    """Reads the reference numbers; None is the copy in this package."""
    if path is None:
        place = importlib.resources.files("fedjax_rl.envs.procgen")
        return json.loads(place.joinpath("data", "reference.json").read_text())
    return json.loads(pathlib.Path(path).read_text())


def validate(
    game: str = "BigFish",
    scale: str = "quick",
    reference: str | os.PathLike | None = None,
    seed: int = 0,
    progress: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Runs every gate of a game.

    Exact gates use the classic source: levels as they start, traces of single episodes, and length
    and return of 200 levels under fixed policies. Statistical gates compare runs of many episodes
    (means of length and return, survival, counts of returns), and what levels are made of.

    Args:
      game: "BigFish" or "CoinRun".
      scale: "smoke", "quick" or "paper": at most 256, 2048, or the reference's episodes of a run.
      reference: path of the numbers; None is the copy in this package.
      seed: of the statistical gates.
      progress: called with every row as soon as it is there.

    Returns:
      Rows of ``gate``, ``measured``, ``expected``, ``band`` (low, high) and ``verdict`` ("pass"
      or "fail").

    Raises:
      ValueError: If the game or the scale is unknown.
    """
    check_known(game, _GAMES, "game")
    check_known(scale, SCALES, "scale")
    numbers = load_reference(reference)
    rows = []
    for gate, measured, expected, band in _gates(game, scale, numbers, seed):
        low, high = (float(end) for end in band)
        rows.append(
            {
                "gate": gate,
                "measured": float(measured),
                "expected": float(expected),
                "band": (low, high),
                "verdict": "pass" if low <= measured <= high else "fail",
            }
        )
        progress(rows[-1])
    return rows


Gate = tuple[str, float, float, tuple[float, float]]


def _gates(game: str, scale: str, numbers: dict, seed: int) -> Iterator[Gate]:
    golden, name = numbers["golden"], game.lower()
    facts = _bigfish_levels if game == "BigFish" else _coinrun_levels
    yield from facts(golden[name])
    for key, traces in golden["traces"].items():
        if key.startswith(name):
            yield f"{key}: equal traces", trace_share(game, key, traces), 1, (1, 1)
    yield from _moments(game, scale, golden[name], seed)
    for run in numbers["runs"]:
        if run["game"] == name:
            label = f"{run['mode']}/{run['num_levels'] or 'unlimited'}/{run['policy']}"
            runs = _per_level if run.get("per_level") else _statistics
            yield from runs(game, run, label, scale, seed)


# Exact gates -------------------------------------------------------------------------------------


def _bigfish_levels(golden: dict) -> Iterator[Gate]:
    rows = np.array(golden["levels_0_199_easy"]["rows"])
    table = fish.classic_table(np.arange(len(rows), dtype=np.uint32))
    own = np.stack([table.background, table.offset, table.x], axis=1)
    yield "levels: equal starts", np.mean(np.all(np.abs(own - rows) < 1e-5, axis=1)), 1, (1, 1)


def _coinrun_levels(golden: dict) -> Iterator[Gate]:
    for mode in levels.MODES:
        rows = golden[f"levels_0_199_{mode}"]["rows"]
        same = [
            _facts(generator.make_level(n, mode, "classic")) == row for n, row in enumerate(rows)
        ]
        yield f"{mode}/levels: equal grids and counts", np.mean(same), 1, (1, 1)


def _facts(level: generator.Level) -> list[int]:
    """Coin, counts, lava and solid cells, and the CRC-32 of the grid."""
    lava = np.isin(level.grid, (generator.LAVA_INTERIOR, generator.LAVA_SURFACE)).sum()
    solid = np.isin(level.grid, (generator.INTERIOR, generator.SURFACE)).sum()
    counts = len(level.saws), len(level.enemies), len(level.crates), int(lava), int(solid)
    return [*level.coin, *counts, zlib.crc32(level.grid.tobytes())]


def trace_share(game: str, key: str, traces: list[dict]) -> float:
    """The share of traces that are followed to the end, with the classic source.

    Args:
      game: "BigFish" or "CoinRun".
      key: game, mode and actions of the traces, as "bigfish/easy/act".
      traces: of the reference.
    """
    _, mode, rule = key.split("/")
    own = _GAMES[game]
    seeds = [trace["seed"] for trace in traces]
    params = own.make(mode, max(seeds) + 1, 0, "classic")
    actions = [[_TRACE_ACTIONS[rule](t, seed) for seed in seeds] for t in range(_TRACE_STEPS)]
    followed = _follow(own.dynamics, own.watch, params, jnp.array(seeds), jnp.array(actions))
    states, gains, ends, complete = (np.asarray(part) for part in followed)
    right = 0
    for n, trace in enumerate(traces):
        over = int(np.argmax(ends[:, n])) + 1 if ends[:, n].any() else None
        if trace["end"] is None:
            same = over is None
        else:
            end = (over, gains[(over or 0) - 1, n], complete[(over or 0) - 1, n])
            same = np.array_equal(np.array(end, float), np.array(trace["end"], float))
        rows = np.reshape(np.array(trace["rows"], float), (-1, states.shape[-1] + 2))
        at = rows[:, 0].astype(int) - 1
        seen = np.concatenate([states[at, n], gains[at, n, None]], axis=1)
        right += bool(same and np.all(np.abs(seen - rows[:, 1:]) < _TRACE))
    return right / len(traces)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _follow(dynamics, watch, params, seeds, actions):
    """States [T, n, c], return so far [T, n], ends and completions, of given actions [T, n]."""

    def step(carry, action):
        state, gain, alive = carry
        state, reward, ends, _, info = jax.vmap(dynamics.advance, in_axes=(0, 0, None))(
            state, action, params
        )
        gain = gain + jnp.where(alive, reward, 0)
        seen = [part.astype(jnp.float32) for part in jax.vmap(watch)(state)]
        seen = jnp.stack(seen, axis=-1)
        return (state, gain, alive & ~ends), (seen, gain, ends, info["level_complete"])

    state = jax.vmap(dynamics.begin, in_axes=(0, None))(seeds.astype(jnp.uint32), params)
    alive, gain = jnp.ones(seeds.shape, bool), jnp.zeros(seeds.shape, jnp.float32)
    return jax.lax.scan(step, (state, gain, alive), actions)[1]


def _per_level(game: str, run: dict, label: str, scale: str, seed: int) -> Iterator[Gate]:
    own, wanted = _GAMES[game], np.array(run["per_level"])
    params = own.make(run["mode"], len(wanted), run["start_level"], "classic")
    order = np.arange(len(wanted))[:, None]
    seen = play(own.dynamics, params, run["policy"], len(wanted), 1, levels=order)
    same = (seen.length[:, 0] == wanted[:, 0]) & (np.abs(seen.gain[:, 0] - wanted[:, 1]) < 1e-4)
    yield f"{label}: equal levels", same.mean(), 1, (_EQUAL, 1)


# Statistical gates -------------------------------------------------------------------------------


def _statistics(game: str, run: dict, label: str, scale: str, seed: int) -> Iterator[Gate]:
    seen = _play_run(game, run, scale, seed)
    size = seen.length.size
    for name, values in (("length", seen.length), ("return", seen.gain)):
        wanted = run[f"episode_{name}"]
        yield f"{label}: mean {name}", values.mean(), wanted["mean"], _around(values, wanted)

    times = np.array([int(t) for t in run["survival"]])
    own = (seen.length.ravel()[None] > times[:, None]).mean(1)
    apart = np.abs(own - np.array(list(run["survival"].values()))).max()
    # Fewer episodes scatter more.
    widest = _SURVIVAL * max(1.0, (_ENOUGH / min(size, run["episodes"])) ** 0.5)
    yield f"{label}: survival", apart, 0, (0, widest)
    counts = {float(gain): count for gain, count in run["return_counts"].items()}
    yield f"{label}: p of returns", _likeness(seen.gain, counts), 1, (_LEAST_P, 1)


def _play_run(game: str, run: dict, scale: str, seed: int) -> Episodes:
    own, most = _GAMES[game], SCALES[scale] or run["episodes"]
    quota = max(1, min(run["episodes"], most) // _COPIES)
    levels_of_run, order = run["num_levels"], None
    # A finite set has to be the original's.
    source = "classic" if levels_of_run else "native"
    params = own.make(run["mode"], levels_of_run, 0, source, _COPIES * quota)
    if game == "CoinRun" and not levels_of_run:
        order = np.arange(_COPIES * quota).reshape(_COPIES, quota)
    return play(own.dynamics, params, run["policy"], _COPIES, quota, seed, order)


def _around(values: np.ndarray, wanted: dict) -> tuple[float, float]:
    """The band of a mean, from both standard errors."""
    error = np.hypot(values.std(ddof=1) / values.size**0.5, wanted["se"])
    return wanted["mean"] - _DEVIATIONS * error, wanted["mean"] + _DEVIATIONS * error


def _likeness(gains: np.ndarray, counts: dict[float, int]) -> float:
    """The p-value that two samples of returns have one distribution, by chi-square."""
    import scipy.stats  # takes long to import, and only this needs it

    values, own = np.unique(gains, return_counts=True)
    every = sorted({*counts, *values.tolist()})
    table = np.zeros((2, len(every)))
    table[0] = [counts.get(value, 0) for value in every]
    table[1, np.searchsorted(every, values)] = own
    # Rare returns are counted together, from the largest down, until each cell expects five.
    share = table.sum(1).min() / table.sum()
    cells, rest = [], np.zeros(2)
    for column in table.T[::-1]:
        rest = rest + column
        if rest.sum() * share >= 5:
            cells.append(rest)
            rest = np.zeros(2)
    if cells:
        cells[-1] = cells[-1] + rest
    if len(cells) < 2:
        return 1.0
    return float(scipy.stats.chi2_contingency(np.array(cells).T).pvalue)


def _moments(game: str, scale: str, golden: dict, seed: int) -> Iterator[Gate]:
    """What the native source makes: births of fish, shapes of levels."""
    if game == "CoinRun":
        names = ("goal_x", "goal_y", "saws", "enemies", "crates", "lava_cells", "solid_cells")
        first = 10**6 * (seed + 1)
        count = SCALES[scale] or 3072
        for mode in levels.MODES:
            made = [_facts(generator.make_level(first + n, mode, "native")) for n in range(count)]
            for name, values in zip(names, np.array(made).T, strict=False):
                wanted = golden[f"level_distribution_{mode}"][name]
                wanted = wanted | {"se": wanted["std"] / wanted["n"] ** 0.5}
                yield (
                    f"{mode}/levels: mean {name}",
                    values.mean(),
                    wanted["mean"],
                    _around(values, wanted),
                )
        return

    # Here the law itself is known: 1.75 u^1.4 + 0.25, and y uniform below 20 - 2 r.
    count = {"smoke": 2**18, "quick": 2**20, "paper": 2**23}[scale]
    born, radius, y, height = (np.asarray(part) for part in _births(count, jnp.uint32(seed)))
    high = y[born] + height[born] > 18
    for name, values, wanted in (
        ("rate", born, 0.1),
        ("mean half width", radius[born], 1.75 / 2.4 + 0.25),
        ("share wider than 1", radius[born] > 1, 1 - (0.75 / 1.75) ** (1 / 1.4)),
        ("share above 18", high, 0.0399),
    ):
        values = values.astype(np.float64)
        error = _DEVIATIONS * values.std() / values.size**0.5
        yield f"births: {name}", values.mean(), wanted, (wanted - error, wanted + error)


def _births(count: int, seed):
    """Births of 4096 levels, as many steps of each as it takes."""
    seeds = jnp.arange(4096, dtype=jnp.uint32) + seed * jnp.uint32(4096)
    clocks = jnp.arange(1, count // 4096 + 1, dtype=jnp.int32)
    each = jax.jit(jax.vmap(jax.vmap(fish.native_birth, (None, 0)), (0, None)))
    _, birth = each(seeds, clocks)
    height = birth.radius / jnp.array(fish.ASPECTS, jnp.float32)[birth.species]
    return birth.born, birth.radius, birth.y, height
