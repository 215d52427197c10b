"""Delayed modes with any distribution of staleness, through their characteristic equation."""

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from async_optax.theory.arguments import checked_kernel
from async_optax.validation import require_number

_POINTS = 16  # angles on half a circle for each version of staleness
_GRID = 24  # steps that are tried before the best is refined
_STARTS, _NEWTON = 4, 50
_HALVINGS = 60


def kernel_stability_limit(kernel: ArrayLike, momentum: float = 0.0) -> float:
    """The step at which a mode stops converging on average, for any distribution of staleness.

    With kernel p the mean of ``x_{k+1} = x_k + m (x_k - x_{k-1}) - a x_{k-tau_k}``, staleness
    drawn from p independently at each commit, has the modes ``z^k`` with
    ``(z - 1) (1 - m/z) + a sum_j p_j z^-j = 0``. The limit is the least a > 0 with a root on the
    unit circle: ``a = (1 - z) (1 - m/z) / P(1/z)`` must be real and positive, which is looked for
    on a grid of angles (fast Fourier transform, 32 for each turn of the stalest) and refined.

    Args:
      kernel: p >= 0, ``[max_staleness + 1]``, such as
        :func:`async_optax.theory.staleness_kernel` gives; it need not add up to 1.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The limit of ``a``: learning rate times curvature.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(kernel_stability_limit([0.0, 1.0]), 6)
      1.0
      >>> round(kernel_stability_limit([0.25, 0.5, 0.25]), 4)
      1.3333

    References:
      Our derivation. Certainty: for one value of staleness it is
      :func:`async_optax.theory.stability_limit`. That the mean converges does
      not say that a run does: where staleness varies by much more than its mean, as with memoryless
      workers, runs diverge far below this limit. See
      :func:`async_optax.theory.replayed_limit`.
    """
    return _Modes(kernel, momentum).limit()


def kernel_best_step(kernel: ArrayLike, momentum: float = 0.0) -> float:
    """The step at which a mode shrinks fastest on average, for any distribution of staleness.

    Minimises :func:`kernel_spectral_radius`. While a is small the dominant root is real; it falls
    until a reaches ``max (1 - z) (1 - m/z) / P(1/z)`` over z in (m, 1), where it meets another. The
    best step is there, unless a pair of roots is larger, or the two that meet go on to fall.

    Args:
      kernel: p >= 0, ``[max_staleness + 1]``.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The best ``a``: learning rate times curvature.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(kernel_best_step([0.0, 0.0, 0.0, 1.0]), 5)
      0.10547
      >>> round(kernel_best_step([0.25, 0.5, 0.25]), 4)
      0.2268

    References:
      Our derivation. Certainty: checked against the roots.
    """
    return _Modes(kernel, momentum).best_step()


def kernel_spectral_radius(step: float, kernel: ArrayLike, momentum: float = 0.0) -> float:
    """The factor by which a mode shrinks on average in a commit, for any distribution of staleness.

    Args:
      step: a >= 0.
      kernel: p >= 0, ``[max_staleness + 1]``.
      momentum: m in [0, 1), of a heavy ball.

    Returns:
      The largest modulus of a root of the characteristic equation.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if one is out of range.

    Example:
      >>> round(kernel_spectral_radius(0.25, [0.0, 1.0]), 4)
      0.5

    References:
      Our derivation. Certainty: checked against the roots.
    """
    require_number("step", step, at_least=0)
    return _Modes(kernel, momentum).radius(step)


class _Modes:
    """The roots of ``h(z) = (z - 1) (1 - m/z) + a P(1/z)``, by the circles they lie on."""

    def __init__(self, kernel: ArrayLike, momentum: float):
        self.kernel = checked_kernel(kernel)
        require_number("momentum", momentum, at_least=0, below=1)
        self.momentum = momentum
        self._ages = np.arange(len(self.kernel))
        with np.errstate(divide="ignore"):
            self._logs = np.log(self.kernel)
        half = scipy.fft.next_fast_len(max(128, _POINTS * len(self.kernel)), real=True)
        self._angles = np.linspace(0, np.pi, half + 1)
        self._turning = self._find_turning()

    def limit(self) -> float:
        """The least step with a root on the unit circle."""
        angles = self._angles
        transform = self._transform(self.kernel)
        turned = -self._free(1.0, angles) * transform.conj()  # the step needed, times abs(P)^2
        positive = turned.imag > 0
        positive[0] = False  # as it is at small angles
        positive[-1] = positive[-2]  # at pi all are real, which is looked at by itself
        found = np.flatnonzero((positive[1:] != positive[:-1]) & (turned.real[1:] > 0))
        square = np.abs(transform) ** 2
        rough = np.divide(np.abs(turned), square, np.full_like(square, np.inf), where=square > 0)
        last = rough[-1] if turned.real[-1] > 0 else np.inf
        # Only what may be the least is refined; between two angles the step changes little.
        rough = rough[found + 1]
        found = found[rough < 2 * min([*rough, last])]
        return float(min([*(self._refined(*angles[i : i + 2]) for i in found), last]))

    def radius(self, step: float) -> float:
        """The largest modulus of a root, by bisection over circles that hold all roots or not."""
        if step == 0:
            return 1.0
        # The mean modulus, from the product of all roots, and a bound on the largest.
        size = len(self.kernel) + (len(self.kernel) == 1 and self.momentum > 0)
        product = step * self.kernel[-1] if len(self.kernel) > 2 else 0.0
        low = product ** (1 / size)
        high = 1 + step * self.kernel.sum() / (1 - self.momentum)
        spacing = np.pi / len(self._angles)
        while high - low > spacing * high / 64:
            middle = (low + high) / 2
            low, high = (low, middle) if self._holds_all(step, middle) else (middle, high)
        near = self._polished(step, high, spacing)
        if step <= self._turning[1]:  # two real roots may be too close for Newton's method
            near.append(self._real_root(step))
        return max(near, default=high)

    def best_step(self) -> float:
        limit = self.limit()
        turning = min(self._turning[1], limit)
        grid = np.append(np.geomspace(turning / 8, limit, _GRID), turning)
        grid.sort()
        radii = [self.radius(step) for step in grid]
        best = int(np.argmin(radii))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        found = scipy.optimize.minimize_scalar(
            self.radius, bounds=(low, high), method="bounded", options={"xatol": 1e-6 * high}
        )
        # The turning point is a kink, which a search only comes close to.
        if min(found.fun, radii[best]) > self.radius(turning) - 1e-7:
            return turning
        return float(found.x) if found.fun < radii[best] else float(grid[best])

    def _find_turning(self) -> tuple[float, float]:
        """Where two roots in (m, 1) meet, and the step: the largest with a root there."""
        low, high = self.momentum, 1.0
        for _ in range(_HALVINGS):
            z = (low + high) / 2
            weights, _ = self._weights(z)
            age = weights @ self._ages / weights.sum() + self.momentum / (z - self.momentum)
            low, high = (z, high) if age > z / (1 - z) else (low, z)
        return z, self._real_step(z)

    def _real_step(self, z: float) -> float:
        """The step with a root at z, in (m, 1)."""
        weights, scale = self._weights(z)
        return float((1 - z) * (1 - self.momentum / z) / weights.sum() * np.exp(-scale))

    def _real_root(self, step: float) -> float:
        """The largest root in (m, 1): from where two meet, the step falls to 0 at 1."""
        low, high = self._turning[0], 1.0
        for _ in range(_HALVINGS):
            z = (low + high) / 2
            low, high = (z, high) if self._real_step(z) > step else (low, z)
        return low

    def _holds_all(self, step: float, radius: float) -> bool:
        """Whether all roots are within the radius: h then goes round 0 once, as z does."""
        phases = np.angle(self._on_circle(step, radius))
        turned = np.diff(phases)
        turned -= 2 * np.pi * np.round(turned / (2 * np.pi))
        return round(turned.sum() / np.pi) == 1

    def _on_circle(self, step: float, radius: float) -> np.ndarray:
        """The values of h on the upper half of a circle, up to a positive factor."""
        weights, scale = self._weights(radius)
        free = self._free(radius, self._angles)
        if scale > 0:
            return np.exp(-scale) * free + step * self._transform(weights)
        return free + step * np.exp(scale) * self._transform(weights)

    def _polished(self, step: float, radius: float, spacing: float) -> list[float]:
        """The moduli of roots close to the circle, by Newton's method from where h is small."""
        sizes = np.abs(self._on_circle(step, radius))
        inner = np.flatnonzero((sizes[1:-1] <= sizes[:-2]) & (sizes[1:-1] <= sizes[2:])) + 1
        lows = np.concatenate([[0, len(sizes) - 1], inner])
        lows = lows[np.argsort(sizes[lows])[:_STARTS]]
        # Off the real axis, on which a search would stay while the roots are a pair.
        roots = radius * np.exp(1j * (self._angles[lows] + 0.3 * spacing))
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON):
                change = self._newton_step(step, roots)
                roots = roots - change
                if not (np.abs(change) > 1e-14).any():
                    break
            settled = np.abs(change) < 1e-6 * radius
        moduli = np.abs(roots)
        return moduli[settled & (np.abs(moduli / radius - 1) < 2 * spacing)].tolist()

    def _newton_step(self, step: float, z: np.ndarray) -> np.ndarray:
        powers = step * self.kernel * np.exp(-self._ages * np.log(z)[:, None])
        value = (z - 1) * (1 - self.momentum / z) + powers.sum(axis=1)
        slope = 1 - self.momentum / z**2 - (powers @ self._ages) / z
        return value / slope

    def _weights(self, radius: float) -> tuple[np.ndarray, float]:
        """``p_j r^-j``, divided by the exponential of the number that comes with them."""
        logs = self._logs - self._ages * np.log(radius)
        scale = logs.max()
        return np.exp(logs - scale), float(scale)

    def _transform(self, weights: np.ndarray) -> np.ndarray:
        return scipy.fft.rfft(weights, 2 * (len(self._angles) - 1))

    def _free(self, radius: float, angle: Any) -> np.ndarray:
        z = radius * np.exp(1j * np.asarray(angle))
        return (z - 1) * (1 - self.momentum / z)

    def _refined(self, low: float, high: float) -> float:
        """The step with a root between two angles, at which it is real."""

        def step_and_turned(angle: float) -> tuple[float, float]:
            transform = self.kernel @ np.exp(-1j * angle * self._ages)
            turned = complex(-self._free(1.0, angle) * transform.conjugate())
            return float(abs(turned) / abs(transform) ** 2), turned.imag

        low = low or high * 1e-6
        ends = step_and_turned(low), step_and_turned(high)
        if (ends[0][1] > 0) == (ends[1][1] > 0):  # a root on the grid, to rounding
            return min(ends, key=lambda end: abs(end[1]))[0]
        angle = scipy.optimize.brentq(lambda w: step_and_turned(w)[1], low, high, xtol=1e-13)
        return step_and_turned(angle)[0]
