"""Reading rows of a random-access source: in threads, each row once, checked against row 0."""

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any, ClassVar

import jax
import numpy as np
from jax.tree_util import PyTreeDef

from async_optax.data.narrowing import device_dtype, narrowed
from async_optax.validation import first_line, require_count

_PIECES_PER_THREAD = 4  # so that threads with quick rows need not wait for the others
_MAX_PIECE = 128  # rows read between two looks at the stop signal


@dataclasses.dataclass(frozen=True, eq=False)
class Loader:
    """Reads rows of a source into arrays, several at a time.

    Loaders of the identical source and transform with as many threads are equal: a program
    compiled for one serves the other.

    Attributes:
      source: ``len(source)`` and ``source[i]``; ``source.__getitems__(indices)`` is used if
        there is one.
      transform: ``transform(example) -> pytree`` on the host, or ``None``.
      num_threads: threads that read at the same time, >= 1.
      example: pytree of ``jax.ShapeDtypeStruct``, what row 0 is on the device.

    Raises:
      TypeError: if the source has no random access, or row 0 holds anything but numbers.
      ValueError: if the source is empty or its row 0 cannot be read.

    Example:
      >>> loader = Loader([{"x": 1.0}, {"x": 2.0}])
      >>> loader.load(np.array([1, 0, 1]))
      {'x': array([2., 1., 2.], dtype=float32)}
    """

    # A checkpoint of a run may go on with another number of threads: they decide no result.
    undescribed_fields: ClassVar[tuple[str, ...]] = ("num_threads",)

    source: Any
    transform: Callable[[Any], Any] | None = None
    num_threads: int = 8
    example: Any = dataclasses.field(init=False, repr=False)
    _layout: "_Layout" = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        source, transform = self.source, self.transform
        random_access = hasattr(source, "__len__") and hasattr(source, "__getitem__")
        if not random_access or isinstance(source, Mapping):
            raise TypeError(
                f"source must have len(source) and source[i], got {type(source).__name__}: each "
                "job draws its rows by its own key, which no stream in a given order can serve"
            )
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be a function of one example, got {transform!r}")
        require_count("num_threads", self.num_threads)
        if len(source) == 0:
            raise ValueError("source must have at least one example, got none")
        layout = _layout_of(self._transformed(0, self._read_one(0)))
        leaves = map(jax.ShapeDtypeStruct, layout.shapes, layout.device_dtypes)
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "example", layout.treedef.unflatten(leaves))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loader) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[int, int, int]:
        return id(self.source), id(self.transform), self.num_threads

    def load(
        self,
        rows: np.ndarray,
        *,
        pad_to: int | None = None,
        stop: threading.Event | None = None,
    ) -> Any:
        """Reads rows.

        Args:
          rows: integers of any shape, each in ``[0, len(source))``; each distinct one is read
            once.
          pad_to: length >= ``len(rows)`` of the result, zero beyond them; ``None``: that of
            ``rows``.
          stop: ends the reading early when it is set.

        Returns:
          Pytree like ``example`` of NumPy arrays ``[*rows.shape, *example_shape]``.

        Raises:
          TypeError: if the rows are not integers.
          ValueError: if a row does not exist, cannot be read, or is unlike row 0; it is named.
          CancelledError: if ``stop`` was set.
        """
        rows = np.asarray(rows)
        if rows.dtype.kind not in "iu":
            raise TypeError(f"rows must be integers, got dtype {rows.dtype}")
        if pad_to is not None:
            require_count("pad_to", pad_to, at_least=len(rows))
        num_rows = len(self.source)
        outside = rows[(rows < 0) | (rows >= num_rows)]
        if outside.size:
            raise ValueError(f"row {outside.flat[0]} is not in the source's [0, {num_rows})")
        shape = rows.shape if pad_to is None else (pad_to, *rows.shape[1:])
        layout = self._layout
        # Flat over rows; pages of the zeros are touched by the threads that fill them.
        arrays = [
            np.zeros((math.prod(shape), *leaf_shape), dtype)
            for leaf_shape, dtype in zip(layout.shapes, layout.device_dtypes, strict=True)
        ]
        distinct, first, inverse = np.unique(rows, return_index=True, return_inverse=True)

        def read(piece: slice) -> None:
            if stop is not None and stop.is_set():
                raise CancelledError
            numbers = distinct[piece].tolist()
            for place, row, value in zip(first[piece], numbers, self._read(numbers), strict=True):
                for array, leaf in zip(arrays, layout.leaves(row, value), strict=True):
                    array[place] = leaf

        self._in_threads(read, len(distinct))
        repeated = np.ones(rows.size, bool)
        repeated[first] = False
        origin = first[inverse.ravel()[repeated]]
        if len(origin):
            places = np.flatnonzero(repeated)
            for array in arrays:
                array[places] = array[origin]
        shaped = [array.reshape((*shape, *array.shape[1:])) for array in arrays]
        return layout.treedef.unflatten(shaped)

    def _in_threads(self, read: Callable[[slice], None], num_rows: int) -> None:
        pieces_at_least = self.num_threads * _PIECES_PER_THREAD if self.num_threads > 1 else 1
        size = -(-num_rows // pieces_at_least)
        size = min(max(size, 1), _MAX_PIECE)
        pieces = [slice(start, start + size) for start in range(0, num_rows, size)]
        if self.num_threads == 1 or len(pieces) <= 1:
            for piece in pieces:
                read(piece)
            return
        with ThreadPoolExecutor(self.num_threads, "async_optax-load") as pool:
            # The first error in the order of rows is raised, and the pieces left are dropped.
            for _ in pool.map(read, pieces):
                pass

    def _read(self, rows: list[int]) -> Iterator[Any]:
        together = getattr(self.source, "__getitems__", None)
        if together is None:
            examples = map(self._read_one, rows)
        else:
            examples = self._read_together(together, rows)
        return map(self._transformed, rows, examples)

    def _read_together(self, together: Callable, rows: list[int]) -> Any:
        try:
            examples = together(rows)
        except Exception as error:  # a source may raise anything
            for row in rows:
                self._read_one(row)  # raises for the row at fault
            raise ValueError(
                f"rows {rows[0]} to {rows[-1]} of the source cannot be read together: "
                f"{_reason(error)}"
            ) from error
        if isinstance(examples, Mapping) or len(examples) != len(rows):
            raise ValueError(
                f"source.__getitems__ must return a list of {len(rows)} examples for the rows "
                f"{rows[0]} to {rows[-1]}, got {type(examples).__name__} of {len(examples)}"
            )
        return examples

    def _read_one(self, row: int) -> Any:
        try:
            return self.source[row]
        except Exception as error:  # a source may raise anything
            raise ValueError(f"row {row} of the source cannot be read: {_reason(error)}") from error

    def _transformed(self, row: int, example: Any) -> Any:
        if self.transform is None:
            return example
        try:
            return self.transform(example)
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"transform fails on row {row}: {_reason(error)}") from error


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What every example must be like: names, shapes and dtypes of the leaves of row 0."""

    treedef: PyTreeDef
    names: list[str]
    shapes: list[tuple[int, ...]]
    dtypes: list[np.dtype]
    device_dtypes: list[np.dtype]

    def leaves(self, row: int, value: Any) -> list[np.ndarray]:
        """Returns the leaves in their dtypes on the device; the error names the row."""
        leaves, treedef = jax.tree.flatten(value)
        if treedef != self.treedef:
            raise ValueError(f"row {row} is a {treedef}, but row 0 is a {self.treedef}")
        arrays = [np.asarray(leaf) for leaf in leaves]
        for i, array in enumerate(arrays):
            if (array.shape, array.dtype) != (self.shapes[i], self.dtypes[i]):
                raise ValueError(
                    f"row {row}: {self.names[i]} is {array.dtype}{list(array.shape)}, but in "
                    f"row 0 it is {self.dtypes[i]}{list(self.shapes[i])}"
                )
            arrays[i] = narrowed(f"row {row}: {self.names[i]}", array, self.device_dtypes[i])
        return arrays


def _layout_of(value: Any) -> _Layout:
    named, treedef = jax.tree_util.tree_flatten_with_path(value)
    if not named:
        raise ValueError(f"row 0 holds no array, got {value!r:.60}")
    names = ["example" + jax.tree_util.keystr(path) for path, _ in named]
    arrays = [np.asarray(leaf) for _, leaf in named]
    return _Layout(
        treedef,
        names,
        [array.shape for array in arrays],
        [array.dtype for array in arrays],
        [device_dtype(*pair) for pair in zip(names, arrays, strict=True)],
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else repr(error)
