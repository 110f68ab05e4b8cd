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
# # What would have happened if: derivatives of a whole federation
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/differentiate.ipynb)
#
# A federation of N agents is one pure function here: hundreds of environment steps, local updates
# and exchanges. So the error at its end has a derivative by how it is run: by the step size, by the
# weights of the average, by how greedily agents act. Some of these derivatives are exact, some have
# to be estimated, and some do not exist. Each is one line, and says which it is.

# %%
import os
import subprocess
import sys
import warnings
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
import optax

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## A step size that is learned, in 13 lines
#
# The server moves along the mean change of its agents by `optax.sgd(step)`. How long should its
# step be? Adam finds out, by derivatives through 300 steps of four agents, on fresh seeds each
# time.

# %%
mdp = frl.envs.paper_mdp()


def loss(log_step, seed):
    """The error of the server at the end of a run."""
    server = optax.sgd(jnp.exp(log_step))
    own = frl.fedq(mdp, epsilon=1.0, learning_rate=0.02, sync_period=10, server_optimizer=server)
    run = frl.simulate(own, num_agents=4, num_steps=300, seed=seed)
    return run.metrics["error_server"][-1]


mean_loss = lambda x, seeds: jnp.mean(jax.vmap(loss, (None, 0))(x, seeds))
value_and_slope, adam, x = jax.jit(jax.value_and_grad(mean_loss)), optax.adam(0.1), jnp.log(1.1)
memory, path = adam.init(x), []
for i in range(5 if SMALL else 60):
    value, slope = value_and_slope(x, jnp.arange(8 * i, 8 * i + 8))
    path.append((float(jnp.exp(x)), float(value)))
    update, memory = adam.update(slope, memory)
    x = x + update
print(f"step {path[0][0]:.2f} -> {path[-1][0]:.2f}, error {path[0][1]:.2f} -> {path[-1][1]:.2f}")

# %% [markdown]
# ## The same with a standard error
#
# `frl.differentiate` takes the derivative of a metric by properties, by name, over several seeds in
# one program, and says how sure it is. The tangents it finds lie along the curve that a sweep of
# learning rates draws.

# %%
algorithm = frl.fedq(mdp, epsilon=1.0, sync_period=10)
sizes = {"num_agents": 8, "num_steps": 600}
seeds = range(4 if SMALL else 64)
curve = frl.sweep(
    algorithm,
    learning_rate=list(np.geomspace(0.02, 0.5, 12)),
    seeds=seeds,
    record_every=600,
    **sizes,
)
error = curve.error_server.isel(time=-1).mean("seed")
with frl.plotting.style():
    plt.figure(figsize=(5, 3.2), dpi=90, layout="constrained")
    plt.plot(error.learning_rate, error, color="0.6", label="a sweep")
    for rate in (0.03, 0.06, 0.12, 0.25):
        own = algorithm.replace(learning_rate=rate)
        found = frl.differentiate(own, "error_server", seeds=seeds, **sizes)
        slope, sure = (x["learning_rate"] for x in (found.derivatives, found.errors))
        nearby = rate * np.array([0.8, 1.25])
        line = plt.plot(nearby, found.value + slope * (nearby - rate), color="#D55E00")[0]
        print(f"at {rate}: {slope:.2f} with a standard error of {sure:.2f}")
    line.set_label("derivatives")
    plt.xscale("log")
    plt.xticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
    plt.minorticks_off()
    plt.xlabel("learning rate")
    plt.ylabel("error of the server after 600 steps")
    plt.legend()
plt.show()

# %% [markdown]
# ## Refused, where it would be wrong
#
# With `epsilon=1.0` agents act at random, and nothing that is drawn depends on what they learn. As
# soon as they act on their tables, actions are drawn from what is differentiated, and a derivative
# through the simulation leaves that out. It is refused.

# %%
greedy = frl.fedq(mdp, beta=4.0, learning_rate=0.2, sync_period=60)
small = {"num_agents": 2, "num_steps": 60, "seeds": range(64 if SMALL else 8192)}
try:
    frl.differentiate(greedy, "error_server", **small)
except ValueError as refusal:
    print(refusal)

# %% [markdown]
# ## Three ways around it
#
# The property `derivative` says how draws are to count. *Pathwise* leaves them out, and warns.
# *Score* adds likelihood ratios of everything that all agents have drawn, which has no bias.
# *Relaxed* gives the draws the derivative of a Gumbel-softmax. The truth is a difference of many
# runs.

# %%
names = ("pathwise", "relaxed", "score")
betas = (1.0, 2.0, 4.0)
table = {name: [] for name in (*names, "difference")}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # each says that it is biased, and is meant to be seen here
    for beta in betas:
        own = greedy.replace(beta=beta)
        for name in names:
            found = frl.differentiate(own.replace(derivative=name), "error_server", **small)
            table[name].append([found.derivatives["learning_rate"], found.errors["learning_rate"]])
        ends = frl.sweep(
            own, learning_rate=[0.19, 0.21], record_every=60, progress=False, **small
        ).error_server.isel(time=-1)
        apart = (ends.sel(learning_rate=0.21) - ends.sel(learning_rate=0.19)) / 0.02
        table["difference"].append([apart.mean(), apart.std() / apart.size**0.5])
with frl.plotting.style():
    plt.figure(figsize=(5, 3.2), dpi=90, layout="constrained")
    for place, (name, found) in enumerate(table.items()):
        found = np.asarray(found, float)
        where = np.arange(len(betas)) + 0.15 * (place - 1.5)
        marker = "sD^o"[place]
        plt.errorbar(where, found[:, 0], 2 * found[:, 1], fmt=marker, capsize=3, label=name)
    plt.xticks(range(len(betas)), betas)
    plt.xlabel("inverse temperature of the behaviour")
    plt.ylabel("d error / d learning rate")
    plt.ylim(-30, 5)
    plt.legend()
plt.show()

# %% [markdown]
# The scores agree with the differences, at the price of a larger standard error. Pathwise and
# relaxed derivatives have their own, smaller or larger, and a bias that grows as agents act more
# greedily. Bars are two standard errors.
#
# ## Exploration has a derivative, too
#
# What only decides what is drawn, such as the temperature, has no pathwise derivative at all. With
# scores it has one: here is how the error changes with the temperature, and with a share of uniform
# actions.

# %%
explored = frl.differentiate(
    greedy.replace(epsilon=0.3, derivative="score"), "error_server", ["beta", "epsilon"], **small
)
for name, slope in explored.derivatives.items():
    print(f"d error / d {name}: {slope:.3f} with a standard error of {explored.errors[name]:.3f}")

# %% [markdown]
# ## What a federation is most sensitive to
#
# An elasticity: by how many percent does the error change if a property grows by one percent? One
# reverse pass has all of them.

# %%
noisy = frl.fedq(
    mdp,
    epsilon=1.0,
    learning_rate=0.05,
    sync_period=10,
    mixing=0.9,
    discount=0.8,
    reward_noise=0.5,
)
by = ["learning_rate", "mixing", "discount", "reward_noise"]
found = frl.differentiate(noisy, "error_server", by, seeds=seeds, num_agents=8, num_steps=2_000)
at = {"learning_rate": 0.05, "mixing": 0.9, "discount": 0.8, "reward_noise": 0.5}
elasticity = {n: at[n] * float(found.derivatives[n] / found.value) for n in by}
spread = {n: at[n] * float(found.errors[n] / found.value) for n in by}
with frl.plotting.style():
    plt.figure(figsize=(5, 2), dpi=90, layout="constrained")
    plt.barh(by, list(elasticity.values()), xerr=[2 * spread[n] for n in by], capsize=3)
    plt.axvline(0, color="0.3", linewidth=0.8)
    plt.xlabel("percent of the error for a percent of the property")
plt.show()

# %% [markdown]
# ## What is to be had by each property
#
# `frl.differentiable` says it for any algorithm, your own too.

# %%
for way in (None, "score"):
    kinds = frl.differentiable(greedy.replace(derivative=way))
    there = [f"{n} ({kind})" for n, kind in kinds.items() if not kind.startswith("refused")]
    print(f"derivative={way}:", ", ".join(there) or "none, as actions are drawn from the table")
print("sync_period:", frl.differentiable(greedy)["sync_period"])
