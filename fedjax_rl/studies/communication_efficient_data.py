"""The runs behind the study `communication-efficient`: who learns what, how often, how long.

Gunn, *Communication Efficient Distributed Reinforcement Learning* (2023). The thesis states the
number of agents, episodes and trials of every figure and the networks and optimisers of its
evolution strategies; whatever else is needed was fixed once, by scans, and is said in
`VALUE_BASED` and `GRID_ES`. All variants of a figure run with the same seeds, so that they see the
same first states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from fedjax_rl import analysis
from fedjax_rl.algorithms import davia, dql, ebcdql, es, espc
from fedjax_rl.envs import Task, brax_task, frozen_lake, gymnax_task, simple_grid, windy_grid
from fedjax_rl.federation import uplinks
from fedjax_rl.federation.algorithm import Algorithm
from fedjax_rl.studies import variant_runs
from fedjax_rl.studies.stage_runs import Stage
from fedjax_rl.studies.study import Meter, Scale, scales
from fedjax_rl.studies.variant_runs import Variant

METRICS = ("reward", "frequency", "size", "non_finite")

# Evolution strategies on the grids; the thesis states the units and "momentum".
GRID_ES = {"network": (4, 4), "learning_rate": 0.01, "sigma": 0.3, "l2": 0.0}
GRID_ES |= {"optimizer": "momentum"}
# As stated in the thesis.
CARTPOLE_ES = {"network": (8, 8), "learning_rate": 0.01, "sigma": 0.05, "l2": 0.05}
ANT_ES = {"network": (64, 64), "learning_rate": 0.005, "sigma": 0.02, "l2": 0.05}
# Setting A: what is left open, the other way.
SETTING_A = {"network.initializer": "uniform", "policy": "argmax"}

TARGETS_M = (5, 10, 15, 30, 45)
WINDOWS_K = (3, 10, 30)
OFFSET = 500.0


class Ant(NamedTuple):
    """What of Ant is run.

    Attributes:
      trials: of Figs 4.6, 4.9 and 4.11.
      episodes: of the same.
      max_steps: where an episode is cut.
    """

    trials: tuple[int, int, int] = (3, 6, 5)
    episodes: tuple[int, int, int] = (200, 200, 300)
    max_steps: int = 1000


SCALES = scales(
    grid_trials=(10, 50, 100),  # of Figs 3.4 and 3.5
    grid_es_trials=(5, 15, 30),  # of evolution strategies there
    episodes=(200, 1000, 1000),  # of the grids
    windy_trials=(2, 5, 5),  # of Figs 4.2 and 4.3
    cartpole_trials=(6, 30, 60),  # of Fig. 4.5, setting S
    setting_trials=(4, 20, 40),  # of Figs 4.8 and 4.10, the offset and the Pareto front
    setting_a_trials=(4, 100, 200),  # of setting A, where methods differ by less than trials do
    cartpole_episodes=(60, 200, 200),
    table=(False, True, True),  # whether the control experiments of Fig. 4.5 are run, too
    ant=(None, None, Ant()),  # None, or what of Ant is run
    samples=(1000, 4000, 8000),  # episodes of the model of signal to noise, per point
)
# The Ant of the preset `reduced`: a size for two cores.
REDUCED_ANT = Ant(trials=(8, 2, 2), episodes=(80, 20, 20), max_steps=150)


def run(
    variants: Sequence[Variant], episodes: int, meter: Meter, stage: str, **options
) -> xr.Dataset:
    """Runs variants, every episode recorded; see `variant_runs.run`."""
    return variant_runs.run(variants, episodes, meter, stage, metrics=METRICS, **options)


def line(runs: xr.Dataset, label: str, name: str = "reward") -> np.ndarray:
    """The trials of one variant, float64 [L, E]."""
    return variant_runs.line(runs, label, name)


def trial_means(runs: xr.Dataset, label: str, last: int, name: str = "reward") -> np.ndarray:
    """Mean over the last episodes of every trial, [L]."""
    return line(runs, label, name)[:, -last:].mean(axis=1)


def _grid(
    task: Task, scale: Scale, event: Mapping | None = None, price: Mapping | None = None
) -> dict[str, Algorithm]:
    return {
        "dql": dql(task),
        "ebcdql": ebcdql(task, **(event or {})),
        "davia": davia(task, horizon=scale.episodes, **(price or {})),
        "es": espc(task, **GRID_ES),
    }


def _value_based(made: Mapping[str, Algorithm], n: int, trials: int) -> list[Variant]:
    """The methods that learn values, as `_grid` made them."""
    return [Variant(name, made[name.lower()], n, {}, trials) for name in ("DQL", "EBCDQL", "DAVIA")]


def _es_variants(algorithm, n: int, trials: int, target: int | None = None) -> list[Variant]:
    """ES and ESPC as the thesis has them, centred, and with a baseline of their own."""
    everybody = {"target_senders": n}
    out = [
        Variant("ES", algorithm, n, everybody, trials),
        Variant("ES centred", algorithm, n, {**everybody, "shaping": "center"}, trials),
    ]
    if target is not None:
        some = {"target_senders": target}
        out.insert(1, Variant("ESPC", algorithm, n, some, trials))
        out.append(
            Variant("ESPC own baseline", algorithm, n, {**some, "baseline": "own_window"}, trials)
        )
    return out


def simple(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 3.4: Simple Grid, n = 5."""
    made, trials = _grid(simple_grid(), scale), scale.grid_trials
    variants = _value_based(made, 5, trials)
    variants += _es_variants(made["es"], 5, scale.grid_es_trials)
    return run(variants, scale.episodes, meter, stage)


def lake(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 3.5: Frozen Lake 5x5, n = 5."""
    made, trials = _grid(frozen_lake(), scale), scale.grid_trials
    variants = [
        Variant("DQL", made["dql"], 5, {}, trials),
        Variant("EBCDQL 0.8", made["ebcdql"], 5, {"threshold": 0.8}, trials),
        Variant("EBCDQL 0.05", made["ebcdql"], 5, {"threshold": 0.05}, trials),
        Variant("DAVIA", made["davia"], 5, {}, trials),
        *_es_variants(made["es"], 5, trials)[:1],
        Variant("DQL first index", dql(frozen_lake(), ties="first"), 5, {}, trials),
    ]
    return run(variants, scale.episodes, meter, stage)


def windy(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.2: Windy Grid, n = 30."""
    task, trials = windy_grid(), scale.windy_trials
    made = _grid(task, scale, event={"threshold": 0.1, "factor": 0.9}, price={"price": 0.05})
    variants = _value_based(made, 30, trials) + _es_variants(made["es"], 30, trials, 15)
    return run(variants, scale.episodes, meter, stage)


def lake30(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.3: Frozen Lake 5x5, n = 30."""
    task, trials = frozen_lake(), scale.windy_trials
    made = _grid(task, scale, event={"threshold": 0.05})
    variants = _value_based(made, 30, trials) + _es_variants(made["es"], 30, trials, 15)[:2]
    return run(variants, scale.episodes, meter, stage)


def literal_deviation(window, count, utility):
    """Where a utility stands if one divides by the variance, as the thesis prints it."""
    import jax

    mean, deviation = uplinks.window_moments(window, count)
    return jax.scipy.stats.norm.cdf((utility - mean) / deviation**2)


_ALL, _HALF = {"target_senders": 50}, {"target_senders": 25}
_CENTRED, _BASELINE = {"shaping": "center"}, {"baseline": "own_window"}
# Lines on CartPole and Ant: label -> number of agents and properties.
FIFTY = {
    "ES n=25": (25, _HALF),
    "ES n=50": (50, _ALL),
    "ESPC n=50": (50, _HALF),
    "ES n=25 centred": (25, {**_HALF, **_CENTRED}),
    "ES n=50 centred": (50, {**_ALL, **_CENTRED}),
    "ES n=50 own baseline": (50, {**_ALL, **_BASELINE}),
    "ESPC own baseline": (50, {**_HALF, **_BASELINE}),
}
# The controls of the explanation.
CONTROLS = {
    "ES n=50 z-scored": (50, {**_ALL, "shaping": "zscore"}),
    "ES n=50 ranks": (50, {**_ALL, "shaping": "rank"}),
    "ES n=25 ranks": (25, {**_HALF, "shaping": "rank"}),
    "ESPC by F": (50, {**_HALF, "utility": "return"}),
    "ESPC by norm": (50, {**_HALF, "utility": "norm"}),
    "ESPC equal weights": (50, {**_HALF, "weights": "equal"}),
    "ESPC centred": (50, {**_HALF, **_CENTRED}),
    "ESPC ranks": (50, {**_HALF, "shaping": "rank"}),
}
SENDERS = {f"m={m}": (50, {"target_senders": m, "window": 10}) for m in TARGETS_M}
WINDOWS = {f"k={k}": (50, {**_HALF, "window": k}) for k in WINDOWS_K}


def _fifty(*labels: str) -> dict:
    """Some lines of `FIFTY`."""
    return {label: FIFTY[label] for label in labels}


def _variants(lines: Mapping, algorithm: Algorithm, trials: int) -> list[Variant]:
    """Lines `label -> (number of agents, properties)` as variants of one algorithm."""
    return [Variant(label, algorithm, *line, trials) for label, line in lines.items()]


def cartpole(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.5: CartPole, setting S, with every control of the explanation."""
    task, trials = gymnax_task("CartPole-v1"), scale.cartpole_trials
    one = espc(task, **CARTPOLE_ES)
    variants = _variants(FIFTY, one, trials)
    if scale.table:
        random = es(task, uplink=uplinks.partial(0.5), **CARTPOLE_ES)
        literal = espc(task, utility_model=literal_deviation, **CARTPOLE_ES)
        pairs = es(task, antithetic=True, **CARTPOLE_ES)
        variants += [
            *_variants(CONTROLS, one, trials),
            Variant("random half", random, 50, {}, trials),
            Variant("ESPC literal variance", literal, 50, _HALF, trials),
            Variant("ES n=50 mirrored", pairs, 50, {}, trials),
        ]
    return run(variants, scale.cartpole_episodes, meter, stage)


def setting_a(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.5 in setting A."""
    one = espc(gymnax_task("CartPole-v1"), **CARTPOLE_ES, **SETTING_A)
    lines = _fifty("ES n=25", "ES n=50", "ESPC n=50", "ES n=50 centred")
    variants = _variants(lines, one, scale.setting_a_trials)
    return run(variants, scale.cartpole_episodes, meter, stage)


def targets_and_windows(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Figs 4.8 and 4.10: numbers of senders and lengths of the window, raw and own baseline."""
    one, trials = espc(gymnax_task("CartPole-v1"), **CARTPOLE_ES), scale.setting_trials
    lines, half = _fifty("ES n=50"), {"m=25": (50, {**_HALF, "window": 10})}
    for label, (n, own) in {**SENDERS, **half, **WINDOWS}.items():
        if label != "k=10":
            lines[label] = n, own
            lines[f"{label} own baseline"] = n, {**own, **_BASELINE}
    out = run(_variants(lines, one, trials), scale.cartpole_episodes, meter, stage)
    # m = 25 at k = 10 is a line of both figures.
    both = {"m=25": "k=10", "m=25 own baseline": "k=10 own baseline"}
    again = out.sel(label=list(both)).assign_coords(label=list(both.values()))
    return xr.concat([out, again], "label", data_vars="all", combine_attrs="override")


def offset(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """What a constant added to every return does (not in the thesis)."""
    one, trials = espc(gymnax_task("CartPole-v1"), **CARTPOLE_ES), scale.setting_trials
    variants = []
    for shift in (-OFFSET, 0.0, OFFSET):
        moved = {"return_offset": shift}
        sign = f"{shift:+.0f}" if shift else "0"
        variants += [
            Variant(f"ES {sign}", one, 50, {**_ALL, **moved}, trials),
            Variant(f"ESPC {sign}", one, 50, {**_HALF, **moved}, trials),
            Variant(f"ESPC |F| {sign}", one, 50, {**_HALF, **moved, "utility": "absolute"}, trials),
            Variant(f"ESPC own baseline {sign}", one, 50, {**_HALF, **moved, **_BASELINE}, trials),
        ]
    out = run(variants, scale.cartpole_episodes, meter, stage)
    shifts = xr.DataArray(np.repeat([-OFFSET, 0.0, OFFSET], 4), dims="label")
    # What is shown is the return of the task itself.
    out["reward"] = out["reward"] - shifts
    return out


def grids_by_es(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Evolution strategies on Simple Grid with n = 30: what the thesis calls unsuitable."""
    one = espc(simple_grid(), **GRID_ES)
    variants = _es_variants(one, 30, scale.windy_trials, 15)
    half = {"target_senders": 15, "utility": "absolute"}
    variants.insert(3, Variant("ESPC |F|", one, 30, half, scale.windy_trials))
    return run(variants, min(500, scale.episodes), meter, stage)


def pareto(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Learning against bytes on CartPole: uplinks on ES, raw and centred."""
    task, trials = gymnax_task("CartPole-v1"), scale.setting_trials
    one = espc(task, **CARTPOLE_ES)
    variants = []
    for m in (5, 15, 25, 35, 50):
        own = {"target_senders": m}
        variants.append(Variant(f"ESPC|m={m}", one, 50, own, trials))
        variants.append(Variant(f"ESPC own baseline|m={m}", one, 50, {**own, **_BASELINE}, trials))
    for n in (5, 15, 25, 50):
        own = {"target_senders": n, "shaping": "center"}
        variants.append(Variant(f"ES centred|n={n}", one, n, own, trials))
    random = es(task, shaping="center", **CARTPOLE_ES)
    for p in (0.1, 0.3, 0.5):
        own = {"uplink": uplinks.partial(p)}
        variants.append(Variant(f"ES centred, partial|p={p}", random, 50, own, trials))
    for threshold in (5.0, 10.0, 20.0):
        own = {"uplink": uplinks.event_triggered(threshold), **_BASELINE}
        variants.append(Variant(f"ES own baseline, event|{threshold:.0f}", random, 50, own, trials))
    return run(variants, scale.cartpole_episodes, meter, stage)


def pareto_grid(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Learning against bytes on Simple Grid, n = 5: uplinks on the value-based methods."""
    task, trials = simple_grid(), max(5, scale.grid_trials // 5)
    plain, vector = dql(task), dql(task, message="increments")
    variants = [Variant("DQL|all", plain, 5, {}, trials)]
    for threshold in (0.05, 0.3, 0.6, 0.8):
        own = {"uplink": uplinks.event_triggered(threshold, 0.5)}
        variants.append(Variant(f"EBCDQL|{threshold:g}", plain, 5, own, trials))
    for m in (1, 3):
        own = {"uplink": uplinks.probabilistic(m)}
        variants.append(Variant(f"DQL, probabilistic|m={m}", plain, 5, own, trials))
    for k in (1, 4, 16):
        own = {"uplink": uplinks.top_k(k)}
        variants.append(Variant(f"DQL, top-k|k={k}", vector, 5, own, trials))
    variants.append(Variant("DQL, sign|", vector, 5, {"uplink": uplinks.scaled_sign()}, trials))
    for price in (0.01, 0.04, 0.2):
        own = {"price": price}
        linear = davia(task, horizon=scale.episodes)
        variants.append(Variant(f"DAVIA|{price:g}", linear, 5, own, trials))
    return run(variants, scale.episodes, meter, stage)


def _ant(lines: Mapping, place: int, scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Runs lines on Ant at the size of figure `place`."""
    size = scale.ant
    one = espc(brax_task("ant", max_steps=size.max_steps), loop="while", **ANT_ES)
    variants = _variants(lines, one, size.trials[place])
    return run(variants, size.episodes[place], meter, stage, chunk=10)


def ant(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.6."""
    lines = _fifty("ES n=25", "ES n=50", "ESPC n=50", "ES n=50 centred", "ESPC own baseline")
    return _ant(lines, 0, scale, meter, stage)


def ant_targets(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.9."""
    return _ant(_fifty("ES n=50") | SENDERS, 1, scale, meter, stage)


def ant_windows(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Fig. 4.11."""
    return _ant(_fifty("ES n=50") | WINDOWS, 2, scale, meter, stage)


METHODS = {
    "ES n=50": ("raw", {}),
    "ES n=25": ("raw", {"num_agents": 25}),
    "ES n=50 centred": ("center", {}),
    "ES n=25 centred": ("center", {"num_agents": 25}),
    "ESPC m=5": ("probabilistic", {"num_senders": 5}),
    "ESPC m=15": ("probabilistic", {"num_senders": 15}),
    "ESPC m=25": ("probabilistic", {"num_senders": 25}),
    "ESPC m=30": ("probabilistic", {"num_senders": 30}),
    "ESPC m=45": ("probabilistic", {"num_senders": 45}),
    "own baseline m=15": ("probabilistic_baseline", {"num_senders": 15}),
    "own baseline m=25": ("probabilistic_baseline", {"num_senders": 25}),
}
RATIOS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)


def noise(scale: Scale, meter: Meter, stage: str) -> xr.Dataset:
    """Signal to noise of one update in the model of the explanation, [method, ratio]."""
    report = meter.stage(stage)
    found = np.empty((2, len(METHODS), len(RATIOS)))
    for place, (method, options) in enumerate(METHODS.values()):
        for at, ratio in enumerate(RATIOS):
            one = analysis.signal_to_noise(
                method, ratio, samples=scale.samples, denominator="n", **options
            )
            found[:, place, at] = one.value, one.standard_error
        report(place + 1, len(METHODS))
    return xr.Dataset(
        {
            "value": (("method", "ratio"), found[0]),
            "standard_error": (("method", "ratio"), found[1]),
        },
        {"method": list(METHODS), "ratio": list(RATIOS)},
        {"samples": scale.samples},
    )


STAGES = {
    "simple": Stage(simple, 20),
    "lake": Stage(lake, 20),
    "windy": Stage(windy, 20),
    "lake30": Stage(lake30, 15),
    "cartpole": Stage(cartpole, 70),
    "setting_a": Stage(setting_a, 30),
    "targets_and_windows": Stage(targets_and_windows, 60),
    "offset": Stage(offset, 30),
    "grids_by_es": Stage(grids_by_es, 10),
    "pareto": Stage(pareto, 60),
    "pareto_grid": Stage(pareto_grid, 30),
    "noise": Stage(noise, 20),
    "ant": Stage(ant, 600),
    "ant_targets": Stage(ant_targets, 600),
    "ant_windows": Stage(ant_windows, 400),
}
