"""The command line: ``async-optax demo | run | methods | protocols``."""

import contextlib
import dataclasses
import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import optax

try:
    import tyro
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    from rich.table import Column, Table
except ImportError as error:
    raise ImportError(
        "the command line needs the extra 'experiments': pip install 'async_optax[experiments]'"
    ) from error

from async_optax import noise, optimizers, report
from async_optax.contest import Contest, Entrant, run_contest
from async_optax.demo import demo_contest
from async_optax.problems import digits
from async_optax.timelines import protocols, runtimes
from async_optax.transforms import weights

_PICTURE_TIME = 40.0  # simulated time that the timeline picture shows


@dataclasses.dataclass(frozen=True)
class Demo:
    """Runs the demo contest: digits, 16 workers of which half are slow, heavy-tailed noise."""

    output: Path = Path("results/demo")
    """Folder for summary.json and the pictures."""


@dataclasses.dataclass(frozen=True)
class DigitsProblem:
    """Digits and a multilayer perceptron."""

    hidden: tuple[int, ...] = (32,)
    """Widths of the hidden layers."""
    batch_size: int = 16
    """Images per gradient."""


@dataclasses.dataclass(frozen=True)
class Runtimes:
    """How long jobs take."""

    model: Literal["deterministic", "two_speed", "gamma", "exponential", "pareto"] = "two_speed"
    mean: float = 1.0
    """Mean time of a job (of a fast worker with two_speed; shortest time with pareto)."""
    slow_factor: float = 8.0
    """two_speed: how much slower the slow half is."""
    cv: float = 0.5
    """two_speed and gamma: coefficient of variation of a worker's times; 0 is constant."""
    machine_cv: float = 0.0
    """gamma: coefficient of variation between workers."""
    alpha: float = 1.5
    """pareto: tail index."""

    def make(self) -> runtimes.RuntimeModel:
        """Builds the runtime model."""
        if self.model == "deterministic":
            return runtimes.deterministic(self.mean)
        if self.model == "two_speed":
            law = runtimes.gamma(cv=self.cv) if self.cv != 0 else None
            return runtimes.two_speed(self.slow_factor, fast_time=self.mean, law=law)
        if self.model == "gamma":
            return runtimes.gamma(self.mean, self.cv, self.machine_cv)
        if self.model == "exponential":
            return runtimes.exponential(self.mean)
        return runtimes.pareto(self.alpha, self.mean)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Noise added to every gradient coordinate."""

    model: Literal["none", "alpha_stable", "student_t", "sub_weibull", "gaussian"] = "alpha_stable"
    tail: float = 1.2
    """alpha of alpha_stable, degrees of freedom of student_t, theta of sub_weibull."""
    scale: float = 0.05
    """In gradient units."""

    @property
    def name(self) -> str:
        """How the noise is made, for tables."""
        if self.model == "none":
            return "no noise"
        tail = "" if self.model == "gaussian" else f"{self.tail:g}, "
        return f"{self.model}({tail}scale={self.scale:g}) noise"

    def make(self) -> noise.NoiseModel | None:
        """Builds the noise model."""
        if self.model == "none":
            return None
        if self.model == "gaussian":
            return noise.gaussian(self.scale)
        return getattr(noise, self.model)(self.tail, self.scale)


@dataclasses.dataclass(frozen=True)
class Run:
    """Runs a contest of your own: methods x protocols x learning rates x seeds."""

    methods: tuple[str, ...] = ("sgd", "clipped_sgd", "async_heavy_tailed")
    """Names; `async-optax methods` lists them."""
    protocols: tuple[str, ...] = ("synchronous", "asynchronous")
    """Of synchronous, asynchronous, buffered, buffered_wait."""
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the methods, as name value pairs, such as `max_norm 0.5 clipping global_norm weight_fn
    polynomial:0.5`; each goes to the methods that take it. Weights: constant, inverse, concurrency,
    polynomial:POWER, hinge:SLOPE:THRESHOLD, cutoff:MAX, exponential:RATE."""
    buffer_size: int = 8
    """Uploads per commit of the buffered protocols."""
    problem: Literal["digits"] = "digits"
    digits: DigitsProblem = DigitsProblem()
    runtimes: Runtimes = Runtimes()
    noise: Noise = Noise()
    num_workers: int = 16
    max_time: float = 300.0
    """Simulated time that everyone has."""
    learning_rates: tuple[float, ...] = (0.03125, 0.125, 0.5, 2.0)
    seeds: tuple[int, ...] = (0, 1, 2)
    target: float = 0.8
    """Test accuracy to reach."""
    num_evaluations: int = 100
    """Evenly spaced in simulated time."""
    output: Path = Path("results/run")
    """Folder for summary.json and the pictures."""

    def make(self) -> Contest:
        """Builds the contest."""
        factories = [(method, optimizers.get(method)) for method in self.methods]
        taken: set[str] = set()
        entrants = []
        for name in self.protocols:
            protocol = _protocol(name, self.buffer_size)
            for method, factory in factories:
                arguments = _arguments(factory, self.arguments, self.num_workers)
                taken |= arguments.keys()
                entrants.append(Entrant(method, protocol, arguments, "", name == "synchronous"))
        unused = [name for name in self.arguments if name not in taken]
        if unused:
            raise ValueError(
                f"arguments: no chosen method takes {', '.join(unused)}; "
                "`async-optax methods` lists what each takes"
            )
        with _naming("--digits"):
            problem = digits(self.digits.hidden, self.digits.batch_size)
        with _naming("--noise"):
            problem = problem.with_noise(self.noise.make())
        with _naming("--runtimes"):
            model = self.runtimes.make()
        return Contest(
            problem=problem,
            entrants=entrants,
            runtimes=model,
            num_workers=self.num_workers,
            max_time=self.max_time,
            learning_rates=sorted(self.learning_rates),
            seeds=self.seeds,
            target=self.target,
            num_evaluations=self.num_evaluations,
            description={
                "problem": f"{self.problem}, hidden {self.digits.hidden}, "
                f"batches of {self.digits.batch_size}",
                "noise": self.noise.name,
            },
        )


@dataclasses.dataclass(frozen=True)
class Methods:
    """Lists the registered methods and their arguments."""

    markdown: bool = False
    """Print the page of methods instead: rules, needs, memory, sources."""


@dataclasses.dataclass(frozen=True)
class Protocols:
    """Lists the protocols."""


@contextlib.contextmanager
def _naming(flags: str) -> Iterator[None]:
    """Puts the group of flags before an error that names a function's argument."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{flags}: {error}") from error


_PROTOCOLS: dict[str, tuple[Callable[[int], protocols.Protocol], str]] = {
    "synchronous": (
        lambda size: protocols.synchronous(),
        "The server waits for all workers and commits their mean.",
    ),
    "asynchronous": (
        lambda size: protocols.asynchronous(),
        "Every arrival is a commit; its worker starts again at once.",
    ),
    "buffered": (
        lambda size: protocols.buffered(size, wait=False),
        "The server commits the mean of --buffer-size uploads; workers start again at once.",
    ),
    "buffered_wait": (
        lambda size: protocols.buffered(size, wait=True),
        "The server commits the mean of --buffer-size uploads; uploaders wait for the commit.",
    ),
}


def _protocol(name: str, buffer_size: int) -> protocols.Protocol:
    if name not in _PROTOCOLS:
        near = difflib.get_close_matches(name, _PROTOCOLS, cutoff=0.4) or list(_PROTOCOLS)
        raise ValueError(f"unknown protocol {name!r}; nearest: {', '.join(near)}")
    return _PROTOCOLS[name][0](buffer_size)


def _arguments(factory: Callable, given: dict[str, str], num_workers: int) -> dict[str, Any]:
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


def _require_device() -> None:
    try:
        jax.devices()
    except Exception as error:  # whatever a backend raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(f"JAX finds no device ({reason}); is JAX_PLATFORMS right?") from error


def _run(contest: Contest, output: Path, console: Console) -> None:
    """Runs a contest, writes its results and prints its table."""
    contest.check()
    report.require_writable(output)
    columns = ("runs", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("runs", total=None)
        standings = run_contest(
            contest, lambda done, total: bar.update(task, completed=done, total=total)
        )
    protocols_shown = dict.fromkeys(entrant.protocol for entrant in contest.entrants)
    timelines = {p.name: contest.timeline(p, contest.seeds[0]) for p in protocols_shown}
    until = min(_PICTURE_TIME, contest.max_time)
    with report.all_or_nothing(output) as staging:
        report.plot_accuracy(staging / "accuracy.png", contest, standings)
        report.plot_robustness(staging / "robustness.png", contest, standings)
        report.plot_timelines(staging / "timelines.png", timelines, until)
        report.write_summary(staging / "summary.json", contest, standings)
    console.print(report.standings_table(contest, standings))
    for line in report.legend(contest, standings) + report.describe_divergence(standings):
        console.print(line, highlight=False, soft_wrap=True)
    for name in ("summary.json", "accuracy.png", "robustness.png", "timelines.png"):
        console.print(f"wrote {output / name}", highlight=False)
    reached = any(
        run.time_to_target is not None
        for standing in standings
        for runs in standing.runs.values()
        for run in runs
    )
    if not reached:
        best = max(max(standing.mean_accuracies().values()) for standing in standings)
        raise ValueError(
            f"no run reached the target accuracy {contest.target:g} (best mean: {best:.3f}); "
            "lower --target or raise --max-time"
        )


def _list_methods(console: Console) -> None:
    table = Table(Column("method", no_wrap=True), "what it does", "arguments beside learning_rate")
    for name in optimizers.names():
        factory = optimizers.get(name)
        parameters = list(inspect.signature(factory).parameters.values())[1:]
        table.add_row(
            name, _first_line(factory), "\n".join(map(report.format_parameter, parameters))
        )
    console.print(table)


def _list_protocols(console: Console) -> None:
    table = Table("protocol", "what it does")
    for name, (_, description) in _PROTOCOLS.items():
        table.add_row(name, description)
    console.print(table)


def _first_line(described: Callable) -> str:
    return (inspect.getdoc(described) or "").splitlines()[0].replace("``", "")


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Run, tyro.conf.subcommand("run")]
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
        _require_device()
        match command:
            case Demo():
                _run(demo_contest(), command.output, console)
            case Run():
                _run(command.make(), command.output, console)
            case Methods(markdown=True):
                print(report.methods_page(), end="")
            case Methods():
                _list_methods(console)
            case Protocols():
                _list_protocols(console)
    except (ValueError, OSError, ImportError) as error:
        print(f"async-optax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("async-optax: interrupted; the results folder is as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
