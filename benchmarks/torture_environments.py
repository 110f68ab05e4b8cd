"""Everything of `envs`, the registry, games and networks that takes a value.

The kind of value that each argument takes is written by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from torture_targets import Target, same, small, swept

import fedjax_rl as frl
from fedjax_rl.algorithms import ALGORITHMS
from fedjax_rl.envs import registry

# Arguments of environments and exact solvers; "FUNCTION.ARGUMENT" goes before "ARGUMENT".
ENVIRONMENTS = {
    "seed": "seed",
    "reward_seed": "seed",
    "seeds": "seeds",
    **same(
        "count",
        "num_states num_actions num_agents num_members after max_steps horizon num_steps "
        "copies quota",
    ),
    **same("whole", "horizon num_steps start start_level num_levels"),
    "pool": "count",
    "size": "two",
    "power": "natural~",
    **same("natural", "reward_scale rewards spread entropy"),
    "beta": "natural",
    **same("probability", "kernels wind"),
    "concentration": "positive~",
    "signed": "switch",
    **same(
        "switch",
        "slippery own_levels paint_vel_info use_backgrounds restrict_themes use_monochrome_assets",
    ),
    **same("word", "encoding clip map game mode source observation timeout backend"),
    "random_mdp.reward": "word",
    "random_mdps.reward": "word",
    "name": "word",
    "tabular_task.name": "text?",
    "brax_task.name": "word",
    "options": "mapping?",
    "discount": "probability",
    **same(
        "below one~",
        "random_mdp.discount tabular_mdp.discount dirichlet_mdp.discount "
        "dirichlet_mdps.discount opposed_mdps.discount",
    ),
    **same(
        "count?",
        "frozen_lake.max_steps gymnax_task.max_steps brax_task.max_steps procgen_task.max_steps",
    ),
    "brax_task.backend": "word?",
    "target_speed": "finite?",
    "transition": "array",
    "tabular_mdp.reward": "array",
    "actions": "words",
    "slip": "probability",
    **same("mapping?", "grid_world.wind grid_world.rewards"),
    "terminal": "anything",
    "starts": "object?",
    "environment": "object",
    **same("anything", "params encode"),
    "as_task.action": "count?",
    **same("count?", "as_task.max_steps"),
    "as_task.discount": "probability?",
    "as_task.name": "text?",
    "varies": "words?",
    "initial_state": "whole",
    "initial_distribution": "array?",
    "perturbed_mdps.kernel": "probability*~",
    "perturbed_mdps.reward": "natural*~",
    **same("object", "mdp mdps task theory"),
    "stack_mdps.mdps": "object",
    "levels": "mapping",
    "policy": "array",
    "logits": "array",
    "q": "array",
    **same("positive", "alpha initial threshold tolerance"),
    **same("natural", "noise first"),
}


def _kind(table: dict[str, str], owner: str, argument: str) -> str:
    # What is new and has no kind yet may be accepted, but not end in anything raw.
    return table.get(f"{owner}.{argument}") or table.get(argument, "anything")


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
        "lqr_gain": {"task": frl.envs.lqr()},
        "lqr_gains": {"task": frl.envs.lqr()},
        "lqr_return": {"task": frl.envs.lqr(), "gain": [[0.5, 1.0]]},
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
