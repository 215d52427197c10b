"""One checkpoint on disk: a folder that is whole and durable, or seen to be damaged."""

import contextlib
import dataclasses
import errno
import hashlib
import importlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.engine.checkpoint_arrays import ArrayForm
from async_optax.validation import first_line

_MANIFEST, _ARRAYS, _FORMAT = "manifest.json", "arrays", 1


class DamagedError(Exception):
    """A checkpoint is not what was written."""


class FolderInUseError(OSError):
    """Another run holds the folder."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
      position: how far the run had come.
      config: the description of the run.
      forms: of the arrays, in their order.
      files: size and SHA-256 of each file, by its path in the checkpoint.
    """

    position: int
    config: dict[str, str]
    forms: tuple[ArrayForm, ...]
    files: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


def import_orbax() -> Any:
    """Returns the module ``orbax.checkpoint``.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        return importlib.import_module("orbax.checkpoint")
    except ImportError as error:
        raise ImportError(
            "checkpoints need orbax-checkpoint: pip install 'async_optax[checkpoint]'"
        ) from error


def write_checkpoint(
    target: pathlib.Path, temporary: pathlib.Path, about: Manifest, arrays: Sequence[np.ndarray]
) -> None:
    """Writes a checkpoint that gets its name only when all of it is on the disk.

    Orbax writes the arrays but leaves them in the system's cache. Here they are flushed, then
    the manifest with the checksum of every file, and then the folder is renamed.

    Args:
      target: the folder to be.
      temporary: what to call it meanwhile; both absolute, in one existing folder.
      about: the manifest without the files.
      arrays: one for each form.

    Raises:
      OSError: if the file system fails; Orbax may raise anything else then.
    """
    temporary.mkdir()
    stored = {key: array for key, array in _keyed(about.forms, arrays) if array.size}
    if stored:
        with _checkpointer() as (ocp, checkpointer):
            checkpointer.save(temporary / _ARRAYS, args=ocp.args.PyTreeSave(stored))
    files, folders = {}, [temporary]
    for path in sorted(temporary.rglob("*")):
        if path.is_dir():
            folders.append(path)
            continue
        with path.open("rb") as file:
            os.fsync(file.fileno())
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(temporary).as_posix()] = path.stat().st_size, checksum
    content = json.dumps(dataclasses.asdict(dataclasses.replace(about, files=files)))
    with (temporary / _MANIFEST).open("x", encoding="utf-8") as file:
        json.dump({"format": _FORMAT, "sha256": _sha256(content), "content": content}, file)
        file.flush()
        os.fsync(file.fileno())
    for folder in folders:
        flush_folder(folder)
    temporary.rename(target)
    flush_folder(target.parent)


def read_manifest(folder: pathlib.Path) -> Manifest:
    """Returns the manifest of a checkpoint.

    Raises:
      DamagedError: if it is missing or changed.
      ValueError: if a later version of this package has written it.
    """
    try:
        outer = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if outer["format"] != _FORMAT:
            raise ValueError(
                f"the checkpoint {folder} has format {outer['format']}, this program reads "
                f"{_FORMAT}: use the async_optax that wrote it, or another folder"
            )
        intact, content = outer["sha256"] == _sha256(outer["content"]), outer["content"]
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as e:
        raise DamagedError(f"{_MANIFEST} cannot be read ({type(e).__name__})") from e
    if not intact:
        raise DamagedError(f"the checksum of {_MANIFEST} is wrong")
    fields = json.loads(content)
    forms = [ArrayForm(**form | {"shape": tuple(form["shape"])}) for form in fields.pop("forms")]
    return Manifest(forms=tuple(forms), **fields)


def verify_files(folder: pathlib.Path, manifest: Manifest) -> None:
    """Reads all files of a checkpoint.

    Raises:
      DamagedError: naming the first file that is not as the manifest says.
    """
    for name, (size, checksum) in manifest.files.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                length = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error}") from error
        if length != size:
            raise DamagedError(f"{name} has {length} bytes instead of {size}")
        if found != checksum:
            raise DamagedError(f"the checksum of {name} is wrong")


def read_arrays(folder: pathlib.Path, manifest: Manifest) -> list[np.ndarray]:
    """Returns the arrays of an intact checkpoint, in the order of the manifest's forms.

    Raises:
      ValueError: if the installed Orbax does not read what was written.
    """
    empty = [np.zeros(form.shape, jnp.dtype(form.dtype)) for form in manifest.forms]
    keyed = list(_keyed(manifest.forms, empty))
    stored: dict[str, np.ndarray] = {}
    if any(array.size for array in empty):
        try:
            with _checkpointer() as (ocp, checkpointer):
                stored = checkpointer.restore(folder / _ARRAYS, args=ocp.args.PyTreeRestore())
        except Exception as error:  # whatever Orbax raises, the files are what was written
            raise ValueError(
                f"the checkpoint {folder} is intact, but orbax-checkpoint {ocp.__version__} "
                f"cannot read it: {first_line(error):.200}"
            ) from error
    arrays = [np.asarray(stored.get(key, array)) for key, array in keyed]
    for form, array in zip(manifest.forms, arrays, strict=True):
        if (array.shape, str(array.dtype)) != (form.shape, form.dtype):
            raise ValueError(
                f"the checkpoint {folder} is intact, but {form} was read as "
                f"{array.dtype}{list(array.shape)}"
            )
    return arrays


def flush_folder(folder: pathlib.Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems flush names by themselves only
            raise
    finally:
        os.close(descriptor)


def lock_folder(folder: pathlib.Path) -> int:
    """Opens the folder's lock; the system lets go of it when the process ends, however."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise FolderInUseError(
            errno.EBUSY, f"another run is saving checkpoints to {folder}: use another folder"
        ) from error
    except (ImportError, OSError):
        return descriptor  # neither all systems nor all file systems have locks
    return descriptor


@contextlib.contextmanager
def _checkpointer() -> Iterator[tuple[Any, Any]]:
    """Orbax for this process alone: processes agree among themselves who writes."""
    ocp = import_orbax()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(),
        active_processes={jax.process_index()},
        barrier_sync_key_prefix=f"async_optax_{jax.process_index()}",
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    logger = logging.getLogger("absl")
    logger.addFilter(_is_not_raised)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
            yield ocp, checkpointer
    finally:
        logger.removeFilter(_is_not_raised)


def _is_not_raised(record: logging.LogRecord) -> bool:
    """Drops what Orbax's threads report, traceback and all: it is raised as well."""
    return not (record.exc_info and f"{os.sep}orbax{os.sep}" in record.pathname)


def _keyed(
    forms: Sequence[ArrayForm], arrays: Sequence[np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Names that differ from the first character on: none is the folder of another."""
    for i, (form, array) in enumerate(zip(forms, arrays, strict=True)):
        yield f"{i}.{form.name}", array


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
