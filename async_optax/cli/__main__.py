"""``python -m async_optax.cli``."""

import sys

from async_optax.cli import main

if __name__ == "__main__":
    sys.exit(main())
