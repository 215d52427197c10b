"""Checkpoints when something fails: whole or not at all, whatever is killed, full or damaged."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from tests.engine.test_checkpoints import assert_same, random_bits, store_in


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / ".writing-checkpoint-000004" / "arrays").mkdir(parents=True)
    (tmp_path / ".removing-checkpoint-000002").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with store_in(tmp_path) as store:
        assert sorted(os.listdir(tmp_path)) == [".lock", "notes.txt"]
        assert store.restore({}) is None


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, changed, emptied, pathlib.Path.unlink])
def test_damaged_checkpoints_are_passed_over(tmp_path, damage):
    states = [{"w": random_bits(jnp.zeros(500), seed)} for seed in range(3)]
    with store_in(tmp_path / "whole", keep=3) as store:
        for i, state in enumerate(states):
            store.save(i, state, {})
    newest = pathlib.Path("checkpoint-000003")
    files = [p for p in (tmp_path / "whole" / newest).rglob("*") if p.is_file()]
    assert len(files) > 4
    for i, file in enumerate(path for path in files if damage != emptied or path.stat().st_size):
        folder = tmp_path / str(i)
        shutil.copytree(tmp_path / "whole", folder)
        damage(folder / newest / file.relative_to(tmp_path / "whole" / newest))
        with store_in(folder, keep=1) as store:
            with pytest.warns(RuntimeWarning, match="checkpoint-000003: .*goes on from position 1"):
                position, state, _ = store.restore(states[0])
            assert position == 1
            assert_same(state, states[1])
            if i == 0:
                store.save(7, states[0], {})
                assert store.restore(states[0])[0] == 7
                assert sorted(os.listdir(folder)) == [".lock", "checkpoint-000004"]


def test_nothing_but_damaged_checkpoints(tmp_path):
    with store_in(tmp_path) as store:
        store.save(1, {"w": jnp.ones(1)}, {})
        truncated(tmp_path / "checkpoint-000001" / "manifest.json")
        with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged \(checkpoint-0"):
            store.restore({"w": jnp.ones(1)})
    with store_in(tmp_path, {"other": "run"}):
        pass  # whose it was cannot be read


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match=f"cannot be written to {folder} .*: use a folder"):
            store_in(folder)


def test_a_folder_that_disappears(tmp_path):
    with store_in(tmp_path / "a") as store:
        shutil.rmtree(tmp_path / "a")
        with pytest.raises(FileNotFoundError, match="position 1, .*no earlier one can be read"):
            store.save(1, {"w": jnp.ones(1)}, {})


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_and_read_only_disks(small_disk, capfd):
    folder, state = small_disk / "run", {"w": random_bits(jnp.zeros(1000))}
    with store_in(folder) as store:
        advice = "there is no earlier one; free space and call again to go on$"
        with pytest.raises(OSError, match=f"No space left on device; {advice}"):
            store.save(5, {"w": random_bits(jnp.zeros(10**6))}, {})
        store.save(5, state, {"loss": np.zeros(5)})
        before = sorted(os.listdir(folder))
        for size, blocks in [(10**6, 0), (1000, shutil.disk_usage(small_disk).free)]:
            (small_disk / "fill").write_bytes(bytes(blocks))
            message = (
                rf"\[Errno 28\] the checkpoint at position 6, of {4 * size} bytes, cannot be "
                rf"written to {folder}, which has \d+ bytes free: No space left on device; "
                "the checkpoint at position 5 is intact; free space and call again to go on$"
            )
            with pytest.raises(OSError, match=message):
                store.save(6, {"w": random_bits(jnp.zeros(size))}, {})
            assert sorted(os.listdir(folder)) == before
            assert_same(store.restore(state)[1], state)
        with pytest.raises(OSError, match="No space .*; or free space and call again to go on$"):
            store_in(small_disk / "second")
        os.truncate(small_disk / "fill", 0)
        store.save(6, state, {})
        assert store.restore(state)[0] == 6
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for path in (folder, small_disk / "other"):
        with pytest.raises(OSError, match=f"cannot be written to {path} .Read-only file system"):
            store_in(path)
    assert capfd.readouterr() == ("", "")


def start(code, *arguments):
    """Runs code in another process, in which all this module's names are known."""
    code = f"from tests.engine.test_checkpoint_failures import *\n{code}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_limit_on_files_and_a_quiet_exit(tmp_path):
    # As a quota does, for users who cannot mount a small disk.
    child = start(
        """
import resource

state = {"w": random_bits(jnp.zeros(100))}
with store_in(sys.argv[1]) as store:
    store.save(5, state, {})
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    try:
        store.save(6, {"w": random_bits(jnp.zeros(10**6))}, {})
    except OSError as error:
        print(json.dumps([str(error), store.restore(state)[0]]))
""",
        tmp_path,
    )
    output, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (0, "")
    message, position = json.loads(output)
    assert re.search("position 6.*cannot be written.*position 5 is intact", message)
    assert position == 5


def saved_at(position):
    """The state of a run of which nothing but the position is known; 2 MB."""
    rng = np.random.default_rng(position)
    return {"w": rng.normal(size=250_000), "position": np.array(position)}


@pytest.mark.slow
def test_killed_in_the_middle_of_a_save(tmp_path):
    code = """
with store_in(sys.argv[1], keep=2) as store:
    for position in range(1000):
        store.save(position, saved_at(position), {"seen": np.arange(position)})
        print(position, flush=True)
"""
    delays = np.random.default_rng(0).uniform(0, 0.5, 5)
    children = [start(code, tmp_path / str(i)) for i in range(5)]
    left = 0
    for i, child in enumerate(children):
        reported = [int(child.stdout.readline())]
        time.sleep(delays[i])
        child.send_signal(signal.SIGKILL)
        output, _ = child.communicate()
        reported += map(int, output.split("\n")[:-1])
        assert child.returncode == -signal.SIGKILL
        folder = tmp_path / str(i)
        left += any(name.startswith((".writing", ".removing")) for name in os.listdir(folder))
        with store_in(folder, keep=2) as store:
            position, state, tables = store.restore(saved_at(0))
            assert position >= reported[-1]
            assert_same(state, saved_at(position))
            assert_same(tables, {"seen": np.arange(position)})
            store.save(position + 1, saved_at(position + 1), {})
            assert store.restore(saved_at(0))[0] == position + 1
    assert left  # they were in the middle
