"""Clipping whose threshold follows the gradients: running quantiles of norms and coordinates."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.clipping import clip_by_global_norm
from async_optax.transforms.precision import global_norm, working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_choice, require_count, require_number

GRANULARITIES = ("coordinate", "layer", "global")


class ClipByQuantileState(NamedTuple):
    """State of :func:`clip_by_quantile`.

    Attributes:
      seen: int32 scalar, gradients so far.
      norms: ``[window]``, the latest global norms, in at least float32; a ring.
    """

    seen: jax.Array
    norms: jax.Array


@sweepable(static_argnames=("window",))
def clip_by_quantile(
    quantile: ArrayLike = 0.5, window: int = 100
) -> optax.GradientTransformationExtraArgs:
    """Clips the global norm at the running quantile of the latest norms.

    The norm of g joins the last ``window`` norms; with c their ``quantile`` (an order
    statistic, the lower one), the update is ``g * min(1, c / norm(g))``, computed without
    overflow. Gradients that are not finite count as the largest and stay as they are; zero
    gradients do not count.

    Args:
      quantile: in (0, 1]; 1 clips nothing. Under heavy tails choose it well below 1: a
        share of ``1 - quantile`` of all gradients is clipped.
      window: number of norms kept, >= 1.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      ValueError: if a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = clip_by_quantile(quantile=0.5, window=10)
      >>> state = tx.init(jnp.zeros(1))
      >>> for g in (1.0, 3.0, 100.0):
      ...     updates, state = tx.update(jnp.array([g]), state)
      ...     print(updates)
      [1.]
      [1.]
      [3.]

    References:
      Seetharaman, Wichern, Pardo, Le Roux, `AutoClip: Adaptive Gradient Clipping for Source
      Separation Networks <https://arxiv.org/abs/2007.14469>`_, 2020, which keeps all norms;
      the window is ours.
    """
    require_number("quantile", quantile, above=0, at_most=1)
    require_count("window", window)

    def init_fn(params: optax.Params) -> ClipByQuantileState:
        dtype = working_dtype(*jax.tree.leaves(params))
        return ClipByQuantileState(jnp.zeros([], jnp.int32), jnp.full([window], jnp.inf, dtype))

    def update_fn(
        updates: optax.Updates,
        state: ClipByQuantileState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ClipByQuantileState]:
        del params, extra_args
        norm = global_norm(updates).astype(state.norms.dtype)
        norm = jnp.where(jnp.isfinite(norm), norm, jnp.inf)
        counts = norm > 0
        place = state.seen % window
        norms = state.norms.at[place].set(jnp.where(counts, norm, state.norms[place]))
        # Counts up to 2 * window, then stays a full window ahead: the place goes round.
        following = jnp.where(state.seen < 2 * window - 1, state.seen + 1, jnp.int32(window))
        seen = jnp.where(counts, following, state.seen)
        # Empty places hold infinity, so they sort behind all norms.
        last = jnp.maximum(jnp.minimum(seen, window) - 1, 0)
        rank = jnp.floor(jnp.asarray(quantile, float) * last.astype(float)).astype(jnp.int32)
        clip = clip_by_global_norm(jnp.sort(norms)[rank])
        clipped, _ = clip.update(updates, optax.EmptyState())
        return clipped, ClipByQuantileState(seen, norms)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class ClipCoordinatesByQuantileState(NamedTuple):
    """State of :func:`clip_coordinates_by_quantile`.

    Attributes:
      log_threshold: natural logarithm of the thresholds, in at least float32: one scalar, one
        per leaf, or like params. Minus infinity until a gradient that is not zero was seen.
    """

    log_threshold: Any


@sweepable(static_argnames=("granularity",))
def clip_coordinates_by_quantile(
    quantile: ArrayLike = 0.5,
    rate: ArrayLike = 0.1,
    *,
    granularity: Literal["coordinate", "layer", "global"] = "global",
) -> optax.GradientTransformationExtraArgs:
    """Clips each coordinate at a threshold that tracks a quantile of the magnitudes.

    With f the share of the non-zero coordinates that exceed c (for thresholds by coordinate: 0
    or 1)::

        out: sign(g) * min(abs(g), c),    log c <- log c + rate * (f - (1 - quantile))

    so c rises while too many coordinates are clipped and falls while too few are; at rest a
    share of ``1 - quantile`` is. A magnitude enters only by comparison: no outlier, however
    large, moves c by more than a factor of ``exp(rate * quantile)``. c starts at the mean
    magnitude of the first gradient. Infinite coordinates are clipped; NaN stays NaN.

    Args:
      quantile: in (0, 1).
      rate: > 0, of the logarithm per gradient.
      granularity: one threshold for the whole tree (``"global"``), per leaf (``"layer"``), or
        per ``"coordinate"``.

    Returns:
      A transformation. Updates keep their shapes and dtypes; exact zeros stay zero and do not
      count.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = clip_coordinates_by_quantile(quantile=0.5)
      >>> g = jnp.array([1.0, -2.0, 3.0, 10.0])
      >>> print(tx.update(g, tx.init(g))[0])
      [ 1. -2.  3.  4.]

    References:
      The geometric tracking of a quantile is that of Andrew, Thakkar, McMahan, Ramaswamy,
      `Differentially Private Learning with Adaptive Clipping
      <https://arxiv.org/abs/1905.03871>`_, 2021, there for norms of client updates; by
      coordinate, for heavy tails, it is ours.
    """
    require_number("quantile", quantile, above=0, below=1)
    require_number("rate", rate, above=0)
    require_choice("granularity", granularity, GRANULARITIES)

    def init_fn(params: optax.Params) -> ClipCoordinatesByQuantileState:
        totals = _totals(jax.tree.map(_magnitude, params), granularity)
        return ClipCoordinatesByQuantileState(
            jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), totals)
        )

    def update_fn(
        updates: optax.Updates,
        state: ClipCoordinatesByQuantileState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ClipCoordinatesByQuantileState]:
        del params, extra_args
        magnitude = jax.tree.map(_magnitude, updates)
        finite = jax.tree.map(lambda m: jnp.where(jnp.isfinite(m), m, jnp.zeros_like(m)), magnitude)
        nonzero = _totals(jax.tree.map(lambda m: (m > 0).astype(m.dtype), magnitude), granularity)
        log_c = jax.tree.map(_started, state.log_threshold, _totals(finite, granularity), nonzero)
        thresholds = jax.tree.map(jnp.exp, log_c)
        if granularity == "global":
            thresholds = jax.tree.map(lambda m: thresholds, magnitude)

        def clip(g: jax.Array, m: jax.Array, c: jax.Array) -> jax.Array:
            clipped = jnp.sign(g) * c.astype(g.dtype)
            return jnp.where((m > c) & (c > 0), clipped, g)

        out = jax.tree.map(clip, updates, magnitude, thresholds)
        above = jax.tree.map(lambda m, c: (m > c).astype(m.dtype), magnitude, thresholds)

        def track(log_c: jax.Array, above: jax.Array, nonzero: jax.Array) -> jax.Array:
            share = above / jnp.maximum(nonzero, 1)
            target = 1 - jnp.asarray(quantile, log_c.dtype)
            moved = log_c + jnp.asarray(rate, log_c.dtype) * (share - target)
            return jnp.where(nonzero > 0, moved, log_c)

        tracked = jax.tree.map(track, log_c, _totals(above, granularity), nonzero)
        return out, ClipCoordinatesByQuantileState(tracked)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _magnitude(g: jax.Array) -> jax.Array:
    return jnp.abs(g).astype(working_dtype(g))


def _totals(tree: Any, granularity: str) -> Any:
    """Sums over the whole tree or by leaf; or the tree as it is."""
    if granularity == "coordinate":
        return tree
    by_layer = jax.tree.map(jnp.sum, tree)
    if granularity == "layer":
        return by_layer
    leaves = jax.tree.leaves(by_layer)
    dtype = working_dtype(*leaves)
    return sum((x.astype(dtype) for x in leaves), jnp.zeros([], dtype))


def _started(log_c: jax.Array, total: jax.Array, nonzero: jax.Array) -> jax.Array:
    """The threshold as it is; before it has started, the mean magnitude."""
    starts = jnp.isneginf(log_c) & (total > 0)
    mean = jnp.where(starts, total, jnp.ones_like(total)) / jnp.maximum(nonzero, 1)
    return jnp.where(starts, jnp.log(mean), log_c)
