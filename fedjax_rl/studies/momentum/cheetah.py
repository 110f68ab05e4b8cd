"""HalfCheetah: all methods, where there is time for it."""

from __future__ import annotations

from fedjax_rl import algorithms, envs
from fedjax_rl.studies.claims import effect
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import together
from fedjax_rl.studies.gains import gains
from fedjax_rl.studies.momentum.tables import HA, SV
from fedjax_rl.studies.pictures import curves, page
from fedjax_rl.studies.runs import STILL
from fedjax_rl.studies.tuned import tuned

# The authors make 10 local steps of 20 episodes of 500 steps by 5 agents: 16 times as much a round.
# With 2 agents of 5 episodes each, and a step of 0.006, nothing was learned in 100 rounds.
SIZE = {"local_steps": 5, "episodes_per_step": 8}
AGENTS, LENGTH = 4, 200
GRID = (0.0005, 0.0015, 0.004, 0.01)  # lambda, of the server
CHOOSING = {"num_steps": 20, "trials": 2}
SECONDS = 3000
FEW = "Five runs, as one takes minutes."
WHY = """Each at the step that suits it, FedSVRPG-M and FedPG move equally far in a round (0.4 and
0.45, the step times the length of its direction at the end) and learn equally fast for 15 rounds;
then returns of some runs of FedSVRPG-M fall. FedHAPG-M diverges at a step of 0.004 and above, and
once in five runs at the one below."""


def _step(step):
    """The properties of a server's step, of which a local step is an equal part."""
    return {"server_learning_rate": step, "learning_rate": step / SIZE["local_steps"]}


def _methods():
    task = envs.brax_task("halfcheetah", discount=0.98, max_steps=LENGTH)
    own = {
        **SIZE,
        "network": {"hidden": (64, 64), "initializer": "orthogonal"},
        "deviation": 0.6,
        "baseline": "critic",
        "critic": {"steps": 5, "learning_rate": 0.005, "gae_lambda": 0.95},
        "observations": "shared",
        "normalize": True,
        "discount_weight": False,
        "heterogeneity": {"level": 0.01, "of": ("reset",)},
        "evaluation_episodes": 4,
        "first_episodes": SIZE["episodes_per_step"],
        "weight_clip": 1.2,
    }
    sv = algorithms.fedsvrpg_m(task, **own, momentum=0.2)
    return {
        "FedPG": (sv, {"momentum": 1.0}),  # which is FedPG with that server, in the same program
        SV: sv,
        HA: algorithms.fedhapg_m(task, **own, momentum=0.5),
    }


@figure("halfcheetah", "HalfCheetah: all methods")
def halfcheetah(size):
    """All methods on HalfCheetahs whose first states differ, each at the step that suits it.

    The server's step of each method is the best of the same four, for 20 rounds on two seeds that
    are not judged. A first policy may come to less than nothing: what is gained is said in parts of
    the size of its return, so that three times that return is a gain of 2. One run takes 1.6
    million steps of the physics, one of the authors' 75.
    """
    rounds, trials = size.cheetah or (1, None)
    made = tuned(
        "halfcheetah",
        _methods,
        {step: _step(step) for step in GRID},
        num_steps=rounds,
        trials=trials,
        choosing=CHOOSING,
        fixed=lambda methods: {"still": (methods[SV][0], _step(STILL))},
        metrics=("return", "direction_norm"),
        num_agents=AGENTS,
        record_every=2,
        seconds=SECONDS,
    )
    value = made["return"]
    late, first = value.late(0.25), value["still"].late(1.0)
    yield effect(
        "claim 8",
        "return of the last quarter less that of FedPG: FedSVRPG-M, FedHAPG-M",
        together(*(late[method] - late["FedPG"] for method in (SV, HA))),
        published="momentum learns faster",
        band=((0, None), (0, None)),
        why=WHY,
    )
    yield from gains(
        ("claim 8b", "claim 8b null"),
        "FedSVRPG-M, FedHAPG-M, FedPG",
        [late[method] for method in (SV, HA, "FedPG")],
        (first, late["still"]),
        why=FEW,
    )
    yield page(
        "halfcheetah",
        curves(value, title="the server's step of each the best of four", y="return"),
        title=f"HalfCheetah, N = {AGENTS}, H = {SIZE['local_steps']}, episodes of {LENGTH} steps, "
        f"{trials} trials",
    )
