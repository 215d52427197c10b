"""Pictures of timelines: who computes, who waits, when the server commits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from async_optax.report.gantt import KINDS, MAX_ROWS, describe_commits, draw_timeline
from async_optax.report.plots import require_some, save_figure
from async_optax.timelines import Timeline

_LEAST_HEIGHT, _ROW_HEIGHT = 2.1, 0.085  # inches


def plot_timelines(path: Path | str, timelines: Mapping[str, Timeline], until: float) -> None:
    """Draws the first moments of timelines, one panel each, one row per worker.

    :func:`draw_timeline` says what is drawn; the legend shows what occurs.

    Args:
      path: a picture file; its suffix decides the format.
      timelines: by title.
      until: simulated time at which the picture ends.

    Raises:
      ValueError: if there are none.
    """
    require_some(timelines)
    rows = max(min(timeline.num_workers, MAX_ROWS) for timeline in timelines.values())
    height = max(_LEAST_HEIGHT, _ROW_HEIGHT * rows)
    figure = Figure(figsize=(10, 0.7 + height * len(timelines)), layout="constrained")
    panels = figure.subplots(len(timelines), 1, sharex=True, squeeze=False)[:, 0]
    handles: dict[str, Any] = {}
    for axes, (title, timeline) in zip(panels, timelines.items(), strict=True):
        handles |= draw_timeline(axes, timeline, until)
        note = describe_commits(timeline, until)
        axes.set_title(f"{title}: {note}" if note else title, loc="left", fontsize=10)
    panels[-1].set_xlabel("simulated time")
    found = [kind for kind in KINDS if kind in handles]
    shown = [handles[kind] for kind in found]
    columns = len(found) if len(found) <= 5 else -(-len(found) // 2)
    figure.legend(shown, found, loc="outside lower center", ncols=columns)
    save_figure(figure, path)
