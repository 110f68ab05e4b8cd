"""Showcase (b): weights of aggregation learned by derivatives, and the optimum that is known."""

# ruff: noqa: RUF001 -- the labels say α as the papers do

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from fedjax_rl import envs
from fedjax_rl.plotting.style import GREY, OKABE_ITO
from fedjax_rl.studies.claims import control, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.differentiate.learning import (
    UNSEEN,
    Learned,
    descend,
    mdp,
    over_seeds,
    server_errors,
    tables,
)
from fedjax_rl.studies.estimates import exactly, mean_of, measured, ratio
from fedjax_rl.studies.pictures import page, panel
from fedjax_rl.studies.runs import Stage

NOISE = np.array([0.1, 0.1, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0])  # of rewards, by agent
AGENTS = len(NOISE)
LAST = 30  # rounds whose error counts
RATE = 0.15  # of Adam
STYLES = {"uniform": 1, "learned": 0, "optimum": 2}


def late_error(logits, noise, seed, steps: int):
    """Squared error of the server's table in the last rounds, with weights softmax(logits)."""
    algorithm = tables(
        learning_rate=0.05,
        sync_period=10,
        reward_noise=noise,
        aggregation="learned",
        weights=logits,
    )
    return server_errors(algorithm, seed, AGENTS, steps, LAST)


def optimum(noise=NOISE) -> np.ndarray:
    """Weights by the inverse of the variance, [N]: tr C of the TD error and that of the noise."""
    own = envs.linear_theory(mdp(), envs.uniform_policy(mdp())).trace_noise
    best = 1 / (own + noise**2)
    return best / best.sum()


def learn(noises, steps: int, iterations: int, batch: int, report=lambda done, total: None):
    """Logits [R, N] learned under the noises [R, N], each from federations of its own.

    Args:
      noises: standard deviations of the agents' rewards.
      steps: T of a federation.
      iterations: of Adam.
      batch: B, federations of a step.
      report: as of `descend`.

    Returns:
      The `Learned`, with `logits`.
    """
    repeats = len(noises)

    def loss(values, seeds):
        def one(logits, noise, seeds):
            every = jax.vmap(lambda seed: late_error(logits, noise, seed, steps))(seeds)
            return jnp.log(jnp.mean(every))

        return jax.vmap(one)(
            values["logits"], jnp.asarray(noises, float), seeds.reshape(repeats, batch)
        )

    found: Learned = descend(
        loss,
        {"logits": np.zeros_like(noises)},
        steps=iterations,
        rate=RATE,
        batch=repeats * batch,
        report=report,
    )
    return found


def compare(logits, seeds, steps: int) -> np.ndarray:
    """Errors [method, L] of uniform, learned and best weights; of learned ones each in turn."""
    learned = np.resize(logits, (len(seeds), AGENTS))
    every = {
        "uniform": np.zeros_like(learned),
        "learned": learned,
        "optimum": np.broadcast_to(np.log(optimum()), learned.shape),
    }
    assert list(every) == list(STYLES)
    found = over_seeds(
        lambda seed, own: late_error(own, NOISE, seed, steps),
        np.tile(seeds, len(every)),
        np.concatenate(list(every.values())),
    )
    return found.reshape(len(every), len(seeds))


def apart(logits, noise=NOISE) -> np.ndarray:
    """How far softmax(logits) [R, N] is from the optimum: largest entry, [R]."""
    return np.abs(np.asarray(jax.nn.softmax(logits, axis=-1)) - optimum(noise)).max(axis=-1)


def _make(size):
    steps, iterations, batch, repeats, equal, unseen = size.weights

    def make(meter) -> xr.Dataset:
        report = meter.stage("weights")
        same = np.full(AGENTS, np.sqrt(np.mean(NOISE**2)))
        noises = np.stack([NOISE] * repeats + [same] * equal)
        found = learn(noises, steps, iterations, batch, report)
        ours, seeds = found.values["logits"][:repeats], UNSEEN + np.arange(unseen)
        return xr.Dataset(
            {
                "error": (("method", "seed"), compare(ours, seeds, steps)),
                "logits": (("repeat", "agent"), ours),
                "logits_equal": (("equal", "agent"), found.values["logits"][repeats:]),
                "loss": (("iteration", "run"), found.losses),
                "dropped": ((), found.dropped["logits"]),
            },
            {"method": list(STYLES), "seed": seeds},
        )

    return make


@figure("weights", "weights of aggregation learned by derivatives, and the optimum that is known")
def learned_weights(size):
    """Agents whose rewards are noisier are to count less, and by how much is known.

    To leading order the best weights are inverse to the variance of an agent's TD error. Eight
    logits that follow the derivative of the late error find them without being told what noise
    anybody has; where all have the same noise, they stay equal.
    """
    steps, iterations, _, repeats, equal, unseen = size.weights
    stage = Stage("weights", _make(size), 300, (size.weights, NOISE, LAST, RATE))
    error = stage["error"]
    yield number(
        "9.4 weights",
        "max |w - w*|, mean over independent learnings",
        measured(lambda data: mean_of(apart(data["logits"].values)), stage),
        (None, 0.02),
        reference=0.007,
    )
    yield number(
        "9.4 ratio",
        "late squared error of learned weights in parts of that of uniform ones",
        ratio(error["learned"], error["uniform"]),
        (None, 0.55),
        reference=0.475,
    )
    yield number(
        "9.4 optimum",
        "the same in parts of that of the best weights",
        ratio(error["learned"], error["optimum"]),
        (0.97, 1.03),
        reference=1.0,
    )
    yield control(
        "9.4 null",
        "max |w - w*| before anything is learned",
        measured(lambda data: exactly(apart(np.zeros((1, AGENTS)))[0]), stage),
        (None, 0.02),
    )
    yield number(
        "9.4 equal",
        f"max |w - 1/8| where all agents have the same noise, {equal} runs",
        measured(lambda data: mean_of(apart(data["logits_equal"].values, np.ones(AGENTS))), stage),
        (None, 0.02),
    )
    yield page(
        "weights",
        panel(_weights, stage, title="weights of the agents"),
        panel(_losses, stage, title="late error while learning"),
        title=f"FedQ, N = {AGENTS}, K = 10, α = 0.05, {steps} steps; {repeats} learnings of "
        f"{iterations} steps, {unseen} unseen federations",
        height=2.9,
    )


def _weights(axis, data):
    agents = np.arange(AGENTS)
    weights = np.asarray(jax.nn.softmax(data["logits"].values, axis=-1))
    for own in weights:
        axis.plot(agents, own, "o", color=OKABE_ITO[0], markersize=3, alpha=0.5)
    axis.plot([], [], "o", color=OKABE_ITO[0], markersize=3, label="learned, each a learning")
    axis.plot(agents, optimum(), "_", color="black", markersize=16, label="optimum")
    axis.axhline(1 / AGENTS, color=GREY, linestyle=":", lw=1, label="uniform")
    axis.set_xticks(agents, [f"{sd:g}" for sd in NOISE])
    axis.set(xlabel="sd of the noise on an agent's rewards", ylabel="weight")


def _losses(axis, data):
    repeats = data.sizes["repeat"]
    axis.plot(
        np.exp(data["loss"].values[:, :repeats]).mean(axis=1), color=OKABE_ITO[0], label="learned"
    )
    for name in ("uniform", "optimum"):
        height, colour = data["error"].sel({"method": name}).values.mean(), OKABE_ITO[STYLES[name]]
        words = {"uniform": "uniform weights, unseen", "optimum": "best weights, unseen"}[name]
        axis.axhline(height, color=colour, linestyle="--", label=words)
    axis.set(xlabel="step of Adam", ylabel="late squared error", ylim=(0, None))
