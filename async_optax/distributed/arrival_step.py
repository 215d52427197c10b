"""What one arrival does to the server, jitted, without copies of what it leaves alone."""

import functools
from typing import Any

import jax
import optax
from jax.tree_util import Partial

from async_optax.engine.worker_calls import keeps_state
from async_optax.transforms import Structure, apply_updates, served_params

_Arrival = tuple[Any, Any, Any, Any]  # staleness, worker, job and weight


class ArrivalStep:
    """The jitted step of an arrival.

    An optimizer's state holds arrays that a step returns as they were, such as the empty sum of
    :func:`async_optax.transforms.accumulate_until_commit` when every arrival commits. A jitted
    function would copy them. So it is looked up in the trace which ones these are: they pass by
    the compiled program; what it changes, it may change in place.

    Args:
      structure: of problem, optimizer and worker program, without their numbers.
      job_key: job n has the key ``fold_in(job_key, n)``.
    """

    def __init__(self, structure: Structure, job_key: jax.Array):
        impl = str(jax.random.key_impl(job_key))
        self._key_data = jax.random.key_data(job_key)
        self._traced = functools.partial(_arrive, structure, impl)
        self._structure, self._impl = structure, impl
        self._steps: dict[str, Any] = {}

    def __call__(
        self,
        how: str,
        numbers: tuple[Any, ...],
        params: optax.Params,
        opt_state: optax.OptState,
        update: optax.Updates,
        stale: Any,
        arrival: _Arrival,
    ) -> tuple[optax.Params, optax.OptState]:
        """Applies an arrival.

        Args:
          how: ``"whole"``: a commit of its own; ``"gather"``: a part of one; ``"commit"``: the last
            part.
          numbers: what was split from the structure.
          params: the server's.
          opt_state: the optimizer's; what is changed of it is donated.
          update: what the worker has sent.
          stale: what it had read.
          arrival: staleness, worker, job and weight.

        Returns:
          The parameters and the state after it.
        """
        treedef: Any
        leaves, treedef = jax.tree.flatten(opt_state)
        if how not in self._steps:
            kept = self._kept(how, numbers, params, opt_state, update, stale, arrival)
            step = _compiled(self._structure, self._impl, how, treedef, kept)
            self._steps[how] = kept, step
        kept, step = self._steps[how]
        changing = [leaf for leaf, stays in zip(leaves, kept, strict=True) if not stays]
        staying = [leaf for leaf, stays in zip(leaves, kept, strict=True) if stays]
        new_params, changed = step(
            numbers, params, changing, staying, update, stale, arrival, self._key_data
        )
        opt_state = treedef.unflatten(_merged(kept, changed, staying))
        return (params if how == "gather" else new_params[0]), opt_state

    def _kept(
        self, how: str, numbers: Any, params: Any, opt_state: Any, *rest: Any
    ) -> tuple[bool, ...]:
        """Tells of each leaf of the state whether the step returns it as it was."""
        traced = functools.partial(self._traced, how)
        jaxpr = jax.make_jaxpr(traced)(numbers, params, opt_state, *rest, self._key_data).jaxpr
        num_leaves = len(jax.tree.leaves(opt_state))
        first = len(jax.tree.leaves((numbers, params)))
        given = jaxpr.invars[first : first + num_leaves]
        returned = jaxpr.outvars[len(jax.tree.leaves(params)) :]
        return tuple(one is two for one, two in zip(given, returned, strict=True))


def _merged(kept: tuple[bool, ...], changed: list[Any], staying: list[Any]) -> list[Any]:
    new, old = iter(changed), iter(staying)
    return [next(old if stays else new) for stays in kept]


@functools.lru_cache(maxsize=32)
def _compiled(
    structure: Structure, impl: str, how: str, treedef: Any, kept: tuple[bool, ...]
) -> Any:
    """The jitted part of a step: what is static is bound here, so that a call looks at no trees."""

    def step(
        numbers: tuple[Any, ...],
        params: optax.Params,
        changing: list[Any],
        staying: list[Any],
        update: optax.Updates,
        stale: Any,
        arrival: _Arrival,
        key_data: jax.Array,
    ) -> tuple[tuple[optax.Params, ...], list[Any]]:
        opt_state = treedef.unflatten(_merged(kept, changing, staying))
        params, opt_state = _arrive(
            structure, impl, how, numbers, params, opt_state, update, stale, arrival, key_data
        )
        leaves = jax.tree.leaves(opt_state)
        changed = [leaf for leaf, stays in zip(leaves, kept, strict=True) if not stays]
        return () if how == "gather" else (params,), changed

    return jax.jit(step, donate_argnums=2)


def _arrive(
    structure: Structure,
    impl: str,
    how: str,
    numbers: tuple[Any, ...],
    params: optax.Params,
    opt_state: optax.OptState,
    update: optax.Updates,
    stale: Any,
    arrival: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    key_data: jax.Array,
) -> tuple[optax.Params, optax.OptState]:
    """What one arrival does: the whole of a commit, a commit that ends a gathering, or a part."""
    problem, optimizer, program = structure.join(numbers)
    staleness, worker, job, weight = arrival
    like = jax.eval_shape(served_params, params, opt_state)
    stale = jax.tree.map(lambda x, y: x.astype(y.dtype), stale, like)

    def gradient_fn(at: optax.Params) -> optax.Updates:
        if keeps_state(program):
            raise ValueError(
                "this optimizer computes jobs anew, which needs what their workers keep between "
                "jobs: in a real run only the workers have it. Use a worker program without a state"
            )
        job_key = jax.random.wrap_key_data(key_data, impl=impl)
        return program(problem, at, worker, jax.random.fold_in(job_key, job))[0]

    extra_args = {
        "staleness": staleness,
        "stale_params": stale,
        "worker": worker,
        "gradient_fn": Partial(gradient_fn),
    }
    if how != "whole":
        extra_args |= {"commit": how == "commit", "weight": weight}
    update, opt_state = optimizer.update(update, opt_state, params, **extra_args)
    if how != "gather":
        params = apply_updates(params, update)
    return params, opt_state
