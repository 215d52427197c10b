"""One of several processes that together make all the runs; called by test_invariance."""

import pickle
import sys

import jax
import numpy as np


def main(address: str, num_processes: str, index: str, path: str) -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.distributed.initialize(address, int(num_processes), int(index))
    # Only now: importing the runs makes arrays, which starts the devices.
    from tests.engine import long_run
    from tests.engine.invariance import OF_TWO_PROCESSES, execute, sweep_norms

    mesh = jax.make_mesh((jax.device_count(),), ("lanes",))
    assert len({device.process_index for device in mesh.devices.flat}) == int(num_processes)
    results = {}
    for optimizer, protocol in OF_TWO_PROCESSES:
        result = execute(optimizer, protocol, lanes=4, mesh=mesh)
        tables = dict(result.arrivals), dict(result.evaluations)
        results[optimizer, protocol] = np.asarray(result.params), *tables
    results["sweep"] = sweep_norms("auto")
    streamed = long_run.execute(lanes=2, mesh=mesh)
    results["streamed"] = (np.asarray(streamed.params),)
    try:
        execute(*OF_TWO_PROCESSES[0], lanes=4 + 2 * int(index), mesh=mesh)
    except ValueError as error:
        results["refused"] = (str(error),)
    with open(path, "wb") as file:
        pickle.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
