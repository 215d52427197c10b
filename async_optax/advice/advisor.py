"""Advice before a run: method, protocol, clip and learning rate, each with its reason."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from async_optax.advice.measuring import Measured, measure_problem
from async_optax.advice.progress_curve import ProgressCurve
from async_optax.advice.rates import expected_losses, largest_rate, time_to_match
from async_optax.advice.settings import ProtocolAdvice, advise_protocol
from async_optax.cluster import compare_protocols, default_max_time
from async_optax.theory.stochastic_problem import StochasticProblem, require_problem
from async_optax.theory.tails import GradientNoise, HillPlot
from async_optax.theory.tails.verdict import CANNOT_TELL, INFINITE
from async_optax.timelines import protocols as known_protocols
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.validation import require_count, require_number, require_seed

_FEWEST_STEPS, _FEWEST_SAMPLES = 200, 200
_BASELINE = known_protocols.synchronous()
_SAMPLES = (GradientNoise, HillPlot, ProgressCurve)  # too long to be read


@dataclasses.dataclass(frozen=True)
class Reason:
    """A piece of advice.

    Attributes:
      topic: what it is about.
      advice: in a few words.
      reason: one sentence.
    """

    topic: str
    advice: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Advice:
    """What :func:`advise` returns.

    Attributes:
      runtimes: name of the runtime model.
      num_workers: number of workers.
      max_time: simulated time that the run is to take.
      seed: of everything.
      measured: what was measured of the problem.
      protocols: advice for each, in their order; the baseline ``synchronous`` comes first.
      best: the protocol of the least expected loss.
      own_rate: the user's learning rate, or ``None``.
      reasons: the advice in words.
    """

    runtimes: str
    num_workers: int
    max_time: float
    seed: int
    measured: Measured
    protocols: tuple[ProtocolAdvice, ...]
    best: ProtocolAdvice
    own_rate: float | None
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns everything but samples as plain data for JSON, ``None`` for what is not known."""
        data = _plain(
            {
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
                if field.name != "best"
            }
        )
        return data | {"best": self.best.protocol}


def advise(
    problem: StochasticProblem,
    runtimes: RuntimeModel,
    num_workers: int,
    *,
    protocols: Sequence[Protocol] | None = None,
    max_time: float | None = None,
    learning_rate: float | None = None,
    warm_up_steps: int = 1000,
    num_samples: int = 1000,
    measured: Measured | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Advice:
    """Says which method, protocol, clip and learning rate to take, and why.

    A warm-up without staleness measures curvature, noise and progress
    (:func:`async_optax.advice.measure_problem`). Each protocol is simulated on the workers: a
    quadratic mode replayed on it gives the largest stable learning rate, and the progress curve
    with the noise of steps the best one below it (:func:`async_optax.advice.advise_rate`). How near
    that comes to the best of a grid is measured in ``experiments/advice``: mostly within a factor
    of 2. Seeds differ by factors of 2 to 3, and near the limit a rate that is twice too large
    fails, while one that is twice too small takes twice as long: ask with a few, take the least.

    Args:
      problem: any with ``init``, ``loss`` and ``batch``, and perhaps ``noise``.
      runtimes: of the workers.
      num_workers: number of workers, >= 1.
      protocols: at least one; ``None``: synchronous, backup workers, buffered, ringmaster,
        rennala and asynchronous, as far as the number of workers allows.
      max_time: simulated time that the run is to take, > 0, in the unit of ``runtimes``; ``None``:
        about 200 jobs of the median worker.
      learning_rate: one of your own that is to be judged, > 0.
      warm_up_steps: gradients of the warm-up, >= 200.
      num_samples: gradients that the noise is judged by, twice, >= 200; fewer than 1000 norms tell
        nothing of their tail.
      measured: what :func:`async_optax.advice.measure_problem` has measured of this problem before,
        for another cluster perhaps; ``None`` measures it now.
      seed: of everything, an integer >= 0.
      progress: called with the parts done, and all of them.

    Returns:
      An :class:`Advice`.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if a number is out of range, no protocol runs, or the problem cannot be measured.

    References:
      The rules are ours, from the theory in :mod:`async_optax.theory`.
    """
    require_problem(problem)
    require_count("num_workers", num_workers)
    require_count("warm_up_steps", warm_up_steps, at_least=_FEWEST_STEPS)
    require_count("num_samples", num_samples, at_least=_FEWEST_SAMPLES)
    require_seed(seed)
    if learning_rate is not None:
        require_number("learning_rate", learning_rate, above=0)
    if max_time is None:
        max_time = default_max_time(runtimes, num_workers, seed)
    chosen = _default_protocols(num_workers) if protocols is None else list(protocols)
    if not chosen:
        raise ValueError("protocols must name at least one, got none")
    chosen = [_BASELINE, *(p for p in chosen if p.name != _BASELINE.name)]
    statistics = compare_protocols(chosen, runtimes, num_workers, max_time=max_time, seed=seed)
    if all(row.problem for row in statistics):
        raise ValueError(f"none of the protocols runs; {chosen[-1].name}: {statistics[-1].problem}")

    def report(done: int, total: int) -> None:
        if progress:
            progress(done, total + len(chosen))

    parts = [0]

    def remember(done: int, total: int) -> None:
        parts[0] = total
        report(done, total)

    if measured is None:
        measured = measure_problem(
            problem,
            key=jax.random.key(seed),
            num_workers=num_workers,
            warm_up_steps=warm_up_steps,
            num_samples=num_samples,
            progress=remember,
        )
    elif not isinstance(measured, Measured):
        raise TypeError(f"measured must come from measure_problem, got {measured!r}")
    rows = []
    for place, (protocol, row) in enumerate(zip(chosen, statistics, strict=True)):
        rows.append(advise_protocol(measured, row, protocol, runtimes, num_workers, seed))
        report(parts[0] + place + 1, parts[0])
    rows = _with_speedups(measured, rows)
    able = [row for row in rows if row.rate is not None]
    if not able:
        raise ValueError(f"no protocol has a stable learning rate; {rows[-1].problem}")
    best = min(able, key=lambda row: row.rate.loss if row.rate else math.inf)
    advice = Advice(
        runtimes=runtimes.name,
        num_workers=num_workers,
        max_time=float(max_time),
        seed=seed,
        measured=measured,
        protocols=tuple(rows),
        best=best,
        own_rate=learning_rate,
        reasons=(),
    )
    return dataclasses.replace(advice, reasons=tuple(_reasons(advice)))


def _default_protocols(num_workers: int) -> list[Protocol]:
    kinds = known_protocols
    if num_workers == 1:
        return [kinds.synchronous(), kinds.asynchronous()]
    buffered = [kinds.buffered(num_workers // 2)] if num_workers > 3 else []
    return [
        kinds.synchronous(),
        kinds.synchronous(backup=max(1, num_workers // 16)),
        *buffered,
        kinds.rennala(num_workers),
        kinds.ringmaster(num_workers),
        kinds.asynchronous(),
    ]


def _with_speedups(measured: Measured, rows: list[ProtocolAdvice]) -> list[ProtocolAdvice]:
    baseline = rows[0].rate
    if baseline is None:
        return rows
    found = []
    for row in rows:
        if row.rate is not None and row.drive is not None:
            part = time_to_match(measured, row.drive, row.rate, baseline.loss)
            row = dataclasses.replace(row, speedup=1 / part if part else math.nan)
        found.append(row)
    return found


def _reasons(advice: Advice) -> list[Reason]:
    measured, best = advice.measured, advice.best
    rate, drive, clip = best.rate, best.drive, measured.clip
    if rate is None or drive is None:
        raise ValueError("the best protocol has no learning rate")
    shown = ", ".join(f"{name}={value}" for name, value in best.arguments.items())
    lines = [
        Reason(
            "protocol",
            best.protocol,
            f"its expected loss after time {advice.max_time:g} is the least, {rate.loss:.3g}",
        )
    ]
    if best.protocol != advice.protocols[0].protocol:
        gain = "never" if math.isnan(best.speedup) else f"{best.speedup:.2g} times sooner"
        lines.append(
            Reason("speed-up", gain, "it is where synchronous training ends, each at its rate")
        )
    lines += [
        Reason("method", f"{best.method}({shown})" if shown else best.method, clip.reason),
        Reason("clip range", _clip_range(advice), _tail_reason(measured)),
        Reason(
            "weights",
            best.weight,
            "stale gradients count in full: weighing them down promises less than 5 %"
            if best.weight == "constant"
            else "stale gradients limit the learning rate more than they help",
        ),
        Reason("learning rate", f"{rate.learning_rate:.2g}", _rate_reason(advice)),
    ]
    if advice.own_rate is not None:
        lines.append(_own(advice, advice.own_rate))
    return lines


def _clip_range(advice: Advice) -> str:
    clip = advice.measured.clip
    if clip.tried is None:
        return "none"
    what = {"none": "of norms, if any", "global_norm": "of norms", "coordinate": "of coordinates"}
    return f"{clip.tried} {what[clip.kind]}"


def _tail_reason(measured: Measured) -> str:
    reports = {"norms": measured.norms, "coordinates": measured.coordinates}
    for verdict in (INFINITE, CANNOT_TELL):
        for name, report in reports.items():
            if report.verdict == verdict:
                return f"{verdict}, by {name} of the noise: {report.reason}"
    return f"finite variance, by norms of the noise: {measured.norms.reason}"


def _rate_reason(advice: Advice) -> str:
    measured, rate, drive = advice.measured, advice.best.rate, advice.best.drive
    if rate is None or drive is None:
        return ""
    limit = (
        f"stable below {rate.largest:.2g} = {drive.limit:.3g} / curvature {measured.curvature:.3g}"
    )
    if measured.clip.response < 0.995:
        limit += f" / share {measured.clip.response:.2g} that passes the clip"
    if rate.limited_by == "stability":
        return f"{limit}, and the loss still falls: as large as stability allows"
    return f"{limit}, but noise would keep up more than is gained; likely {rate.likely}"


def _own(advice: Advice, own: float) -> Reason:
    best, measured = advice.best, advice.measured
    if best.drive is None or best.rate is None:
        return Reason("your rate", f"{own:g}", "there is nothing to compare it with")
    largest = largest_rate(measured, best.drive)
    if own >= largest:
        verdict = f"{own / largest:.2g} times the largest stable rate of {best.protocol}"
        return Reason("your rate", f"{own:g}: too large", verdict)
    losses, _ = expected_losses(measured, best.drive, np.array(own))
    loss = float(measured.curve.weights @ losses)
    return Reason(
        "your rate",
        f"{own:g}: stable",
        f"expected loss {loss:.3g} with {best.protocol}, against {best.rate.loss:.3g} at "
        f"{best.rate.learning_rate:.2g}",
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {k: _plain(item) for k, item in items.items() if not isinstance(item, _SAMPLES)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
