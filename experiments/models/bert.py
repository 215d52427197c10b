"""BERT: the encoder, and sentences classified by it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from async_optax.validation import require_choice, require_count
from experiments.models.attention import SelfAttention
from experiments.models.dense import Dense, small_normal
from experiments.models.linen import nn

_ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_new": nn.gelu,
    "relu": nn.relu,
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes, under the names of ``config.json`` in the layout of Hugging Face.

    Attributes:
      vocab_size: tokens.
      hidden_size: of the residual stream.
      num_hidden_layers: layers.
      num_attention_heads: a divisor of the hidden size.
      intermediate_size: of the perceptrons.
      max_position_embeddings: positions, at most.
      type_vocab_size: kinds of segments.
      hidden_act: ``"gelu"`` (exact), ``"gelu_new"`` (by tanh) or ``"relu"``.
      layer_norm_eps: of the norms.
      hidden_dropout_prob: of embeddings, of both branches, and before the classifier.
      attention_probs_dropout_prob: of the shares of attention.

    Raises:
      ValueError: if a size is below 1 or the activation is unknown.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is int:
                require_count(field.name, getattr(self, field.name))
        require_choice("hidden_act", self.hidden_act, tuple(_ACTIVATIONS))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "BertConfig":
        """Takes what it knows from a ``config.json``.

        Raises:
          ValueError: if it is of another kind of model or of positions.
        """
        require_choice("model_type", config.get("model_type", "bert"), ("bert",))
        positions = config.get("position_embedding_type", "absolute")
        require_choice("position_embedding_type", positions, ("absolute",))
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in config.items() if name in known})


class BertEncoder(nn.Module):
    """Embeds tokens and passes them through layers that are normalised after each branch.

    ``x <- norm(x + attention(x))``, then ``x <- norm(x + perceptron(x))``.

    Attributes:
      config: sizes.
      dtype: of the computation; ``None``: that of the parameters.

    References:
      Devlin et al., `BERT <https://arxiv.org/abs/1810.04805>`_, 2019.
    """

    config: BertConfig
    dtype: Any = None

    @nn.compact
    def __call__(
        self, ids: jax.Array, types: jax.Array, mask: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        """Returns the last layer's ``[batch, length, hidden_size]``.

        Args:
          ids: integers ``[batch, length]``.
          types: integers ``[batch, length]``.
          mask: bool ``[batch, length]``, ``False`` for padding.
          deterministic: whether there is no dropout.

        Raises:
          ValueError: if there are more positions than the model has.
        """
        c, length = self.config, ids.shape[1]
        if length > c.max_position_embeddings:
            raise ValueError(
                f"ids must have at most {c.max_position_embeddings} positions, got {length}"
            )
        drop = nn.Dropout(c.hidden_dropout_prob)
        positions = self.param(
            "positions", small_normal, (c.max_position_embeddings, c.hidden_size)
        )
        x = self._embedding("tokens", c.vocab_size)(ids)
        x = x + self._embedding("types", c.type_vocab_size)(types.astype(jnp.int32))
        x = x + positions[:length].astype(x.dtype)[jnp.newaxis]
        x = drop(self._norm("norm")(x), deterministic=deterministic)
        for i in range(c.num_hidden_layers):
            x = BertLayer(c, self.dtype, name=f"layer_{i}")(x, mask, deterministic=deterministic)
        return x

    def _embedding(self, name: str, number: int) -> nn.Embed:
        return nn.Embed(
            number,
            self.config.hidden_size,
            dtype=self.dtype,
            embedding_init=small_normal,
            name=name,
        )

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(
            self.config.layer_norm_eps, self.dtype, use_fast_variance=False, name=name
        )


class BertLayer(nn.Module):
    """One layer of the encoder.

    Attributes:
      config: sizes.
      dtype: of the computation; ``None``: that of the parameters.
    """

    config: BertConfig
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns ``[batch, length, hidden_size]``; arguments as of the encoder."""
        c, drop = self.config, nn.Dropout(self.config.hidden_dropout_prob)
        attention = SelfAttention(
            c.num_attention_heads,
            dropout=c.attention_probs_dropout_prob,
            kernel_init=small_normal,
            dtype=self.dtype,
            name="attention",
        )
        gathered = attention(x, mask, deterministic=deterministic)
        x = self._norm("attention_norm")(x + drop(gathered, deterministic=deterministic))
        hidden = _ACTIVATIONS[c.hidden_act](self._dense("up", c.intermediate_size)(x))
        hidden = self._dense("down", c.hidden_size)(hidden)
        return self._norm("perceptron_norm")(x + drop(hidden, deterministic=deterministic))

    def _dense(self, name: str, features: int) -> Dense:
        return Dense(features, kernel_init=small_normal, dtype=self.dtype, name=name)

    def _norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(
            self.config.layer_norm_eps, self.dtype, use_fast_variance=False, name=name
        )


class BertClassifier(nn.Module):
    """Classifies by the first token: encoder, pooler (a linear map and tanh), dropout, classes.

    Attributes:
      config: sizes.
      num_classes: classes.
      dtype: of the computation; parameters and logits are float32.
    """

    config: BertConfig
    num_classes: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(
        self, ids: jax.Array, types: jax.Array, mask: jax.Array, *, deterministic: bool = True
    ) -> jax.Array:
        """Returns logits ``[batch, num_classes]``; arguments as of the encoder."""
        encoder = BertEncoder(self.config, self.dtype, name="encoder")
        first = encoder(ids, types, mask, deterministic=deterministic)[:, 0]
        linear = {"kernel_init": small_normal, "dtype": self.dtype}
        pooled = jnp.tanh(Dense(self.config.hidden_size, name="pooler", **linear)(first))
        drop = nn.Dropout(self.config.hidden_dropout_prob)
        pooled = drop(pooled, deterministic=deterministic)
        logits = Dense(self.num_classes, name="head", **linear)(pooled)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
