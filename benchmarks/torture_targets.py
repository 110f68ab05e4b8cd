"""Everything that takes a value, with the kind of value that it takes, written by hand.

A target is a name, an argument, its kind in `torture_values.KINDS` and a function that hands a
value over and goes as far as compiling.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.cli.named import fitting
from fedjax_rl.envs import registry
from fedjax_rl.federation.uplinks import UPLINKS
from fedjax_rl.fields.record import Record


class Target(NamedTuple):
    """Something that takes a value.

    Attributes:
      name: of the function or record.
      argument: of it.
      kind: what fits.
      call: `value -> anything`, goes as far as compiling.
      also: what a refusal may call the argument.
      keep: whether a value should be tried, where some would take all the memory.
    """

    name: str
    argument: str
    kind: str
    call: Callable[[Any], Any]
    also: tuple[str, ...] = ()
    keep: Callable[[Any], bool] = lambda value: True


def _each(kind: str, names: str) -> dict[str, str]:
    """The same kind for all of these names."""
    return dict.fromkeys(names.split(), kind)


# Properties of algorithms; "ALGORITHM.PROPERTY" goes before "PROPERTY".
PROPERTIES = {
    **_each(
        "word",
        "behaviour optimizer.name l2_mode denominator activation initializer loop shaping "
        "generator order ties trigger mode estimator correction anchor preset moments "
        "batching aggregation features",
    ),
    **_each(
        "word?",
        "gradient derivative message utility baseline size schedule.name shuffle network.kind "
        "rewards.alignment fedppo.normalize",
    ),
    **_each(
        "switch",
        "antithetic evaluate literal_state_average compact_trajectory reset model_free "
        "discount_weight normalize reuse_first authors_code variance_reduction "
        "two_trajectories lookahead normalize_step scale_with_arrivals sync_first",
    ),
    **_each("switch?", "rewards.normalize bootstrap_timeouts"),
    **_each(
        "count",
        "word_bytes meta_population neighbours archive_size patience "
        "episodes_per_round depth local_steps episodes_per_step sync_period window",
    ),
    **_each("whole", "header_bytes reuse evaluation_episodes horizon first_episodes"),
    **_each(
        "count?",
        "memory_episodes sync_every_minibatches num_envs rollout_steps passes "
        "minibatches horizon_epochs",
    ),
    "stale_tail": "whole?",
    "warmup_epochs": "natural?",
    "horizon_epochs": "positive?",
    "target_senders": "natural?",
    "heterogeneity.seed": "seed",
    "hidden": "sizes",
    "heterogeneity.level": "natural",
    "heterogeneity.of": "words?",
    **_each("positive*", "sigma deviation server_learning_rate"),
    "learning_rate": "natural*",
    "fedq.learning_rate": "share*",
    "fedppo.learning_rate": "positive*?",
    "return_offset": "finite*",
    **_each(
        "natural*",
        "l2 beta price weight variance entropy proximal "
        "delay_compensation momentum_decay learning_rate_decay decay_start weight_step "
        "factor",
    ),
    "threshold": "natural or infinite*",
    **_each("probability*", "epsilon momentum reward_weight min_ess decay server_momentum ratio"),
    **_each("probability*?", "visit_exponent mixing participation gae_lambda"),
    "reward_noise": "natural*?",
    "normalization_discount": "probability?",
    "discount": "probability?",
    "fedq.discount": "below one*?",
    **_each(
        "positive or infinite*?",
        "radius weight_clip policy_clip value_clip gradient_clip adam_epsilon rewards.scale",
    ),
    **_each("natural*?", "value_coefficient entropy_coefficient"),
    "initial_q": "number or array",
    "weights": "word",
    "fedq.weights": "number or array?",
    "policy": "word?",
    "fedq.policy": "array?",
    "utility_model": "function",
    "server_optimizer": "object?",
    "uplink": "uplink?",
    "clock": "clock?",
    "mdp": "object",
    "task": "object",
}

# Arguments of environments and exact solvers; "FUNCTION.ARGUMENT" goes before "ARGUMENT".
ENVIRONMENTS = {
    "seed": "seed",
    "reward_seed": "seed",
    "seeds": "seeds",
    **_each(
        "count",
        "num_states num_actions num_agents num_members after max_steps horizon num_steps "
        "copies quota",
    ),
    **_each("whole", "horizon num_steps start start_level num_levels"),
    "pool": "count",
    "size": "two",
    "power": "natural~",
    **_each("natural", "reward_scale rewards spread entropy"),
    "beta": "natural",
    **_each("probability", "kernels wind"),
    "concentration": "positive~",
    "signed": "switch",
    **_each(
        "switch",
        "slippery own_levels paint_vel_info use_backgrounds restrict_themes use_monochrome_assets",
    ),
    **_each("word", "encoding clip map game mode source observation timeout backend"),
    "random_mdp.reward": "word",
    "random_mdps.reward": "word",
    "name": "word",
    "tabular_task.name": "text?",
    "brax_task.name": "word",
    "options": "mapping?",
    "discount": "probability",
    **_each(
        "below one~",
        "random_mdp.discount tabular_mdp.discount dirichlet_mdp.discount "
        "dirichlet_mdps.discount opposed_mdps.discount",
    ),
    **_each(
        "count?",
        "frozen_lake.max_steps gymnax_task.max_steps brax_task.max_steps procgen_task.max_steps",
    ),
    "brax_task.backend": "word?",
    "target_speed": "finite?",
    "transition": "array",
    "tabular_mdp.reward": "array",
    "actions": "words",
    "slip": "probability",
    **_each("mapping?", "grid_world.wind grid_world.rewards"),
    "terminal": "anything",
    "starts": "object?",
    "environment": "object",
    **_each("anything", "params encode"),
    "as_task.action": "count?",
    **_each("count?", "as_task.max_steps"),
    "as_task.discount": "probability?",
    "as_task.name": "text?",
    "varies": "words?",
    "initial_state": "whole",
    "initial_distribution": "array?",
    "perturbed_mdps.kernel": "probability*~",
    "perturbed_mdps.reward": "natural*~",
    **_each("object", "mdp mdps task theory"),
    "stack_mdps.mdps": "object",
    "levels": "mapping",
    "policy": "array",
    "logits": "array",
    "q": "array",
    **_each("positive", "alpha initial threshold tolerance"),
}

UPLINK_ARGUMENTS = {
    **_each("probability*", "probability decay"),
    **_each("switch", "absent reset below feedback"),
    "threshold": "natural or infinite*",
    **_each("natural*", "factor weight variance"),
    "ratio": "share*",
    "horizon": "whole",
    "target": "positive",
    **_each("count", "window depth k"),
    "utility": "function?",
    "utility_model": "function",
    "step": "positive*?",
}

CLOCK = {
    **_each("word", "scheduler distribution"),
    "wait_for": "count?",
    "compute_time": "positive*",
    "sigma": "natural",
    "slow_factor": "positive",
    "slow_share": "probability",
    "latency": "natural*",
    "bandwidth": "positive or infinite*",
    "failure_time": "positive or infinite*",
    "return_time": "positive*",
}

RUN = {
    "algorithm": "object",
    "num_steps": "count",
    "num_agents": "counts",
    "seeds": "seeds",
    "seed": "seed",
    **_each("count?", "record_every first_record workers chunk"),
    "devices": "count",
    "metrics": "names?",
    **_each("function?", "stop progress watch"),
    **_each("switch", "cache debug"),
    "checkpoints": "path?",
    "cells": "object",
    "transfer": "whole",
    "clock": "clock",
}


def small(value) -> bool:
    """Whether a number of agents, levels and the like is one that a test can afford, or absurd."""
    try:
        number = abs(value) if isinstance(value, complex | np.complexfloating) else float(value)
    except Exception:  # no single number
        return True
    return not 300 < number < 2**31


def _kind(table: dict[str, str], owner: str, argument: str) -> str:
    # What is new and has no kind yet may be accepted, but not end in anything raw.
    return table.get(f"{owner}.{argument}") or table.get(argument, "anything")


def _kind_of_property(name: str, own: str, value) -> str:
    """The kind of a property; of a record that of its first one, by which it may be given."""
    if isinstance(value, Record):
        own = f"{own}.{dataclasses.fields(value)[0].name}"
    whose = own if own in PROPERTIES else own.rpartition(".")[2]
    return _kind(PROPERTIES, name, whose)


@functools.cache
def base(name: str):
    """An algorithm in the first environment that it accepts, as small as it can be."""
    return ALGORITHMS[name].make(_place(fitting(name)[0]))


@functools.cache
def _place(name: str):
    return registry.make(name)


def swept(algorithm, **changes):
    """A run of two agents, as far as compiling."""
    options = {"num_agents": 2, "num_steps": 4, "record_every": 1, **changes}
    return frl.sweep(algorithm, **options)


def of_algorithms() -> Iterator[Target]:
    """Every property of every algorithm: set, and in a list that is swept."""
    for name in ALGORITHMS:
        for own in type(base(name).config).names():
            value = operator.attrgetter(own)(base(name).config)
            kind = _kind_of_property(name, own, value)
            if value is None and "?" not in kind:
                kind = f"{kind}?"  # a default that is found later

            def replaced(value, name=name, own=own):
                return swept(base(name).replace(**{own: value}))

            def listed(value, name=name, own=own):
                first = operator.attrgetter(own)(base(name).config)
                return swept(base(name), **{own: frl.each([first, value])})

            yield Target(name, own, kind, replaced, keep=small)
            yield Target(f"{name}, swept", own, kind, listed, keep=small)
        yield Target(
            name,
            "environment",
            "object",
            lambda value, name=name: swept(ALGORITHMS[name].make(value)),
            also=("mdp", "task"),
        )


def of_runs() -> Iterator[Target]:
    """Every argument of `sweep`, `run_cells`, `simulate` and `timetable`."""
    import jax

    algorithms = {"fedq": base("fedq").replace(sync_period=2), "es": base("es")}
    for name, algorithm in algorithms.items():
        good = {"num_agents": 2, "num_steps": 20, "record_every": 2, "seeds": 0}
        for argument in inspect.signature(frl.sweep).parameters:
            if argument in ("properties", "algorithm"):
                continue
            kind = RUN[argument]

            def swept_with(value, argument=argument, algorithm=algorithm, good=good):
                return frl.sweep(algorithm, **{**good, argument: value})

            also = ("seed", "metric")
            yield Target(f"sweep of {name}", argument, kind, swept_with, also, keep=small)
            if argument in ("num_agents", "seeds"):
                each = "count" if argument == "num_agents" else "seed"

                def in_list(value, argument=argument, algorithm=algorithm, good=good):
                    return frl.sweep(algorithm, **{**good, argument: [1, value]})

                yield Target(
                    f"sweep of {name}, list", argument, each, in_list, ("seed",), keep=small
                )
        cells = {
            "cells": lambda value: value,
            "num_agents": lambda value: [frl.Cell(value, 0, {})],
            "seed": lambda value: [frl.Cell(2, value, {})],
            "properties": lambda value: [frl.Cell(2, 0, value)],
        }
        kinds = {"cells": "object", "num_agents": "count", "seed": "seed", "properties": "mapping"}
        for argument, cell in cells.items():

            def of_cells(value, cell=cell, algorithm=algorithm):
                return frl.run_cells(algorithm, cell(value), num_steps=4)

            also = ("cells", "cell", "property", "no property")
            yield Target(
                f"run_cells of {name}", argument, kinds[argument], of_cells, also, keep=small
            )
    yield Target("sweep", "algorithm", "object", swept)
    traced = {"num_agents": 2, "num_steps": 4, "seed": 0, "record_every": 2}
    for argument in inspect.signature(frl.simulate).parameters:
        given = {} if argument != "algorithm" else traced

        def simulated(value, argument=argument, given=given):
            options = {"algorithm": algorithms["fedq"], **traced, **given, argument: value}
            return jax.eval_shape(lambda: frl.simulate(options.pop("algorithm"), **options))

        kind = "count?" if argument == "record_every" else RUN[argument]
        yield Target("simulate", argument, kind, simulated, keep=small)
    table = {"clock": frl.Clock("asynchronous"), "num_agents": 2, "num_steps": 4}
    for argument in inspect.signature(frl.timetable).parameters:

        def timed(value, argument=argument):
            return frl.timetable(**{**table, argument: value})

        yield Target("timetable", argument, RUN[argument], timed, ("seed",), keep=small)


def of_uplinks() -> Iterator[Target]:
    """Every argument of every uplink, in a run."""
    needed = {"probabilistic": {"target": 1}, "top-k": {"k": 1}}
    for name, factory in UPLINKS.items():
        for argument in inspect.signature(factory).parameters:

            def used(value, argument=argument, factory=factory, name=name):
                uplink = factory(**{**needed.get(name, {}), argument: value})
                return swept(base("fedq").replace(uplink=uplink, sync_period=2), record_every=2)

            yield Target(f"uplink {name}", argument, UPLINK_ARGUMENTS[argument], used, keep=small)


def of_clocks() -> Iterator[Target]:
    """Every property of a clock, with every scheduler, in a run."""
    for scheduler in ("synchronous", "semi-synchronous", "asynchronous"):
        for distribution in ("constant", "log_normal", "exponential", "two_class"):
            given = {"scheduler": scheduler, "distribution": distribution}
            given |= {"wait_for": 1} if scheduler == "semi-synchronous" else {}
            for field in dataclasses.fields(frl.Clock):

                def used(value, field=field, given=given):
                    clock = frl.Clock(**{**given, field.name: value})
                    return swept(base("fedq").replace(clock=clock, sync_period=2))

                name = f"clock {scheduler}, {distribution}"
                yield Target(name, field.name, CLOCK[field.name], used)


class _Mine:
    """An environment as somebody might write it."""

    def reset(self, key, params):
        return jnp.zeros(2), jnp.float32(0)

    def step(self, key, state, action, params):
        return jnp.zeros(2), state + params["x"], state, state > 2, False, {}


def of_environments() -> Iterator[Target]:
    """Every argument of every function of `envs`, of the registry, games and networks."""
    from fedjax_rl import networks
    from fedjax_rl.envs import procgen

    mdp = frl.envs.tabular_mdp(np.full((3, 2, 3), 1 / 3), np.arange(3.0), 0.5)
    task = frl.envs.tabular_task(mdp)
    policy = np.full((3, 2), 0.5)
    given = {
        "mdp": mdp,
        "policy": policy,
        "q": np.zeros((3, 2)),
        "logits": np.zeros((3, 2), np.float32),
        "theory": frl.envs.linear_theory(mdp, policy),
        "transition": np.full((3, 2, 3), 1 / 3),
        "reward": np.arange(3.0),
        "discount": 0.5,
        "mdps": frl.envs.stack_mdps([mdp, mdp]),
        "seeds": [0, 1],
        "task": task,
        "num_agents": 2,
        "num_members": 2,
        "after": 2,
        "levels": {"rewards": 0.1},
        "num_steps": 4,
        "horizon": 4,
        "alpha": 0.1,
        "initial": 2.0,
        "threshold": 1.0,
    }
    special = {
        "stack_mdps": {"mdps": [mdp, mdp]},
        "perturbed_mdps": {"reward": 0.1},
        "brax_task": {"name": "ant"},
        "as_task": {"environment": _Mine(), "params": {"x": 1.0}, "action": 2, "max_steps": 3},
    }
    functions = {
        name: getattr(frl.envs, name)
        for name in frl.envs.__all__
        if inspect.isfunction(getattr(frl.envs, name))
    }
    functions |= {"procgen_env": procgen.procgen_env, "procgen_params": procgen.procgen_params}
    for name, function in functions.items():
        parameters = inspect.signature(function).parameters
        own = {p: given[p] for p, x in parameters.items() if x.default is x.empty and p in given}
        own |= special.get(name, {})
        for argument, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue

            def made(value, argument=argument, function=function, own=own):
                return function(**{**own, argument: value})

            kind = "object?" if argument == "drawing" else _kind(ENVIRONMENTS, name, argument)
            keep = _brief if name == "brax_task" else small
            also = ("environment", "part")
            yield Target(f"envs.{name}", argument, kind, made, also, keep=keep)
    for option in inspect.signature(functions["random_mdp"]).parameters:
        if option != "seed":
            kind = _kind(ENVIRONMENTS, "random_mdp", option)

            def drawn(value, option=option):
                return frl.envs.random_mdps([0, 1], **{option: value})

            yield Target("envs.random_mdps", option, kind, drawn, keep=small)
    yield Target("registry.make", "name", "word", registry.make, ("environment",))
    for name in registry.ENVIRONMENTS:
        if name.startswith("brax"):
            continue
        for option in registry.options(name):
            own = registry.ENVIRONMENTS[name].__name__
            kind = _kind(ENVIRONMENTS, own if "-mdp" in name or own == "grid_world" else "", option)
            if option == "discount" and "mdp" in name:
                kind = "below one~"
            if registry.options(name)[option] is None:
                kind = f"{kind}?"
            if (name, option) == ("random-mdp", "reward"):
                kind = "word"

            def named(value, name=name, option=option):
                return registry.make(name, **{option: value})

            yield Target(f"registry.make {name}", option, kind, named, keep=small)
    leaves = {"transition": "array", "reward": "array", "discount": "below one~"}
    leaves |= {"initial_state": "whole", "initial_distribution": "array?"}
    for name, wrap in (
        ("fedq", lambda x: x),
        ("qavg", lambda x: x),
        ("pavg", lambda x: x),
        ("fedpg", frl.envs.tabular_task),
        ("afedpg", frl.envs.tabular_task),
    ):
        for leaf, kind in leaves.items():

            def by_hand(value, leaf=leaf, name=name, wrap=wrap):
                return swept(ALGORITHMS[name].make(wrap(mdp.replace(**{leaf: value}))))

            yield Target(f"{name} on mdp.replace", leaf, kind, by_hand, keep=small)
    for argument, kind in {"sizes": "sizes", "activation": "word"}.items():

        def perceptron(value, argument=argument):
            return networks.MLP(**{"sizes": (2, 3), argument: value})

        yield Target("networks.MLP", argument, kind, perceptron)
    heads = {"name": "word", "outputs": "count", "hidden": "sizes", "activation": "word"}
    for argument, kind in heads.items():

        def critic(value, argument=argument):
            return networks.actor_critic(**{"name": "mlp", "outputs": 2, argument: value})

        yield Target("networks.actor_critic", argument, kind, critic, ("network",))
    for argument in ("depth", "heads", "width", "patch"):

        def transformer(value, argument=argument):
            return networks.VisionTransformer(**{argument: value})

        yield Target("networks.VisionTransformer", argument, "count", transformer, ("width",))
    for argument, kind in {"channels": "sizes", "units": "count"}.items():

        def residual(value, argument=argument):
            return networks.Impala(**{argument: value})

        yield Target("networks.Impala", argument, kind, residual)


def _brief(value) -> bool:
    """Brax takes a second each time that it is made."""
    return not isinstance(value, int | float) or value in (0, 1, -1) or value != value


def everything() -> list[Target]:
    """All targets but the command line's."""
    groups = (of_algorithms, of_runs, of_uplinks, of_clocks, of_environments)
    return [target for group in groups for target in group()]
