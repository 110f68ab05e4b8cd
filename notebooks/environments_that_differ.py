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
# # Environments that differ: is an average still right?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/environments_that_differ.ipynb)
#
# Agents of a federation seldom live in equal worlds. Each then climbs a hill of its own, and the
# further it walks between two averages, the further the average is from the top of the hill that
# was meant. How far off is it, and what does it cost to be right?

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

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## A family of worlds
#
# Eight agents with the same tabular task, but rewards of their own: at *level* 0 they are equal,
# and at any level their mean is the same. What is wanted is the policy that is best on average
# over the eight. Gradients are exact here, so that nothing is left but what differs; ten families
# are drawn. `fedpg` averages after some local steps. `scaffold_pg` corrects every agent's steps
# by how its gradients differ from the others', which it is told with every message.

# %%
family = frl.envs.dirichlet_mdps(8, rewards=1.0, kernels=0.0)
task = frl.envs.tabular_task(family, max_steps=25)
exact = {"gradient": "exact", "entropy": 0.3, "learning_rate": 0.5}
algorithms = {"average": frl.fedpg(task, **exact), "corrected": frl.scaffold_pg(task, **exact)}


def worlds(level, seed):
    """The task with this much between agents."""
    made = frl.envs.dirichlet_mdps(8, rewards=level, kernels=0.0, seed=seed)
    return frl.envs.tabular_task(made, max_steps=25)


result = frl.sweep(
    algorithms,
    local_steps=[1, 3, 10],
    num_agents=8,
    num_steps=60 if SMALL else 200,
    record_every=2,
    metrics=["gap", "gradient_norm"],
)
frl.plotting.curves(result, "gradient_norm", hue="algorithm", facet="local_steps")

# %% [markdown]
# The norm of the gradient at the server's model says how far it is from what was meant. With one
# step between averages the two are the same, and slow. With ten the plain average stops where the
# agents' pulls cancel over ten steps, which is another place; corrected steps go on to the end of
# what float32 can tell.
#
# ## How much must they differ?
#
# The same for families that differ more and more, with ten local steps. The lines are means over
# families that are drawn anew, with 95 % intervals.

# %%
LEVELS, FAMILIES = [0.0, 0.25, 0.5, 1.0, 2.0], range(3 if SMALL else 10)
import xarray as xr

rows = []
for level in LEVELS:
    found = [
        frl.sweep(
            {name: one.replace(task=worlds(level, seed)) for name, one in algorithms.items()},
            local_steps=10,
            num_agents=8,
            num_steps=60 if SMALL else 200,
            record_every=20,
            metrics=["gradient_norm", "gap"],
            progress=False,
        )
        for seed in FAMILIES
    ]
    rows.append(xr.concat(found, xr.IndexVariable("seed", list(FAMILIES))))
apart = xr.concat(rows, xr.IndexVariable("level", LEVELS))
frl.plotting.curves(apart, "gap", x="level", hue="algorithm")

# %%
frl.summary(apart, "gap")

# %% [markdown]
# Twice as different, and nine to sixteen times as much is lost by averaging: 0.0020 [0.0015,
# 0.0026] at level 1, 0.018 [0.014, 0.021] at level 2. The corrected model loses nothing.
# What it costs to be right stands in the last columns. A correction is a second vector in every
# message, and so twice the bytes of a round, at any level; `local_steps=1` is right, too, and needs
# ten times the rounds. Below a level of 0.5 there is little to be corrected.
#
# ## What to try next
#
# * `kernels=0.5` in `dirichlet_mdps`: dynamics differ, not rewards.
# * `gradient="sampled"` (the default), with `seeds=range(10)`: when is the noise of sampling
#   larger than what differs, so that nobody sees it?
# * CartPole with gravity of every agent's own: `frl.fedpg("CartPole-v1", heterogeneity=0.5)`,
#   with `held_out={"members": 4}` to see what the model does in worlds where nobody learns.
