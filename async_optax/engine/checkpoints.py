"""Checkpoints of long runs: saved between chunks, so that a run that is killed goes on."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Self

import jax
import numpy as np

from async_optax.engine.checkpoint_arrays import (
    difference,
    form_of,
    from_host,
    named_leaves,
    to_host,
)
from async_optax.engine.checkpoint_files import (
    DamagedError,
    FolderInUseError,
    Manifest,
    flush_folder,
    import_orbax,
    lock_folder,
    read_arrays,
    read_manifest,
    verify_files,
    write_checkpoint,
)
from async_optax.engine.fingerprint import differences
from async_optax.engine.processes import Together, on_first_process
from async_optax.validation import first_line, require_count, require_number

_NAME = re.compile(r"checkpoint-(\d{6,})")
_LEFTOVER = re.compile(r"\.(?:writing|removing)-checkpoint-\d{6,}")
_NONE = -1  # instead of a number
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FREE_SPACE = "free space and call again to go on"


@dataclasses.dataclass(frozen=True)
class Checkpointing:
    """Where and how often a run saves itself.

    A folder belongs to one run: the same problem, optimizer, timeline, key and record. If it
    holds a checkpoint, the run goes on from there, and ends as it would have without the
    interruption, bit for bit. Each checkpoint holds all of the state and of what was recorded;
    while one is written there are ``keep + 1``. When several processes run one simulation they
    must see the same folder; process 0 writes.

    Attributes:
      directory: a folder, made if need be.
      every: seconds of wall time between two saves, >= 0; 0 saves after every chunk.
      keep: how many checkpoints are kept, >= 1. A damaged one falls back on the one before.

    Example:
      >>> Checkpointing("runs/a", every=600)
      Checkpointing(directory='runs/a', every=600, keep=3)
    """

    directory: str | os.PathLike[str]
    every: float = 60.0
    keep: int = 3

    def __post_init__(self) -> None:
        path = os.fspath(self.directory) if isinstance(self.directory, os.PathLike | str) else None
        if not isinstance(path, str):
            raise TypeError(f"directory must be the path of a folder, got {self.directory!r}")
        if not path:
            raise ValueError("directory must be the path of a folder, got ''")
        require_number("every", self.every, at_least=0)
        require_count("keep", self.keep)


class CheckpointStore:
    """The checkpoints of one run, in a folder that no other run uses meanwhile.

    Every checkpoint is a folder ``checkpoint-000001``, numbered in the order of saving, which
    appears under that name when it is complete and on the disk. What a killed run has left half
    done is removed when the folder is opened. If several processes run one simulation, all call
    every method at the same places with the same arguments; process 0 writes.

    Args:
      checkpointing: where, how often, how many.
      config: a description of the run; see :func:`async_optax.engine.fingerprint.describe`.

    Raises:
      TypeError: if ``config`` is not a mapping of strings.
      ValueError: if the folder belongs to a run with another description.
      OSError: if the folder cannot be made or written, or another run is using it.
      ImportError: if Orbax is not installed.

    Example:
      >>> import tempfile, numpy as np
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with CheckpointStore(Checkpointing(folder), {"seed": "0"}) as store:
      ...         store.save(64, {"w": np.float32([1, 2])}, {"loss": np.ones(64)})
      ...         position, state, tables = store.restore({"w": np.zeros(2, np.float32)})
      >>> position, state["w"], tables["loss"].shape
      (64, array([1., 2.], dtype=float32), (64,))
    """

    def __init__(self, checkpointing: Checkpointing, config: Mapping[str, str]):
        if not isinstance(checkpointing, Checkpointing):
            is_path = isinstance(checkpointing, str | os.PathLike)
            advice = f": ao.Checkpointing({os.fspath(checkpointing)!r})" if is_path else ""
            raise TypeError(
                f"checkpoint must be an async_optax.Checkpointing, got {checkpointing!r}{advice}"
            )
        if not isinstance(config, Mapping) or not all(
            isinstance(text, str) for item in config.items() for text in item
        ):
            raise TypeError(f"config must be a mapping from strings to strings, got {config!r}")
        import_orbax()
        self._folder = pathlib.Path(os.path.abspath(checkpointing.directory))
        self._every, self._keep = checkpointing.every, checkpointing.keep
        self._config = dict(config)
        self._lock: int | None = None
        self._damaged: set[int] = set()
        on_first_process(self._open)
        self._last_saved = time.monotonic()

    def due(self) -> bool:
        """Whether ``every`` seconds have passed since the last save, or since the opening."""
        elapsed = time.monotonic() - self._last_saved
        return bool(on_first_process(lambda: int(elapsed >= self._every)))

    def save(self, position: int, state: Any, tables: Mapping[str, np.ndarray]) -> None:
        """Writes a checkpoint, returns once it is on the disk, and removes the oldest.

        Args:
          position: how far the run has come, >= 0.
          state: a pytree of arrays, each of which this process has as a whole.
          tables: arrays of numbers by name.

        Raises:
          TypeError: if something is not an array of numbers, booleans or keys.
          ValueError: if ``position < 0``, or an array is spread over several processes.
          OSError: if it cannot be written; earlier checkpoints stay as they are.
        """
        require_count("position", position, at_least=0)
        leaves = named_leaves("state", state)
        leaves |= {f"tables.{name}": np.asarray(column) for name, column in tables.items()}
        forms = tuple(form_of(name, leaf) for name, leaf in leaves.items())
        arrays = [to_host(name, leaf) for name, leaf in leaves.items()]
        about = Manifest(int(position), self._config, forms)
        on_first_process(lambda: self._save(about, arrays))
        self._last_saved = time.monotonic()

    def restore(self, like: Any) -> tuple[int, Any, dict[str, np.ndarray]] | None:
        """Reads the newest checkpoint that is intact.

        A damaged one, with a file that is missing or not what was written, is passed over with a
        warning: the run repeats what it did since the one before. It is removed once there is a
        newer one.

        Args:
          like: a pytree like the state, of arrays or ``jax.ShapeDtypeStruct``. JAX arrays come
            back with its shardings, NumPy arrays where it has those.

        Returns:
          The position, the state and the tables as they were saved, bit for bit; ``None`` if
          nothing was saved.

        Raises:
          ValueError: if all checkpoints are damaged, or the state does not look like ``like``.

        Warns:
          RuntimeWarning: if a checkpoint is damaged.
        """
        number = on_first_process(self._newest_intact)
        if number == _NONE:
            return None
        folder, wanted = self._path(number), named_leaves("state", like)
        forms = [form_of(name, leaf) for name, leaf in wanted.items()]

        def read() -> tuple[Manifest, list[np.ndarray]]:
            manifest = read_manifest(folder)
            saved = [form for form in manifest.forms if form.name.startswith("state")]
            differs = difference(saved, forms)
            if differs:
                raise ValueError(f"the checkpoint {folder} is of another state: {differs}")
            return manifest, read_arrays(folder, manifest)

        manifest, arrays = Together("the checkpoint")(read)
        # Only here, since arrays over several processes are made by all of them together.
        state = [
            from_host(form, array, leaf)
            for form, array, leaf in zip(forms, arrays, wanted.values(), strict=False)
        ]
        tables = {
            form.name.removeprefix("tables."): array
            for form, array in zip(manifest.forms, arrays, strict=True)
            if form.name.startswith("tables.")
        }
        return manifest.position, jax.tree.unflatten(jax.tree.structure(like), state), tables

    def close(self) -> None:
        """Lets other runs use the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _path(self, number: int) -> pathlib.Path:
        return self._folder / f"checkpoint-{number:06d}"

    def _numbers(self) -> list[int]:
        """Numbers of the checkpoints in the folder, newest first."""
        matches = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted((int(match[1]) for match in matches if match), reverse=True)

    def _open(self) -> int:
        folder, probe = self._folder, self._folder / ".writing-checkpoint-000000"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock_folder(folder)
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    shutil.rmtree(path)
            probe.mkdir()
            (probe / "probe").write_bytes(b"probe")
            shutil.rmtree(probe)
            flush_folder(folder.parent)
            self._check_config()
        except OSError as error:
            self.close()
            if isinstance(error, FolderInUseError):
                raise
            advice = "use a folder on a file system with space, in which this user may write"
            if error.errno in _FULL:
                advice = f"use a folder on a file system with space; or {_FREE_SPACE}"
            raise OSError(
                error.errno,
                f"checkpoints cannot be written to {folder} ({error.strerror or error}): {advice}",
            ) from error
        except ValueError:
            self.close()
            raise
        return 0

    def _check_config(self) -> None:
        """Compares the run with the one that the newest legible checkpoint belongs to."""
        for number in self._numbers():
            try:
                saved = read_manifest(self._path(number)).config
            except DamagedError:
                continue  # restore says so
            differs = differences(saved, self._config)
            if differs:
                raise ValueError(
                    f"the checkpoints in {self._folder} belong to another run: {differs}. Use "
                    "another folder, or delete this one"
                )
            return

    def _save(self, about: Manifest, arrays: list[np.ndarray]) -> int:
        temporary = None
        try:
            number = max(self._numbers(), default=0) + 1
            target = self._path(number)
            temporary = target.with_name(f".writing-{target.name}")
            if temporary.exists():  # a save that failed could not remove it
                shutil.rmtree(temporary)
            write_checkpoint(target, temporary, about, arrays)
            self._remove_old()
        except Exception as error:  # Orbax raises many kinds
            raise self._failure(about.position, sum(a.nbytes for a in arrays), error) from error
        finally:
            if temporary is not None:  # what cannot be removed now is when the folder is opened
                shutil.rmtree(temporary, ignore_errors=True)
        return number

    def _remove_old(self) -> None:
        numbers = self._numbers()
        good = [number for number in numbers if number not in self._damaged]
        for number in {*numbers} - {*good[: self._keep]}:
            path = self._path(number)
            # Renamed first: a name that is complete must never stand for a part.
            removing = path.rename(path.with_name(f".removing-{path.name}"))
            shutil.rmtree(removing)

    def _failure(self, position: int, num_bytes: int, error: Exception) -> OSError:
        code = error.errno if isinstance(error, OSError) else None
        if any(sign in str(error) for sign in ("No space left", "RESOURCE_EXHAUSTED")):
            code = errno.ENOSPC
        reason = os.strerror(code) if code else f"{type(error).__name__}: {first_line(error):.200}"
        free, kept = "an unknown number of", "no earlier one can be read"
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            free = str(shutil.disk_usage(self._folder).free)
            if not self._numbers():
                kept = "there is no earlier one"
            for _, manifest in self._intact([]):
                kept = f"the checkpoint at position {manifest.position} is intact"
                break
        return OSError(
            code or errno.EIO,
            f"the checkpoint at position {position}, of {num_bytes} bytes, cannot be written to "
            f"{self._folder}, which has {free} bytes free: {reason}; {kept}"
            + (f"; {_FREE_SPACE}" if code in _FULL else ""),
        )

    def _intact(self, damages: list[str]) -> Iterator[tuple[int, Manifest]]:
        """Yields intact checkpoints, newest first; appends what is wrong with others."""
        for number in self._numbers():
            folder = self._path(number)
            try:
                manifest = read_manifest(folder)
                verify_files(folder, manifest)
            except DamagedError as error:
                self._damaged.add(number)
                damages.append(f"{folder.name}: {error}")
            else:
                yield number, manifest

    def _newest_intact(self) -> int:
        damages: list[str] = []
        number, manifest = next(self._intact(damages), (_NONE, None))
        if manifest is None and damages:
            raise ValueError(
                f"all checkpoints in {self._folder} are damaged ({'; '.join(damages)}): use "
                "another folder, or delete this one and start again"
            )
        if manifest is not None and damages:
            warnings.warn(
                f"passing over damaged checkpoints in {self._folder} ({'; '.join(damages)}): the "
                f"run goes on from position {manifest.position}",
                RuntimeWarning,
                stacklevel=4,
            )
        return number
