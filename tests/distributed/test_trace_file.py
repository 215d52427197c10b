"""The trace: what is void, what is damaged, and what happens on a full disk."""

import json
import os
import pathlib

import pytest

from async_optax.distributed import Recording
from async_optax.distributed.trace_file import TraceWriter, read_events

HEADER = {
    "num_workers": 1,
    "key": {"impl": "threefry2x32", "data": [0, 1]},
    "precision": "float32",
    "slot_dtype": None,
}
ARRIVAL = {"job": 0, "fresh": False, "loss": 0.0, "worker": 0, "read_version": 0, "version": 0}
ARRIVAL |= {"start_time": 0.0, "time": 1.0, "weight": 1.0, "accepted": True, "commit": True}
ARRIVAL |= {"begin": 0.0, "compute": 0.0, "upload": 1.0, "sent": 1.0}


def kinds(path):
    return [(event.kind, event.fields.get("n")) for event in read_events(path)[1:]]


def write(path, *numbers, header=None):
    with TraceWriter(path, header) as trace:
        for number in numbers:
            trace.write("thing", n=number)
        return trace.offset


def test_what_a_crash_has_cut_off_or_a_new_server_has_voided_is_gone(tmp_path):
    path = tmp_path / "trace.jsonl"
    kept = write(path, 1, 2, header={})
    write(path, 3, 4)
    with path.open("ab") as file:
        file.write(b'{"event":"thing","n"')  # the process was killed here
    assert kinds(path) == [("thing", n) for n in (1, 2, 3, 4)]
    with TraceWriter(path) as trace:
        trace.write_epoch(2, kept)
        trace.write("thing", n=5)
        second = trace.offset
        trace.write("thing", n=6)
    assert kinds(path) == [("thing", 1), ("thing", 2), ("epoch", None), ("thing", 5), ("thing", 6)]
    with TraceWriter(path) as trace:
        trace.write_epoch(3, second)
    assert kinds(path) == [
        ("thing", 1),
        ("thing", 2),
        ("epoch", None),
        ("thing", 5),
        ("epoch", None),
    ]
    with TraceWriter(path) as trace:
        trace.write_epoch(4, kept)  # back to before the second server
    assert kinds(path) == [("thing", 1), ("thing", 2), ("epoch", None)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"thi\n',
        b"[1, 2]\n",
        b'{"n": 1}\n',
        b"\xff\n",
        b"[" * 200_000 + b"\n",
        b'{"event":"epoch","number":2}\n',
        b'{"event":"epoch","number":"2","resume_at":90}\n',
        b'{"event":"epoch","number":2,"resume_at":1000000}\n',
    ],
)
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, 1, header={})
    with path.open("ab") as file:
        file.write(line)
    write(path, 2)
    with pytest.raises(ValueError, match="is damaged: line 3 is no event"):
        read_events(path)


def test_other_files_are_no_traces(tmp_path):
    path = tmp_path / "trace.jsonl"
    for content in (b"", b"hello\n", b'{"event":"thing"}\n', b'{"event":"header","format":"x"}\n'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a trace"):
            read_events(path)
    path.unlink()
    write(path, header={})
    text = path.read_text().replace('"version":1', '"version":2')
    path.write_text(text)
    with pytest.raises(ValueError, match="of version 2; this program reads 1"):
        read_events(path)


def test_a_recording_without_arrivals_or_fields_is_refused_in_one_line(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, header=HEADER)
    with pytest.raises(ValueError, match="not a valid trace: nothing has arrived"):
        Recording.load(tmp_path)
    with TraceWriter(path) as trace:
        trace.write("arrival", worker=0, time=1.0)
    with pytest.raises(ValueError, match="not a valid trace: KeyError") as error:
        Recording.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "arrival", "message"),
    [
        ({"num_workers": 10**9}, {}, "num_workers must be at most 1000000"),
        ({"num_workers": "2"}, {}, "num_workers must be an integer"),
        ({"key": {"impl": "threefry2x32", "data": [[0, 1], [2, 3]]}}, {}, "must be one key"),
        ({"key": {"impl": "threefry2x32", "data": [-1, 2**40]}}, {}, "OverflowError"),
        ({"key": {"impl": "zzz", "data": [0, 1]}}, {}, "zzz"),
        ({"key": 7}, {}, "TypeError"),
        ({"precision": "float16"}, {}, "precision must be one of float32, float64"),
        ({"slot_dtype": "zzz"}, {}, "slot_dtype must be a floating-point dtype"),
        ({"note": "zzz"}, {}, "note must be an object"),
        ({}, {"worker": 2**40}, "OverflowError"),
        ({}, {"worker": 5}, "worker is in"),
        ({}, {"loss": "zzz"}, "could not convert"),
    ],
)
def test_a_header_or_an_arrival_that_cannot_be_is_refused_in_one_line(
    header, arrival, message, tmp_path
):
    with TraceWriter(tmp_path / "trace.jsonl", HEADER | header) as trace:
        trace.write("join", worker=0, time=0.0)
        trace.write("arrival", **(ARRIVAL | arrival))
    with pytest.raises(ValueError, match=f"is not a valid trace: .*{message}") as error:
        Recording.load(tmp_path)
    assert "\n" not in str(error.value)


def test_later_servers_say_from_which_commit_they_went_on(tmp_path):
    with TraceWriter(tmp_path / "trace.jsonl", HEADER) as trace:
        trace.write_epoch(1, trace.offset, time=0.0)
        trace.write("join", worker=0, time=0.0)
        trace.write("arrival", **ARRIVAL)
        end = trace.offset
        trace.write("arrival", **(ARRIVAL | {"version": 1, "time": 2.0}))
        trace.write_epoch(2, end, time=3.0)
    recording = Recording.load(tmp_path)
    assert recording.incidents == ("3.000 s: server 2 went on from commit 1",)
    assert (recording.timeline.num_commits, recording.num_epochs) == (1, 2)
    text = (tmp_path / "trace.jsonl").read_text().replace(f'"resume_at":{end}', '"resume_at":0')
    (tmp_path / "trace.jsonl").write_text(text)
    with pytest.raises(ValueError, match="is damaged: line 6 makes the header void"):
        Recording.load(tmp_path)


def test_a_trace_appears_with_its_header_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "trace.jsonl"
    with pytest.raises(TypeError, match="not JSON serializable"):
        TraceWriter(path, {"note": object()})

    def full(self, event, **fields):
        self._file.write(b'{"event":')
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(TraceWriter, "write", full)
        with pytest.raises(OSError, match="no space left"):
            TraceWriter(path, HEADER)
    assert os.listdir(tmp_path) == []
    with TraceWriter(path, HEADER), pytest.raises(OSError, match="another server writes"):
        TraceWriter(path)  # locked from its first moment


@pytest.mark.parametrize("links", [True, False])
def test_a_trace_is_never_replaced(links, tmp_path, monkeypatch):
    if not links:

        def refuse(source, target):
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "trace.jsonl"
    write(path, 1, header=HEADER)
    with pytest.raises(FileExistsError):
        TraceWriter(path, HEADER)
    assert kinds(path) == [("thing", 1)]
    assert os.listdir(tmp_path) == ["trace.jsonl"]
    assert json.loads(path.read_text().splitlines()[0])["num_workers"] == 1


def test_a_full_disk_is_an_error_and_one_server_writes(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, header={})
    with TraceWriter(path), pytest.raises(OSError, match="another server writes"):
        TraceWriter(path)
    if pathlib.Path("/dev/full").exists():
        os.symlink("/dev/full", tmp_path / "full.jsonl")
        with TraceWriter(tmp_path / "full.jsonl") as trace, pytest.raises(OSError, match="space"):
            trace.write("thing", n=1)
