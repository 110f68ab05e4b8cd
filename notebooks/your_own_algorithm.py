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
# # Your own algorithm in sixty lines
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/your_own_algorithm.ipynb)
#
# `fedjax_rl` has no federated one-step actor-critic. This notebook reads one that fits on a page,
# and then does with it what can be done with every algorithm of the package: a sweep over agents
# and learning rates, compressed messages, slow agents, single rounds, several devices, a
# derivative, and the command line. None of that is written in its file.

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

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## The file
#
# The algorithm is `fedac.py`, beside this notebook. It has three parts:
#
# * **A record** of what can be set, each property said once: its default, what is allowed, and
#   whose it is. `Averaged` adds the period K, `sync_period`, and `uplink`, `clock` and
#   `derivative`.
# * **One step of one agent**, `step(key, agent, params) -> agent`, as a textbook has it: no batch,
#   no loop, no federation. `params` has this agent's values of the properties.
# * **A function from the record to a learner**, which says what an agent holds at first, that a
#   round is steps and then an average, and what is measured of the servers' model.

# %%
import pathlib
import urllib.request

from IPython.display import Code

places = [pathlib.Path(), pathlib.Path("notebooks")]
HERE = next((place for place in places if (place / "fedac.py").exists()), places[0])
if not (HERE / "fedac.py").exists():
    raw = "https://raw.githubusercontent.com/fedjax-rl/fedjax_rl/main/notebooks/fedac.py"
    urllib.request.urlretrieve(raw, HERE / "fedac.py")
sys.path.insert(0, str(HERE))

from fedac import fedac

Code(filename=HERE / "fedac.py")

# %% [markdown]
# From the record follow a signature, documentation and checks. A wrong value is refused before
# anything compiles:

# %%
mdp = frl.envs.random_mdp(seed=0)
print(fedac.__doc__)
try:
    fedac(mdp, critic_rate=-1)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# ## Agents and learning rates
#
# All federations of a sweep lie side by side in one array program. The learning rate is a traced
# property, so that three of them are no more to compile than one. The smallest is there as a
# control: with it nothing can be learned, and the objective has to stay at that of the uniform
# policy, which is known exactly, as is the best one.

# %%
RATES = [1e-6, 0.1, 2.0]
result = frl.sweep(
    fedac(mdp, sync_period=10),
    num_agents=[1, 4, 16],
    learning_rate=RATES,
    seeds=range(3 if SMALL else 10),
    num_steps=1_000 if SMALL else 4_000,
    record_every=50,
)

tables = jax.tree.map(jnp.asarray, mdp)
actions = mdp.num_states, mdp.num_actions
uniform = float(frl.envs.objective.value(tables, jnp.zeros(actions)))
greedy = 1e3 * jnp.asarray(frl.envs.optimal_q(mdp), float)  # a softmax of it is the best policy
best = float(frl.envs.objective.value(tables, greedy))


def bounds(axis):
    """Draws what is known without learning anything."""
    axis.axhline(uniform, color="k", linestyle=":", linewidth=1)
    axis.axhline(best, color="k", linestyle="--", linewidth=1)


with frl.plotting.style():
    figure, axes = plt.subplots(
        1, len(RATES), figsize=(9, 3.4), dpi=90, sharey=True, layout="constrained"
    )
    for axis, rate in zip(axes, RATES, strict=True):
        one = result.sel(learning_rate=rate, drop=True)
        frl.plotting.banded_curves(one, {"objective": "J of the server's policy"}, axes=axis)
        axis.set_title(f"learning rate {rate:g}", fontsize=9)
        bounds(axis)
    for axis in axes[1:]:
        axis.get_legend().remove()
        axis.set_ylabel("")
plt.show()

# %% [markdown]
# Dotted: the uniform policy. Dashed: the best one. Lines are means over seeds, shades reach from
# the 10th to the 90th percentile, and thin lines enclose the 95 % interval of the mean.
#
# On the left nothing moves, as it should. In the middle more agents differ less from each other,
# which is what averaging does. On the right steps are so large that an agent alone settles on some
# action before it knows what the others are worth, good or bad. With sixteen, the errors of
# sixteen critics are averaged first: J is about the same on average, and luck makes less of it.
#
# No line reaches the best policy. What is good in state 1 keeps an agent there: before long it
# spends 99.9 % of its steps in that one of four states, and hardly learns about two of the others,
# from which J counts starts as well. Averaging cannot help where all agents do the same.
#
# ## Fewer bytes
#
# An uplink says what of a message crosses the wire. The message here is 12 preferences and 4
# values, 64 bytes. `top_k(2)` sends the two largest changes and their places, and keeps the rest
# for later; under `partial(0.25)` an agent takes part in a quarter of the exchanges.

# %%
ways = {
    "full": frl.uplinks.full(),
    "top-k, 2 of 16": frl.uplinks.top_k(2),
    "partial, 1 of 4": frl.uplinks.partial(0.25),
}
cheaper = frl.sweep(
    fedac(mdp, sync_period=10, learning_rate=0.1),
    uplink=list(ways.values()),
    num_agents=16,
    seeds=range(3 if SMALL else 10),
    num_steps=500 if SMALL else 1_000,
    record_every=50,
)
points = {
    name: {"": (one.bytes_up / 1e3, one.objective.isel(time=-1))}
    for name, one in zip(ways, (cheaper.isel(uplink=i) for i in range(len(ways))), strict=True)
}
with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(5, 3.4), dpi=90, layout="constrained")
    frl.plotting.pareto(points, cost="kB up, all agents", value="J at the end", axes=axis)
plt.show()

# %% [markdown]
# ## Slow agents
#
# A clock says how long agents take, and whom the server waits for. Half of the agents here are ten
# times as slow as the others. A synchronous server waits for all of them; an asynchronous one
# moves an N-th of the way to whatever comes. In the dents of its line, at multiples of ten, the
# slow ones bring what they made of a model of long ago.

# %%
slow = {"distribution": "two_class", "slow_factor": 10.0}
clocks = {kind: frl.Clock(kind, **slow) for kind in ("synchronous", "asynchronous")}
N, ROUNDS = 8, 40 if SMALL else 100
timed = {
    kind: frl.sweep(
        fedac(mdp, sync_period=10, learning_rate=0.1, clock=clock),
        num_agents=N,
        seeds=range(3 if SMALL else 10),
        # Of a server that waits for all, a step is made of N messages.
        num_steps=ROUNDS if kind == "synchronous" else 4 * N * ROUNDS,
        record_every=1 if kind == "synchronous" else N,
    )
    for kind, clock in clocks.items()
}
with frl.plotting.style():
    figure, axis = plt.subplots(figsize=(5, 3.4), dpi=90, layout="constrained")
    for kind, one in timed.items():
        when = one.simulated_time.mean("seed")
        low, middle, high = one.objective.quantile([0.1, 0.5, 0.9], "seed")
        (line,) = axis.plot(when, middle, label=kind)
        axis.fill_between(when, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    bounds(axis)
    axis.set(xlabel="simulated time, in uploads of a fast agent", ylabel="J of the server's policy")
    axis.set_xlim(0, 10 * 40 if not SMALL else None)
    axis.legend()
plt.show()

# %% [markdown]
# ## Round by round
#
# `sweep` is a loop over two functions, which are there for whatever it does not foresee:

# %%
algorithm = fedac(mdp, sync_period=10, learning_rate=0.1)
state = frl.init(algorithm, num_agents=4, seed=0)
for _ in range(3):
    state, metrics = frl.round(algorithm, state)
    print(f"J {metrics['objective']:.4f}  {state.costs['bytes_up']} bytes up")

# %% [markdown]
# ## Several devices
#
# Agents are laid over the devices that there are, and give the numbers of one device but for the
# order in which sums are taken. A machine without accelerators can pretend to have two, if it is
# told before jax starts:
#
#     XLA_FLAGS=--xla_force_host_platform_device_count=2 jupyter lab

# %%
if len(jax.devices()) > 1:
    one, two = (
        frl.sweep(algorithm, num_agents=4, num_steps=100, record_every=10, devices=devices)
        for devices in (1, 2)
    )
    print("largest difference in J:", float(abs(one.objective - two.objective).max()))
else:
    print("one device")

# %% [markdown]
# ## A derivative
#
# A run is a pure function of its properties. How J at the end changes with the learning rate is
# nevertheless no plain `jax.grad`: actions are drawn from what is learned. A slightly larger rate
# makes no difference to a draw, until it makes another one, and of that a derivative along the
# path knows nothing. So it is refused, unless one says that one wants it with this bias.


# %%
def objective(rate, derivative=None):
    """J at the end of a run."""
    one = fedac(mdp, sync_period=10, learning_rate=rate, derivative=derivative)
    return frl.simulate(one, num_agents=16, num_steps=100).metrics["objective"][-1]


try:
    jax.grad(objective)(0.1)
except ValueError as error:
    print("refused:", error)
slope = jax.jit(jax.grad(lambda rate: objective(rate, "pathwise")))(0.1)
print(f"along the path: {slope:.3f}")

# %% [markdown]
# ## From the command line
#
# `module:name` stands wherever a published algorithm would. The options are the properties of the
# record; `--debug` runs it without compiling, one agent after the other, so that a `print` within
# `step` shows numbers, and names the first value that is not finite.

# %%
import tempfile

os.environ["HERE"] = str(HERE)
os.environ["OUT"] = str(pathlib.Path(tempfile.mkdtemp()) / "fedac")

# %% language="bash"
# cd $HERE
# fedjax-rl run fedac:fedac random-mdp --num-agents 4 --sync-period 10 --num-steps 1000 \
#   --out $OUT 2> /dev/null

# %% [markdown]
# ## Where to go from here
#
# * What else a learner can say (weights, control variates, a step of the server, episodes instead
#   of steps, several exchanges in a round) is in
#   [CONTRIBUTING](https://github.com/fedjax-rl/fedjax_rl/blob/main/CONTRIBUTING.md), and in the
#   files of `fedjax_rl/algorithms`, which are written in the same form.
# * `fedjax_rl/algorithms/fedq.py` is the nearest relative of `fedac.py`, `reinforce.py` the
#   example of rounds that are made of episodes.
