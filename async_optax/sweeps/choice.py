"""Which strategy runs a sweep: chosen by measuring."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence

import jax

from async_optax.sweeps.batches import Group, prepare
from async_optax.sweeps.measuring import seconds_in_a_batch, seconds_in_threads
from async_optax.sweeps.parts import CheckFailed
from async_optax.sweeps.setting import Setting

STRATEGIES = ("threads", "loop", "vmap", "devices")
_MIN_WORTHWHILE = 2.0  # seconds; measuring compiles a program per strategy


@dataclasses.dataclass(frozen=True)
class StrategyChoice:
    """How a sweep was run, and why.

    Attributes:
      strategy: one of ``STRATEGIES``.
      reason: one sentence.
      inside: for ``"devices"``, what each device does with its cells.
      seconds_per_run: by strategy, what a cell of the group that was measured would take; with
        threads, this is the time of all over the number of cells.
    """

    strategy: str
    reason: str
    inside: str = "loop"
    seconds_per_run: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def as_json(self) -> str:
        """The choice as text."""
        return json.dumps(dataclasses.asdict(self))


def choose_strategy(
    strategy: str,
    groups: Sequence[Group],
    setting: Setting,
    lanes: int,
    num_threads: int,
    total_arrivals: int,
) -> StrategyChoice:
    """Returns the strategy for a sweep.

    On the largest group, a number of arrivals that takes a moment is timed in each way, compiled
    before. Measuring is not worth while if the sweep is short.

    Args:
      strategy: a name to force, or ``"auto"``; with several processes that is ``"devices"``.
      groups: cells that can run together.
      setting: of the sweep.
      lanes: width of a wave.
      num_threads: of ``"threads"``.
      total_arrivals: of all cells.

    Returns:
      The choice and its reason.

    Raises:
      ValueError: if a strategy is forced that the keys do not allow.
    """
    if strategy == "auto" and jax.process_count() > 1:
        strategy = "devices"  # the only one that shares the cells out over processes
    impl = jax.random.key_impl(jax.random.key(0))
    can_vmap = impl == "threefry2x32"
    if strategy == "vmap" and not can_vmap:
        raise ValueError(f"strategy must not be 'vmap': keys of {impl} draw other numbers there")
    if strategy in ("threads", "loop", "vmap"):
        return StrategyChoice(strategy, "given", inside="loop" if strategy != "vmap" else "vmap")
    if not groups:
        name = "threads" if strategy == "auto" else strategy
        return StrategyChoice(name, "no two cells share a structure and a timeline")
    group = max(groups, key=len)
    measured: dict[str, float] = {}
    try:
        single = prepare(group[:1], setting, lanes, "loop", spread=False)
    except CheckFailed:
        name = "threads" if strategy == "auto" else strategy
        return StrategyChoice(name, "the cells that would be measured fail")
    if strategy == "auto":
        measured["threads"] = seconds_in_threads(single.runs[0], lanes, num_threads)
        if measured["threads"] * total_arrivals < _MIN_WORTHWHILE:
            return StrategyChoice("threads", "the whole sweep is shorter than measuring would take")

    def measure(name: str, inside: str, spread: bool) -> None:
        with contextlib.suppress(*CheckFailed):  # the group cannot run so: nothing to choose
            batch = prepare(group, setting, lanes, inside, spread)
            measured[name] = seconds_in_a_batch(batch, lanes) / len(group)

    measure("loop", "loop", spread=False)
    if can_vmap:
        measure("vmap", "vmap", spread=False)
    inside = min(("loop", "vmap"), key=lambda name: measured.get(name, float("inf")))
    if jax.device_count() > 1 or strategy == "devices":
        measure("devices", inside, spread=True)
    per_run = {name: value * group[0].course.num_arrivals for name, value in measured.items()}
    if strategy == "devices":
        return StrategyChoice("devices", "given", inside, per_run)
    best = min(measured, key=lambda name: measured[name])
    return StrategyChoice(best, "least measured time per run", inside, per_run)
