"""The clip that tails call for."""

import numpy as np
import pytest

from async_optax import optimizers
from async_optax.advice import choose_clip
from async_optax.advice.clips import clipped_variance
from async_optax.theory import tails

RNG = np.random.default_rng(0)


def noise_of(coordinates):
    norms = np.linalg.norm(coordinates, axis=1)
    return tails.GradientNoise(
        step=0,
        loss=1.0,
        norms=norms,
        coordinates=coordinates,
        gradient_norms=norms,
        gradient_coordinates=coordinates,
        mean_norm=0.0,
        num_parameters=coordinates.shape[1],
    )


def clip_for(coordinates):
    noise = noise_of(coordinates)
    norms = tails.judge_tail(noise.norms, signed=False, num_draws=20)
    return choose_clip(norms, tails.judge_tail(noise.coordinates, num_draws=20), noise), noise


def test_no_variance_calls_for_a_clip_of_coordinates_at_their_median():
    cauchy = np.tan(np.pi * (RNG.random((2000, 20)) - 0.5))
    clip, noise = clip_for(cauchy)
    assert clip.kind == "coordinate"
    assert clip.method == "async_heavy_tailed"
    assert clip.threshold == pytest.approx(1.0, rel=0.05)
    assert clip.response == pytest.approx(0.5, abs=0.03)
    # E min(x**2, 1) of a Cauchy variable is 2 / pi.
    assert clipped_variance(clip, noise) == pytest.approx(20 * 2 / np.pi, rel=0.1)
    assert optimizers.make(clip.method, learning_rate=0.1, **clip.arguments)


def test_a_finite_variance_calls_for_none():
    clip, noise = clip_for(RNG.standard_normal((2000, 5)))
    assert (clip.kind, clip.method, clip.arguments) == ("none", "sgd", {})
    assert clip.response == 1
    assert clipped_variance(clip, noise) == pytest.approx(5, rel=0.05)


def test_what_cannot_be_told_is_clipped_where_it_costs_little():
    few = RNG.standard_normal((300, 2))
    clip, noise = clip_for(few)
    assert clip.kind == "global_norm"
    assert clip.threshold == pytest.approx(np.quantile(noise.gradient_norms, 0.95), rel=0.06)
    assert clip.response > 0.97
    assert clipped_variance(clip, noise) <= noise.variance
    assert clip.arguments == {"max_norm": clip.threshold}


def test_no_gradient_at_all_needs_no_clip():
    clip, _ = clip_for(np.zeros((300, 2)))
    assert clip.kind == "none"
