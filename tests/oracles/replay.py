"""An asynchronous server replayed in NumPy: a history of all versions, no slots, no waves."""

import jax
import numpy as np


class SoftmaxRegression:
    """Multinomial logistic regression, its gradient derived by hand.

    ``loss = mean_i -log softmax(W a_i)[y_i]``, ``dloss/dW = mean_i (softmax(W a_i) - e_y) a_i^T``
    """

    num_features, num_classes, batch_size = 5, 3, 4

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(60, self.num_features))
        self.labels = rng.integers(0, self.num_classes, 60)

    @property
    def size(self):
        return self.num_features * self.num_classes

    def rows(self, batch_key):
        """The batch of a job: drawn with JAX's generator, which is no part of the replay."""
        return np.asarray(jax.random.randint(batch_key, (self.batch_size,), 0, len(self.labels)))

    def loss_and_gradient(self, x, rows):
        weights = x.reshape(self.num_classes, self.num_features)
        features, labels = self.features[rows], self.labels[rows]
        logits = features @ weights.T
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = -np.mean(np.log(probabilities[np.arange(len(rows)), labels]))
        residual = probabilities
        residual[np.arange(len(rows)), labels] -= 1
        return loss, (residual.T @ features / len(rows)).ravel()


def replay(model, rule, timeline, key, x0, noise=None):
    """Replays a timeline row by row; returns all versions and the losses of accepted rows."""
    _, job_key = jax.random.split(key)
    x, versions, losses = x0, [x0], []
    served = [x0]  # what a worker that reads a version computes on
    rows = np.append(np.flatnonzero(timeline.accepted), timeline.num_arrivals)
    for i, following in zip(rows, rows[1:], strict=False):
        stale = served[timeline.read_version[i]]
        batch_key, _, noise_key = jax.random.split(jax.random.fold_in(job_key, int(i)), 3)
        loss, g = model.loss_and_gradient(stale, model.rows(batch_key))
        if noise is not None:
            g = g + noise(noise_key)
        losses.append(loss)
        tau = int(timeline.version[i] - timeline.read_version[i])
        # A row that is not accepted may commit what was gathered before it.
        commit = bool(timeline.commit[i:following].any())
        worker, weight = int(timeline.worker[i]), float(timeline.weight[i])
        x = rule.step(x, g, stale, tau, worker, weight, commit)
        if commit:
            versions.append(x)
            served.append(rule.served(x))
    return np.array(versions), np.array(losses)
