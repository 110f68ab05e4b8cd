"""Showcase (a): a step-size schedule learned by the derivative of the final error."""

# ruff: noqa: RUF001 -- the labels say α and λ as the papers do

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.fields import schedule
from fedjax_rl.plotting.style import GREY, OKABE_ITO
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.differentiate.learning import (
    UNSEEN,
    descend,
    over_seeds,
    server_errors,
    tables,
)
from fedjax_rl.studies.estimates import exactly, measured, of_means, ratio
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import Stage

AGENTS, PERIOD = 16, 10
KNOTS = 16
SHIFT = 10.0  # knots are equally far apart in log(t + 10)
CONSTANTS = (0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)
HYPERBOLAS = tuple(itertools.product((0.3, 0.6, 0.9), (20, 40, 80, 160)))  # a and b of a/(1 + t/b)
RATE = 0.12  # of Adam


def knots(steps: int) -> np.ndarray:
    """Where the schedule of so many steps has its knots, in log(t + 10)."""
    return np.linspace(np.log(SHIFT), np.log(steps + SHIFT), KNOTS)


def interpolated(logits, places, times):
    """Step sizes between knots: the logistic function of what is linear in log(t + 10).

    Args:
      logits: [KNOTS].
      places: [KNOTS], from `knots`.
      times: any shape.
    """
    when = jnp.log(jnp.asarray(times, float) + SHIFT)
    return jax.nn.sigmoid(jnp.interp(when, jnp.asarray(places, float), logits))


def final_error(rates, seed, steps: int):
    """Squared error of the server's table at the end, with `rates(t)` as the step size."""
    algorithm = tables(sync_period=PERIOD, learning_rate=schedule(rates))
    return server_errors(algorithm, seed, AGENTS, steps)


def by_hand(steps: int) -> dict[str, np.ndarray]:
    """The schedules that are tried by hand, name -> [T]."""
    times = np.arange(steps)
    tried = {f"constant {rate:g}": np.full(steps, rate) for rate in CONSTANTS}
    return tried | {f"{a:g} / (1 + t/{b:g})": a / (1 + times / b) for a, b in HYPERBOLAS}


def learn(start: float, steps: int, iterations: int, batch: int, report=lambda done, total: None):
    """Logits of the knots that lower the logarithm of the mean final error.

    Args:
      start: the step size everywhere, before anything is learned.
      steps: T of a federation.
      iterations: of Adam.
      batch: federations of a step.
      report: as of `descend`.

    Returns:
      The `Learned`, with `logits`.
    """
    places = knots(steps)

    def loss(values, seeds):
        def rates(time):
            return interpolated(values["logits"], places, time)

        every = jax.vmap(lambda seed: final_error(rates, seed, steps))(seeds)
        return jnp.log(jnp.mean(every))

    first = {"logits": np.full(KNOTS, np.log(start / (1 - start)))}
    return descend(loss, first, steps=iterations, rate=RATE, batch=batch, report=report)


def rates_of(logits, steps: int) -> np.ndarray:
    """Step sizes [T] of learned logits."""
    return np.asarray(interpolated(logits, knots(steps), np.arange(steps)))


def compare(rates, seeds) -> np.ndarray:
    """Final errors [R, L] of the step sizes [R, T] on the same federations."""
    every = jnp.asarray(np.stack(rates), float)
    which, steps = np.repeat(np.arange(len(every)), len(seeds)), every.shape[1]
    found = over_seeds(
        lambda seed, own: final_error(lambda time: every[own, time], seed, steps),
        np.tile(seeds, len(every)),
        which,
    )
    return found.reshape(len(every), len(seeds))


def _make(size):
    steps, iterations, batch, chosen_on, unseen = size.schedule

    def make(meter) -> xr.Dataset:
        report = meter.stage("schedule")
        # Chosen and learned on federations other than those that all are compared on.
        tried = by_hand(steps)
        means = compare(list(tried.values()), UNSEEN // 2 + np.arange(chosen_on)).mean(axis=1)
        means = dict(zip(tried, means, strict=True))
        constant = min((name for name in tried if name.startswith("constant")), key=means.get)
        hyperbola = min((name for name in tried if "t/" in name), key=means.get)
        report(1, 5)
        start = float(constant.removeprefix("constant "))
        learned = learn(
            start, steps, iterations, batch, lambda done, total: report(1 + 3 * done / total, 5)
        )
        ours = rates_of(learned.values["logits"], steps)
        methods = {
            "constant": tried[constant],
            "hyperbola": tried[hyperbola],
            "learned": ours,
            "learned, in reverse": ours[::-1],
        }
        seeds = UNSEEN + np.arange(unseen)
        found = compare(list(methods.values()), seeds)
        report(5, 5)
        return xr.Dataset(
            {
                "error": (("method", "seed"), found),
                "rate": (("method", "step"), list(methods.values())),
                "loss": ("iteration", learned.losses),
                "tried": ("table", list(means.values())),
                "dropped": ((), learned.dropped["logits"]),
            },
            {"method": list(methods), "table": list(means), "seed": seeds},
            {"constant": constant, "hyperbola": hyperbola},
        )

    return make


@figure("schedule", "a step-size schedule learned by the derivative of the final error")
def learned_schedule(size):
    """Sixteen knots of a schedule follow the derivative of the logarithm of the final error.

    They begin at the best constant and are told nothing else. What they find is what theory of one
    table asks for, nearly 1 at first and then a multiple of 1/t, and it is better than any constant
    and than any hyperbola that was tried. All are compared on federations that none was chosen on.
    """
    steps, iterations, *_, unseen = size.schedule
    stage = Stage("schedule", _make(size), 400, (size.schedule, CONSTANTS, HYPERBOLAS, RATE))
    error = stage["error"]
    constant, hyperbola, ours, reverse = (
        error[name] for name in ("constant", "hyperbola", "learned", "learned, in reverse")
    )
    yield number(
        "9.3 by hand",
        "squared error of the best constant of ten, and of the best hyperbola of twelve",
        error[["constant", "hyperbola"]],
        ((0.0090, 0.0106), (0.0033, 0.0040)),
        reference=(0.00980, 0.00361),
    )
    yield number(
        "9.3 learned",
        "squared error of the learned schedule on federations that it has not seen",
        ours,
        (None, 0.0036),
        reference=0.00326,
    )
    yield number(
        "9.3 times",
        "squared error of the best constant in parts of that of the learned schedule",
        ratio(constant, ours),
        (2.7, None),
        reference=3.0,
    )
    yield effect(
        "9.3 hyperbola",
        "log of the mean error of the best hyperbola, less that of the learned schedule",
        of_means(lambda a, b: float(np.log(a / b)), hyperbola, ours),
        reference=0.102,
    )
    yield control(
        "9.3 null",
        "best constant in parts of the learned schedule where its times are reversed",
        ratio(constant, reverse),
        (2.7, None),
    )
    yield number(
        "9.3 rate",
        "learned α at 0, 57; α t at 439, 951, 2047",
        measured(_looked_at, stage),
        ((0.5, 1), (0.4, 1), (25, 50), (22, 44), (18, 40)),
        reference=(0.89, 0.70, 36.9, 33.3, 28.7),
    )
    yield page(
        "schedule",
        panel(_rates, stage, title="step size"),
        panel(_errors, stage, title=f"final error, {unseen} unseen federations"),
        panel(_losses, stage, title=f"{iterations} steps of Adam"),
        title=f"FedQ, N = {AGENTS}, K = {PERIOD}, {steps} steps, uniform behaviour",
        height=2.9,
    )


def _looked_at(data) -> list:
    rate = data["rate"].sel({"method": "learned"}).values
    times = [time for time in (0, 57, 439, 951, 2047)]
    found = [rate[min(time, len(rate) - 1)] for time in times]
    return [exactly(r * t if t > 100 else r) for r, t in zip(found, times, strict=True)]


STYLES = {"constant": 1, "hyperbola": 2, "learned": 0, "learned, in reverse": 3}


def _rates(axis, data):
    times = np.arange(data.sizes["step"])
    for name in ("constant", "hyperbola", "learned"):
        words = data.attrs.get(name, name)
        rate = data["rate"].sel({"method": name})
        axis.plot(times + 1, rate, color=OKABE_ITO[STYLES[name]], label=words)
    theory = envs.linear_theory(tables().config.mdp, envs.uniform_policy(tables().config.mdp))
    asked = 1 / (theory.rate * (times + 1))
    axis.plot(
        times + 1, np.where(asked < 1, asked, np.nan), "--", color=GREY, lw=1, label="1/(λ t)"
    )
    axis.set(xscale="log", yscale="log", xlabel="step t + 1", ylabel="α")


def _errors(axis, data):
    names = list(data["method"].values)
    for place, name in enumerate(names):
        own = data["error"].sel({"method": name}).values
        low, high = (np.mean(own) + sign * 1.96 * np.std(own) / len(own) ** 0.5 for sign in (-1, 1))
        colour = OKABE_ITO[STYLES[name]]
        axis.plot([place, place], [low, high], color=colour)
        axis.plot(place, own.mean(), "o", color=colour)
        words = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "fontsize": 7}
        axis.annotate(f"{own.mean():.2g}", (place, own.mean()), **words)
    axis.set(yscale="log", ylabel="squared error", xlim=(-0.5, len(names) - 0.5))
    words = [name.replace(", ", "\n") for name in names]
    axis.set_xticks(range(len(names)), words, fontsize=6, rotation=25)
    axis.margins(y=0.2)


def _losses(axis, data):
    axis.plot(np.exp(data["loss"]), color=OKABE_ITO[0], lw=0.8)
    axis.set(yscale="log", xlabel="step of Adam", ylabel="mean error of a batch")
