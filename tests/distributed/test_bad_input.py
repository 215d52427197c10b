"""What a real run refuses before any process starts, and what it listens on."""

import os
import subprocess
import sys

import jax
import optax
import pytest

import async_optax as ao
from async_optax.distributed import compressed, train
from tests.distributed.runs import KEY, METHOD, PROBLEM

ASYNCHRONOUS = ao.protocols.asynchronous()
EASGD, ELASTIC = ao.optimizers.easgd(0.1, 0.1), ao.gossip.elastic_steps(1, optax.sgd(0.1))


def refused(tmp_path, message, error=ValueError, **changes):
    arguments = {"problem": PROBLEM, "optimizer": METHOD, "protocol": ASYNCHRONOUS}
    arguments |= {"num_workers": 2, "key": KEY, "directory": tmp_path, "num_commits": 5} | changes
    with pytest.raises(error, match=message) as caught:
        train(**arguments)
    assert "\n" not in str(caught.value)


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
    ],
)
def test_kinds_that_cannot_be(changes, message, tmp_path):
    refused(tmp_path, message, TypeError, **changes)


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
