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
# # Your own study: a claim, its number and its control
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/fedjax-rl/fedjax_rl/blob/main/notebooks/your_own_study.ipynb)
#
# A curve that looks right is no result. A study here is a list of claims, each fixed before
# anything runs: a number, the band in which it counts as the same, and a control that must fail
# where nothing is learned. This notebook writes one, about a sentence of Khodadadian et al.
# ([arXiv 2206.10185](https://arxiv.org/abs/2206.10185)): *N agents learn N times as fast.*

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

import pathlib
import tempfile

import jax
from IPython.display import Image, display

import fedjax_rl as frl

SMALL = bool(os.environ.get("FEDJAX_RL_SMALL"))  # as the tests run it
print("devices:", ", ".join(device.device_kind for device in jax.devices()))

from fedjax_rl.studies import Study, against, control, exponent, figure, number, page, runs, scales

# %% [markdown]
# ## The claim
#
# TD learning with a small step size forgets where it began, and what sampling leaves of the error
# is a variance. Averaging divides a variance by N. So the late error, against N on logarithmic
# axes, has the slope -1. The band that counts as -1, and the number of runs, are part of the
# claim.
#
# A figure is a function that says which *runs* it needs, which *numbers* follow from them, and
# what is drawn. Its docstring is its prose. The control is the same number where the step size is
# so small that nothing can be learned: if that lay in the band, too, the claim would say nothing.


# %%
@figure("speedup", "TD learning: error against the number of agents")
def speedup(size):
    """What sampling leaves of the error falls as 1 / N."""
    learner = frl.fedtd(frl.envs.paper_mdp(), learning_rate=0.02)
    methods = {"FedTD": learner, "still": (learner, {"learning_rate": 1e-12})}
    made = {"num_steps": size.steps, "trials": size.trials, "metrics": ("error_server",)}
    error = runs("td", methods, {"num_agents": (1, 2, 4, 8)}, **made)["error_server"].late()
    slope, band = exponent(error["FedTD"], "num_agents"), (-1.15, -0.85)
    yield number("slope", "exponent of the late error in N", slope, band, published=-1)
    still = exponent(error["still"], "num_agents")
    yield control("slope null", "the same where nothing is learned", still, band)
    title = f"federated TD learning, {size.trials} trials"
    yield page(
        "speedup", against(error, "num_agents", x="agents N", y="squared error"), title=title
    )


# %% [markdown]
# ## The verdict
#
# `scales` has three sizes of everything: one to see that it runs, one for the coffee break, one
# to publish. `run` makes the runs, draws the picture and decides the claims.

# %%
study = Study(
    "td",
    "Khodadadian et al. (2022)",
    [speedup],
    scales(trials=(30, 100, 400), steps=(4_000, 20_000, 100_000)),
    note="Tables; no bias, K = 1.",
)
out = pathlib.Path(tempfile.mkdtemp())
summary = study.run(out, scale="smoke")
for line in summary["targets"]:
    value = f"{line['measured']:.2f} [{line['low']:.2f}, {line['high']:.2f}]"
    print(f"{line['verdict']}: {line['quantity']}, {value}")
display(Image(out / "speedup.png", width=560))

# %% [markdown]
# ## Look at the runs again
#
# The exponent is -1 within its interval, and that of the control lies outside of the band, as it
# has to. Runs are saved as they come, each once, and a study that was stopped goes on.
# They are labelled arrays like any other result:

# %%
td = frl.load(out / "td" / "result.nc")
display(frl.summary(td, "error_server"))
frl.plotting.curves(td, "error_server", hue="num_agents", facet="method")

# %% [markdown]
# ## What to try next
#
# * Let it fail: with `sync_period=1_000` in `frl.fedtd`, or a step size of 0.5. Which claim
#   notices?
# * Run it at `scale="quick"`: the interval shrinks with the square root of the trials, and the
#   verdict with it.
# * Put it into a file of its own and add `if __name__ == "__main__":`; see
#   [CONTRIBUTING](https://github.com/fedjax-rl/fedjax_rl/blob/main/CONTRIBUTING.md#a-figure-of-a-paper).
#   `fedjax-rl list studies` names those that are there to read.
