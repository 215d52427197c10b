"""Streams of uniform draws: one per purpose and worker, the same on every machine."""

import numpy as np

# What a stream is for. The numbers are part of what a seed means: never reuse or reorder them.
MACHINES, COMPUTE, DOWNLOAD, UPLOAD, SERVER, UPTIME, DOWNTIME, ASSIGNMENT, VISITORS = range(9)
STALENESS = 9


def stream(seed: int, *path: int) -> np.random.Generator:
    """Returns the generator of a purpose, or of a purpose and a worker.

    Its uniform draws are those of PCG64, seeded by NumPy's ``SeedSequence``: both are fixed
    algorithms. Nothing but uniforms is drawn from it, as other laws change between versions.

    Args:
      seed: a non-negative integer.
      *path: a purpose, such as ``COMPUTE``, and where there is one stream per worker, the worker.

    Returns:
      A generator at the start of its stream.

    Example:
      >>> stream(0, COMPUTE, 3).random(2)
      array([0.66764606, 0.90416632])
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path)))
