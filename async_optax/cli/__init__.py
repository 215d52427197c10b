"""The command line. Needs the extra ``experiments``."""

try:
    import rich  # noqa: F401
    import tyro  # noqa: F401
except ImportError as error:
    raise ImportError(
        "the command line needs the extra 'experiments': pip install 'async_optax[experiments]'"
    ) from error

from async_optax.cli.main import main

__all__ = ["main"]
