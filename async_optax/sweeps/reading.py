"""Reading a sweep: what is asked of a dataset again and again."""

from typing import TYPE_CHECKING

from async_optax.validation import require_choice, require_number

if TYPE_CHECKING:
    import xarray


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
    metrics = [str(name) for name, array in dataset.data_vars.items() if "evaluation" in array.dims]
    require_choice("metric", metric, tuple(metrics))
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
