"""The command line: ``async-optax demo | run | cluster | advise | train | replay | ...``."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from async_optax import report
from async_optax.cli.advise import Advise, give_advice
from async_optax.cli.cluster import Cluster, compare
from async_optax.cli.interruption import interruptible
from async_optax.cli.listing import Methods, Protocols, list_methods, list_protocols
from async_optax.cli.replay import Replay, replay_run
from async_optax.cli.run import Demo, Run, hold_contest
from async_optax.cli.train import Train, train_for_real
from async_optax.demo import demo_contest

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Cluster, tyro.conf.subcommand("cluster")]
    | Annotated[Advise, tyro.conf.subcommand("advise")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
    | Annotated[Methods, tyro.conf.subcommand("methods")]
    | Annotated[Protocols, tyro.conf.subcommand("protocols")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; bad input ends in one line on stderr and exit code 2."""
    command = tyro.cli(
        Command,
        prog="async-optax",
        description="Simulate training with delayed workers on one device.",
        args=arguments,
    )
    console = Console()
    try:
        with interruptible():
            _run(command, console)
    except (ValueError, OSError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        print(f"async-optax: error: {' '.join(lines)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("async-optax: interrupted; no file was half-written", file=sys.stderr)
        return 130
    return 0


def _run(command: Any, console: Console) -> None:
    if not isinstance(command, Cluster | Protocols):  # these compute in NumPy
        _require_device()
    match command:
        case Demo():
            hold_contest(demo_contest(), command.output, console)
        case Run():
            hold_contest(command.make(), command.output, console)
        case Cluster():
            compare(command, console)
        case Advise():
            give_advice(command, console)
        case Train():
            train_for_real(command, console)
        case Replay():
            replay_run(command, console)
        case Methods(markdown=True):
            print(report.methods_page(), end="")
        case Methods():
            list_methods(console)
        case Protocols():
            list_protocols(console)


def _require_device() -> None:
    try:
        jax.devices()
    except Exception as error:  # whatever a backend raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"JAX finds no device ({reason}); is JAX_PLATFORMS right?") from error
