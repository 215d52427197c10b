"""Ctrl-C that libraries swallow, or turn into errors of their own."""

import os
import signal

import pytest

from async_optax.cli.interruption import interruptible, stop_if_interrupted


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def swallowed():
    """As a callback that the interpreter runs: what it raises goes nowhere."""
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c()


def test_what_was_swallowed_stops_before_files_change():
    changed = []

    @interruptible()
    def command():
        swallowed()
        stop_if_interrupted()
        changed.append("files")

    with pytest.raises(KeyboardInterrupt):
        command()
    assert not changed


def test_an_error_that_came_of_it_is_an_interruption():
    @interruptible()
    def command():
        swallowed()
        raise ValueError("Invalid bounding box")

    with pytest.raises(KeyboardInterrupt):
        command()


def test_without_it_errors_stay_what_they_are():
    before = signal.getsignal(signal.SIGINT)

    @interruptible()
    def command():
        stop_if_interrupted()
        raise ValueError("bad input")

    with pytest.raises(KeyboardInterrupt), interruptible():
        press_ctrl_c()
    with pytest.raises(ValueError, match="bad input"):
        command()
    assert signal.getsignal(signal.SIGINT) is before
