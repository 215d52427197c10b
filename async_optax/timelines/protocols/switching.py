"""One protocol after another, in one run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from async_optax.timelines.protocols.policy import Decision, Policy, Protocol
from async_optax.validation import require_count, require_number

_SEED_STEP = 1_000_003  # between stages: each draws for itself


@dataclasses.dataclass(frozen=True)
class Switching:
    """See :func:`switching`."""

    stages: tuple[tuple[float, Protocol], ...]

    @property
    def name(self) -> str:
        """How the protocol was made."""
        shown = [
            f"{protocol.name} until {until:g}" if np.isfinite(until) else protocol.name
            for until, protocol in self.stages
        ]
        return f"switching({', '.join(shown)})"

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Raises:
          ValueError: if a stage cannot run with that many workers, or throws jobs away after a
            time limit.
        """
        require_count("num_workers", num_workers)
        policies = [
            (until, protocol.policy(num_workers, (seed + stage * _SEED_STEP) % 2**31))
            for stage, (until, protocol) in enumerate(self.stages)
        ]
        for (_, protocol), (_, policy) in zip(self.stages, policies, strict=True):
            if policy.time_limits is not None:
                raise ValueError(f"{protocol.name} sets time limits, and cannot be switched")
        return _SwitchingPolicy(policies)


class _SwitchingPolicy(Policy):
    """Passes on what happens, and keeps track of who computes on what, for the successor."""

    def __init__(self, stages: Sequence[tuple[float, Policy]]):
        self._stages = list(stages)
        self._until, self._policy = self._stages.pop(0)
        self.queues = any(policy.queues for _, policy in stages)
        self.holds = any(policy.holds for _, policy in stages)
        self.issues_tokens = any(policy.issues_tokens for _, policy in stages)
        self._version = 0
        self._idle: dict[int, None] = {}
        self._reads: dict[int, list[int]] = {}  # of each worker's jobs in flight, oldest first
        self._held: dict[int, None] = {}

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        self._version = version
        self._idle = dict.fromkeys(idle)
        self._reads = {worker: [version - staleness] for worker, staleness in running.items()}
        starting = self._policy.begin(idle, running, version)
        self._start(starting)
        return starting

    def _start(self, workers: Sequence[int]) -> None:
        for worker in workers:
            self._idle.pop(worker, None)
            self._reads.setdefault(worker, []).append(self._version)

    def _done(self, worker: int) -> None:
        reads = self._reads[worker]
        reads.pop(0)
        if not reads:
            del self._reads[worker]
            self._idle[worker] = None

    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        decision = self._policy.on_arrival(worker, staleness, time)
        if decision.hold:
            self._held[worker] = None
            return decision
        self._held.pop(worker, None)
        self._done(worker)
        return self._follow(decision, time)

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        for record in (self._idle, self._reads, self._held):
            record.pop(worker, None)
        return self._follow(self._policy.on_leave(worker, num_lost, time), time)

    def on_join(self, worker: int, time: float) -> Decision:
        self._idle[worker] = None
        return self._follow(self._policy.on_join(worker, time), time)

    def _follow(self, decision: Decision, time: float) -> Decision:
        self._version += decision.commit
        if decision.commit and time >= self._until:
            return self._hand_over(decision)
        for worker in decision.abort:
            self._reads.pop(worker, None)
            self._held.pop(worker, None)
            self._idle[worker] = None
        self._start(decision.start)
        return decision

    def _hand_over(self, decision: Decision) -> Decision:
        """The commit is the last of its stage: the next one starts whom it likes."""
        aborted = list(decision.abort)
        if self._policy.queues:  # what waits in queues would arrive for the next stage, too
            aborted = list(self._reads)
        for worker in aborted:
            del self._reads[worker]
            self._held.pop(worker, None)
            self._idle[worker] = None
        self._until, self._policy = self._stages.pop(0)
        running = {worker: self._version - reads[0] for worker, reads in self._reads.items()}
        starting = self._policy.begin(list(self._idle), running, self._version)
        self._start(starting)
        return decision._replace(start=starting, abort=aborted, release=list(self._held))


def switching(stages: Sequence[tuple[float | None, Any]]) -> Switching:
    """Runs one protocol after another.

    A stage ends with its first commit at or after its time ``until``, so that no commit gathers
    arrivals of two stages. Jobs in flight go on and arrive under the next protocol, with their
    staleness; who waits is started as that protocol would. Jobs in flight under an assignment
    with queues are thrown away.

    Args:
      stages: ``(until, protocol)`` in order; ``until`` increases, in simulated time, and is
        ``None`` for the last one, which never ends.

    Returns:
      A protocol.

    Raises:
      TypeError: if a stage is not a pair of a time and a protocol.
      ValueError: if times are out of order, or there are none.

    Example:
      >>> import async_optax as ao
      >>> protocol = switching(
      ...     [(4.0, ao.protocols.synchronous()), (None, ao.protocols.asynchronous())]
      ... )
      >>> times = ao.runtimes.deterministic([1.0, 2.0])
      >>> ao.simulate_timeline(protocol, times, 2, max_time=7.0).commit_times
      array([2., 4., 5., 6., 6., 7.])

    References:
      Su et al., `GBA <https://arxiv.org/abs/2205.11048>`_, 2022, switches without tuning anew.
    """
    if not isinstance(stages, Sequence) or isinstance(stages, str):
        raise TypeError(f"stages must be (until, protocol) pairs, got {stages!r}")
    checked: list[tuple[float, Protocol]] = []
    for stage in stages:
        if not isinstance(stage, Sequence) or len(stage) != 2:
            raise TypeError(f"stages must be (until, protocol) pairs, got {stage!r}")
        until, protocol = stage
        if not callable(getattr(protocol, "policy", None)) or isinstance(protocol, type):
            raise TypeError(f"stages must be (until, protocol) pairs, got {stage!r}")
        last = len(checked) == len(stages) - 1
        if last != (until is None):
            raise ValueError(f"the last of stages, and no other, has until=None; got {stage!r}")
        if until is not None:
            require_number("until", until, above=checked[-1][0] if checked else 0)
        checked.append((np.inf if until is None else float(until), protocol))
    if not checked:
        raise ValueError("stages is empty: give (until, protocol) pairs, the last until None")
    return Switching(tuple(checked))
