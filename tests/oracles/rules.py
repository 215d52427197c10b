"""Update rules of the methods as NumPy loops, written from the papers' formulas.

A rule is a generator-free class: ``step(x, g, s, tau, weight, commit)`` returns the new
parameters, all flat float64 vectors.
"""

import numpy as np


class Rule:
    """``acc += weight * h(g)``; on commit ``x -= lr * acc``."""

    def __init__(self, lr, **options):
        self.lr = lr
        self.options = options
        self.acc = 0.0

    def per_arrival(self, g, x, s, tau):
        return g

    def at_commit(self, total):
        return total

    def step(self, x, g, s, tau, weight, commit):
        self.acc = self.acc + weight * self.per_arrival(g, x, s, tau)
        if not commit:
            return x
        x = x - self.lr * self.at_commit(self.acc)
        self.acc = 0.0
        return x


class Sgd(Rule):
    pass


def l2_clip(g, c):
    norm = np.sqrt(np.sum(g**2))
    return g if norm <= c else g * (c / norm)


class ClippedSgd(Rule):
    def per_arrival(self, g, x, s, tau):
        return l2_clip(g, self.options["max_norm"])


class StalenessAwareSgd(Rule):
    def per_arrival(self, g, x, s, tau):
        return g / max(tau, 1)


class DelayAdaptiveSgd(Rule):
    def per_arrival(self, g, x, s, tau):
        n = self.options["num_workers"]
        return g * (n / max(n, tau + 1))


class DcAsgd(Rule):
    def per_arrival(self, g, x, s, tau):
        return g + self.options["strength"] * g**2 * (x - s)


class AsyncHeavyTailed(Rule):
    """All options of the reconstruction, spelled out."""

    def clip(self, g):
        c = self.options["threshold"]
        if self.options["clipping"] == "global_norm":
            return l2_clip(g, c)
        if self.options["clipping"] == "none":
            return g
        lower = self.options.get("lower", 0.0)
        return np.array([0.0 if v == 0 else np.copysign(min(max(abs(v), lower), c), v) for v in g])

    def per_arrival(self, g, x, s, tau):
        strength = self.options["compensation"] / self.options["threshold"] ** 2
        early = self.options.get("clip_at", "arrival") != "commit"
        first = self.options.get("order", "clip_first") == "clip_first"
        if early and first:
            g = self.clip(g)
        g = g + strength * g * g * (x - s)
        if early and not first:
            g = self.clip(g)
        return g * (1.0 + tau) ** -self.options.get("power", 0.0)

    def at_commit(self, total):
        late = self.options.get("clip_at", "arrival") != "arrival"
        return self.clip(total) if late else total


RULES = {
    "sgd": Sgd,
    "clipped_sgd": ClippedSgd,
    "staleness_aware_sgd": StalenessAwareSgd,
    "delay_adaptive_sgd": DelayAdaptiveSgd,
    "dc_asgd": DcAsgd,
    "async_heavy_tailed": AsyncHeavyTailed,
}
