"""Whoever has changed since it last sent sends (Chen et al., arXiv 1812.03239)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.federation.uplinks.protocol import Uplink, norm_squared, real, uplink


@uplink(
    weight=fields.NOT_NEGATIVE,
    depth=fields.COUNT,
    variance=fields.NOT_NEGATIVE,
    step=fields.POSITIVE.or_none(),
)
def lazy(weight=0.1, depth: int = 10, variance=2.0, step: float | None = None) -> Uplink:
    r"""An agent sends when its message has changed by more than the model moves anyway.

    With delta the change since the last message that was sent,

        send  iff  |delta|^2 >= weight / step^2 \sum_{d=1..depth} |model_{t+1-d} - model_{t-d}|^2
                                + variance v

    and v the estimated variance of the message. The server goes on with the last message of who
    is silent. Chen et al., arXiv 1812.03239, with the mean over agents instead of the sum. Where
    messages are changes of a model rather than gradients, an old one acts again in every round, and
    a large weight can diverge. On a clock the models are those that the agent was handed, and only
    of who has arrived the last message counts.

    Args:
      weight: xi, at least 0; the same for all terms of the history.
      depth: D, models remembered, at least 1.
      variance: factor of v, at least 0.
      step: what the server multiplies a message with; the algorithm's learning rate by default.

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> algorithm = frl.fedq(frl.envs.paper_mdp(), uplink=frl.uplinks.lazy(weight=0.5))
      >>> str(algorithm.config.uplink)
      'lazy(weight=0.5)'
    """
    # Only whether there is one may stand in the functions, which tell programs apart.
    given = step is not None

    def init(message, model, spec):
        nothing = jax.tree.map(jnp.zeros_like, message)
        return nothing, jnp.asarray(False), spec.moving(model), jnp.zeros(depth)

    def send(key, message, state, view):
        del key
        last, sent_before, model, history = state
        own = view.own
        now = view.spec.moving(view.model)
        moved = norm_squared(jax.tree.map(jnp.subtract, now, model))
        history = jnp.concatenate([moved[None], history[:-1]])
        # The whole message is remembered, with what the learner knows of it besides its numbers.
        numbers = view.spec.numbers
        delta = jax.tree.map(jnp.subtract, numbers(message), numbers(last))
        rate = own["step"] if given else view.spec.step(view.params)
        bound = own["weight"] / rate**2 * jnp.sum(history)
        bound = bound + own["variance"] * view.spec.variance(message)
        # The first message is always sent: there is no last one for the server to go on with.
        sent = (norm_squared(delta) >= bound) | ~sent_before
        sent = sent & jnp.any(view.spec.items(message)[1])
        # The server goes on with it, so that the last message is what counts for who is silent.
        last = jax.tree.map(lambda new, old: jnp.where(sent, new, old), message, last)
        return last, sent, (last, sent_before | sent, now, history)

    values = {"weight": real(weight), "variance": real(variance)}
    return Uplink(
        "lazy",
        init,
        send,
        {**values, "step": real(step)} if given else values,
        (("depth", depth),),
        "remembered",
    )
