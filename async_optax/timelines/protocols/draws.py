"""Random decisions of protocols, from uniform draws of a stream of their own."""

from collections.abc import Iterator, Sequence

from async_optax.timelines.runtimes.streams import ASSIGNMENT, stream

_BLOCK = 4096  # draws at a time


def uniforms(seed: int) -> Iterator[float]:
    """Yields independent uniform draws in [0, 1)."""
    draws = stream(seed, ASSIGNMENT)
    while True:
        yield from draws.random(_BLOCK).tolist()


def sample(population: Sequence[int], size: int, draws: Iterator[float]) -> list[int]:
    """Returns ``size`` different ones of ``population``, or all if they are fewer, at random."""
    rest = list(population)
    for chosen in range(min(size, len(rest))):
        other = chosen + int((len(rest) - chosen) * next(draws))
        rest[chosen], rest[other] = rest[other], rest[chosen]
    return rest[:size]
