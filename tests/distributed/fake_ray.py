"""Ray without processes: the real server and workers, in one thread, and ways to break them."""

import itertools
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

import async_optax as ao
from async_optax.distributed import Limits
from async_optax.distributed.messages import Setup
from async_optax.distributed.server_actor import ServerActor
from async_optax.distributed.trace_file import TraceWriter
from async_optax.distributed.worker_actor import WorkerActor
from tests.engine.problems import quadratic_problem

PROBLEM, METHOD, KEY = (
    quadratic_problem(),
    ao.optimizers.async_heavy_tailed(0.05),
    jax.random.key(4),
)
DIES, HANGS = "dies", "hangs"


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


class Ref:
    """A call: made when somebody waits for it, as long as its worker is the one that was asked."""

    def __init__(self, call=None, value=None):
        self._call, self.outcome = call, value

    def is_ready(self):
        if self._call is not None:
            outcome = self._call()
            if outcome is HANGS:
                return False
            self._call, self.outcome = None, outcome
        return True


class Handle:
    """A worker's: asks ``breaks`` before each call, then calls the real thing."""

    def __init__(self, worker, breaks):
        self._worker, self._breaks = worker, breaks
        self._actor = WorkerActor(worker)
        self.compute, self.ready, self.cancel = map(self._method, ("compute", "ready", "cancel"))

    def _method(self, name):
        def remote(*arguments):
            arguments = [x.outcome if isinstance(x, Ref) else x for x in arguments]
            return Ref(lambda: self._call(name, arguments))

        method = types.SimpleNamespace(remote=remote)
        method.options = lambda **options: method
        return method

    def _call(self, name, arguments):
        try:
            how = self._breaks(self._worker, name)
            if how is HANGS:
                return HANGS
            if how is DIES:
                self.start_again()
                return RayActorError("the process ended\nsomehow")
            return getattr(self._actor, name)(*arguments)
        except Exception as error:
            return RayTaskError(error)

    def start_again(self):
        self._actor = WorkerActor(self._worker)


class FakeRay:
    """The part of Ray that a server calls."""

    exceptions = types.SimpleNamespace(
        RayError=RayError,
        RayActorError=RayActorError,
        RayTaskError=RayTaskError,
        OutOfMemoryError=OutOfMemoryError,
    )

    def __init__(self):
        self._until = time.monotonic() + 60.0

    def put(self, value):
        return Ref(value=value)

    def get(self, ref, timeout=None):
        value = ref.outcome if isinstance(ref, Ref) else ref
        if isinstance(value, Exception):
            raise value
        return value

    def wait(self, refs, num_returns, timeout):
        assert time.monotonic() < self._until, "the server goes on for ever"
        for ref in refs:
            if ref.is_ready():
                return [ref], [other for other in refs if other is not ref]
        time.sleep(timeout)
        return [], refs

    def kill(self, handle, no_restart):
        assert not no_restart
        handle.start_again()


class FakeRun:
    """A run whose servers are started by hand.

    Args:
      directory: of the run.
      protocol: who starts when.
      breaks: ``breaks(worker, method)`` returns ``DIES`` or ``HANGS``, raises, or does nothing;
        the number of a call of ``compute`` is counted by ``num_jobs``.
    """

    def __init__(self, directory, protocol, breaks=lambda worker, method: None, **changes):
        self.num_jobs = [0, 0]
        self._breaks, self._epochs = breaks, itertools.count(1)
        like = jax.eval_shape(PROBLEM.init, KEY)
        fields = {
            "problem": PROBLEM,
            "optimizer": optax.with_extra_args_support(METHOD),
            "program": ao.gradient(),
            "protocol": protocol,
            "num_workers": 2,
            "seed": 0,
            "key_data": np.asarray(jax.random.key_data(KEY)),
            "key_impl": "threefry2x32",
            "x64": jnp.result_type(float) == jnp.float64,
            "served_like": like,
            "sent_like": like,
            "slot_dtype": None,
            "extra_time": None,
            "directory": str(directory),
            "num_commits": None,
            "max_time": None,
            "evaluate_every": None,
            "checkpoint_every": 1e6,
            "description": {},
            "limits": Limits(),
            "platform": None,
            "threads": 1,
        }
        self.fields = fields | changes
        header = {
            "num_workers": 2,
            "key": {"impl": "threefry2x32", "data": fields["key_data"].tolist()},
            "precision": str(jnp.result_type(float)),
            "protocol": protocol.name,
            "slot_dtype": None,
            "note": {},
        }
        TraceWriter(directory / "trace.jsonl", header).close()

    def server(self, **changes):
        """The next server."""
        setup = Setup(**self.fields | changes)
        return ServerActor([Ref(value=setup)], next(self._epochs))

    def serve(self, server=None, **changes):
        """Runs a server to its end; returns it and its result."""
        server = self.server(**changes) if server is None else server
        workers = [Handle(worker, self._break) for worker in (0, 1)]
        return server, server.run(workers)

    def _break(self, worker, method):
        if method == "compute":
            self.num_jobs[worker] += 1
        return self._breaks(worker, method)
