"""A language model with long short-term memory."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.dense import Dense
from experiments.models.linen import nn, promote_dtype

_recurrent = nn.initializers.orthogonal()


class LSTM(nn.Module):
    """Predicts each next token from those before it.

    Tokens are embedded; in each layer, with gates i, f, o = sigmoid and g = tanh of
    ``x @ kernel + h @ recurrent + bias``: ``c <- f c + i g`` and ``h <- o tanh(c)``, from zeros on.
    Inputs are multiplied for all positions at once. The bias starts at 0, that of f at 1.

    Attributes:
      vocabulary_size: tokens.
      width: of h and c.
      num_layers: layers.
      embedding: size of an embedded token.
      dropout: of the outputs of each layer.
      dtype: of the computation; parameters and logits are float32.

    References:
      Hochreiter and Schmidhuber, `Long Short-Term Memory
      <https://doi.org/10.1162/neco.1997.9.8.1735>`_, 1997, with the forget gate of Gers et al.,
      2000. PyTorch's has a second bias, which adds nothing.
    """

    vocabulary_size: int
    width: int = 256
    num_layers: int = 2
    embedding: int = 64
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, tokens: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns logits ``[batch, length, vocabulary_size]`` of tokens ``[batch, length]``."""
        x = nn.Embed(self.vocabulary_size, self.embedding, dtype=self.dtype, name="tokens")(tokens)
        for i in range(self.num_layers):
            x = _Layer(self.width, self.dtype, name=f"layer_{i}")(x)
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        logits = Dense(self.vocabulary_size, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class _Layer(nn.Module):
    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mixed = Dense(4 * self.width, use_bias=False, dtype=self.dtype, name="inputs")(x)
        recurrent = self.param("recurrent", _recurrent, (self.width, 4 * self.width))
        bias = self.param("bias", _forget_less, (4 * self.width,))
        mixed, recurrent, bias = promote_dtype(mixed, recurrent, bias, dtype=self.dtype)

        def step(
            state: tuple[jax.Array, jax.Array], now: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            hidden, cell = state
            i, f, g, o = jnp.split(now + hidden @ recurrent, 4, axis=-1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            hidden = nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        zeros = jnp.zeros((len(x), self.width), mixed.dtype)
        over_time = (mixed + bias[jnp.newaxis, jnp.newaxis]).swapaxes(0, 1)
        _, outputs = jax.lax.scan(step, (zeros, zeros), over_time)
        return outputs.swapaxes(0, 1)


def _forget_less(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    del key
    quarter = shape[0] // 4
    return jnp.zeros(shape, dtype).at[quarter : 2 * quarter].set(1)
