r"""What an agent's states are worth, by a network fitted to the returns of its own episodes.

The objective counts the return of an episode as it ended, at the limit of its steps, too: nothing
is expected from there on, and what a state is worth depends on the time that is left. So the
network sees the time beside the observation. Inputs and returns are normalised by the moments of
all that it has been fitted to, so that a learning rate means the same in every environment.

* Schulman, Moritz, Levine, Jordan and Abbeel, *High-Dimensional Continuous Control Using
  Generalized Advantage Estimation*, arXiv 1506.02438, section 5: values are fitted to the returns
  by least squares, and those of an estimate to episodes before its own (6.1), without which it is
  biased.
* Pardo, Tavakoli, Levdik and Kormushev, *Time Limits in Reinforcement Learning*, arXiv 1712.00378:
  the time left as an input.

Everything is for one agent; callers vmap. Axis letters: N episodes, T steps, D inputs of a policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_rl.learners import optimizers
from fedjax_rl.learners.observations import (
    Statistics,
    joined,
    moments_where,
    normalized,
    normalizer_of,
    nothing_seen,
)
from fedjax_rl.learners.optimizers import Moments
from fedjax_rl.learners.trajectories import Trajectories
from fedjax_rl.networks import MLP

# Of Adam, and of normalised inputs the largest magnitude.
EPSILON, CLIP = 1e-8, 10.0


class Values(NamedTuple):
    """What an agent knows of values.

    Attributes:
      parameters: float [p], of the network.
      moments: of Adam.
      inputs: `Statistics` of [D + 1], of observations and times.
      returns: `Statistics` of [1].
    """

    parameters: jax.Array
    moments: Moments
    inputs: Statistics
    returns: Statistics


@dataclasses.dataclass(frozen=True)
class ValueNetwork:
    """A network of values, and how it is fitted.

    Attributes:
      network: D + 1 inputs, one output.
      encode: from an observation to what a policy sees, [D].
      num_steps: of the longest episode.
      initializer: of the network.
    """

    network: MLP
    encode: Callable
    num_steps: int
    initializer: str

    def init(self, key) -> Values:
        """Before the first episode; the key is consumed."""
        parameters = self.network.init(key, self.initializer).astype(jnp.result_type(float))
        inputs, outputs = self.network.sizes[0], self.network.sizes[-1]
        return Values(
            parameters,
            optimizers.no_moments(parameters),
            *(nothing_seen(size, parameters.dtype) for size in (inputs, outputs)),
        )

    def inputs(self, trajectories: Trajectories, dtype) -> jax.Array:
        """Observations and times as shares of the longest episode, [N T, D + 1].

        Args:
          trajectories: N episodes of T steps.
          dtype: of the inputs.
        """
        shape = trajectories.mask.shape
        seen = jax.vmap(jax.vmap(self.encode))(trajectories.observation).astype(dtype)
        time = jnp.arange(shape[1], dtype=dtype) / self.num_steps
        time = jnp.broadcast_to(time[None, :, None], (*shape, 1))
        return jnp.concatenate([seen, time], axis=-1).reshape(-1, self.network.sizes[0])

    def outputs(self, parameters, inputs) -> jax.Array:
        """What the network says of normalised inputs [B, D + 1], [B]."""
        return jax.vmap(lambda x: self.network.apply(parameters, x)[0])(inputs)

    def judged(self, values: Values, trajectories: Trajectories) -> Trajectories:
        """The episodes with what their states are worth; nothing before the first fit.

        Args:
          values: fitted to other episodes.
          trajectories: N episodes of T steps.
        """
        inputs = self.inputs(trajectories, values.parameters.dtype)
        inputs = normalized(inputs, normalizer_of(values.inputs), CLIP)
        scale = normalizer_of(values.returns)
        value = scale.mean + scale.deviation * self.outputs(values.parameters, inputs)
        value = jnp.where(values.returns.count > 0, value, jnp.zeros_like(value))
        return trajectories._replace(value=value.reshape(trajectories.mask.shape))

    def fitted(self, values: Values, trajectories: Trajectories, returns, rate, steps: int):
        """The values after so many steps of Adam down the squared error.

            1/2 mean of (v(s_t, t) - G_t)^2 over all steps, in units of the returns' variance

        Args:
          values: before.
          trajectories: N episodes of T steps.
          returns: [N, T], G_t.
          rate: of a step, scalar.
          steps: how many.

        Returns:
          The `Values` after.
        """
        there, dtype = trajectories.mask.reshape(-1), values.parameters.dtype
        inputs = self.inputs(trajectories, dtype)
        targets = returns.reshape(-1, 1).astype(dtype)
        values = values._replace(
            inputs=joined(values.inputs, moments_where(inputs, there)),
            returns=joined(values.returns, moments_where(targets, there)),
        )
        inputs = normalized(inputs, normalizer_of(values.inputs), CLIP)
        # A gradient of padding that is no number would not be made zero by a weight of zero.
        inputs = jnp.where(there[:, None], inputs, jnp.zeros_like(inputs))
        scale = normalizer_of(values.returns)
        targets = (targets[:, 0] - scale.mean) / scale.deviation
        count = jnp.maximum(jnp.sum(there), 1).astype(dtype)

        def loss(parameters):
            apart = self.outputs(parameters, inputs) - targets
            return jnp.sum(jnp.where(there, apart, jnp.zeros_like(apart)) ** 2) / (2 * count)

        def step(carry, _):
            parameters, moments = carry
            move, moments = optimizers.adam(jax.grad(loss)(parameters), moments, EPSILON)
            return (parameters - rate * move, moments), None

        carry = values.parameters, values.moments
        (parameters, moments), _ = jax.lax.scan(step, carry, length=steps)
        return values._replace(parameters=parameters, moments=moments)
