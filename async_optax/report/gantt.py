"""Who does what when: a row per worker."""

from typing import Any

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from async_optax.timelines import Reason, Timeline

MAX_ROWS = 40  # that can still be told apart
_HEIGHT = 0.8  # of a bar
_DENSE = 400  # bars per row from which their edges would hide them
_MAX_LINES = 200  # of commits, which more of would hide the jobs
_COMMIT = "#D55E00"
COMMITS = "server commits"
# In the order of the legend: blue is work that counts, purple is work for nothing.
_STYLES: dict[str, dict[str, Any]] = {
    "computes": {"facecolor": "#56B4E9", "edgecolor": "white"},
    "transfers": {"facecolor": "#0072B2", "edgecolor": "white"},
    "computes, but is rejected": {"facecolor": "#CDE7F8", "edgecolor": "#56B4E9", "hatch": "////"},
    "aborted": {"facecolor": "#F6DDEA", "edgecolor": "#CC79A7", "hatch": "\\\\\\\\"},
    "past its time limit": {"facecolor": "#F6DDEA", "edgecolor": "#CC79A7", "hatch": "----"},
    "lost with its worker": {"facecolor": "#F6DDEA", "edgecolor": "#CC79A7", "hatch": "xxxx"},
    "waits": {"facecolor": "#DDDDDD", "edgecolor": "none"},
    "away": {"facecolor": "white", "edgecolor": "#BBBBBB", "hatch": "...."},
}
_WAITS = "waits"
KINDS = (*_STYLES, COMMITS)
_REASONS = {
    Reason.UNFINISHED: "computes",
    Reason.ABORTED: "aborted",
    Reason.EXPIRED: "past its time limit",
    Reason.FAILED: "lost with its worker",
}
_Bars = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # workers, starts, ends


def draw_timeline(axes: Any, timeline: Timeline, until: float) -> dict[str, Any]:
    """Draws the first moments of a timeline: a bar per job, a line per commit.

    Lost jobs have their reason; those that still run at the end of the timeline compute. Lost
    jobs, and those, are not split into transfers and computation. Grey is waiting, for others or
    for the server. Of more than 40 workers, 40 are drawn, evenly chosen. Where all that is accepted
    commits, or more than 200 commits are made, there are no lines: they would hide the jobs.

    Args:
      axes: of Matplotlib.
      timeline: what to draw.
      until: simulated time at which the picture ends.

    Returns:
      What occurs in the picture, in words, and a handle of it for the legend.
    """
    until = min(until, timeline.end_time)
    shown = shown_workers(timeline.num_workers)
    row = np.full(timeline.num_workers, -1)
    row[shown] = np.arange(len(shown))
    bars, covered = _jobs(timeline), np.zeros(len(shown))
    handles: dict[str, Any] = {}
    axes.barh(np.arange(len(shown)), until, height=_HEIGHT, color=_STYLES[_WAITS]["facecolor"])
    for kind, parts in bars.items():
        worker, start, end = (np.concatenate(column) for column in zip(*parts, strict=True))
        seen = (row[worker] >= 0) & (start < until) & (end > start)
        if seen.any():
            rows, start, end = row[worker[seen]], start[seen], np.minimum(end[seen], until)
            _draw_bars(axes, rows, start, end, _STYLES[kind])
            handles[kind] = Patch(**_STYLES[kind] | {"linewidth": 0})
            covered += np.bincount(rows, end - start, minlength=len(shown))
    if (covered < until * (1 - 1e-9)).any():
        handles[_WAITS] = Patch(**_STYLES[_WAITS])
    if not describe_commits(timeline, until):
        commits = timeline.commit_times[timeline.commit_times <= until]
        axes.vlines(commits, -0.5, len(shown) - 0.5, color=_COMMIT, linewidth=1.5)
        if len(commits):
            handles[COMMITS] = Line2D([], [], color=_COMMIT, linewidth=2)
    _label_rows(axes, timeline.num_workers, shown)
    axes.set(xlim=(0, until), ylim=(len(shown) - 0.5, -0.5))
    return handles


def shown_workers(num_workers: int) -> np.ndarray:
    """Returns which workers are drawn: all, or 40 of them from the first to the last."""
    return np.unique(
        np.linspace(0, num_workers - 1, min(num_workers, MAX_ROWS)).round().astype(int)
    )


def describe_commits(timeline: Timeline, until: float) -> str:
    """Returns what a picture without lines for the commits must say of them, else nothing."""
    if timeline.commit[timeline.accepted].all():
        if timeline.accepted.all() and not timeline.lost.aborted.any():
            return "the end of every job is a commit"
        return "the end of every accepted job is a commit"
    num_commits = int(np.sum(timeline.commit_times <= until))
    return f"{num_commits} commits" if num_commits > _MAX_LINES else ""


def _label_rows(axes: Any, num_workers: int, shown: np.ndarray) -> None:
    step = next(step for step in (1, 2, 5, 10, 20, 40) if len(shown) / step <= 9 or step == 40)
    rows = np.arange(0, len(shown), 1 if len(shown) <= 4 else step)
    axes.set_yticks(rows, [str(worker) for worker in shown[rows]])
    some = len(shown) < num_workers
    axes.set_ylabel(f"worker ({len(shown)} of {num_workers})" if some else "worker")


def _draw_bars(
    axes: Any, row: np.ndarray, start: np.ndarray, end: np.ndarray, style: dict[str, Any]
) -> None:
    top, bottom = row - _HEIGHT / 2, row + _HEIGHT / 2
    corners = [(start, top), (end, top), (end, bottom), (start, bottom)]
    polygons = np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)
    dense = np.bincount(row).max() > _DENSE
    axes.add_collection(PolyCollection(list(polygons), linewidth=0 if dense else 0.6, **style))


def _jobs(timeline: Timeline) -> dict[str, _Bars]:
    """All bars, by what they show; no two of a worker overlap."""
    compute, upload = timeline.begin_time, timeline.sent_time
    bars: dict[str, _Bars] = {}
    if timeline.phases is not None:
        compute, upload = timeline.phases.compute, timeline.phases.upload
        bars["transfers"] = [
            (timeline.worker, timeline.begin_time, compute),
            (timeline.worker, upload, timeline.sent_time),
        ]
    for kind, rows in (
        ("computes", timeline.accepted),
        ("computes, but is rejected", ~timeline.accepted),
    ):
        bars[kind] = [(timeline.worker[rows], compute[rows], upload[rows])]
    lost, absences = timeline.lost, timeline.absences
    for reason, kind in _REASONS.items():
        rows = lost.reason == reason
        part = lost.worker[rows], lost.start_time[rows], lost.stop_time[rows]
        bars.setdefault(kind, []).append(part)
    if absences is not None:
        bars["away"] = [(absences.worker, absences.start_time, absences.stop_time)]
    return bars
