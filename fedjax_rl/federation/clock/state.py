"""What a clock carries from step to step: the work in flight, and the arrivals it leads to."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class InFlight(NamedTuple):
    """The work in flight; leaves [A, ...]. Times count from that of the last block's start.

    Attributes:
      end: when it ends, with a message unless the agent fails.
      version: uint32, the server's step at which the agent was dispatched its model.
      uploads: uint32, messages of the agent that have arrived.
      idle: time it has waited for others; () where nobody waits.
      stream: uint32 [2], data of the key of its times; () where they are constant.
      attempts: uint32, how often it has begun; () where nobody fails.
      failing: bool, whether the work in flight is going to be lost; () likewise.
      ready: when the agent will be back; () likewise.
      lost: uint32, uploads lost before the work in flight; () likewise.
    """

    end: jax.Array
    version: jax.Array
    uploads: jax.Array
    idle: Any
    stream: Any
    attempts: Any
    failing: Any
    ready: Any
    lost: Any


class Arrivals(NamedTuple):
    """The next steps of all servers, [T, ...] each; W = m agents of every federation together.

    Attributes:
      agent: int32 [T, W], places on the agent axis, those of a federation in order.
      present: bool [T, W], whether the agent arrives at all; () where nobody fails.
      upload: uint32 [T, W], messages of the agent before this one.
      staleness: uint32 [T, W], steps of the server since the agent was dispatched its model.
      time: [T, F], since the start of the block.
      returned_before: uint32 [T, A], how often each is dispatched the model before the step,
        having returned from a failure; () where nobody fails.
      returned_after: bool [T, A], who has not arrived and is dispatched the model after the step,
        having returned; () likewise.
    """

    agent: jax.Array
    present: Any
    upload: jax.Array
    staleness: jax.Array
    time: jax.Array
    returned_before: Any
    returned_after: Any

    def on_agent_axis(self, start: int, num_agents: int) -> Arrivals:
        """Those of federations side by side, [T, f, m], with places on the agent axis, [T, f m].

        Args:
          start: place of the first federation's first agent.
          num_agents: n, of each federation.

        Returns:
          `Arrivals` of all these agents side by side; times as they are, [T, f].
        """
        first = start + num_agents * jnp.arange(self.agent.shape[1], dtype=jnp.int32)
        flat = self._replace(agent=self.agent + first[None, :, None], time=())
        flat = jax.tree.map(lambda x: x.reshape(x.shape[0], -1), flat)
        return flat._replace(time=self.time)
