"""The Ray session of a run: one that exists, or one of its own that nobody else can reach."""

import contextlib
import importlib
import os
import re
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from async_optax.distributed.private_folder import private_folder
from async_optax.validation import first_line

# What Ray reads when it is imported. The first keeps the address 127.0.0.1 on Linux, so that all
# its processes listen there; otherwise they would listen on all interfaces.
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_SPARE_STORE = 1 << 28  # bytes
_ADDRESS = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
_REACHABLE = 5.0  # seconds to open a connection

_ours: dict[str, str] = {}  # what sessions of its own have in the environment; Ray keeps the token


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
    that only this user can enter and that goes when it ends.

    Args:
      address: of a running cluster, ``"auto"`` or ``"host:port"``, or ``None``.
      num_cpus: logical processors of a session of its own, and
      store_bytes: what its object store must hold at least.

    Raises:
      ImportError: if Ray is not installed.
      ValueError: if the address is none.
      ConnectionError: if there is no cluster at the address, or it does not let this process in.
      RuntimeError: if Ray would listen beyond the loopback interface, or the process had a session
        of its own before and shall now join a cluster with another token.
    """
    imported = sys.modules.get("ray")
    if imported is not None and imported.is_initialized():
        yield imported
    elif address is not None:
        with _joined(address) as ray:
            yield ray
    else:
        with _alone(num_cpus, store_bytes) as ray:
            yield ray


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    """A session in somebody's cluster."""
    if address != "auto":
        _require_reachable(address)
    if "RAY_AUTH_TOKEN" in _ours and os.environ.get("RAY_AUTH_MODE") == "token":
        raise RuntimeError(
            "this process has had a Ray session of its own, whose token Ray keeps: join the "
            f"cluster at {address} from another process"
        )
    ray = import_ray()
    try:
        try:
            with _forks():
                ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise ConnectionError(
                f"cannot join the Ray cluster at {address}, with RAY_AUTH_MODE="
                f"{os.environ.get('RAY_AUTH_MODE', '')} here (a cluster that was started with "
                f"token needs it here as well, and its token): {first_line(error)}"
            ) from error
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _alone(num_cpus: int, store_bytes: int) -> Iterator[Any]:
    """A session of its own."""
    with _environment(), private_folder() as folder:
        ray = import_ray()
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
                    _temp_dir=str(folder / "r"),  # Ray opens it to everybody
                )
            addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
            if addresses != {"127.0.0.1"}:
                raise RuntimeError(
                    f"Ray would listen on {', '.join(sorted(addresses))}: it was imported before "
                    "this run could keep it to the loopback interface. Set "
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before importing it, or call ray.init "
                    "yourself if others may reach it"
                )
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Sets what Ray reads, and puts it back: what comes after may mean another cluster."""
    if "ray" not in sys.modules:
        _ours.update(_ALONE)
        if not any(name in os.environ for name in _TOKENS):
            _ours["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    before = {name: os.environ.get(name) for name in _ours}
    os.environ.update(_ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _require_reachable(address: str) -> None:
    """Looks whether something listens: Ray itself would try for minutes.

    Raises:
      ValueError: if it is no address.
      ConnectionError: if nothing does.
    """
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if found is None:
        raise ValueError(
            f"address must be 'auto', or 'host:port' of a Ray cluster, got {address!r}"
        )
    host, port = found["host"].strip("[]"), int(found["port"])
    try:
        socket.create_connection((host, port), timeout=_REACHABLE).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"nothing answers at address={address!r} ({first_line(error)}): start a Ray cluster "
            "there by `ray start --head`, or leave the address out"
        ) from error


@contextlib.contextmanager
def _forks() -> Iterator[None]:
    """Ray forks to start programs, which JAX warns of; those do not use its threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield
