"""The commands ``methods`` and ``protocols``: what there is."""

import dataclasses
import inspect
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from async_optax import optimizers, report
from async_optax.cli.protocols import FORMS


@dataclasses.dataclass(frozen=True)
class Methods:
    """Lists the registered methods and their arguments."""

    markdown: bool = False
    """Print the page of methods instead: rules, needs, memory, sources."""


@dataclasses.dataclass(frozen=True)
class Protocols:
    """Lists the protocols and how to write them."""


def list_methods(console: Console) -> None:
    """Prints the methods and their arguments."""
    table = Table(Column("method", no_wrap=True), "what it does", "arguments beside learning_rate")
    for name in optimizers.names():
        factory = optimizers.get(name)
        parameters = list(inspect.signature(factory).parameters.values())[1:]
        table.add_row(
            name, _first_line(factory), "\n".join(map(report.format_parameter, parameters))
        )
    console.print(table)


def list_protocols(console: Console) -> None:
    """Prints the protocols as ``run`` and ``cluster`` take them."""
    table = Table(Column("protocol", no_wrap=True), "what it does")
    for form in FORMS.values():
        table.add_row(escape(form.usage), _first_line(form.factory))
    table.add_row("buffered, buffered_wait", "The same with the --buffer-size of `run`.")
    console.print(table)


def _first_line(described: Callable) -> str:
    return (inspect.getdoc(described) or "").splitlines()[0].replace("``", "")
