"""The registry of named methods: what the CLI, the sweeps and the conformance tests find."""

import difflib
import functools
from collections.abc import Callable
from typing import Any

import optax

from async_optax.transforms import sweepable

Factory = Callable[..., optax.GradientTransformationExtraArgs]

_METHODS: dict[str, Factory] = {}


def register(
    factory: Callable[..., optax.GradientTransformation] | None = None,
    *,
    static_argnames: tuple[str, ...] = (),
) -> Any:
    """Adds a method to the registry under its own name and makes it sweepable.

    Args:
      factory: takes ``learning_rate`` (number or schedule) first and returns a chain that
        contains :func:`async_optax.transforms.accumulate_until_commit`.
      static_argnames: arguments that decide shapes, such as a number of workers.

    Returns:
      The sweepable factory; without ``factory``, a decorator.

    Raises:
      ValueError: if the name is taken.
    """
    if factory is None:
        return functools.partial(register, static_argnames=static_argnames)
    name = factory.__name__
    if name in _METHODS:
        raise ValueError(f"method {name!r} is registered already")
    _METHODS[name] = sweepable(factory, static_argnames=static_argnames)
    return _METHODS[name]


def names() -> tuple[str, ...]:
    """Returns the names of all registered methods, sorted.

    Example:
      >>> "dc_asgd" in names()
      True
    """
    return tuple(sorted(_METHODS))


def get(name: str) -> Factory:
    """Returns the factory registered under ``name``.

    Raises:
      TypeError: if ``name`` is not a string.
      ValueError: if there is none; the message lists the nearest names.

    Example:
      >>> get("cliped_sgd")
      Traceback (most recent call last):
      ...
      ValueError: unknown method 'cliped_sgd'; nearest: clipped_sgd
    """
    if not isinstance(name, str):
        raise TypeError(f"a method is named by a string, got {name!r}")
    if name not in _METHODS:
        near = difflib.get_close_matches(name, _METHODS) or names()
        raise ValueError(f"unknown method {name!r}; nearest: {', '.join(near)}")
    return _METHODS[name]


def make(name: str, **arguments: Any) -> optax.GradientTransformationExtraArgs:
    """Builds a registered method.

    Args:
      name: the method's name.
      **arguments: of its factory.

    Raises:
      ValueError: if the name is unknown, an argument is, or a value is out of range.

    Example:
      >>> make("clipped_sgd", learning_rate=0.1, max_norm=1.0).init(None)[0]
      EmptyState()
    """
    factory = get(name)
    try:
        return factory(**arguments)
    except TypeError as error:
        raise ValueError(f"method {name!r}: {error}") from error
