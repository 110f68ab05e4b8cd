# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Who should speak, and what does a byte buy?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/communication_efficient.ipynb)
#
# Fifty agents each have something to say after every episode. If only half of them speak, the
# messages cost half as much. Does it matter which half? This notebook lets agents choose by
# themselves, as Gunn proposed in *Communication Efficient Distributed Reinforcement Learning*
# (2023), sees them learn faster with fewer messages, finds out why, and then finds something
# better. The last section asks the same of federated Q-learning and other ways to say less.

# %%
import os
import subprocess
import sys
from importlib.util import find_spec

# Installed where it is missing, with the jax of the accelerator that is there: both move, or none.
if find_spec("fedjax_rl") is None:
    plugins = {"jax_cuda12_plugin": "cuda12", "jax_cuda13_plugin": "cuda13", "libtpu": "tpu"}
    extras = ",".join(extra for plugin, extra in plugins.items() if find_spec(plugin))
    source = "fedjax_rl @ git+https://github.com/fedjax-rl/fedjax_rl"
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, source, f"jax[{extras}]"], check=True)

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## Half of the agents, by their own choice
#
# In evolution strategies (ES, [arXiv 1703.03864](https://arxiv.org/abs/1703.03864)) every agent
# adds noise $\epsilon$ of its own to the learner's parameters, runs one episode and sends a single
# number, the return $F$. The learner knows the seeds, draws the noise again and moves along the
# mean of $F \epsilon$.
#
# In ES with probabilistic communication (ESPC) an agent compares its $F |\epsilon|$ with its own
# last few, and sends with the probability to be among the best $m$ of all $n$. For $m = n$ that is
# ES. Here $n = 50$ and $m$ is 50 or 25, on CartPole, in four forms each: the returns as they are
# (`raw`) or minus their mean over what was received (`center`), with and without a baseline, the
# mean of an agent's own last five returns, which it subtracts before it does anything else.

# %%
N = 50
task = frl.envs.gymnax_task("CartPole-v1")
# Of the thesis; by default all of them would be at the best return soon.
thesis = {"learning_rate": 0.01, "sigma": 0.05}
cartpole = frl.sweep(
    frl.espc(task, **thesis),
    num_agents=N,
    target_senders=[50, 25],
    shaping=["raw", "center"],
    baseline=["none", "own_window"],
    seeds=range(2 if SMALL else 12),
    num_steps=30 if SMALL else 200,
    record_every=1,
    metrics=["reward", "frequency", "size", "reward_of_agent"],
)
end = cartpole.reward.isel(time=slice(-20, None)).mean(["time", "seed"])
print(end.to_series().round(0).unstack("target_senders").to_string())

# %% [markdown]
# The table has the mean return of the last 20 episodes. Of its eight entries four tell the story.
# Lines are means over seeds, shades reach from the 10th to the 90th percentile.

# %%
lines = {
    "ES": {"target_senders": 50, "shaping": "raw", "baseline": "none"},
    "ESPC": {"target_senders": 25, "shaping": "raw", "baseline": "none"},
    "ES centred": {"target_senders": 50, "shaping": "center", "baseline": "none"},
    "ESPC own baseline": {"target_senders": 25, "shaping": "raw", "baseline": "own_window"},
}
runs = {name: cartpole.sel(which) for name, which in lines.items()}
with frl.plotting.style():
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), dpi=80, layout="constrained")
    frl.plotting.banded_curves(
        runs,
        {"reward": "return", "frequency": "messages per agent"},
        level=None,
        window=5,
        axes=axes,
    )
    axes[1].set_ylim(0, 1.1)
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# ESPC learns more than ES from half of the messages. And two lines beat both: ES whose learner
# subtracts the mean return, which costs no message at all, and ESPC whose agents subtract a mean
# of their own. What has been spent, from the ledger:

# %%
print(f"{'':18}  return  kB up  kB down")
for name, run in runs.items():
    last = float(run.reward.isel(time=slice(-20, None)).mean())
    up, down = (float(run[b].mean()) / 1e3 for b in ("bytes_up", "bytes_down"))
    print(f"{name:18}  {last:6.0f}  {up:5.1f}  {down:7.0f}")

# %% [markdown]
# A message up is one number, 4 bytes. The parameters that go down are 130. Where both directions
# cost the same, choosing who speaks saves next to nothing here; it pays where agents share one
# radio channel, or where speaking drains a battery.
#
# ## When does an agent speak?
#
# Say a sample beats another one with probability $p$. It is among the best $m$ of $n$ if it beats
# at least $n - m$ of the $n - 1$ others: $P(\mathrm{Bin}(n-1, p) \ge n-m)$. An agent does not know
# $p$. It takes its window of utilities for Gaussian, and the newest stands $z$ deviations above
# their mean, so that $p = \Phi(z)$.
#
# On the left, that probability. On the right, how often agents then speak: one with a short window
# has a poor idea of the spread, so that from a window of 5 on it speaks a little too often for
# small $m$ and not often enough for large $m$.

# %%
z = np.linspace(-3, 3, 300)
senders = np.arange(N + 1)
with frl.plotting.style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), dpi=90, layout="constrained")
    for m in (5, 15, 25, 35, 45):
        chance = frl.analysis.communication_probability(stats.norm.cdf(z), m, N)
        left.plot(z, chance, label=f"m = {m}")
    left.set(xlabel="standard score z of the newest sample", ylabel="probability to send")
    left.legend()
    for k in (2, 3, 5, 10, 30):
        rate = frl.analysis.normal_window_rate(senders, N, k)
        right.plot(senders, rate, label=f"window of {k}")
    right.plot(senders, senders / N, "k:", label="m / n")
    right.set(xlabel="messages wanted, m", ylabel="messages per agent")
    right.legend()
plt.show()

spoken = float(runs["ESPC"].frequency.isel(time=slice(5, None)).mean())
law = float(frl.analysis.normal_window_rate(25, N, 5))
print(f"CartPole, m = 25, window of 5: {spoken:.3f} messages per agent; Gaussian law {law:.3f}")

# %% [markdown]
# The rule costs nothing to compute and needs no word from anybody else. The returns of CartPole
# are skewed to the right, so that a typical sample looks worse than average and agents are a
# little more silent than the law says.
#
# ## Why choosing helps
#
# Near the learner's parameters a return is a constant, plus a part along the gradient, plus
# chance: $F = b + S (r\,u \cdot \epsilon + \sqrt{1 - r^2}\,\xi)$. The mean of $F \epsilon$ points
# along $u$, but every sample also adds $b\,\epsilon$, which points anywhere. The larger the mean
# return $b$ is against the spread $S$, the more of an ES step is noise. Choosing the samples whose
# return is large makes the *mean* of the noise point along the gradient, so that $b$ helps.
# Subtracting the mean removes the noise itself.

# %%
ratios = np.array([0, 1, 2, 5, 10, 20])
methods = {
    "ES": "raw",
    "ESPC": "probabilistic",
    "ES centred": "center",
    "ESPC own baseline": "probabilistic_baseline",
}
found = {
    name: [
        frl.analysis.signal_to_noise(method, ratio, N, 25, samples=300 if SMALL else 4000)
        for ratio in ratios
    ]
    for name, method in methods.items()
}
fine = np.linspace(0, 20, 200)
closed = {
    "ES": (fine, frl.analysis.ideal_signal_to_noise("raw", fine, N)),
    "ES centred": (fine, frl.analysis.ideal_signal_to_noise("center", fine, N)),
}
# In the runs above: mean over deviation of the agents' returns in an episode.
returns = runs["ES"].reward_of_agent
measured = float((returns.mean("agent") / returns.std("agent")).mean())
frl.plotting.snr(
    ratios,
    {name: [point.value for point in points] for name, points in found.items()},
    closed,
    errors={name: [point.standard_error for point in points] for name, points in found.items()},
    marks={f"CartPole, {measured:.1f}": measured},
)

# %% [markdown]
# That is the order of the learning curves. On the dotted line ESPC is above ES, and what subtracts
# a mean is above ESPC, with or without choosing. So the advantage of ESPC over ES with the same
# agents is real, and it is a remedy for returns that nobody has centred. Once they are, the other
# half of the messages adds something again, as it should.
#
# The table says two more things. With a baseline of the agents' own there is little left for the
# learner to centre. And ESPC that chooses by raw returns and is centred *afterwards* loses what it
# gained: after the choice the returns are all alike, and centring throws away that they were good.
#
# ## The same question for Q-tables
#
# An uplink is a part that fits any algorithm. In federated Q-learning a message is the change of a
# table since the last exchange, 12 numbers here, and there are more ways to say less: let a random
# part speak, send the largest entries with their places (`top_k`), or one scale and the signs
# (`scaled_sign`), both with error feedback
# ([arXiv 2301.00944](https://arxiv.org/abs/2301.00944)); speak when the change is large
# (`event_triggered`, [arXiv 2109.01417](https://arxiv.org/abs/2109.01417)), or when it differs from
# what was sent last (`lazy`, [arXiv 1812.03239](https://arxiv.org/abs/1812.03239)).

# %%
ways = {
    "full": {"": frl.uplinks.full()},
    "partial": {f"{p:g}": frl.uplinks.partial(p) for p in (0.1, 0.3, 0.6)},
    "top-k": {f"k = {k}": frl.uplinks.top_k(k) for k in (1, 2, 4)},
    "scaled sign": {"": frl.uplinks.scaled_sign()},
    "event-triggered": {f"{d:g}": frl.uplinks.event_triggered(d) for d in (0.2, 0.3, 0.4, 0.6)},
    "lazy": {f"{w:g}": frl.uplinks.lazy(w, variance=0) for w in (0.1, 0.5, 1)},
}
if SMALL:  # every kind of uplink is a program to compile
    ways = {way: ways[way] for way in ("full", "top-k", "event-triggered")}
mdp = frl.envs.random_mdp(seed=0)
STEPS, PERIOD = 4_000 if SMALL else 20_000, 100
tables = frl.sweep(
    frl.fedq(mdp, epsilon=1.0, learning_rate=0.1, sync_period=PERIOD),
    num_agents=16,
    uplink=[uplink for settings in ways.values() for uplink in settings.values()],
    seeds=range(2 if SMALL else 12),
    num_steps=STEPS,
    record_every=PERIOD,
)
error = np.log10(tables.error_server.where(tables.time > STEPS / 2).mean("time"))
bytes_each = tables.bytes_up / (16 * STEPS / PERIOD)

points, place = {}, 0
for way, settings in ways.items():
    points[way] = {}
    for setting in settings:
        points[way][setting] = bytes_each.values[place], error.values[place]
        place += 1
with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(7, 4), dpi=90, layout="constrained")
    frl.plotting.pareto(
        points,
        cost="bytes per agent and exchange",
        value="log10 of the server's squared error",
        minimise=True,
        axes=axis,
    )
    axis.legend(loc="upper right", ncols=2)
    axis.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
plt.show()

# %% [markdown]
# Down and to the left is better. The cheap ways are the blind ones: with a tenth of the bytes, a
# random part that speaks, or a scale and the signs, the error is a third larger at most. Waiting
# until one has something to say is dear. An agent that speaks only when its change is large
# reports the unusual, and the mean over those who speak is not the mean over all. (With a `lazy`
# weight of 10 the run diverges: who is silent is taken to repeat its last change, for ever.) So the
# rule that suits evolution strategies does not suit Q-tables, where the message is an average to be
# estimated rather than a sample to be chosen.
#
# ## From here
#
# * What does a constant do that is added to every return? Give `return_offset=[-500.0, 0.0, 500.0]`
#   to the first sweep. Which lines move, and which way?
# * `frl.es(task, shaping="center", uplink=frl.uplinks.partial(0.5))` lets a random half speak. How
#   much of the gain of ESPC with a baseline is left?
# * Evolution strategies have been called unsuitable for grid worlds. Give the first sweep
#   `frl.espc(frl.envs.simple_grid(), network=(4, 4), optimizer="momentum", sigma=0.3, l2=0.0)`, 30
#   agents, `target_senders=[30, 15]` and 500 episodes. The best expected return is -5.22.
# * `fedjax-rl reproduce communication-efficient --scale quick` reproduces the figures of the thesis
#   with a verdict for every number, and the controls behind what was said here.
