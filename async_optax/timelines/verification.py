"""The invariants of a timeline."""

import typing
from typing import Any

import numpy as np

from async_optax.timelines.side_tables import Reason

if typing.TYPE_CHECKING:
    from async_optax.timelines.timeline import Timeline

_KINDS = {"worker": "i", "read_version": "i", "version": "i", "start_time": "f"}
_KINDS |= {"time": "f", "weight": "f", "accepted": "b", "commit": "b", "token": "i"}
_PHASES = ("begin", "compute", "upload", "sent")


def check_columns(timeline: "Timeline") -> None:
    """Raises ``ValueError`` if a column has another length or kind than it should."""
    columns = {name: getattr(timeline, name) for name in _KINDS}
    kinds = dict(_KINDS)
    if timeline.phases is not None:
        columns |= {name: getattr(timeline.phases, name) for name in _PHASES}
        kinds |= dict.fromkeys(_PHASES, "f")
    for name, column in columns.items():
        if name == "token" and column is None:
            continue
        if column.shape != timeline.commit.shape:
            raise ValueError(f"timeline column {name} is not as long as commit")
        if column.dtype.kind != kinds[name]:
            raise ValueError(f"timeline column {name} has the wrong dtype {column.dtype}")
    if not (np.isfinite(timeline.end_time) and timeline.end_time > 0):
        raise ValueError(f"timeline.end_time must be a finite number > 0, got {timeline.end_time}")
    for name in ("lost", "absences"):
        _check_spans(name, getattr(timeline, name), timeline)
    reason = timeline.lost.reason
    if reason.shape != timeline.lost.worker.shape or not np.isin(reason, list(Reason)).all():
        raise ValueError(f"timeline.lost.reason must be one of {[int(r) for r in Reason]}")


def _check_spans(name: str, table: Any, timeline: "Timeline") -> None:
    """Raises ``ValueError`` naming the first row of a side table that makes no sense."""
    if table is None:
        return
    shape = table.worker.shape
    if not shape == table.start_time.shape == table.stop_time.shape:
        raise ValueError(f"timeline.{name} has columns of different lengths")
    holds = (table.worker >= 0) & (table.worker < timeline.num_workers)
    holds &= (table.start_time >= 0) & (table.start_time <= table.stop_time)
    holds &= table.stop_time <= timeline.end_time
    if not holds.all():
        raise ValueError(
            f"timeline.{name} row {int(np.argmin(holds))} breaks the rule: a worker's span of time "
            "within the timeline"
        )


def check_rules(timeline: "Timeline") -> None:
    """Raises ``ValueError`` naming the first row of ``timeline`` that breaks a rule, and which."""
    rules = _rules(timeline)
    rules["jobs of a worker do not overlap"], beside = _starts_after_previous(
        timeline, timeline.begin_time, timeline.sent_time
    )
    broken = [(int(np.argmin(holds)), rule) for rule, holds in rules.items() if not holds.all()]
    if broken:
        row, rule = min(broken)
        raise ValueError(f"timeline row {row} breaks the rule: {rule}")
    if not beside.all():
        row, num_lost = int(np.argmin(beside)), len(timeline.lost.worker)
        where = f"lost row {row}" if row < num_lost else f"absences row {row - num_lost}"
        raise ValueError(f"timeline.{where} overlaps a job or an absence of its worker")


def _rules(timeline: "Timeline") -> dict[str, np.ndarray]:
    """Returns for each rule on single rows which of them keep it."""
    start, time = timeline.start_time, timeline.time
    read, version, accepted = timeline.read_version, timeline.version, timeline.accepted
    before = np.concatenate([[0], np.cumsum(timeline.commit)[:-1]])
    commit_times = timeline.commit_times
    rules = {
        "worker is in [0, num_workers)": (timeline.worker >= 0)
        & (timeline.worker < timeline.num_workers),
        "version counts the commits before": version == before,
        "read_version is between 0 and version": (read >= 0) & (read <= version),
        "time does not decrease": np.diff(time, prepend=-np.inf) >= 0,
        "a job starts before it arrives": (start >= 0) & (start <= time),
        "time is within end_time": time <= timeline.end_time,
        "weight is finite and >= 0": ~accepted
        | (np.isfinite(timeline.weight) & (timeline.weight >= 0)),
        "a commit has accepted an arrival of its own": _has_accepted(timeline),
        # A job may start at the very time of a commit, before it or after it.
        "read_version is current at start_time": (
            read >= np.searchsorted(commit_times, start, side="left")
        )
        & (read <= np.searchsorted(commit_times, start, side="right")),
    }
    if timeline.phases is not None:
        moments = [start, *(getattr(timeline.phases, name) for name in _PHASES), time]
        pairs = zip(moments, moments[1:], strict=False)
        rules["phases follow each other"] = np.all([one <= two for one, two in pairs], axis=0)
    if timeline.token is not None:
        rules["token is >= 0"] = timeline.token >= 0
    return rules


def _has_accepted(timeline: "Timeline") -> np.ndarray:
    """Whether each commit accepts its row, or a row since the commit before."""
    num_accepted = np.cumsum(timeline.accepted)
    at_commits = num_accepted[timeline.commit]
    holds = np.ones(timeline.num_arrivals, bool)
    holds[timeline.commit] = np.diff(at_commits, prepend=0) > 0
    return holds


def _starts_after_previous(
    timeline: "Timeline", begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a worker's arrivals, and its lost jobs and absences, start after what came before."""
    tables: list[Any] = [timeline.lost]
    if timeline.absences is not None:
        tables.append(timeline.absences)
    worker = np.concatenate([timeline.worker, *(table.worker for table in tables)])
    begin = np.concatenate([begin, *(table.start_time for table in tables)])
    end = np.concatenate([end, *(table.stop_time for table in tables)])
    order = np.lexsort((end, begin, worker))
    same = worker[order][1:] == worker[order][:-1]
    holds = np.ones(len(worker), bool)
    holds[order[1:]] = ~(same & (begin[order][1:] < end[order][:-1]))
    return holds[: timeline.num_arrivals], holds[timeline.num_arrivals :]
