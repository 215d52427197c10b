"""The compiled program of a batch: a chunk, executed in every cell."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import PyTreeDef

from async_optax.engine.program import execute_chunk
from async_optax.engine.states import Chunk, Server, Structures

CELLS = "cells"
"""Name of the axis of a mesh whose devices share the cells out."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is static about a batch.

    Attributes:
      structures: of each cell.
      treedef: of a cell's numbers and key.
      is_shared: for each leaf, whether all cells have the same.
      strategy: ``"loop"`` or ``"vmap"``.
      mesh: devices, or ``None``.
    """

    structures: Structures
    treedef: PyTreeDef
    is_shared: tuple[bool, ...]
    strategy: str
    mesh: Mesh | None


@functools.partial(jax.jit, static_argnames="layout", donate_argnames="servers")
def run_batch(
    layout: Layout, shared: list, own: list, servers: Server, chunk: Chunk
) -> tuple[Server, jax.Array, jax.Array]:
    """Executes a chunk in all cells.

    Args:
      layout: the static part.
      shared: numbers and data that all cells have.
      own: those that differ, ``[num_cells, ...]``.
      servers: states ``[num_cells, ...]``; donated.
      chunk: what to execute.

    Returns:
      What :func:`async_optax.engine.program.run_chunk` does, ``[num_cells, ...]``.
    """

    def execute(shared: list, own: list, servers: Server, chunk: Chunk) -> Any:
        def cell(own: list, server: Server) -> Any:
            of_all, of_cell = iter(shared), iter(own)
            leaves = [next(of_all if same else of_cell) for same in layout.is_shared]
            numbers, key = jax.tree.unflatten(layout.treedef, leaves)
            return execute_chunk(layout.structures, numbers, server, chunk, key)

        if layout.strategy == "vmap":
            return jax.vmap(cell)(own, servers)
        return _one_after_another(cell, own, servers)

    if layout.mesh is not None:
        everywhere, split = PartitionSpec(), PartitionSpec(CELLS)
        execute = jax.shard_map(
            execute,
            mesh=layout.mesh,
            in_specs=(everywhere, split, split, everywhere),
            out_specs=split,
            check_vma=False,
        )
    return execute(shared, own, servers, chunk)


def _one_after_another(cell: Callable, own: list, servers: Server) -> Any:
    """Executes the cells in turn; each takes its server out of the stack and puts it back.

    The stack is carried, so that it is updated in place: ``lax.map`` would write a second one.
    """

    def execute(servers: Server, turn: tuple[jax.Array, list]) -> tuple[Server, Any]:
        place, own = turn
        server = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, place, keepdims=False), servers)
        server, records, evaluations = cell(own, server)
        servers = jax.tree.map(
            lambda x, new: lax.dynamic_update_index_in_dim(x, new, place, 0), servers, server
        )
        return servers, (records, evaluations)

    num_cells = len(jax.tree.leaves(servers)[0])
    turns = jnp.arange(num_cells, dtype=jnp.int32), own
    servers, (records, evaluations) = lax.scan(execute, servers, turns)
    return servers, records, evaluations
