"""Tests compile many small programs once each: what makes XLA's CPU compiler slow is turned off."""

import os
import subprocess
import sys

# Most of a run of the tests would be the compiler's optimizations, which none of them needs.
_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def compile_quickly():
    """Sets ``XLA_FLAGS``, for child processes too; before JAX starts, and unless it is set.

    XLA ends a process that has a flag it does not know, so each is tried in one of its own.
    """
    if "XLA_FLAGS" not in os.environ:
        known = [_try(flag) for flag in _QUICK]
        os.environ["XLA_FLAGS"] = " ".join(
            flag for flag, process in zip(_QUICK, known, strict=True) if process.wait() == 0
        )


def _try(flag):
    return subprocess.Popen(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": flag},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
