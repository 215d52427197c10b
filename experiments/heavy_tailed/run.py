"""Runs the experiment: ``python -m experiments.heavy_tailed.run --preset cpu``."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from async_optax.report import all_or_nothing, require_writable
from experiments.heavy_tailed.config import PRESETS, Preset, described, with_task
from experiments.heavy_tailed.finetune import Finetuning, finetune
from experiments.heavy_tailed.measure import measure
from experiments.heavy_tailed.tables import RESULTS, claims, tables
from experiments.heavy_tailed.tails import staleness, tail_index
from experiments.heavy_tailed.tasks import load_problem
from experiments.ledger import Ledger
from experiments.runner import versions

FINETUNING = {"finetune-sst2": Finetuning()}
_SHOWN = ("cpu", "cpu-real", *FINETUNING)  # the results of the README


def summarise(name: str, preset: Preset, work: Path, data_dir: str | None) -> dict[str, Any]:
    """Runs a preset, with a progress bar, and returns everything measured as plain data.

    Args:
      name: of the preset.
      preset: how much is computed.
      work: folder in which runs are written as they are done, and looked for.
      data_dir: see :func:`experiments.datasets.data_folder`.
    """
    problems = [load_problem(setting, data_dir) for setting in preset.tasks]  # errors come first
    ledger, measured = Ledger(work / "runs.jsonl"), {}
    started = time.process_time()
    with Progress(transient=True) as progress:
        for setting, problem in zip(preset.tasks, problems, strict=True):
            bar = progress.add_task(f"{setting.name}, runs", total=None)
            found = measure(preset, setting, problem, ledger, lambda b=bar: progress.advance(b))
            found["staleness"] = staleness(preset, setting)
            found["tails"] = []
            if setting.num_samples:
                found["tails"] = ledger.run(
                    described(preset, setting) | {"tails": setting.num_samples},
                    lambda s=setting, p=problem, f=found: {"tails": tail_index(preset, s, p, f)},
                )["tails"]
            found["setting"] = dataclasses.asdict(setting)
            measured[setting.name] = found
    summary = {
        "preset": name,
        "processor_seconds_of_this_call": round(time.process_time() - started),
        "num_workers": preset.num_workers,
        "buffer": preset.buffer,
        "seeds": preset.seeds,
        "fresh": preset.fresh,
        "versions": versions("flax"),
        "tasks": measured,
    }
    summary = json.loads(json.dumps(summary, allow_nan=False))
    return summary | {"claims": claims(summary)}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=(*PRESETS, *FINETUNING), default="cpu")
    parser.add_argument("--tasks", nargs="+", help="of the preset, or another glue/NAME like its")
    parser.add_argument("--checkpoint", help="a folder of BERT, or its name, for tasks of GLUE")
    parser.add_argument("--data-dir", help="folder with tfds/ and models/: ASYNC_OPTAX_DATA")
    parser.add_argument("--output", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    work = options.output or Path("results") / f"heavy_tailed_{options.preset}"
    changed = options.output or options.tasks or options.checkpoint
    output = RESULTS if options.preset in _SHOWN and not changed else work
    try:
        require_writable(work)
        require_writable(output)
        if options.preset in FINETUNING:
            setting = FINETUNING[options.preset]
            if options.checkpoint:
                setting = dataclasses.replace(setting, checkpoint=options.checkpoint)
            results = output / f"{options.preset}.json"
            finetune(setting, work / "checkpoint.npz", results, print, options.data_dir)
            return
        preset = _changed(PRESETS[options.preset], options.tasks, options.checkpoint)
        summary = summarise(options.preset, preset, work, options.data_dir)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    with all_or_nothing(output) as staging:
        text = json.dumps(summary, allow_nan=False)
        (staging / f"{options.preset}.json").write_text(text + "\n")
    print(tables(summary))


def _changed(preset: Preset, tasks: Sequence[str] | None, checkpoint: str | None) -> Preset:
    settings = preset.tasks if tasks is None else tuple(with_task(preset, task) for task in tasks)
    if checkpoint:
        settings = tuple(
            dataclasses.replace(setting, model={"checkpoint": checkpoint})
            if setting.task.startswith("glue/")
            else setting
            for setting in settings
        )
    return dataclasses.replace(preset, tasks=settings)


if __name__ == "__main__":
    main()
