"""What the host does in a run: one call per chunk, and nothing while a chunk is executed."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import async_optax as ao
from async_optax.engine import run as run_module
from async_optax.engine.program import run_chunk
from tests.data.sources import Numbered
from tests.engine.problems import make_timeline, quadratic_problem, run_quadratic

PROBLEM = quadratic_problem().with_noise(ao.noise.alpha_stable(1.5, 0.01))

# What a program needs the host for, in StableHLO and in what XLA makes of it.
ON_HOST = re.compile(r"callback|infeed|outfeed|\bsend\b|\brecv\b|host_compute", re.IGNORECASE)


class Watched:
    """``run_chunk``, with the text of what it compiles and the number of its calls."""

    def __init__(self):
        self.texts, self.num_calls = [], 0

    def __call__(self, *args):
        self.num_calls += 1
        return run_chunk(*args)

    def lower(self, *args):
        lowered = run_chunk.lower(*args)
        self.texts.append(lowered.as_text())
        return _WatchedLowered(lowered, self.texts)


@dataclasses.dataclass
class _WatchedLowered:
    lowered: object
    texts: list

    def compile(self):
        compiled = self.lowered.compile()
        self.texts.append(compiled.as_text())
        return compiled


@pytest.fixture
def watched(monkeypatch):
    program = Watched()
    monkeypatch.setattr(run_module, "run_chunk", program)
    monkeypatch.setattr(run_module, "_TEMPORARIES", {})  # nothing was lowered before
    return program


def without_metadata(text):
    """Names of Python functions and files do not count."""
    text = re.sub(r'loc\([^\n]*|metadata=\{[^}]*\}|^\d+ ".*"$', "", text, flags=re.MULTILINE)
    return re.sub(r'(op_name|source_file)="[^"]*"', "", text)


def host_operations(texts):
    return {word for text in texts for word in ON_HOST.findall(without_metadata(text))}


def _mean_distance(x, batch, key):
    return jnp.mean((batch["x"] - x[jnp.newaxis]) ** 2)


STREAMED = ao.Problem(
    lambda key: jnp.zeros(3),
    _mean_distance,
    ao.data.streamed(Numbered(), ao.data.uniform_rows(50, 4)),
)

RUNS = {
    "one lane": {},
    "lanes that gather": {"lanes": 4, "timeline": make_timeline(20, ao.protocols.buffered(3))},
    "two devices": {
        "lanes": 4,
        "mesh": jax.make_mesh((2,), ("lanes",), devices=jax.devices()[:2]),
    },
    "streamed": {"problem": STREAMED, "worker": ao.local_steps(2, ao.optimizers.sgd(0.1), 0.1)},
}


@pytest.mark.parametrize("case", RUNS)
def test_a_chunk_never_calls_back(case, watched):
    options = {"problem": PROBLEM, "record": ["gap"]} | RUNS[case]
    optimizer = ao.optimizers.async_heavy_tailed(0.1, threshold=1.0)
    run_quadratic(optimizer=optimizer, **options)
    assert len(watched.texts) == 2
    assert "while" in watched.texts[0]
    assert host_operations(watched.texts) == set()


def test_callbacks_would_be_seen(watched):
    def loss(x, batch, key):
        jax.debug.callback(lambda value: None, x)
        return jnp.sum((x - batch) ** 2)

    run_quadratic(dataclasses.replace(PROBLEM, loss=loss))
    jax.effects_barrier()
    assert len(watched.texts) == 2
    for text in watched.texts:
        assert host_operations([text])


@pytest.mark.parametrize(("lanes", "evaluate_every"), [(1, 50), (4, None)])
def test_few_calls_for_many_arrivals(lanes, evaluate_every, watched):
    result = run_quadratic(
        PROBLEM,
        timeline=make_timeline(5000, num_workers=8),
        lanes=lanes,
        evaluate_every=evaluate_every,
    )
    assert len(result.arrivals["loss"]) == 5000
    assert np.isfinite(result.params).all()
    assert 1 <= watched.num_calls < 20
