"""Pictures of timelines: who computes, who waits, when the server commits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from async_optax.report.plots import save_figure
from async_optax.timelines import Timeline

_COMPUTE, _WAIT, _COMMIT = "#56B4E9", "#DDDDDD", "#D55E00"


def plot_timelines(path: Path, timelines: Mapping[str, Timeline], until: float) -> None:
    """Draws the first moments of timelines, one panel each, one row per worker.

    Args:
      path: a picture file; its suffix decides the format.
      timelines: by title.
      until: simulated time at which the picture ends.
    """
    figure = Figure(figsize=(10, 0.7 + 2.1 * len(timelines)), layout="constrained")
    panels = figure.subplots(len(timelines), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, timeline) in zip(panels, timelines.items(), strict=True):
        draw_timeline(axes, timeline, until)
        note = ": the end of every job is a commit" if timeline.commit.all() else ""
        axes.set_title(title + note, loc="left", fontsize=10)
    panels[-1].set_xlabel("simulated time")
    legend = [
        Patch(color=_COMPUTE, label="computes"),
        Patch(color=_WAIT, label="waits"),
        Patch(color=_COMMIT, label="server commits"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=3)
    save_figure(figure, path)


def draw_timeline(axes: Any, timeline: Timeline, until: float) -> None:
    """Draws one timeline: a bar per job, grey where a worker waits, a line per commit.

    Where every arrival commits there are no lines: they would hide the jobs.
    """
    starts = np.concatenate([timeline.start_time, timeline.lost.start_time])
    ends = np.concatenate([timeline.time, timeline.lost.stop_time])
    workers = np.concatenate([timeline.worker, timeline.lost.worker])
    shown = starts < until
    starts, ends, workers = starts[shown], np.minimum(ends[shown], until), workers[shown]
    everyone = np.arange(timeline.num_workers)
    axes.barh(everyone, np.full(timeline.num_workers, until), height=0.8, color=_WAIT)
    axes.barh(
        workers, ends - starts, left=starts, height=0.8, color=_COMPUTE, edgecolor="white", lw=0.6
    )
    if not timeline.commit.all():
        commits = timeline.commit_times[timeline.commit_times <= until]
        axes.vlines(commits, -0.5, timeline.num_workers - 0.5, color=_COMMIT, linewidth=1.5)
    axes.set(ylabel="worker", xlim=(0, until), ylim=(timeline.num_workers - 0.5, -0.5))
