"""The header of a trace: what the run was, checked before anything is made of it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from async_optax.engine.checks import checked_slot_dtype
from async_optax.validation import require_choice, require_count

MOST_WORKERS = 10**6
_PRECISIONS = ("float32", "float64")


def checked_header(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the header of a trace, of which every field that is used is what it must be.

    Args:
      fields: ``num_workers``, ``key``, ``precision`` and ``slot_dtype``; ``protocol``, ``note`` and
        others that only describe the run may be missing.

    Returns:
      The fields, with an empty ``note`` if there is none.

    Raises:
      KeyError: if a field is missing.
      TypeError: if one is of the wrong kind.
      ValueError: if its value cannot be.

    Example:
      >>> key = {"impl": "threefry2x32", "data": [0, 1]}
      >>> fields = {"num_workers": 2, "key": key, "precision": "float32", "slot_dtype": None}
      >>> checked_header(fields)["note"]
      {}
      >>> checked_header(fields | {"num_workers": 10**9})
      Traceback (most recent call last):
      ...
      ValueError: num_workers must be at most 1000000, got 1000000000
    """
    header = {"note": {}} | dict(fields)
    require_count("num_workers", header["num_workers"])
    if header["num_workers"] > MOST_WORKERS:
        raise ValueError(f"num_workers must be at most {MOST_WORKERS}, got {header['num_workers']}")
    saved_key(header["key"])
    require_choice("precision", header["precision"], _PRECISIONS)
    checked_slot_dtype(header["slot_dtype"])
    if not isinstance(header["note"], dict):
        raise TypeError(f"note must be an object, got {header['note']!r:.40}")
    return header


def saved_key(saved: Mapping[str, Any]) -> jax.Array:
    """Returns the typed key that a header tells of: the generator ``impl`` and its ``data``."""
    data = np.array(saved["data"], np.uint32)
    key = jax.random.wrap_key_data(jnp.asarray(data), impl=saved["impl"])
    if key.shape:
        raise ValueError(f"key must be one key, got an array of shape {key.shape}")
    return key
