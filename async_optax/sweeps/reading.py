"""Reading a sweep: where runs ended, and when they reached a target."""

from typing import TYPE_CHECKING

from async_optax.validation import require_choice, require_number

if TYPE_CHECKING:
    import xarray


def final(dataset: "xarray.Dataset", metric: str) -> "xarray.DataArray":
    """Returns each cell's last evaluation.

    Rows of a dataset end in NaN where other timelines have more evaluations, so that
    ``isel(evaluation=-1)`` misses those that end earlier.

    Args:
      dataset: of :func:`async_optax.sweep`.
      metric: one of its metrics.

    Returns:
      Values over all dimensions but ``evaluation``; NaN where the cell diverged, failed or is
      missing.

    Raises:
      ValueError: if there is no such metric.

    Example:
      >>> import numpy as np, xarray
      >>> dataset = xarray.Dataset(
      ...     {"loss": (("seed", "evaluation"), [[3.0, 1.0, 0.5], [3.0, 2.0, np.nan]])},
      ...     {"version": (("seed", "evaluation"), [[0, 5, 9], [0, 5, -1]])},
      ... )
      >>> final(dataset, "loss").values
      array([0.5, 2. ])
    """
    require_choice("metric", metric, _metrics(dataset))
    last = (dataset["version"] >= 0).sum("evaluation") - 1
    values = dataset[metric].isel(evaluation=last.reset_coords(drop=True))
    return values.drop_vars(["version", "time"], errors="ignore")


def time_to(
    dataset: "xarray.Dataset", metric: str, target: float, *, below: bool = False
) -> "xarray.DataArray":
    """Returns the simulated time of each cell's first evaluation that reaches a target.

    Args:
      dataset: of :func:`async_optax.sweep`.
      metric: one of its metrics.
      target: the value to reach.
      below: whether reaching means falling to it; set it for a loss.

    Returns:
      Times over all dimensions but ``evaluation``; NaN where the target is never reached, or the
      cell failed or is missing. A cell that diverged counts if it had reached the target before.

    Raises:
      TypeError: if ``target`` is not a number.
      ValueError: if there is no such metric.

    Example:
      >>> import numpy as np, xarray
      >>> dataset = xarray.Dataset(
      ...     {"loss": (("seed", "evaluation"), [[3.0, 1.0, 0.5], [3.0, 2.0, np.nan]])},
      ...     {"time": (("seed", "evaluation"), [[0.0, 2.0, 4.0], [0.0, 2.0, 4.0]])},
      ... )
      >>> time_to(dataset, "loss", 1.0, below=True).values
      array([ 2., nan])
    """
    require_choice("metric", metric, _metrics(dataset))
    require_number("target", target)
    values = dataset[metric]
    reached = values <= target if below else values >= target
    first = reached.argmax("evaluation")
    times = dataset["time"].broadcast_like(values)
    return (
        times.isel(evaluation=first)
        .where(reached.any("evaluation"))
        .drop_vars(["version", "time"], errors="ignore")
    )


def _metrics(dataset: "xarray.Dataset") -> tuple[str, ...]:
    return tuple(
        str(name) for name, array in dataset.data_vars.items() if "evaluation" in array.dims
    )
