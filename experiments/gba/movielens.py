"""MovieLens as a log of clicks: films rated 4 or more are clicked, in the order of time."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.engine import Problem
from async_optax.problems import Clicks, click_loss, evaluate_days, init_deep_fm
from async_optax.validation import require_count

_CLICKED = 4.0  # stars, or more
_WINDOW = 1 / 16  # of a day: from where a batch is drawn


def read_ratings(source: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns columns sorted by time: ``user`` and ``item`` numbered from 0, and ``clicked``.

    Args:
      source: of :func:`experiments.datasets.open_prepared`: examples with ``user_id``,
        ``movie_id``, ``user_rating`` and ``timestamp``.
    """
    rows = [source[i] for i in range(len(source))]
    order = np.argsort([int(row["timestamp"]) for row in rows], kind="stable")

    def numbered(name: str) -> np.ndarray:
        _, number = np.unique([str(row[name]) for row in rows], return_inverse=True)
        return number[order].astype(np.int32)

    stars = np.array([float(row["user_rating"]) for row in rows])[order]
    return {
        "user": numbered("user_id"),
        "item": numbered("movie_id"),
        "clicked": (stars >= _CLICKED).astype(np.float32),
    }


def movielens(
    source: Sequence[Any],
    batch_size: int,
    *,
    num_days: int,
    dimension: int = 8,
    hidden: Sequence[int] = (32,),
) -> Problem:
    """The counterpart of :func:`async_optax.problems.click_logs` on ratings.

    The ratings, in the order of time, are cut into ``num_days + 1`` equal "days". The last one is
    for testing only; the others are trained on in their order, batches being drawn from the
    ratings of the sixteenth of a day that follows the moment, and are tested on, too, before.
    ``auc_day_d`` is for whoever has trained up to the beginning of day d: later it is no test.

    Args:
      source: see :func:`read_ratings`.
      batch_size: ratings per gradient, >= 1.
      num_days: days to train on, >= 1.
      dimension: of the embeddings.
      hidden: widths of the perceptron's hidden layers.

    Returns:
      A problem.

    Raises:
      ValueError: if there are fewer than 16 ratings a day.
    """
    require_count("batch_size", batch_size)
    require_count("num_days", num_days)
    columns = read_ratings(source)
    length = len(columns["clicked"]) // (num_days + 1)
    if length * _WINDOW < 1:
        raise ValueError(f"num_days={num_days} leaves {length} ratings a day: fewer than 16")
    sizes = {name: int(columns[name].max()) + 1 for name in ("user", "item")}
    log = jax.tree.map(jnp.asarray, columns)
    day = jnp.arange((num_days + 1) * length) / length
    tests = _rows(log, day, jnp.arange((num_days + 1) * length).reshape(num_days + 1, length))
    return Problem(
        init=Partial(_init, tuple(sizes.items()), dimension, tuple(hidden)),
        loss=click_loss,
        batch=Partial(_draw, batch_size, num_days, log, day),
        evaluate=Partial(evaluate_days, tests),
    )


def _init(sizes: Any, dimension: int, hidden: tuple[int, ...], key: jax.Array) -> Any:
    return init_deep_fm(key, dict(sizes), dimension, hidden)


def _rows(log: Any, day: jax.Array, rows: jax.Array) -> Clicks:
    ids = {name: log[name][rows] for name in ("user", "item")}
    return Clicks(ids, day[rows], log["clicked"][rows])


def _draw(
    batch_size: int,
    num_days: int,
    log: Any,
    days: jax.Array,
    key: jax.Array,
    worker: ArrayLike,
    day: ArrayLike | None = None,
) -> Clicks:
    del worker
    share = jax.random.uniform(key, (batch_size,), days.dtype)
    at = share * num_days if day is None else day + share * _WINDOW
    length = days.shape[0] // (num_days + 1)
    # Beyond the last day to train on there is the test: late jobs draw from that day's end.
    rows = jnp.minimum((at * length).astype(jnp.int32), num_days * length - 1)
    return _rows(log, days, rows)
