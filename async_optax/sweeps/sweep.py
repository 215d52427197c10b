"""Sweeps: optimizers x timelines x numbers x seeds, as one dataset."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from async_optax.engine import Problem, WorkerProgram
from async_optax.engine.processes import Together
from async_optax.engine.progress import Progress, reporting
from async_optax.sweeps.agreement import require_agreement
from async_optax.sweeps.choice import STRATEGIES
from async_optax.sweeps.expectation import expected_table
from async_optax.sweeps.extension import union
from async_optax.sweeps.parts import CellParts, CheckFailed, Parts
from async_optax.sweeps.saving import SweepFile
from async_optax.sweeps.setting import Cell, Factory, Number, Setting, read_setting
from async_optax.sweeps.storage import load, require_xarray
from async_optax.sweeps.strategies import Work, divide
from async_optax.sweeps.table import DIVERGED, DONE, Outcome, Table
from async_optax.timelines import Timeline
from async_optax.validation import require_choice, require_count

if TYPE_CHECKING:
    import xarray


def sweep(
    problem: Problem | Callable[..., Problem],
    optimizers: str | Factory | Mapping[str, str | Factory],
    timelines: Timeline | Callable[[int], Timeline] | Mapping[str, Any],
    *,
    seeds: Iterable[int],
    grid: Mapping[str, Iterable[Number]] | None = None,
    worker: WorkerProgram | None = None,
    evaluate_every: int | None = None,
    evaluate_at: Sequence[float] | None = None,
    strategy: str = "auto",
    lanes: int = 1,
    extend: "str | os.PathLike[str] | xarray.Dataset | None" = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> "xarray.Dataset":
    """Runs every optimizer on every timeline, for all numbers of a grid and all seeds.

    Cell (o, t, s, numbers) is what :func:`async_optax.simulate` gives for the problem and optimizer
    o at these numbers, on timeline t, with ``key=jax.random.key(s)``: all optimizers see the same
    timelines, batches and noise. Numbers of sweepable factories are arguments of the compiled
    program, so there is one compilation for each structure and shape; an ordinary function that
    returns an Optax transformation compiles once for each of its values of the grid, whatever the
    number of seeds. A cell whose parts cannot be built or do not fit together fails alone, and one
    that diverges ends there.

    Args:
      problem: what is trained, or a function of some of the grid's names that returns it.
      optimizers: a name of :mod:`async_optax.optimizers`, a factory of gradient transformations,
        or a dictionary of these by label.
      timelines: a timeline, a function of the seed that returns one, or a dictionary of these.
      seeds: different integers >= 0.
      grid: numbers by name of an argument of the problem's function or of the optimizers'. A name
        that the problem does not take must be taken by every optimizer. If all values of a name are
        integers they stay integers.
      worker: the worker program; ``None`` is :func:`async_optax.engine.gradient`.
      evaluate_every: commits between evaluations; or
      evaluate_at: simulated times of evaluations. Start and end are always evaluated.
      strategy: how cells are run: ``"threads"`` (each by itself, as many at once as there are
        cores), ``"loop"`` or ``"vmap"`` (cells of one structure and timeline in one program, one
        after another or side by side), ``"devices"`` (these, split over all devices), or ``"auto"``
        to measure which is fastest. Results agree to rounding. When several processes call this
        together, ``"auto"`` is ``"devices"``, those of all processes; process 0 writes ``path``,
        every one must be able to read ``extend``, and an error on one ends them all.
      lanes: width of a wave, >= 1.
      extend: a dataset, or the path of one: cells that it holds are not run again, unless they
        failed; what is returned holds both. It may be equal to ``path``, and then need not exist.
      path: a netCDF file, written now and then and at the end, and if the sweep is interrupted.
      progress: draw a bar, or call ``progress(done, total)`` with numbers of arrivals.

    Returns:
      A dataset over ``optimizer``, ``timeline``, ``seed``, the grid's names and ``evaluation``:
      the metrics of ``problem.evaluate`` (float64, NaN after a divergence); by cell ``status``
      (``"done"``, ``"diverged"``, ``"failed"``, or ``"missing"`` where nobody asked),
      ``message``, ``diverged_version`` (-1 without) and ``diverged_time``; digests of what was
      computed; coordinates ``version`` and ``time`` of each timeline and seed, ending in -1 and NaN
      where others have more evaluations. Its attributes say which strategy was used and why.

    Raises:
      FileExistsError: if there is a file at ``path`` that is not to be extended.
      FileNotFoundError: if there is no file at ``extend``, or no folder for ``path``.
      ImportError: if the extra ``sweep`` is not installed.
      OSError: if the file cannot be written.
      TypeError: if an argument is of the wrong kind, or every cell failed for such a reason.
      ValueError: if a value is not allowed, ``extend`` holds something else than what is asked
        for under the same labels, or every cell failed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import async_optax as ao
      >>> problem = ao.Problem(
      ...     init=lambda key: jnp.zeros(1),
      ...     loss=lambda x, batch, key: jnp.sum((x - batch) ** 2) / 2,
      ...     batch=lambda key, worker: jnp.ones(1),
      ...     evaluate=lambda x: {"error": jnp.abs(x - 1.0)[0]},
      ... )
      >>> dataset = sweep(
      ...     problem,
      ...     {"plain": "sgd", "clipped": ao.optimizers.clipped_sgd},
      ...     lambda seed: ao.simulate_timeline(
      ...         ao.protocols.asynchronous(), ao.runtimes.gamma(), 4, num_commits=40, seed=seed
      ...     ),
      ...     seeds=range(2),
      ...     grid={"learning_rate": [0.01, 0.1]},
      ... )
      >>> dict(dataset["error"].sizes)
      {'optimizer': 2, 'timeline': 1, 'seed': 2, 'learning_rate': 2, 'evaluation': 2}
      >>> bool((dataset["error"].isel(evaluation=-1).sel(learning_rate=0.1) < 0.1).all())
      True
    """
    file, together = SweepFile(path), Together("the sweep")
    with contextlib.ExitStack() as stack:

        def read() -> tuple[Setting, Parts, Table, Progress]:
            require_xarray()
            require_choice("strategy", strategy, ("auto", *STRATEGIES))
            require_count("lanes", lanes)
            setting = read_setting(
                problem, optimizers, timelines, seeds, grid, worker, evaluate_every, evaluate_at
            )
            source, old = _read_extended(extend, path)
            file.check(source)
            parts = Parts(setting)
            new = expected_table(setting, parts)
            file.check_names(new.metrics)
            table = new if old is None else union(old, new)
            return setting, parts, table, stack.enter_context(reporting(progress))

        setting, parts, table, report = together(read)
        require_agreement(table, (strategy, lanes, evaluate_every, setting.evaluate_at))
        failures: dict[Cell, Exception] = {}
        missing = _missing(table, parts, setting, failures)

        def run() -> None:
            work = divide(missing, setting, strategy, lanes, together)
            _run(table, missing, work, file, report, failures)

        together(run)
    if failures and all(table.status(cell) not in (DONE, DIVERGED) for cell in setting.cells()):
        raise next(failures[cell] for cell in setting.cells() if cell in failures)
    together(lambda: file.save(table))
    return table.to_dataset()


def _run(
    table: Table,
    missing: Sequence[CellParts],
    work: Work,
    file: SweepFile,
    report: Progress,
    failures: dict[Cell, Exception],
) -> None:
    """Runs what is missing and writes it into the table; adds the errors of cells that fail."""
    total = sum(parts.course.num_arrivals for parts in missing)
    if missing:
        table.attrs |= {"strategy": work.choice.strategy, "strategy_choice": work.choice.as_json()}
    report(0, total)
    ended = work.run(lambda done: report(done, total))
    try:
        with contextlib.closing(ended):
            for outcomes in ended:
                for cell, outcome in outcomes:
                    if isinstance(outcome, Outcome):
                        table.finish(cell, outcome)
                    else:
                        table.fail(cell, outcome)
                        failures[cell] = outcome
                file.save_if_due(table)
    except BaseException:
        file.save_after_a_break(table)
        raise


def _missing(
    table: Table, parts: Parts, setting: Setting, failures: dict[Cell, Exception]
) -> list[CellParts]:
    """The parts of cells that have not been run; those that cannot be built fail."""
    missing = []
    for cell in setting.cells():
        if table.status(cell) not in (DONE, DIVERGED):
            try:
                missing.append(parts.of(cell))
            except CheckFailed as error:
                table.fail(cell, error)
                failures[cell] = error
    return missing


def _read_extended(
    extend: Any, path: str | os.PathLike[str] | None
) -> tuple[pathlib.Path | None, Table | None]:
    """The file and the table to extend; the file need not exist if it is the one to write."""
    import xarray

    source = None
    if isinstance(extend, str | os.PathLike):
        source = pathlib.Path(extend).absolute()
        is_target = path is not None and source == pathlib.Path(path).absolute()
        extend = None if is_target and not source.exists() else load(source)
    elif extend is not None and not isinstance(extend, xarray.Dataset):
        raise TypeError(f"extend must be a dataset or a path, got {type(extend).__name__}")
    return source, None if extend is None else Table.from_dataset(extend)
