"""Lanes, chunks, devices, processes and resuming change nothing, for any method or protocol."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import async_optax as ao
from async_optax.engine import execution
from async_optax.sweeps import batches
from tests.engine import long_run
from tests.engine.invariance import (
    METHODS,
    OF_TWO_PROCESSES,
    OPTIMIZERS,
    RUNS,
    execute,
    sweep_norms,
)
from tests.engine.protocols import PROTOCOLS
from tests.oracles.table import CASES

ROOT = Path(__file__).parents[2]


class _Killed(Exception):
    pass


def _kill_halfway(done, total):
    if done > total // 2:
        raise _Killed


def _killed_and_resumed(optimizer, protocol, folder):
    """The result, and how many arrivals were done at each report of the second part."""
    checkpoint, started_at = ao.Checkpointing(folder, every=0), []
    with pytest.raises(_Killed):
        execute(optimizer, protocol, lanes=1, checkpoint=checkpoint, progress=_kill_halfway)
    result = execute(
        optimizer,
        protocol,
        lanes=1,
        checkpoint=checkpoint,
        progress=lambda done, total: started_at.append(done),
    )
    return result, started_at


def _outcome(result):
    return result.params, result.arrivals, result.evaluations


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What two processes computed together, each with one device."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = [tmp_path_factory.mktemp("processes") / f"{i}.pickle" for i in range(2)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engine.one_process", address, "2", str(i), str(path)],
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, path in enumerate(paths)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    results = [pickle.loads(path.read_bytes()) for path in paths]
    for run in results[0]:
        np.testing.assert_array_equal(results[0][run][0], results[1][run][0])
    return results[0]


def test_every_kind_of_method_and_every_protocol_is_here():
    assert {CASES[name][0] for name, _ in RUNS if name in CASES} == {*METHODS, "clipped_sgd"}
    assert set(OPTIMIZERS) - set(CASES) <= {name for name, _ in RUNS}
    assert {protocol for _, protocol in RUNS} == set(PROTOCOLS)
    assert len({optimizer for optimizer, _ in OF_TWO_PROCESSES}) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "protocol"), RUNS)
def test_execution_changes_nothing(optimizer, protocol, two_processes, tmp_path, monkeypatch):
    # Short chunks, so that a run has several; what they are compared with has long ones.
    with monkeypatch.context() as patch:
        patch.setattr(execution, "_FIRST_CHUNK", 16)
        patch.setattr(execution, "_CHUNK_SECONDS", 0.0)  # never doubles
        expected = execute(optimizer, protocol, lanes=1)
        resumed, started_at = _killed_and_resumed(optimizer, protocol, tmp_path)
    assert 0 < started_at[0] < started_at[-1]

    def agrees(result, exactly=False):
        params, arrivals, evaluations = result
        tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(params, expected.params, **tolerance)
        for table, columns in ((arrivals, expected.arrivals), (evaluations, expected.evaluations)):
            assert set(table) == set(columns)
            for name, column in columns.items():
                np.testing.assert_allclose(table[name], column, err_msg=name, **tolerance)

    def run(**options):
        return _outcome(execute(optimizer, protocol, **options))

    agrees(_outcome(resumed), exactly=True)
    # Four lanes on two devices of two processes, for some; and by turns three lanes on one device,
    # or eight devices: each is a program to compile.
    if (optimizer, protocol) in OF_TWO_PROCESSES:
        agrees(two_processes[optimizer, protocol])
    if RUNS.index((optimizer, protocol)) % 2:
        mesh = jax.make_mesh((8,), ("lanes",), devices=jax.devices()[:8])
        agrees(run(lanes=8, mesh=mesh))
    else:
        agrees(run(lanes=3))


@pytest.mark.slow
def test_processes_that_are_asked_for_different_runs_all_refuse(two_processes):
    (message,) = two_processes["refused"]
    assert "processes [1] differ from process 0" in message


@pytest.mark.slow
def test_streams_are_the_same_on_two_processes(two_processes, monkeypatch):
    for name in ("_FIRST_CHUNK", "_CHUNK_SECONDS"):
        monkeypatch.setattr(execution, name, getattr(execution, name))  # long_run sets them
    params = long_run.execute().params
    np.testing.assert_allclose(two_processes["streamed"][0], params, rtol=1e-5)


@pytest.mark.slow
def test_sweeps_are_the_same_on_any_devices_and_processes(two_processes, monkeypatch):
    expected = sweep_norms("threads")
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(two_processes["sweep"], expected, rtol=1e-12)
    devices = jax.devices()
    for count in (1, 2, 8):
        mesh = jax.make_mesh((count,), ("cells",), devices=devices[:count])
        monkeypatch.setattr(batches, "cells_mesh", lambda mesh=mesh: mesh)
        np.testing.assert_allclose(sweep_norms("devices"), expected, rtol=1e-12)
