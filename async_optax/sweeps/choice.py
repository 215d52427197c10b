"""Which strategy runs a sweep: chosen by measuring."""

import contextlib
import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence

import jax
import jax.numpy as jnp

from async_optax.engine.batch import Batch
from async_optax.sweeps.batches import Group, prepare
from async_optax.sweeps.jobs import structure_of
from async_optax.sweeps.measuring import seconds_alone, seconds_in_a_batch, seconds_in_threads
from async_optax.sweeps.parts import CheckFailed
from async_optax.sweeps.setting import Setting
from async_optax.transforms import split_numbers

STRATEGIES = ("threads", "loop", "vmap", "devices")
_MIN_WORTHWHILE = 4.0  # seconds; measuring compiles a program per strategy
_MIN_WAVES = 64  # per run; measuring executes a few

_COSTS: dict[Hashable, dict[str, float]] = {}  # by kind of group; then by strategy
"""Seconds per arrival of a cell, measured once in a process."""


@dataclasses.dataclass(frozen=True)
class StrategyChoice:
    """How a sweep was run, and why.

    Attributes:
      strategy: one of ``STRATEGIES``.
      reason: one sentence.
      inside: for ``"devices"``, what each device does with its cells.
      seconds_per_run: by strategy, the time of the group that was measured over the number of its
        cells; where ``"devices"`` was given, loop and vmap are on all devices.
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
    before; once in a process for groups of one size, structure and shapes. Measuring is not worth
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
    try:
        single = prepare(group[:1], setting, lanes, "loop", spread=False)
    except CheckFailed:
        return StrategyChoice(unmeasured, "the cells that would be measured fail")
    kind = strategy, _kind(group, setting, lanes, num_threads)
    if kind not in _COSTS:
        if strategy == "auto":
            enough = _MIN_WORTHWHILE * num_threads / total_arrivals
            few = num_arrivals < _MIN_WAVES * lanes
            if few or seconds_alone(single.runs[0], lanes, enough) < enough:
                reason = "the whole sweep is shorter than measuring would take"
                return StrategyChoice("threads", reason)
        _COSTS[kind] = _measured(strategy, group, setting, lanes, num_threads, can_vmap, single)
    costs = _COSTS[kind]
    inside = min(("loop", "vmap"), key=lambda name: costs.get(name, float("inf")))
    per_run = {name: cost * num_arrivals for name, cost in costs.items()}
    if strategy == "devices":
        if per_run:
            per_run["devices"] = min(per_run.values())
        return StrategyChoice("devices", "given", inside, per_run)
    best = min(costs, key=lambda name: costs[name])
    return StrategyChoice(best, "least measured time per run", inside, per_run)


def _measured(
    strategy: str,
    group: Group,
    setting: Setting,
    lanes: int,
    num_threads: int,
    can_vmap: bool,
    single: Batch,
) -> dict[str, float]:
    costs: dict[str, float] = {}

    def measure(name: str, inside: str, spread: bool) -> None:
        with contextlib.suppress(*CheckFailed):  # the group cannot run so: nothing to choose
            batch = prepare(group, setting, lanes, inside, spread)
            costs[name] = seconds_in_a_batch(batch, lanes) / len(group)

    is_spread = strategy == "devices"  # then every process hears what process 0 measured
    if not is_spread:
        costs["threads"] = seconds_in_threads(single.runs[0], lanes, num_threads)
    measure("loop", "loop", is_spread)
    if can_vmap:
        measure("vmap", "vmap", is_spread)
    if jax.device_count() > 1 and not is_spread:
        inside = min(("loop", "vmap"), key=lambda name: costs.get(name, float("inf")))
        measure("devices", inside, spread=True)
    return costs


def _kind(group: Group, setting: Setting, lanes: int, num_threads: int) -> Hashable:
    """What a measurement holds for."""
    device = jax.devices()[0].device_kind, jax.device_count(), jnp.result_type(float)
    worker = None if setting.worker is None else split_numbers(setting.worker)[1]
    return structure_of(group[0]), worker, len(group), lanes, num_threads, device
