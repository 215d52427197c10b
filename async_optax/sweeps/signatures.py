"""What a factory takes of a grid's names."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Signature:
    """The arguments of a factory by name.

    Attributes:
      owner: whose they are, for messages.
      accepted: arguments that can be given by name.
      required: those without a default.
      fixed: those that ``functools.partial`` has given already.
      takes_any: whether there is a ``**kwargs``.
    """

    owner: str
    accepted: frozenset[str]
    required: frozenset[str]
    fixed: frozenset[str]
    takes_any: bool

    def names(self, grid: Iterable[str]) -> tuple[str, ...]:
        """Returns which of these names the factory takes."""
        return tuple(name for name in grid if self.takes_any or name in self.accepted)

    def check_required(self, grid: Iterable[str]) -> None:
        """Raises ``ValueError`` if an argument has neither a default nor a value in the grid."""
        missing = self.required - set(grid)
        if missing:
            raise ValueError(
                f"{self.owner} needs {', '.join(sorted(missing))}: give it in the grid, or fix it "
                "by functools.partial"
            )

    def check_fixed(self, grid: Iterable[str]) -> None:
        """Raises ``ValueError`` if the grid would override what was fixed."""
        clash = [name for name in grid if name in self.fixed]
        if clash:
            raise ValueError(
                f"{self.owner} fixes {', '.join(clash)} by functools.partial, and the grid has it "
                "too"
            )


def read_signature(factory: Callable[..., Any], owner: str) -> Signature:
    """Returns what a factory takes.

    Args:
      factory: a function, a class or a ``functools.partial`` of one.
      owner: its name, for messages.

    Returns:
      The signature.

    Raises:
      TypeError: if Python cannot tell, or an argument can only be given by position.

    Example:
      >>> def sgd(learning_rate, momentum=0.9): ...
      >>> signature = read_signature(functools.partial(sgd, momentum=0.5), "optimizer 'sgd'")
      >>> signature.required, signature.fixed
      (frozenset({'learning_rate'}), frozenset({'momentum'}))
    """
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError as error:
        raise TypeError(f"{owner} must have a signature: wrap it in a function") from error
    empty = inspect.Parameter.empty
    by_position = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is empty]
    if by_position:
        raise TypeError(
            f"{owner} takes {', '.join(by_position)} by position only: wrap it in a function"
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    fixed = factory.keywords if isinstance(factory, functools.partial) else {}
    return Signature(
        owner=owner,
        accepted=frozenset(p.name for p in named),
        required=frozenset(p.name for p in named if p.default is empty),
        fixed=frozenset(fixed),
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )
