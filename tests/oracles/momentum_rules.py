"""Update rules of the methods with momentum as NumPy loops, written from the papers' formulas."""

import numpy as np

from tests.oracles.rules import Rule


class MomentumSgd(Rule):
    velocity = 0.0

    def at_commit(self, total):
        momentum = self.options["momentum"]
        self.velocity = momentum * self.velocity + total
        return total + momentum * self.velocity if self.options.get("nesterov") else self.velocity


class WeightedMomentumSgd(MomentumSgd):
    """Each arrival is weighted by ``(1 + tau)**-power`` before the momentum sees it."""

    def per_arrival(self, g, x, s, tau, worker):
        return g * (1.0 + tau) ** -self.options["power"]


class LinearWeightPrediction(MomentumSgd):
    def served(self, x):
        return x - self.options["num_steps"] * self.lr * self.velocity


class Smega2(Rule):
    """Needs the momentum that was there before a round's end for the step at the round's end."""

    v = a = 0.0
    c = 0

    def per_arrival(self, g, x, s, tau, worker):
        n, momentum = self.options["num_workers"], self.options["momentum"]
        self.c = (self.c + 1) % n
        self.a = self.a + g
        step = g + momentum * self.v
        if self.c == 0:
            self.v = momentum * self.v + self.a / n
            self.a = 0.0
        return step

    def served(self, x):
        n, momentum = self.options["num_workers"], self.options["momentum"]
        along_v = self.lr * momentum * (n + self.c * (momentum - 1)) * self.v
        return x - along_v - self.lr * momentum * self.c / n * self.a


class MultiMomentum(Rule):
    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.velocity = {}

    def per_arrival(self, g, x, s, tau, worker):
        self.velocity[worker] = self.options["momentum"] * self.velocity.get(worker, 0.0) + g
        return self.velocity[worker]


class Dana(MultiMomentum):
    """DANA-Slim: x is the look-ahead point."""

    def per_arrival(self, g, x, s, tau, worker):
        return g + self.options["momentum"] * super().per_arrival(g, x, s, tau, worker)


class DanaZero(MultiMomentum):
    """x are the parameters, workers read ahead along the sum of all momenta."""

    def served(self, x):
        return x - self.lr * self.options["momentum"] * sum(self.velocity.values())


class DanaDc(DanaZero):
    def per_arrival(self, g, x, s, tau, worker):
        corrected = g + self.options["strength"] * g * g * (x - s)
        return super().per_arrival(corrected, x, s, tau, worker)


class GapPenalty:
    """``penalise(g, v, x, s)`` divides g by one plus the gap in units of a usual update."""

    def __init__(self, lr, decay, momentum, granularity, sizes):
        self.lr, self.decay, self.momentum = lr, decay, momentum
        self.granularity, self.sizes = granularity, sizes
        self.mean_square, self.t = 0.0, 0

    def size(self, vector):
        if self.granularity == "coordinate":
            return np.abs(vector)
        parts = np.split(vector, np.cumsum(self.sizes)[:-1])
        if self.granularity == "global":
            parts = [vector]
        return np.concatenate([np.full(len(p), np.sqrt(np.sum(p**2))) for p in parts])

    def penalise(self, g, v, x, s):
        self.t += 1
        moving = g if self.momentum == 0 else v
        square = self.size(moving) ** 2
        self.mean_square = self.decay * self.mean_square + (1 - self.decay) * square
        usual = np.sqrt(self.mean_square / (1 - self.decay**self.t)) + 1e-8
        return g / (1 + self.size(x - s) / (self.lr * usual))


class GapAware(Rule):
    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.penalty = GapPenalty(
            lr,
            options["decay"],
            options["momentum"],
            options.get("granularity", "coordinate"),
            options.get("sizes", ()),
        )
        self.velocity = 0.0

    def per_arrival(self, g, x, s, tau, worker):
        h = self.penalty.penalise(g, self.velocity + 0 * g, x, s)
        self.velocity = self.options["momentum"] * self.velocity + h
        return self.velocity


class DanaGapAware(DanaZero):
    last_update = 0.0

    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.penalty = GapPenalty(lr, options["decay"], options["momentum"], "coordinate", ())

    def per_arrival(self, g, x, s, tau, worker):
        h = self.penalty.penalise(g, self.last_update + 0 * g, x, s)
        self.last_update = super().per_arrival(h, x, s, tau, worker)
        return self.last_update


class NesterovDelayed(Rule):
    """In the papers' form: points w, workers read ``w_t + gamma_t * (w_t - w_(t-1))``.

    The method's x is that look-ahead point, so x is mapped to w and back.
    """

    def __init__(self, lr, **options):
        super().__init__(lr, **options)
        self.gamma = options["momentum"]
        self.w = self.previous_w = None

    def server_step(self, x, total):
        if self.w is None:
            self.w = self.previous_w = x
        d = self.gamma * (self.w - self.previous_w)
        new = self.w + d - self.lr * (1 - self.gamma) * total
        self.w, self.previous_w = new, self.w
        return new + self.gamma * (self.w - self.previous_w)


class NadamDelayed(Rule):
    m = n = 0.0
    product = 1.0

    def server_step(self, x, total):
        b1, b2, psi = 0.99, 0.999, 0.004
        t = self.num_commits
        mu, mu_next = (b1 * (1 - 0.5 * 0.96 ** (k * psi)) for k in (t, t + 1))
        self.product *= mu
        self.m = b1 * self.m + (1 - b1) * total
        self.n = b2 * self.n + (1 - b2) * total**2
        denominator = np.sqrt(self.n / (1 - b2**t)) + 1e-8
        step = (1 - mu) / (1 - self.product) * total / denominator
        step = step + mu_next / (1 - self.product * mu_next) * self.m / denominator
        return x * (1 - self.lr * self.options["weight_decay"]) - self.lr * step
