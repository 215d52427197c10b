"""Extending a sweep: the union of what is there and what is asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from async_optax.sweeps.table import Table

_SETTING = ("precision", "generator")  # texts that must not differ
_FIXED = {"optimizer", "timeline", "seed"}  # dimensions that every sweep has
_TIME_TOLERANCE = 1e-9  # relative; the last bits of a time may depend on the machine


def union(old: Table, new: Table) -> Table:
    """Returns a table over the axes of both, with what the old one holds.

    Coordinates keep their order: the old ones first; dimensions have that of the new table.
    Combinations that neither has are missing.

    Args:
      old: what has been computed.
      new: what is asked for: its courses and digests are set, its cells are not.

    Returns:
      A new table.

    Raises:
      ValueError: if they cannot be one dataset; the message names what differs.
    """
    _check_alike(old, new)
    old = _in_order(old, new)
    axes = {
        name: tuple(dict.fromkeys((*values, *new.axes[name]))) for name, values in old.axes.items()
    }
    for name, values in axes.items():
        if any(isinstance(value, float) for value in values):
            axes[name] = tuple(float(value) for value in values)
    num_evaluations = max(old.num_evaluations, new.num_evaluations)
    table = Table(axes, new.problem_names, new.metrics, num_evaluations)
    table.attrs = old.attrs | new.attrs
    for part, names in ((old, set(table.arrays)), (new, {"version", "time"})):
        for name in names:
            table.arrays[name][_places(table.axes, part, name)] = part.arrays[name]
    for name in ("timeline_digest", "problem_digest", "optimizer_digest"):
        # A digest that could not be made does not replace one that could.
        places = _places(table.axes, new, name)
        made = new.arrays[name] != ""
        table.arrays[name][places] = np.where(made, new.arrays[name], table.arrays[name][places])
    return table


def _in_order(old: Table, new: Table) -> Table:
    """The old table with the dimensions in the order of the new one: cells are found by it."""
    axes = {name: old.axes[name] for name in new.axes}
    table = Table(axes, new.problem_names, old.metrics, old.num_evaluations)
    table.attrs = old.attrs
    for name, array in old.arrays.items():
        dims = list(old.dimensions(name))
        table.arrays[name] = array.transpose([dims.index(dim) for dim in table.dimensions(name)])
    return table


def _places(axes: Mapping[str, tuple], part: Table, name: str) -> Any:
    """Where a part's variable lies in a table over larger axes."""
    indices = []
    for dim in part.dimensions(name):
        if dim == "evaluation":
            indices.append(np.arange(part.num_evaluations))
        else:
            indices.append(np.array([axes[dim].index(value) for value in part.axes[dim]]))
    return np.ix_(*indices) if indices else ...


def _check_alike(old: Table, new: Table) -> None:
    for what, before, now in (
        ("grid names", sorted({*old.axes} - _FIXED), sorted({*new.axes} - _FIXED)),
        ("numbers of the problem", sorted(old.problem_names), sorted(new.problem_names)),
        ("metrics", list(old.metrics), list(new.metrics)),
        *((name, old.attrs.get(name), new.attrs.get(name)) for name in _SETTING),
    ):
        if before != now:
            raise ValueError(f"extend has the {what} {before}, this sweep has {now}")
    _check_courses(old, new)
    _check_digests(old, new, "problem_digest", "problem")
    _check_digests(old, new, "optimizer_digest", "optimizer")


def _check_courses(old: Table, new: Table) -> None:
    for timeline in new.axes["timeline"]:
        for seed in new.axes["seed"]:
            if timeline not in old.axes["timeline"] or seed not in old.axes["seed"]:
                continue
            place = [
                (table.axes["timeline"].index(timeline), table.axes["seed"].index(seed))
                for table in (old, new)
            ]
            versions, times = (
                [table.arrays[name][i] for table, i in zip((old, new), place, strict=True)]
                for name in ("version", "time")
            )
            made = [column[column >= 0] for column in versions]
            if not (len(made[0]) and len(made[1])):
                continue  # the timeline failed, then or now
            who = f"on timeline {timeline!r} at seed {seed}"
            if len(made[0]) != len(made[1]):
                raise ValueError(
                    f"extend has {len(made[0])} evaluations {who}, this sweep has {len(made[1])}; "
                    "use the evaluate_every or evaluate_at of the file, or another path"
                )
            count = len(made[0])
            same = np.allclose(times[0][:count], times[1][:count], rtol=_TIME_TOLERANCE, atol=0)
            if not same or not np.array_equal(made[0], made[1]):
                raise ValueError(f"extend has evaluations at other versions or times {who}")
            digests = [
                table.arrays["timeline_digest"][i]
                for table, i in zip((old, new), place, strict=True)
            ]
            if all(digests) and digests[0] != digests[1]:
                raise ValueError(f"extend has another order of arrivals {who}")


def _check_digests(old: Table, new: Table, name: str, what: str) -> None:
    """Compares digests where both have one that the same version of JAX made."""
    dims = new.dimensions(name)
    for place in np.ndindex(new.arrays[name].shape):
        where = {dim: new.axes[dim][i] for dim, i in zip(dims, place, strict=True)}
        if any(value not in old.axes[dim] for dim, value in where.items()):
            continue
        there = tuple(old.axes[dim].index(where[dim]) for dim in old.dimensions(name))
        before, now = str(old.arrays[name][there]), str(new.arrays[name][place])
        comparable = before and now and before.split(":")[0] == now.split(":")[0]
        if comparable and before != now:
            at = ", ".join(f"{dim}={value!r}" for dim, value in where.items()) or "every cell"
            raise ValueError(
                f"extend has another {what} at {at}: it computes something else; use another label "
                f"or file, or drop the variable {name!r} from the dataset if you know better"
            )
