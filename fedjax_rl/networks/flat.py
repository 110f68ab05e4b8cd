"""Flax modules whose parameters are one vector [q], which is what agents exchange."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.flatten_util import ravel_pytree


class Layout(NamedTuple):
    """Where the parameters of a module lie in the vector.

    Attributes:
      count: q.
      shapes: of the leaves, in their order.
      structure: of the pytree.
    """

    count: int
    shapes: tuple[tuple[int, ...], ...]
    structure: Any


@functools.lru_cache(maxsize=64)
def layout(module: nn.Module, shape: tuple[int, ...]) -> Layout:
    """That of a module with inputs of a shape; nothing is computed."""
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    tree = jax.eval_shape(module.init, jax.random.key(0), inputs)
    leaves, structure = jax.tree.flatten(tree)
    shapes = tuple(leaf.shape for leaf in leaves)
    return Layout(sum(map(math.prod, shapes)), shapes, structure)


@dataclasses.dataclass(frozen=True)
class Flat:
    """A module with its parameters in one vector.

    Attributes:
      module: from inputs [B, ...].
      shape: of one input.
    """

    module: nn.Module
    shape: tuple[int, ...]

    @property
    def num_parameters(self) -> int:
        """Q."""
        return layout(self.module, self.shape).count

    def init(self, key) -> jax.Array:
        """First parameters, float32 [q]; the key is consumed."""
        return ravel_pytree(self.module.init(key, jnp.zeros((1, *self.shape), jnp.float32)))[0]

    def unpack(self, parameters) -> Any:
        """The parameters, of a vector that begins with them, as the module has them."""
        _, shapes, structure = layout(self.module, self.shape)
        leaves, at = [], 0
        for shape in shapes:
            leaves.append(parameters[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)
        return jax.tree.unflatten(structure, leaves)

    def apply(self, parameters, inputs) -> Any:
        """What the module makes of inputs [B, ...], from parameters [q]."""
        return self.module.apply(self.unpack(parameters), inputs)
