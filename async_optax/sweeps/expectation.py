"""The table of what a sweep is asked for, before anything has run."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.sweeps.digests import Digests, timeline_digest
from async_optax.sweeps.parts import CheckFailed, Course, Parts
from async_optax.sweeps.setting import RESERVED, Setting
from async_optax.sweeps.table import Table

_VERSIONS = {"jax": jax.__version__, "optax": optax.__version__, "numpy": np.__version__}


def expected_table(setting: Setting, parts: Parts) -> Table:
    """Returns a table in which all is known but what became of the cells.

    Args:
      setting: of the sweep.
      parts: of its cells; all are built here.

    Returns:
      A table with courses, digests and attributes.

    Raises:
      TypeError: if no problem can be built, like ``ValueError``.
      ValueError: if problems of one sweep have different metrics, or names that are taken.
    """
    courses: dict[tuple[str, int], Course] = {}
    for timeline in setting.timelines:
        for seed in setting.seeds:
            with contextlib.suppress(*CheckFailed):  # its cells fail, and say why
                courses[timeline, seed] = parts.course(timeline, seed)
    lengths = [len(course.version) for course in courses.values()]
    table = Table(
        setting.axes, setting.problem_names, _metrics(setting, parts), max(lengths or [0])
    )
    table.attrs = {
        "versions": json.dumps(_VERSIONS),
        "precision": str(jnp.result_type(float)),
        "generator": str(jax.random.key_impl(jax.random.key(0))),
    }
    for (timeline, seed), course in courses.items():
        table.set_course(timeline, seed, course, timeline_digest(course.timeline))
    _set_digests(table, setting, parts)
    return table


def _metrics(setting: Setting, parts: Parts) -> tuple[str, ...]:
    found: dict[tuple[str, ...], None] = {}
    failure: Exception | None = None
    for cell in setting.cells():
        try:
            found[parts.metrics(cell)] = None
        except CheckFailed as error:
            failure = failure or error
    if not found:
        assert failure is not None
        raise failure
    metrics, *others = found
    if others:
        raise ValueError(
            f"all problems of a sweep must evaluate the same metrics, got {', '.join(metrics)} and "
            f"{', '.join(others[0])}"
        )
    if not metrics:
        raise ValueError("problem.evaluate returns no metric: a sweep keeps evaluations")
    taken = [name for name in metrics if name in RESERVED or name in setting.grid]
    if taken:
        raise ValueError(
            f"problem.evaluate must not use the names {', '.join(taken)}: the dataset uses them"
        )
    return metrics


def _set_digests(table: Table, setting: Setting, parts: Parts) -> None:
    digests = Digests(setting.worker)
    seen = set()
    for cell in setting.cells():
        for name in ("problem_digest", "optimizer_digest"):
            place = name, table.index(cell, name)
            if place in seen:
                continue
            seen.add(place)
            with contextlib.suppress(*CheckFailed):
                problem = parts.problem(cell)
                if name == "problem_digest":
                    digest = digests.problem(problem)
                else:
                    digest = digests.optimizer(parts.optimizer(cell), problem)
                table.set_digest(name, cell, digest)
