"""The Ray session of a run: one that exists, or one of its own that nobody else can reach."""

import contextlib
import importlib
import os
import secrets
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

# What Ray reads when it is imported. The first keeps the address 127.0.0.1 on Linux, so that all
# its processes listen there; otherwise they would listen on all interfaces.
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_SPARE_STORE = 1 << 28  # bytes


def import_ray() -> Any:
    """Returns the module ``ray``.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError(
            "real runs need ray: pip install 'async_optax[ray]'; replays do not"
        ) from error


@contextlib.contextmanager
def ray_session(address: str | None, num_cpus: int, store_bytes: int) -> Iterator[Any]:
    """Yields the module ``ray``, connected.

    A session that is there is used and left alone. Otherwise, without an address, one of its own is
    started for this run: on the loopback interface only, guarded by a token that only its
    processes know, without dashboard and usage statistics, with its files in a temporary folder
    that goes when it ends.

    Args:
      address: of a running cluster, ``"auto"`` or ``"host:port"``, or ``None``.
      num_cpus: logical processors of a session of its own, and
      store_bytes: what its object store must hold at least.

    Raises:
      ImportError: if Ray is not installed.
      ConnectionError: if there is no cluster at the address.
      RuntimeError: if Ray would listen beyond the loopback interface.
    """
    if address is None and "ray" not in sys.modules:
        os.environ.update(_ALONE)
        if not any(name in os.environ for name in _TOKENS):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        try:
            with _forks():
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            yield ray
        finally:
            ray.shutdown()
        return
    folder = tempfile.mkdtemp(prefix="ao_ray_")  # short: sockets have names of 107 bytes at most
    try:
        with _forks():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=store_bytes + _SPARE_STORE,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=folder,
            )
        addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
        if addresses != {"127.0.0.1"}:
            raise RuntimeError(
                f"Ray would listen on {', '.join(sorted(addresses))}: it was imported before this "
                "run could keep it to the loopback interface. Set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
                "=0 before importing it, or call ray.init yourself if others may reach it"
            )
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _forks() -> Iterator[None]:
    """Ray forks to start programs, which JAX warns of; those do not use its threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield
