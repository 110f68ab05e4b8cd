"""The server's model in environments in which no agent learns."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import streams
from fedjax_rl.algorithms.assemble import first_keys, per_federation

EPISODES = {
    "held_out_return": (
        "federation",
        "mean undiscounted return of the server's model in environments in which no agent learns",
    )
}
EXACT = {
    "held_out_objective": (
        "federation",
        "mean J of the server's model in environments in which no agent learns, exact",
    )
}


def metrics_of(config, exact: bool = False) -> dict:
    """The metric of a configuration: none unless environments are held out.

    Args:
      config: of the algorithm, with a `HeldOut`.
      exact: whether the value of a model is known.
    """
    if not config.held_out.members:
        return {}
    return EXACT if exact else EPISODES


def by_episodes(run: Callable, population, params, state, models, stream: int) -> dict:
    """The metric of `EPISODES`.

    Args:
      run: `(keys [B], models [B, ...], environments [B, ...]) -> returns [B]`, B pairs of a model
        and an environment.
      population: who belongs to whom.
      params: its properties, with the environments that are held out.
      state: of now; its keys and its time make the episodes.
      models: of the servers, leaves [F, ...].
      stream: of the agents' keys, whose first member's it is; environment m has m folded in.
    """
    environments = params.federation["held_out"]
    count = jax.tree.leaves(environments)[0].shape[1]
    # By number, so that an environment plays the same episodes whatever else is held out.
    places = jnp.arange(count, dtype=jnp.uint32)
    fold = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
    keys = fold(streams.keys_of(first_keys(population, state.keys), stream, state.time), places)
    # One axis of all pairs, so that the environment is stepped by one loop for all federations.
    models, environments = (
        jax.tree.map(lambda x: jnp.repeat(x, count, axis=0), models),
        jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), environments),
    )
    returns = run(keys.reshape(-1), models, environments)
    return {"held_out_return": jnp.mean(returns.reshape(-1, count), axis=1)}


def exactly(value: Callable, params, models) -> dict:
    """The metric of `EXACT`.

    Args:
      value: `(model, params) -> J` in `params["environment"]`, unbatched.
      params: properties of a population, with the environments that are held out.
      models: of the servers, leaves [F, ...].
    """

    def mean(model, params):
        within = lambda mdp: value(model, {**params, "environment": mdp})
        return jnp.mean(jax.vmap(within)(params["held_out"]))

    return {"held_out_objective": per_federation(mean, params, models)}
