"""Clipping whose threshold follows the gradients: running quantiles of norms and coordinates."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.clipping import clip_to_norm
from async_optax.transforms.precision import global_norm, working_dtype
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_choice, require_count, require_number

GRANULARITIES = ("coordinate", "layer", "global")
_BISECTIONS = 64  # of the logarithm, as many as double precision can tell apart


class ClipByQuantileState(NamedTuple):
    """State of :func:`clip_by_quantile`.

    Attributes:
      seen: int32 scalar, norms so far; once it exceeds the window, congruent to their number
        modulo the window.
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
        clipped = clip_to_norm(updates, jnp.sort(norms)[rank])
        kept = jax.tree.map(lambda g, c: jnp.where(jnp.isfinite(norm), c, g), updates, clipped)
        return kept, ClipByQuantileState(seen, norms)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class ClipCoordinatesByQuantileState(NamedTuple):
    """State of :func:`clip_coordinates_by_quantile`.

    Attributes:
      threshold: c, in at least float32: one scalar, one per leaf, or like params. 0, where
        nothing is clipped, until a finite gradient that is not zero was seen.
    """

    threshold: Any


@sweepable(static_argnames=("granularity",))
def clip_coordinates_by_quantile(
    quantile: ArrayLike = 0.5,
    rate: ArrayLike = 0.1,
    *,
    granularity: Literal["coordinate", "layer", "global"] = "global",
    normalize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Clips each coordinate at a threshold that tracks a quantile of the magnitudes.

    With f the share of the non-zero coordinates that exceed c (for thresholds by coordinate: 0
    or 1)::

        out: sign(g) * min(abs(g), c),    c <- c * exp(rate * (f - (1 - quantile)))

    so c rises while too many coordinates are clipped and falls while too few are; at rest a
    share of ``1 - quantile`` is. A magnitude enters only by comparison: no outlier, however
    large, moves c by more than a factor of ``exp(rate * quantile)``. c starts at that quantile of
    the first gradient (by coordinate, at its magnitude). Infinite coordinates are clipped; NaN
    stays NaN.

    With ``normalize`` the updates are divided by c, so that their magnitudes are at most 1.
    Then gradients that are all scaled by one factor give the same updates, and one learning
    rate serves every scale of the loss and, nearly, of the noise; without, the updates keep
    the gradient's units and the best learning rate moves with its scale.

    Args:
      quantile: in (0, 1).
      rate: > 0, of the logarithm per gradient.
      granularity: one threshold for the whole tree (``"global"``), per leaf (``"layer"``), or
        per ``"coordinate"``.
      normalize: whether the updates are in units of c.

    Returns:
      A transformation. Updates keep their shapes and dtypes; exact zeros stay zero and do not
      count.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> tx = clip_coordinates_by_quantile(quantile=0.5)
      >>> g = jnp.array([1.0, -2.0, 2.0, 16.0])
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [ 1. -2.  2.  2.]
      >>> tx = clip_coordinates_by_quantile(quantile=0.5, normalize=True)
      >>> print(tx.update(g, tx.init(g))[0].round(3))
      [ 0.5 -1.   1.   1. ]

    References:
      The geometric tracking of a quantile is that of Andrew, Thakkar, McMahan, Ramaswamy,
      `Differentially Private Learning with Adaptive Clipping
      <https://arxiv.org/abs/1905.03871>`_, 2021, there for norms of client updates; by
      coordinate, for heavy tails, it is ours, as is ``normalize``; measured in
      ``experiments/adaptive``.
    """
    require_number("quantile", quantile, above=0, below=1)
    require_number("rate", rate, above=0)
    require_choice("granularity", granularity, GRANULARITIES)

    def init_fn(params: optax.Params) -> ClipCoordinatesByQuantileState:
        if granularity == "global":
            return ClipCoordinatesByQuantileState(
                jnp.zeros([], working_dtype(*jax.tree.leaves(params)))
            )

        def zeros(x: jax.Array) -> jax.Array:
            if granularity == "layer":
                return jnp.zeros([], working_dtype(x))
            return jnp.zeros_like(x, dtype=working_dtype(x))

        return ClipCoordinatesByQuantileState(jax.tree.map(zeros, params))

    def update_fn(
        updates: optax.Updates,
        state: ClipCoordinatesByQuantileState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ClipCoordinatesByQuantileState]:
        del params, extra_args
        magnitude = jax.tree.map(_magnitude, updates)
        nonzero = _counts(jax.tree.map(lambda m: m > 0, magnitude), granularity)
        threshold = _started(state.threshold, updates, quantile, granularity)
        thresholds = _spread(threshold, magnitude, granularity)

        def clip(g: jax.Array, m: jax.Array, c: jax.Array) -> jax.Array:
            started = c > 0
            if normalize:
                unit = jnp.clip(g.astype(c.dtype) / jnp.where(started, c, jnp.ones_like(c)), -1, 1)
                return jnp.where(started, unit.astype(g.dtype), g)
            clipped = jnp.sign(g) * c.astype(g.dtype)
            return jnp.where((m > c) & started, clipped, g)

        out = jax.tree.map(clip, updates, magnitude, thresholds)
        above = _counts(jax.tree.map(lambda m, c: m > c, magnitude, thresholds), granularity)

        def track(c: jax.Array, above: jax.Array, nonzero: jax.Array) -> jax.Array:
            share = (above / jnp.maximum(nonzero, 1)).astype(c.dtype)
            target = 1 - jnp.asarray(quantile, c.dtype)
            tracked = c * jnp.exp(jnp.asarray(rate, c.dtype) * (share - target))
            return jnp.where(nonzero > 0, tracked, c)

        tracked = jax.tree.map(track, threshold, above, nonzero)
        return out, ClipCoordinatesByQuantileState(tracked)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _magnitude(g: jax.Array) -> jax.Array:
    return jnp.abs(g).astype(working_dtype(g))


def _counts(masks: Any, granularity: str) -> Any:
    """How many are true in the whole tree or by leaf; or the tree as it is; as floats."""
    if granularity == "coordinate":
        return jax.tree.map(lambda mask: mask.astype(float), masks)
    # Integers: their sums vectorise on a CPU, where those of floats keep an order.
    by_layer = jax.tree.map(lambda mask: jnp.sum(mask, dtype=jnp.int32).astype(float), masks)
    if granularity == "layer":
        return by_layer
    return sum(jax.tree.leaves(by_layer), jnp.zeros([]))


def _started(threshold: Any, updates: optax.Updates, quantile: ArrayLike, granularity: str) -> Any:
    """The thresholds; those that are 0 become the quantile of what is finite and not zero."""
    if granularity == "coordinate":
        return jax.tree.map(_started_coordinate, threshold, updates)

    def counted(above: Callable[[jax.Array], jax.Array], g: jax.Array) -> jax.Array:
        m = _magnitude(g)
        return (m > 0) & jnp.isfinite(m) & above(m)

    def start_all(threshold: Any, updates: optax.Updates) -> Any:
        number = _counts(jax.tree.map(lambda g: counted(lambda m: m > 0, g), updates), granularity)

        def halve(_: int, bounds: tuple[Any, Any]) -> tuple[Any, Any]:
            """Bisects the logarithms: few passes, where sorting all coordinates takes many."""
            low, high = bounds
            middle = jax.tree.map(lambda a, b: (a + b) / 2, low, high)
            c = _spread(jax.tree.map(jnp.exp2, middle), updates, granularity)
            above = _counts(
                jax.tree.map(lambda g, c: counted(lambda m: m > c, g), updates, c), granularity
            )

            def too_low(above: jax.Array, number: jax.Array) -> jax.Array:
                return above > (1 - jnp.asarray(quantile, number.dtype)) * number

            low_too = jax.tree.map(too_low, above, number)
            low = jax.tree.map(jnp.where, low_too, middle, low)
            high = jax.tree.map(jnp.where, low_too, high, middle)
            return low, high

        low = jax.tree.map(lambda c: jnp.full_like(c, jnp.finfo(c.dtype).minexp), threshold)
        high = jax.tree.map(lambda c: jnp.full_like(c, jnp.finfo(c.dtype).maxexp), threshold)
        _, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))

        def start(c: jax.Array, log2: jax.Array, number: jax.Array) -> jax.Array:
            # A little more, so that rounding does not clip the quantile itself.
            quantile = jnp.exp2(log2) * (1 + 64 * jnp.finfo(log2.dtype).eps)
            return jnp.where((c > 0) | (number == 0), c, quantile)

        return jax.tree.map(start, threshold, high, number)

    leaves = jax.tree.leaves(threshold)
    if not leaves:
        return threshold
    started = jnp.all(jnp.stack([c > 0 for c in leaves]))
    # The branches see the updates alone: what is made of them would be written to memory first.
    return jax.lax.cond(started, lambda c, g: c, start_all, threshold, updates)


def _started_coordinate(c: jax.Array, g: jax.Array) -> jax.Array:
    m = _magnitude(g)
    return jnp.where((c > 0) | ~jnp.isfinite(m), c, m)


def _spread(threshold: Any, updates: optax.Updates, granularity: str) -> Any:
    """The threshold of each leaf."""
    if granularity == "global":
        return jax.tree.map(lambda g: threshold, updates)
    return threshold
