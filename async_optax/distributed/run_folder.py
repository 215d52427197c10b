"""The folder of a run: whether a run can begin or go on there, and the header it begins with."""

import json
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from async_optax.distributed.messages import Setup
from async_optax.distributed.recording import TRACE_NAME
from async_optax.distributed.trace_file import EPOCH, read_events
from async_optax.engine.fingerprint import differences


def checked_folder(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a run as an absolute path, made if need be.

    Raises:
      TypeError: if it is no path.
      ValueError: if it is empty.
      OSError: if files cannot be written into it.
    """
    if not isinstance(directory, str | os.PathLike) or not isinstance(os.fspath(directory), str):
        raise TypeError(f"directory must be the path of a folder, got {directory!r}")
    if not os.fspath(directory):
        raise ValueError("directory must be the path of a folder, got ''")
    folder = pathlib.Path(directory).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the directory {folder}: {error.strerror}") from error
    return folder


def next_epoch(folder: pathlib.Path, setup: Setup) -> int:
    """Returns the number of the next server of the run in a folder, 1 if there is none yet.

    Raises:
      ValueError: if the run there is another one, cannot go on, or its trace is damaged.
    """
    path = folder / TRACE_NAME
    if not path.exists():
        return 1
    events = read_events(path)
    description = events[0].fields.get("description")
    if not isinstance(description, dict):
        raise ValueError(f"{path} does not say of which run it is: use another directory")
    there = {name: str(value) for name, value in description.items()}
    differs = differences(there, setup.description)
    if differs:
        raise ValueError(f"{folder} holds another run: {differs}. Use another directory")
    if setup.checkpoint_every is None and len(events) > 1:
        raise ValueError(
            f"{folder} holds a run already, and checkpoint_every=None cannot go on with one: use "
            "another directory"
        )
    return 1 + max([0, *(event.fields["number"] for event in events if event.kind == EPOCH)])


def header_of(setup: Setup, note: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the header of a new trace.

    Raises:
      TypeError: if the note is not JSON.
    """
    try:
        kept = json.loads(json.dumps({} if note is None else dict(note)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"note must be a dictionary of JSON: {error}") from error
    return {
        "num_workers": setup.num_workers,
        "protocol": setup.protocol.name,
        "issues_tokens": bool(setup.protocol.policy(setup.num_workers).issues_tokens),
        "key": {"impl": setup.key_impl, "data": setup.key_data.tolist()},
        "precision": "float64" if setup.x64 else "float32",
        "slot_dtype": setup.slot_dtype,
        "seed": setup.seed,
        "created": time.time(),
        "description": setup.description,
        "note": kept,
    }
