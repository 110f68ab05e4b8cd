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
# # The slow agent: should a server wait?
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/slow_agents.ipynb)
#
# Eight agents send gradients to a server, and one of them is ten times as slow as the others. A
# server that waits for all of them is slow, too. One that does not gets messages that were
# computed for a model of long ago. Which of the two evils is the smaller one?

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

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## Who arrives when
#
# A *clock* says how long agents take and whom the server waits for; `frl.timetable` is that
# alone, without anything that is learned. A dot is a message that arrives.

# %%
N = 8
times = {"distribution": "two_class", "slow_share": 1 / N, "slow_factor": 10.0}
clocks = {
    "waits for all": frl.Clock("synchronous", **times),
    "waits for seven": frl.Clock("semi-synchronous", wait_for=N - 1, **times),
    "waits for nobody": frl.Clock("asynchronous", **times),
}
with frl.plotting.style():
    figure, axes = plt.subplots(1, 3, figsize=(8, 2), sharey=True, layout="constrained")
    for axis, (name, clock) in zip(axes, clocks.items(), strict=True):
        table = frl.timetable(clock, num_agents=N, num_steps=300)
        when = np.repeat(table.time[0], table.agent.shape[-1])
        axis.plot(when, table.agent[0].ravel() + 1, ".", markersize=3)
        axis.set(xlim=(0, 32), xlabel="simulated time", title=f"a server that {name}")
    axes[0].set_ylabel("agent")
plt.show()

# %% [markdown]
# ## What is learned by then
#
# The same policy gradients under each of the clocks: `afedpg` moves the server by a momentum of
# what arrives, and lets agents work ahead of it. Simulated time is what counts, so each clock is
# given as many steps as it makes in the same time. The gap to the best policy is exact, as all is
# known of a table.

# %%
END = 60 if SMALL else 300
steps = {"waits for all": END // 10, "waits for seven": END, "waits for nobody": 7 * END}
task = frl.envs.tabular_task(frl.envs.dirichlet_mdp(), max_steps=25)
learner = frl.afedpg(task, episodes_per_step=8)
runs = {
    name: frl.sweep(
        learner.replace(clock=clock),
        num_agents=N,
        seeds=range(3 if SMALL else 10),
        num_steps=steps[name],
        record_every=max(1, steps[name] // 60),
    )
    for name, clock in clocks.items()
}
with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for name, run in runs.items():
        when = run.simulated_time.mean("seed")
        mean, low, high = frl.analysis.mean_interval(run.gap.transpose("seed", "time"))
        low = np.maximum(low, mean / 10)  # there is no zero on this axis
        (line,) = axis.plot(when, mean, label=f"a server that {name}")
        axis.fill_between(when, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axis.set(xlabel="simulated time", ylabel="gap to the best policy", yscale="log")
    axis.set_title(f"mean and 95 % interval of {run.sizes['seed']} seeds")
    axis.set_ylim(top=10)  # room for the legend
    axis.legend()
plt.show()

# %% [markdown]
# The answer as a number: the gap that is left at the end, with its interval.

# %%
for name, run in runs.items():
    last = run.isel(time=slice(-5, None)).mean("time")
    mean, low, high = (float(x) for x in frl.analysis.mean_interval(last.gap))
    late, idle = float(last.staleness_mean.mean()), float(last.idle.mean())
    print(
        f"{name:17}gap {mean:.4f} [{low:.4f}, {high:.4f}], messages {late:.1f} steps old,", end=" "
    )
    print(f"agents idle {100 * idle:.0f} % of their time")

# %% [markdown]
# ## How slow is too slow?
#
# The factor by which the eighth agent is slower is a number of the clock, and is swept like any
# other.

# %%
FACTORS = [1, 2, 5, 10, 20]
PLACE = {"waits for all": "synchronous", "waits for nobody": "asynchronous"}
with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(4.6, 2.9), layout="constrained")
    for name, kind in PLACE.items():
        found = []
        for factor in FACTORS:
            clock = frl.Clock(kind, **{**times, "slow_factor": float(factor)})
            many = END // factor if kind == "synchronous" else 7 * END
            run = frl.sweep(
                learner.replace(clock=clock),
                num_agents=N,
                seeds=range(3 if SMALL else 10),
                num_steps=many,
                record_every=max(1, many // 10),
                progress=False,
            )
            found.append(frl.analysis.mean_interval(run.gap.isel(time=-1)))
        mean, low, high = np.transpose(found)
        error = [mean - low, high - mean]
        axis.errorbar(FACTORS, mean, error, marker="o", capsize=2, label=f"a server that {name}")
    axis.set(xscale="log", xlabel="how many times as slow", ylabel=f"gap at time {END}")
    axis.set_xticks(FACTORS, [str(factor) for factor in FACTORS])
    axis.minorticks_off()
    axis.legend()
plt.show()

# %% [markdown]
# One agent that is twice as slow costs a server that waits hardly anything, one that is ten times
# as slow nearly everything: the gap towards time 300 is 0.15 [0.11, 0.19], against 0.007 with an
# interval that reaches zero where the server waits for nobody. Its messages are seven steps old on
# average, and that is the smaller evil here.
#
# ## What to try next
#
# * `lookahead=False`: what is the gain of working ahead of the server's model worth when messages
#   are old?
# * `slow_share=0.5`: half of the agents are slow. Does waiting for the fast half lose what the
#   slow ones know? Give agents different environments (`heterogeneity=0.5`) and ask again.
# * `failure_time=20.0, return_time=5.0`: agents that break down. A server that waits for all of
#   them waits for those, too.
# * `help(frl.Clock)` and `docs/how-to/clocks.md` have what else a clock can say.
