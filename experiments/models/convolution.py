"""A 3x3 convolution, computed as a matrix product where that is quicker."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.linen import nn, promote_dtype

_he_normal = nn.initializers.he_normal()
_SIDE = 3


class Convolution(nn.Module):
    """A 3x3 convolution with one pixel of zeros around the image, without a bias.

    Attributes:
      features: channels of the result.
      stride: of both directions.
      as_product: whether it is a product with the matrix of all patches. ``None``: on a CPU, where
        the gradient of XLA's convolution took 10 to 30 times as long inside a ``lax.scan`` (and a
        simulation is one), and several times as long under ``vmap``.
      dtype: of the computation; ``None``: that of inputs and parameters.
    """

    features: int
    stride: int = 1
    as_product: bool | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns ``[batch, height, width, features]``, sides divided by the stride, rounded up."""
        kernel = self.param("kernel", _he_normal, (_SIDE, _SIDE, x.shape[-1], self.features))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        as_product = self.as_product
        if as_product is None:
            as_product = jax.default_backend() == "cpu"
        return _product(x, kernel, self.stride) if as_product else _direct(x, kernel, self.stride)


def _direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _product(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, i : i + height : stride, j : j + width : stride]
        for i in range(_SIDE)
        for j in range(_SIDE)
    ]
    patches = jnp.concatenate(shifted, axis=-1)
    flat = patches.reshape(-1, _SIDE * _SIDE * channels) @ kernel.reshape(-1, kernel.shape[-1])
    return flat.reshape(*patches.shape[:-1], -1)
