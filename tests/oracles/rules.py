"""Update rules of the methods as NumPy loops, written from the papers' formulas.

``step(x, g, s, tau, worker, weight, commit)`` of a rule returns the new parameters; x, g and s
are flat float64 vectors.
"""

import numpy as np


class Rule:
    """``acc += weight * h(g)``; on commit ``x -= lr * acc``."""

    def __init__(self, lr, **options):
        self.lr = lr
        self.options = options
        self.acc = 0.0

    def per_arrival(self, g, x, s, tau, worker):
        return g

    def at_commit(self, total):
        return total

    def step(self, x, g, s, tau, worker, weight, commit):
        self.acc = self.acc + weight * self.per_arrival(g, x, s, tau, worker)
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
    def per_arrival(self, g, x, s, tau, worker):
        return l2_clip(g, self.options["max_norm"])


class StalenessAwareSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        return g / max(tau, 1)


class DelayAdaptiveSgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
        n = self.options["num_workers"]
        return g * (n / max(n, tau + 1))


class DcAsgd(Rule):
    def per_arrival(self, g, x, s, tau, worker):
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

    def per_arrival(self, g, x, s, tau, worker):
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


class MultiMomentum(Rule):
    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.velocity = {}

    def per_arrival(self, g, x, s, tau, worker):
        self.velocity[worker] = self.options["momentum"] * self.velocity.get(worker, 0.0) + g
        return self.velocity[worker]


class Dana(MultiMomentum):
    def per_arrival(self, g, x, s, tau, worker):
        return g + self.options["momentum"] * super().per_arrival(g, x, s, tau, worker)


RULES = {
    "sgd": Sgd,
    "clipped_sgd": ClippedSgd,
    "staleness_aware_sgd": StalenessAwareSgd,
    "delay_adaptive_sgd": DelayAdaptiveSgd,
    "dc_asgd": DcAsgd,
    "async_heavy_tailed": AsyncHeavyTailed,
    "ringmaster_sgd": RingmasterSgd,
    "dc_asgd_adaptive": DcAsgdAdaptive,
    "multi_momentum": MultiMomentum,
    "dana": Dana,
}
