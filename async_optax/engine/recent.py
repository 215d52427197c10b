"""A memory of what was used last: what has not been used for long makes room."""

import threading
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """A dictionary that holds so many entries at most; the one used longest ago is dropped.

    Keys of a process's caches hold the user's functions, and with these all that they capture:
    kept for ever, they would fill the memory. Threads may share one.

    Args:
      most: how many entries, >= 1.

    Example:
      >>> cache = Recent(2)
      >>> cache["a"], cache["b"] = 1, 2
      >>> cache.get("a")
      1
      >>> cache["c"] = 3
      >>> "a" in cache, "b" in cache, len(cache)
      (True, False, 2)
    """

    def __init__(self, most: int = 256):
        self._most = most
        self._entries: dict[Hashable, Value] = {}  # the one used longest ago first
        self._lock = threading.Lock()

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Returns what is kept under a key, and counts it as used; else the default."""
        with self._lock:
            if key not in self._entries:
                return default
            self._entries[key] = self._entries.pop(key)
            return self._entries[key]

    def setdefault(self, key: Hashable, value: Value) -> Value:
        """Returns what is kept under a key, which is the value if there was nothing."""
        kept = self.get(key, self)
        if kept is not self:
            return kept
        self[key] = value
        return value

    def __setitem__(self, key: Hashable, value: Value) -> None:
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = value
            while len(self._entries) > self._most:
                self._entries.pop(next(iter(self._entries)))

    def __getitem__(self, key: Hashable) -> Value:
        value = self.get(key, self)
        if value is self:
            raise KeyError(key)
        return value

    def __contains__(self, key: Hashable) -> bool:
        return self.get(key, self) is not self

    def __iter__(self) -> Iterator[Hashable]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
