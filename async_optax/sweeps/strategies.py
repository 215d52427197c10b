"""Dividing a sweep into jobs, and running them."""

import dataclasses
from collections.abc import Callable, Generator, Sequence

from async_optax.engine.processes import Together
from async_optax.sweeps.batches import batch_job, grouped
from async_optax.sweeps.choice import StrategyChoice, choose_strategy
from async_optax.sweeps.jobs import Ended, Job, single_jobs
from async_optax.sweeps.parts import CellParts
from async_optax.sweeps.pool import available_cores, run_jobs
from async_optax.sweeps.setting import Setting


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A sweep as jobs.

    Attributes:
      choice: the strategy.
      batches: run one after another: each keeps the device busy.
      singles: run in threads.
      num_threads: how many of these at once.
    """

    choice: StrategyChoice
    batches: Sequence[Job]
    singles: Sequence[Job]
    num_threads: int

    def run(self, report: Callable[[int], None]) -> Generator[Ended]:
        """Yields what becomes of the cells, job by job; see :func:`run_jobs`.

        Args:
          report: called with the number of arrivals done.
        """
        reached = [0, 0]
        for phase, (jobs, num_threads) in enumerate(
            ((self.batches, 1), (self.singles, self.num_threads))
        ):

            def report_sum(done: int, phase: int = phase) -> None:
                reached[phase] = done
                report(sum(reached))

            yield from run_jobs(jobs, num_threads, report_sum)


def divide(
    cells: Sequence[CellParts], setting: Setting, strategy: str, lanes: int, together: Together
) -> Work:
    """Chooses a strategy and divides the cells into jobs.

    Args:
      cells: what to run.
      setting: of the sweep.
      strategy: a name, or ``"auto"``.
      lanes: width of a wave.
      together: what all processes take the steps of a batch by.

    Returns:
      The work.
    """
    num_threads = available_cores()
    groups, alone = grouped(cells)
    total = sum(parts.course.num_arrivals for parts in cells)
    choice = choose_strategy(strategy, groups, setting, lanes, num_threads, total)
    if choice.strategy == "threads":
        return Work(choice, [], list(single_jobs(cells, setting, lanes)), num_threads)
    spread = choice.strategy == "devices"
    batches = [
        batch_job(group, setting, lanes, choice.inside, spread, together) for group in groups
    ]
    return Work(choice, batches, list(single_jobs(alone, setting, lanes)), num_threads)
