"""A file of runs that are stored as they end, so that a stopped experiment goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """What runs gave, by all that decides it; each is on disk before the next one starts.

    The file has one line of JSON per run. What the code computes is no part of a run's description:
    after a change of the code, delete the file.

    Args:
      path: the file, which need not exist; ``None`` keeps everything in memory.

    Raises:
      ValueError: if a line other than the last is no entry of a ledger.

    Example:
      >>> ledger = Ledger(None)
      >>> ledger.run({"seed": 1}, lambda: {"loss": 0.5})
      {'loss': 0.5}
      >>> ledger.run({"seed": 1}, lambda: {"loss": 0.7})
      {'loss': 0.5}
      >>> ledger.num_new
      1
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._outcomes: dict[str, dict[str, Any]] = {}
        self.num_new = 0
        if path is not None and path.exists():
            self._read(path)

    def __len__(self) -> int:
        """The number of runs."""
        return len(self._outcomes)

    def run(
        self, description: Mapping[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Returns what a run gave, and computes and stores it unless it is known.

        Args:
          description: all that decides the run, as plain data.
          compute: returns plain data.
        """
        name = json.dumps(description, sort_keys=True)
        if name not in self._outcomes:
            outcome = compute()
            # As it will be read, so that a run gives the same before and after.
            line = json.dumps({"run": json.loads(name), "outcome": outcome}, allow_nan=False)
            self._outcomes[name] = json.loads(line)["outcome"]
            self.num_new += 1
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(line + "\n")
        return self._outcomes[name]

    def _read(self, path: Path) -> None:
        text = path.read_text()
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                name = json.dumps(entry["run"], sort_keys=True)
                self._outcomes[name] = entry["outcome"]
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines) and not text.endswith("\n"):
                    # A process was killed while it wrote: that run is run again.
                    path.write_text("".join(f"{whole}\n" for whole in lines[:-1]))
                    return
                raise ValueError(f"{path}, line {number}, is no entry of a ledger") from error
