"""The table of a sweep: what became of each cell, as arrays over the axes."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from async_optax.engine import Divergence
from async_optax.sweeps.parts import Course
from async_optax.sweeps.setting import Cell

if TYPE_CHECKING:
    import xarray

DONE, DIVERGED, FAILED, MISSING = "done", "diverged", "failed", "missing"
_SCHEMA, _SCHEMA_VERSION = "async_optax.sweep", 1
_CELL_VARIABLES = ("status", "message", "diverged_version", "diverged_time")
_COURSE_VARIABLES = ("version", "time", "timeline_digest")
_DIGESTS = ("problem_digest", "optimizer_digest")


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a cell.

    Attributes:
      evaluations: the metrics' columns, as long as the run lasted.
      diverged: where it diverged, or ``None``.
    """

    evaluations: Mapping[str, np.ndarray]
    diverged: Divergence | None


class Table:
    """The dataset under construction, in NumPy.

    Attributes:
      axes: the dimensions but the last, with their coordinates: optimizer, timeline, seed, then the
        grid's names.
      problem_names: names of the grid that the problem takes.
      metrics: names of what is evaluated.
      arrays: by name of the variable; see :func:`dimensions`.
      attrs: texts that go with it.
    """

    def __init__(
        self,
        axes: Mapping[str, tuple],
        problem_names: tuple[str, ...],
        metrics: tuple[str, ...],
        num_evaluations: int,
    ):
        self.axes = dict(axes)
        self.problem_names = problem_names
        self.metrics = metrics
        self.attrs: dict[str, str] = {}
        self.arrays: dict[str, np.ndarray] = {}
        fill: dict[str, Any] = dict.fromkeys(metrics, np.nan)
        fill |= {"status": MISSING, "message": "", "diverged_version": -1, "diverged_time": np.nan}
        fill |= {"version": -1, "time": np.nan, "timeline_digest": ""}
        fill |= dict.fromkeys(_DIGESTS, "")
        sizes = {name: len(values) for name, values in self.axes.items()}
        sizes["evaluation"] = num_evaluations
        for name, value in fill.items():
            shape = [sizes[dim] for dim in self.dimensions(name)]
            dtype = object if isinstance(value, str) else np.asarray(value).dtype
            self.arrays[name] = np.full(shape, value, dtype)

    @property
    def num_evaluations(self) -> int:
        """The largest number of evaluations of a timeline."""
        return self.arrays["version"].shape[-1]

    def dimensions(self, name: str) -> tuple[str, ...]:
        """Returns the dimensions of a variable."""
        if name in _CELL_VARIABLES:
            return tuple(self.axes)
        if name == "timeline_digest":
            return "timeline", "seed"
        if name in _COURSE_VARIABLES:
            return "timeline", "seed", "evaluation"
        if name == "problem_digest":
            return self.problem_names
        if name == "optimizer_digest":
            return "optimizer", *tuple(self.axes)[3:]
        return (*self.axes, "evaluation")

    def index(self, cell: Cell, name: str = "status") -> tuple[int, ...]:
        """Returns where a cell lies in a variable, but for the evaluation."""
        place = dict(zip(self.axes, (*cell[:3], *cell.numbers), strict=True))
        dims = (dim for dim in self.dimensions(name) if dim != "evaluation")
        return tuple(self.axes[dim].index(place[dim]) for dim in dims)

    def status(self, cell: Cell) -> str:
        """Returns what became of a cell so far."""
        return self.arrays["status"][self.index(cell)]

    def set_course(self, timeline: str, seed: int, course: Course, digest: str) -> None:
        """Writes down where runs on a timeline are evaluated."""
        place = self.axes["timeline"].index(timeline), self.axes["seed"].index(seed)
        count = len(course.version)
        self.arrays["version"][place][:count] = course.version
        self.arrays["time"][place][:count] = course.time
        self.arrays["timeline_digest"][place] = digest

    def set_digest(self, name: str, cell: Cell, digest: str) -> None:
        """Writes down the digest of a cell's problem or optimizer."""
        self.arrays[name][self.index(cell, name)] = digest

    def finish(self, cell: Cell, outcome: Outcome) -> None:
        """Writes down a run that went to its end, or diverged."""
        place = self.index(cell)
        for name in self.metrics:
            column = outcome.evaluations[name]
            self.arrays[name][place] = np.nan
            self.arrays[name][place][: len(column)] = column
        diverged = outcome.diverged
        self.arrays["status"][place] = DIVERGED if diverged else DONE
        self.arrays["message"][place] = str(diverged) if diverged else ""
        self.arrays["diverged_version"][place] = diverged.version if diverged else -1
        self.arrays["diverged_time"][place] = diverged.time if diverged else np.nan

    def fail(self, cell: Cell, error: Exception) -> None:
        """Writes down a run that could not start."""
        self.arrays["status"][self.index(cell)] = FAILED
        self.arrays["message"][self.index(cell)] = str(error) or type(error).__name__

    def to_dataset(self) -> "xarray.Dataset":
        """Returns the table as a dataset."""
        import xarray

        names = (*self.metrics, *_CELL_VARIABLES, *_DIGESTS, "timeline_digest")
        # Texts of fixed width: what a file gives back.
        variables = {
            name: (
                self.dimensions(name),
                array.astype(str if array.dtype == object else array.dtype),
            )
            for name, array in ((name, self.arrays[name]) for name in names)
        }
        coordinates: dict[str, Any] = {
            name: (name, np.array(values)) for name, values in self.axes.items()
        }
        coordinates |= {
            name: (self.dimensions(name), self.arrays[name].copy()) for name in ("version", "time")
        }
        identity = {"schema": _SCHEMA, "schema_version": str(_SCHEMA_VERSION)}
        identity["problem_names"] = " ".join(self.problem_names)
        return xarray.Dataset(variables, coordinates, identity | self.attrs)

    @classmethod
    def from_dataset(cls, dataset: "xarray.Dataset") -> "Table":
        """Reads a dataset that :meth:`to_dataset` made.

        Digests may be missing: then nothing is compared.

        Raises:
          ValueError: if it is another dataset.
        """
        attrs = dict(dataset.attrs)
        schema, version = attrs.pop("schema", None), attrs.pop("schema_version", None)
        if (schema, str(version)) != (_SCHEMA, str(_SCHEMA_VERSION)):
            raise ValueError(
                f"extend must be a dataset of schema {_SCHEMA} {_SCHEMA_VERSION}, got {schema} "
                f"{version}"
            )
        for name in ("optimizer", "timeline", "seed", "evaluation"):
            if name not in dataset.dims:
                raise ValueError(
                    f"extend must be a whole dataset of a sweep: it has no dimension {name!r}"
                )
        if "status" not in dataset:
            raise ValueError("extend must be a whole dataset of a sweep: it has no 'status'")
        first = ("optimizer", "timeline", "seed")
        dims = [*first, *(str(dim) for dim in dataset["status"].dims if dim not in first)]
        axes = {dim: tuple(dataset[dim].values.tolist()) for dim in dims}
        problem_names = tuple(attrs.pop("problem_names", "").split())
        known = {*_CELL_VARIABLES, *_COURSE_VARIABLES, *_DIGESTS}
        metrics = tuple(sorted(str(name) for name in dataset.data_vars if name not in known))
        table = cls(axes, problem_names, metrics, dataset.sizes["evaluation"])
        table.attrs = attrs
        for name, array in table.arrays.items():
            if name in dataset.variables:
                ordered = dataset[name].transpose(*table.dimensions(name))
                table.arrays[name] = ordered.values.astype(array.dtype)
            elif not name.endswith("_digest"):
                raise ValueError(f"extend must be a whole dataset of a sweep: it has no {name!r}")
        return table
