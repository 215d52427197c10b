"""Asynchronous optimisation under heavy-tailed gradient noise."""

from collections.abc import Callable
from typing import Literal

import optax
from jax.typing import ArrayLike

from async_optax.optimizers.registry import register
from async_optax.transforms import (
    accumulate_until_commit,
    bi_clip,
    clip_by_global_norm,
    clip_coordinates_by_quantile,
    compensate_delay,
    scale_by_staleness,
    weights,
)
from async_optax.transforms.weights import WeightFn
from async_optax.validation import require_choice, require_learning_rate, require_number

_CLIPPINGS = ("coordinate", "global_norm", "adaptive", "none")
_ORDERS = ("clip_first", "compensate_first")
_PLACES = ("arrival", "commit", "both")


@register
def async_heavy_tailed(
    learning_rate: optax.ScalarOrSchedule,
    clipping: Literal["coordinate", "global_norm", "adaptive", "none"] = "coordinate",
    threshold: ArrayLike = 0.03,
    *,
    lower: ArrayLike = 0.0,
    quantile: ArrayLike = 0.5,
    weight_fn: WeightFn | None = None,
    compensation: ArrayLike = 0.25,
    max_ratio: ArrayLike | None = None,
    order: Literal["clip_first", "compensate_first"] = "clip_first",
    clip_at: Literal["arrival", "commit", "both"] = "arrival",
    server: Callable[..., optax.GradientTransformation] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip, compensate for the delay, weigh by the staleness, commit, step.

    With ``C`` the clip, ``c`` its threshold, s the parameters that the gradient g was computed
    on and x the server's, the arrivals i of one commit with shares w_i give::

        h_i = C(g_i)
        d_i = h_i + compensation / c**2 * h_i * h_i * (x - s_i)
        x  <- x - learning_rate * sum_i w_i * weight_fn(tau_i) * d_i

    With noise of infinite variance g*g has no mean, so it is the clipped gradient that is
    squared; and as ``abs(h) <= c``, the correction changes no coordinate by more than
    ``compensation * abs(x - s)``, so that ``compensation`` has the units of a curvature. With
    ``clipping="global_norm"`` the norm is clipped, so that single coordinates are far smaller
    than c and the same ``compensation`` does much less.

    "adaptive" clips coordinates at a running quantile of their magnitudes and divides by it, so
    that c is 1 whatever the gradients' scale (``threshold`` and ``lower`` have no meaning): no
    threshold to tune, and a learning rate (in units of the parameters, 0.004 to 0.015 on our
    problems) that carries over between losses and levels of noise.

    The last line is plain SGD; another ``server`` takes the sum as its gradient.

    Args:
      learning_rate: a number > 0, or a schedule of the commits.
      clipping: ``"coordinate"`` clips each coordinate (BiClip when ``lower > 0``),
        ``"global_norm"`` the norm, ``"adaptive"`` each coordinate, see above, ``"none"`` nothing.
      threshold: c >= 1e-15 in gradient units: the largest coordinate, or the largest norm, that
        passes; also the unit of the compensation. With ``"adaptive"`` it has no meaning.
      lower: with ``"coordinate"``, the least magnitude of a non-zero coordinate, in
        ``[0, threshold]``.
      quantile: with ``"adaptive"``, the share of coordinates that pass unclipped, in (0, 1).
      weight_fn: weight of the staleness, see :mod:`async_optax.weights`; ``None`` leaves
        stale gradients at full weight.
      compensation: kappa >= 0, the strength in units of ``1 / c**2``; 0 is off.
      max_ratio: >= 0, the largest norm of a correction in units of its gradient's, or ``None``
        for no bound; try 0.5 where large learning rates diverge.
      order: ``"clip_first"`` as above, or ``"compensate_first"``, where the raw gradient is
        squared and the clip comes last.
      clip_at: per ``"arrival"``, on the sum at each ``"commit"``, or ``"both"``. Clipping
        only the sum lets one outlier hide all other arrivals of its commit.
      server: ``server(learning_rate)`` is the optimizer of the commits, such as ``optax.adam``;
        numbers can be swept in ``jax.tree_util.Partial(optax.adam, b1=0.5)``. ``None`` is
        ``optax.sgd``.

    Returns:
      A transformation for any protocol; ``update`` requires ``params``, ``stale_params`` and
      ``staleness``.

    Raises:
      ValueError: if a number is out of range, a choice is unknown, or "adaptive" would not come
        first.
      TypeError: if ``server`` is neither ``None`` nor callable.

    Example:
      >>> import jax.numpy as jnp
      >>> tx, x = async_heavy_tailed(0.5, threshold=1.0, compensation=0.0), jnp.zeros(2)
      >>> g = jnp.array([1e6, -0.5])
      >>> print(tx.update(g, tx.init(x), x, stale_params=x, staleness=3)[0])
      [-0.5   0.25]

    References:
      Sun, Yao, Gong, Rabbani, Zaheer, Li, `Asynchronous Heavy-Tailed Optimization
      <https://arxiv.org/abs/2602.18002>`_, 2026. Certainty: abstract. This is a
      reconstruction from it and the figure of the two buffered schemes; the paper's exact
      rules and constants may differ. Coordinate clipping follows Lee, Zaheer, Li, `TailOPT
      <https://arxiv.org/abs/2502.04164>`_, 2025 (our reading), as does any ``server``; "adaptive"
      and ``max_ratio`` are ours, measured in ``experiments/adaptive``; the compensation follows
      Zheng et al., `DC-ASGD <https://arxiv.org/abs/1609.08326>`_, 2017.
    """
    require_learning_rate(learning_rate)
    require_number("threshold", threshold, at_least=1e-15)
    require_number("compensation", compensation, at_least=0)
    require_number("quantile", quantile, above=0, below=1)
    require_choice("clipping", clipping, _CLIPPINGS)
    require_choice("order", order, _ORDERS)
    require_choice("clip_at", clip_at, _PLACES)
    if server is not None and not callable(server):
        raise TypeError(f"server must be a function such as optax.adam, got {server!r}")
    if clipping == "adaptive" and (order != "clip_first" or clip_at == "commit"):
        raise ValueError(
            "clipping='adaptive' gives the compensation its unit, so it comes first: order must "
            f"be clip_first and clip_at arrival or both; got {order} and {clip_at}"
        )

    if clipping == "coordinate":
        clip = bi_clip(lower, threshold)
    elif clipping == "global_norm":
        clip = clip_by_global_norm(threshold)
    elif clipping == "adaptive":
        clip, threshold = clip_coordinates_by_quantile(quantile, normalize=True), 1.0
    else:
        clip = optax.identity()
    per_arrival = [compensate_delay(compensation / threshold / threshold, max_ratio)]
    if clip_at != "commit":
        per_arrival.insert(0 if order == "clip_first" else 1, clip)
    step = (server or optax.sgd)(learning_rate)
    if clip_at != "arrival":
        step = optax.chain(clip, step)
    return optax.chain(
        *per_arrival,
        scale_by_staleness(weights.constant() if weight_fn is None else weight_fn),
        accumulate_until_commit(step),
    )
