"""The live view and the files for TensorBoard, told by hand how a run is doing."""

import numpy as np
import pytest

from async_optax.distributed.live_view import describe, live_view
from async_optax.distributed.messages import Status
from async_optax.distributed.metrics import metric_files

STATUS = Status(
    epoch=1,
    version=241,
    durable_version=200,
    num_arrivals=241,
    time=3.5,
    loss=0.53,
    staleness=1.0,
    total_staleness=1.02,
    workers_up=3,
    num_workers=4,
    quarantined=(2,),
    phase="waiting for workers",
    silent_for=0.0,
    metrics={"accuracy": 0.8125, "test_loss": 0.6},
    pids=(1, 2, 0, 4),
    server_pid=5,
    messages=(),
)
PARTS = ["commits 241", "82/s", "workers 3/4", "quarantined 2", "accuracy 0.8125"]
PARTS += ["test_loss 0.6", "staleness 1.02", "loss 0.53"]


def test_a_narrow_line_leaves_out_what_matters_least():
    assert describe(STATUS, 82.0, 200) == "  ".join(PARTS)
    for room in range(12, 120):
        line = describe(STATUS, np.nan if room % 2 else 82.0, room)
        assert len(line) <= room
        assert line.startswith("commits 241")
        assert set(line.split("  ")) <= {*PARTS, "-/s"}
    assert describe(STATUS, 82.0, 40) == "commits 241  82/s  workers 3/4"


@pytest.mark.parametrize(("columns", "ends"), [(40, "workers 3/4"), (100, "accuracy 0.8125")])
def test_terminals_show_whole_words(columns, ends, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    with live_view(True, 482, None) as show:
        show(STATUS)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert len(line) <= columns
    assert "commits 241  -/s  workers 3/4" in line
    assert "..." not in line
    assert "\N{HORIZONTAL ELLIPSIS}" not in line
    assert ends in line


def test_a_run_that_never_started_leaves_no_metrics(tmp_path):
    folder = tmp_path / "metrics"
    with metric_files(folder):
        pass
    assert not folder.exists()
    with metric_files(folder) as write:
        write(STATUS)
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
