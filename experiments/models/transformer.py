"""A decoder-only transformer: a language model."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.block import Block
from experiments.models.dense import Dense, small_normal
from experiments.models.linen import nn


class Transformer(nn.Module):
    """Predicts each next token from those before it.

    Tokens and positions are embedded and added; then layers (see
    :class:`experiments.models.block.Block`), a norm, and a linear map to the vocabulary.

    Attributes:
      vocabulary_size: tokens.
      context: positions, at most.
      width: of the residual stream.
      num_layers: layers.
      num_heads: of the attention, a divisor of the width.
      hidden: of the perceptrons; ``None``: four times the width.
      dropout: after the embedding and within the layers.
      use_bias: of linear maps and norms.
      dtype: of the computation; parameters and logits are float32.

    References:
      Radford et al., Language Models are Unsupervised Multitask Learners, 2019 (GPT-2), without
      biases, with the exact GELU, and with an output map of its own; kernels start Xavier-uniform,
      which suits narrow models, instead of normal at 0.02.
    """

    vocabulary_size: int
    context: int
    width: int = 64
    num_layers: int = 2
    num_heads: int = 2
    hidden: int | None = None
    dropout: float = 0.0
    use_bias: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns logits ``[batch, length, vocabulary_size]`` of tokens ``[batch, length]``.

        Raises:
          ValueError: if there are more positions than the context.
        """
        length = tokens.shape[1]
        if length > self.context:
            raise ValueError(f"tokens must have at most context={self.context} positions: {length}")
        x = nn.Embed(
            self.vocabulary_size,
            self.width,
            dtype=self.dtype,
            embedding_init=small_normal,
            name="tokens",
        )(tokens)
        positions = self.param("positions", small_normal, (self.context, self.width))
        x = x + positions[:length].astype(x.dtype)[jnp.newaxis]
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        for i in range(self.num_layers):
            x = Block(
                self.num_heads,
                self.hidden or 4 * self.width,
                causal=True,
                dropout=self.dropout,
                epsilon=1e-5,
                use_bias=self.use_bias,
                dtype=self.dtype,
                name=f"layer_{i}",
            )(x, deterministic=deterministic)
        x = nn.LayerNorm(
            1e-5, self.dtype, use_bias=self.use_bias, use_fast_variance=False, name="norm"
        )(x)
        logits = Dense(self.vocabulary_size, self.use_bias, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
