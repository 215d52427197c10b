"""A small convolutional network."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.convolution import Convolution
from experiments.models.dense import Dense
from experiments.models.linen import nn


class CNN(nn.Module):
    """Blocks of convolution, rectifier and 2x2 maximum; one hidden layer; the classes.

    The papers on delays say "CNN" or "two-layer CNN" without its widths: these are our choice.

    Attributes:
      channels: of each block, whose convolution is 3x3 and keeps the size.
      hidden: width of the hidden layer, with a rectifier.
      num_classes: classes.
      dropout: before the hidden layer and before the last.
      as_product: see :class:`experiments.models.convolution.Convolution`.
      dtype: of the computation; parameters and logits are float32.
    """

    channels: tuple[int, ...] = (32, 64)
    hidden: int = 128
    num_classes: int = 10
    dropout: float = 0.0
    as_product: bool | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns logits ``[batch, num_classes]`` of ``images[batch, height, width, channels]``."""
        x, drop = images, nn.Dropout(self.dropout)
        for i, features in enumerate(self.channels):
            x = Convolution(
                features, as_product=self.as_product, dtype=self.dtype, name=f"convolution_{i}"
            )(x)
            bias = self.param(f"bias_{i}", nn.initializers.zeros_init(), (features,))
            x = nn.relu(x + bias.astype(x.dtype).reshape(1, 1, 1, -1))
            batch, height, width, _ = x.shape
            x = x[:, : height // 2 * 2, : width // 2 * 2]
            x = x.reshape(batch, height // 2, 2, width // 2, 2, features).max((2, 4))
        x = drop(x.reshape(len(x), -1), deterministic=deterministic)
        x = nn.relu(Dense(self.hidden, dtype=self.dtype, name="hidden_layer")(x))
        x = drop(x, deterministic=deterministic)
        logits = Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
