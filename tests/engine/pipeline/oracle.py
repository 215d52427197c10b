"""A pipeline replayed in NumPy: full histories of all versions, its gradients derived by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import async_optax as ao

WIDTHS = (5, 4, 6, 3, 2)
NUM_STAGES = len(WIDTHS) - 1
BATCH_SIZE = 4
_RNG = np.random.default_rng(0)
FEATURES = _RNG.normal(size=(50, WIDTHS[0]))
TARGETS = _RNG.normal(size=(50, WIDTHS[-1]))
# Stage i is ``tanh(x W + b)``, its parameters one vector.
START = tuple(
    _RNG.normal(size=(a + 1) * b) / np.sqrt(a) for a, b in zip(WIDTHS, WIDTHS[1:], strict=False)
)


def matrix_and_bias(vector, stage):
    a, b = WIDTHS[stage : stage + 2]
    return vector[: a * b].reshape(a, b), vector[a * b :]


def _apply(stage, vector, x, key):
    x = x[0] if stage == 0 else x
    matrix, bias = matrix_and_bias(vector, stage)
    return jnp.tanh(x @ matrix + bias[None])


def _start(stage, dtype, key):
    return jnp.asarray(START[stage], dtype)


def _loss(outputs, batch):
    return jnp.mean(jnp.sum((outputs - batch[1]) ** 2, axis=1))


def _batch(features, targets, key, worker):
    rows = jax.random.randint(key, (BATCH_SIZE,), 0, len(features))
    return features[rows], targets[rows]


def _norms(params):
    return {f"norm{i}": jnp.linalg.norm(stage.astype(float)) for i, stage in enumerate(params)}


def network_problem(noise=None, dtype=None):
    """The JAX twin; use in double precision where it is compared."""
    dtype = jnp.result_type(dtype or float)
    stages = [
        ao.pipeline.Stage(Partial(_start, i, dtype), Partial(_apply, i)) for i in range(NUM_STAGES)
    ]
    batch = Partial(_batch, jnp.asarray(FEATURES, dtype), jnp.asarray(TARGETS, dtype))
    return ao.pipeline.problem(stages, _loss, batch, evaluate=_norms, noise=noise)


def loss_and_gradient(forward, backward, rows):
    """The loss at ``forward``; the gradient of a backward pass at ``backward``, on its inputs."""
    x, inputs = FEATURES[rows], []
    for i, vector in enumerate(forward):
        matrix, bias = matrix_and_bias(vector, i)
        inputs.append(x)
        x = np.tanh(x @ matrix + bias)
    residual = x - TARGETS[rows]
    dy, gradients = 2 * residual / len(rows), []
    for i in reversed(range(NUM_STAGES)):
        matrix, bias = matrix_and_bias(backward[i], i)
        dz = dy * (1 - np.tanh(inputs[i] @ matrix + bias) ** 2)
        gradients.append(np.append((inputs[i].T @ dz).ravel(), dz.sum(axis=0)))
        dy = dz @ matrix.T
    return np.mean(np.sum(residual**2, axis=1)), gradients[::-1]


class Adam:
    """AdamW or NAdamW, with the options of all methods, from their formulas."""

    def __init__(
        self, lr, b1=0.9, largest_b1=None, nesterov=False, wd=0.01, max_norm=None, annealing=None
    ):
        taus = range(NUM_STAGES - 1, -1, -1)
        spread = 0 if largest_b1 is None else largest_b1 - b1
        self.b1 = [b1 + tau * spread / NUM_STAGES for tau in taus]
        self.lr, self.nesterov, self.wd = lr, nesterov, wd
        self.max_norm, self.annealing = max_norm, annealing
        self.t, self.products = 0, [1.0] * NUM_STAGES
        self.m, self.n = [0.0] * NUM_STAGES, [0.0] * NUM_STAGES

    def step(self, x, g):
        if self.max_norm is not None:
            norm = np.linalg.norm(np.concatenate(g))
            g = [part * min(1, self.max_norm / norm) for part in g]
        out = []
        for i, (w, part) in enumerate(zip(x, g, strict=True)):
            lr = self.lr
            tau = NUM_STAGES - 1 - i
            if self.annealing is not None and tau > 0:
                lr = lr / tau ** (1 - min(self.t / self.annealing, 1))
            out.append(w - lr * (self.direction(i, part, self.t + 1) + self.wd * w))
        self.t += 1
        return out

    def direction(self, i, g, t):
        b1 = self.b1[i]
        self.m[i] = b1 * self.m[i] + (1 - b1) * g
        self.n[i] = 0.999 * self.n[i] + 0.001 * g**2
        root = np.sqrt(self.n[i] / (1 - 0.999**t)) + 1e-8
        if not self.nesterov:
            return self.m[i] / (1 - b1**t) / root
        mu, following = (b1 * (1 - 0.5 * 0.96 ** (s * 0.004)) for s in (t, t + 1))
        self.products[i] *= mu
        ours = (1 - mu) / (1 - self.products[i]) * g
        return (ours + following / (1 - self.products[i] * following) * self.m[i]) / root


class Momentum:
    """``v <- 0.9 v + g; x <- x - lr v``."""

    def __init__(self, lr):
        self.lr, self.v = lr, [0.0] * NUM_STAGES

    def step(self, x, g):
        self.v = [0.9 * v + part for v, part in zip(self.v, g, strict=True)]
        return [w - self.lr * v for w, v in zip(x, self.v, strict=True)]


def replay(rule, num_updates, key, *, taus=None, stash=True, predict=False, micro=1, noise=None):
    """Returns all versions, the losses and the gaps of all micro-batches."""
    taus = range(NUM_STAGES - 1, -1, -1) if taus is None else taus
    _, job_key = jax.random.split(key)
    versions, losses, gaps = [list(START)], [], []
    for m in range(num_updates):
        forward = []
        for i, tau in enumerate(taus):
            read = max(0, m - tau)
            ahead = tau * (versions[read][i] - versions[max(0, read - 1)][i]) if predict else 0.0
            forward.append(versions[read][i] + ahead)
        backward = forward if stash else versions[m]
        total = [0.0] * NUM_STAGES
        for job in range(m * micro, (m + 1) * micro):
            batch_key, _, noise_key = jax.random.split(jax.random.fold_in(job_key, job), 3)
            rows = np.asarray(jax.random.randint(batch_key, (BATCH_SIZE,), 0, len(FEATURES)))
            loss, g = loss_and_gradient(forward, backward, rows)
            if noise is not None:
                drawn = noise(noise_key, tuple(jnp.zeros(len(part)) for part in g))
                g = [part + np.asarray(n) for part, n in zip(g, drawn, strict=True)]
            total = [t + part / micro for t, part in zip(total, g, strict=True)]
            losses.append(loss)
            drift = np.concatenate(versions[m]) - np.concatenate(forward)
            gaps.append(np.sqrt(np.mean(drift**2)))
        versions.append(rule.step(versions[m], total))
    return versions, np.array(losses), np.array(gaps)
