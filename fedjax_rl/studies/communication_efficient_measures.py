"""How each number of the study `communication-efficient` is measured here.

A function returns, for the targets of one figure, `{id: (measured, low, high)}`. Episodes are
counted from 1.
"""

from __future__ import annotations

import math

import numpy as np

from fedjax_rl import analysis
from fedjax_rl.federation import uplinks
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies.communication_efficient_targets import FIRST_EPISODE
from fedjax_rl.studies.intervals import bare, difference, mean, several

# Expected communication of the rule with its own window, n = 50: samples -> m -> rate.
WINDOW_RATES = {
    2: {5: 0.047, 10: 0.378, 15: 0.496, 25: 0.5, 30: 0.5, 45: 0.953},
    3: {5: 0.114, 10: 0.287, 15: 0.375, 25: 0.5, 30: 0.558, 45: 0.885},
    5: {5: 0.118, 10: 0.238, 15: 0.334, 25: 0.5, 30: 0.582, 45: 0.883},
    10: {5: 0.109, 10: 0.216, 15: 0.314, 25: 0.5, 30: 0.592, 45: 0.893},
    30: {5: 0.103, 10: 0.205, 15: 0.305, 25: 0.5, 30: 0.598, 45: 0.898},
}
# Signal to noise of the model, ratios as `data.RATIOS`.
SIGNAL_TO_NOISE = {
    "ES n=50": (3.50, 2.52, 1.52, 0.78, 0.37, 0.16),
    "ES n=25": (2.47, 1.79, 1.07, 0.56, 0.24, 0.13),
    "ES n=50 centred": (3.47, 3.46, 3.44, 3.48, 3.46, 3.49),
    "ES n=25 centred": (2.40, 2.45, 2.37, 2.45, 2.40, 2.46),
    "ESPC m=5": (1.79, 1.72, 1.65, 1.57, 1.40, 1.05),
    "ESPC m=15": (2.32, 2.30, 2.11, 2.00, 1.73, 1.28),
    "ESPC m=25": (2.46, 2.32, 2.11, 1.94, 1.62, 1.16),
    "ESPC m=30": (2.48, 2.30, 2.02, 1.84, 1.51, 1.06),
    "ESPC m=45": (3.04, 2.31, 1.62, 1.11, 0.73, 0.45),
    "own baseline m=15": (2.81, 2.72, 2.75, 2.74, 2.7, 2.69),
    "own baseline m=25": (3.03, 2.98, 2.97, 2.98, 3.0, 2.96),
}


# Rows that hold for runs of any length; the others are of whole runs.
_ANY_LENGTH = ("C12", "C17")
_OF_GRIDS = ("fig3-4", "fig3-5", "fig4-2", "fig4-3", "grids")
_OF_CARTPOLE = ("fig4-5", "fig4-8", "fig4-10", "offset")


def measure(figure: str, runs) -> dict:
    """What the targets of a figure come to, without those that need longer runs than there are."""
    found = MEASURE[figure](runs)
    full, scale = data.SCALES["paper"], runs.scale
    short = (figure in _OF_GRIDS and scale.episodes < full.episodes) or (
        figure in _OF_CARTPOLE and scale.cartpole_episodes < full.cartpole_episodes
    )
    return {n: v for n, v in found.items() if not short or n in _ANY_LENGTH}


def _theory(runs) -> dict:
    del runs
    m = np.arange(51)
    exact = [analysis.expected_communication(one, 50) for one in m]
    fresh = analysis.sampled_communication(m, 50, seed=0)
    same = analysis.sampled_communication(m, 50, seed=0, shared=True)
    return {
        "C1": bare(np.max(np.abs(np.asarray(exact) - m / 50))),
        "C2": bare(np.mean((fresh - m / 50) ** 2)),
        "C3": bare(np.mean((same - m / 50) ** 2)),
    }


def _first_episode(runs) -> dict:
    del runs
    chance = [float(uplinks.communication_probability(0.5, m, 50)) for m in FIRST_EPISODE]
    worst = 0.0
    for samples, row in WINDOW_RATES.items():
        for m, rate in row.items():
            worst = max(worst, abs(analysis.window_rate(m, 50, samples) - rate))
    return {"C4": several(*map(bare, chance)), "C5": bare(worst)}


def _noise(runs) -> dict:
    table = np.asarray([SIGNAL_TO_NOISE[name] for name in runs.noise["method"].values])
    return {"C6": bare(np.abs(runs.noise["value"].values - table).max())}


def _settled(runs, label: str, last: int = 100) -> tuple:
    """Episode, from 1, at which the mean curve is first within 5 % of its end."""
    curve = data.line(runs, label).mean(axis=0)
    return bare(1 + analysis.first_within(curve, 0.05, last))


def _silent(runs, label: str) -> tuple:
    curve = data.line(runs, label, "frequency").mean(axis=0)
    return bare(1 + analysis.first_below(curve, 0.5))


def _simple(runs) -> dict:
    runs = runs.simple
    last = min(100, runs.sizes["time"] // 2)

    def end(label, name="reward"):
        return mean(data.trial_means(runs, label, last, name))

    def at(label, episode, name="size"):
        place = min(episode, runs.sizes["time"] - 1)
        return mean(data.line(runs, label, name)[:, place])

    everybody = np.concatenate(
        [data.line(runs, label, "frequency").ravel() for label in ("DQL", "ES")]
    )

    def per_message(label):
        own = runs.sel(label=label)
        return bare(np.nansum(own["bytes_up"]) / np.nansum(own["messages_up"]))

    return {
        "C7": several(end("DQL"), _settled(runs, "DQL", last)),
        "C8": several(end("DAVIA"), _settled(runs, "DAVIA", last)),
        "C9": end("EBCDQL"),
        "C10": end("ES"),
        "C11": end("ES centred"),
        "C12": several(bare(everybody.min()), bare(everybody.max())),
        "C13": several(_silent(runs, "EBCDQL"), end("EBCDQL", "frequency")),
        "C14": several(_silent(runs, "DAVIA"), end("DAVIA", "frequency")),
        "C15": several(*(at("DQL", e) for e in (0, 50, 999))),
        "C16": several(*(at("EBCDQL", e) for e in (0, 10, 25))),
        "C17": several(per_message("DAVIA"), per_message("ES")),
    }


def _lake(runs) -> dict:
    runs = runs.lake
    labels = ("DQL", "EBCDQL 0.8", "EBCDQL 0.05", "DAVIA", "ES", "DQL first index")
    total = {label: data.line(runs, label).sum(axis=1) for label in labels}
    talk = [data.line(runs, label, "frequency").mean(axis=1) for label in ("EBCDQL 0.8", "DAVIA")]
    return {
        "C18": several(*(mean(total[label]) for label in labels)),
        "C19": several(*map(mean, talk)),
        "claim 2": several(
            difference(total["EBCDQL 0.8"], total["ES"]), difference(total["ES"], total["DQL"])
        ),
    }


def _windy(runs) -> dict:
    runs = runs.windy
    last = min(100, runs.sizes["time"] // 2)

    def end(label):
        return mean(data.trial_means(runs, label, last))

    def over(name, label):
        return data.line(runs, label, name).mean(axis=1)

    talk, size = (
        {label: over(name, label) for label in ("DQL", "EBCDQL", "DAVIA", "ES", "ESPC")}
        for name in ("frequency", "size")
    )
    return {
        "C20": several(end("DQL"), end("EBCDQL"), end("DAVIA")),
        "C21": several(end("ES"), end("ESPC")),
        "C22": several(end("ES centred"), end("ESPC own baseline")),
        "C23": several(
            *(difference(talk[label], talk["ESPC"]) for label in ("DQL", "EBCDQL", "ES")),
            difference(talk["ESPC"], talk["DAVIA"]),
        ),
        "C24": several(
            difference(size["ES"], size["ESPC"]),
            difference(size["EBCDQL"], size["ES"]),
            difference(size["DQL"], size["EBCDQL"]),
        ),
    }


def _lake30(runs) -> dict:
    runs = runs.lake30
    means = [mean(data.line(runs, label).mean(axis=1)) for label in runs["label"].values]
    return {"C25": max(means)}


LAST = 20  # episodes at the end of a run on CartPole and Ant


def _cartpole(runs) -> dict:
    setting_s, setting_a = runs.cartpole, runs.setting_a

    def ends(which, *labels):
        return [data.trial_means(which, label, LAST) for label in labels]

    es25, es50, some = ends(setting_s, "ES n=25", "ES n=50", "ESPC n=50")
    centred50, centred25 = ends(setting_s, "ES n=50 centred", "ES n=25 centred")
    a = ends(setting_a, "ES n=25", "ES n=50", "ESPC n=50", "ES n=50 centred")
    frequency = data.line(setting_s, "ESPC n=50", "frequency")

    def course(label):
        curve = data.line(setting_s, label)
        places = [min(e, curve.shape[1]) - 1 for e in (1, 50, 100, 150, 200)]
        return several(*(mean(curve[:, place]) for place in places))

    curves = {
        label: data.line(setting_s, label).mean(axis=0)
        for label in ("ES n=25", "ES n=50", "ESPC n=50")
    }
    late = {label: curve[50:] for label, curve in curves.items()}
    return {
        "C26": several(
            mean(es25), mean(es50), mean(some), difference(es50, es25), difference(some, es50)
        ),
        "C27": course("ES n=50"),
        "C28": course("ESPC n=50"),
        "C29": several(mean(centred50), mean(centred25), difference(centred50, some)),
        "C30": several(*map(mean, a), difference(a[2], a[1])),
        "C31": several(
            mean(frequency[:, 0]),
            mean(frequency[:, 1:10].mean(axis=1)),
            mean(frequency[:, 10:].mean(axis=1)),
        ),
        "claim 6": several(
            bare(np.mean(late["ESPC n=50"] > late["ES n=50"])),
            bare(np.mean(late["ESPC n=50"] > late["ES n=25"])),
        ),
    }


def _numbers(runs) -> dict:
    runs = runs.targets_and_windows
    es50 = data.trial_means(runs, "ES n=50", LAST)
    ends = {m: data.trial_means(runs, f"m={m}", LAST) for m in (*data.TARGETS_M, 25)}
    best = max(ends, key=lambda m: ends[m].mean())
    asked = {m: ends[m] for m in data.TARGETS_M}
    talk = [data.line(runs, f"m={m}", "frequency").mean(axis=1) for m in data.TARGETS_M]
    noise = math.hypot(_error(ends[45]), _error(es50))

    def erratic(m):
        curve = data.line(runs, f"m={m}")
        return np.median(np.abs(np.diff(curve, axis=1)) / curve[:, :-1])

    return {
        "C32": several(
            *(difference(ends[m], es50) for m in (10, 15, 30)),
            bare(best),
            bare((ends[45].mean() - es50.mean()) / noise),
        ),
        "C33": several(*map(mean, talk)),
        "claim 7": several(
            *(difference(ends[m], es50) for m in data.TARGETS_M),
            bare(max(asked, key=lambda m: asked[m].mean())),
        ),
        "claim 7b": bare(erratic(5) / erratic(30)),
    }


def _error(values) -> float:
    """Standard error of the mean."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _windows(runs) -> dict:
    runs = runs.targets_and_windows
    ends = [data.trial_means(runs, f"k={k}", LAST) for k in data.WINDOWS_K]
    apart = max(
        abs(a.mean() - b.mean()) / math.hypot(_error(a), _error(b))
        for place, a in enumerate(ends)
        for b in ends[:place]
    )
    tracking = [
        analysis.growth_correlation(
            data.line(runs, f"k={k}"), data.line(runs, f"k={k}", "frequency")
        ).value
        for k in data.WINDOWS_K
    ]
    return {
        "C34": several(
            bare(apart), bare(tracking[1] - tracking[0]), bare(tracking[2] - tracking[1])
        )
    }


def _offset(runs) -> dict:
    sign = f"{-data.OFFSET:+.0f}"
    labels = (f"ESPC {sign}", f"ESPC |F| {sign}", f"ES {sign}")
    return {"C35": several(*(mean(data.trial_means(runs.offset, label, LAST)) for label in labels))}


OPTIMUM = -(1 - 0.9**7) / 0.1  # V*(0) of Simple Grid


def _grids(runs) -> dict:
    runs = runs.grids_by_es
    last = min(100, runs.sizes["time"] // 2)
    away = [
        OPTIMUM - data.trial_means(runs, label, last)
        for label in ("ES centred", "ESPC own baseline")
    ]
    return {"claim 4": several(*map(mean, away))}


def _ant(runs) -> dict:
    runs = runs.ant
    centred, some, es50 = (
        data.trial_means(runs, label, LAST) for label in ("ES n=50 centred", "ESPC n=50", "ES n=50")
    )
    talk = data.line(runs, "ESPC n=50", "frequency").mean(axis=1)
    return {"C36": several(difference(centred, some), difference(some, es50)), "C37": mean(talk)}


def _nothing(runs) -> dict:
    del runs
    return {}


# Which targets a figure's runs decide.
MEASURE = {
    "fig3-4": _simple,
    "fig3-5": _lake,
    "fig4-1": _theory,
    "fig4-2": _windy,
    "fig4-3": _lake30,
    "fig4-5": _cartpole,
    "fig4-6": _ant,
    "fig4-7": _first_episode,
    "fig4-8": _numbers,
    "fig4-9": _nothing,
    "fig4-10": _windows,
    "fig4-11": _nothing,
    "snr": _noise,
    "offset": _offset,
    "grids": _grids,
    "pareto": _nothing,
}
