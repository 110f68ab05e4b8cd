"""Networks with two heads, of a policy and of a value, in flax.

Last layers are orthogonal (Saxe, McClelland and Ganguli, arXiv 1312.6120), scaled by 0.01 for the
policy, which makes all actions about as likely at first, and by 1 for the value: as in the PPO of
Dhariwal et al., *OpenAI Baselines* (2017).
"""

from __future__ import annotations

import math

import jax
from flax import linen as nn

from fedjax_rl import fields, lapack
from fedjax_rl.names import check_known
from fedjax_rl.networks.mlp import ACTIVATIONS
from fedjax_rl.networks.pictures import Classic, Impala, VisionTransformer
from fedjax_rl.networks.products import multiply

# What sees pictures [H, W, C]; "mlp" sees vectors. A transformer's numbers are its depth, its
# heads, its width and, where it is not 4, the side of its patch: with 8 it has 65 tokens instead of
# 257, whose attention is nearly all that a CPU does.
PICTURES = {
    "classic": Classic(),
    "impala": Impala(),
    "impala-small": Impala((8, 16, 16), 128),
    **{
        f"vit-{depth}-{heads}-{width}": VisionTransformer(depth, heads, width)
        for depth, heads, width in ((12, 8, 64), (6, 8, 96), (4, 4, 32), (3, 4, 16))
    },
    "vit-3-4-32-8": VisionTransformer(3, 4, 32, patch=8),
}
NETWORKS = ("mlp", *PICTURES)


def _dense(units: int, gain: float) -> nn.Dense:
    return nn.Dense(units, kernel_init=lapack.orthogonal(gain), dot_general=multiply)


class OneHead(nn.Module):
    """Linear outputs of what a trunk makes of its inputs; of a scale of 1.

    Attributes:
      trunk: from inputs [B, ...] to features [B, D].
      outputs: O.
    """

    trunk: nn.Module
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From inputs float32 [B, ...] to outputs [B, O]."""
        return _dense(self.outputs, 1.0)(self.trunk(x))


class TwoHeads(nn.Module):
    """A policy and a value that share everything but their last layers.

    Attributes:
      trunk: from inputs [B, ...] to features [B, D].
      outputs: of the policy.
    """

    trunk: nn.Module
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """From inputs float32 [B, ...] to the policy's outputs [B, outputs] and values [B]."""
        x = self.trunk(x)
        return _dense(self.outputs, 0.01)(x), _dense(1, 1.0)(x)[..., 0]


class TwoTowers(nn.Module):
    """A policy and a value that share nothing, multi-layer perceptrons both.

    Hidden weights are orthogonal, scaled by sqrt(2); biases are zero at first.

    Attributes:
      outputs: of the policy.
      hidden: units in each hidden layer of either.
      activation: of the hidden units, "tanh" or "relu".
    """

    outputs: int
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """From inputs float32 [B, D] to the policy's outputs [B, outputs] and values [B]."""

        def tower(x, units, gain):
            for size in self.hidden:
                x = ACTIVATIONS[self.activation](_dense(size, math.sqrt(2))(x))
            return _dense(units, gain)(x)

        return tower(x, self.outputs, 0.01), tower(x, 1, 1.0)[..., 0]


@fields.checked(outputs=fields.COUNT, hidden=fields.sizes())
def actor_critic(
    name: str,
    outputs: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
) -> nn.Module:
    """The network of that name.

    Args:
      name: of `NETWORKS`.
      outputs: of the policy, at least 1.
      hidden: units in each hidden layer, of "mlp".
      activation: of "mlp", of `networks.mlp.ACTIVATIONS`.

    Returns:
      A module from inputs [B, ...] to outputs [B, outputs] and values [B].

    Raises:
      ValueError: an unknown name or activation, or a layer without units.
    """
    check_known(name, NETWORKS, "network")
    if name != "mlp":
        return TwoHeads(PICTURES[name], outputs)
    check_known(activation, ACTIVATIONS, "activation")
    return TwoTowers(outputs, tuple(int(units) for units in hidden), activation)
