"""Networks that see pictures, in flax.

* Espeholt et al., *IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
  Architectures*, arXiv 1802.01561, Fig. 3 right; with the channels and without the recurrence of
  Cobbe et al., *Leveraging Procedural Generation to Benchmark Reinforcement Learning*, arXiv
  1912.01588.
* Mnih et al., *Playing Atari with Deep Reinforcement Learning*, arXiv 1312.5602, section 4.1, and
  *Human-Level Control Through Deep Reinforcement Learning* (Nature, 2015).
* Dosovitskiy et al., *An Image is Worth 16x16 Words*, arXiv 2010.11929, equations 1 to 4.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from fedjax_rl import backend, fields, lapack
from fedjax_rl.networks.products import multiply, over_rows

_XAVIER = nn.initializers.xavier_uniform()
_ORTHOGONAL = lapack.orthogonal(math.sqrt(2))
_SMALL = nn.initializers.normal(0.02)


def convolve(x, kernel) -> jax.Array:
    """Convolution 3 x 3 that keeps the size: [B, H, W, C] with [3, 3, C, D] to [B, H, W, D].

    XLA for CPUs takes the gradient of a kernel inside a loop fifty times slower than outside. There
    it is computed as three products of matrices instead. A kernel for every agent makes a grouped
    convolution, whose gradients are slow everywhere (jax issue 13800): under `vmap` over kernels,
    accelerators multiply batches of matrices.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, D].

    Returns:
      [B, H, W, D].
    """
    return (_convolve_on_cpu if backend.kind() == "cpu" else _convolve_on_accelerator)(x, kernel)


def _convolve(x, kernel) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=layout
    )


@jax.custom_vjp
def _convolve_on_cpu(x, kernel):
    return _convolve(x, kernel)


def _turned(kernel):
    """What the gradient with respect to the pictures is a convolution with."""
    return jnp.swapaxes(kernel[::-1, ::-1], 2, 3)


def _backward(kept, change):
    x, kernel = kept
    return _convolve(change, _turned(kernel)), _kernel_gradient_by_products(x, change)


_convolve_on_cpu.defvjp(lambda x, kernel: (_convolve(x, kernel), (x, kernel)), _backward)


def _rows(x) -> list[jax.Array]:
    """What the three rows of a kernel see, next to each other: [B, H, W, 3 C] of [B, H, W, C]."""
    height, width = x.shape[1:3]
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    beside = jnp.concatenate([wide[:, :, n : n + width] for n in range(3)], axis=-1)
    # One row after the other: all nine places at a time would take three times the memory.
    return [beside[:, n : n + height] for n in range(3)]


def _by_products(x, kernel):
    """`_convolve` as three products of matrices."""
    flat = kernel.reshape(3, -1, kernel.shape[-1])
    return functools.reduce(jnp.add, (part @ own for part, own in zip(_rows(x), flat, strict=True)))


def _kernel_gradient(x, change):
    """The gradient with respect to the kernel, [3, 3, C, D], of that of what comes out."""
    own = jax.ShapeDtypeStruct((3, 3, x.shape[-1], change.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _convolve(x, kernel), own)(change)[0]


def _kernel_gradient_by_products(x, change):
    flat = change.reshape(-1, change.shape[-1])
    found = jnp.stack([over_rows(part.reshape(-1, part.shape[-1]), flat) for part in _rows(x)])
    return found.reshape(3, 3, x.shape[-1], change.shape[-1])


@jax.custom_batching.custom_vmap
def _convolve_each(x, kernel):
    return _convolve(x, kernel)


@_convolve_each.def_vmap
def _(size: int, batched, x, kernel):
    if not batched[1]:  # one kernel for all: more pictures
        flat = x.reshape(size * x.shape[1], *x.shape[2:])
        out = _convolve_each(flat, kernel)
        return out.reshape(*x.shape[:-1], -1), True
    return jax.vmap(_by_products, (0 if batched[0] else None, 0))(x, kernel), True


@jax.custom_batching.custom_vmap
def _kernel_gradient_each(x, change):
    return _kernel_gradient(x, change)


@_kernel_gradient_each.def_vmap
def _(size: int, batched, x, change):
    axes = tuple(0 if own else None for own in batched)
    return jax.vmap(_kernel_gradient_by_products, axes)(x, change), True


@jax.custom_vjp
def _convolve_on_accelerator(x, kernel):
    return _convolve_each(x, kernel)


@backend.exact  # as it may be traced after all else
def _backward_on_accelerator(kept, change):
    x, kernel = kept
    return _convolve_each(change, _turned(kernel)), _kernel_gradient_each(x, change)


_convolve_on_accelerator.defvjp(
    lambda x, kernel: (_convolve_each(x, kernel), (x, kernel)), _backward_on_accelerator
)


def pool(x) -> jax.Array:
    """Largest values of windows 3 x 3 at every second place: [B, H, W, C] to half the size.

    Slices have a much cheaper gradient than a reduction over windows.
    """
    height, width = x.shape[1:3]
    # Padded with what is never the largest; 0 would be, beside negative numbers.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = functools.reduce(jnp.maximum, (x[:, n : n + height : 2] for n in range(3)))
    return functools.reduce(jnp.maximum, (x[:, :, n : n + width : 2] for n in range(3)))


class _Convolution(nn.Module):
    """`convolve` with a bias."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", _XAVIER, (3, 3, x.shape[-1], self.channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,), jnp.float32)
        return convolve(x, kernel) + bias.reshape(1, 1, 1, -1)


class Impala(nn.Module):
    """The residual network of IMPALA; weights Xavier-uniform, biases zero at first.

    A section is a convolution, a pooling that halves the picture, and two residual blocks. All
    convolutions are 3 x 3 with bias and keep the size.

    Attributes:
      channels: of each section.
      units: of the dense layer at the end.
    """

    channels: tuple[int, ...] = (16, 32, 32)
    units: int = 256

    def __post_init__(self) -> None:
        """Checks the sizes; a ValueError names what is not allowed."""
        fields.check("channels", self.channels, fields.sizes(empty=False))
        fields.check("units", self.units, fields.COUNT)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From pictures float32 [B, H, W, C] to features float32 [B, units]."""
        for channels in self.channels:
            x = pool(_Convolution(channels)(x))
            for _ in range(2):
                inside = _Convolution(channels)(nn.relu(x))
                x = x + _Convolution(channels)(nn.relu(inside))
        x = nn.relu(x).reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.units, kernel_init=_XAVIER, dot_general=multiply)(x))


def stride(x, kernel, step: int) -> jax.Array:
    """Convolution without padding at every `step`-th place, of kernels twice as wide.

    One product of matrices: kernels that differ from agent to agent make a batch of products, where
    they would make a grouped convolution, which is slow, and its gradient everywhere.

    Args:
      x: [B, H, W, C], sides of at least 2 steps.
      kernel: [2 step, 2 step, C, D].
      step: pixels from place to place, either way.

    Returns:
      [B, H // step - 1, W // step - 1, D].
    """
    batch, height, width, channels = x.shape
    rows, columns = height // step, width // step
    # A kernel sees two by two blocks of pixels, which no other kernel sees in part.
    x = x[:, : rows * step, : columns * step].reshape(batch, rows, step, columns, step, channels)
    blocks = x.swapaxes(2, 3).reshape(batch, rows, columns, step * step * channels)
    seen = [blocks[:, i : rows - 1 + i, j : columns - 1 + j] for i in (0, 1) for j in (0, 1)]
    own = kernel.reshape(2, step, 2, step, channels, -1).swapaxes(1, 2)
    return multiply(jnp.concatenate(seen, axis=-1), own.reshape(-1, kernel.shape[-1]))


class _Strided(nn.Module):
    """`stride` with a bias."""

    channels: int
    step: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = 2 * self.step

        def first(key, shape):
            return _ORTHOGONAL(key, (math.prod(shape[:-1]), shape[-1]), jnp.float32).reshape(shape)

        kernel = self.param("kernel", first, (size, size, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,), jnp.float32)
        return stride(x, kernel, self.step) + bias.reshape(1, 1, 1, -1)


class Classic(nn.Module):
    """Two convolutions without padding, 8 x 8 at every 4th place and 4 x 4 at every 2nd.

    The layers of arXiv 1312.5602, with as many channels as the first two of 2015 have. Forward a
    picture of 64 x 64 x 3 takes 5.7 million floating-point operations, with `Impala` 61; with 15
    actions and a value there are 336,112 parameters. Weights are orthogonal, scaled by sqrt(2), and
    biases zero at first, as in the PPO of Dhariwal et al., *OpenAI Baselines* (2017).

    Attributes:
      channels: of either convolution.
      units: of the dense layer at the end.
    """

    channels: tuple[int, int] = (32, 64)
    units: int = 128

    smallest = 20  # side of a picture of which anything is left

    def __post_init__(self) -> None:
        """Checks the sizes; a ValueError names what is not allowed."""
        fields.check("channels", self.channels, fields.sizes(length=2))
        fields.check("units", self.units, fields.COUNT)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From pictures float32 [B, H, W, C] to features float32 [B, units]."""
        for channels, step in zip(self.channels, (4, 2), strict=True):
            x = nn.relu(_Strided(channels, step)(x))
        x = x.reshape(x.shape[0], -1)
        return nn.relu(nn.Dense(self.units, kernel_init=_ORTHOGONAL, dot_general=multiply)(x))


class VisionTransformer(nn.Module):
    """A vision transformer read out at its class token.

    Pre-norm blocks, learned positions, hidden layers of four times the width.

    Attributes:
      depth: blocks.
      heads: of the attention.
      width: of a token, a multiple of the heads.
      patch: side of a patch in pixels, which divides the picture.
    """

    depth: int = 12
    heads: int = 8
    width: int = 64
    patch: int = 4

    def __post_init__(self) -> None:
        """Checks the sizes; a ValueError names what is not allowed."""
        for name in ("depth", "heads", "width", "patch"):
            fields.check(name, getattr(self, name), fields.COUNT)
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}; allowed: multiples of the {self.heads} heads")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """From pictures float32 [B, H, W, C] to features float32 [B, width]."""

        def dense(x, units):
            return nn.Dense(units, kernel_init=_XAVIER, dot_general=multiply)(x)

        side, width = self.patch, self.width
        batch, rows, columns, channels = x.shape
        if rows % side or columns % side:
            raise ValueError(
                f"patch is {side}; allowed: divisors of the picture's {rows} and {columns} pixels"
            )
        x = x.reshape(batch, rows // side, side, columns // side, side, channels)
        tokens = dense(x.swapaxes(2, 3).reshape(batch, -1, side * side * channels), width)
        first = self.param("class_token", _SMALL, (1, 1, width), jnp.float32)
        x = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, width)), tokens], axis=1)
        x = x + self.param("positions", _SMALL, (1, x.shape[1], width), jnp.float32)
        for _ in range(self.depth):
            q, k, v = jnp.split(dense(nn.LayerNorm()(x), 3 * width), 3, axis=-1)
            x = x + dense(_attend(q, k, v, self.heads), width)
            x = x + dense(nn.gelu(dense(nn.LayerNorm()(x), 4 * width)), width)
        return nn.LayerNorm()(x[:, 0])


def _attend(q, k, v, heads: int) -> jax.Array:
    """Softmax attention of several heads: [B, L, width], three times, to [B, L, width]."""

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1)

    q, k, v = split(q), split(k), split(v)
    scores = jnp.einsum("blhd,bmhd->bhlm", q, k) * (q.shape[-1] ** -0.5)
    mixed = jnp.einsum("bhlm,bmhd->blhd", jax.nn.softmax(scores, axis=-1), v)
    return mixed.reshape(*mixed.shape[:2], -1)
