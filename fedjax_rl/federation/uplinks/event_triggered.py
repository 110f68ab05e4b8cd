"""Whoever is surprised sends (arXiv 2109.01417, arXiv 2112.05908)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fedjax_rl import fields
from fedjax_rl.federation.uplinks.protocol import Uplink, real, uplink


@uplink(
    threshold=fields.number(0, infinite=True),
    factor=fields.NOT_NEGATIVE,
    decay=fields.PROBABILITY,
    reset=fields.switch(),
    ratio=fields.number(0, 1, above=True),
    horizon=fields.whole(0, follows=True, traced=True),
    below=fields.switch(),
)
def event_triggered(
    threshold=0.0,
    factor=0.0,
    decay=0.1,
    reset: bool = False,
    ratio=1.0,
    horizon=0,
    below: bool = False,
) -> Uplink:
    r"""An item is sent when it is large, absolutely and against what the agent is used to.

    With d the magnitude of an item, one after the other in the message,

        send  iff  d >= max(factor L, threshold / ratio^(horizon - 1 - time))
        L     <-   (1 - decay) L + decay d          after the test, whether sent or not

    The filter L starts at 0. Jarne Ornia and Mazo, arXiv 2109.01417, with `ratio` 1; the price that
    falls towards the end of a run is that of Gatsis, arXiv 2112.05908.

    Args:
      threshold: absolute floor, at least 0; infinite for silence.
      factor: relative to the filter, at least 0.
      decay: of the filter, in [0, 1].
      reset: whether the filter starts anew with every message.
      ratio: in (0, 1].
      horizon: rounds of the run, where `ratio` is below 1.
      below: sends what is *at most* the threshold instead, to show what that does.

    Returns:
      The `Uplink`.

    Examples:
      >>> import fedjax_rl as frl
      >>> surprised = frl.uplinks.event_triggered(factor=0.9, decay=0.2)
      >>> str(frl.fedq(frl.envs.paper_mdp(), uplink=surprised).config.uplink)
      'event-triggered(factor=0.9, decay=0.2)'
    """

    def send(key, message, state, view):
        del key
        own = view.own
        horizon, time = (x.astype(own["ratio"].dtype) for x in (own["horizon"], view.time))
        # In floats: unsigned time past the horizon would wrap.
        left = jnp.maximum(horizon - 1 - time, 0)
        # The power may overflow; a threshold of 0 stays one.
        free = own["threshold"] == 0
        floor = jnp.where(free, 0.0, own["threshold"] * own["ratio"] ** -left)
        magnitude, valid = view.spec.items(message)

        def test(used_to, item):
            d, there = item
            passes = d <= floor if below else d >= jnp.maximum(own["factor"] * used_to, floor)
            following = (1 - own["decay"]) * used_to + own["decay"] * d
            return jnp.where(there, following, used_to), there & passes

        state = jnp.zeros_like(state) if reset else state
        # A loop of one step still costs what it takes to start it.
        if magnitude.shape[0] == 1:
            state, kept = test(state, (magnitude[0], valid[0]))
            kept = kept[None]
        else:
            state, kept = jax.lax.scan(test, state, (magnitude, valid))
        return view.spec.keep(message, kept), jnp.any(kept), state

    return Uplink(
        "event-triggered",
        lambda message, model, spec: jnp.zeros(()),
        send,
        {
            "threshold": real(threshold),
            "factor": real(factor),
            "decay": real(decay),
            "ratio": real(ratio),
            "horizon": horizon,
        },
        (("reset", reset), ("below", below)),
    )
