"""Jobs of a sweep: groups of cells of one structure and timeline, each as one program."""

from collections.abc import Hashable, Sequence

import jax

from async_optax.data import Streamed
from async_optax.engine.batch import Batch, cells_mesh
from async_optax.engine.processes import Together
from async_optax.sweeps.jobs import Ended, Job, outcome_of, single_jobs, structure_of
from async_optax.sweeps.parts import CellParts, CheckFailed
from async_optax.sweeps.pool import Advance
from async_optax.sweeps.setting import Setting

Group = list[CellParts]


def grouped(cells: Sequence[CellParts]) -> tuple[list[Group], list[CellParts]]:
    """Splits cells into groups that one program can run together, and those left alone.

    Args:
      cells: what to run.

    Returns:
      Groups of at least two cells that share a structure and a timeline, and all other cells.
    """
    groups: dict[Hashable, Group] = {}
    alone = []
    for parts in cells:
        structure = structure_of(parts)
        if structure is None or isinstance(parts.problem.batch, Streamed):
            alone.append(parts)
        else:
            groups.setdefault((structure, id(parts.course.timeline)), []).append(parts)
    alone += [group[0] for group in groups.values() if len(group) == 1]
    return [group for group in groups.values() if len(group) > 1], alone


def prepare(group: Group, setting: Setting, lanes: int, inside: str, spread: bool) -> Batch:
    """Checks a group and makes a batch of it.

    Args:
      group: its cells.
      setting: of the sweep.
      lanes: width of a wave.
      inside: ``"loop"`` or ``"vmap"``.
      spread: whether all devices share the cells.

    Raises:
      TypeError: if a cell's checks fail, like ``ValueError``.
    """
    return Batch.prepare(
        [parts.problem for parts in group],
        [parts.optimizer for parts in group],
        group[0].course.timeline,
        [jax.random.key(parts.cell.seed) for parts in group],
        worker=setting.worker,
        lanes=lanes,
        evaluate_every=setting.evaluate_every,
        evaluate_at=setting.evaluate_at,
        strategy=inside,
        mesh=cells_mesh() if spread else None,
    )


def batch_job(
    group: Group, setting: Setting, lanes: int, inside: str, spread: bool, together: Together
) -> Job:
    """Returns a job that runs a group; a group that cannot run as a whole is halved.

    Args:
      group: its cells.
      setting: of the sweep.
      lanes: width of a wave.
      inside: ``"loop"`` or ``"vmap"``.
      spread: whether all devices share the cells.
      together: what all processes take its steps by.

    Returns:
      A function that returns each cell's outcome, or the error that its checks raised.
    """

    def job(advance: Advance) -> Ended:
        def advance_together(done: int) -> None:
            if spread:  # a batch of all processes: they stop if this one is stopped
                together(lambda: advance(done))
            else:
                advance(done)

        advance_together(0)
        return _run(group, 0, advance, advance_together)

    def _run(group: Group, before: int, alone: Advance, advance: Advance) -> Ended:
        if len(group) == 1:  # each process runs it by itself, in chunks of its own
            (single,) = single_jobs(group, setting, lanes)
            return single(lambda done: alone(before + done))
        total = sum(parts.course.num_arrivals for parts in group)
        try:
            results = prepare(group, setting, lanes, inside, spread).execute(
                lambda done, _: advance(before + done)
            )
        except CheckFailed:  # too large together, or one of them cannot run: it shall say why
            half = len(group) // 2
            first = _run(group[:half], before, alone, advance)
            share = sum(parts.course.num_arrivals for parts in group[:half])
            return first + _run(group[half:], before + share, alone, advance)
        advance(before + total)
        return [
            (parts.cell, outcome_of(result)) for parts, result in zip(group, results, strict=True)
        ]

    return job
