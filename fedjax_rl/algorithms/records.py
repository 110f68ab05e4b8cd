"""Records that several algorithms have within theirs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedjax_rl import fields
from fedjax_rl.fields.record import Record, host, record, static, traced
from fedjax_rl.networks.mlp import ACTIVATIONS, INITIALIZERS


@record
class Network(Record):
    """A network of hidden layers.

    Attributes:
      hidden: units in each hidden layer.
      activation: of the hidden units, "tanh" or "relu".
      initializer: "normal" (weights N(0, 1 / inputs), biases 0), "uniform" (all parameters within
        +- 1 / sqrt(inputs)) or "orthogonal" (times sqrt(2), 0.01 in the last layer; biases 0).
    """

    hidden: tuple[int, ...] = static((8, 8), fields.sizes())
    activation: str = static("tanh", fields.word(ACTIVATIONS))
    initializer: str = static("normal", fields.word(INITIALIZERS))


@record
class Optimizer(Record):
    """What a server makes of the mean of what its agents sent, before its learning rate.

    Attributes:
      name: "sgd" (the mean as it is), "momentum" or "adam" (0.9, 0.999, 1e-8).
      momentum: of the optimizer "momentum", in [0, 1].
    """

    name: str = static("sgd", fields.word(("adam", "momentum", "sgd")))
    momentum: Any = traced(0.9, fields.PROBABILITY)

    def init(self, parameters) -> tuple:
        """What it keeps at first: Optax's state, and a velocity like the parameters."""
        return self._optax().init(parameters), jax.tree.map(jnp.zeros_like, parameters)

    def direction(self, uphill, state: tuple, parameters, momentum) -> tuple:
        """The direction of the next step.

        Args:
          uphill: a pytree like the parameters.
          state: as of `init`.
          parameters: of the model.
          momentum: scalar; the property of that name, traced.

        Returns:
          The direction, a pytree like the parameters, and the state after.
        """
        state, velocity = state
        with jax.numpy_dtype_promotion("standard"):  # optax mixes integer counts with floats
            direction, state = self._optax().update(uphill, state, parameters)
        if self.name == "momentum":
            # Not Optax's, whose decay is a constant of the program.
            velocity = jax.tree.map(lambda v, x: momentum * v + x, velocity, direction)
            direction = velocity
        return direction, (state, velocity)

    def _optax(self) -> optax.GradientTransformation:
        return optax.scale_by_adam() if self.name == "adam" else optax.identity()


@record
class Heterogeneity(Record):
    """How the agents' environments differ; they are made on the host.

    Attributes:
      level: of the difference, at least 0; at 0 they are alike.
      of: what differs, such as gravity or kernels; by default all but what has a unit of its own,
        such as the width of the first states.
      seed: of the differences.
    """

    level: float = host(0.0, fields.NOT_NEGATIVE._replace(traced=False))
    of: tuple[str, ...] | None = host(None, fields.words().or_none())
    seed: int = host(0, fields.SEED)
