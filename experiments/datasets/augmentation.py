"""Augmentation of batches of images on the device: functions ``augment(key, batch) -> batch``.

A batch has ``image``, floating-point ``[batch, height, width, channels]``, and ``label``, the
shares of the classes ``[batch, num_classes]``. Images are normalised: a pixel of 0 is a mean one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from async_optax.validation import require_count, require_number

Batch = dict[str, jax.Array]
Augment = Callable[[jax.Array, Batch], Batch]


def pad_crop(padding: int = 4) -> Augment:
    """Moves each image by up to ``padding`` pixels both ways, drawn uniformly; what is new is 0.

    Args:
      padding: pixels at each side, >= 1.

    Example:
      >>> batch = {"image": jnp.ones((1, 2, 2, 1)), "label": jnp.ones((1, 1))}
      >>> pad_crop(1)(jax.random.key(4), batch)["image"][0, ..., 0]
      Array([[1., 0.],
             [1., 0.]], dtype=float32)
    """
    require_count("padding", padding)
    return Partial(_pad_crop, int(padding))


def flip() -> Augment:
    """Mirrors each image, left to right, with probability one half."""
    return Partial(_flip)


def mixup(alpha: float = 0.2) -> Augment:
    """Mixes each image and label with another of the batch, in one proportion for the batch.

    The proportion lam is drawn from Beta(alpha, alpha), the partners by a random permutation p:
    ``x_i <- lam x_i + (1 - lam) x_p(i)``, and labels likewise.

    Args:
      alpha: > 0; at 1 lam is uniform, the smaller the nearer to 0 or 1.

    References:
      Zhang et al., `mixup: Beyond Empirical Risk Minimization <https://arxiv.org/abs/1710.09412>`_,
      2018; one lam per batch as in the authors' code.
    """
    require_number("alpha", alpha, above=0)
    return Partial(_mixup, alpha)


def in_turn(*augments: Augment) -> Augment:
    """Applies several, the first one first, with keys of their own."""
    return Partial(_in_turn, augments)


def _pad_crop(padding: int, key: jax.Array, batch: Batch) -> Batch:
    images = batch["image"]
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1, jnp.int32)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return batch | {"image": jax.vmap(crop)(padded, corners)}


def _flip(key: jax.Array, batch: Batch) -> Batch:
    images = batch["image"]
    turned = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return batch | {"image": jnp.where(turned, images[:, :, ::-1], images)}


def _mixup(alpha: Any, key: jax.Array, batch: Batch) -> Batch:
    share_key, partner_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha)
    partners = jax.random.permutation(partner_key, len(batch["label"]))
    return batch | {
        name: share * batch[name] + (1 - share) * batch[name][partners]
        for name in ("image", "label")
    }


def _in_turn(augments: tuple[Augment, ...], key: jax.Array, batch: Batch) -> Batch:
    for augment, own_key in zip(augments, jax.random.split(key, len(augments)), strict=True):
        batch = augment(own_key, batch)
    return batch
