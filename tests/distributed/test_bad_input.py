"""What a real run refuses before any process starts, and what it listens on."""

import contextlib
import importlib
import os
import subprocess
import sys

import jax
import optax
import pytest

import async_optax as ao
from async_optax.distributed import Resources, compressed, train
from async_optax.distributed.trace_file import TraceWriter
from tests.distributed.runs import KEY, METHOD, PROBLEM

ASYNCHRONOUS = ao.protocols.asynchronous()
EASGD, ELASTIC = ao.optimizers.easgd(0.1, 0.1), ao.gossip.elastic_steps(1, optax.sgd(0.1))


@pytest.fixture(autouse=True)
def no_session(monkeypatch):
    """What is refused is refused before Ray starts."""

    def start(*arguments):
        raise AssertionError("a session was started")

    monkeypatch.setattr(
        importlib.import_module("async_optax.distributed.train"), "ray_session", start
    )


def refused(tmp_path, message, error=ValueError, **changes):
    arguments = {"problem": PROBLEM, "optimizer": METHOD, "protocol": ASYNCHRONOUS}
    arguments |= {"num_workers": 2, "key": KEY, "directory": tmp_path, "num_commits": 5} | changes
    with pytest.raises(error, match=message) as caught:
        train(**arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": 0}, "num_workers must be an integer >= 1, got 0"),
        ({"num_commits": None}, "give either num_commits or max_time"),
        ({"max_time": 1.0}, "give either num_commits or max_time"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"evaluate_every": 0}, "evaluate_every must be an integer >= 1"),
        ({"checkpoint_every": -1.0}, "checkpoint_every must be a finite number >= 0"),
        ({"optimizer": optax.sgd(0.1), "protocol": ao.protocols.buffered(2)}, "accumulate_until"),
        ({"optimizer": EASGD, "worker": ELASTIC}, "a copy of the parameters per worker"),
        ({"optimizer": ao.transforms.track_staleness(METHOD, 2)}, "tracks the staleness itself"),
        ({"protocol": ao.protocols.synchronous(backup=2)}, "backup must be < 2"),
        ({"directory": ""}, "directory must be the path of a folder, got ''"),
    ],
)
def test_values_that_cannot_be(changes, message, tmp_path):
    refused(tmp_path, message, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem": None}, "problem must be an async_optax.Problem"),
        ({"protocol": ao.protocols.asynchronous}, "protocol must be a protocol"),
        ({"key": 0}, "key must be one typed key"),
        ({"extra_time": 1.0}, "extra_time must be a function"),
        ({"slot_dtype": "no"}, "slot_dtype must be a floating-point dtype"),
        ({"directory": None}, "directory must be the path of a folder, got None"),
        ({"limits": {"job": 3}}, "limits must be a Limits, got {'job': 3}"),
        ({"resources": {"server_cpus": 3}}, "resources must be a Resources"),
        ({"progress": "yes"}, "progress must be a boolean or a function, got 'yes'"),
        ({"metrics": "yes"}, "metrics must be a boolean, got 'yes'"),
        ({"note": {"a": object()}}, "note must be a dictionary of JSON"),
    ],
)
def test_kinds_that_cannot_be(changes, message, tmp_path):
    refused(tmp_path, message, TypeError, **changes)


def test_what_is_not_there_is_said_before_anything_starts(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    refused(tmp_path, "cannot write to the directory", OSError, directory=tmp_path / "file" / "run")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tensorboardX", None)
        refused(tmp_path, "metrics=True needs tensorboardX", ImportError, metrics=True)
        patched.setitem(sys.modules, "rich.progress", None)
        refused(tmp_path, "progress=True needs rich", ImportError, progress=True)
    path = tmp_path / "other" / "trace.jsonl"
    path.parent.mkdir()
    TraceWriter(path, {"description": {"num_workers": "7"}}).close()
    refused(tmp_path, "holds another run: .*num_workers is 7 there", directory=path.parent)
    path.unlink()
    TraceWriter(path, {}).close()
    refused(tmp_path, "does not say of which run it is", directory=path.parent)


def test_a_run_goes_on_with_its_own_arguments_alone(tmp_path, monkeypatch):
    started = []

    def fail(ray, setup, resources, first_epoch, report):
        started.append(first_epoch)
        raise RuntimeError("no worker was ready")

    module = importlib.import_module("async_optax.distributed.train")
    monkeypatch.setattr(module, "ray_session", lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(module, "supervise", fail)
    arguments = {"key": KEY, "directory": tmp_path, "num_commits": 5}
    for _ in range(2):  # what failed before its first server leaves nothing in the way
        with pytest.raises(RuntimeError, match="no worker was ready"):
            train(PROBLEM, METHOD, ASYNCHRONOUS, 2, **arguments)
    assert started == [1, 1]
    with pytest.raises(ValueError, match="holds another run: seed is 0 there and 1 here"):
        train(PROBLEM, METHOD, ASYNCHRONOUS, 2, seed=1, **arguments)
    with TraceWriter(tmp_path / "trace.jsonl") as trace:
        trace.write_epoch(1, trace.offset, time=0.0)
    with pytest.raises(RuntimeError, match="no worker was ready"):
        train(PROBLEM, METHOD, ASYNCHRONOUS, 2, **arguments | {"num_commits": 50})
    assert started == [1, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [("cpus_per_worker", float("inf")), ("server_cpus", -1), ("threads_per_worker", 4)],
)
def test_resources_that_cannot_be(field, value):
    with pytest.raises(ValueError, match=f"resources.{field} must be .*got {value}"):
        Resources(**{field: value})


def test_compression_that_cannot_be():
    for arguments, message in (
        ({"kind": "zip"}, "kind must be one of"),
        ({"kind": "top"}, "amount must be given"),
        ({"kind": "top", "amount": 1.5}, "amount must be a finite number > 0 and <= 1"),
        ({"kind": "threshold", "amount": 0.0}, "amount must be a finite number > 0"),
        ({"kind": "bfloat16", "amount": 0.5}, "amount must be None"),
    ):
        with pytest.raises(ValueError, match=message):
            compressed(**arguments)


def test_without_ray_one_line_says_what_to_install():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import jax, tempfile, jax.numpy as jnp, async_optax as ao\n"
        "from async_optax import distributed\n"
        "problem = ao.Problem(lambda k: jnp.zeros(1), lambda x, b, k: jnp.sum(x), lambda k, w: 0)\n"
        "distributed.train(problem, ao.optimizers.sgd(0.1), ao.protocols.asynchronous(), 1, "
        "key=jax.random.key(0), directory=tempfile.mkdtemp(), num_commits=1, "
        "checkpoint_every=None)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: real runs need ray: pip install 'async_optax[ray]'; replays do not"
    )


def descendants(pid):
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as children:
            for child in children.read().split():
                found += descendants(int(child))
    return found


def listening(pids):
    """Addresses on which these processes listen, as hexadecimal words of the kernel."""
    sockets = set()
    for pid in pids:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                sockets.add(os.readlink(entry.path))
            except FileNotFoundError:
                continue
    found = set()
    for family in ("tcp", "tcp6"):
        with open(f"/proc/net/{family}") as table:
            for line in list(table)[1:]:
                cells = line.split()
                if cells[3] == "0A" and f"socket:[{cells[9]}]" in sockets:
                    found.add(cells[1].split(":")[0])
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc")
def test_nothing_listens_beyond_the_loopback_interface(ray):
    ray.get(ray.remote(lambda: None).remote())  # a worker process is there, too
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", f"{'0' * 24}01000000"}
    addresses = listening(descendants(os.getpid()))
    assert addresses
    assert addresses <= loopback


def test_a_key_of_another_generator_is_kept(tmp_path):
    key = jax.random.key(3, impl="rbg")
    refused(tmp_path, "give either", key=key, num_commits=None)
