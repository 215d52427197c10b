"""The residual network for small images, with groups instead of batches to normalise over."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.convolution import Convolution
from experiments.models.dense import Dense
from experiments.models.linen import nn


class ResNet(nn.Module):
    """ResNet-(6 n + 2) for images of 32 pixels; n = 3 is ResNet-20.

    A convolution, three stages of n blocks of two convolutions, the mean over pixels, and the
    classes. Stages halve the sides and double the channels; a shortcut between them takes every
    other pixel and fills up with channels of zeros, so it has no parameters.

    Attributes:
      blocks_per_stage: n.
      width: channels of the first stage.
      num_classes: classes.
      num_groups: of the group norms, a divisor of the width.
      as_product: see :class:`experiments.models.convolution.Convolution`.
      dtype: of the computation; parameters and logits are float32.

    References:
      He et al., `Deep Residual Learning <https://arxiv.org/abs/1512.03385>`_, 2016, section 4.2,
      with shortcuts of option A. Batch norm would tie the examples of a batch together and keep
      running means that no server step updates: group norm (Wu and He,
      `Group Normalization <https://arxiv.org/abs/1803.08494>`_, 2018) has as many parameters.
    """

    blocks_per_stage: int = 3
    width: int = 16
    num_classes: int = 10
    num_groups: int = 8
    as_product: bool | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Returns logits ``[batch, num_classes]`` of ``images[batch, height, width, channels]``."""
        del deterministic  # there is no dropout
        x = nn.relu(self._convolved("start", images, self.width))
        for stage in range(3):
            features = self.width * 2**stage
            for block in range(self.blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"block_{stage}_{block}"
                hidden = nn.relu(self._convolved(f"{name}_first", x, features, stride))
                hidden = self._convolved(f"{name}_second", hidden, features)
                x = nn.relu(hidden + _shortcut(x, features, stride))
        logits = Dense(self.num_classes, dtype=self.dtype, name="head")(x.mean((1, 2)))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def _convolved(self, name: str, x: jax.Array, features: int, stride: int = 1) -> jax.Array:
        x = Convolution(features, stride, self.as_product, self.dtype, name=name)(x)
        return nn.GroupNorm(
            self.num_groups, dtype=self.dtype, use_fast_variance=False, name=f"{name}_norm"
        )(x)


def _shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    more = features - x.shape[-1]
    x = x[:, ::stride, ::stride]
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
