"""Gossip in rounds as NumPy loops over agents and neighbours, with full histories.

``matrices`` come in turn, ``gradient(t, x)`` maps the agents' parameters ``[n, p]`` at round t to
their gradients; both functions return the parameters after each round, ``[num_rounds + 1, n, p]``.
"""

import heapq

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


def finish_times(durations, links, delays, step_first):
    """When each agent has each round's result, ``[num_rounds, n]``: messages, event by event.

    ``durations[k, i]`` of round k, ``links[k][i, j]`` whether i listens to j then. An agent posts
    what it sends in round k: as soon as it has its parameters of that round or, stepping first,
    when its gradient is done. It goes on when that is done and all that it mixes is posted.
    """
    num_rounds, num_agents = np.shape(durations)
    at, computing, posted = [0] * num_agents, [True] * num_agents, set()
    ends, agents = np.zeros((num_rounds, num_agents)), range(num_agents)
    events = [(durations[0, i], i) for i in agents]
    heapq.heapify(events)
    if not step_first:
        posted |= {(0, j) for j in agents}

    def may_go_on(i):
        mixed = [(at[i] - delays[i, j], j) for j in agents if links[at[i]][i, j] and j != i]
        return all(sent in posted or sent[0] < 0 for sent in mixed)

    while events:
        now, arrived = heapq.heappop(events)
        computing[arrived] = False
        if step_first:
            posted.add((at[arrived], arrived))
        moved = True
        while moved:
            moved = False
            for i in agents:
                if at[i] < num_rounds and not computing[i] and may_go_on(i):
                    ends[at[i], i], moved = now, True
                    at[i] += 1
                    if at[i] < num_rounds:
                        computing[i] = True
                        heapq.heappush(events, (now + durations[at[i], i], i))
                        if not step_first:
                            posted.add((at[i], i))
    return ends
