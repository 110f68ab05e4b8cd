"""Where the objective is not known: poles and bodies that differ, cheetahs with other goals."""

from __future__ import annotations

import jax
import numpy as np

from fedjax_rl import algorithms, envs
from fedjax_rl.studies.claims import control, effect, number
from fedjax_rl.studies.declared import figure
from fedjax_rl.studies.estimates import exact, mean, together
from fedjax_rl.studies.gains import gains
from fedjax_rl.studies.pictures import against, curves, page
from fedjax_rl.studies.policy_gradients import cartpoles, m1, m2
from fedjax_rl.studies.runs import STILL, runs
from fedjax_rl.studies.tuned import tuned

MAKE = {"FedPG": algorithms.fedpg, "Fast-FedPG": algorithms.fast_fedpg}
RATES = (0.0003, 0.003)
EARLY = 10  # rounds, after which all have learned
MEMORY = 400  # episodes, eight times as many as by default
MARGIN = 5.0  # of a return of 100: a twentieth is no difference that anybody would notice


@figure("cartpole", "CartPole with different physics")
def cartpole(size):
    """On CartPole the correction gains nothing: there is no bias to remove.

    One policy balances all poles, so that every agent's gradient vanishes with the mean. At the
    larger step the noise of the memory costs a little in the first rounds. With one local step the
    methods are the same, so that only H = 10 is shown.
    """
    trials, rounds = size.cartpole
    task = cartpoles()
    plain = {"local_steps": 10, "episodes_per_step": 5, "normalize": False}
    methods = {name: make(task, **plain) for name, make in MAKE.items()}
    poles = runs(
        "cartpole",
        methods,
        {"learning_rate": (STILL, *RATES)},
        num_steps=rounds,
        trials=trials,
        metrics=("return", "return_of_agent"),
        num_agents=8,
        record_every=1,
        seconds=400,
    )
    more = methods["Fast-FedPG"].replace(memory_episodes=MEMORY, learning_rate=RATES[-1])
    remembered = runs(
        "cartpole-memory",
        {"Fast-FedPG": more},
        num_steps=min(EARLY, rounds),
        trials=trials,
        metrics=("return",),
        num_agents=8,
        record_every=1,
        seconds=200,
    )["return"]["Fast-FedPG"]
    own = {"local_steps": 10, "gradient": "exact", "learning_rate": 0.5}
    kinds = {"rewards scaled": _scaled(), "apart": m1(), "opposed": m2(3.0)}
    tables = runs(
        "suited",
        {name: make(m1(), **own) for name, make in MAKE.items()},
        {"rewards": {name: {"task": task} for name, task in kinds.items()}},
        num_steps=200,
        trials=1,
        metrics=("gap",),
        num_agents=8,
        double=True,
        seconds=10,
    )
    returns = poles["return"]
    gain = (returns["Fast-FedPG"] - returns["FedPG"]).late(1.0)
    worst = poles["return_of_agent"]["FedPG"].last(3).then(lambda own: own.min("agent"))
    worth = tables["gap"]["FedPG"] / tables["gap"]["Fast-FedPG"]
    yield effect(
        "claim 4",
        "CartPole, H 10, eta 0.003: mean return of Fast-FedPG less that of FedPG",
        gain.sel(learning_rate=RATES[-1]),
        why="""There is no bias to remove: one policy balances all poles (`claim 4 worst`), so that
        every agent's gradient vanishes with the mean, and the noise of the memory costs a little in
        the first rounds, most of which more episodes bring back (`claim 4 memory`). On tables, too,
        the correction is worth nothing where one policy suits all, and much where none does
        (`claim 4 tables`).""",
    )
    yield number(
        "claim 4 size",
        "the same, eta 0.0003 and 0.003: within a twentieth of the most that a return can be",
        mean(gain.sel(learning_rate=RATES)),
        ((-MARGIN, MARGIN),) * len(RATES),
    )
    early = returns["Fast-FedPG"].sel(learning_rate=RATES[-1]).first(EARLY)
    yield effect(
        "claim 4 memory",
        f"the same, first {EARLY} rounds: mean return of Fast-FedPG with {MEMORY} episodes for the "
        "memory less that with 50",
        remembered.first(EARLY) - early,
    )
    yield number(
        "claim 4 worst",
        "return of the worst of eight poles under FedPG's policy, eta 0.003, last three rounds",
        mean(worst.sel(learning_rate=RATES[-1])),
        (95, None),
    )
    yield control(
        "claim 4 null",
        "the same where nothing is learned",
        mean(worst.sel(learning_rate=STILL)),
        (95, None),
    )
    yield number(
        "claim 4 tables",
        "tables without entropy, exact gradients, H 10, round 200: gap of FedPG over that of "
        "Fast-FedPG, rewards that differ by a factor; by as much as they are large; opposed by 3",
        exact(worth.last()),
        ((0.97, 1.03), (2, None), (10, None)),
    )
    words = [f"η = {rate:g}" for rate in RATES]
    shown = [returns.sel(learning_rate=rate) for rate in RATES]
    yield page(
        "cartpole",
        *(curves(own, title=title, y="return") for own, title in zip(shown, words, strict=True)),
        against(
            worth.then(lambda own: own.isel(time=slice(None, None, 6))),
            "time",
            styles={"rewards scaled": 0, "apart": 1, "opposed": 4},
            by="rewards",
            title="tables, exact gradients",
            x="round",
            y="gap: FedPG / Fast-FedPG",
            log="y",
        ),
        title=f"CartPole: eight poles, strongly different physics, H = 10, {trials} trials",
        legends="below",
    )


def _scaled():
    """M1 with rewards that differ by a factor of the agent alone: one policy is best for all."""
    base = m1(0.0)

    def members(num_agents):
        own = base.members(num_agents)
        factors = np.linspace(0.25, 1.75, 8)[:num_agents]
        return own.replace(reward=own.reward * factors[:, None, None, None])

    first = jax.tree.map(lambda leaf: leaf[0], members(1))
    return base.replace(name="M1, rewards scaled", members=members, params=first)


@figure("cheetah", "HalfCheetah with different target speeds")
def cheetah(size):
    """Eight cheetahs are to run at speeds of their own, from 0.5 to 3 m/s.

    Here no policy suits all, and local steps should leave a bias.
    """

    def methods():
        task = envs.brax_task("halfcheetah", max_steps=200, target_speed=1.75)
        own = {
            "local_steps": 10,
            "episodes_per_step": 2,
            "network": (64, 64),
            "baseline": "linear",
            "normalize": True,
            "discount_weight": False,
            "heterogeneity": {"level": 1.25, "of": ("target_speed",)},
            "evaluation_episodes": 2,
            "learning_rate": 0.001,
        }
        return {name: make(task, **own) for name, make in MAKE.items()}

    returns = runs(
        "cheetah",
        methods,
        num_steps=300,
        trials=size.cheetah,
        metrics=("return",),
        num_agents=8,
        record_every=10,
        seconds=3 * 3600,
    )["return"]
    yield effect(
        "claim 5",
        "HalfCheetah, speeds of their own, H 10: late return of Fast-FedPG less that of FedPG",
        (returns["Fast-FedPG"] - returns["FedPG"]).late(0.2),
    )
    yield page(
        "cheetah",
        curves(returns, title="HalfCheetah (brax), eight target speeds, H = 10", y="return"),
    )


FEW = "Five runs, as one takes minutes."
BODIES = {"num_steps": 20, "trials": 2}  # of the runs that choose a step
STEPS = (0.0002, 0.0006, 0.002, 0.006)  # eta


@figure("bodies", "HalfCheetah with different bodies")
def bodies(size):
    """Eight cheetahs differ in weight, friction, strength and gravity, by factors of 0.7 to 1.4.

    All are to run as fast as they can. The step of each method is the best of the same four, on two
    seeds that are not judged. A first policy may come to less than nothing: what is gained is said
    in parts of the size of its return, so that three times that return is a gain of 2.
    """
    rounds, trials = size.bodies or (1, None)

    def methods():
        task = envs.brax_task("halfcheetah", discount=0.98, max_steps=200)
        own = {
            "local_steps": 5,
            "episodes_per_step": 4,
            "network": {"hidden": (64, 64), "initializer": "orthogonal"},
            "deviation": 0.6,
            "baseline": "critic",
            "critic": {"steps": 5, "learning_rate": 0.005, "gae_lambda": 0.95},
            "observations": "shared",
            "normalize": True,
            "discount_weight": False,
            "heterogeneity": {"level": 0.35, "of": ("gravity", "mass", "friction", "gear")},
            "evaluation_episodes": 4,
        }
        return {name: make(task, **own) for name, make in MAKE.items()}

    made = tuned(
        "bodies",
        methods,
        {step: {"learning_rate": step} for step in STEPS},
        num_steps=rounds,
        trials=trials,
        choosing=BODIES,
        fixed=lambda methods: {"still": (methods["FedPG"][0], {"learning_rate": STILL})},
        metrics=("return", "return_of_agent"),
        num_agents=8,
        record_every=2,
        seconds=3000,
    )
    value = made["return"]
    late, first = value.late(0.25), value["still"].late(1.0)
    worst = made["return_of_agent"].last(3).then(lambda own: own.min("agent"))
    yield from gains(
        ("claim 6", "claim 6 null"),
        "FedPG, Fast-FedPG",
        [late[method] for method in MAKE],
        (first, late["still"]),
        why=FEW,
    )
    yield effect(
        "claim 6 methods",
        "return of the last quarter, and of the worst of eight bodies at the end: Fast-FedPG less "
        "FedPG",
        together(*(own["Fast-FedPG"] - own["FedPG"] for own in (late, worst))),
        band=((0, None), (0, None)),
        why=FEW,
    )
    yield page(
        "bodies",
        curves(value, title="mean of the eight", y="return"),
        curves(
            made["return_of_agent"].then(lambda own: own.min("agent")),
            title="the worst of the eight",
            y="return",
        ),
        title=f"HalfCheetah, eight bodies, H = 5, episodes of 200 steps, {trials} trials",
    )
