"""The vision transformer, in the published sizes or any other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from async_optax.validation import require_choice
from experiments.models.block import Block
from experiments.models.dense import Dense, small_normal
from experiments.models.linen import nn


class _Size(NamedTuple):
    width: int
    num_layers: int
    num_heads: int


SIZES: Mapping[str, _Size] = {
    "Ti": _Size(192, 12, 3),
    "S": _Size(384, 12, 6),
    "B": _Size(768, 12, 12),
}


class ViT(nn.Module):
    """Classifies images as sequences of patches.

    Patches are embedded linearly, a learned class token is put before them and learned positions
    are added; after the layers (see :class:`experiments.models.block.Block`) and a norm, the
    classes are read off the class token.

    Attributes:
      patch_size: of square patches that the image's sides are multiples of.
      width: of the residual stream.
      num_layers: number of layers.
      num_heads: of the attention, a divisor of the width.
      num_classes: classes.
      hidden: of the perceptrons; ``None``: four times the width.
      dropout: after the embedding and within the layers.
      epsilon: of the norms.
      dtype: of the computation; parameters and logits are float32.

    References:
      Dosovitskiy et al., `An Image is Worth 16x16 Words <https://arxiv.org/abs/2010.11929>`_, 2021;
      sizes Ti and S of Touvron et al., `DeiT <https://arxiv.org/abs/2012.12877>`_, 2021. Kernels
      start Xavier-uniform as in the authors' code, the last one like the others.
    """

    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    num_classes: int = 10
    hidden: int | None = None
    dropout: float = 0.0
    epsilon: float = 1e-6
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns logits ``[batch, num_classes]`` of ``images[batch, height, width, channels]``."""
        batch, size = len(images), self.patch_size
        x = Dense(self.width, dtype=self.dtype, name="patches")(_patches(images, size))
        start = self.param("start", nn.initializers.zeros_init(), (self.width,))
        positions = self.param("positions", small_normal, (x.shape[1] + 1, self.width))
        start = jnp.broadcast_to(start.astype(x.dtype), (batch, 1, self.width))
        x = jnp.concatenate([start, x], axis=1) + positions.astype(x.dtype)[jnp.newaxis]
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        for i in range(self.num_layers):
            x = Block(
                self.num_heads,
                self.hidden or 4 * self.width,
                dropout=self.dropout,
                epsilon=self.epsilon,
                dtype=self.dtype,
                name=f"layer_{i}",
            )(x, deterministic=deterministic)
        x = nn.LayerNorm(self.epsilon, self.dtype, use_fast_variance=False, name="norm")(x[:, 0])
        logits = Dense(self.num_classes, dtype=self.dtype, name="head")(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def vit(size: str, patch_size: int, num_classes: int = 10, **options: Any) -> ViT:
    """Returns the ViT of a published size.

    Args:
      size: ``"Ti"``, ``"S"`` or ``"B"``.
      patch_size: 16 for images of 224 pixels; 4 suits 32.
      num_classes: classes.
      **options: other attributes of :class:`ViT`.

    Raises:
      ValueError: if the size is unknown.
    """
    require_choice("size", size, tuple(SIZES))
    return ViT(patch_size, *SIZES[size], num_classes, **options)


def _patches(images: jax.Array, size: int) -> jax.Array:
    """``[batch, patch, row in it, column in it, channel]``, the last three as one."""
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise ValueError(f"patch_size={size} must divide the image's {height}x{width} pixels")
    rows, columns = height // size, width // size
    grid = images.reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows * columns, size * size * channels)
