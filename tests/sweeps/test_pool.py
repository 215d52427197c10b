"""The pool: jobs see the caller's settings, and an error ends them all."""

import threading

import jax
import jax.numpy as jnp
import pytest

from async_optax.sweeps.pool import run_jobs


def ignore(done):
    del done


def test_jobs_see_the_settings_of_the_calling_thread():
    def job(advance):
        return jnp.zeros(1).dtype, jax.config.jax_numpy_dtype_promotion

    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        seen = list(run_jobs([job] * 3, 2, ignore))
    assert seen == [(jnp.dtype("float64"), "strict")] * 3
    assert list(run_jobs([job], 2, ignore)) == [(jnp.dtype("float32"), "standard")]


def test_an_error_stops_jobs_under_way_and_those_to_come():
    under_way, started = threading.Event(), []

    def endless(advance):
        while True:
            advance(1)
            under_way.set()

    def broken(advance):
        under_way.wait()
        raise ZeroDivisionError

    def later(advance):
        started.append(1)

    ended = run_jobs([lambda advance: "done", endless, broken, later], 2, ignore)
    assert next(ended) == "done"
    with pytest.raises(ZeroDivisionError):
        list(ended)
    assert len(started) <= 1


def test_closing_it_stops_the_jobs():
    under_way, stopped = threading.Event(), threading.Event()

    def endless(advance):
        under_way.set()
        try:
            while True:
                advance(1)
        finally:
            stopped.set()

    ended = run_jobs([lambda advance: under_way.wait(), endless], 2, ignore)
    assert next(ended)
    ended.close()
    assert stopped.is_set()


def test_what_was_done_is_yielded_before_the_error():
    def report(done):
        if done >= 1:
            raise KeyboardInterrupt

    def job(advance):
        advance(1)
        return "done"

    ended = run_jobs([job, job], 1, report)
    results = []
    with pytest.raises(KeyboardInterrupt):
        results.extend(ended)
    assert results == ["done"] * len(results)
    assert results


def test_progress_is_the_sum_over_jobs():
    seen = []

    def job(advance):
        advance(2)
        advance(5)

    list(run_jobs([job] * 4, 2, seen.append))
    assert seen[-1] == 20
    assert seen == sorted(seen)
