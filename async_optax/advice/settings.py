"""What each protocol would make of the problem on these workers."""

import dataclasses
import math

import numpy as np

from async_optax.advice.clips import Clip
from async_optax.advice.measuring import Measured
from async_optax.advice.rates import Drive, RateAdvice, advise_rate
from async_optax.cluster import ProtocolStatistics
from async_optax.theory.replay import replayed_limit
from async_optax.timelines import Timeline, simulate_timeline
from async_optax.timelines.protocols import Protocol
from async_optax.timelines.runtimes import RuntimeModel
from async_optax.transforms import weights

_COMMITS, _COMMITS_PER_WORKER, _MOST_COMMITS = 500, 100, 20_000
_WORTH = 0.95  # of the expected loss without: weights must promise less than that


@dataclasses.dataclass(frozen=True, eq=False)
class ProtocolAdvice:
    """What to expect of a protocol, and its learning rate.

    Attributes:
      protocol: its name.
      problem: why there is no advice, or ``""``.
      staleness_mean: of accepted arrivals.
      staleness_max: the largest.
      num_gradients: accepted arrivals in the time.
      drive: what it makes of gradients, with the weights advised; ``None`` without advice.
      weight: name of the staleness weight.
      rate: the learning rate; ``None`` without advice.
      speedup: how many times sooner the expected loss is that of synchronous training at the end,
        each at its advised rate; NaN if it never is.
      method: name of the method in :mod:`async_optax.optimizers`.
      arguments: of the method beside the learning rate, as text, numbers and booleans.
    """

    protocol: str
    problem: str = ""
    staleness_mean: float = math.nan
    staleness_max: float = math.nan
    num_gradients: int = 0
    drive: Drive | None = None
    weight: str = "constant"
    rate: RateAdvice | None = None
    speedup: float = math.nan
    method: str = ""
    arguments: dict[str, str | float | bool] = dataclasses.field(default_factory=dict)


def advise_protocol(
    measured: Measured,
    statistics: ProtocolStatistics,
    protocol: Protocol,
    runtimes: RuntimeModel,
    num_workers: int,
    seed: int,
) -> ProtocolAdvice:
    """Returns the advice for one protocol, with the staleness weight that promises most.

    The limit of ``learning rate * curvature`` is found by replaying a quadratic mode on a timeline
    of its own, long enough to tell. Weights are tried where single arrivals commit, and advised if
    the expected loss is at least 5 % lower than without.

    Args:
      measured: of the problem.
      statistics: of the protocol on these workers.
      protocol: the same.
      runtimes: of the workers.
      num_workers: number of workers.
      seed: of the timeline.
    """
    timeline = statistics.timeline
    if statistics.problem or timeline is None or not timeline.num_commits:
        return ProtocolAdvice(protocol.name, statistics.problem or "nothing is committed in time")
    length = min(_COMMITS + _COMMITS_PER_WORKER * num_workers, _MOST_COMMITS)
    try:
        long = simulate_timeline(protocol, runtimes, num_workers, num_commits=length, seed=seed)
        drives = {"constant": _drive(long, timeline)}
        if timeline.staleness.max() > 0 and timeline.num_commits == np.sum(timeline.accepted):
            for name in ("concurrency", "inverse"):
                drives[name] = _drive(
                    _weighted(long, name, num_workers), _weighted(timeline, name, num_workers)
                )
    except ValueError as error:
        return ProtocolAdvice(protocol.name, str(error))
    rates = {name: advise_rate(measured, drive) for name, drive in drives.items()}
    plain = rates["constant"].loss
    weight = min(rates, key=lambda name: rates[name].loss)
    if rates[weight].loss > _WORTH * plain:
        weight = "constant"
    method, arguments = _method(measured.clip, weight, num_workers)
    return ProtocolAdvice(
        protocol.name,
        staleness_mean=statistics.staleness_mean,
        staleness_max=statistics.staleness_max,
        num_gradients=int(np.count_nonzero(timeline.accepted)),
        drive=drives[weight],
        weight=weight,
        rate=rates[weight],
        method=method,
        arguments=arguments,
    )


def _drive(long: Timeline, timeline: Timeline) -> Drive:
    """The limit of a long timeline, and the steps of the one that fills the time."""
    used = timeline.accepted & (timeline.version < timeline.num_commits)
    given = timeline.weight[used]
    return Drive(
        limit=replayed_limit(long),
        num_commits=timeline.num_commits,
        weight=float(given.sum() / timeline.num_commits),
        squares=float(np.square(given).sum() / timeline.num_commits),
    )


def _weighted(timeline: Timeline, name: str, num_workers: int) -> Timeline:
    weight_fn = weights.inverse() if name == "inverse" else weights.concurrency(num_workers)
    factors = np.asarray(weight_fn(timeline.staleness), np.float64)
    return dataclasses.replace(timeline, weight=timeline.weight * factors)


def _method(clip: Clip, weight: str, num_workers: int) -> tuple[str, dict[str, str | float | bool]]:
    """The registered method with this clip and this weight."""
    if weight == "constant":
        return clip.method, clip.arguments
    if clip.kind == "none":
        if weight == "inverse":
            return "staleness_aware_sgd", {}
        return "delay_adaptive_sgd", {"num_workers": num_workers}
    arguments = {"clipping": clip.kind, "threshold": clip.threshold, "compensation": 0.0}
    return "async_heavy_tailed", arguments | {"weight_fn": weight}
