"""Peak memory of a run, known before it starts."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from async_optax.engine.processes import least_of_processes


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """Bytes that a run holds at its peak, per device.

    Attributes:
      data: numbers and data of the problem, and the plan's part of one call.
      params: the parameters and the optimizer's state.
      slots: the live versions.
      temporaries: gradients of a wave, activations, and results, as the compiler plans them.
      workers: what each worker keeps between its jobs.
    """

    data: int
    params: int
    slots: int
    temporaries: int
    workers: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return self.data + self.params + self.slots + self.temporaries + self.workers

    def __str__(self) -> str:
        parts = ", ".join(
            f"{field.name} {_readable(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if field.name != "workers" or self.workers  # most programs keep nothing
        )
        return f"{_readable(self.total)} ({parts})"


def require_memory(
    use: MemoryUse, device: jax.Device, num_rows: int, mesh: Mesh | None = None, resident: int = 0
) -> None:
    """Raises if a run cannot fit into what a device has left.

    Args:
      use: what it needs on each device.
      device: one of those where it will run.
      num_rows: versions held in slots.
      mesh: all of these, or ``None``. Those of a CPU share one memory; processes that share the
        mesh decide together.
      resident: bytes of the data that each device holds already.

    Raises:
      ValueError: saying what takes the memory and what to do.
    """
    known = available_bytes(device)
    available = least_of_processes(float("inf") if known is None else known, mesh)
    sharing = len(mesh.local_devices) if mesh is not None and device.platform == "cpu" else 1
    if sharing * (use.total - resident) > available:
        each = f" on each of {sharing} devices" if sharing > 1 else ""
        slots = f"slots hold {num_rows} versions; " if num_rows else ""
        narrower = "slot_dtype=jnp.bfloat16, " if num_rows else ""
        raise ValueError(
            f"the run needs {use}{each}, and {device} has {_readable(int(available))} left: "
            f"{slots}use fewer workers, {narrower}fewer lanes, a smaller model, or "
            "ao.data.streamed if it is the data"
        )


def available_bytes(device: jax.Device) -> int | None:
    """Returns the bytes that can still be allocated on a device, or ``None`` if nobody knows."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu":
        return None
    known = [free for free in (_host_bytes(), _control_group_bytes()) if free is not None]
    return min(known, default=None)


def _readable(num_bytes: int) -> str:
    units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
    size, unit = next((pair for pair in units if num_bytes >= pair[0]), (1, "B"))
    number = num_bytes / size
    return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"


def num_bytes(tree: Any) -> int:
    """Returns the bytes of the arrays of a pytree, given as arrays or as shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def temporary_bytes(compiled: Any) -> int:
    """Returns what a compiled program allocates beside its arguments; 0 if nobody knows."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.temp_size_in_bytes + results


def _host_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: what is installed is an upper bound
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" not in names:
            return None
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(kilobytes["MemAvailable"]) << 10 if "MemAvailable" in kilobytes else None


def _control_group_bytes() -> int | None:
    """What the control group leaves; containers are limited so."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return int(limit) - used if limit != "max" else None
