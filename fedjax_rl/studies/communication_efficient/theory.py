"""Theory of probabilistic communication: how often agents speak, and how well it points."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr

from fedjax_rl import analysis, plotting
from fedjax_rl.analysis import Measured
from fedjax_rl.federation import uplinks
from fedjax_rl.plotting import page as pages
from fedjax_rl.studies.claims import effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exactly, measured
from fedjax_rl.studies.pictures import picture
from fedjax_rl.studies.runs import Stage

FIRST_EPISODE = {15: 0.001901, 20: 0.076204, 25: 0.5, 30: 0.923796, 35: 0.998099}
# Expected communication of the rule with its own window, n = 50: samples -> m -> rate.
WINDOW_RATES = {
    2: {5: 0.047, 10: 0.378, 15: 0.496, 25: 0.5, 30: 0.5, 45: 0.953},
    3: {5: 0.114, 10: 0.287, 15: 0.375, 25: 0.5, 30: 0.558, 45: 0.885},
    5: {5: 0.118, 10: 0.238, 15: 0.334, 25: 0.5, 30: 0.582, 45: 0.883},
    10: {5: 0.109, 10: 0.216, 15: 0.314, 25: 0.5, 30: 0.592, 45: 0.893},
    30: {5: 0.103, 10: 0.205, 15: 0.305, 25: 0.5, 30: 0.598, 45: 0.898},
}
# b / S, and the signal to noise that a prototype of the model measured.
RATIOS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)
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
SAMPLED = 10  # runs of the Monte Carlo of Fig. 4.1


@figure("fig4-1", "expected communication against the number of senders wanted")
def fig4_1(size):
    """The thesis checks E[pc] = m / n by simulation; it is an identity, exact for every m."""

    def errors(shared):
        m = np.arange(51)
        found = [
            np.mean((analysis.sampled_communication(m, 50, seed=seed, shared=shared) - m / 50) ** 2)
            for seed in range(SAMPLED)
        ]
        return xr.Dataset({"error": ("seed", found)}, {"seed": range(SAMPLED)})

    def staged(meter, name, shared):
        meter.stage(name)
        return errors(shared)

    fresh = Stage("sampled-fresh", lambda meter: staged(meter, "sampled-fresh", False), 5)
    same = Stage("sampled-shared", lambda meter: staged(meter, "sampled-shared", True), 5)

    def identity():
        m = np.arange(51)
        return exactly(np.abs([analysis.expected_communication(n, 50) - n / 50 for n in m]).max())

    yield number(
        "C1",
        "largest |E[pc] - m/n| over m, by quadrature",
        measured(identity),
        (0, 1e-10),
        published=0.0,
    )
    order = "order of 1e-6"
    yield number(
        "C2",
        "mean squared error over m with 100,000 z, fresh for every m",
        fresh["error"],
        (0.7e-6, 2.5e-6),
        published=order,
        reference=1.33e-6,
    )
    yield number(
        "C3", "the same with the same z for all m", same["error"], (1e-7, 1e-5), published=order
    )
    yield picture("fig4-1", plotting.expected_communication)


@figure("fig4-7", "probability of communication in the first episode")
def fig4_7(size):
    """One sample has no scale to judge it by: everybody takes its own for average, p = 1/2."""

    def chances():
        own = (uplinks.communication_probability(0.5, m, 50) for m in FIRST_EPISODE)
        return [exactly(float(chance)) for chance in own]

    def worst():
        return exactly(
            max(
                abs(analysis.window_rate(m, 50, samples) - rate)
                for samples, rates in WINDOW_RATES.items()
                for m, rate in rates.items()
            )
        )

    yield number(
        "C4",
        "pc in episode 1 for m = 15, 20, 25, 30, 35",
        measured(chances),
        tuple((value - 1e-5, value + 1e-5) for value in FIRST_EPISODE.values()),
        reference=tuple(FIRST_EPISODE.values()),
        published="steep around m = 25",
    )
    yield number(
        "C5",
        "rate of the rule with its own window of 2 to 30: largest deviation from a simulation",
        measured(worst),
        (0, 0.005),
    )
    yield picture("fig4-7", plotting.first_communication)


@figure("snr", "why selection helps: signal to noise against the mean return")
def snr(size):
    """Of raw returns F = b + S (r u.e + noise) the constant b drowns the gradient.

    Selection turns it into signal, taking the mean off removes it and is better at any b.
    """

    def simulate(meter):
        report = meter.stage("noise")
        found = np.empty((2, len(SIGNAL_TO_NOISE), len(RATIOS)))
        for place, name in enumerate(SIGNAL_TO_NOISE):
            kind, options = "raw", {}
            if " n=" in name:
                kind = "center" if "centred" in name else "raw"
                options = {"num_agents": int(name.split("=")[1].split()[0])}
            else:
                kind = "probabilistic" + "_baseline" * name.startswith("own")
                options = {"num_senders": int(name.split("=")[1])}
            for at, ratio in enumerate(RATIOS):
                own = {"samples": size.samples, "denominator": "n", **options}
                one = analysis.signal_to_noise(kind, ratio, **own)
                found[:, place, at] = one.value, one.standard_error
            report(place + 1, len(SIGNAL_TO_NOISE))
        names = {"value": found[0], "standard_error": found[1]}
        return xr.Dataset(
            {name: (("method", "ratio"), own) for name, own in names.items()},
            {"method": list(SIGNAL_TO_NOISE), "ratio": list(RATIOS)},
        )

    noise = Stage("noise", simulate, 20, of=size.samples)

    def worst(runs):
        away = np.abs(runs["value"].values - np.array(list(SIGNAL_TO_NOISE.values())))
        reach = 1.96 * runs["standard_error"].values[np.unravel_index(away.argmax(), away.shape)]
        return Measured(away.max(), away.max() - reach, away.max() + reach, size.samples)

    yield number(
        "C6",
        "signal to noise of the model: largest deviation from a prototype",
        measured(worst, noise),
        (None, 0.15),
    )

    def ahead(runs):
        at = runs["value"].sel(ratio=2.0)
        error = runs["standard_error"].sel(ratio=2.0)
        order = ("ES n=25", "ES n=50", "ESPC m=25", "ES n=25 centred", "ES n=50 centred")
        out = []
        for less, more in itertools.pairwise(order):
            apart = float(at.loc[more] - at.loc[less])
            reach = 1.96 * float(np.hypot(error.loc[more], error.loc[less]))
            out.append(Measured(apart, apart - reach, apart + reach, size.samples))
        return out

    yield effect(
        "snr order",
        "signal to noise at b / S = 2, where CartPole is: ES n=50 - ES n=25, ESPC - ES n=50, ES "
        "n=25 centred - ESPC, ES n=50 centred - ES n=25 centred",
        measured(ahead, noise),
        band=((0, None),) * 4,
    )
    yield picture("snr", _snr, noise)


_METHODS = ("ES n=50", "ES n=25", "ES n=50 centred", "ES n=25 centred", "ESPC m=25")
# ESPC m=25 is fifth in both, for one colour.
_COUNTS = ("ESPC m=5", "ESPC m=15", "ESPC m=30", "ESPC m=45", "ESPC m=25")


def _snr(own):
    """Signal to noise of the estimates: simulated, and in closed form."""
    ratio = own["ratio"].values
    fine = np.linspace(0, ratio.max(), 200)
    ideal, best = analysis.ideal_signal_to_noise, "exactly the best 25 of 50"
    models = {
        "ES n=50": (fine, ideal("raw", fine, 50)),
        "ES n=25": (fine, ideal("raw", fine, 25)),
        "ES n=50 centred": (fine, ideal("center", fine, 50)),
        "ES n=25 centred": (fine, ideal("center", fine, 25)),
        best: (fine, ideal("top", fine, 50, 25, num_parameters=130)),
    }

    def panel(axis, methods, chosen, title):
        at = {name: own.sel({"method": name}) for name in methods}
        plotting.snr(
            ratio,
            {name: one["value"].values for name, one in at.items()},
            {name: models[name] for name in chosen},
            errors={name: one["standard_error"].values for name, one in at.items()},
            marks={"CartPole, about 2": 2.0},
            axes=axis,
        )
        axis.set_title(title)
        axis.set_ylim(-0.1, 4.0)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=7)

    with plotting.style():
        made, ((left, right),) = pages.page(1, 2, height=3.9, sharey=True)
        panel(left, (*_METHODS, "own baseline m=25"), models, "everybody sends, or 25 of 50")
        panel(right, (*_COUNTS, "own baseline m=15"), (best,), "m messages wanted of 50 agents")
        right.set_ylabel("")
        words = "points: simulated, with two standard errors; full lines: closed form"
        pages.headline(made, words, fontsize=8.5)
    return made
