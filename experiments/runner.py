"""The command line of experiments with presets, whose runs are stored as they end."""

import argparse
import dataclasses
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from async_optax.report import all_or_nothing, require_writable
from experiments.ledger import Ledger

_PACKAGES = ("async_optax", "jax", "optax", "numpy")


def versions(*others: str) -> dict[str, str]:
    """Returns the versions of the packages that every experiment is computed with, and of others.

    Example:
      >>> list(versions("flax"))
      ['async_optax', 'jax', 'optax', 'numpy', 'flax']
    """
    return {name: importlib.metadata.version(name) for name in (*_PACKAGES, *others)}


def described(preset: Any) -> dict[str, Any]:
    """Returns a preset as plain data, as it is read from stored results."""
    return json.loads(json.dumps(dataclasses.asdict(preset)))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What an experiment is made of.

    Attributes:
      question: that it asks; the first line is shown with ``--help``.
      presets: dataclasses by name; the numbers of ``"smoke"`` mean nothing.
      measure: runs a preset; from it, a :class:`experiments.ledger.Ledger` and a function that is
        told what has been measured, to plain data by name.
      tables: of a summary, as text.
      draw: writes the figures of a summary into a folder.
      results: folder for results, in that of the experiment, whose name is the ledger's.
    """

    question: str
    presets: Mapping[str, Any]
    measure: Callable[..., dict[str, Any]]
    tables: Callable[[Mapping[str, Any]], str]
    draw: Callable[[Path, Mapping[str, Any]], None]
    results: Path

    @property
    def name(self) -> str:
        """The folder of the experiment."""
        return self.results.parent.name

    def parser(self) -> argparse.ArgumentParser:
        """Returns the options that all have."""
        parser = argparse.ArgumentParser(description=self.question.splitlines()[0])
        parser.add_argument("--preset", choices=tuple(self.presets), default="cpu")
        parser.add_argument(
            "--output", type=Path, default=self.results, help="folder for the results"
        )
        stored = f"file of runs, by default results/{self.name}_PRESET.jsonl"
        parser.add_argument("--ledger", type=Path, help=stored)
        return parser

    def parse(
        self, parser: argparse.ArgumentParser, arguments: Sequence[str] | None
    ) -> argparse.Namespace:
        """Returns the options; ends the program if they would overwrite results with a smoke's."""
        options = parser.parse_args(arguments)
        if options.preset == "smoke" and options.output == self.results:
            parser.error("--preset smoke needs an --output of its own: its numbers mean nothing")
        return options

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Runs the command line."""
        self.run(self.parse(self.parser(), arguments))

    def run(self, options: argparse.Namespace, **chosen: Any) -> None:
        """Runs a preset, stores its summary and figures, all or nothing, and prints its tables.

        Args:
          options: of :meth:`parse`.
          **chosen: other arguments of ``measure``.
        """
        path = options.ledger or Path("results") / f"{self.name}_{options.preset}.jsonl"
        try:
            require_writable(options.output)
            require_writable(path.parent)
            summary = self._summary(options.preset, Ledger(path), chosen)
        except (OSError, ImportError, ValueError) as error:
            sys.exit(str(error))
        with all_or_nothing(options.output) as staging:
            text = json.dumps(summary, allow_nan=False)
            (staging / f"{options.preset}.json").write_text(text + "\n")
            self.draw(staging, summary)
        print(self.tables(summary))

    def _summary(self, name: str, ledger: Ledger, chosen: Mapping[str, Any]) -> dict[str, Any]:
        preset, started = self.presets[name], time.perf_counter()

        def done(what: str) -> None:
            print(f"{time.perf_counter() - started:6.0f} s  {what}", flush=True)

        measured = self.measure(preset, ledger, done, **chosen)
        return {
            "name": name,
            "preset": described(preset),
            "seconds": round(time.perf_counter() - started),
            "runs": len(ledger),
            "versions": versions("flax"),
            **measured,
        }
