"""The dtypes that data has on the device: 32 bits unless JAX is set to 64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def device_dtype(name: str, value: Any) -> np.dtype:
    """Returns the dtype that ``jnp.asarray(value)`` would have.

    Args:
      name: what the value is, for the message.
      value: an array or scalar.

    Returns:
      int64 becomes int32 and float64 float32, unless JAX computes in double precision.

    Raises:
      TypeError: if ``value`` is no array of numbers or booleans, such as a string.

    Example:
      >>> device_dtype("label", np.int64(3))
      dtype('int32')
    """
    dtype = np.asarray(value).dtype
    numeric = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    if dtype.kind == "m" or not numeric:  # NumPy counts durations among the integers
        raise TypeError(f"{name} must be numbers or booleans, got dtype {dtype}: drop or encode it")
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def narrowed(name: str, value: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts to ``dtype``, which integers must fit.

    Raises:
      ValueError: if an integer does not fit: it would wrap around to another one.

    Example:
      >>> narrowed("id", np.array([2**40]), np.dtype(np.int32))
      Traceback (most recent call last):
      ...
      ValueError: id holds 1099511627776, which does not fit int32
    """
    if value.dtype == dtype:
        return value
    if value.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        outside = value[(value < limits.min) | (value > limits.max)]
        if outside.size:
            raise ValueError(f"{name} holds {outside.flat[0]}, which does not fit {dtype}")
    return value.astype(dtype)
