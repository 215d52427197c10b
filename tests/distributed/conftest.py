"""One Ray session for all tests of a process that need one."""

import importlib.util

import pytest

from async_optax.distributed import ray_session


@pytest.fixture(scope="session")
def ray():
    """A session on the loopback interface; tests without Ray do not start it."""
    if importlib.util.find_spec("ray") is None:  # not imported: the session sets it up first
        pytest.skip("ray is not installed")
    with ray_session(None, num_cpus=8, store_bytes=1 << 26) as module:
        yield module
