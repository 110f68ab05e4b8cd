"""Showcase (c): when to exchange, by derivatives with respect to how much is exchanged."""

# ruff: noqa: RUF001 -- the labels say α as the papers do

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

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
from fedjax_rl.studies.estimates import exact, measured, of_means, seeds_apart, together
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import Stage
from fedjax_rl.sweeps.simulate import simulate

AGENTS, ALPHA = 8, 0.3
KNOTS = 16  # equally far apart in time
PRICES = (0.0005, 0.0015, 0.005, 0.015)  # of one exchange, in units of the logarithm of the error
FIRST = 0.05  # c everywhere, before anything is learned
RATE = 0.2  # of Adam
CHECKED = 20  # a period that is also run as a period


def shares(logits, times, steps: int):
    """The c at some times: the logistic function of what is linear between knots.

    Args:
      logits: [KNOTS].
      times: any shape.
      steps: T, at which the last knot is.
    """
    places = jnp.linspace(0.0, float(steps), KNOTS)
    return jax.nn.sigmoid(jnp.interp(jnp.asarray(times, float), places, logits))


def hardened(c) -> np.ndarray:
    """Exchanges [T] of 0 and 1: one whenever the c so far have added up to another one."""
    so_far = np.floor(np.cumsum(np.asarray(c, np.float64)) + 0.5)
    return np.diff(so_far, prepend=0.0).clip(0, 1)


def periodic(period: int, steps: int) -> np.ndarray:
    """Exchanges [T] after every so many steps."""
    return (np.arange(1, steps + 1) % period == 0).astype(float)


def count(exchanges) -> np.ndarray:
    """How many there are to pay for: those before the end, and one that collects the result.

    An exchange after the last step, which changes nothing of the mean, is that one.

    Args:
      exchanges: [..., T].
    """
    return 1 + np.sum(exchanges[..., :-1], axis=-1)


def final_error(c, seed, steps: int):
    """Squared error of the mean table at the end; after step t tables move `c(t)` of the way."""
    algorithm = tables(learning_rate=ALPHA, sync_period=1, mixing=schedule(c))
    return server_errors(algorithm, seed, AGENTS, steps)


def periods(steps: int) -> list[int]:
    """The periods that learned exchanges are compared with."""
    return [own for own in (1, 2, 3, 5, 8, 12, CHECKED, 30, 50, 80, 125, 200, 350) if own < steps]


def learn(prices, steps: int, iterations: int, batch: int, report=lambda done, total: None):
    """Logits [price, KNOTS] that lower log E(error) + price * sum of c.

    Args:
      prices: of an exchange.
      steps: T of a federation.
      iterations: of Adam.
      batch: federations of a step, the same for all prices.
      report: as of `descend`.

    Returns:
      The `Learned`, with `logits`.
    """
    prices = jnp.asarray(prices, float)

    def one(logits, price, seeds):
        every = jax.vmap(
            lambda seed: final_error(lambda time: shares(logits, time, steps), seed, steps)
        )(seeds)
        spent = jnp.sum(shares(logits, jnp.arange(1, steps + 1), steps))
        return jnp.log(jnp.mean(every)) + price * spent

    first = np.full((len(prices), KNOTS), np.log(FIRST / (1 - FIRST)))
    return descend(
        lambda values, seeds: jax.vmap(one, (0, 0, None))(values["logits"], prices, seeds),
        {"logits": first},
        steps=iterations,
        rate=RATE,
        batch=batch,
        report=report,
    )


def _make(size):
    steps, iterations, batch, unseen = size.exchanges

    def make(meter) -> xr.Dataset:
        report = meter.stage("exchanges")
        learned = learn(
            PRICES, steps, iterations, batch, lambda done, total: report(3 * done / total, 5)
        )
        times = np.arange(1, steps + 1)
        soft = np.stack([shares(own, times, steps) for own in learned.values["logits"]])
        hard = np.stack([hardened(own) for own in soft])
        every = [periodic(own, steps) for own in periods(steps)]
        seeds = UNSEEN + np.arange(unseen)

        def errors(exchanges):
            """[row, seed]."""
            table = jnp.asarray(np.stack(exchanges), float)
            which = np.repeat(np.arange(len(table)), unseen)
            found = over_seeds(
                lambda seed, own: final_error(lambda time: table[own, time - 1], seed, steps),
                np.tile(seeds, len(table)),
                which,
            )
            return found.reshape(len(table), unseen)

        rows = [*hard, *hard[:, ::-1], *soft, *every]
        found = np.split(errors(rows), np.cumsum([len(PRICES)] * 3))
        report(4, 5)
        by_period = tables(learning_rate=ALPHA, sync_period=CHECKED)
        same = over_seeds(lambda seed: server_errors(by_period, seed, AGENTS, steps), seeds[:64])
        ledger = simulate(by_period, num_agents=AGENTS, num_steps=steps).state.ledger.totals()
        place = periods(steps).index(CHECKED)
        report(5, 5)
        return xr.Dataset(
            {
                "hard": (("price", "seed"), found[0]),
                "reversed": (("price", "seed"), found[1]),
                "relaxed": (("price", "seed"), found[2]),
                "periodic": (("period", "seed"), found[3]),
                "apart": (("one", "checked"), [found[3][place, : len(same)] / same - 1]),
                "share": (("price", "step"), soft),
                "exchanges": (("price", "step"), hard),
                "count": (("one", "price"), [count(hard)]),
                "count_periodic": (("one", "period"), [count(np.stack(every))]),
                "bytes": ((), float(ledger["bytes_up"][0] + ledger["bytes_down"][0])),
                "loss": (("iteration", "price"), learned.losses),
                "dropped": ((), learned.dropped["logits"]),
            },
            {"price": list(PRICES), "period": periods(steps), "seed": seeds},
        )

    return make


def _at(counts, errors, wanted):
    """Errors of periods where the number of exchanges is another: linear between logarithms."""
    order = np.argsort(counts)
    return np.interp(np.log(wanted), np.log(counts[order]), np.log(errors[order]))


def _advantages(data, name: str) -> list:
    """By price: log of the error of a period with as many exchanges, less that of a schedule."""
    counts = data["count_periodic"].values[0]

    def advantage(wanted):
        return lambda theirs, ours: float(_at(counts, theirs, wanted) - np.log(ours))

    theirs = data["periodic"].transpose("seed", "period").values
    return [
        seeds_apart(advantage(wanted), theirs, ours)
        for wanted, ours in zip(data["count"].values[0], data[name].values, strict=True)
    ]


def _savings(data) -> list:
    """By price: exchanges of the period with the same error, in parts of those learned."""
    counts = data["count_periodic"].values[0]

    def saving(own):
        def of(theirs, ours):
            order = np.argsort(-theirs)
            same = np.interp(-np.log(ours), -np.log(theirs[order]), np.log(counts[order]))
            return float(np.exp(same) / own)

        return of

    theirs = data["periodic"].transpose("seed", "period").values
    return [
        seeds_apart(saving(own), theirs, ours)
        for own, ours in zip(data["count"].values[0], data["hard"].values, strict=True)
    ]


@figure("exchanges", "when to exchange: a budget spent where derivatives say, against every period")
def learned_exchanges(size):
    """An exchange after every step, of which c is taken over, has a derivative; a period has none.

    Each unit of c costs a price. What is learned under several prices is then made hard: whole
    exchanges where the c add up to one, of which all errors are. Early exchanges, which are
    forgotten by the end, are not worth their price, and late ones are: at the same number of
    exchanges the error is lower than that of any fixed period, and the same exchanges in reverse
    order are worse than it.
    """
    steps, iterations, _, unseen = size.exchanges
    of = (size.exchanges, PRICES, AGENTS, ALPHA, RATE, periods(steps))
    stage = Stage("exchanges", _make(size), 300, of)
    several = len(PRICES)
    yield effect(
        "when error",
        "log of the error of a period with as many exchanges, less that of learned ones, by price",
        measured(lambda data: _advantages(data, "hard"), stage),
        band=((0, None),) * several,
    )
    yield number(
        "when saved",
        "exchanges of the period with the same error, in parts of the learned ones, by price",
        measured(_savings, stage),
        ((1.5, None),) * several,
    )
    yield control(
        "when null",
        "the first where the learned exchanges are in reverse order, by price",
        measured(lambda data: _advantages(data, "reversed"), stage),
        ((0, None),) * several,
    )
    yield number(
        "when hard",
        "error of whole exchanges in parts of that of the c that they stand for, by price",
        together(
            *(
                of_means(
                    lambda a, b: float(a / b),
                    stage["hard"].sel(price=price),
                    stage["relaxed"].sel(price=price),
                )
                for price in PRICES
            )
        ),
        ((0.9, 1.1),) * several,
    )
    yield number(
        "when same",
        f"exchanges after every {CHECKED} steps against sync_period={CHECKED}: largest relative "
        "difference of 64 errors",
        exact(stage["apart"].then(lambda own: abs(own).max("checked").rename(one="seed"))),
        (None, 1e-4),
    )
    yield page(
        "exchanges",
        panel(_shares, stage, title="share c exchanged after step t"),
        panel(_frontier, stage, title=f"error against bytes, {unseen} unseen federations"),
        title=f"FedQ, N = {AGENTS}, α = {ALPHA}, {steps} steps; {iterations} steps of Adam a price",
        height=3.0,
    )


def _shares(axis, data):
    times = np.arange(1, data.sizes["step"] + 1)
    for place, price in enumerate(data["price"].values):
        own = data.sel(price=price)
        colour = OKABE_ITO[place]
        axis.plot(times, own["share"], color=colour, label=f"price {price:g}")
        fired = times[own["exchanges"].values > 0]
        axis.plot(fired, np.full(len(fired), 7e-5 * 1.9**place), "|", color=colour, ms=4, mew=0.6)
    axis.set(yscale="log", xlabel="step t", ylabel="c; ticks: whole exchanges", ylim=(5e-5, 1))


def _frontier(axis, data):
    each = data["bytes"].item() / data["count_periodic"].sel(period=CHECKED).values[0]

    def drawn(counts, errors, marker, colour, label, line=False):
        means, count = errors.mean(axis=1), errors.shape[1]
        order = np.argsort(counts)
        bars = 1.96 * errors.std(axis=1) / count**0.5
        axis.errorbar(
            (each * counts)[order],
            means[order],
            bars[order],
            fmt=marker + ("-" if line else ""),
            color=colour,
            ms=3.5,
            lw=1,
            label=label,
        )

    own, theirs = data["count"].values[0], data["count_periodic"].values[0]
    drawn(theirs, data["periodic"].values, "s", GREY, "every K steps", line=True)
    drawn(own, data["hard"].values, "o", "black", "learned, whole exchanges", line=True)
    drawn(own, data["reversed"].values, "v", OKABE_ITO[4], "the same in reverse")
    axis.set(xscale="log", yscale="log", xlabel="bytes up and down", ylabel="final squared error")
