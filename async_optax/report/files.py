"""Sets of files that are either whole or absent."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yields a staging folder whose files appear in ``folder`` when all of them are on disk.

    If the block raises, or is killed, no file of ``folder`` has changed. Files of the same names
    are replaced one after another, each in one piece.

    Args:
      folder: where the files go; it exists.

    Yields:
      A new folder beside them.

    Example:
      >>> import pathlib, tempfile
      >>> folder = pathlib.Path(tempfile.mkdtemp())
      >>> with all_or_nothing(folder) as staging:
      ...     _ = (staging / "numbers.txt").write_text("1 2 3")
      ...     print(sorted(p.name for p in folder.glob("*.txt")))
      []
      >>> sorted(p.name for p in folder.iterdir())
      ['numbers.txt']
    """
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=".unfinished-"))
    try:
        yield staging
        for path in staging.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for path in sorted(staging.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(staging)
