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
# # Four fish learn together: federated PPO, to the video
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/bigfish.ipynb)
#
# A small fish eats smaller ones, is eaten by larger ones, and grows. Four agents that each see
# levels of their own learn it by PPO and average their networks after every ten passes. What does
# one agent gain by being one of four? And what does it look like?

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
from IPython.display import Image, display

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

# %% [markdown]
# ## One agent, or four
#
# A pass is a rollout of every agent and the gradient steps on it. An agent of a federation of
# four sees as many frames as an agent alone. So what the four are ahead is what they have from
# each other. BigFish is the game of [Procgen](https://arxiv.org/abs/1912.01588), written anew as
# an array program: all fish of all agents and seeds swim in one program.

# %%
fish = frl.fedppo(frl.envs.make("BigFish"), sync_period=10, learning_rate=0.001)
result = frl.sweep(
    fish,
    num_agents=[1, 4],
    seeds=range(3 if SMALL else 8),
    num_steps=20 if SMALL else 1000,
    record_every=20,
)
figure = frl.plotting.curves(result, hue="num_agents")
figure.axes[0].set(xlabel="passes", ylabel="fish eaten in an episode")
display(figure)

# %%
frl.summary(result)

# %% [markdown]
# Runs of one seed have the same levels, and their first agent the same draws, so that what four
# are ahead is a difference by seed:

# %%
late = result.episode_return.isel(time=slice(result.sizes["time"] // 2, None)).mean("time")
ahead = (late.sel(num_agents=4) - late.sel(num_agents=1)).values
print("ahead by", frl.analysis.mean_interval(ahead), "fish an episode, of", len(ahead), "seeds")

# %% [markdown]
# Four that average eat about half a fish more in an episode than one alone, 0.56 [0.10, 1.01] in
# the second half of 1,000 passes; most of it comes in the last third. The interval is that of
# eight seeds, and wide: a fish that has learned to grow eats many. The price: all weights, up and
# down, after every ten passes, 23 MB each way. Most of a game is learned later, see below.
#
# ## The video
#
# The same from the command line keeps what was learned, and `play` shows it. What is drawn is the
# federation's one network, in levels that no agent has learned in.

# %%
import tempfile

os.environ["OUT"] = tempfile.mkdtemp() + "/fish"
os.environ["PASSES"] = "20" if SMALL else "1000"

# %% language="bash"
# fedjax-rl run fedppo BigFish --num-agents 4 --sync-period 10 --learning-rate 0.001 \
#   --num-steps $PASSES --out $OUT 2> /dev/null | tail -n 2
# fedjax-rl play BigFish --policy $OUT --num-steps 72 --seed 8 --out $OUT.gif

# %%
Image(os.environ["OUT"] + ".gif")

# %% [markdown]
# ## What to try next
#
# * 3,000 passes, a minute or two on two cores or seconds on an accelerator: three to five fish an
#   episode instead of two.
# * `sync_period=[1, 10, 100]` in the sweep: how seldom may they talk?
# * `frl.envs.make("BigFish", observation="pixels")` with `size="paper"`: what they see are
#   pictures, and the network is that of IMPALA.
# * `frl.envs.make("CoinRun")`, where levels differ more.
