"""Multi-head self-attention, for all transformers here."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.dense import Dense, xavier_uniform
from experiments.models.linen import nn


class SelfAttention(nn.Module):
    """Each position looks at all, at those before it, or at those that are no padding.

    ``softmax(q k^T / sqrt(width / num_heads)) v`` per head, between linear maps ``query``, ``key``,
    ``value`` and ``output`` with matrices ``[width, width]``. The softmax is taken in float32.

    Attributes:
      num_heads: divides the width.
      causal: whether later positions are hidden.
      dropout: of the shares of attention.
      use_bias: of the linear maps.
      kernel_init: of the linear maps.
      dtype: of the computation; ``None``: that of inputs and parameters.
    """

    num_heads: int
    causal: bool = False
    dropout: float = 0.0
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = xavier_uniform
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, *, deterministic: bool = True
    ) -> jax.Array:
        """Returns what the positions gather.

        Args:
          x: ``[batch, length, width]``.
          mask: bool ``[batch, length]``, ``False`` for positions that none may look at.
          deterministic: whether there is no dropout.
        """
        batch, length, width = x.shape
        if width % self.num_heads:
            raise ValueError(f"width must be a multiple of num_heads={self.num_heads}, got {width}")

        def linear(name: str) -> Dense:
            return Dense(width, self.use_bias, self.kernel_init, self.dtype, name=name)

        def by_head(name: str) -> jax.Array:
            heads = linear(name)(x).reshape(batch, length, self.num_heads, -1)
            return heads.transpose(0, 2, 1, 3)

        queries, keys, values = by_head("query"), by_head("key"), by_head("value")
        scores = queries @ keys.swapaxes(-1, -2) / np.sqrt(width // self.num_heads).astype(x.dtype)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        visible = _visible(length, self.causal, mask)
        if visible is not None:
            scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        shares = nn.softmax(scores).astype(values.dtype)
        shares = nn.Dropout(self.dropout)(shares, deterministic=deterministic)
        gathered = (shares @ values).transpose(0, 2, 1, 3).reshape(x.shape)
        return linear("output")(gathered)


def _visible(length: int, causal: bool, mask: jax.Array | None) -> jax.Array | None:
    """Bool ``[batch or 1, 1, length or 1, length]``, or ``None`` if all is visible."""
    visible = None if mask is None else mask[:, jnp.newaxis, jnp.newaxis]
    if causal:
        earlier = jnp.tril(jnp.ones((length, length), bool))[jnp.newaxis, jnp.newaxis]
        visible = earlier if visible is None else visible & earlier
    return visible
