"""A server and workers without processes: times are simulated, everything else is the real code."""

import heapq
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from async_optax.distributed.computer import Computer
from async_optax.distributed.dispatcher import Dispatcher
from async_optax.distributed.packing import pack, unpack
from async_optax.distributed.parameter_server import Arrived, ParameterServer
from async_optax.distributed.trace_file import TraceWriter

ARRIVE, EXPIRE, LEAVE, JOIN = range(4)


class VirtualRun:
    """Runs a protocol on workers whose jobs take given times.

    Args:
      protocol: who starts when.
      times: an iterator of job times per worker.
      spans: when workers are there, ``{worker: [(join, leave), ...]}``; the others always are.
      trace: path of a trace to write, or ``None``.
      training: ``(problem, optimizer, program, key)`` or ``None`` for no arithmetic.
    """

    def __init__(self, protocol, times, spans=None, trace=None, training=None, slot_dtype=None):
        self.num_workers = len(times)
        self._times, self._spans = times, dict(spans or {})
        policy = self._policy = protocol.policy(self.num_workers)
        self._name = protocol.name
        self._events, self._order = [], itertools.count()
        self.rows, self.lost, self._arrives = [], [], {}
        self._served, self._results, self._after = {}, {}, [-1] * self.num_workers
        self._trace = None
        if trace is not None:
            key = jax.random.key_data(training[3]) if training else np.zeros(2, np.uint32)
            header = {
                "num_workers": self.num_workers,
                "issues_tokens": bool(policy.issues_tokens),
                "key": {"impl": "threefry2x32", "data": np.asarray(key).tolist()},
                "precision": str(jnp.result_type(float)),
                "slot_dtype": None if slot_dtype is None else str(jnp.dtype(slot_dtype)),
            }
            self._trace = TraceWriter(trace, header)
        self.server = None
        if training is not None:
            problem, optimizer, program, key = training
            optimizer = optax.with_extra_args_support(optimizer)
            dtype = None if slot_dtype is None else jnp.dtype(slot_dtype)
            self.server = ParameterServer(problem, optimizer, program, key, dtype)
            self._form = getattr(program, "packed_as", None)
            like = jax.eval_shape(problem.init, key)
            self._make = lambda worker: Computer(problem, program, worker, key, like)
            self._computers = [self._make(worker) for worker in range(self.num_workers)]

    def run(self, num_commits):
        """Runs until that many commits; returns the parameters, if any."""
        self.dispatcher = Dispatcher(
            self._name, self._policy, self.num_workers, self, last_version=num_commits
        )
        present = []
        for worker in range(self.num_workers):
            spans = self._spans.get(worker, [(0.0, np.inf)])
            for join, leave in spans:
                if join == 0:
                    present.append(worker)
                else:
                    self._push(join, JOIN, worker)
                if leave < np.inf:
                    self._push(leave, LEAVE, worker)
        self._note("epoch", number=1, resume_at=0 if self._trace is None else self._trace.offset)
        for worker in present:
            self._note("join", worker=worker, time=0.0)
        self.dispatcher.begin(present, 0.0)
        while self.dispatcher.version < num_commits:
            time, kind, _, worker, job = heapq.heappop(self._events)
            if kind in (ARRIVE, EXPIRE) and self.dispatcher.job_of(worker) is not job:
                continue
            self._time = time
            if kind == ARRIVE:
                self.dispatcher.arrive(worker, time)
            elif kind == EXPIRE:
                self.dispatcher.time_out(worker, time)
            elif kind == LEAVE:
                self._note("leave", worker=worker, time=time, why="virtual")
                self.dispatcher.leave(worker, time)
                if self.server is not None:
                    self._computers[worker] = self._make(worker)  # a new process
            else:
                self._note("join", worker=worker, time=time)
                self.dispatcher.join(worker, time)
        self.dispatcher.stop(time)
        self._note("end", time=time)
        if self._trace is not None:
            self._trace.close()
        return None if self.server is None else self.server.params()

    def _push(self, time, kind, worker, job=None):
        heapq.heappush(self._events, (time, kind, next(self._order), worker, job))

    def _note(self, event, **fields):
        if self._trace is not None:
            self._trace.write(event, **fields)

    # What the dispatcher says

    def hand_out(self, job):
        if self.server is not None:
            self._served.setdefault(job.read_version, self.server.served())

    def send(self, job):
        arrives = job.begin + next(self._times[job.worker])
        limit = self.dispatcher.time_limit(job.worker)
        if limit is not None and arrives > job.begin + limit:
            self._push(job.begin + limit, EXPIRE, job.worker, job)
        else:
            self._arrives[job] = arrives
            self._push(arrives, ARRIVE, job.worker, job)
        if self.server is not None:
            computer = self._computers[job.worker]
            served = self._served[job.read_version]
            computed = computer.compute(served, job.number, self._after[job.worker])
            update = unpack(pack(self._form, computed.update))
            for packed, sent in zip(update, computed.update, strict=True):
                np.testing.assert_array_equal(packed, sent)
            self._results[job.number] = computed._replace(update=update)

    def handle(self, job, decision, version, time):
        accept, weight, commit = decision.accept, float(decision.weight), decision.commit
        row = (job.worker, job.read_version, version, job.start, time, weight, accept, commit)
        self.rows.append(row)
        loss, fresh = 0.0, False
        if self.server is not None:
            computed = self._results.pop(job.number)
            loss, fresh = computed.loss, computed.fresh
            if accept:
                stale = self._served[job.read_version]
                staleness = version - job.read_version
                arrived = Arrived(computed.update, stale, staleness, job.worker, job.number, weight)
                self.server.arrive(arrived, decision)
                self._after[job.worker] = job.number
        names = ("worker", "read_version", "version", "start_time", "time", "weight")
        fields = dict(zip((*names, "accepted", "commit"), row, strict=True))
        fields |= dict.fromkeys(("compute", "begin"), job.begin)
        fields |= dict.fromkeys(("upload", "sent"), time)
        token = {} if decision.token < 0 else {"token": decision.token}
        self._note("arrival", job=job.number, loss=loss, fresh=fresh, **fields, **token)

    def commit_alone(self, worker, version, time):
        self.rows.append((worker, version, version, time, time, 0.0, False, True))
        if self.server is not None:
            self.server.commit_alone()
        self._note("commit", worker=worker, version=version, time=time)

    def drop(self, job, reason, time):
        stop = min(time, self._arrives.get(job, time))
        self.lost.append((job.worker, job.begin, stop, int(reason)))
        fields = {"worker": job.worker, "begin": job.begin, "stop": stop, "time": time}
        self._note("lost", **fields, reason=int(reason))
