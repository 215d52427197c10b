"""A temporary folder that only this user can enter, and that does not outlive its process long."""

import contextlib
import os
import pathlib
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator

_PREFIX, _LOCK = "ao_ray_", ".lock"
_LONGEST_PARENT = 30  # bytes: sockets lie about 70 deeper, and have names of 107 at most
_YOUNG = 60.0  # seconds: the folder of a process that may just be about to lock it


@contextlib.contextmanager
def private_folder() -> Iterator[pathlib.Path]:
    """Yields a new folder of mode 0700, whatever is opened to everybody inside.

    It goes at the end. Those of processes that were killed are removed first: their locks are free.
    """
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _LONGEST_PARENT and os.access("/tmp", os.W_OK):
        parent = "/tmp"
    for left in pathlib.Path(parent).glob(f"{_PREFIX}*"):
        _remove_if_abandoned(left)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _is_locked(descriptor)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_abandoned(folder: pathlib.Path) -> None:
    try:
        found = folder.lstat()
        is_ours = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
        if not (is_ours and stat.S_ISDIR(found.st_mode) and time.time() - found.st_mtime > _YOUNG):
            return
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:  # gone meanwhile, or not made here
        return
    try:
        if _is_locked(descriptor):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Whether this process could lock a file that no other has locked."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # somebody's, or not all systems have locks
        return False
    return True
