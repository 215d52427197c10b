"""The index of a stable law from how sums grow: logarithms of sums over that of their length."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from async_optax.theory.tails.samples import as_samples
from async_optax.validation import require_seed

_FEWEST_BLOCKS = 100
_BLOCK_SIZES = (1, 3, 10, 30, 100)


def log_log_moment_index(
    samples: Any, *, block_sizes: Sequence[int] | None = None, signed: bool = True, seed: int = 0
) -> float:
    """Returns the index of the stable law that sums of the samples tend to, in (0, 2].

    Sums of K independent draws of a symmetric stable law are ``K**(1 / index)`` times a draw. So
    with S_K the sums over blocks of K samples, 1 / index is the slope of the least-squares line
    through ``mean(log(abs(S_K)))`` over ``log(K)``. Logarithms have all moments, whatever the
    tail. Exact for stable laws at any K; for others as good as K is large: a finite variance gives
    2 in the limit, Student and Weibull laws less than that at the lengths samples allow, so that a
    value below 2 is no proof of an infinite variance.

    Args:
      samples: real numbers; independent along the first axis, whose blocks are summed.
      block_sizes: at least two lengths K >= 1, at most a hundredth of the samples; ``None``: of
        1, 3, 10, 30 and 100 those that allow 100 blocks.
      signed: whether the samples have signs of their own and mean zero; ``False`` gives each a
        random sign, as norms need.
      seed: of the order and of the random signs, an integer >= 0.

    Returns:
      The index, at most 2.

    Raises:
      TypeError: if ``samples`` are not real numbers.
      ValueError: if there are too few for the block sizes, or most are zero.

    Example:
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> cauchy = np.tan(np.pi * (rng.random(100_000) - 0.5))
      >>> round(log_log_moment_index(cauchy), 1)
      1.0
      >>> round(log_log_moment_index(rng.standard_normal(100_000)), 1)
      2.0

    References:
      Mohammadi, Mohammadpour, Ogata, `On estimating the tail index and the spectral measure of
      multivariate alpha-stable distributions <https://doi.org/10.1007/s00184-014-0515-7>`_, 2015,
      with two block sizes; used on gradient noise by Simsekli, Sagun, Gurbuzbalaban, `A Tail-Index
      Analysis of Stochastic Gradient Noise <https://arxiv.org/abs/1901.06053>`_, 2019. Certainty:
      our reading; the line through several sizes is ours.
    """
    given = as_samples(samples)
    require_seed(seed)
    flat = given.reshape(len(given), -1)
    if block_sizes is None:
        block_sizes = [k for k in _BLOCK_SIZES if k * _FEWEST_BLOCKS <= len(flat)]
    sizes = np.asarray(block_sizes)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or len(np.unique(sizes)) < 2:
        raise ValueError(
            f"block_sizes must be at least two different integers >= 1, got {block_sizes} "
            f"({len(flat)} samples allow sizes up to {len(flat) // _FEWEST_BLOCKS})"
        )
    if sizes.min() < 1 or sizes.max() * _FEWEST_BLOCKS > len(flat):
        raise ValueError(
            f"block_sizes must be >= 1 and <= {len(flat) // _FEWEST_BLOCKS}, a hundredth of the "
            f"samples, got {block_sizes}"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    flat = flat[rng.permutation(len(flat))]
    if not signed:
        flat = np.abs(flat) * rng.choice([-1.0, 1.0], flat.shape)
    means = []
    for size in sizes.tolist():
        num_blocks = len(flat) // size
        sums = flat[: num_blocks * size].reshape(num_blocks, size, -1).sum(axis=1)
        sums = np.abs(sums[sums != 0])
        if len(sums) < num_blocks / 2:
            raise ValueError("samples must not be zero for the most part")
        means.append(np.log(sums).mean())
    slope = np.polyfit(np.log(sizes), means, 1)[0]
    return float(min(2.0, 1 / slope)) if slope > 0 else 2.0
