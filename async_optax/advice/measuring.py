"""What the advice rests on: curvature, noise and progress, measured on a short warm-up."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from async_optax.advice.clips import (
    Clip,
    choose_clip,
    clipped_variance,
    with_response,
)
from async_optax.advice.noise_spectrum import noise_spectrum
from async_optax.advice.progress_curve import ProgressCurve, fit_progress_curve
from async_optax.theory.curvature import Curvature, hessian_eigenvalues
from async_optax.theory.fresh_training import train
from async_optax.theory.stochastic_problem import StochasticProblem
from async_optax.theory.tails import GradientNoise, TailReport, gradient_noise, judge_tail

_FIRST = 0.25  # rate of the first rung, in units of 1 / curvature: an eighth of the limit
_RUNGS, _RETRIES = 8, 4
_LADDER = 0.64  # of the steps
_NUM_MODES = 4
# One basis for one and for several eigenvalues: one program.
_HESSIAN: dict[str, Any] = {"num_batches": 16, "basis_size": 15}
_COORDINATES = 256
_FLAT = 1e-12


@dataclasses.dataclass(frozen=True)
class Rung:
    """A stretch of the warm-up at one learning rate.

    Attributes:
      learning_rate: of the method.
      loss: mean over the second half of its batches.
      curvature: the largest eigenvalue of the Hessian at its end, NaN if it diverged.
      kept: whether training went on from its end.
    """

    learning_rate: float
    loss: float
    curvature: float
    kept: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a problem.

    Attributes:
      num_parameters: number of all.
      curvature_start: the largest eigenvalue of the Hessian at the start.
      curvature: the same at the end of the ladder, in the middle of what follows, and at the end,
        their geometric mean: what limits learning rates.
      eigenvalues: float64 ``[num]``, the largest at the end of the warm-up.
      residuals: float64 ``[num]``, their error bounds.
      rungs: of the warm-up's first half.
      steps: of the warm-up.
      learning_rate: of the warm-up's second half.
      norms_start: tail of the noise's norms at the start.
      norms: the same at the end of the warm-up.
      coordinates: tail of the noise's coordinates there.
      noise: what they were collected as.
      variance: mean squared norm of the noise behind the clip, at the end.
      noise_curvatures: float64 ``[num_nodes]``, curvatures that this noise falls on.
      noise_shares: float64 ``[num_nodes]``, how much of its variance falls on each.
      clip: what the tails call for.
      curve: how the loss falls.
      loss_start: mean loss at the start.
      loss_end: mean loss at the end of the warm-up.
      num_gradients: batches whose gradient, or twice that for a Hessian-vector product, was taken.
    """

    num_parameters: int
    curvature_start: float
    curvature: float
    eigenvalues: np.ndarray
    residuals: np.ndarray
    rungs: tuple[Rung, ...]
    steps: int
    learning_rate: float
    norms_start: TailReport
    norms: TailReport
    coordinates: TailReport
    noise: GradientNoise
    variance: float
    noise_curvatures: np.ndarray
    noise_shares: np.ndarray
    clip: Clip
    curve: ProgressCurve
    loss_start: float
    loss_end: float
    num_gradients: int


def measure_problem(
    problem: StochasticProblem,
    *,
    key: jax.Array,
    num_workers: int = 1,
    warm_up_steps: int = 1000,
    num_samples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Measures curvature, gradient noise and progress on a warm-up without staleness.

    Curvature at the start says little: it rises or falls by factors as soon as training begins, and
    at a large learning rate networks train into regions as flat as that rate demands (the edge of
    stability). So the warm-up begins with a ladder: up to eight stretches of 8 % each, of which the
    first is at an eighth of the stable rate of the start; the next one at twice the rate
    as long as the loss falls. The rest goes on at half the last rate, and shows how the loss falls
    and what noise is left. The curvature at the end of the ladder and later is what rates must live
    with. If the tails at the start call for a clip, all of it is trained with that clip.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``, and perhaps ``noise``.
      key: a typed key.
      num_workers: whose batches are used in turns.
      warm_up_steps: gradients of the warm-up, >= 100.
      num_samples: gradients from which the noise is judged, at the start and at the end, >= 200.
      progress: called with the parts done, and all of them.

    Returns:
      :class:`Measured`.

    Raises:
      ValueError: if the loss is flat or bends down in all directions at the start, or if no rate
        of the first rung trains.
    """
    report = _Reporter(progress, 5 + _RUNGS)
    rung_steps = int(_LADDER * warm_up_steps) // _RUNGS
    shared: dict[str, Any] = {"key": key, "num_workers": num_workers}
    params = jax.jit(problem.init)(jax.random.split(key)[0])
    at_start = hessian_eigenvalues(problem, params, **_HESSIAN, **shared)
    cost = _products(at_start)
    if at_start.largest <= _FLAT:
        raise ValueError(
            f"problem: the largest curvature at the start is {at_start.largest:.3g}; without one "
            "above 0 nothing limits the learning rate"
        )
    report.advance()
    noise = gradient_noise(
        problem, params, num_samples=num_samples, num_coordinates=_COORDINATES, **shared
    )
    cost, slope = cost + 2 * num_samples, noise.mean_norm
    norms_start = judge_tail(noise.norms, signed=False)
    clip = choose_clip(norms_start, judge_tail(noise.coordinates), noise)
    report.advance()
    climbed = _climb(problem, params, clip, at_start, noise.loss, rung_steps, shared, report)
    rate = climbed.learning_rate / 2
    rest = warm_up_steps - climbed.steps
    params, losses, sharpness = climbed.params, [climbed.losses], [climbed.curvature]
    for steps in (rest // 2, rest - rest // 2):
        if len(losses) > 1:
            found = hessian_eigenvalues(problem, params, **_HESSIAN, **shared)
            sharpness.append(found.largest)
            cost += _products(found)
        first = sum(len(part) for part in losses)
        params, _, seen = train(
            problem, clip.optimizer(rate), params, num_steps=steps, first_step=first, **shared
        )
        losses.append(seen)
    report.advance()
    at_end = hessian_eigenvalues(
        problem,
        params,
        **_HESSIAN,
        num_eigenvalues=min(_NUM_MODES, noise.num_parameters),
        **shared,
    )
    noise = gradient_noise(
        problem,
        params,
        num_samples=num_samples,
        num_coordinates=_COORDINATES,
        step=warm_up_steps,
        **shared,
    )
    report.advance()
    norms, coordinates = judge_tail(noise.norms, signed=False), judge_tail(noise.coordinates)
    response = clip.response
    if clip.kind != "coordinate":  # the tail may have grown heavy only now
        clip = choose_clip(norms, coordinates, noise)
    clip = with_response(clip, noise)
    noise_curvatures, noise_shares = noise_spectrum(problem, params, clip, **_HESSIAN, **shared)
    rates = np.concatenate([climbed.rates, np.full(rest, rate)]) * response
    report.advance()
    cost += climbed.num_gradients + rest + _products(at_end) + 2 * num_samples
    cost += 2 * len(noise_shares) * at_end.num_batches
    return Measured(
        num_parameters=noise.num_parameters,
        curvature_start=at_start.largest,
        curvature=_typical([*sharpness, at_end.largest]),
        eigenvalues=at_end.eigenvalues,
        residuals=at_end.residuals,
        rungs=climbed.rungs,
        steps=warm_up_steps,
        learning_rate=rate,
        norms_start=norms_start,
        norms=norms,
        coordinates=coordinates,
        noise=noise,
        variance=clipped_variance(clip, noise),
        noise_curvatures=noise_curvatures,
        noise_shares=noise_shares,
        clip=clip,
        curve=fit_progress_curve(np.concatenate(losses), rates, slope),
        loss_start=float(climbed.loss_start),
        loss_end=noise.loss,
        num_gradients=cost,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Climbed:
    """Where the ladder ended."""

    params: optax.Params
    learning_rate: float
    curvature: float
    rungs: tuple[Rung, ...]
    losses: np.ndarray
    rates: np.ndarray
    loss_start: float
    num_gradients: int

    @property
    def steps(self) -> int:
        return len(self.losses)


def _climb(
    problem: StochasticProblem,
    params: optax.Params,
    clip: Clip,
    at_start: Curvature,
    loss_start: float,
    rung_steps: int,
    shared: dict[str, Any],
    report: "_Reporter",
) -> _Climbed:
    rate = _FIRST / (at_start.largest * clip.response)
    rungs: list[Rung] = []
    losses: list[np.ndarray] = []
    rates: list[np.ndarray] = []
    best, error, flattest, top = loss_start, 0.0, at_start.largest, 0.0
    cost = step = retries = 0
    while len(losses) < _RUNGS:
        new, loss, found = None, np.inf, None
        try:
            new, _, seen = train(
                problem,
                clip.optimizer(rate),
                params,
                num_steps=rung_steps,
                first_step=step,
                **shared,
            )
            late = seen[rung_steps // 2 :]
            loss = float(late.mean())
        except ValueError:  # it diverged: this is what the ladder looks for
            pass
        cost += rung_steps
        # Batches scatter: a rung counts as a success unless it is worse beyond one error.
        fell = new is not None and loss < best + error
        if fell:
            found = hessian_eigenvalues(problem, new, **_HESSIAN, **shared)
            cost += _products(found)
        rungs.append(Rung(rate, loss, np.nan if found is None else found.largest, fell))
        report.advance()
        if not fell:
            if losses:
                break
            retries += 1
            if retries > _RETRIES:
                raise ValueError(
                    f"problem: at no learning rate from {rate:.3g} to {rungs[0].learning_rate:.3g} "
                    f"does the loss fall below its start, {loss_start:.4g}, in {rung_steps} steps"
                )
            rate /= 4
            continue
        params, best, top, step = new, min(best, loss), rate, step + rung_steps
        error = float(np.sqrt(2) * late.std() / np.sqrt(len(late)))
        losses.append(seen)
        rates.append(np.full(rung_steps, rate))
        if found is not None and found.largest > _FLAT:
            flattest = found.largest
        rate *= 2
    return _Climbed(
        params,
        top,
        flattest,
        tuple(rungs),
        np.concatenate(losses),
        np.concatenate(rates),
        loss_start,
        cost,
    )


def _typical(curvatures: list[float]) -> float:
    """Their geometric mean: at the edge of stability curvature comes and goes by factors."""
    return float(np.exp(np.mean(np.log([c for c in curvatures if c > _FLAT]))))


def _products(found: Curvature) -> int:
    return 2 * found.num_products * found.num_batches


class _Reporter:
    """Counts parts of unequal length; the ladder may end early."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int):
        self.progress, self.total, self.done = progress, total, 0
        self.advance(0)

    def advance(self, number: int = 1) -> None:
        self.done = min(self.done + number, self.total)
        if self.progress:
            self.progress(self.done, self.total)
