"""Embedding tables: each row is averaged over the gradients that touched it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.accumulation import (
    AccumulateUntilCommitState,
    accumulate_until_commit,
)
from async_optax.transforms.precision import scale_or_drop, working_dtype
from async_optax.transforms.sweepable import sweepable

Tables = Callable[[str], bool] | Any
"""``is_table(path) -> bool``, or a pytree of booleans, a prefix of the parameters."""


class AverageTouchedRowsState(NamedTuple):
    """State of :func:`average_touched_rows`.

    Attributes:
      row_weights: like params, with ``[num_rows]`` for a table, the weight of the arrivals since
        the last commit that touched each row, and ``None`` for other parameters.
      gathering: what has been gathered since, and the server's state.
    """

    row_weights: Any
    gathering: AccumulateUntilCommitState


@sweepable
def average_touched_rows(
    inner: optax.GradientTransformation,
    is_table: Tables,
    lazy: bool = False,
    argument: str = "is_table",
) -> optax.GradientTransformationExtraArgs:
    """Gathers arrivals until a commit; rows of tables are divided by the weight that touched them.

    Arrival i of a commit has gradient g_i and weight w_i, such as 1/M for M arrivals. Parameters
    that are no table receive ``sum_i w_i * g_i``, as from
    :func:`async_optax.transforms.accumulate_until_commit`, in whose place this stands. Row r of
    a table receives ``sum_i w_i * g_i[r] / sum_i w_i * touched_i[r]``, where ``touched_i[r]`` is 1
    if any entry of ``g_i[r]`` is not zero: the mean over the arrivals in which the ID occurs, so
    that the step of a rare ID does not shrink with M. A row that no arrival touched receives
    exactly zero, and one that all of them touched the same as without.

    Args:
      inner: the server's transformation, which sees the result at each commit.
      is_table: which parameters are tables, ``[num_rows, ...]``: a function of the path, such as
        ``lambda path: path.startswith("tables/")`` for ``params["tables"]["user"]``; or a pytree
        of booleans like params, or a prefix of them, ``{"tables": True, "dense": False}``.
      lazy: whether rows that no arrival of a commit touched stay where they are, and their
        moments too, as with the sparse optimizers of embedding systems. Otherwise momentum moves
        them. A step count within ``inner`` counts all commits. The whole table is read and
        written all the same.
      argument: what messages call ``is_table``, for whoever passes it on.

    Returns:
      A transformation whose ``update`` takes ``commit`` (bool scalar) and ``weight`` (float
      scalar), both or neither. Without them every arrival commits in full: no average is left
      to take.

    Raises:
      TypeError: if ``inner`` is not a transformation, ``is_table`` says anything but booleans, or
        ``lazy`` is not one; in ``update``, if only one of ``commit`` and ``weight`` is given.
      ValueError: in ``init``, if a table has no rows, if there is none, if ``is_table`` is no
        prefix of the parameters, or if the state of ``inner`` does not have a row for each of
        theirs and ``lazy`` is set.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> tx = average_touched_rows(optax.sgd(1.0), is_table={"table": True, "bias": False})
      >>> params = {"table": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
      >>> first = {"table": jnp.array([[2.0], [2.0], [0.0]]), "bias": jnp.array([2.0])}
      >>> other = {"table": jnp.array([[0.0], [4.0], [0.0]]), "bias": jnp.array([4.0])}
      >>> _, state = tx.update(first, tx.init(params), params, commit=False, weight=0.5)
      >>> updates, _ = tx.update(other, state, params, commit=True, weight=0.5)
      >>> print(updates["bias"], updates["table"].T)
      [-3.] [[-2. -3. -0.]]

    References:
      Su et al., `GBA <https://arxiv.org/abs/2205.11048>`_, 2022. Certainty: our reading; by
      weight instead of by number, which is the same at equal weights, and an ID whose gradient
      is exactly zero counts as absent. ``lazy`` is the rule of ``torch.optim.SparseAdam``.
    """
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f"inner must be a gradient transformation, got {inner!r}")
    if not isinstance(lazy, bool):
        raise TypeError(f"lazy must be True or False, got {lazy!r}")
    inner = optax.with_extra_args_support(inner)

    def average(
        total: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        row_weights: Any,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        """The server's step on a commit."""
        mean = jax.tree.map(_mean_over_touching, total, row_weights)
        out, new_state = inner.update(mean, state, params, **extra_args)
        if not lazy:
            return out, new_state
        out = jax.tree.map(lambda u, w: _where_touched(w, u, jnp.zeros_like(u)), out, row_weights)
        tags = _touched_of_state(inner, new_state, row_weights)
        return out, jax.tree.map(_where_tagged, tags, new_state, state)

    gather = accumulate_until_commit(optax.GradientTransformationExtraArgs(inner.init, average))

    def init_fn(params: optax.Params) -> AverageTouchedRowsState:
        tables = _marked(is_table, params, argument)
        if not any(jax.tree.leaves(tables)):
            raise ValueError(f"{argument} marks none of the parameters {_paths(params)}")
        row_weights = jax.tree.map(
            functools.partial(_no_weights, argument), _named(params), params, tables
        )
        gathering = gather.init(params)
        if lazy:
            _touched_of_state(inner, gathering.inner_state, row_weights)
        return AverageTouchedRowsState(row_weights, gathering)

    def update_fn(
        updates: optax.Updates,
        state: AverageTouchedRowsState,
        params: optax.Params | None = None,
        *,
        commit: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageTouchedRowsState]:
        tables = _marked(is_table, updates, argument)
        row_weights = jax.tree.map(_touched, updates, tables)
        if weight is not None:
            row_weights = jax.tree.map(
                lambda w, touched: w + scale_or_drop(touched, weight),
                state.row_weights,
                row_weights,
            )
        out, gathering = gather.update(
            updates,
            state.gathering,
            params,
            commit=commit,
            weight=weight,
            row_weights=row_weights,
            **extra_args,
        )
        if commit is None:
            return out, state._replace(gathering=gathering)
        left = jax.tree.map(lambda w: jnp.where(commit, jnp.zeros_like(w), w), row_weights)
        return out, AverageTouchedRowsState(left, gathering)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _marked(is_table: Tables, tree: Any, argument: str) -> Any:
    """A pytree of booleans like ``tree``."""

    def checked(mark: Any) -> bool:
        if not isinstance(mark, bool):
            raise TypeError(f"{argument} must say True or False of each parameter, got {mark!r}")
        return mark

    if callable(is_table):
        return jax.tree.map(lambda path: checked(is_table(path)), _named(tree))
    marked: Any = jax.tree.structure(is_table)
    try:
        parts = marked.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{argument} must be a pytree of booleans like the parameters {_paths(tree)}, or a "
            f"prefix of them, got {is_table!r}"
        ) from error
    marks = (
        jax.tree.map(lambda _, mark=mark: checked(mark), part)
        for mark, part in zip(jax.tree.leaves(is_table), parts, strict=True)
    )
    return jax.tree.unflatten(marked, list(marks))


def _named(tree: Any) -> Any:
    """Each leaf's path, such as ``tables/user``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def _paths(tree: Any) -> str:
    return ", ".join(jax.tree.leaves(_named(tree)))


def _no_weights(argument: str, name: str, x: jax.Array, is_table: bool) -> jax.Array | None:
    if not is_table:
        return None
    if x.ndim == 0:
        raise ValueError(f"a table has rows, but {name} is a scalar: {argument} must not mark it")
    return jnp.zeros(x.shape[0], working_dtype(x))


def _touched(g: jax.Array, is_table: bool) -> jax.Array | None:
    """1 for each row with an entry that is not zero, else 0."""
    if not is_table:
        return None
    return jnp.any(g != 0, axis=tuple(range(1, g.ndim))).astype(working_dtype(g))


def _column(row_weights: jax.Array, x: jax.Array) -> jax.Array:
    """``row_weights`` in a shape that broadcasts to ``x``, which has as many rows."""
    return row_weights.reshape(-1, *[1] * (x.ndim - 1))


def _mean_over_touching(total: jax.Array, row_weights: jax.Array | None) -> jax.Array:
    if row_weights is None:
        return total
    # Rows without weight have a sum of zero: divided by one, it stays so.
    divisor = _column(jnp.where(row_weights > 0, row_weights, jnp.ones_like(row_weights)), total)
    return (total.astype(divisor.dtype) / divisor).astype(total.dtype)


def _where_touched(row_weights: jax.Array | None, new: jax.Array, old: jax.Array) -> jax.Array:
    return new if row_weights is None else jnp.where(_column(row_weights, new) > 0, new, old)


def _where_tagged(tag: Any, new: jax.Array, old: jax.Array) -> jax.Array:
    return new if tag is True else jnp.where(tag, new.astype(old.dtype), old)


def _touched_of_state(
    inner: optax.GradientTransformation, state: optax.OptState, row_weights: Any
) -> Any:
    """Like the state: for what belongs to a table, which rows are touched; ``True`` elsewhere."""

    def tag(leaf: jax.Array, weights: jax.Array | None) -> Any:
        if weights is None:
            return True
        if leaf.shape[:1] != weights.shape:
            raise ValueError(
                f"lazy needs one row of state for each of a table's {weights.shape[0]} rows, but "
                f"the state of inner has shape {leaf.shape}"
            )
        return _column(weights, leaf) > 0

    return optax.tree_utils.tree_map_params(
        inner, tag, state, row_weights, transform_non_params=lambda _: True
    )
