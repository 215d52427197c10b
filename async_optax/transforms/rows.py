"""Updates of a few rows: of a stack of copies, only those of the agents that took part move."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class RowUpdates(NamedTuple):
    """What an update adds to some rows of parameters that are stacked along their first axis.

    Attributes:
      rows: int32 ``[num_rows]``, which rows; one that comes twice receives both.
      values: like params, with ``num_rows`` in the place of the first axis.
    """

    rows: jax.Array
    values: optax.Updates


def apply_updates(params: optax.Params, updates: optax.Updates | RowUpdates) -> optax.Params:
    """Returns ``params + updates``, like :func:`optax.apply_updates`; updates may be of rows.

    Args:
      params: a pytree.
      updates: like params, or :class:`RowUpdates` of them. Those cost what the rows cost, not what
        the stack does.

    Returns:
      A pytree like params.

    Example:
      >>> import jax.numpy as jnp
      >>> rows = RowUpdates(jnp.array([2]), jnp.array([[5.0]]))
      >>> print(apply_updates(jnp.zeros((3, 1)), rows).T)
      [[0. 0. 5.]]
    """
    if not isinstance(updates, RowUpdates):
        return optax.apply_updates(params, updates)
    return jax.tree.map(
        lambda x, rows: x.at[updates.rows].add(jnp.asarray(rows, x.dtype)), params, updates.values
    )
