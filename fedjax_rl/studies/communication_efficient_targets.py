"""What the study `communication-efficient` is judged by.

The rows C1 to C37 are those of the project's specification of the thesis, in its order, with the
bands it gives for a stated number of trials; with fewer trials a two-sided band is widened by the
square root of their ratio. The rows "claim ..." are sentences of the thesis, with the band that
they mean; some of them do not hold. Episodes are counted from 1.
"""

from __future__ import annotations

import math

from fedjax_rl.analysis import Target
from fedjax_rl.studies import communication_efficient_data as data

FIRST_EPISODE = {15: 0.001901, 20: 0.076204, 25: 0.5, 30: 0.923796, 35: 0.998099}


def around(value: float, part: float) -> tuple[float, float]:
    """The band of `value` plus or minus a part of it."""
    return value - abs(part * value), value + abs(part * value)


POSITIVE = (0.0, None)
TRUE = (1, 1)

TARGETS = (
    Target("C1", "Fig 4.1", "max_m |E[pc] - m/n|, quadrature", 0.0, (0, 1e-10), kind="exact"),
    Target("C2", "Fig 4.1", "MSE over m, 100,000 z, fresh for every m", 1e-6, (0.7e-6, 2.5e-6)),
    Target("C3", "Fig 4.1", "MSE over m, the same z for all m", 1e-6, (1e-8, 1e-5)),
    Target(
        "C4",
        "Fig 4.7",
        "pc in episode 1 for m = 15, 20, 25, 30, 35",
        tuple(FIRST_EPISODE.values()),
        tolerance=1e-5,
        kind="exact",
    ),
    Target(
        "C5",
        "Fig 4.7",
        "rate of the rule with its own window: largest deviation from the table",
        None,
        (0, 0.005),
    ),
    Target(
        "C6",
        "snr",
        "signal to noise of the model: largest deviation from the table",
        None,
        (0, 0.15),
    ),
    Target(
        "C7",
        "Fig 3.4a",
        "DQL: mean of the last 100; within 5 % of it at episode",
        "optimal",
        ((-5.66, -5.53), (40, 90)),
    ),
    Target(
        "C8",
        "Fig 3.4a",
        "DAVIA: mean of the last 100; within 5 % of it at episode",
        "optimal",
        ((-5.66, -5.53), (None, 80)),
    ),
    Target("C9", "Fig 3.4a", "EBCDQL: mean of the last 100", "suboptimal plateau", (-7.8, -6.3)),
    Target("C10", "Fig 3.4a", "ES raw: mean of the last 100", "near the minimum", (None, -9.6)),
    Target("C11", "Fig 3.4a", "ES centred: mean of the last 100", None, (-5.6, None)),
    Target(
        "C12",
        "Fig 3.4b",
        "frequency of DQL and ES: least and largest",
        1,
        ((1, 1), (1, 1)),
        kind="exact",
    ),
    Target(
        "C13",
        "Fig 3.4b",
        "EBCDQL: frequency below 0.5 at episode; mean of the last 100",
        "falls near episode 50",
        ((None, 30), (None, 0.01)),
    ),
    Target(
        "C14",
        "Fig 3.4b",
        "DAVIA: frequency below 0.5 at episode; mean of the last 100",
        "falls near episode 50",
        ((20, 70), (None, 0.1)),
    ),
    Target(
        "C15",
        "Fig 3.4c",
        "DQL: bytes in the first episode, 50 after it, in the last",
        "large, then dropping",
        (around(1266, 0.15), around(253, 0.15), around(142, 0.15)),
    ),
    Target(
        "C16",
        "Fig 3.4c",
        "EBCDQL: bytes in the first episode, 10 and 25 after it",
        "smaller than DQL",
        (around(1154, 0.3), around(193, 0.3), around(1.6, 0.3)),
    ),
    Target(
        "C17",
        "Fig 3.4c",
        "bytes per message sent: DAVIA, ES",
        "constant",
        ((100, 100), (4, 4)),
        kind="exact",
    ),
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
    Target(
        "C19",
        "Fig 3.5b",
        "mean frequency: EBCDQL .8, DAVIA",
        "minimal",
        ((None, 0.01), (None, 0.01)),
    ),
    Target(
        "C20",
        "Fig 4.2a",
        "mean of the last 100: DQL, EBCDQL, DAVIA",
        "learn",
        ((-8.6, -7.9), (-8.6, -7.9), (-8.6, -7.9)),
    ),
    Target(
        "C21",
        "Fig 4.2a",
        "mean of the last 100: ES raw, ESPC raw",
        "near the minimum",
        ((None, -9.9), (None, -9.9)),
    ),
    Target(
        "C22",
        "Fig 4.2a",
        "mean of the last 100: ES centred, ESPC with its own baseline",
        None,
        ((-9.3, None), (-8.2, None)),
    ),
    Target(
        "C23",
        "Fig 4.2b",
        "ESPC talks less often than DQL, EBCDQL and ES, more often than DAVIA: differences",
        "ESPC below all but DAVIA",
        (POSITIVE, POSITIVE, POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "C24",
        "Fig 4.2c",
        "bytes: ES - ESPC, EBCDQL - ES, DQL - EBCDQL",
        "ESPC below all but DAVIA",
        (POSITIVE, POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "C25",
        "Fig 4.3a",
        "largest mean reward per episode of all methods",
        "nobody consistent",
        (None, 0.03),
    ),
    Target(
        "C26",
        "Fig 4.5a",
        "last 20: ES n=25, ES n=50, ESPC; ES50 - ES25, ESPC - ES50",
        "ESPC > ES50 > ES25",
        ((45, 85), (65, 130), (115, 215), POSITIVE, POSITIVE),
    ),
    Target(
        "C27",
        "Fig 4.5a",
        "ES n=50 at episodes 1, 50, 100, 150, 200",
        None,
        tuple(around(x, 0.3) for x in (24, 33, 47, 67, 100)),
    ),
    Target(
        "C28",
        "Fig 4.5a",
        "ESPC at episodes 1, 50, 100, 150, 200",
        None,
        tuple(around(x, 0.35) for x in (24, 38, 61, 108, 177)),
    ),
    Target(
        "C29",
        "Fig 4.5a",
        "last 20 centred: ES n=50, ES n=25; centred ES n=50 - ESPC",
        None,
        ((230, 350), (120, 225), POSITIVE),
    ),
    Target(
        "C30",
        "Fig 4.5a",
        "setting A, last 20: ES n=25, ES n=50, ESPC, centred ES n=50; ESPC - ES50",
        "ESPC > ES50",
        ((149, 329), (159, 339), (239, 419), (283, 463), POSITIVE),
    ),
    Target(
        "C31",
        "Fig 4.5b",
        "ESPC frequency: episode 1, episodes 2-10, later",
        "about 0.5, a jump at the start",
        ((0.47, 0.53), (0.40, 0.48), (0.43, 0.50)),
    ),
    Target(
        "C32",
        "Fig 4.8a",
        "last 20 above ES n=50: m = 10, 15, 30; best m; (m = 45 - ES n=50) in standard errors",
        "all beat ES n=50, 15 best",
        (POSITIVE, POSITIVE, POSITIVE, (10, 30), (-2, 2)),
    ),
    Target(
        "C33",
        "Fig 4.8b",
        "mean frequency for m = 5, 10, 15, 30, 45",
        "about m/n",
        tuple((x - 0.03, x + 0.03) for x in (0.142, 0.226, 0.301, 0.555, 0.946)),
    ),
    Target(
        "C34",
        "Fig 4.10",
        "largest difference of last 20 over k in standard errors; growth correlation: k = 10 "
        "minus k = 3, k = 30 minus k = 10",
        "no effect; closer tracking for larger k",
        ((None, 2), POSITIVE, POSITIVE),
    ),
    Target(
        "C35",
        "offset",
        "500 subtracted, last 20: ESPC, ESPC by |F|, ES raw",
        None,
        ((None, 20), (30, None), (20, 28)),
    ),
    Target(
        "C36",
        "Fig 4.6",
        "Ant, mean of the last 20: centred ES n=50 - ESPC, ESPC - ES n=50",
        "ESPC > ES n=50 > ES n=25",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target("C37", "Fig 4.6", "Ant: mean frequency of ESPC", "about 0.5", (0.45, 0.60)),
    Target(
        "claim 2",
        "Fig 3.5a",
        "cumulative reward: EBCDQL (silent) - ES, ES - DQL",
        "EBCDQL best, then ES, then DQL",
        (POSITIVE, POSITIVE),
        kind="ordering",
    ),
    Target(
        "claim 4",
        "grids",
        "Simple Grid, last 100, distance to V*: centred ES n=30, ESPC with its own baseline",
        "ES is unsuitable for these grids",
        ((2, None), (2, None)),
        kind="ordering",
    ),
    Target(
        "claim 6",
        "Fig 4.5a",
        "share of episodes after 50 with ESPC above ES n=50; above ES n=25",
        "every episode",
        (TRUE, TRUE),
        kind="ordering",
    ),
    Target(
        "claim 7",
        "Fig 4.8a",
        "last 20 above ES n=50: m = 5, 10, 15, 30, 45; best m",
        "every m beats ES n=50; m = 15 is best",
        (POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE, (15, 15)),
        kind="ordering",
    ),
    Target(
        "claim 7b",
        "Fig 4.8a",
        "median relative change from episode to episode: m = 5 over m = 30",
        "small m is erratic, large m smooth",
        (1.25, None),
        kind="ordering",
    ),
)
# Trials that a target"s band is for, and the size of the scale that says how many there are.
_TRIALS = {
    **dict.fromkeys(
        (
            "C7",
            "C8",
            "C9",
            "C15",
            "C16",
            "C18",
        ),
        (100, "grid_trials"),
    ),
    **dict.fromkeys(("C20",), (5, "windy_trials")),
    **dict.fromkeys(
        (
            "C26",
            "C27",
            "C28",
            "C29",
            "C31",
        ),
        (60, "cartpole_trials"),
    ),
    **dict.fromkeys(("C30",), (40, "setting_a_trials")),
    **dict.fromkeys(("C33",), (40, "setting_trials")),
}
FIGURE_OF = {
    target.id: (
        target.figure
        if not target.figure.startswith("Fig ")
        else "fig" + target.figure[4:].rstrip("abc").replace(".", "-")
    )
    for target in TARGETS
}


def for_scale(scale: data.Scale) -> list[Target]:
    """The targets, their two-sided bands widened where there are fewer trials than they ask for."""
    out = []
    for target in TARGETS:
        wanted, size = _TRIALS.get(target.id, (0, None))
        if wanted and (trials := getattr(scale, size)) < wanted:
            factor = math.sqrt(wanted / trials)
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
