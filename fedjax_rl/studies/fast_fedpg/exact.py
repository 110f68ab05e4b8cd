"""Gradients of whole tables: how fast the gap falls, the bias that is left, episodes cut short."""

# ruff: noqa: RUF001 -- the labels say η, γ and − as the papers do

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from fedjax_rl import algorithms, envs
from fedjax_rl.envs import objective
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exact, exactly, measured, power, together
from fedjax_rl.studies.numbers import Number
from fedjax_rl.studies.pictures import against, page
from fedjax_rl.studies.policy_gradients import ENTROPY, m1
from fedjax_rl.studies.runs import STILL, Stage, runs
from fedjax_rl.sweeps.simulate import simulate

GAMMA = 0.8  # of M1
LEVELS = (0.0, 0.1, 0.3, 0.7, 1.0)  # of kernels that differ
LOCAL_STEPS = (10, 20, 40, 80)
SMALL = 2.0  # eta H up to which the first order describes the bias
BOTH = ("gradient_norm", "gap")
EXACT = {"gradient": "exact", "entropy": ENTROPY, "local_steps": 10, "learning_rate": 0.5}
# Whole gradients have no seeds: one run of each, of eight agents.
SHARED = {"num_agents": 8, "double": True, "metrics": (*BOTH, "objective"), "seconds": 15}
whole = functools.partial(runs, trials=1, **SHARED)
METHODS = ["FedPG", "Fast-FedPG", "SCAFFOLD-PG"]


@figure("exact", "exact gradients: gap against rounds, with and without correction")
def convergence(size):
    """With whole gradients the gap of Fast-FedPG falls to rounding at a linear rate.

    It is H times as fast with H local steps, until these are too long (H = 80). FedPG, which is
    Fast-FedPG without the memory, stays where its local steps pull it; corrections of the round
    before (SCAFFOLD-PG) do as well as those of this one. Where kernels differ, too, only FedPG has
    a bias.
    """
    fast, plain = algorithms.fast_fedpg(m1(), **EXACT), algorithms.fedpg(m1(), **EXACT)
    methods = {
        "FedPG": plain,
        "Fast-FedPG": fast,
        "SCAFFOLD-PG": algorithms.scaffold_pg(m1(), **EXACT),
        "no learning": (fast, {"learning_rate": STILL}),
    }
    differ, levels = LEVELS[1:], {level: {"task": m1(kernels=level)} for level in LEVELS}
    one = whole("exact", methods, {"kernels": levels}, num_steps=400, record_every=1)
    steps = {"H": {steps: {"local_steps": steps} for steps in LOCAL_STEPS}}
    more = {"num_steps": 200, "record_every": 1, "trials": size.faster}
    faster = runs("local-steps", {"Fast-FedPG": fast}, steps, **more, **SHARED)
    gap, norm = one["gap"].sel(kernels=0.0), one["gradient_norm"].last()
    many = faster["gap"]["Fast-FedPG"]
    ours, lost = gap["Fast-FedPG"], one["objective"]["Fast-FedPG"] - one["objective"]["FedPG"]
    stale, last = gap["SCAFFOLD-PG"].at(100), ours.at(200).then(np.abs)
    seen = (ours.at(50), ours.at(100), last, stale)
    yield number(
        "A2",
        "Fast-FedPG, eta 0.5, H 10: gap at rounds 50, 100; |gap| at 200; SCAFFOLD-PG at 100",
        together(*map(exact, seen)),
        ((2.5e-6, 3.5e-6), (4e-9, 6e-9), (None, 1e-13), (4e-9, 6e-9)),
        published="a linear rate, no bias",
        reference=(3e-6, 4.8e-9, 1.2e-14, 4.66e-9),
    )
    yield number(
        "A3",
        "FedPG (no memory), the same: gap and gradient norm at round 400",
        together(exact(gap["FedPG"].last()), exact(norm["FedPG"].sel(kernels=0.0))),
        ((1e-3, None), (1e-2, None)),
        published="without the correction, a bias",
        reference=(3.25e-3, 2.63e-2),
    )
    yield number(
        "A6",
        "kernels differ by 0.1, 0.3, 0.7, 1, Fast-FedPG: gradient norm at round 400",
        exact(norm["Fast-FedPG"].sel(kernels=differ)),
        ((None, 1e-12),) * len(differ),
        published="no bias",
        reference=(None, None, 9.8e-16, None),
    )
    yield effect(
        "A6 loss",
        "the same: J of Fast-FedPG less that of FedPG",
        exact(lost.sel(kernels=differ).last()),
        band=((0, None),) * len(differ),
        reference=(None, None, 3.6e-3, None),
    )
    reached = many.until(lambda gaps: gaps < 1e-9)
    yield number(
        "A7",
        "rounds to a gap of 1e-9 with H 10, 20, 40; gap with H 80 after 200",
        together(exact(reached.sel(H=LOCAL_STEPS[:3])), exact(many.sel(H=80).last())),
        ((107, 119), (53, 59), (26, 30), (1e-3, None)),
        published="inverse in H, for steps that are small enough",
        reference=(113, 56, 28, None),
    )
    yield number(
        "claim 1",
        "R² of log gap against rounds, from round 10 to a gap of 1e-12; its slope over eta H",
        measured(lambda data: _line(data, "Fast-FedPG"), one),
        ((0.999, 1), (-0.0271, -0.0245)),
        published="a linear rate",
        reference=(1, -0.0258),
    )
    yield control(
        "claim 1 null",
        "the slope where nothing is learned",
        measured(lambda data: _line(data, "no learning")[1], one),
        (None, -0.001),
    )
    y = {"x": "round", "y": "gap J* − J", "log": "y"}
    shades = dict(zip((f"H = {steps}" for steps in LOCAL_STEPS), (0, 1, 4, 5), strict=True))
    apart = one["gap"][METHODS[:2]].sel(kernels=0.7)
    panels = [
        against(_shown(gap[METHODS]), "time", title="H = 10, one kernel", **y),
        against(_shown(apart), "time", title="H = 10, kernels differ by 0.7", **y),
        against(_shown(many), "time", by="H", title="Fast-FedPG, one kernel", styles=shades, **y),
    ]
    yield page(
        "exact",
        *(panels if faster.there else panels[:2]),
        title="M1, exact gradients, eight agents, η = 0.5",
        legends="below",
    )


def _shown(gaps: Number) -> Number:
    """Every eighth of the first 200 rounds, above rounding."""
    return gaps.then(lambda gaps: gaps.isel(time=slice(1, 200, 8)).where(lambda x: x > 1e-13))


def _line(data, method) -> list:
    """R² and slope over eta H of the logarithm of the gap with H = 10."""
    gaps = data["gap"].sel({"method": method, "kernels": 0.0}).isel(seed=0).values
    end = len(gaps) if gaps.min() > 1e-12 else int(np.argmax(gaps < 1e-12))
    rounds, logs = np.arange(10, end + 1), np.log(gaps[9:end])
    line = np.polyfit(rounds, logs, 1)
    left = logs - np.polyval(line, rounds)
    return [exactly(1 - left.var() / max(logs.var(), 1e-300)), exactly(line[0] / (0.5 * 10))]


@figure("bias", "where FedPG ends: bias against steps and against heterogeneity")
def bias(size):
    """FedPG ends where its local steps balance.

    To first order the gradient is there -η (H - 1) / 2 times the mean of Hessians times gradients
    of the agents: linear in the reach η (H - 1) of the local steps, quadratic in how far rewards
    differ. The gap is the square of that.
    """
    plain = algorithms.fedpg(m1(), **EXACT)
    axes = {"local_steps": size.reaches, "learning_rate": (0.1, 0.2, 0.5)}
    length = {"num_steps": 4_000, "record_every": 4_000}
    steps = whole("bias", {"FedPG": plain}, axes, **length)
    spreads = {"spread": {spread: {"task": m1(spread)} for spread in (0.25, 0.5, 1.0)}}
    apart = whole("spread", {"FedPG": (plain, {"learning_rate": 0.1})}, spreads, **length)
    reach = {name: steps[name]["FedPG"].last().then(_by_reach) for name in BOTH}
    spread = {name: apart[name]["FedPG"].last() for name in BOTH}

    def exponents(kind, dim):
        return [exact(kind[name].then(lambda own: _slope(own, dim))) for name in BOTH]

    yield number(
        "A4",
        "exponents of FedPG's bias: gradient norm in eta (H-1), gap in it, both in the spread of "
        "rewards",
        together(*exponents(reach, "reach"), *exponents(spread, "spread")),
        ((0.9, 1.05), (1.8, 2.1), (1.9, 2.1), (3.7, 4.2)),
        reference=(0.97, 1.93, 2.00, 3.99),
    )
    yield number(
        "A5",
        "predicted bias, eta 0.01, H 10: measured norm over predicted, cosine",
        measured(_agreement, Stage("formula", _formula, 15)),
        ((0.97, 1.03), (0.999, None)),
        reference=(0.99, 1.0),
    )
    y = {"by": "of", "y": "at the fixed point of FedPG"}
    yield page(
        "bias",
        against(_both(reach), "reach", title="η H at most 2", x="η (H − 1)", ideal=(1, "∝ x"), **y),
        against(_both(spread), "spread", title="η = 0.1, H = 10", x="spread of the rewards", **y),
        title="M1, exact gradients, eight agents",
    )


def _by_reach(array: xr.DataArray) -> xr.DataArray:
    """Fixed points of small steps by how far local steps reach."""
    flat = array.stack(point=("local_steps", "learning_rate"))
    steps, rates = flat["local_steps"].values, flat["learning_rate"].values
    flat = flat.drop_vars(("point", "local_steps", "learning_rate")).rename(point="reach")
    flat = flat.assign_coords(reach=(steps - 1) * rates)
    return flat.isel(reach=steps * rates <= SMALL).sortby("reach")


def _slope(array: xr.DataArray, dim: str) -> xr.DataArray:
    values = array.transpose("seed", dim).values
    return xr.DataArray([power(array[dim].values, own) for own in values], dims="seed")


def _both(kinds: dict[str, Number]) -> Number:
    """The norm of the gradient and the gap as two lines."""
    norm, gap = (kinds[name] for name in BOTH)
    words = pd.Index(["norm of the gradient", "gap"], name="of")
    return Number(lambda results: xr.concat([norm(results), gap(results)], words), norm.needs)


def _formula(meter) -> xr.Dataset:
    """The gradient at the fixed point of FedPG and its prediction, eta 0.01, H 10: [entry]."""
    report = meter.stage("formula")
    mdps, rate, steps = envs.dirichlet_mdps(8), 0.01, 10

    def value(x, mdp):
        return objective.value(mdp, x.reshape(5, 3), ENTROPY)

    @jax.jit
    def both():
        algorithm = algorithms.fedpg(m1(), **{**EXACT, "learning_rate": rate})
        made = simulate(algorithm, num_agents=8, num_steps=12_000, record_every=12_000)
        end = made.state.server.parameters[0]
        each = jax.vmap(jax.grad(value), (None, 0))(end, mdps)
        hessians = jax.vmap(jax.hessian(value), (None, 0))(end, mdps)
        along = jnp.mean(jax.vmap(jnp.matmul)(hessians, each), axis=0)
        return jnp.mean(each, axis=0), -rate * (steps - 1) / 2 * along

    with jax.enable_x64(True):
        found = [("entry", np.asarray(x)) for x in both()]
    report(1, 1)
    return xr.Dataset(dict(zip(("measured", "predicted"), found, strict=True)))


def _agreement(data) -> list:
    measured, predicted = data["measured"].values, data["predicted"].values
    norms = np.linalg.norm(measured), np.linalg.norm(predicted)
    return [exactly(norms[0] / norms[1]), exactly(measured @ predicted / np.prod(norms))]


@figure("truncation", "episodes cut short")
def truncation(size):
    """Gradients of K steps see a part γ^K of the return less, and the fixed point is as far off.

    Its gradient falls as γ^K, its gap as γ^2K, both straight lines here.
    """
    cut = algorithms.fast_fedpg(m1(), **{**EXACT, "gradient": "truncated"})
    lengths = {"length": {length: {"task": m1(max_steps=length)} for length in size.cuts}}
    ends = whole("truncation", {"Fast-FedPG": cut}, lengths, num_steps=200, record_every=200)
    ends = {name: ends[name]["Fast-FedPG"].last() for name in BOTH}

    def decay(name, order):
        def of(array):
            logs = np.log(array.transpose("length", "seed").values)
            return (
                array.isel(length=0) * 0 + np.exp(np.polyfit(size.cuts, logs, 1)[0]) / GAMMA**order
            )

        return exact(ends[name].then(of))

    yield number(
        "claim 3",
        "episodes cut at K: decay per step of the gradient's norm over gamma, of the gap over "
        "gamma^2",
        together(decay("gradient_norm", 1), decay("gap", 2)),
        ((0.95, 1.05), (0.95, 1.05)),
        published="an error of the order gamma^K",
        reference=(1, 1),
    )
    y = {"log": "y", "x": "K, steps of an episode", "y": "after 200 rounds"}
    title = "Fast-FedPG, M1, gradients of K steps"
    yield page("truncation", against(_both(ends), "length", by="of", title=title, **y))
