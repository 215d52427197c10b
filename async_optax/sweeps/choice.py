"""Which strategy runs a sweep: chosen by measuring."""

import contextlib
import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence

import jax
import jax.numpy as jnp

from async_optax.engine.recent import Recent
from async_optax.sweeps.batches import Group, prepare
from async_optax.sweeps.jobs import structure_of
from async_optax.sweeps.measuring import seconds_alone, seconds_in_a_batch, seconds_in_threads
from async_optax.sweeps.parts import CheckFailed
from async_optax.sweeps.setting import Setting
from async_optax.transforms import split_numbers

STRATEGIES = ("threads", "loop", "vmap", "devices")
_MIN_WORTHWHILE = 4.0  # seconds; measuring compiles a program per strategy
_MIN_WAVES = 64  # per run; measuring executes a few

_COSTS: Recent[dict[str, float]] = Recent()  # by kind of group; then by strategy
"""Seconds per arrival of a cell, measured once in a process."""


@dataclasses.dataclass(frozen=True)
class StrategyChoice:
    """How a sweep was run, and why.

    Attributes:
      strategy: one of ``STRATEGIES``.
      reason: one sentence.
      inside: for ``"devices"``, what each device does with its cells.
      seconds_per_run: by strategy, and for ``"devices"`` by what is inside, the time of the group
        that was measured over the number of its cells.
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
    before; once in a process for groups of one size, structure and shapes. On one device that is
    threads and vmap, on several threads and both ways of using them all. Measuring is not worth
    while if the sweep is short.

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
    unmeasured = "threads" if strategy == "auto" else strategy
    if not groups:
        return StrategyChoice(unmeasured, "no two cells share a structure and a timeline")
    group = max(groups, key=len)
    num_arrivals = group[0].course.num_arrivals
    kind = strategy, _kind(group, setting, lanes, num_threads)
    measured = _COSTS.get(kind)
    if measured is None:
        costs = {}
        if strategy == "auto":
            try:
                (run,) = prepare(group[:1], setting, lanes, "loop", spread=False).runs
            except CheckFailed:
                return StrategyChoice("threads", "the cells that would be measured fail")
            enough = _MIN_WORTHWHILE * num_threads / total_arrivals
            few = num_arrivals < _MIN_WAVES * lanes
            if few or seconds_alone(run, lanes, enough) < enough:
                reason = "the whole sweep is shorter than measuring would take"
                return StrategyChoice("threads", reason)
            costs["threads"] = seconds_in_threads(run, lanes, num_threads)
        measured = costs | _in_batches(group, setting, lanes, strategy, can_vmap)
        _COSTS[kind] = measured
    if not measured:
        return StrategyChoice(strategy, "the cells that would be measured fail")
    per_run = {name: cost * num_arrivals for name, cost in measured.items()}
    best = min(per_run, key=lambda name: per_run[name])
    name, _, inside = best.partition(", ")
    reason = "given" if strategy == "devices" else "least measured time per run"
    return StrategyChoice(name, reason, inside or ("vmap" if name == "vmap" else "loop"), per_run)


def _in_batches(
    group: Group, setting: Setting, lanes: int, strategy: str, can_vmap: bool
) -> dict[str, float]:
    """Seconds per arrival of a cell, by strategy and what is inside.

    A loop on one device is not among them: threads do the same on every core.
    """
    spread = jax.device_count() > 1 or strategy == "devices"
    costs = {}
    for inside in ("loop", "vmap") if spread else ("vmap",):
        if inside == "loop" or can_vmap:
            with contextlib.suppress(*CheckFailed):  # the group cannot run so: nothing to choose
                batch = prepare(group, setting, lanes, inside, spread)
                name = f"devices, {inside}" if spread else inside
                costs[name] = seconds_in_a_batch(batch, lanes) / len(group)
    return costs


def _kind(group: Group, setting: Setting, lanes: int, num_threads: int) -> Hashable:
    """What a measurement holds for."""
    device = jax.devices()[0].device_kind, jax.device_count(), jnp.result_type(float)
    worker = None if setting.worker is None else split_numbers(setting.worker)[1]
    return structure_of(group[0]), worker, len(group), lanes, num_threads, device
