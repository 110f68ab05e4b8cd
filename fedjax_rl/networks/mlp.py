"""Multi-layer perceptrons whose parameters are one flat vector.

Every agent of evolution strategies has parameters of its own. A small network is evaluated on a
tuple of scalars, one per parameter: under `vmap` each becomes a vector over the agents, and the
whole network straight vector code without a single small matrix product (four to six times as
fast on a CPU as batched products of 8 x 8). A larger one is evaluated by matrix products.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_rl import fields, lapack
from fedjax_rl.names import check_known

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": jax.nn.relu}
INITIALIZERS = ("normal", "uniform", "orthogonal", "zeros")

# Beyond, the unrolled program compiles for too long.
LARGEST_UNROLLED = 400


_SIZES = fields.anything(
    "a tuple of two or more whole numbers of at least 1",
    lambda value: (
        isinstance(value, tuple)
        and len(value) >= 2
        and all(fields.is_whole(size) and size >= 1 for size in value)
    ),
)


@dataclasses.dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron with linear outputs.

    The parameters lie layer by layer, the weights [inputs, outputs] of a layer row by row before
    its biases [outputs].

    Attributes:
      sizes: numbers of inputs, of units in each hidden layer and of outputs.
      activation: of the hidden units, "tanh" or "relu".
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
          ValueError: fewer than two sizes, a size below 1 or an unknown activation.
        """
        fields.check("sizes", self.sizes, _SIZES)
        check_known(self.activation, ACTIVATIONS, "activation")

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer."""
        return list(itertools.pairwise(self.sizes))

    @property
    def num_parameters(self) -> int:
        """Q."""
        return sum(i * o + o for i, o in self.layers)

    @property
    def unrolled(self) -> bool:
        """Whether agents evaluate it on scalars."""
        return self.num_parameters <= LARGEST_UNROLLED

    def init(self, key, initializer: str = "normal") -> jax.Array:
        """First parameters, float32 [q].

        Args:
          key: typed key.
          initializer: "normal": weights N(0, 1 / inputs), biases 0; "uniform": everything
            uniform within +- 1 / sqrt(inputs); "orthogonal": weights with orthonormal columns, or
            rows where these are fewer (Saxe et al. 2014, arXiv 1312.6120), times sqrt(2) in hidden
            layers and 0.01 in the last, biases 0; "zeros": everything 0, where a gradient of a
            network with hidden layers moves the last biases alone.

        Raises:
          ValueError: an unknown initializer.
        """
        check_known(initializer, INITIALIZERS, "initializer")
        if initializer == "zeros":
            return jnp.zeros(self.num_parameters)
        parts = []
        # Small last weights: at first all actions are about as likely.
        gains = [math.sqrt(2)] * (len(self.layers) - 1) + [0.01]
        keys = jax.random.split(key, len(self.layers))
        for layer, (i, o), gain in zip(keys, self.layers, gains, strict=True):
            if initializer == "normal":
                parts += [jax.random.normal(layer, (i * o,)) / math.sqrt(i), jnp.zeros(o)]
            elif initializer == "orthogonal":
                weights = lapack.orthogonal(gain)(layer, (i, o))
                parts += [jnp.ravel(weights), jnp.zeros(o)]
            else:
                bound = 1 / math.sqrt(i)
                parts.append(jax.random.uniform(layer, (i * o + o,), minval=-bound, maxval=bound))
        return jnp.concatenate(parts)

    def apply(self, parameters, x):
        """Outputs for one input.

        Args:
          parameters: [q], or a tuple of q scalars.
          x: [inputs].

        Returns:
          [outputs], or a tuple of scalars where the parameters are one.
        """
        evaluate = self._scalars if isinstance(parameters, tuple) else self._arrays
        # Observations are float32 in double precision, too.
        own = parameters[0] if isinstance(parameters, tuple) else parameters
        return evaluate(parameters, x.astype(own.dtype))

    def _arrays(self, parameters, x):
        at = 0
        for place, (i, o) in enumerate(self.layers):
            weights = parameters[at : at + i * o].reshape(i, o)
            x = x @ weights + parameters[at + i * o : at + i * o + o]
            x = x if place == len(self.layers) - 1 else ACTIVATIONS[self.activation](x)
            at += i * o + o
        return x

    def _scalars(self, parameters, x):
        x, at = tuple(x[n] for n in range(self.sizes[0])), 0
        for place, (i, o) in enumerate(self.layers):
            y = []
            for unit in range(o):
                total = parameters[at + i * o + unit]
                for n in range(i):
                    total = total + x[n] * parameters[at + n * o + unit]
                y.append(total)
            last = place == len(self.layers) - 1
            x = tuple(y) if last else tuple(map(ACTIVATIONS[self.activation], y))
            at += i * o + o
        return x
