"""Measured jobs: from files and rows, faulty ones, and as timelines."""

import pathlib
import re
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_optax import Timeline, protocols, runtimes
from async_optax.timelines import read_jobs, simulate_timeline

ROWS = [("b", 10.0, 12.5), ("a", 10.5, 11.0), ("a", 11.0, 13.0)]
HEADER = "worker,start,finish\n"


def write(folder, text, name="trace.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def assert_same(one, other):
    assert one.names == other.names
    for name in ("worker", "start", "finish"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_all_sources_say_the_same(tmp_path):
    expected = read_jobs(ROWS)
    worker, start, finish = (list(column) for column in zip(*ROWS, strict=True))
    columns = {"finish": finish, "worker": worker, "start": start, "host": ["x", "y", "z"]}
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, tmp_path / "trace.parquet")
    categories = table.set_column(1, "worker", table["worker"].dictionary_encode())
    pyarrow.parquet.write_table(categories, tmp_path / "categories.parquet")
    text = "finish, worker ,host,start\n12.5,b,x,10\n\n11.0, a,y,10.5\n13,a,z,11.0\n"
    path = write(tmp_path, text)
    bom = tmp_path / "bom.csv"
    bom.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    structured = np.array(ROWS, [("worker", "U1"), ("start", "f8"), ("finish", "f8")])
    sources = [path, str(path), bom, tmp_path / "trace.parquet", tmp_path / "categories.parquet"]
    for source in [*sources, columns, iter(ROWS), structured, [list(row) for row in ROWS]]:
        assert_same(read_jobs(source), expected)
    assert read_jobs(expected) is expected


@pytest.mark.parametrize(
    ("workers", "names", "numbers"),
    [
        ([10, 9, 10], ("9", "10"), [1, 0, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (np.array([10.0, -9.0, 10.0]), ("-9", "10"), [1, 0, 1]),
        (["10", "x9", "10"], ("10", "x9"), [0, 1, 0]),
        (["07", "7", "07"], ("07", "7"), [0, 1, 0]),
        ([10, " 10 ", 10.0], ("10",), [0, 0, 0]),
    ],
)
def test_numbers_of_workers(workers, names, numbers):
    jobs = read_jobs([(w, k, k + 1) for k, w in enumerate(workers)])
    assert jobs.names == names
    np.testing.assert_array_equal(jobs.worker, numbers)


def test_order_is_of_finish_then_start_then_row():
    jobs = read_jobs([("a", 3, 5), ("b", 1, 5), ("c", 3, 5), ("d", 2, 4)])
    assert [jobs.names[k] for k in jobs.worker] == ["d", "b", "a", "c"]
    np.testing.assert_array_equal(jobs.start, [1, 0, 2, 2])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,one,2", "start is not a finite number, got 'one'"),
        ("a,nan,2", "start is not a finite number, got 'nan'"),
        ("a,1,inf", "finish is not a finite number, got 'inf'"),
        ("a,1, ", "finish is empty"),
        (" ,1,2", "worker is empty"),
        ("a,1", "too few cells, 2 of 3"),
        ("a,3,2", "finish 2 is not after start 3"),
        ("a,2,2", "finish 2 is not after start 2"),
    ],
)
def test_faulty_rows_of_files(tmp_path, row, reason):
    path = write(tmp_path, f"{HEADER}b,0,1\n\n{row}\nb,1,2\n")
    message = f"{path} has faulty rows, 1 in all:\n  row 2 (line 4): {reason}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_jobs(path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, 1, 2), "worker is empty"),
        ((1.5, 1, 2), "worker is not a name or an integer, got 1.5"),
        (([], 1, 2), r"worker is not a name or an integer, got \[\]"),
        (("a", None, 2), "start is empty"),
        (("a", 1, np.nan), "finish is not a finite number, got nan"),
        (("a", 10**400, 1), "start is not a finite number, got 1000"),
        (("a", 1), r"\('a', 1\) is not \(worker, start, finish\)"),
        (5.0, r"5.0 is not \(worker, start, finish\)"),
        ("abc", r"'abc' is not \(worker, start, finish\)"),
    ],
)
def test_faulty_rows(row, reason):
    with pytest.raises(ValueError, match=f"1 in all:\n  row 2: {reason}"):
        read_jobs([("b", 0, 1), row])


def test_no_more_than_five_faults_are_told():
    rows = [("a", k, k + 1) for k in range(30)]
    for k in range(3, 10):
        rows[k] = ("a", k, np.nan)
    with pytest.raises(ValueError, match="7 in all") as error:
        read_jobs(rows)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:-1]] == [f"  row {k}" for k in range(4, 9)]
    assert lines[-1] == "  and 2 more"


def test_overlaps_name_both_rows(tmp_path):
    # The long job overlaps both short ones, which do not overlap each other.
    path = write(tmp_path, f"{HEADER}b,0,9\na,3,4\na,0,5\na,1,2\na,5,6\n")
    with pytest.raises(ValueError, match="2 in all") as error:
        read_jobs(path)
    assert str(error.value).splitlines()[1:] == [
        "  row 2 (line 3): starts at 3, but row 3 (line 4), of the same worker a, ends at 5",
        "  row 4 (line 5): starts at 1, but row 3 (line 4), of the same worker a, ends at 5",
    ]


def test_unusable_sources(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.csv"):
        read_jobs(tmp_path / "absent.csv")
    for text in (HEADER, f"{HEADER}\n\n"):
        with pytest.raises(ValueError, match="trace.csv has no jobs"):
            read_jobs(write(tmp_path, text))
    for nothing in ([], np.empty((0, 3)), {"worker": [], "start": [], "finish": []}):
        with pytest.raises(ValueError, match="the trace has no jobs"):
            read_jobs(nothing)
    with pytest.raises(ValueError, match="no column start, finish; its columns are worker, begin$"):
        read_jobs(write(tmp_path, "worker,begin\na,1\n"))
    with pytest.raises(ValueError, match="no column worker, start, finish; its columns are none"):
        read_jobs(write(tmp_path, ""))
    with pytest.raises(ValueError, match="the trace has no column finish"):
        read_jobs({"worker": ["a"], "start": [0.0]})
    with pytest.raises(
        ValueError, match=r"columns of one length, got shapes \(1,\), \(1,\), \(2,\)"
    ):
        read_jobs({"worker": ["a"], "start": [0.0], "finish": [1.0, 2.0]})
    with pytest.raises(ValueError, match="must be a .csv or .parquet file, got .*trace.txt"):
        read_jobs(write(tmp_path, HEADER, "trace.txt"))
    with pytest.raises(ValueError, match="is no CSV at line 2"):
        read_jobs(write(tmp_path, f'{HEADER}"a,0,1\n'))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"\xe4,0,1\n")
    with pytest.raises(ValueError, match="latin.csv is not a text file in UTF-8"):
        read_jobs(tmp_path / "latin.csv")
    with pytest.raises(TypeError, match=r"a trace must be a path, .* got 3"):
        read_jobs(3)

    path = tmp_path / "trace.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"worker": [1, 2], "start": [0.0, 1.0]}), path)
    with pytest.raises(ValueError, match="has no column finish; its columns are worker, start"):
        read_jobs(path)
    whole = path.read_bytes()
    for length in (0, 3, 11, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="trace.parquet is damaged, or not a Parquet file"):
            read_jobs(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"needs the extra 'parquet': pip install 'async_optax\["):
        read_jobs(path)


@pytest.mark.parametrize("kind", ["rows", ".csv", ".parquet"])
def test_a_simulated_timeline_returns_from_its_trace(tmp_path, kind):
    simulated = simulate_timeline(
        protocols.asynchronous(), runtimes.gamma(cv=0.5, machine_cv=0.6), 6, num_commits=500
    )
    columns = {"worker": simulated.worker, "start": simulated.start_time, "finish": simulated.time}
    shuffled = np.random.default_rng(0).permutation(simulated.num_arrivals)
    columns = {name: column[shuffled].tolist() for name, column in columns.items()}
    path: pathlib.Path = tmp_path / f"trace{kind}"
    rows = list(zip(*columns.values(), strict=True))
    if kind == ".csv":
        write(tmp_path, HEADER + "".join(f"{w},{s!r},{f!r}\n" for w, s, f in rows))
    if kind == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    timeline = Timeline.from_trace(rows if kind == "rows" else path)
    timeline.verify()
    assert (timeline.num_workers, timeline.end_time) == (6, simulated.end_time)
    for name in ("worker", "read_version", "version", "staleness", "start_time", "time", "weight"):
        np.testing.assert_array_equal(
            getattr(timeline, name), getattr(simulated, name), err_msg=name
        )
        assert getattr(timeline, name).dtype == getattr(simulated, name).dtype


jobs_of_a_worker = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=6)


@given(
    workers=st.lists(jobs_of_a_worker, min_size=1, max_size=5).filter(any),
    size=st.integers(1, 4),
    origin=st.sampled_from([0.0, -7.0, 1.7e9]),
)
def test_timelines_of_traces_keep_the_invariants(workers, size, origin):
    rows = []
    for worker, jobs in enumerate(workers):
        clock = origin
        for pause, duration in jobs:
            rows.append((worker, clock + pause, clock + pause + duration))
            clock += pause + duration
    size = min(size, len(rows))
    timeline = Timeline.from_trace(rows, size=size)
    timeline.verify()
    assert timeline.num_commits == len(rows) // size
    assert timeline.start_time.min() == 0
    assert timeline.end_time == timeline.time[-1]
    assert timeline.accepted.all()
    np.testing.assert_array_equal(timeline.weight, 1 / size)
    for start, read in zip(timeline.start_time, timeline.read_version, strict=True):
        assert read == sum(time <= start for time in timeline.time) // size


def test_size_is_a_count():
    with pytest.raises(ValueError, match="size must be an integer >= 1, got 0"):
        Timeline.from_trace(ROWS, size=0)
    with pytest.raises(ValueError, match=f"size must be <= the {len(ROWS)} jobs of the trace"):
        Timeline.from_trace(ROWS, size=len(ROWS) + 1)
