"""What the study `communication-efficient` is judged by, and how each number is measured here.

The rows C1 to C37 are those of the project's specification of the thesis, in its order, with the
bands it gives for a stated number of trials; with fewer trials a two-sided band is widened by the
square root of their ratio. The rows "claim ..." are sentences of the thesis, with the band that
they mean; some of them do not hold. A function below returns, for the targets of one figure,
`{id: (measured, low, high)}`. Episodes are counted from 1.
"""

from __future__ import annotations

import math

import numpy as np

from fedjax_rl import analysis
from fedjax_rl.analysis import Target
from fedjax_rl.federation import uplinks
from fedjax_rl.studies import communication_efficient_data as data
from fedjax_rl.studies.measures import bare, difference, mean, several

FIRST_EPISODE = {15: 0.001901, 20: 0.076204, 25: 0.5, 30: 0.923796, 35: 0.998099}
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


def around(value: float, part: float) -> tuple[float, float]:
    """The band of `value` plus or minus a part of it."""
    return value - abs(part * value), value + abs(part * value)


POSITIVE = (0.0, None)
TRUE = (1, 1)

# (target, trials that its band is for, field of `Scale` that says how many there are)
_ROWS = (
    (
        Target("C1", "Fig 4.1", "max_m |E[pc] - m/n|, quadrature", 0.0, (0, 1e-10), kind="exact"),
        None,
    ),
    (
        Target("C2", "Fig 4.1", "MSE over m, 100,000 z, fresh for every m", 1e-6, (0.7e-6, 2.5e-6)),
        None,
    ),
    (Target("C3", "Fig 4.1", "MSE over m, the same z for all m", 1e-6, (1e-8, 1e-5)), None),
    (
        Target(
            "C4",
            "Fig 4.7",
            "pc in episode 1 for m = 15, 20, 25, 30, 35",
            tuple(FIRST_EPISODE.values()),
            tolerance=1e-5,
            kind="exact",
        ),
        None,
    ),
    (
        Target(
            "C5",
            "Fig 4.7",
            "rate of the rule with its own window: largest deviation from the table",
            None,
            (0, 0.005),
        ),
        None,
    ),
    (
        Target(
            "C6",
            "snr",
            "signal to noise of the model: largest deviation from the table",
            None,
            (0, 0.15),
        ),
        None,
    ),
    (
        Target(
            "C7",
            "Fig 3.4a",
            "DQL: mean of the last 100; within 5 % of it at episode",
            "optimal",
            ((-5.66, -5.53), (40, 90)),
        ),
        (100, "grid_trials"),
    ),
    (
        Target(
            "C8",
            "Fig 3.4a",
            "DAVIA: mean of the last 100; within 5 % of it at episode",
            "optimal",
            ((-5.66, -5.53), (None, 80)),
        ),
        (100, "grid_trials"),
    ),
    (
        Target(
            "C9", "Fig 3.4a", "EBCDQL: mean of the last 100", "suboptimal plateau", (-7.8, -6.3)
        ),
        (100, "grid_trials"),
    ),
    (
        Target("C10", "Fig 3.4a", "ES raw: mean of the last 100", "near the minimum", (None, -9.6)),
        None,
    ),
    (Target("C11", "Fig 3.4a", "ES centred: mean of the last 100", None, (-5.6, None)), None),
    (
        Target(
            "C12",
            "Fig 3.4b",
            "frequency of DQL and ES: least and largest",
            1,
            ((1, 1), (1, 1)),
            kind="exact",
        ),
        None,
    ),
    (
        Target(
            "C13",
            "Fig 3.4b",
            "EBCDQL: frequency below 0.5 at episode; mean of the last 100",
            "falls near episode 50",
            ((None, 30), (None, 0.01)),
        ),
        None,
    ),
    (
        Target(
            "C14",
            "Fig 3.4b",
            "DAVIA: frequency below 0.5 at episode; mean of the last 100",
            "falls near episode 50",
            ((20, 70), (None, 0.1)),
        ),
        None,
    ),
    (
        Target(
            "C15",
            "Fig 3.4c",
            "DQL: bytes in the first episode, 50 after it, in the last",
            "large, then dropping",
            (around(1266, 0.15), around(253, 0.15), around(142, 0.15)),
        ),
        (100, "grid_trials"),
    ),
    (
        Target(
            "C16",
            "Fig 3.4c",
            "EBCDQL: bytes in the first episode, 10 and 25 after it",
            "smaller than DQL",
            (around(1154, 0.3), around(193, 0.3), around(1.6, 0.3)),
        ),
        (100, "grid_trials"),
    ),
    (
        Target(
            "C17",
            "Fig 3.4c",
            "bytes per message sent: DAVIA, ES",
            "constant",
            ((100, 100), (4, 4)),
            kind="exact",
        ),
        None,
    ),
    (
        Target(
            "C18",
            "Fig 3.5a",
            "cumulative reward: DQL, EBCDQL .8, EBCDQL .05, DAVIA, ES, DQL with first-index ties",
            "EBCDQL > ES > DQL, DAVIA near 0",
            (
                around(15.3, 0.2),
                around(1.64, 0.2),
                around(14.5, 0.2),
                around(1.62, 0.2),
                (1, 3),
                (0, 0.01),
            ),
        ),
        (100, "grid_trials"),
    ),
    (
        Target(
            "C19",
            "Fig 3.5b",
            "mean frequency: EBCDQL .8, DAVIA",
            "minimal",
            ((None, 0.01), (None, 0.01)),
        ),
        None,
    ),
    (
        Target(
            "C20",
            "Fig 4.2a",
            "mean of the last 100: DQL, EBCDQL, DAVIA",
            "learn",
            ((-8.6, -7.9), (-8.6, -7.9), (-8.6, -7.9)),
        ),
        (5, "windy_trials"),
    ),
    (
        Target(
            "C21",
            "Fig 4.2a",
            "mean of the last 100: ES raw, ESPC raw",
            "near the minimum",
            ((None, -9.9), (None, -9.9)),
        ),
        None,
    ),
    (
        Target(
            "C22",
            "Fig 4.2a",
            "mean of the last 100: ES centred, ESPC with its own baseline",
            None,
            ((-9.3, None), (-8.2, None)),
        ),
        None,
    ),
    (
        Target(
            "C23",
            "Fig 4.2b",
            "ESPC talks less often than DQL, EBCDQL and ES, more often than DAVIA: differences",
            "ESPC below all but DAVIA",
            (POSITIVE, POSITIVE, POSITIVE, POSITIVE),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "C24",
            "Fig 4.2c",
            "bytes: ES - ESPC, EBCDQL - ES, DQL - EBCDQL",
            "ESPC below all but DAVIA",
            (POSITIVE, POSITIVE, POSITIVE),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "C25",
            "Fig 4.3a",
            "largest mean reward per episode of all methods",
            "nobody consistent",
            (None, 0.03),
        ),
        None,
    ),
    (
        Target(
            "C26",
            "Fig 4.5a",
            "last 20: ES n=25, ES n=50, ESPC; ES50 - ES25, ESPC - ES50",
            "ESPC > ES50 > ES25",
            ((45, 85), (65, 130), (115, 215), POSITIVE, POSITIVE),
        ),
        (60, "cartpole_trials"),
    ),
    (
        Target(
            "C27",
            "Fig 4.5a",
            "ES n=50 at episodes 1, 50, 100, 150, 200",
            None,
            tuple(around(x, 0.3) for x in (24, 33, 47, 67, 100)),
        ),
        (60, "cartpole_trials"),
    ),
    (
        Target(
            "C28",
            "Fig 4.5a",
            "ESPC at episodes 1, 50, 100, 150, 200",
            None,
            tuple(around(x, 0.35) for x in (24, 38, 61, 108, 177)),
        ),
        (60, "cartpole_trials"),
    ),
    (
        Target(
            "C29",
            "Fig 4.5a",
            "last 20 centred: ES n=50, ES n=25; centred ES n=50 - ESPC",
            None,
            ((230, 350), (120, 225), POSITIVE),
        ),
        (60, "cartpole_trials"),
    ),
    (
        Target(
            "C30",
            "Fig 4.5a",
            "setting A, last 20: ES n=25, ES n=50, ESPC, centred ES n=50; ESPC - ES50",
            "ESPC > ES50",
            ((149, 329), (159, 339), (239, 419), (283, 463), POSITIVE),
        ),
        (40, "setting_a_trials"),
    ),
    (
        Target(
            "C31",
            "Fig 4.5b",
            "ESPC frequency: episode 1, episodes 2-10, later",
            "about 0.5, a jump at the start",
            ((0.47, 0.53), (0.40, 0.48), (0.43, 0.50)),
        ),
        (60, "cartpole_trials"),
    ),
    (
        Target(
            "C32",
            "Fig 4.8a",
            "last 20 above ES n=50: m = 10, 15, 30; best m; (m = 45 - ES n=50) in standard errors",
            "all beat ES n=50, 15 best",
            (POSITIVE, POSITIVE, POSITIVE, (10, 30), (-2, 2)),
        ),
        None,
    ),
    (
        Target(
            "C33",
            "Fig 4.8b",
            "mean frequency for m = 5, 10, 15, 30, 45",
            "about m/n",
            tuple((x - 0.03, x + 0.03) for x in (0.142, 0.226, 0.301, 0.555, 0.946)),
        ),
        (40, "setting_trials"),
    ),
    (
        Target(
            "C34",
            "Fig 4.10",
            "largest difference of last 20 over k in standard errors; growth correlation: k = 10 "
            "minus k = 3, k = 30 minus k = 10",
            "no effect; closer tracking for larger k",
            ((None, 2), POSITIVE, POSITIVE),
        ),
        None,
    ),
    (
        Target(
            "C35",
            "offset",
            "500 subtracted, last 20: ESPC, ESPC by |F|, ES raw",
            None,
            ((None, 20), (30, None), (20, 28)),
        ),
        None,
    ),
    (
        Target(
            "C36",
            "Fig 4.6",
            "Ant, mean of the last 20: centred ES n=50 - ESPC, ESPC - ES n=50",
            "ESPC > ES n=50 > ES n=25",
            (POSITIVE, POSITIVE),
            kind="ordering",
        ),
        None,
    ),
    (
        Target("C37", "Fig 4.6", "Ant: mean frequency of ESPC", "about 0.5", (0.45, 0.60)),
        None,
    ),
    (
        Target(
            "claim 2",
            "Fig 3.5a",
            "cumulative reward: EBCDQL (silent) - ES, ES - DQL",
            "EBCDQL best, then ES, then DQL",
            (POSITIVE, POSITIVE),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "claim 4",
            "grids",
            "Simple Grid, last 100, distance to V*: centred ES n=30, ESPC with its own baseline",
            "ES is unsuitable for these grids",
            ((2, None), (2, None)),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "claim 6",
            "Fig 4.5a",
            "share of episodes after 50 with ESPC above ES n=50; above ES n=25",
            "every episode",
            (TRUE, TRUE),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "claim 7",
            "Fig 4.8a",
            "last 20 above ES n=50: m = 5, 10, 15, 30, 45; best m",
            "every m beats ES n=50; m = 15 is best",
            (POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE, (15, 15)),
            kind="ordering",
        ),
        None,
    ),
    (
        Target(
            "claim 7b",
            "Fig 4.8a",
            "median relative change from episode to episode: m = 5 over m = 30",
            "small m is erratic, large m smooth",
            (1.25, None),
            kind="ordering",
        ),
        None,
    ),
)
TARGETS = tuple(row[0] for row in _ROWS)
FIGURE_OF = {
    target.id: (
        target.figure
        if not target.figure.startswith("Fig ")
        else "fig" + target.figure[4:].rstrip("abc").replace(".", "-")
    )
    for target in TARGETS
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


def for_scale(scale: data.Scale) -> list[Target]:
    """The targets, their two-sided bands widened where there are fewer trials than they ask for."""
    out = []
    for target, needs in _ROWS:
        if needs is not None and (trials := getattr(scale, needs[1])) < needs[0]:
            factor = math.sqrt(needs[0] / trials)
            bands = tuple(_widened(band, factor) for band in target.bands)
            target = Target(
                target.id,
                target.figure,
                target.quantity,
                target.published,
                bands if target.several else bands[0],
                kind=target.kind,
            )
        out.append(target)
    return out


def _widened(band, factor: float):
    low, high = band
    if low is None or high is None or low == high:
        return band
    middle, half = (low + high) / 2, (high - low) / 2
    return middle - factor * half, middle + factor * half


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
