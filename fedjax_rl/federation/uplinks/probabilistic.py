"""Whoever believes to be among the m best sends (Gunn, 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import fields, streams
from fedjax_rl.federation.uplinks.order_statistics import UTILITY_MODELS, communication_probability
from fedjax_rl.federation.uplinks.protocol import Uplink, uplink

_MESSAGE_UTILITY = fields.anything(
    "a function of a message", lambda x: callable(x) and not isinstance(x, type), optional=True
)


UTILITY_MODEL = fields.anything(
    "'gaussian', 'empirical' or a function (window, count, utility) -> p",
    lambda x: x in UTILITY_MODELS if isinstance(x, str) else _MESSAGE_UTILITY.fine(x),
    words=tuple(UTILITY_MODELS),
)


# Windows up to this length share a program.
_WINDOW_CAPACITY = 32


@uplink(
    target=fields.whole(0, follows=True, traced=True),
    window=fields.whole(1, traced=True),
    utility=_MESSAGE_UTILITY,
    utility_model=UTILITY_MODEL,
)
def probabilistic(
    target: int,
    window: int = 5,
    utility: Callable | None = None,
    utility_model: str | Callable = "gaussian",
) -> Uplink:
    r"""An agent sends with the probability that its sample is among the m best of all n.

    It keeps the utilities of its own last k samples, the present one included and whether sent or
    not; where the utility stands in that window is the probability p to beat somebody else's, and
    `communication_probability(p, m, n)` the probability to send. Gunn (2023), section 4.

    Args:
      target: m, senders wanted per exchange, a whole number from 0 to the number of agents.
      window: k, at least 1. One that is traced, as under `jax.jit`, counts as 32 if it is longer:
        how much is kept is a part of the program.
      utility: `message -> scalar`; the algorithm's own measure by default.
      utility_model: "gaussian", "empirical" or `(window [C], count, utility) -> p`.

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.probabilistic(2, window=8))
      >>> str(algorithm.config.uplink)
      'probabilistic(target=2, window=8)'
    """
    rank = utility_model if callable(utility_model) else UTILITY_MODELS[utility_model]
    longest = _WINDOW_CAPACITY
    if not isinstance(window, jax.core.Tracer) and window > longest:
        # Powers of two, so that nearby windows still share a program.
        longest = 2 ** math.ceil(math.log2(window))

    def init(message, model, spec):
        return jnp.zeros(longest), jnp.int32(0)

    def send(key, message, state, view):
        past, count = state
        own = view.own
        there = jnp.any(view.spec.items(message)[1])
        value = (utility or view.spec.utility)(message)
        length = jnp.minimum(own["window"].astype(jnp.int32), longest)
        # A ring of a traced length in an array of a static one: later entries stay unused.
        place = count % length
        newer = past.at[place].set(value)
        seen = jnp.minimum(count + 1, length)
        p = rank(newer, seen, value)
        chance = communication_probability(p, own["target"], own["members"])
        sent = there & (streams.uniform_of(key, jnp.result_type(float)) < chance)
        # What was not there is no sample of what messages are worth.
        past, count = jax.tree.map(
            lambda new, old: jnp.where(there, new, old), (newer, count + 1), state
        )
        return message, sent, (past, count)

    def check(values, num_agents, numbers):
        wanted = values["target"]
        if not isinstance(wanted, jax.core.Tracer) and wanted > num_agents:
            raise ValueError(
                f"target is {wanted} with num_agents {num_agents}; allowed: a whole number from 0 "
                "to num_agents"
            )

    return Uplink(
        "probabilistic",
        init,
        send,
        {"target": target, "window": window},
        (("utility", utility), ("utility_model", utility_model), ("capacity", longest)),
        check=check,
    )
