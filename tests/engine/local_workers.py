"""Workers that train on their own, as NumPy loops: what replays take for a model and its rows."""

import jax
import jax.numpy as jnp
import numpy as np


class Momentum:
    """``v <- 0.9 v + g; x <- x - lr v``."""

    def __init__(self, lr):
        self.lr, self.velocity = lr, 0.0

    def step(self, x, g, *_):
        self.velocity = 0.9 * self.velocity + g
        return x - self.lr * self.velocity


class AdamW:
    """Adam with decoupled weight decay, in its textbook form."""

    b1, b2, eps = 0.9, 0.99, 1e-8

    def __init__(self, lr, weight_decay):
        self.lr, self.weight_decay = lr, weight_decay
        self.m = self.v = 0.0
        self.t = 0

    def step(self, x, g, *_):
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        m = self.m / (1 - self.b1**self.t)
        v = self.v / (1 - self.b2**self.t)
        return x - self.lr * (m / (np.sqrt(v) + self.eps) + self.weight_decay * x)


def step_key(job_key, step):
    """The key of a local step: the first is the job's own."""
    return job_key if step == 0 else jax.random.fold_in(job_key, step)


class LocalWorkers:
    """A model whose loss and gradient are those of local steps.

    What the replay takes for the rows of a job is its worker and its key: of the jobs that were
    accepted, in their order. With ``keep_state`` each worker has one rule for all its jobs.
    """

    def __init__(
        self, model, timeline, key, inner, *, num_steps, divisor, noise=None, keep_state=False
    ):
        _, job_key = jax.random.split(key)
        accepted = np.flatnonzero(timeline.accepted)
        keys = [jax.random.fold_in(job_key, int(i)) for i in accepted]
        self.jobs = iter(zip(timeline.worker[accepted].tolist(), keys, strict=True))
        self.model, self.inner, self.noise = model, inner, noise
        self.num_steps, self.divisor, self.keep_state = num_steps, divisor, keep_state
        self.kept = {}

    def rows(self, batch_key):
        worker, key = next(self.jobs)
        assert jax.random.split(key, 3)[0] == batch_key
        return worker, key

    def loss_and_gradient(self, stale, job):
        worker, key = job
        rule = self.kept.setdefault(worker, self.inner()) if self.keep_state else self.inner()
        x, losses = stale, []
        for step in range(self.num_steps):
            batch_key, _, noise_key = jax.random.split(step_key(key, step), 3)
            loss, g = self.model.loss_and_gradient(x, self.model.rows(batch_key))
            if self.noise is not None:
                g = g + np.asarray(self.noise(noise_key, jnp.zeros(self.model.size)))
            x = rule.step(x, g, x, 0, 0, 1.0, True)
            losses.append(loss)
        return np.mean(losses), (stale - x) / self.divisor
