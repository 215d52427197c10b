"""The page of methods, generated from the registry: rules, needs, costs and sources."""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from async_optax import optimizers
from async_optax.transforms import served_params

# For arguments without a default; counts may be any, as memory is fitted over two of them.
_EXAMPLES: dict[str, float] = {"max_norm": 1.0, "max_staleness": 4.0, "num_steps": 3.0}
_SIZE = 1000

_PREAMBLE = """\
# Methods

Generated from the registry by `async-optax methods --markdown`; the docstrings are the
specification. The rule is for one arrival (or commit): g is the gradient, x the server's
parameters, s what the gradient was computed on, tau the staleness.

*needs*: the extra arguments that `update` requires, which `simulate` provides. *memory*: size of
the state in copies of the parameters, n being the number of workers; one of them is the sum that a
commit gathers. *looks ahead*: workers are served something else than x (not where x itself is the
look-ahead point). *certainty* is what our rule rests on: the authors' code, public code of others,
the full text of the paper, its abstract, secondary sources, memory of it, or our reading of it.
"""


@dataclasses.dataclass(frozen=True)
class MethodDescription:
    """What the page says of a method.

    Attributes:
      name: in the registry.
      summary: first line of the docstring.
      rule: the paragraphs after it, as Markdown.
      arguments: ``name=default`` of all but the learning rate.
      explained: each argument's name and what the docstring says of it, as Markdown.
      needs: extra arguments that ``update`` requires.
      memory: such as ``"1 + n"``.
      looks_ahead: whether its state serves other parameters than the server's.
      source: the first reference, as Markdown.
      certainty: what the rule rests on.
    """

    name: str
    summary: str
    rule: str
    arguments: tuple[str, ...]
    explained: tuple[tuple[str, str], ...]
    needs: tuple[str, ...]
    memory: str
    looks_ahead: bool
    source: str
    certainty: str


def describe_method(name: str) -> MethodDescription:
    """Describes a registered method from its docstring and from what it does.

    Args:
      name: of the method.

    Returns:
      The description.

    Raises:
      ValueError: if the name is unknown or the docstring lacks a part.

    Example:
      >>> dana = describe_method("dana")
      >>> print(dana.needs, dana.memory, dana.certainty)
      ('worker',) 1 + n full text
    """
    factory = optimizers.get(name)
    doc = inspect.cleandoc(factory.__doc__ or "")
    body, _, references = doc.partition("\nArgs:")
    explained = references.partition("\nReturns:")[0]
    summary, _, rule = body.partition("\n\n")
    references = " ".join(references.partition("\nReferences:")[2].split())
    cited = re.search(r"`(?P<title>[^`<]+) <(?P<url>[^>]+)>`_, (?P<year>\d{4})", references)
    certainty = re.search(r"Certainty: ([\w' ]+)", references)
    if not cited or not certainty:
        raise ValueError(f"the docstring of {name} must cite a source and say how certain it is")
    copies = [_state_size(factory, num_workers) for num_workers in (4, 8)]
    per_worker = (copies[1] - copies[0]) / 4
    shared = round(copies[0] - 4 * per_worker)
    return MethodDescription(
        name=name,
        summary=_markdown(" ".join(summary.split())),
        rule=_markdown(rule.strip()),
        arguments=tuple(map(format_parameter, _parameters(factory)[1:])),
        explained=tuple(_arguments(explained)),
        needs=_needs(factory),
        memory=f"{shared} + n" if per_worker else str(shared),
        looks_ahead=_looks_ahead(factory),
        source=f"[{cited['title']}]({cited['url']}), {cited['year']}",
        certainty=certainty[1].strip(),
    )


def methods_page() -> str:
    """Returns the page of all registered methods as Markdown.

    Example:
      >>> "| [sgd](#sgd) |" in methods_page()
      True
    """
    described = [describe_method(name) for name in optimizers.names()]
    lines = [
        _PREAMBLE,
        "| method | needs | memory | looks ahead | source | certainty |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for d in described:
        needs = ", ".join(f"`{argument}`" for argument in d.needs) or "-"
        cells = [f"[{d.name}](#{d.name})", needs, d.memory, "yes" if d.looks_ahead else "-"]
        lines.append(f"| {' | '.join([*cells, d.source, d.certainty])} |")
    for d in described:
        lines += ["", f"## {d.name}", "", d.summary]
        if d.rule:
            lines += ["", d.rule]
        lines += ["", f"`{d.name}({', '.join(['learning_rate', *d.arguments])})`", ""]
        lines += [f"- `{name}`: {text}" for name, text in d.explained]
    return "\n".join(lines) + "\n"


def format_parameter(parameter: inspect.Parameter) -> str:
    """Returns ``name`` or ``name=default`` as a reader would write it."""
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    default = parameter.default
    if callable(default):
        return f"{parameter.name}={default.__module__.split('.')[0]}.{default.__name__}"
    return f"{parameter.name}={default!r}"


def _parameters(factory: Callable) -> list[inspect.Parameter]:
    return list(inspect.signature(factory).parameters.values())


def _make(factory: Callable, num_workers: int = 4) -> optax.GradientTransformationExtraArgs:
    examples: dict[str, Any] = {"learning_rate": 0.1, "num_workers": num_workers, **_EXAMPLES}
    needed = [p.name for p in _parameters(factory) if p.default is inspect.Parameter.empty]
    return factory(**{name: examples[name] for name in needed})


def _state_size(factory: Callable, num_workers: int) -> float:
    params = jax.ShapeDtypeStruct((_SIZE,), jnp.float32)
    state = jax.eval_shape(_make(factory, num_workers).init, params)
    # Scalars of the state are no copies: they vanish beside the parameters.
    return sum(x.size // _SIZE for x in jax.tree.leaves(state))


def _needs(factory: Callable) -> tuple[str, ...]:
    tx, x = _make(factory), jnp.zeros(2)
    given = {"staleness": jnp.int32(0), "stale_params": x, "worker": jnp.int32(0)}

    def fails_without(argument: str) -> bool:
        rest = {name: value for name, value in given.items() if name != argument}
        try:
            jax.eval_shape(lambda: tx.update(x, tx.init(x), x, **rest))
        except TypeError:
            return True
        return False

    return tuple(argument for argument in given if fails_without(argument))


def _looks_ahead(factory: Callable) -> bool:
    tx, x = _make(factory), jnp.ones(2)
    given = {"staleness": jnp.int32(0), "stale_params": x, "worker": jnp.int32(0)}
    state, moved = tx.init(x), False
    for _ in range(2):
        _, state = tx.update(x, state, x, **given)
        moved |= bool(jnp.any(served_params(x, state) != x))
    return moved


def _arguments(section: str) -> list[tuple[str, str]]:
    """Names and texts of a docstring's ``Args``."""
    parts = re.split(r"^  (\w+): ", section, flags=re.MULTILINE)[1:]
    texts = [_markdown(" ".join(text.split())) for text in parts[1::2]]
    return list(zip(parts[::2], texts, strict=True))


def _markdown(text: str) -> str:
    """Sphinx roles and literals as Markdown; a block after ``::`` is indented already."""
    text = re.sub(r":\w+:`(?:~)?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("::\n", ":\n").replace("``", "`")
