"""Datasets in files: netCDF, whole or not at all."""

import importlib
import io
import os
import pathlib
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from async_optax.validation import first_line

if TYPE_CHECKING:
    import xarray


def require_xarray() -> None:
    """Raises ``ImportError`` naming the extra if xarray, h5netcdf or h5py is not installed."""
    try:
        for name in ("xarray", "h5netcdf", "h5py"):
            importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"sweeps need xarray, h5netcdf and h5py ({error}): pip install 'async_optax[sweep]'"
        ) from error


def save(dataset: "xarray.Dataset", path: str | os.PathLike[str]) -> None:
    """Writes a dataset to a netCDF file, whole or, if that fails, not at all.

    The file is written beside ``path`` and then takes its place: at no moment is there half a
    file under that name.

    Args:
      dataset: of a sweep, or any other.
      path: where to; a file that is there is replaced.

    Raises:
      FileNotFoundError: if the folder does not exist.
      ImportError: if the extra ``sweep`` is not installed.
      OSError: if the file cannot be written, naming it; what was there is as it was.

    Example:
      >>> import pathlib, tempfile, xarray
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder) / "sweep.nc"
      ...     save(xarray.Dataset({"loss": ("seed", [1.0, 0.5])}), path)
      ...     load(path)["loss"].values
      array([1. , 0.5])
    """
    require_xarray()
    target = pathlib.Path(path)
    require_folder(target)
    # In memory first: HDF5 itself does not survive a full disk.
    content: Any = dataset.to_netcdf(engine="h5netcdf")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(error.errno, f"cannot write the sweep: {error.strerror}", str(path)) from (
            error
        )
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> "xarray.Dataset":
    """Reads a dataset that :func:`save` wrote, equal to the bit.

    Args:
      path: a netCDF file.

    Returns:
      The dataset, in memory: the file is closed.

    Raises:
      FileNotFoundError: if there is no such file.
      ImportError: if the extra ``sweep`` is not installed.
      ValueError: if it is damaged, or no netCDF file.
    """
    require_xarray()
    import xarray

    source = pathlib.Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    content = source.read_bytes()
    try:
        return xarray.load_dataset(io.BytesIO(content), engine="h5netcdf")
    except Exception as error:  # a damaged file may break its reader anywhere
        raise ValueError(f"{path} is damaged, or no netCDF file: {first_line(error)}") from error


def require_names(metrics: Iterable[str]) -> None:
    """Raises ``ValueError`` if netCDF has no variables of these names."""
    for name in metrics:
        if not isinstance(name, str) or name in ("", ".") or {"/", "\0"} & {*name}:
            raise ValueError(
                f"problem.evaluate returns a metric {name!r}, which no file can hold: use a name "
                "without '/', or leave out path"
            )


def require_folder(path: pathlib.Path) -> None:
    """Raises ``FileNotFoundError`` if a file could not be in the folder of ``path``."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for {path.name}")
