"""The runs: every method at every learning rate and seed, in every setting."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import async_optax as ao
from experiments.pc_asgd.config import (
    GRAPHS,
    METHODS,
    PAIRWISE,
    Factory,
    Preset,
    Setting,
    delayed_methods,
    split,
    undelayed_methods,
)
from experiments.pc_asgd.images import SOURCES, Images
from experiments.pc_asgd.network import convolutional

METRICS = ("accuracy", "mean_accuracy", "lowest_accuracy", "consensus_distance")
RUNTIMES = ao.runtimes.gamma(cv=0.5)
_LAST = 0.25  # of the evaluations: what a run ends at is their mean


def load_images(preset: Preset) -> Images:
    """Returns the images of a preset."""
    return SOURCES[preset.data](**preset.images)


def num_runs(preset: Preset, settings: Sequence[Setting]) -> int:
    """Returns how many runs there will be."""
    mixing = GRAPHS[preset.graphs[0]](preset.num_agents)
    once = len(undelayed_methods(mixing)) + 1
    places = {(setting.graph, setting.split) for setting in settings}
    num_curves = once * len(places) + len(delayed_methods(mixing, 1)) * len(settings)
    return num_curves * len(preset.learning_rates) * len(preset.seeds)


def measure(
    preset: Preset,
    images: Images,
    settings: Sequence[Setting],
    strategy: str,
    report: Callable[[], None],
) -> dict[str, Any]:
    """Runs all methods in all settings.

    AD-PSGD has as many gradients as the methods that go in rounds. What no delay reaches is run
    once for a graph and a split.

    Args:
      preset: how much is computed.
      images: the data.
      settings: of the preset.
      strategy: of :func:`async_optax.sweep`.
      report: called after each method.

    Returns:
      For each setting, method and metric, ``[num_rates, num_seeds, num_evaluations]``.
    """
    measured: dict[str, Any] = {}
    undelayed: dict[tuple[str, str], Any] = {}
    for setting in settings:
        mixing = GRAPHS[setting.graph](preset.num_agents)
        partition = split(setting.split, images.train_labels, preset.num_agents)
        single = convolutional(images, partition, preset.channels, preset.batch_size)
        swept = functools.partial(
            _swept,
            preset,
            ao.gossip.problem(single, preset.num_agents, each_agent=True),
            strategy,
            report,
        )
        in_rounds = functools.partial(swept, _rounds(preset, mixing), "rounds")
        place = setting.graph, setting.split
        if place not in undelayed:
            undelayed[place] = in_rounds(undelayed_methods(mixing)) | swept(
                functools.partial(_arrivals, preset),
                "arrivals",
                {PAIRWISE: functools.partial(ao.optimizers.ad_psgd, graph=mixing)},
            )
        found = undelayed[place] | in_rounds(delayed_methods(mixing, setting.delay))
        measured[setting.name] = {name: found[name] for name in METHODS}
    return measured


def ending(curves: np.ndarray) -> np.ndarray:
    """Returns the mean over the last quarter of the evaluations, the last axis."""
    last = max(1, round(_LAST * (curves.shape[-1] - 1)))
    return curves[..., -last:].mean(-1)


def best_rate(curves: Mapping[str, Any]) -> int:
    """Returns the index of the learning rate with the best final accuracy, a mean over seeds."""
    return int(np.argmax(ending(np.array(curves["accuracy"])).mean(1)))


def _rounds(preset: Preset, mixing: Any) -> ao.Timeline:
    return ao.gossip.timeline(mixing, RUNTIMES, preset.num_rounds)


def _arrivals(preset: Preset, seed: int) -> ao.Timeline:
    num_gradients = preset.num_rounds * preset.num_agents
    return ao.simulate_timeline(
        ao.protocols.asynchronous(),
        RUNTIMES,
        preset.num_agents,
        num_commits=num_gradients,
        seed=seed,
    )


def _swept(
    preset: Preset,
    problem: ao.Problem,
    strategy: str,
    report: Callable[[], None],
    timeline: Any,
    kind: str,
    factories: Mapping[str, Factory],
) -> dict[str, Any]:
    if kind == "rounds":
        worker, gradients_per_commit = ao.gossip.gradients(preset.lanes), preset.num_agents
    else:
        worker, gradients_per_commit = ao.gossip.agent_gradient(), 1
    num_commits = preset.num_rounds * preset.num_agents // gradients_per_commit
    measured = {}
    for name, factory in factories.items():
        dataset = ao.sweep(
            problem,
            {name: factory},
            {"timeline": timeline},
            seeds=preset.seeds,
            grid={"learning_rate": preset.learning_rates},
            worker=worker,
            evaluate_every=num_commits // preset.num_evaluations,
            strategy=strategy,
        )
        cells = dataset.isel(optimizer=0, timeline=0).transpose("learning_rate", "seed", ...)
        measured[name] = {"diverged": (cells["status"] == "diverged").values.tolist()}
        for metric in METRICS:
            # What has diverged guesses: it counts with an accuracy of 0, and has no distance.
            values = np.nan_to_num(cells[metric].values, nan=0.0, posinf=0.0)
            measured[name][metric] = np.round(values, 4).tolist()
        report()
    return measured
