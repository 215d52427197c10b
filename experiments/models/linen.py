"""``flax.linen``, in which the models are written, or an error that says how to get it."""

try:
    from flax import linen as nn
    from flax.linen.dtypes import promote_dtype
except ImportError as error:
    raise ImportError("the models need flax: pip install 'async_optax[models]'") from error

__all__ = ["nn", "promote_dtype"]
