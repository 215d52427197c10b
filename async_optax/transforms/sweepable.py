"""Factories whose numbers are pytree leaves, so that sweeping them compiles nothing."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import Partial, PyTreeDef


@dataclasses.dataclass(frozen=True)
class Structure:
    """What is left of a pytree once its numbers are taken out: hashable, hence static.

    Two trees that differ only in their numbers have equal structures, so a function
    compiled for one serves the other.

    Attributes:
      treedef: the pytree's definition, functions of ``Partial`` nodes included.
      fixed: ``(position, leaf)`` of every leaf that is not a number.
    """

    treedef: PyTreeDef
    fixed: tuple[tuple[int, Hashable], ...]

    def join(self, numbers: tuple[Any, ...]) -> Any:
        """Puts ``numbers`` back and returns the pytree."""
        leaves = list(numbers)
        for position, leaf in self.fixed:
            leaves.insert(position, leaf)
        return jax.tree.unflatten(self.treedef, leaves)


def split_numbers(tree: Any) -> tuple[tuple[Any, ...], Structure]:
    """Splits a pytree into its numbers and its structure.

    Floats and arrays are numbers. Integers may decide shapes, so they belong to the structure,
    with booleans, strings and functions.

    Args:
      tree: any pytree, such as an optimizer made by a :func:`sweepable` factory.

    Returns:
      ``(numbers, structure)`` with ``structure.join(numbers)`` equal to ``tree``.

    Raises:
      TypeError: if a leaf is neither a number nor hashable.

    Example:
      >>> numbers, structure = split_numbers({"a": 2.5, "b": "l2", "c": 3})
      >>> numbers
      (2.5,)
      >>> structure.join((4.0,))
      {'a': 4.0, 'b': 'l2', 'c': 3}
    """
    leaves, treedef = jax.tree.flatten(tree)
    numbers = tuple(leaf for leaf in leaves if _is_number(leaf))
    fixed = tuple((i, leaf) for i, leaf in enumerate(leaves) if not _is_number(leaf))
    for _, leaf in fixed:
        if type(leaf).__hash__ is None:
            raise TypeError(
                f"{leaf!r} is neither a number nor hashable: use a function, a frozen "
                "dataclass, or jax.tree_util.Partial"
            )
    return numbers, Structure(treedef, fixed)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, float | np.floating | np.ndarray | jax.Array)


def _as_float(leaf: Any) -> Any:
    """Turns a Python or NumPy scalar into a float, which is weakly typed once traced."""
    is_scalar = isinstance(leaf, int | float | np.number) and not isinstance(leaf, bool)
    return float(leaf) if is_scalar else leaf


def sweepable(
    factory: Callable[..., optax.GradientTransformation] | None = None,
    *,
    static_argnames: tuple[str, ...] = (),
) -> Callable[..., Any]:
    """Makes the numeric arguments of a factory leaves of what it returns.

    An Optax transformation is a pair of closures: a new learning rate is a new closure, and
    a new closure is a new compilation. What a decorated factory returns is a pytree instead:
    ``init`` and ``update`` are :class:`jax.tree_util.Partial` nodes over the numbers, which
    :func:`async_optax.simulate` passes to the compiled program as arguments. The wrapped
    factory runs once when it is called, so that its checks raise there, and again inside
    each trace, where its numbers are tracers: it may validate concrete values only.

    Args:
      factory: returns a gradient transformation and has no ``*args`` or ``**kwargs``.
        Numbers (integers as floats), and pytrees of numbers (weights, other sweepable
        transformations), become leaves; strings, booleans, ``None`` and plain functions such
        as schedules are static.
      static_argnames: arguments that stay static although they are numbers, because they
        decide shapes.

    Returns:
      A factory of the same signature; without ``factory``, a decorator.

    Example:
      >>> import jax, optax
      >>> @sweepable
      ... def doubled_sgd(learning_rate):
      ...     return optax.sgd(2 * learning_rate)
      >>> jax.tree.leaves(doubled_sgd(0.5).update)
      [0.5]
    """
    if factory is None:
        return functools.partial(sweepable, static_argnames=static_argnames)
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        factory(**bound.arguments)
        static = tuple((name, bound.arguments.pop(name)) for name in static_argnames)
        numbers, structure = split_numbers(jax.tree.map(_as_float, dict(bound.arguments)))
        return optax.GradientTransformationExtraArgs(
            Partial(_Init(factory, static, structure), numbers),
            Partial(_Update(factory, static, structure), numbers),
        )

    return make


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """A factory and the static part of its arguments."""

    factory: Callable[..., optax.GradientTransformation]
    static: tuple[tuple[str, Hashable], ...]
    structure: Structure

    def build(self, numbers: tuple[Any, ...]) -> optax.GradientTransformationExtraArgs:
        """Returns what the factory makes of these numbers."""
        arguments = self.structure.join(numbers)
        return optax.with_extra_args_support(self.factory(**arguments, **dict(self.static)))


class _Init(Rebuilt):
    def __call__(self, numbers: tuple[Any, ...], params: optax.Params) -> optax.OptState:
        return self.build(numbers).init(params)


class _Update(Rebuilt):
    def __call__(
        self,
        numbers: tuple[Any, ...],
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        return self.build(numbers).update(updates, state, params, **extra_args)
