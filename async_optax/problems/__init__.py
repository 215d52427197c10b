"""Ready-made problems on embedded data."""

from async_optax.problems.attention import attention
from async_optax.problems.digits import digits

__all__ = ["attention", "digits"]
