"""The demo: which method and protocol reaches the target first on real digits."""

from async_optax import noise
from async_optax.contest import Contest, Entrant
from async_optax.problems import digits
from async_optax.timelines import protocols, runtimes
from async_optax.transforms import weights

NUM_WORKERS = 16


def demo_contest() -> Contest:
    """Returns the contest that ``async-optax demo`` runs.

    Digits, a multilayer perceptron 64-32-10 on batches of 16; 16 workers of which half are 8
    times slower, with Gamma-distributed times (coefficient of variation 0.5); symmetric
    alpha-stable noise (alpha = 1.2, so of infinite variance) on every gradient coordinate.
    Everyone has the same simulated time, grid of learning rates and seeds, and each method is
    judged at its own best learning rate. The clips' thresholds are the same wherever a clip
    of that kind appears.
    """
    to_norm = {"max_norm": 1.0}
    coordinate = {
        "clipping": "coordinate",
        "threshold": 0.03,
        "weight_fn": weights.concurrency(NUM_WORKERS),
    }
    by_norm = coordinate | {"clipping": "global_norm", "threshold": 1.0}
    synchronous = [
        Entrant("sgd", protocols.synchronous(), baseline=True),
        Entrant("clipped_sgd", protocols.synchronous(), to_norm, baseline=True),
        Entrant("async_heavy_tailed", protocols.synchronous(), coordinate, "coord", True),
    ]
    delayed = [
        entrant
        for protocol in (
            protocols.asynchronous(),
            protocols.buffered(8, wait=True),
            protocols.buffered(8, wait=False),
        )
        for entrant in (
            Entrant("sgd", protocol),
            Entrant("clipped_sgd", protocol, to_norm),
            Entrant("delay_adaptive_sgd", protocol, {"num_workers": NUM_WORKERS}),
            Entrant("dc_asgd", protocol),
            Entrant("async_heavy_tailed", protocol, by_norm, "norm"),
            Entrant("async_heavy_tailed", protocol, coordinate, "coord"),
        )
    ]
    return Contest(
        problem=digits(hidden=(32,)).with_noise(noise.alpha_stable(alpha=1.2, scale=0.05)),
        entrants=synchronous + delayed,
        runtimes=runtimes.two_speed(8.0, law=runtimes.gamma(cv=0.5)),
        num_workers=NUM_WORKERS,
        max_time=300.0,
        learning_rates=[2.0**exponent for exponent in range(-9, 5)],
        seeds=(0, 1, 2),
        target=0.8,
        num_evaluations=300,
        description={
            "problem": "digits, hidden (32,), batches of 16",
            "noise": "alpha_stable(1.2, scale=0.05) noise",
        },
    )
