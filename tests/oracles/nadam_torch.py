"""Parameters under ``torch.optim.NAdam``, printed as JSON: the numbers in ``nadam_torch.json``.

python tests/oracles/nadam_torch.py > tests/oracles/nadam_torch.json
"""

import json
import math

STEPS = 40
SETTINGS = {
    "default": {"lr": 0.1},
    "asynchronous": {"lr": 0.1, "betas": (0.99, 0.999)},
    "fast schedule": {"lr": 0.05, "betas": (0.9, 0.99), "momentum_decay": 0.5},
    "decoupled decay": {"lr": 0.1, "weight_decay": 0.01, "decoupled_weight_decay": True},
}


def start():
    """Two coordinates of different scale."""
    return [1.0, -20.0]


def gradient(x, step):
    """A deterministic function of the parameters and the step, with sign changes."""
    return [math.cos(3.0 * step) + 0.3 * x[0], 10.0 * math.sin(step) + 0.1 * x[1]]


def trajectory(options):
    """All parameters after each step, in double precision."""
    import torch

    torch.set_default_dtype(torch.float64)  # PyTorch keeps its product of momenta in the default
    x = torch.tensor(start(), requires_grad=True)
    optimizer = torch.optim.NAdam([x], **options)
    points = []
    for step in range(STEPS):
        x.grad = torch.tensor(gradient(x.tolist(), step))
        optimizer.step()
        points.append(x.tolist())
    return points


if __name__ == "__main__":
    print(json.dumps({name: trajectory(options) for name, options in SETTINGS.items()}, indent=1))
