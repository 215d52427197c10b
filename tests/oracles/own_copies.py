"""Methods whose workers keep parameters of their own, replayed event by event in NumPy."""

import jax
import numpy as np


def job_keys(key, num_jobs):
    _, job_key = jax.random.split(key)
    return [jax.random.fold_in(job_key, job) for job in range(num_jobs)]


def batch_key(key):
    return jax.random.split(key, 3)[0]


def noise_key(key):
    return jax.random.split(key, 3)[2]


def replay_ad_psgd(model, timeline, key, x0, learning_rate, partners, momentum=0.0, noise=None):
    """Returns the stacks after each event ``[num_events + 1, n, d]``, and the losses."""
    x = np.tile(x0, (timeline.num_workers, 1))
    v, read = np.zeros_like(x), x.copy()  # read: where each agent computes
    stacks, losses = [x.copy()], []
    keys = job_keys(key, timeline.num_arrivals)
    for i, j, job in zip(timeline.worker, partners, keys, strict=True):
        loss, g = model.loss_and_gradient(read[i], model.rows(batch_key(job)))
        if noise is not None:
            g = g + noise(noise_key(job))
        mean = (x[i] + x[j]) / 2
        x[j] = mean
        v[i] = momentum * v[i] + g
        x[i] = mean - learning_rate * v[i]
        read[i] = x[i]
        stacks.append(x.copy())
        losses.append(loss)
    return np.array(stacks), np.array(losses)


def replay_elastic(
    model,
    timeline,
    key,
    x0,
    learning_rate,
    moving_rate,
    num_steps,
    momentum=0.0,
    step_first=False,
    noise=None,
):
    """Returns the centres ``[num_events + 1, d]``, the workers' distances on arrival, the losses.

    ``learning_rate`` is a function of the exchanges made before the job started.
    """
    num_workers = timeline.num_workers
    c, x = x0.copy(), np.tile(x0, (num_workers, 1))
    v, pull = np.zeros_like(x), np.zeros_like(x)
    centres, distances, losses = [c.copy()], [], []
    keys = job_keys(key, timeline.num_arrivals)
    for i, read_version, job in zip(timeline.worker, timeline.read_version, keys, strict=True):
        job_losses, eta = [], learning_rate(read_version)
        for step in range(num_steps):
            step_key = job if step == 0 else jax.random.fold_in(job, step)
            v[i] = momentum * v[i]
            x[i] += v[i]
            loss, g = model.loss_and_gradient(x[i], model.rows(batch_key(step_key)))
            if noise is not None:
                g = g + noise(noise_key(step_key))
            x[i] -= eta * g
            v[i] -= eta * g
            x[i] -= pull[i]
            pull[i] = 0
            job_losses.append(loss)
        e = moving_rate * (x[i] - c)
        distances.append(np.linalg.norm(x[i] - c))
        c = c + e
        if step_first:
            pull[i] = e
        else:
            x[i] -= e
        centres.append(c.copy())
        losses.append(np.mean(job_losses))
    return np.array(centres), np.array(distances), np.array(losses)
