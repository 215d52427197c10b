"""Which clip the tails of the noise call for, and how gradients respond to it."""

import dataclasses
from typing import Any, Literal

import numpy as np

from async_optax import optimizers
from async_optax.theory.tails import GradientNoise, Interval, TailReport
from async_optax.theory.tails.verdict import FINITE, INFINITE


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip of gradients, and what is left of a gradient behind it.

    Attributes:
      kind: ``"none"``, ``"global_norm"`` or ``"coordinate"``.
      threshold: of the clip, in gradient units; infinite without one.
      tried: thresholds worth trying.
      response: p in (0, 1], by how much the mean of the clipped gradient follows the mean of the
        gradient: the share that passes unclipped.
      reason: one sentence.
    """

    kind: Literal["none", "global_norm", "coordinate"]
    threshold: float
    tried: Interval | None
    response: float
    reason: str

    @property
    def method(self) -> str:
        """Name of the method."""
        return {"none": "sgd", "global_norm": "clipped_sgd", "coordinate": "async_heavy_tailed"}[
            self.kind
        ]

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the method, beside the learning rate."""
        if self.kind == "global_norm":
            return {"max_norm": self.threshold}
        if self.kind == "coordinate":
            # Compensation would be measured in curvatures, and be of the rate's own making.
            return {"clipping": "coordinate", "threshold": self.threshold, "compensation": 0.0}
        return {}

    def optimizer(self, learning_rate: float) -> Any:
        """Returns the method at a learning rate."""
        return optimizers.make(self.method, learning_rate=learning_rate, **self.arguments)


def choose_clip(norms: TailReport, coordinates: TailReport, noise: GradientNoise) -> Clip:
    """Returns the clip that the tails call for.

    Args:
      norms: of the noise's norms.
      coordinates: of its coordinates.
      noise: from which both are.
    """
    verdicts = (norms.verdict, coordinates.verdict)
    sizes = np.abs(noise.gradient_coordinates[noise.gradient_coordinates != 0])
    if INFINITE in verdicts and len(sizes):
        median, high = np.quantile(sizes, [0.5, 0.95]).tolist()
        reason = (
            "the noise has no variance, so coordinates are clipped at their median size: no "
            "outlier moves one by more, and half of them pass"
        )
        clip = Clip("coordinate", float(f"{median:.2g}"), Interval(median, high), 1.0, reason)
        return with_response(clip, noise)
    median, high, top = np.quantile(noise.gradient_norms, [0.5, 0.95, 0.99]).tolist()
    if norms.verdict == FINITE:
        reason = "the variance is finite, so averages need no clip"
        return Clip("none", np.inf, Interval(high, max(top, high)), 1.0, reason)
    reason = (
        "the tail could not be told, so norms are clipped at their 95 % quantile: that costs next "
        "to nothing if the variance is finite, and bounds every step if it is not"
    )
    threshold = float(f"{high:.2g}")
    if not threshold:
        return Clip("none", np.inf, None, 1.0, "most gradients are zero")
    clip = Clip("global_norm", threshold, Interval(median, high), 1.0, reason)
    return with_response(clip, noise)


def with_response(clip: Clip, noise: GradientNoise) -> Clip:
    """Returns the clip with the share of gradients, or coordinates, that pass it there."""
    if clip.kind == "none":
        return clip
    if clip.kind == "global_norm":
        share = np.mean(np.minimum(1.0, clip.threshold / np.maximum(noise.gradient_norms, 1e-300)))
    else:
        sizes = np.abs(noise.gradient_coordinates)
        share = np.mean(sizes[sizes > 0] <= clip.threshold) if (sizes > 0).any() else 1.0
    return dataclasses.replace(clip, response=float(max(share, 1e-3)))


def clipped_variance(clip: Clip, noise: GradientNoise) -> float:
    """Returns the mean squared norm of the noise behind the clip."""
    if clip.kind == "none":
        return noise.variance
    if clip.kind == "global_norm":
        sizes = np.minimum(noise.gradient_norms, clip.threshold)
        mean = min(noise.mean_norm, clip.threshold)
        return float(max(np.mean(sizes**2) - mean**2, 0.0))
    passed = np.clip(noise.gradient_coordinates, -clip.threshold, clip.threshold)
    return float(passed.var(axis=0, ddof=1).mean() * noise.num_parameters)
