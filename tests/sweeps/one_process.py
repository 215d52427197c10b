"""One of several processes that sweep together; called by test_processes."""

import functools
import pickle
import sys
from pathlib import Path

import jax


def main(address: str, num_processes: str, index: str, folder: str) -> None:
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.distributed.initialize(address, int(num_processes), int(index))
    # Only now: importing the settings makes arrays, which starts the devices.
    from async_optax.sweeps import saving
    from tests.sweeps.settings import small_sweep

    me, rooms = int(index), [Path(folder) / f"{i}" for i in range(int(num_processes))]
    run = functools.partial(small_sweep, seeds=[0, 1, 2])  # six cells; with two seeds, four
    seen = {}

    def attempt(name, **changes):
        try:
            seen[name] = run(**changes)
        except Exception as error:
            seen[name] = type(error).__name__, str(error)

    def stop_one(stopped):
        def progress(done, total):
            if done and me == stopped:
                raise ZeroDivisionError("stopped")

        return progress

    def full(dataset, path):
        raise OSError(28, "No space left on device")

    attempt("seeds", seeds=[0, 1 + me])
    attempt("argument", seeds=[0, 1 - 2 * me])
    attempt("file of one", extend=rooms[1] / "old.nc" if me else None)
    for stopped in range(2):
        attempt(f"stopped {stopped}", progress=stop_one(stopped), strategy="devices")
    attempt("stopped alone", progress=stop_one(0), strategy="threads")
    save, saving.save = saving.save, full
    attempt("full disk", path=rooms[0] / "full.nc")
    saving.save = save
    attempt("no folder for the first", path=rooms[0] / ("nowhere" if me else "") / "a" / "b.nc")
    attempt("whole", path=rooms[0] / "whole.nc")
    attempt("extended", path=rooms[0] / "whole.nc", extend=rooms[0] / "whole.nc", seeds=[0, 3])
    Path(folder, f"{index}.pickle").write_bytes(pickle.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
