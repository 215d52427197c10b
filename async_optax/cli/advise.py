"""The command ``advise``: which learning rate, protocol and clip, before any run?"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from async_optax import report
from async_optax.advice import Advice, advise
from async_optax.cli.cluster import Cluster
from async_optax.cli.interruption import stop_if_interrupted
from async_optax.cli.protocols import parse_protocol
from async_optax.cli.run import DigitsProblem
from async_optax.cli.setting import Noise, Runtimes, naming
from async_optax.engine import Problem
from async_optax.problems import attention, click_logs, digits

_WIDTH = 100
_FILES = ("advice.json", "advice.png")


@dataclasses.dataclass(frozen=True)
class Advise:
    """Which method, protocol, clip and learning rate? Measures the problem, and gives reasons."""

    problem: Literal["digits", "attention", "click_logs"] = "digits"
    """digits: a perceptron; attention: a small transformer on the same images; click_logs:
    embeddings on generated impressions."""
    digits: DigitsProblem = DigitsProblem()
    """For the problem digits; --digits.batch-size is that of attention, too."""
    noise: Noise = Noise(model="none")
    """Added to every gradient coordinate, on top of that of batches."""
    trace: Path | None = None
    """Measured jobs: a CSV or Parquet file with the columns worker, start and finish. Without it
    --runtimes says how long jobs take."""
    pooled: bool = False
    """With a trace: every worker draws from the times of all, so that any --num-workers goes."""
    runtimes: Runtimes = Runtimes()
    num_workers: int | None = None
    """By default those of the trace, or 16."""
    protocols: tuple[str, ...] = ()
    """Such as synchronous, buffered:8:wait or rennala:16; `async-optax protocols` lists them. By
    default six kinds; synchronous is always there to compare with."""
    max_time: float | None = None
    """Simulated time that the run is to take; by default about 200 jobs of the median worker."""
    learning_rate: float | None = None
    """Of your own, to be judged and marked in the picture."""
    warm_up_steps: int = 1000
    """Gradients that the curvature and progress are measured on."""
    num_samples: int = 1000
    """Gradients that the noise is judged by, at the start and at the end of the warm-up."""
    seed: int = 0
    output: Path = Path("results/advice")
    """Folder for advice.json and advice.png."""

    def make(self) -> Problem:
        """Builds the problem."""
        with naming("--digits"):
            size = self.digits.batch_size
            if self.problem == "digits":
                problem = digits(self.digits.hidden, size)
            elif self.problem == "attention":
                problem = attention(batch_size=size)
            else:
                problem = click_logs()
        with naming("--noise"):
            return problem.with_noise(self.noise.make())


def give_advice(command: Advise, console: Console) -> None:
    """Measures, writes the results and prints the advice."""
    cluster = Cluster(command.trace, command.pooled, command.runtimes, (), command.num_workers)
    model, num_workers, facts = cluster.workers()
    chosen = [parse_protocol(text) for text in command.protocols]
    problem = command.make()
    report.require_writable(command.output)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task("measuring", total=None)
    with contextlib.ExitStack() as started:

        def show(done: int, total: int) -> None:
            if not bar.live.is_started:  # not before the arguments are found to be right
                started.enter_context(bar)
            bar.update(task, completed=done, total=total)

        advice = advise(
            problem,
            model,
            num_workers,
            protocols=chosen or None,
            max_time=command.max_time,
            learning_rate=command.learning_rate,
            warm_up_steps=command.warm_up_steps,
            num_samples=command.num_samples,
            seed=command.seed,
            progress=show,
        )
    setting: dict[str, Any] = {
        "problem": command.problem,
        "noise": command.noise.name,
        "trace": None if command.trace is None else str(command.trace),
        "pooled": command.pooled,
    }
    with report.all_or_nothing(command.output) as staging:
        report.write_advice(staging / _FILES[0], advice, setting)
        report.plot_advice(staging / _FILES[1], advice)
        stop_if_interrupted()
    before = [
        f"{command.problem}, {command.noise.name}; {model.name}, {num_workers} workers, "
        f"time {advice.max_time:g}"
    ]
    before += report.describe_facts(facts) if facts else []
    _show(console, advice, before, command.output)


def _show(console: Console, advice: Advice, before: list[str], output: Path) -> None:
    # Narrower, the tables would fall apart: rather let the terminal wrap their lines.
    wide = console if console.is_terminal and console.width >= _WIDTH else Console(width=_WIDTH)

    def lines(texts: list[str]) -> None:
        for text in texts:
            wide.print(escape(text), highlight=False, soft_wrap=True)

    lines([*before, *report.describe_measured(advice), ""])
    wide.print(report.protocol_advice_table(advice))
    lines([*report.advice_legend(advice), ""])
    wide.print(report.reasons_table(advice.reasons))
    lines(["", *(f"wrote {output / name}" for name in _FILES)])
