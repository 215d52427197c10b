"""The commands ``run`` and ``demo``: contests of methods and protocols."""

import dataclasses
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from async_optax import optimizers, report
from async_optax.cli.arguments import method_arguments
from async_optax.cli.interruption import stop_if_interrupted
from async_optax.cli.protocols import parse_protocol
from async_optax.cli.setting import Noise, Runtimes, naming
from async_optax.contest import Contest, Entrant, run_contest
from async_optax.problems import digits
from async_optax.timelines import protocols

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
class Run:
    """Runs a contest of your own: methods x protocols x learning rates x seeds."""

    methods: tuple[str, ...] = ("sgd", "clipped_sgd", "async_heavy_tailed")
    """Names; `async-optax methods` lists them."""
    protocols: tuple[str, ...] = ("synchronous", "asynchronous")
    """Such as synchronous, buffered:8:wait or rennala:16; `async-optax protocols` lists them.
    buffered and buffered_wait without a number take --buffer-size."""
    arguments: dict[str, str] = dataclasses.field(default_factory=dict)
    """Of the methods, as name value pairs, such as `max_norm 0.5 clipping global_norm weight_fn
    polynomial:0.5`; each goes to the methods that take it. Weights: constant, inverse, concurrency,
    polynomial:POWER, hinge:SLOPE:THRESHOLD, cutoff:MAX, exponential:RATE."""
    buffer_size: int = 8
    """Uploads per commit of the buffered protocols that do not say."""
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
        for text in self.protocols:
            protocol = parse_protocol(text, self.buffer_size)
            for method, factory in factories:
                arguments = method_arguments(factory, self.arguments, self.num_workers)
                taken |= arguments.keys()
                baseline = protocol == protocols.synchronous()
                entrants.append(Entrant(method, protocol, arguments, "", baseline))
        unused = [name for name in self.arguments if name not in taken]
        if unused:
            raise ValueError(
                f"arguments: no chosen method takes {', '.join(unused)}; "
                "`async-optax methods` lists what each takes"
            )
        with naming("--digits"):
            problem = digits(self.digits.hidden, self.digits.batch_size)
        with naming("--noise"):
            problem = problem.with_noise(self.noise.make())
        with naming("--runtimes"):
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


def hold_contest(contest: Contest, output: Path, console: Console) -> None:
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
        stop_if_interrupted()
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
