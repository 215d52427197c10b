"""Gossip in rounds as NumPy loops over agents and neighbours, with full histories.

``matrices`` come in turn, ``gradient(t, x)`` maps the agents' parameters ``[n, p]`` at round t to
their gradients; both functions return the parameters after each round, ``[num_rounds + 1, n, p]``.
"""

import numpy as np


def mix_neighbours(x0, gradient, matrices, lr, delays, num_rounds, step_first=False):
    """``x_i(t + 1) = sum_j W_ij x_j(t - d_ij) - lr * g_i(t)``.

    Or, with the steps before the mixing: ``x_i(t + 1) = sum_j W_ij (x_j - lr * g_j)(t - d_ij)``.
    """
    history, sent = [x0], {}
    for t in range(num_rounds):
        w, g = matrices[t % len(matrices)], gradient(t, history[t])
        sent[t] = history[t] - lr * g if step_first else history[t]
        new = np.zeros_like(x0)
        for i in range(len(x0)):
            for j in range(len(x0)):
                new[i] += w[i, j] * sent.get(t - delays[i, j], x0)[j]
            if not step_first:
                new[i] -= lr * g[i]
        history.append(new)
    return np.array(history)


def predict_clip(x0, gradient, matrices, lr, late, tau, strength, theta, num_rounds):
    """PC-ASGD; ``theta`` is a number, ``"aligned"`` or ``"opposed"``."""
    history, gradients = [x0], []
    for t in range(num_rounds):
        w, x = matrices[t % len(matrices)], history[t]
        gradients.append(gradient(t, x))
        new = []
        for i, own in enumerate(gradients[t]):
            reliable = [j for j in range(len(x0)) if not late[i, j]]
            unreliable = [k for k in range(len(x0)) if late[i, k]]
            known = sum(w[i, j] * x[j] for j in reliable)
            clip = known / sum(w[i, j] for j in reliable) - lr * own
            predict = known - lr * own
            for k in unreliable:
                x_k = history[max(t - tau, 0)][k]
                g_k = gradients[t - tau][k] if t >= tau else np.zeros_like(own)
                walked = np.zeros_like(own)
                for r in range(tau):
                    drift = history[max(t - tau + r, 0)][i] - history[max(t - tau, 0)][i]
                    walked += g_k + strength * g_k * g_k * drift
                predict += w[i, k] * (x_k - lr * walked)
            share = theta
            if isinstance(theta, str):
                cosines = [cosine(y - x[i], -own) for y in (predict, clip)]
                share = float(
                    cosines[0] >= cosines[1] if theta == "aligned" else cosines[0] <= cosines[1]
                )
            new.append(share * predict + (1 - share) * clip)
        history.append(np.array(new))
    return np.array(history)


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths > 0 else 0.0


def finish_times(durations, links, delays):
    """When each agent ends each round: it starts when all it hears of have ended what it mixes.

    ``durations[k, i]`` of round k, ``links[k][i, j]`` whether i listens to j then.
    """
    ends = {}
    for k in range(len(durations)):
        for i in range(len(durations[0])):
            start = 0.0
            for j in range(len(durations[0])):
                if j == i or links[k][i, j]:
                    start = max(start, ends.get((k - 1 - delays[i, j], j), 0.0))
            ends[k, i] = start + durations[k, i]
    return np.array([[ends[k, i] for i in range(len(row))] for k, row in enumerate(durations)])
