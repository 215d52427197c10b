"""What is compared, and the presets."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from async_optax import optimizers, topologies
from async_optax.data import Partition, equal_partition, label_partition
from async_optax.transforms.mixing_matrix import Mixing

GRAPHS: Mapping[str, Callable[[int], Mixing]] = {
    "ring": topologies.ring,
    "complete": topologies.complete,
}
Factory = Callable[..., Any]

FRESH, STALE, CLIP, PREDICT = "D-PSGD, no delay", "D-PSGD, stale", "C-ASGD", "P-ASGD"
PRACTICAL, OPPOSED, PAIRWISE = "PC-ASGD-PV", "PC-ASGD-PV, opposed", "AD-PSGD"
THETAS = (0.25, 0.5, 0.75)
STRENGTH = 1.0  # lambda; the paper's range is (0, 1], as far as we recall


@dataclasses.dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes:
      data: name of the images.
      images: arguments of their source.
      channels: of the network's blocks.
      batch_size: images per gradient.
      graphs: who is linked with whom.
      num_agents: agents.
      num_rounds: gradients per agent.
      num_evaluations: evenly spaced.
      delays: in rounds, of the links that are late.
      splits: how images are dealt out, see :func:`split`.
      learning_rates: of which each method takes its best.
      seeds: of initialisation, batches and times.
      lanes: agents side by side.
    """

    data: str
    images: Mapping[str, int]
    channels: tuple[int, ...]
    batch_size: int
    graphs: tuple[str, ...]
    num_agents: int
    num_rounds: int
    num_evaluations: int
    delays: tuple[int, ...]
    splits: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    lanes: int = 1


_RATES = tuple(0.025 * 2.0**k for k in range(6))
PRESETS = {
    "smoke": Preset(
        "digits", {}, (4,), 8, ("ring",), 4, 12, 3, (2,), ("random",), (0.1, 0.2), (0, 1)
    ),
    "cpu": Preset(
        "digits",
        {},
        (8, 16),
        16,
        ("ring", "complete"),
        8,
        480,
        12,
        (4, 16),
        ("random", "skewed"),
        _RATES,
        (0, 1, 2),
    ),
    "cpu-cifar10": Preset(
        "cifar10",
        {"num_train": 20_000, "num_test": 1_000},
        (16, 16, 32),
        32,
        ("ring", "complete"),
        8,
        600,
        6,
        (4,),
        ("random",),
        (0.05, 0.1, 0.2, 0.4),
        (0, 1, 2),
    ),
    "gpu": Preset(
        "cifar10",
        {},
        (32, 64, 128),
        64,
        ("ring", "complete"),
        8,
        4000,
        20,
        (4, 16),
        ("random", "skewed"),
        _RATES,
        (0, 1, 2),
        lanes=8,
    ),
}
LATE_FRACTION, LATE_SEED = 0.5, 0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A graph, a split of the data and a delay.

    Attributes:
      graph: name of a topology.
      split: how images are dealt out.
      delay: of late links, in rounds.
    """

    graph: str
    split: str
    delay: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.graph}, {self.split}, delay {self.delay}"


def settings(preset: Preset) -> list[Setting]:
    """Returns all settings of a preset."""
    return [
        Setting(graph, split, delay)
        for split in preset.splits
        for graph in preset.graphs
        for delay in preset.delays
    ]


def split(name: str, labels: np.ndarray, num_agents: int) -> Partition:
    """Deals images out: ``"random"`` in equal parts, ``"skewed"`` by class, Dirichlet(0.3)."""
    if name == "skewed":
        return label_partition(labels, num_agents, concentration=0.3, min_size=16)
    return equal_partition(len(labels), num_agents)


def undelayed_methods(mixing: Mixing) -> dict[str, Factory]:
    """Returns the methods in rounds that no delay reaches, each a function of the learning rate."""
    return {
        FRESH: functools.partial(optimizers.d_psgd, mixing=mixing),
        CLIP: functools.partial(optimizers.c_asgd, mixing=mixing, delayed=late_links(mixing)),
    }


def delayed_methods(mixing: Mixing, delay: int) -> dict[str, Factory]:
    """Returns the methods in rounds that use what comes late, likewise."""
    late = late_links(mixing)
    arguments = {"mixing": mixing, "delayed": late, "delay": delay, "strength": STRENGTH}
    pc_asgd = functools.partial(optimizers.pc_asgd, **arguments)
    practical = functools.partial(optimizers.pc_asgd_practical, **arguments)
    return {
        STALE: functools.partial(optimizers.d_psgd, mixing=mixing, delays=delay * late),
        PREDICT: functools.partial(optimizers.p_asgd, **arguments),
        **{theta_name(theta): functools.partial(pc_asgd, theta=theta) for theta in THETAS},
        PRACTICAL: practical,
        OPPOSED: functools.partial(practical, prefer="opposed"),
    }


def late_links(mixing: Mixing) -> np.ndarray:
    """Returns half of the links, drawn at random and the same for all methods and seeds."""
    return topologies.delayed_links(mixing, LATE_FRACTION, LATE_SEED)


def theta_name(theta: float) -> str:
    """Returns the name of PC-ASGD at a fixed theta."""
    return f"PC-ASGD {theta:g}"


METHODS = (FRESH, STALE, CLIP, PREDICT, *map(theta_name, THETAS), PRACTICAL, OPPOSED, PAIRWISE)
