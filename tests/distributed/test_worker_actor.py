"""The worker process, called without Ray: epochs, cancelled jobs."""

import os
import threading
import time
import types

import jax
import numpy as np
import pytest

from async_optax.distributed import worker_actor
from async_optax.distributed.messages import Request
from async_optax.engine import gradient
from tests.engine.problems import quadratic_problem

PROBLEM = quadratic_problem()


@pytest.fixture
def make(monkeypatch):
    fake = types.SimpleNamespace(get=lambda setup: setup)
    monkeypatch.setattr(worker_actor, "import_ray", lambda: fake)

    def make(extra_time=None):
        key = jax.random.key(0)
        setup = types.SimpleNamespace(
            platform=None,
            x64=False,
            threads=1,
            key_data=np.asarray(jax.random.key_data(key)),
            key_impl="threefry2x32",
            extra_time=extra_time,
            problem=PROBLEM,
            program=gradient(),
            served_like=jax.eval_shape(PROBLEM.init, key),
        )
        worker = worker_actor.WorkerActor(worker=0)
        with pytest.raises(worker_actor.NotReadyError, match="worker 0 is a new process"):
            worker.compute([], Request(epoch=1, job=0, after=-1))
        assert worker.ready(1, [setup]) == os.getpid()
        return worker

    return make


def test_a_server_that_was_replaced_is_refused(make):
    worker = make()
    served = [np.zeros(3, np.float32)]
    assert worker.compute(served, Request(epoch=1, job=4, after=-1)).job == 4
    worker.ready(2, [])
    with pytest.raises(worker_actor.StaleEpochError, match="refuses server 1: server 2 has taken"):
        worker.compute(served, Request(epoch=1, job=5, after=-1))
    reply = worker.compute(served, Request(epoch=2, job=5, after=-1))
    assert (reply.epoch, reply.job, reply.fresh) == (2, 5, False)


@pytest.mark.parametrize("how", ["before", "while", "epoch"])
def test_what_is_not_wanted_any_more_ends_at_once(how, make):
    worker = make(extra_time=lambda worker, job: 30.0)
    served, request = [np.zeros(3, np.float32)], Request(epoch=1, job=7, after=-1)
    started = time.monotonic()
    if how == "before":
        worker.cancel(1, 7)
        assert worker.compute(served, request).update is None
    else:
        end = (lambda: worker.cancel(1, 7)) if how == "while" else (lambda: worker.ready(2, []))
        timer = threading.Timer(0.2, end)
        timer.start()
        worker.compute(served, request)
        timer.join()
    assert time.monotonic() - started < 10
