"""The parameters that a run has ended in, as a file, and how far others are from them."""

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from async_optax import report
from async_optax.distributed import Recording

PARAMS_NAME = "params.npz"
_VERSION, _SERVERS = "version", "servers"


@dataclasses.dataclass(frozen=True)
class SavedParams:
    """What was saved.

    Attributes:
      leaves: of the parameters.
      version: commits of the run then.
      num_servers: servers of the run by then: a run that goes on has a new one.
    """

    leaves: list[np.ndarray]
    version: int
    num_servers: int

    def is_end_of(self, recording: Recording) -> bool:
        """Whether the recording ends where these parameters were saved."""
        ends = recording.timeline.num_commits, recording.num_epochs
        return ends == (self.version, self.num_servers)

    def differences(self, params: Any) -> tuple[float, float]:
        """Returns the largest difference of a parameter, and the largest magnitude of a saved one.

        Raises:
          ValueError: if the parameters are of other shapes.
        """
        found = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in self.leaves]:
            raise ValueError(f"{PARAMS_NAME} is of another model: its arrays have other shapes")
        pairs = zip(found, self.leaves, strict=True)
        differs = max(float(np.max(np.abs(one - two))) for one, two in pairs)
        return differs, max(float(np.max(np.abs(leaf))) for leaf in self.leaves)


def save_params(folder: Path, params: Any, recording: Recording) -> None:
    """Writes the parameters at the end of a run into its folder."""
    leaves: Sequence[Any] = jax.tree.leaves(params)
    arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays[_VERSION] = np.array(recording.timeline.num_commits)
    arrays[_SERVERS] = np.array(recording.num_epochs)
    with report.all_or_nothing(folder) as staging:
        np.savez(staging / PARAMS_NAME, allow_pickle=False, **arrays)


def read_params(folder: Path) -> SavedParams | None:
    """Returns what was saved in the folder of a run, or ``None`` if it has not ended.

    Raises:
      ValueError: if the file is damaged.
    """
    path = folder / PARAMS_NAME
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            leaves = [arrays[str(i)] for i in range(len(arrays.files) - 2)]
            version, num_servers = int(arrays[_VERSION]), int(arrays[_SERVERS])
        if not all(np.issubdtype(leaf.dtype, np.floating) for leaf in leaves):
            raise TypeError("there are arrays of other than floating-point numbers")
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        NotImplementedError,
        MemoryError,
    ) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({reason}): delete it, or train again") from error
    return SavedParams(leaves, version, num_servers)
