"""The trace: what is void, what is damaged, and what happens on a full disk."""

import os
import pathlib

import pytest

from async_optax.distributed import Recording
from async_optax.distributed.trace_file import TraceWriter, read_events


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


@pytest.mark.parametrize("line", [b'{"event":"thi\n', b"[1, 2]\n", b'{"n": 1}\n', b"\xff\n"])
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
    write(path, header={"num_workers": 1})
    with pytest.raises(ValueError, match="not a valid trace: nothing has arrived"):
        Recording.load(tmp_path)
    with TraceWriter(path) as trace:
        trace.write("arrival", worker=0, time=1.0)
    with pytest.raises(ValueError, match="not a valid trace: KeyError") as error:
        Recording.load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_an_error_and_one_server_writes(tmp_path):
    path = tmp_path / "trace.jsonl"
    write(path, header={})
    with TraceWriter(path), pytest.raises(OSError, match="another server writes"):
        TraceWriter(path)
    if pathlib.Path("/dev/full").exists():
        os.symlink("/dev/full", tmp_path / "full.jsonl")
        with TraceWriter(tmp_path / "full.jsonl") as trace, pytest.raises(OSError, match="space"):
            trace.write("thing", n=1)
