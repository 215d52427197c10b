"""Checkpoints of a real run: what a new server needs to go on."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np

from async_optax.distributed.dispatcher import Dispatcher
from async_optax.distributed.messages import Setup
from async_optax.distributed.parameter_server import ParameterServer
from async_optax.distributed.recording import TRACE_NAME
from async_optax.distributed.trace_file import TraceWriter, read_events
from async_optax.engine.checkpoints import Checkpointing, CheckpointStore

_FOLDER = "checkpoints"


class Restored(NamedTuple):
    """Where a server goes on.

    Attributes:
      version: commits that are kept.
      next_job: number of the next job.
      resume_at: offset in the trace; what follows it is void.
      time: of the last event that is kept; 0 if the run starts now.
    """

    version: int
    next_job: int
    resume_at: int
    time: float


class Saving:
    """Saves the server now and then; see :class:`async_optax.Checkpointing` for the files.

    A checkpoint is taken right after a commit, when nothing is gathered, and names the place in
    the trace that belongs to it. The trace is on the disk before the checkpoint is.

    Attributes:
      version: that of the newest checkpoint.
    """

    def __init__(self, setup: Setup, store: CheckpointStore | None):
        self._trace_path = pathlib.Path(setup.directory) / TRACE_NAME
        self._store = store
        self.version = 0

    @classmethod
    @contextlib.contextmanager
    def open(cls, setup: Setup) -> Iterator[Self]:
        """Opens the folder of a run's checkpoints, if it is to have any."""
        if setup.checkpoint_every is None:
            yield cls(setup, None)
            return
        folder = pathlib.Path(setup.directory) / _FOLDER
        checkpointing = Checkpointing(folder, every=setup.checkpoint_every)
        with CheckpointStore(checkpointing, setup.description) as store:
            yield cls(setup, store)

    def is_due(self) -> bool:
        """Whether it is time to save."""
        return self._store is not None and self._store.due()

    def save(self, server: ParameterServer, dispatcher: Dispatcher, trace: TraceWriter) -> None:
        """Saves; returns when it is safe on the disk."""
        if self._store is None:
            return
        trace.sync()
        tables = {"next_job": np.array(dispatcher.next_job), "resume_at": np.array(trace.offset)}
        self._store.save(dispatcher.version, server.state, tables)
        self.version = dispatcher.version

    def restore(self, server: ParameterServer) -> Restored:
        """Puts the newest checkpoint into a server, and returns where the run goes on."""
        events = read_events(self._trace_path)
        found = None if self._store is None else self._store.restore(server.state)
        if found is None:
            return Restored(0, 0, events[0].end, 0.0)
        version, state, tables = found
        server.restore(state)
        self.version = version
        resume_at = int(tables["resume_at"])
        kept = [event for event in events[1:] if event.offset < resume_at]
        last = max((event.fields["time"] for event in kept), default=0.0)
        return Restored(version, int(tables["next_job"]), resume_at, last)
