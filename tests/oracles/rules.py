"""Update rules of the methods as NumPy loops, written from the papers' formulas.

``step(x, g, s, tau, worker, weight, commit)`` of a rule returns the new parameters, ``served(x)``
what workers read; x, g and s are flat float64 vectors. Rules with momentum are in
``momentum_rules.py``.
"""

import numpy as np


class Rule:
    """``acc += weight * h(g)``; on commit ``x -= lr * acc``."""

    def __init__(self, lr, **options):
        self.lr = lr
        self.options = options
        self.acc = 0.0
        self.largest_staleness = 0
        self.num_commits = 0

    def per_arrival(self, g, x, s, tau, worker):
        return g

    def at_commit(self, total):
        return total

    def step(self, x, g, s, tau, worker, weight, commit):
        self.acc = self.acc + weight * self.per_arrival(g, x, s, tau, worker)
        if weight != 0:
            self.largest_staleness = max(self.largest_staleness, tau)
        if not commit:
            return x
        self.num_commits += 1
        x = self.server_step(x, self.acc)
        self.acc, self.largest_staleness = 0.0, 0
        return x

    def server_step(self, x, total):
        return x - self.lr * self.at_commit(total)

    def served(self, x):
        """What a worker that reads after this commit computes on."""
        return x


class Sgd(Rule):
    pass


def l2_clip(g, c):
    norm = np.sqrt(np.sum(g**2))
    return g if norm <= c else g * (c / norm)


class ClippedSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        return l2_clip(g, self.options["max_norm"])


class StalenessAwareSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        return g / max(tau, 1)


class DelayAdaptiveSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        n = self.options["num_workers"]
        return g * (n / max(n, tau + 1))


def bounded(strength, max_ratio, g, x, s):
    """The strength with which no correction exceeds ``max_ratio`` of its gradient."""
    length = np.linalg.norm(g**2 * (x - s))
    if max_ratio is None or length == 0:
        return strength
    return min(strength, max_ratio * np.linalg.norm(g) / length)


class DcAsgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        return g + self.options["strength"] * g**2 * (x - s)


class AsyncHeavyTailed(Rule):
    """All options of the reconstruction, spelled out."""

    tracked = None

    def clip(self, g):
        if self.options["clipping"] == "adaptive":
            if self.tracked is None:
                quantile = self.options["quantile"]
                self.tracked = np.quantile(np.abs(g), quantile, method="inverted_cdf")
            c, size = self.tracked, np.abs(g)
            share = np.mean(size > c) - (1 - self.options["quantile"])
            self.tracked = c * np.exp(0.1 * share)
            return np.sign(g) * np.minimum(size / c, 1)
        c = self.options["threshold"]
        if self.options["clipping"] == "global_norm":
            return l2_clip(g, c)
        if self.options["clipping"] == "none":
            return g
        lower = self.options.get("lower", 0.0)
        return np.array([0.0 if v == 0 else np.copysign(min(max(abs(v), lower), c), v) for v in g])

    def per_arrival(self, g, x, s, tau, worker):
        unit = 1.0 if self.options["clipping"] == "adaptive" else self.options["threshold"]
        early = self.options.get("clip_at", "arrival") != "commit"
        first = self.options.get("order", "clip_first") == "clip_first"
        if early and first:
            g = self.clip(g)
        strength = self.options["compensation"] / unit**2
        strength = bounded(strength, self.options.get("max_ratio"), g, x, s)
        g = g + strength * g * g * (x - s)
        if early and not first:
            g = self.clip(g)
        return g * (1.0 + tau) ** -self.options.get("power", 0.0)

    def at_commit(self, total):
        late = self.options.get("clip_at", "arrival") != "arrival"
        return self.clip(total) if late else total


class RingmasterSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        return g if tau <= self.options["max_staleness"] else 0 * g


class DcAsgdAdaptive(Rule):
    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.mean_square = {}

    def per_arrival(self, g, x, s, tau, worker):
        decay, strength = self.options["decay"], self.options["strength"]
        old = self.mean_square.get(worker, 0.0)
        self.mean_square[worker] = decay * old + (1 - decay) * g**2
        root = np.sqrt(self.mean_square[worker] + 1e-7)
        return g + strength / root * g**2 * (x - s)


class NormalizedMomentumSgd(Rule):
    m = 0.0

    def at_commit(self, total):
        momentum = self.options["momentum"]
        self.m = momentum * self.m + (1 - momentum) * total
        return self.m / (np.linalg.norm(self.m) + 1e-10)


class FedAsync(Rule):
    """``y = s - lr * g`` is mixed in with share ``mixing * (1 + tau)**-power``."""

    def per_arrival(self, g, x, s, tau, worker):
        y = s - self.lr * g
        share = self.options["mixing"] * (1.0 + tau) ** -self.options["power"]
        return share * (x - y)

    def server_step(self, x, total):
        return x - total


class FedBuff(Rule):
    velocity = 0.0

    def per_arrival(self, g, x, s, tau, worker):
        return g / np.sqrt(1.0 + tau)

    def at_commit(self, total):
        self.velocity = self.options["momentum"] * self.velocity + total
        return self.velocity


class Fadas(Rule):
    m = v = v_max = 0.0

    def server_step(self, x, total):
        b1, b2, t = 0.9, 0.999, self.num_commits
        self.m = b1 * self.m + (1 - b1) * total
        self.v = b2 * self.v + (1 - b2) * total**2
        self.v_max = np.maximum(self.v_max, self.v / (1 - b2**t))
        direction = self.m / (1 - b1**t) / (np.sqrt(self.v_max) + 1e-8)
        rate, tau = self.lr, self.largest_staleness
        if tau > self.options["max_staleness"]:
            rate = min(rate, 1 / tau)
        return x - rate * direction


class Gba(Rule):
    velocity = 0.0

    def per_arrival(self, g, x, s, tau, worker):
        return g if tau <= self.options["max_staleness"] else 0 * g

    def at_commit(self, total):
        self.velocity = self.options["momentum"] * self.velocity + total
        return self.velocity


class Adadelay(Rule):
    def server_step(self, x, total):
        age = self.num_commits + self.largest_staleness
        return x - total / (1 / self.lr + self.options["scale"] * np.sqrt(age))


class AdadelayPerCoordinate(Rule):
    history = ()

    def server_step(self, x, total):
        self.history = (*self.history, (total, self.largest_staleness))
        t, tau = self.num_commits, self.largest_staleness
        mean = sum(r / (r + old) * g**2 for r, (g, old) in enumerate(self.history, 1)) / t
        c = self.options["scale"] * np.sqrt(mean)
        return x - total / (1 / self.lr + c * np.sqrt(t + tau))
