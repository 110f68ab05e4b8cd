"""The runs whose numbers are kept: every algorithm, with what each of its branches needs.

A case is a line: where it runs, the properties that it sets, and how it is run. A name that moves
is changed here and nowhere else; names of metrics and of cases stand in `golden.py`.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS

# Places ------------------------------------------------------------------------------------------

ENVIRONMENTS = {
    "mdp": lambda: frl.envs.random_mdp(seed=0),
    "mdps": lambda: frl.envs.random_mdps(range(4)),
    "tabular": lambda: frl.envs.tabular_task(
        frl.envs.dirichlet_mdps(4, num_states=3, num_actions=2), max_steps=4
    ),
    "grid": lambda: frl.envs.simple_grid(max_steps=8),
    "wind": lambda: frl.envs.windy_grid(max_steps=8),
    "cartpole": lambda: frl.envs.gymnax_task("CartPole-v1", max_steps=12),
    "lqr": lambda: frl.envs.lqr(max_steps=4),
    "pendulum": lambda: frl.envs.gymnax_task("Pendulum-v1", max_steps=4),
}

# Who sends what ----------------------------------------------------------------------------------

UPLINKS = {
    "partial": lambda: frl.uplinks.partial(0.5),
    "partial, present": lambda: frl.uplinks.partial(0.5, absent=False),
    "event-triggered": lambda: frl.uplinks.event_triggered(0.1, factor=0.9, ratio=0.9, horizon=4),
    "probabilistic": lambda: frl.uplinks.probabilistic(1, window=2),
    "lazy": lambda: frl.uplinks.lazy(weight=0.5, depth=2, variance=0.5),
    "top-k": lambda: frl.uplinks.top_k(1),
    "top-k, no feedback": lambda: frl.uplinks.top_k(1, feedback=False),
    "scaled-sign": lambda: frl.uplinks.scaled_sign(),
}

# How long agents take ----------------------------------------------------------------------------

CLOCKS = {
    "asynchronous": lambda: frl.Clock(
        "asynchronous", distribution="log_normal", latency=0.1, bandwidth=1e3
    ),
    "first two": lambda: frl.Clock(
        "semi-synchronous", wait_for=2, distribution="log_normal", sigma=1.0
    ),
    "synchronous": lambda: frl.Clock("synchronous", distribution="two_class", slow_share=0.3),
    "failures": lambda: frl.Clock(
        "asynchronous", distribution="exponential", failure_time=1.5, return_time=0.5
    ),
    "first two, failures": lambda: frl.Clock(
        "semi-synchronous", wait_for=2, distribution="exponential", failure_time=1.5
    ),
    "trace": lambda: frl.Clock(
        "asynchronous",
        distribution="trace",
        compute_time=np.array([[1.0, 2.0], [1.5, 0.5], [0.7, 3.0]]),
    ),
}

# How a case is run; `devices` above 1 asks for as many.
RUN = {"num_agents": 3, "seeds": 5, "num_steps": 4, "record_every": 2}
ON_A_CLOCK = {"num_steps": 8, "record_every": 4}


# Where a property stands in algorithms that have it within a record.
NESTED = {
    "hidden": "network.hidden",
    "activation": "network.activation",
    "initializer": "network.initializer",
    "optimizer": "optimizer.name",
    "momentum": "optimizer.momentum",
    "heterogeneity": "heterogeneity.level",
    "heterogeneity_of": "heterogeneity.of",
    "heterogeneity_seed": "heterogeneity.seed",
    "word_bytes": "wire.word_bytes",
    "header_bytes": "wire.header_bytes",
    "normalize": "loss.normalize",
    "schedule": "schedule.name",
    "warmup_epochs": "schedule.warmup_epochs",
    "horizon_epochs": "schedule.horizon_epochs",
    "policy_clip": "loss.policy_clip",
    "value_clip": "loss.value_clip",
    "value_coefficient": "loss.value_coefficient",
    "entropy_coefficient": "loss.entropy_coefficient",
    "reward_alignment": "rewards.alignment",
    "reward_scale": "rewards.scale",
    "reward_normalization": "rewards.normalize",
    "normalization_discount": "rewards.normalization_discount",
}


class Case(NamedTuple):
    """A run that is kept.

    Attributes:
      environment: of `ENVIRONMENTS`.
      properties: of the algorithm.
      run: arguments of `frl.sweep` beside those of `RUN`.
    """

    environment: str
    properties: dict
    run: dict

    @property
    def arguments(self) -> dict:
        """All arguments of `frl.sweep` but the algorithm and the metrics."""
        return {**RUN, **self.run}

    @property
    def devices(self) -> int:
        """How many it is spread over."""
        return self.run.get("devices", 1)


# What all have, over the lines below -------------------------------------------------------------

GRADIENTS = {"local_steps": 2, "evaluation_episodes": 2, "hidden": (4,)}
MOMENTA = {**GRADIENTS, "first_episodes": 2}
ARRIVALS = {**GRADIENTS, "local_steps": 1}
STRATEGIES = {"hidden": (4,), "sigma": 0.05, "learning_rate": 0.01}
EPISODES = {"episodes_per_round": 3, "hidden": (4,)}
N_STEP = {"num_envs": 2, "rollout_steps": 4, "hidden": (4,)}
NOVELTY = {**STRATEGIES, "meta_population": 2, "neighbours": 2, "archive_size": 4}

# What makes each small.
SMALL = {
    "fedq": {"sync_period": 2},
    **dict.fromkeys(("es", "espc", "iw-es"), STRATEGIES),
    **dict.fromkeys(("ns-es", "nsr-es", "nsra-es"), NOVELTY),
    "dql": {},
    "ebcdql": {},
    "davia": {"horizon": 4},
    "ef-td": {},
    "fedtd": {"sync_period": 2},
    **dict.fromkeys(("reinforce", "lapg"), EPISODES),
    **dict.fromkeys(("fedpg", "scaffold-pg", "fedprox-pg", "fedavgm-pg", "fedadam-pg"), GRADIENTS),
    "fast-fedpg": GRADIENTS,
    **dict.fromkeys(("fedsvrpg-m", "fedhapg-m"), MOMENTA),
    **dict.fromkeys(("afedpg", "a3c-pg"), ARRIVALS),
    "fedapg": GRADIENTS,
    "a3c": N_STEP,
    "feda2c": N_STEP,
    "feddqn": {
        **{"num_envs": 2, "buffer_size": 8, "batch_size": 2, "learning_starts": 2},
        "hidden": (4,),
    },
    "fedppo": {"num_envs": 2, "rollout_steps": 8, "minibatches": 2, "hidden": (4,)},
    "qavg": {"local_steps": 2},
    "pavg": {"local_steps": 2},
}
HOME = {
    "fedapg": "lqr",
    **dict.fromkeys(("fedq", "fedtd"), "mdp"),
    **dict.fromkeys(("es", "espc", "iw-es", "ns-es", "nsr-es", "nsra-es"), "grid"),
    **dict.fromkeys(("dql", "ebcdql", "davia", "ef-td", "reinforce", "lapg"), "grid"),
}


def _strategies(whole: bool = True) -> dict:
    """What all evolution strategies have; a part where others share what is left."""
    some = {
        "bytes": {"word_bytes": 2, "header_bytes": 3, "denominator": "n", "optimizer": "sgd"},
        "cartpole": ({"sigma": 0.5}, {}, "cartpole"),
    }
    rest = {
        "optimizer": {"optimizer": "momentum", "momentum": 0.5, "l2_mode": "decoupled"},
        "antithetic": ({"antithetic": True, "optimizer": "sgd"}, {"num_agents": 4}),
        "policy": {"policy": "argmax", "activation": "relu", "initializer": "orthogonal"},
        "loop": {"loop": "scan", "initializer": "uniform", "return_offset": 1.0},
        "pendulum": ({"loop": "while"}, {}, "pendulum"),
    }
    return {**some, **(rest if whole else {})}


def _shaped(whole: bool = True) -> dict:
    """What strategies whose message is one number have."""
    some = {"shaping": ({"shaping": "rank", "evaluate": True}, {}, "cartpole")}
    rest = {
        "zscore": ({"shaping": "zscore"}, {}, "cartpole"),
        "center": ({"shaping": "center", "denominator": "n"}, {}, "cartpole"),
        "baseline": ({"baseline": "own_window"}, ON_A_CLOCK, "cartpole"),
        "equal": ({"weights": "equal"}, {}, "cartpole"),
    }
    return {**_strategies(whole), **some, **(rest if whole else {})}


def _novelty(whole: bool = True) -> dict:
    return {**_strategies(whole), "archive": {"archive_size": 2, "neighbours": 1}}


def _values() -> dict:
    """What distributed Q-learning has."""
    return {
        "ties": {"ties": "first", "epsilon": 0.5},
        "sequential": {"order": "sequential", "compact_trajectory": True},
        "literal": {"literal_state_average": True, "word_bytes": 8, "header_bytes": 3},
        "wind": ({}, {}, "wind"),
    }


def _episodes() -> dict:
    """What REINFORCE and LAPG have."""
    return {
        "estimator": {"estimator": "reinforce", "baseline": "none", "loop": "scan"},
        "optimizer": {"optimizer": "adam", "baseline": "batch_mean", "discount_weight": False},
        "momentum": {"optimizer": "momentum", "momentum": 0.5, "loop": "compact"},
        "one episode": {"episodes_per_round": 1},
        "network": ({"policy": "mlp", "activation": "relu", "initializer": "orthogonal"}, {}),
        "cartpole": ({}, {}, "cartpole"),
        "pendulum": ({"deviation": 0.3}, {}, "pendulum"),
    }


def _gradients(whole: bool = True) -> dict:
    """What policy gradients with local steps have; a part for variants of one algorithm."""
    part = {
        "credit": {
            "estimator": "reinforce",
            "baseline": "state_mean",
            "normalize": True,
            "entropy": 0.1,
            "episodes_per_step": 3,
        },
        "exact": ({"gradient": "exact", "entropy": 0.1, "heterogeneity": 0.3}, {}, "mdp"),
        "cartpole": (
            {"episodes_per_step": 2, "heterogeneity": 0.5, "heterogeneity_of": ("gravity",)},
            {},
            "cartpole",
        ),
    }
    rest = {
        "truncated": {"gradient": "truncated", "discount_weight": False},
        "kernels": (
            {"heterogeneity": 0.3, "heterogeneity_of": ("kernels",), "heterogeneity_seed": 3},
            {},
            "mdp",
        ),
        "network": (
            {
                **{"policy": "mlp", "activation": "relu", "loop": "scan", "header_bytes": 3},
                # With the defaults of a network all advantages of so short episodes are 0.
                **{"normalize": False, "episodes_per_step": 1, "learning_rate": 0.0005},
            },
            {},
            "grid",
        ),
        "grid": ({"baseline": "linear", "episodes_per_step": 3}, {}, "grid"),
        "pendulum": (
            {"deviation": 0.3, "initializer": "orthogonal", "baseline": "linear"},
            {},
            "pendulum",
        ),
    }
    return {**part, **(rest if whole else {})}


def _averaging() -> dict:
    return {
        "kernels": ({"heterogeneity": 0.3, "heterogeneity_of": ("kernels",)}, {}, "mdp"),
        "rewards": (
            {"heterogeneity": 0.3, "heterogeneity_of": ("rewards",), "heterogeneity_seed": 2},
            {},
            "mdps",
        ),
        "bytes": {"learning_rate": 0.5, "word_bytes": 8, "header_bytes": 3},
    }


def _halving(step):
    return jax.numpy.exp2(-step.astype(float))


_RATES = np.array([0.1, 0.2, 0.3])

# What each has besides: properties, or (properties, run), or (properties, run, environment).
OWN = {
    "fedq": {
        "iid": {"sampling": "iid", "reward_noise": 0.1},
        "generative": ({"sampling": "generative", "aggregation": "importance"}, {}, "mdps"),
        "expected": {"sampling": "expected", "behaviour": "greedy", "epsilon": 0.3},
        "expected, family": (
            {"sampling": "expected", "aggregation": "importance", "visit_exponent": 0.5},
            {},
            "mdps",
        ),
        "greedy": {"behaviour": "greedy", "epsilon": 0.3},
        "uniform": {"behaviour": "uniform", "generator": "hash"},
        "policy": lambda: {
            "behaviour": "policy",
            "policy": np.full(_pairs("mdp"), 1 / _pairs("mdp")[1]),
        },
        "of agents": {
            "learning_rate": _RATES,
            "epsilon": _RATES,
            "beta": 10 * _RATES,
            "reward_noise": _RATES,
            "visit_exponent": _RATES,
        },
        "schedule": {"learning_rate": frl.schedule(_halving)},
        "by agents": {"learning_rate": frl.by_agents(lambda n: 0.1 * n)},
        "start": {"discount": 0.8, "initial_q": 1.0},
        "family": ({}, {}, "mdps"),
        "fixed": {"aggregation": "fixed", "weights": 10 * _RATES},
        "learned": {"aggregation": "learned", "weights": 10 * _RATES},
        "importance": {"aggregation": "importance", "learning_rate": _RATES},
        "mixing": {"mixing": 0.5},
        "participation": {"participation": 0.5},
        "server optimizer": {"server_optimizer": optax.adam(0.1)},
        "server optimizer, fixed": {
            "server_optimizer": optax.sgd(0.5, momentum=0.9),
            "aggregation": "fixed",
            "weights": _RATES,
        },
        "importance, top-k": lambda: {
            "aggregation": "importance",
            "uplink": frl.uplinks.top_k(2),
        },
        "server optimizer, first two": lambda: {
            "server_optimizer": optax.adam(0.1),
            "clock": CLOCKS["first two"](),
        },
        "fixed, asynchronous": lambda: {
            "aggregation": "fixed",
            "weights": _RATES,
            "clock": CLOCKS["asynchronous"](),
        },
        "period 3": ({"sync_period": 3}, {"num_steps": 8, "record_every": 4}),
    },
    "es": _shaped(),
    "espc": {
        **_shaped(False),
        "baseline": ({"baseline": "own_window"}, ON_A_CLOCK, "cartpole"),
        "senders": ({"target_senders": 2, "window": 3, "utility": "return"}, {}, "cartpole"),
        "empirical": ({"utility_model": "empirical", "utility": "norm"}, {}, "cartpole"),
        "absolute": ({"utility": "absolute", "window": 2}, {"num_steps": 8}, "cartpole"),
    },
    "iw-es": {
        **_shaped(False),
        "antithetic": ({"antithetic": True, "optimizer": "momentum"}, {"num_agents": 4}),
        "reuse": ({"reuse": 1, "min_ess": 0.9}, {}, "cartpole"),
        "no reuse": ({"reuse": 0}, {}, "cartpole"),
    },
    "ns-es": _novelty(),
    "nsr-es": {"archive": {"archive_size": 2, "neighbours": 1}},
    "nsra-es": {
        **_novelty(False),
        "weight": {"reward_weight": 0.5, "weight_step": 0.2, "patience": 1},
    },
    "dql": {**_values(), "increments": {"message": "increments"}},
    "ebcdql": {
        "sequential": {"order": "sequential", "compact_trajectory": True},
        "trigger": {"threshold": 0.1, "factor": 0.9, "decay": 0.5, "reset": True},
    },
    "davia": {
        "rbf": {"features": "rbf", "ties": "first", "epsilon": 0.5},
        "literal": {"trigger": "literal", "ratio": 0.5, "header_bytes": 3},
        "model free": {"model_free": True, "price": 0.001},
        "wind": ({"price": 0.0}, {}, "wind"),
    },
    "ef-td": {
        "onehot": {"features": "onehot", "radius": 0.5, "header_bytes": 3},
        "episode": {"mode": "episode"},
        "wind": ({"mode": "episode", "features": "onehot"}, {}, "wind"),
    },
    "fedtd": {
        "iid": {"sampling": "iid", "learning_rate": frl.schedule(_halving)},
        "corrected": ({"sampling": "generative", "control_variates": True}, {}, "mdps"),
    },
    "reinforce": _episodes(),
    "lapg": {
        "optimizer": {"optimizer": "adam", "baseline": "batch_mean", "header_bytes": 3},
        "network": {"policy": "mlp", "estimator": "reinforce"},
        "cartpole": ({}, {}, "cartpole"),
        "one episode": {"episodes_per_round": 1, "variance": 0.0, "depth": 2},
        "lazier": {"weight": 2.0, "depth": 1, "variance": 4.0},
    },
    "fedpg": {
        **_gradients(),
        "all": {
            "correction": "scaffold",
            "proximal": 0.2,
            "optimizer": "adam",
            "server_learning_rate": 0.05,
        },
        "momentum": {"optimizer": "momentum", "server_momentum": 0.5, "proximal": 0.1},
    },
    "scaffold-pg": {
        **_gradients(False),
        "momentum": {"optimizer": "momentum", "word_bytes": 2, "header_bytes": 3},
    },
    "fedprox-pg": {"pull": {"proximal": 1.0, "learning_rate": 0.5}},
    "fedavgm-pg": {"momentum": {"server_momentum": 0.3}},
    "fedadam-pg": {"rate": {"server_learning_rate": 0.1}},
    "fast-fedpg": {
        **_gradients(False),
        "reuse": {"reuse_first": True, "server_learning_rate": 0.5},
        "memory": {"memory_episodes": 3},
    },
    "fedsvrpg-m": {
        **_gradients(False),
        "authors": {"authors_code": True, "weight_clip": 1.0},
        "authors, mlp": ({"authors_code": True}, {}, "cartpole"),
        "plain": {"variance_reduction": False, "first_episodes": 0, "momentum": 0.5},
        "current": {"anchor": "current", "weights": "per_decision", "weight_clip": 2.0},
        "rates": {"learning_rate": 0.1, "server_learning_rate": 0.3, "episodes_per_step": 2},
    },
    "fedhapg-m": {
        **_gradients(False),
        "authors": {"authors_code": True, "weight_clip": 1.0},
        "authors, mlp": ({"authors_code": True}, {}, "cartpole"),
        "two": {"two_trajectories": True, "first_episodes": 0},
        "rates": {"learning_rate": 0.1, "server_learning_rate": 0.3, "episodes_per_step": 2},
    },
    "afedpg": {
        **_gradients(False),
        "no lookahead": {"lookahead": False, "scale_with_arrivals": False},
        "compensated": {"delay_compensation": 2.0, "momentum": 0.5},
        "decay": {"momentum_decay": 0.8, "learning_rate_decay": 0.5, "decay_start": 2.0},
        "not normalized": {"normalize_step": False},
    },
    "a3c-pg": {"momentum": {"momentum": 0.5, "lookahead": True}},
    "fedapg": {
        "drawn": {"actions": "drawn", "episodes_per_step": 2, "optimizer": "momentum"},
        "cut": {"truncation": 2, "gradient_clip": 0.5, "local_optimizer.name": "rmsprop"},
        "normalised": {"observations": "shared", "local_moments": "local"},
        "members": ({"heterogeneity": 0.3, "held_out.members": 2}, {"devices": 2}),
        "pendulum": ({"local_optimizer": "sgd", "optimizer": "adam"}, {}, "pendulum"),
    },
    "a3c": {
        "adam": {"optimizer": "adam", "gae_lambda": 0.9, "normalize": "rollout"},
        "rounds": {"clock": None, "optimizer": "momentum", "optimizer.decay": 0.5},
        "kernels": ({"heterogeneity": 0.3, "evaluation_episodes": 2}, ON_A_CLOCK, "mdp"),
        "grid": ({"optimizer": "sgd", "bootstrap_timeouts": False}, ON_A_CLOCK, "grid"),
        "cartpole": ({"activation": "relu", "gradient_clip": 0.1}, {}, "cartpole"),
        "pendulum": ({"deviation": 0.3, "reward_scale": 0.1}, {}, "pendulum"),
    },
    "feda2c": {
        "rmsprop": {"optimizer": "rmsprop", "optimizer.decay": 0.9, "gae_lambda": 1.0},
        "moments": {"moments": "average", "sync_period": 2, "normalize": "rollout"},
        "kernels": ({"heterogeneity": 0.3, "evaluation_episodes": 2}, {}, "mdp"),
        "grid": ({"moments": "reset", "bootstrap_timeouts": False, "sync_period": 3}, {}, "grid"),
        "cartpole": ({"activation": "relu", "gradient_clip": 0.1}, {}, "cartpole"),
        "pendulum": ({"deviation": 0.3, "reward_scale": 0.1}, {}, "pendulum"),
    },
    "feddqn": {
        "plain targets": {"double": False, "loss": "squared", "target.every": 1, "target.tau": 0.5},
        "moments": {"moments": "average", "sync_period": 2, "updates": 2, "update_every": 2},
        "kernels": ({"heterogeneity": 0.3, "evaluation_episodes": 2}, {}, "mdp"),
        "grid": ({"moments": "reset", "exploration.steps": 4, "sync_period": 3}, {}, "grid"),
        "cartpole": ({"activation": "tanh", "gradient_clip": 0.1}, {}, "cartpole"),
    },
    "fedppo": {
        "paper": {"preset": "paper", "minibatches": 4, "warmup_epochs": 2, "horizon_epochs": 6},
        "procgen": {"preset": "procgen", "sync_period": 2, "sync_first": False},
        "period": {"sync_period": 2, "moments": "average", "evaluation_episodes": 2},
        "minibatches": {"sync_every_minibatches": 1, "moments": "reset", "passes": 2},
        "sum": {"aggregation": "sum", "value_clip": 0.5, "normalize": "none"},
        "tail": {"stale_tail": 4, "shuffle": "steps", "batching": "in turn"},
        "rewards": {"reward_normalization": True, "normalization_discount": 0.9},
        "late": {"reward_alignment": "late", "bootstrap_timeouts": False, "gae_lambda": 0.5},
        "together": {"batching": "together", "entropy_coefficient": 0.1, "gradient_clip": 0.1},
        "kernels": ({"heterogeneity": 0.3, "heterogeneity_seed": 2}, {}, "mdp"),
        "grid": ({}, {}, "grid"),
        "cartpole": ({"heterogeneity": 0.5, "heterogeneity_of": ("gravity",)}, {}, "cartpole"),
        "pendulum": ({"deviation": 0.3, "activation": "relu"}, {}, "pendulum"),
    },
    "qavg": _averaging(),
    "pavg": _averaging(),
}

# Uplinks and clocks at once.
TOGETHER = {
    "asynchronous, top-k": ("asynchronous", "top-k"),
    "first two, partial": ("first two", "partial"),
    "asynchronous, lazy": ("asynchronous", "lazy"),
}

# Every uplink, clock and pair of both is run with these alone; all others have the most different.
THOROUGH = ("fedq", "es", "fedpg", "scaffold-pg", "afedpg")
UPLINKS_OF_ALL = ("partial", "event-triggered", "probabilistic", "lazy", "top-k")
CLOCKS_OF_ALL = ("asynchronous", "first two", "failures")
# They differ from another algorithm in a number, or in the optimizer of the server.
VARIANTS = ("fedprox-pg", "fedavgm-pg", "fedadam-pg", "a3c-pg", "nsr-es")
UPLINKS_OF_VARIANTS = ("partial", "top-k")
CLOCKS_OF_VARIANTS = ("asynchronous", "first two")


def _pairs(place: str) -> tuple[int, int]:
    """States and actions of an MDP."""
    mdp = ENVIRONMENTS[place]()
    return mdp.num_states, mdp.num_actions


@functools.cache
def _environment(place: str, double: bool):
    del double  # its numbers may be of the precision in which it is made
    return ENVIRONMENTS[place]()


def home(name: str) -> str:
    """Where an algorithm runs if its case does not say."""
    return HOME.get(name, "tabular")


def make(name: str, case: Case):
    """The algorithm of a case, in the precision that is switched on."""
    where = _environment(case.environment, bool(jax.config.jax_enable_x64))
    algorithm = ALGORITHMS[name].make(where)
    given = {**SMALL[name], **case.properties}
    return algorithm.replace(**{_place(own, algorithm): value for own, value in given.items()})


def _place(own: str, algorithm) -> str:
    """The name of a property of an algorithm: within a record, where it is there."""
    nested = NESTED.get(own)
    return nested if nested in algorithm.properties else own


def is_single(name: str, case: Case) -> bool:
    """Whether a case runs in single precision alone.

    Of strategies on environments of gymnax that is what is recorded; where an uplink chooses by the
    size of a message of networks, two precisions meet, which the tests forbid.
    """
    if name in ("a3c", "fedppo", "feda2c"):
        uplink = getattr(case.properties.get("uplink"), "name", None)
        return uplink in ("lazy", "event-triggered", "probabilistic")
    strategy = name in ("es", "espc", "iw-es", "ns-es", "nsr-es", "nsra-es")
    return strategy and case.environment in ("cartpole", "pendulum")


def cases(name: str) -> dict[str, Case]:
    """The cases of an algorithm by name; those it refuses are among them."""
    here, algorithm = home(name), ALGORITHMS[name].make(_environment(home(name), False))
    found = {
        "plain": Case(here, {}, {}),
        "members": Case(here, {}, {"num_agents": 4, "devices": 2}),
    }
    if name in THOROUGH:
        company = {"num_agents": [2, 3], "seeds": [5, 6]}
        found["company"] = Case(here, {}, company)
        found["devices"] = Case(here, {}, {**company, "devices": 2})
    for title, own in OWN[name].items():
        own = own() if callable(own) else own
        properties, run, *place = own if isinstance(own, tuple) else (own, {})
        found[title] = Case(place[0] if place else here, properties, run)

    def some(of_all, of_variants, everything):
        own = of_variants if name in VARIANTS else everything if name in THOROUGH else of_all
        return {title: everything[title] for title in own}

    uplinks = some(UPLINKS_OF_ALL, UPLINKS_OF_VARIANTS, UPLINKS)
    clocks = some(CLOCKS_OF_ALL, CLOCKS_OF_VARIANTS, CLOCKS)
    if "uplink" in algorithm.properties:
        for title, uplink in uplinks.items():
            found[title] = Case(here, {"uplink": uplink()}, {})
    if "clock" in algorithm.properties:
        for title, clock in clocks.items():
            found[title] = Case(here, {"clock": clock()}, ON_A_CLOCK)
        if name not in THOROUGH:
            return found
        found["devices, asynchronous"] = Case(
            here,
            {"clock": CLOCKS["asynchronous"]()},
            {**ON_A_CLOCK, "num_agents": [2, 3], "devices": 2},
        )
        for title, (clock, uplink) in TOGETHER.items():
            both = {"clock": CLOCKS[clock](), "uplink": UPLINKS[uplink]()}
            found[title] = Case(here, both, ON_A_CLOCK)
    return found
