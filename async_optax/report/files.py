"""Files that are either whole or absent."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def require_writable(folder: Path) -> None:
    """Makes ``folder`` and checks that files can be written into it.

    Raises:
      OSError: if not, naming the folder and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"cannot write to the results folder {folder}: {error.strerror}; "
            "choose another with --output"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under a temporary name and renames it when it is whole and on disk.

    Args:
      path: where the file goes; an older one is replaced.
      write: writes the content to the path it is given, which has the same suffix.

    Raises:
      OSError: if writing fails; then nothing is left behind.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "numbers.txt"
      >>> write_atomically(path, lambda p: p.write_text("1 2 3"))
      >>> [p.name for p in path.parent.iterdir()]
      ['numbers.txt']
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
