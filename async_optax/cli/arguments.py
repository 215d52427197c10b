"""Arguments of methods, from text."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import optax

from async_optax.transforms import weights


def method_arguments(factory: Callable, given: dict[str, str], num_workers: int) -> dict[str, Any]:
    """Picks the given arguments that a factory takes; num_workers comes from the setting."""
    accepted = inspect.signature(factory).parameters
    arguments: dict[str, Any] = {"num_workers": num_workers} if "num_workers" in accepted else {}
    for name, text in given.items():
        if name not in accepted or name == "learning_rate":
            continue
        if name == "weight_fn":
            arguments[name] = _weight(text, num_workers)
            continue
        if text in ("True", "False"):
            arguments[name] = text == "True"
            continue
        if name == "server":
            arguments[name] = _server(text)
            continue
        try:
            arguments[name] = int(text) if text.isdecimal() else float(text)
        except ValueError:
            arguments[name] = text
    return arguments


def _server(text: str) -> Callable[..., optax.GradientTransformation]:
    """An optimizer of Optax by its name, such as ``adam``."""
    found = getattr(optax, text, None)
    if not callable(found) or "learning_rate" not in inspect.signature(found).parameters:
        raise ValueError(f"server must name an optimizer of Optax such as adam, got {text!r}")
    return found


def _weight(text: str, num_workers: int) -> weights.WeightFn:
    """``inverse``, ``concurrency``, ``polynomial:0.5``, ``hinge:10:4``."""
    name, *numbers = text.split(":")
    known = ("constant", "inverse", "polynomial", "hinge", "concurrency", "cutoff", "exponential")
    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.4) or known
        raise ValueError(f"unknown weight {name!r}; nearest: {', '.join(near)}")
    if name == "concurrency" and not numbers:
        return weights.concurrency(num_workers)
    try:
        return getattr(weights, name)(*map(float, numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"weight {text!r}: {error}") from error
