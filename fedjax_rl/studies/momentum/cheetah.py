"""HalfCheetah: all methods, where there is time for it."""

from __future__ import annotations

from fedjax_rl import algorithms, envs
from fedjax_rl.studies.claims import control, effect
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import together
from fedjax_rl.studies.momentum.tables import HA, SV
from fedjax_rl.studies.pictures import curves, page
from fedjax_rl.studies.runs import STILL, Stage, runs

# Not the authors' 10 local steps of 20 episodes of 500 steps by 5 agents: 31 times the episodes.
SIZE = {"local_steps": 5, "episodes_per_step": 4}
AGENTS, LENGTH, ROUNDS = 2, 200, 300
STEP = 0.005  # lambda, five times that at which nothing moved


def _made(trials):
    task = envs.brax_task("halfcheetah", discount=0.99, max_steps=LENGTH)
    own = {
        **SIZE,
        "network": (64, 64),
        "baseline": "batch_mean",
        "normalize": True,
        "heterogeneity": {"level": 0.01, "of": ("reset",)},
        "evaluation_episodes": 4,
        "learning_rate": STEP / SIZE["local_steps"],
    }
    momentum = {"server_learning_rate": STEP, "first_episodes": SIZE["episodes_per_step"]}
    plain = algorithms.fedpg(task, **own)
    methods = {
        "FedPG": plain,
        "Fast-FedPG": algorithms.fast_fedpg(task, **own),
        SV: algorithms.fedsvrpg_m(task, **own, **momentum, momentum=0.2, weight_clip=1.2),
        HA: algorithms.fedhapg_m(task, **own, **momentum, momentum=0.5),
        "still": (plain, {"learning_rate": STILL}),
    }
    metrics = ("return", "direction_norm")
    return runs(
        "halfcheetah", methods, num_steps=ROUNDS, trials=trials, metrics=metrics, num_agents=AGENTS
    )


@figure("halfcheetah", "HalfCheetah: all methods")
def halfcheetah(size):
    """All methods at one step of the server, on HalfCheetahs whose first states differ.

    Smaller than the authors' runs, of which one takes 75 million steps of the physics; here one
    takes 2.4 million.
    """
    trials = size.cheetah_trials
    # Made when it is run: building the physics takes seconds.
    make = lambda meter: _made(trials).make(meter)
    of = (SIZE, AGENTS, LENGTH, ROUNDS, STEP, trials)
    made = Stage("halfcheetah", make, 6000, of, trials is not None)
    value = made["return"]
    late = value.late(0.25)
    learned = [SV, HA, "FedPG"]
    yield effect(
        "claim 8",
        "return of the last quarter less that of FedPG: FedSVRPG-M, FedHAPG-M",
        together(*(late[method] - late["FedPG"] for method in (SV, HA))),
        published="momentum learns faster",
        band=((0, None), (0, None)),
    )
    gain = late - value.first(3)
    yield effect(
        "claim 8b",
        "return of the last quarter less that of the first rounds: FedSVRPG-M, FedHAPG-M, FedPG",
        together(*(gain[method] for method in learned)),
        published="they learn",
        band=((0, None),) * 3,
    )
    yield control("claim 8b null", "the same where nothing is learned", gain["still"])
    yield page(
        "halfcheetah",
        *(
            curves(value[["FedPG", method]], title=method, y="return")
            for method in (SV, HA, "Fast-FedPG")
        ),
        title=f"HalfCheetah, N = {AGENTS}, H = {SIZE['local_steps']}, episodes of {LENGTH} steps, "
        f"{trials} trials",
    )
