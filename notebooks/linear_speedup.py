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
# # Linear speedup in five minutes: are N agents N times as fast?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/linear_speedup.ipynb)
#
# N agents each learn a Q-table from their own trajectory and average the tables after every K
# steps. This notebook measures how much faster they are than one agent, what the averaging costs
# in bytes, and how the error changes with the learning rate, by differentiating through the whole
# simulation.

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
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## The question, in ten lines
#
# A random MDP with four states and three actions; five federations of 1 to 16 agents, two
# periods, a few seeds. A list sweeps. `learning_rate` is given as a function of N, because that
# is the claim: averaging N tables divides the variance of the noise by N, so N agents can afford
# a learning rate N times as large and reach the *same* error in 1/N of the steps.

# %%
mdp = frl.envs.random_mdp(seed=0)
result = frl.sweep(
    frl.fedq(mdp, epsilon=1.0),
    num_agents=[1, 2, 4, 8, 16],
    sync_period=[1, 1000],
    learning_rate=frl.by_agents(lambda num_agents: 0.005 * num_agents),
    seeds=range(2 if SMALL else 6),
    num_steps=100_000,
    record_every=100,
)
frl.summary(result)

# %% [markdown]
# The result is a labelled array, and this its summary: a dimension per list, the learning rate
# along `num_agents`, errors at 1000 moments, and the ledger of what was sent. `error_server` is
# the squared distance $\|\bar q - q^*\|_F^2$ of the averaged table to the exact solution, which
# for a tabular MDP is known.
#
# ## The linear speedup
#
# For each run, the first recorded time at which the error is below 0.1, against N. The dashed
# line is exactly N times faster; the fitted slopes stand in the legend.

# %%
frl.plotting.speedup(result, threshold=0.1)

# %% [markdown]
# A slope of -1 on these axes is a linear speedup: -1.01 ± 0.01 (standard error) is measured.
# With K = 1 the agents talk after every step. With K = 1000 they talk a thousand times less often
# and lose little.
#
# ## What does talking buy?
#
# Now N = 16 and one learning rate, and only K differs. Each exchange costs 16 tables up and 16
# down. The ledger has counted the bytes; the error is the mean of the last half of each run.

# %%
periods = [1, 10, 100, 1000] if SMALL else [1, 3, 10, 30, 100, 300, 1000, 3000]
trade = frl.sweep(
    frl.fedq(mdp, epsilon=1.0, learning_rate=0.1),
    num_agents=16,
    sync_period=periods,
    seeds=range(2 if SMALL else 8),
    num_steps=12_000 if SMALL else 60_000,
    record_every=100,
)
settled = trade.error_server.where(trade.time > trade.time[-1] / 2).mean("time")
traffic = (trade.bytes_up + trade.bytes_down).isel(seed=0) / 1e6

with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    middle = settled.median("seed")
    axis.fill_between(traffic, settled.min("seed"), settled.max("seed"), alpha=0.25, lw=0)
    axis.plot(traffic, middle, "o-", label="server average, median and range over seeds")
    for x, y, period in zip(traffic.values, middle.values, periods, strict=True):
        near = {"textcoords": "offset points", "xytext": (4, 6), "fontsize": 7}
        axis.annotate(f"K = {period}", (x, y), **near)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="megabytes sent by the federation",
        ylabel="steady-state error",
        title="N = 16, learning rate 0.1",
    )
    axis.margins(x=0.12)
    axis.legend()
plt.show()

# %% [markdown]
# The curve is flat on the right: frequent averaging buys nothing there. Past the knee the agents
# learn alone for long enough to drift, and the average of drifted tables is not the table of the
# average. The max in the update, a convex function, makes sure of that.
#
# ## A gradient through the simulation
#
# `frl.simulate` is one federation as a pure function. With `epsilon=1.0` actions do not depend on
# the table, so the trajectory stays put when the learning rate moves, and the derivative of the
# error with respect to it is exact. (With softmax or greedy behaviour it would not be, and
# `fedjax_rl` refuses.) Averaged over seeds, it is the slope of the expected error.

# %%
SEEDS = jnp.arange(16 if SMALL else 256)
STEPS = 1_000


def error(learning_rate):
    """Mean over seeds of the final error of 8 agents that average every 10 steps."""
    algorithm = frl.fedq(mdp, epsilon=1.0, learning_rate=learning_rate, sync_period=10)

    def one(seed):
        run = frl.simulate(algorithm, num_agents=8, num_steps=STEPS, seed=seed, record_every=STEPS)
        return run.metrics["error_server"][-1]

    return jnp.mean(jax.vmap(one)(SEEDS))


curve = jax.jit(error)
slope_of = jax.jit(jax.grad(error))

alpha, h = 0.2, 1e-2
slope = slope_of(alpha)
difference = (curve(alpha + h) - curve(alpha - h)) / (2 * h)
print(f"derivative {slope:.4f}, central difference {difference:.4f}")

# %% [markdown]
# They agree up to the difference's own error of order $h^2$ and float32 rounding. Drawn as a
# tangent:

# %%
rates = np.geomspace(0.02, 0.6, 8 if SMALL else 16)
errors = [curve(rate) for rate in rates]
# A tangent of slope e' is, on logarithmic axes, a power law of exponent alpha e' / e.
near = np.geomspace(0.6 * alpha, 1.5 * alpha, 2)
tangent = curve(alpha) * (near / alpha) ** (alpha * slope / curve(alpha))

with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    axis.plot(rates, errors, "o-", label=f"error after {STEPS} steps")
    axis.plot(near, tangent, "--", label="tangent from jax.grad")
    axis.plot(alpha, curve(alpha), "ks")
    axis.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="mean error over seeds")
    axis.minorticks_off()
    ticks = [0.02, 0.05, 0.1, 0.2, 0.5]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.legend()
plt.show()

# %% [markdown]
# Too small a rate has not arrived yet, too large a rate is noisy; a gradient step finds the
# bottom. The same works for a schedule of rates, for aggregation weights and for mixing
# coefficients.
#
# ## From here
#
# `fedjax-rl reproduce linear-speedup --scale quick` reproduces the paper's figures with a verdict
# for every published number. To ask your own question, put another list into `frl.sweep`:
# `participation=[0.1, 0.5, 1.0]`, `aggregation=["mean", "importance"]`, a family of different
# MDPs.
