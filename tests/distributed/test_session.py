"""The Ray session of a run: who can enter its folder, what it leaves behind, wrong addresses."""

import os
import pathlib
import socket
import stat
import sys
import tempfile
import time
import types

import pytest

from async_optax.distributed import private_folder, ray_session, session


def private(path):
    """Whether some folder on the way can only be entered by this user."""
    parents = [parent.stat() for parent in pathlib.Path(path).parents]
    return any(
        stat.S_IMODE(found.st_mode) == 0o700 and found.st_uid == os.getuid() for found in parents
    )


def test_nobody_else_can_enter_the_folder_of_the_sockets(ray):
    node = ray.nodes()[0]
    sockets = [node["ObjectStoreSocketName"], node["RayletSocketName"]]
    assert all(stat.S_ISSOCK(os.stat(path).st_mode) for path in sockets)
    assert all(private(path) for path in sockets)


class Fake:
    """A module ray that remembers how it was started."""

    exceptions = types.SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, error=None):
        self.error, self.started = error, []

    def is_initialized(self):
        return False

    def init(self, **arguments):
        names = [name for name in os.environ if name.startswith("RAY_")]
        self.started.append(arguments | {name: os.environ[name] for name in names})
        if self.error is not None:
            raise self.error

    def nodes(self):
        return [{"NodeManagerAddress": "127.0.0.1"}]

    def shutdown(self):
        pass


@pytest.fixture
def make(monkeypatch):
    """Puts a fake in the place of Ray, as if no session had been there yet."""
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(session, "_ours", {})
    monkeypatch.delitem(sys.modules, "ray", raising=False)

    def make(error=None):
        fake = Fake(error)

        def load():
            monkeypatch.setitem(sys.modules, "ray", fake)
            return fake

        monkeypatch.setattr(session, "import_ray", load)
        return fake

    return make


def variables():
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def test_a_session_of_its_own_leaves_the_environment_as_it_was(make, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before, fake = variables(), make()
    for _ in range(2):
        with ray_session(None, 2, 1 << 20):
            assert variables()["RAY_AUTH_MODE"] == "token"
        assert variables() == before
    first, second = fake.started
    assert first["RAY_USAGE_STATS_ENABLED"] == "0"
    # Ray reads its token once: the second session has the same.
    assert len(first["RAY_AUTH_TOKEN"]) == 64
    assert first["RAY_AUTH_TOKEN"] == second["RAY_AUTH_TOKEN"]
    assert not os.path.exists(os.path.dirname(first["_temp_dir"]))
    # Another cluster without a token can be joined, one with its own token cannot.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with ray_session(address, 2, 1 << 20):
            pass
        assert "RAY_AUTH_TOKEN" not in fake.started[2]
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        with (
            pytest.raises(RuntimeError, match="another process"),
            ray_session(address, 2, 1 << 20),
        ):
            pass


def test_sockets_have_short_names(make, monkeypatch, tmp_path):
    fake = make()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 10)))
    with ray_session(None, 2, 1 << 20):
        assert private(fake.started[0]["_temp_dir"])
    assert len(fake.started[0]["_temp_dir"]) < 30


def test_folders_of_killed_processes_are_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(private_folder, "_LONGEST_PARENT", 1000)
    old = time.time() - 3600

    def make(name, mode=0o700):
        folder = tmp_path / f"ao_ray_{name}"
        folder.mkdir(mode)
        (folder / ".lock").touch()
        (folder / "r").mkdir()
        return folder

    killed, open_to_all, young = make("killed"), make("open", 0o755), make("young")
    not_made_here = make("other")
    (not_made_here / ".lock").unlink()
    for folder in (killed, open_to_all, not_made_here):
        os.utime(folder, (old, old))
    with private_folder.private_folder() as running:
        os.utime(running, (old, old))
        with private_folder.private_folder() as another:
            kept = {open_to_all, young, not_made_here, running, another}
            assert set(tmp_path.iterdir()) == kept
    assert set(tmp_path.iterdir()) == {open_to_all, young, not_made_here}


def test_an_address_where_nobody_is_costs_no_time(make):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fake, started = make(), time.monotonic()
    with (
        pytest.raises(ConnectionError, match=f"nothing answers at address='127.0.0.1:{port}'"),
        ray_session(f"127.0.0.1:{port}", 2, 1 << 20),
    ):
        pass
    assert time.monotonic() - started < 10
    for address in ("ray://127.0.0.1:10001", "127.0.0.1", "host:port", 6379):
        with (
            pytest.raises(ValueError, match="address must be 'auto', or 'host:port'"),
            ray_session(address, 2, 1 << 20),
        ):
            pass
    assert not fake.started


def test_a_cluster_that_refuses_is_told_in_one_line(make):
    make(Fake.exceptions.RayError("\nno token\nand more"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(
                ConnectionError, match="with RAY_AUTH_MODE=.* here.*: no token"
            ) as caught,
            ray_session(address, 2, 1 << 20),
        ):
            pass
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
