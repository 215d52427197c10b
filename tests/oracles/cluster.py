"""A cluster in plain Python: a list of jobs scanned for the next one, a loop per protocol.

Slow and obvious, with nothing but compute times. Jobs that end together come in the order in which
they were started; who delivers just at its time limit has delivered.
"""

import contextlib
import dataclasses
import itertools

import numpy as np

from async_optax.timelines import Reason
from async_optax.timelines.runtimes.streams import ASSIGNMENT, stream

COLUMNS = ("worker", "read_version", "version", "start_time", "time", "weight")
COLUMNS += ("accepted", "commit", "begin", "sent", "token")
LOST = ("worker", "start_time", "stop_time", "reason")


class Over(Exception):
    """The run has all the commits, or all the time, that it was asked for."""


@dataclasses.dataclass(eq=False)
class Job:
    """One computation."""

    worker: int
    read: int
    handed_out: float
    begin: float
    end: float  # when its worker delivers it, or throws it away
    sent: float
    token: int
    expires: bool = False


class Cluster:
    """Workers, the jobs they run and the server's version."""

    def __init__(self, model, num_workers, seed, num_commits=None, max_time=np.inf):
        self.num_workers, self.workers, self.seed = num_workers, range(num_workers), seed
        self.times = model.job_times(num_workers, seed)
        self.num_commits, self.max_time = num_commits, max_time
        self.now, self.version = 0.0, 0
        self.jobs = []  # those that run, in the order in which they were started
        self.queued = []
        self.rows, self.lost = [], []

    def start(self, worker, *, limit=np.inf, read=None, handed_out=None, token=-1):
        """The worker takes a job up now."""
        time = next(self.times[worker])
        sent = self.now + time
        expires = sent > self.now + limit
        self.jobs.append(
            Job(
                worker=worker,
                read=self.version if read is None else read,
                handed_out=self.now if handed_out is None else handed_out,
                begin=self.now,
                end=self.now + limit if expires else sent,
                sent=sent,
                token=token,
                expires=expires,
            )
        )

    def wait(self):
        """Lets time pass until a job ends, and takes it off the list."""
        job = min(self.jobs, key=lambda job: (job.end, job.expires))  # the first of equals
        self.pass_time(job.end)
        self.jobs.remove(job)
        return job

    def pass_time(self, time):
        if time > self.max_time:
            raise Over
        self.now = max(self.now, time)

    def abort(self, job, reason=Reason.ABORTED):
        self.lost.append((job.worker, job.begin, self.now, reason))
        if job in self.jobs:
            self.jobs.remove(job)

    def use(self, job, weight, commit):
        self.row(job, weight, True, commit)

    def drop(self, job):
        self.row(job, 0.0, False, False)

    def row(self, job, weight, accepted, commit):
        self.rows.append(
            (job.worker, job.read, self.version, job.handed_out, self.now, weight)
            + (accepted, commit, job.begin, job.sent, job.token)
        )
        self.version += commit

    def commit_alone(self, worker):
        """Commits what is gathered although nothing arrives."""
        now = self.now
        self.row(Job(worker, self.version, now, now, now, now, -1), 0.0, False, True)

    def check_over(self):
        if self.version == self.num_commits:
            raise Over

    def run(self, loop, **options):
        """Returns the columns by name, if any, the lost jobs sorted, and the time at the end."""
        with contextlib.suppress(Over):
            loop(self, **options)
        end = self.now if self.num_commits else self.max_time
        for job in self.jobs:
            self.lost.append((job.worker, job.begin, min(end, job.sent), Reason.UNFINISHED))
        for job in self.queued:
            self.lost.append((job.worker, end, end, Reason.UNFINISHED))
        columns = [np.array(column) for column in zip(*self.rows, strict=True)]
        return dict(zip(COLUMNS, columns, strict=False)), sorted(self.lost), end


def synchronous(cluster, backup=0):
    free, needed = list(cluster.workers), cluster.num_workers - backup
    while True:
        for worker in free:
            cluster.start(worker)
        cluster.check_over()
        free = []
        while len(free) < needed:
            job = cluster.wait()
            if job.read < cluster.version:
                cluster.drop(job)
                cluster.start(job.worker)
            else:
                free.append(job.worker)
                cluster.use(job, 1 / needed, len(free) == needed)


def cohorts(cluster, cohort, backup=0):
    draws, free = stream(cluster.seed, ASSIGNMENT), list(cluster.workers)
    while True:
        pool = list(free)
        for place in range(min(cohort, len(pool))):
            other = place + int((len(pool) - place) * draws.random())
            pool[place], pool[other] = pool[other], pool[place]
        chosen = pool[:cohort]
        free = [worker for worker in free if worker not in chosen]
        for worker in chosen:
            cluster.start(worker)
        cluster.check_over()
        needed, num_arrived = max(1, len(chosen) - backup), 0
        while num_arrived < needed:
            job = cluster.wait()
            free.append(job.worker)
            if job.read < cluster.version:
                cluster.drop(job)
                if not chosen:
                    break
            else:
                num_arrived += 1
                cluster.use(job, 1 / needed, num_arrived == needed)


def asynchronous(cluster):
    buffered(cluster, size=1)


def assigned(cluster, assignment, concurrency=None):
    draws = stream(cluster.seed, ASSIGNMENT)

    def turns():
        while True:
            if assignment == "uniform":
                yield int(cluster.num_workers * draws.random())
            else:
                keys = [draws.random() for _ in cluster.workers]
                yield from sorted(cluster.workers, key=lambda worker: keys[worker])

    def hand_out(worker):
        if any(job.worker == worker for job in cluster.jobs):
            now = cluster.now
            cluster.queued.append(Job(worker, cluster.version, now, now, now, now, -1))
        else:
            cluster.start(worker)

    turn = turns()
    for _ in range(concurrency or cluster.num_workers):
        hand_out(next(turn))
    while True:
        job = cluster.wait()
        cluster.use(job, 1.0, True)
        next_job = next((other for other in cluster.queued if other.worker == job.worker), None)
        if next_job is not None:  # it was handed out on the version of then
            cluster.queued.remove(next_job)
            cluster.start(job.worker, read=next_job.read, handed_out=next_job.handed_out)
        hand_out(next(turn))
        cluster.check_over()


def buffered(cluster, size, wait=False):
    free = list(cluster.workers)
    for num_arrived in itertools.count():
        if num_arrived % size == 0 or not wait:
            for worker in free:
                cluster.start(worker)
            free = []
        cluster.check_over()
        job = cluster.wait()
        free.append(job.worker)
        cluster.use(job, 1 / size, (num_arrived + 1) % size == 0)


def softsync(cluster, splits):
    buffered(cluster, cluster.num_workers // splits)


def bounded_staleness(cluster, bound):
    clock, idle = [0] * cluster.num_workers, list(cluster.workers)
    while True:
        for worker in list(idle):
            if clock[worker] - min(clock) <= bound:
                idle.remove(worker)
                cluster.start(worker)
        cluster.check_over()
        job = cluster.wait()
        clock[job.worker] += 1
        idle.append(job.worker)
        cluster.use(job, 1.0, True)


def rennala(cluster, batch_size, stop=True):
    for worker in cluster.workers:
        cluster.start(worker)
    while True:
        gathered = 0
        while gathered < batch_size:
            job = cluster.wait()
            if job.read < cluster.version:
                cluster.drop(job)
            else:
                gathered += 1
                cluster.use(job, 1 / batch_size, gathered == batch_size)
            if gathered < batch_size or not stop:
                cluster.start(job.worker)
        for other in list(cluster.jobs) if stop else ():
            cluster.abort(other)
        for worker in cluster.workers if stop else ():
            cluster.start(worker)
        cluster.check_over()


def ringmaster(cluster, max_staleness, stop=False):
    for worker in cluster.workers:
        cluster.start(worker)
    while True:
        job = cluster.wait()
        if cluster.version - job.read <= max_staleness:
            cluster.use(job, 1.0, True)
        else:
            cluster.drop(job)
        cluster.start(job.worker)
        too_old = [job for job in cluster.jobs if cluster.version - job.read > max_staleness]
        for other in too_old if stop else ():
            cluster.abort(other)
            cluster.start(other.worker)
        cluster.check_over()


def mindflayer(cluster, time_limit, batch_size=None, success_probability=1.0):
    batch_size = batch_size or cluster.num_workers
    limits = np.broadcast_to(time_limit, cluster.num_workers).tolist()

    def start(worker):
        cluster.start(worker, limit=limits[worker])

    for worker in cluster.workers:
        start(worker)
    while True:
        num_gathered = 0
        for trial in range(1, batch_size + 1):
            job = cluster.wait()
            last = trial == batch_size
            if job.expires:
                cluster.abort(job, Reason.EXPIRED)
                if last and num_gathered:
                    cluster.commit_alone(job.worker)
            else:
                num_gathered += 1
                cluster.use(job, 1 / (batch_size * success_probability), last)
            if not (last and num_gathered):
                start(job.worker)
        if num_gathered:
            for other in list(cluster.jobs):
                cluster.abort(other)
            for worker in cluster.workers:
                start(worker)
        cluster.check_over()


def token_control(cluster, global_batch, tolerance):
    num_handed_out = itertools.count()

    def start(worker):
        cluster.start(worker, token=next(num_handed_out) // global_batch)

    for worker in cluster.workers:
        start(worker)
    for num_arrived in itertools.count(1):
        job = cluster.wait()
        commit = num_arrived % global_batch == 0
        if cluster.version - job.token <= tolerance:
            cluster.use(job, 1 / global_batch, commit)
        else:  # without weight; a commit takes note of it all the same
            cluster.row(job, 0.0, commit, commit)
        start(job.worker)
        cluster.check_over()


def round_robin(cluster):
    for worker in cluster.workers:
        cluster.start(worker)
    for worker in itertools.cycle(cluster.workers):
        job = next(job for job in cluster.jobs if job.worker == worker)
        cluster.pass_time(job.end)
        cluster.jobs.remove(job)
        cluster.use(job, 1.0, True)
        cluster.start(worker)
        cluster.check_over()


def run(loop, model, num_workers, seed, num_commits=None, max_time=np.inf, **options):
    """Runs one of the loops above; see :meth:`Cluster.run`."""
    return Cluster(model, num_workers, seed, num_commits, max_time).run(loop, **options)
