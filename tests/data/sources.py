"""Sources that tests stream from."""

import threading

import numpy as np


class Numbered:
    """Row i is ``{"x": float64 [3] of i, "y": i}``; counts how often each row is read."""

    def __init__(self, num_examples=50):
        self.num_examples = num_examples
        self.reads = []
        self._lock = threading.Lock()

    def __len__(self):
        return self.num_examples

    def __getitem__(self, row):
        assert type(row) is int
        with self._lock:
            self.reads.append(row)
        return {"x": np.full(3, row + 0.5), "y": row}

    def arrays(self):
        rows = np.arange(self.num_examples)
        return {"x": np.repeat(rows[:, None] + 0.5, 3, axis=1), "y": rows}


class Together(Numbered):
    """Reads several rows by one call, never one alone after the first."""

    def __init__(self, num_examples=50):
        super().__init__(num_examples)
        self.calls = []

    def __getitems__(self, rows):
        assert all(type(row) is int for row in rows)
        self.calls.append(len(rows))
        return [super(Together, self).__getitem__(row) for row in rows]


class Broken(Numbered):
    """Row ``bad`` raises."""

    def __init__(self, bad, num_examples=50):
        super().__init__(num_examples)
        self.bad = bad

    def __getitem__(self, row):
        if row == self.bad:
            raise OSError("disk on fire")
        return super().__getitem__(row)


class BrokenTogether(Broken):
    """Row ``bad`` raises, also among others."""

    def __getitems__(self, rows):
        return [self[row] for row in rows]


class Virtual:
    """Ten million rows of a kilobyte, computed when they are read."""

    def __len__(self):
        return 10**7

    def __getitem__(self, row):
        return np.full(256, row, np.float32)
