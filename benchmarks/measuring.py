"""What the benchmarks share: turns, ratios, memory, the machine, and results on disk.

Contestants run in turns within one process, in an order that alternates, so that a slow minute of
the machine or warm caches favour nobody; a ratio is the median over the turns. Runs of two lengths
tell the time per arrival (their slope) from what every run costs once.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np
import optax

RESULTS = Path("benchmarks/results")
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def parser(doc: str, turns: int) -> argparse.ArgumentParser:
    """The options that every benchmark has: ``--output``, ``--turns``, ``--quick``."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    options.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    options.add_argument("--turns", type=int, default=turns, help="the medians are over these")
    options.add_argument(
        "--quick", action="store_true", help="small sizes and one turn: only shows that it runs"
    )
    return options


def pin_to_one_thread() -> None:
    """Starts this script again on one core, with single-threaded matrix products, unless it is."""
    cores, flags = os.sched_getaffinity(0), os.environ.get("XLA_FLAGS", "")
    if len(cores) == 1 and ONE_THREAD in flags:
        return
    os.sched_setaffinity(0, {max(cores)})  # the first core serves most interrupts
    environment = os.environ | {"XLA_FLAGS": f"{flags} {ONE_THREAD}".strip()}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call, until its arrays are there."""
    started = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - started


def in_turns(contestants: Mapping[Any, Callable[[], Any]], turns: int) -> dict[Any, list[float]]:
    """Seconds of each contestant, by turn; every other turn goes through them backwards."""
    measured: dict[Any, list[float]] = {name: [] for name in contestants}
    for turn in range(turns):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            measured[name].append(seconds(contestants[name]))
    return measured


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median over turns of the ratio within a turn."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


class TwoLengths(NamedTuple):
    """What runs of two lengths cost, by contestant.

    Attributes:
      slope: seconds per arrival, by turn: what a longer run costs more, per arrival.
      whole: seconds per arrival of the longer run, fixed cost included, by turn.
      fixed: median seconds that a run costs whatever its length; noise may make it negative.
      first_call: seconds of the first short run, compilation included.
    """

    slope: dict[str, list[float]]
    whole: dict[str, list[float]]
    fixed: dict[str, float]
    first_call: dict[str, float]

    def summary(self) -> dict[str, dict[str, float]]:
        """The medians, by contestant, for the JSON."""
        return {
            name: {
                "microseconds_per_arrival": 1e6 * statistics.median(self.slope[name]),
                "microseconds_per_arrival_whole_run": 1e6 * statistics.median(self.whole[name]),
                "fixed_seconds": self.fixed[name],
                "first_call_seconds": self.first_call[name],
            }
            for name in self.slope
        }


def by_two_lengths(
    runs: Mapping[str, Callable[[int], Any]], lengths: tuple[int, int], turns: int
) -> TwoLengths:
    """Times ``runs[name](length)`` at both lengths, in turns, after a call that compiles."""
    short, long = lengths
    contestants = {
        (name, length): (lambda run=run, length=length: run(length))
        for name, run in runs.items()
        for length in lengths
    }
    first = {contestant: seconds(run) for contestant, run in contestants.items()}
    measured = in_turns(contestants, turns)
    slope, whole, fixed = {}, {}, {}
    for name in runs:
        pairs = list(zip(measured[name, short], measured[name, long], strict=True))
        slope[name] = [(b - a) / (long - short) for a, b in pairs]
        whole[name] = [b / long for _, b in pairs]
        fixed[name] = statistics.median(a - short * (b - a) / (long - short) for a, b in pairs)
    return TwoLengths(slope, whole, fixed, {name: first[name, short] for name in runs})


def memory_bandwidth(num_bytes: int = 1 << 28, turns: int = 7) -> float:
    """Bytes per second between one core and memory, reads and writes counted.

    A large array is incremented in place: each byte is read once and written once, and since a
    line that is written has been read before, nothing moves that is not counted.
    """
    array = np.zeros(num_bytes // 4, np.float32)
    np.add(array, 1, out=array)  # touches its pages
    times = [seconds(lambda: np.add(array, 1, out=array)) for _ in range(turns)]
    return 2 * array.nbytes / statistics.median(times)


def peak_bytes() -> int:
    """The most memory this process has held at once.

    Not ``ru_maxrss``, which starts at what the parent held when it started this process.
    """
    return _kilobytes("/proc/self/status", "VmHWM") * 1024


def available_bytes() -> int:
    """Memory that a process may still take."""
    return _kilobytes("/proc/meminfo", "MemAvailable") * 1024


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function of a module in a fresh process, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def machine() -> dict[str, Any]:
    """What was measured on; ``cores_used`` are those this process may run on."""
    models = (line for line in _lines("/proc/cpuinfo") if line.startswith("model name"))
    name = next(models, f": {platform.processor() or platform.machine()}")
    device = jax.devices()[0]
    return {
        "processor": name.split(":", 1)[1].strip(),
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "memory_gibibytes": round(_kilobytes("/proc/meminfo", "MemTotal") / 2**20, 1),
        "device": str(device),
        "device_kind": device.device_kind,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def write_results(folder: Path, name: str, results: Mapping[str, Any]) -> Path:
    """Writes ``name.json`` with the machine first: a reader never sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    unfinished = path.with_suffix(".unfinished")
    content = {"machine": machine(), **results}
    unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    unfinished.replace(path)
    print(f"wrote {path}")
    return path


def _lines(path: str) -> Iterable[str]:
    return Path(path).read_text().splitlines()


def _kilobytes(path: str, field: str) -> int:
    line = next(line for line in _lines(path) if line.startswith(f"{field}:"))
    return int(line.split()[1])
