"""The layer of a pre-norm transformer, for the ViT and the decoder."""

from collections.abc import Callable
from typing import Any

import jax

from experiments.models.attention import SelfAttention
from experiments.models.dense import Dense, xavier_uniform
from experiments.models.linen import nn


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + perceptron(norm(x))``.

    The perceptron has one hidden layer, with the exact GELU.

    Attributes:
      num_heads: of the attention.
      hidden: width of the perceptron's hidden layer.
      causal: whether later positions are hidden.
      dropout: of both branches and of the shares of attention.
      epsilon: of the norms.
      use_bias: of linear maps and norms.
      kernel_init: of the linear maps.
      dtype: of the computation; ``None``: that of inputs and parameters.
    """

    num_heads: int
    hidden: int
    causal: bool = False
    dropout: float = 0.0
    epsilon: float = 1e-6
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = xavier_uniform
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns ``[batch, length, width]`` for ``x`` of that shape."""
        drop = nn.Dropout(self.dropout)
        attention = SelfAttention(
            self.num_heads,
            self.causal,
            self.dropout,
            self.use_bias,
            self.kernel_init,
            self.dtype,
            name="attention",
        )
        x = x + drop(
            attention(self._norm("attention_norm")(x), deterministic=deterministic),
            deterministic=deterministic,
        )
        linear = {"use_bias": self.use_bias, "kernel_init": self.kernel_init, "dtype": self.dtype}
        up, down = (
            Dense(features, name=name, **linear)
            for name, features in (("up", self.hidden), ("down", x.shape[-1]))
        )
        hidden = nn.gelu(up(self._norm("perceptron_norm")(x)), approximate=False)
        return x + drop(down(hidden), deterministic=deterministic)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(
            self.epsilon,
            self.dtype,
            use_bias=self.use_bias,
            use_fast_variance=False,
            name=name,
        )
