"""What to expect before a run: stability, step sizes, workers, bounds on time, clipping."""

from async_optax.theory import tails
from async_optax.theory.characteristic_roots import (
    characteristic_roots,
    continuum_limit,
    damping,
    frequency,
    lambert_w,
    oscillates,
)
from async_optax.theory.clipping import (
    Clipping,
    clipped_rate,
    clipping_for_moments,
    clipping_for_sub_weibull,
)
from async_optax.theory.compute_times import (
    TimeLaw,
    empirical_times,
    fixed_times,
    gamma_times,
    load_limit,
    poisson_times,
)
from async_optax.theory.curvature import Curvature, hessian_eigenvalues
from async_optax.theory.events import (
    EventRun,
    drop_above,
    event_triggered,
    residual_radius,
    reweigh,
)
from async_optax.theory.hitting_times import HittingTimes, hitting_times
from async_optax.theory.kernel_stability import (
    kernel_best_step,
    kernel_spectral_radius,
    kernel_stability_limit,
)
from async_optax.theory.kernels import (
    constant_kernel,
    geometric_kernel,
    poisson_kernel,
    staleness_kernel,
)
from async_optax.theory.recursion import (
    best_step,
    companion_matrix,
    dominant_root,
    spectral_radius,
    stability_limit,
    stability_map,
)
from async_optax.theory.replay import replayed_growth, replayed_limit
from async_optax.theory.stationary import (
    continuum_inflation,
    stationary_variance,
    variance_inflation,
)
from async_optax.theory.step_sizes import StepSizes, step_sizes, step_sizes_for
from async_optax.theory.time_bounds import (
    RennalaParameters,
    RingmasterParameters,
    TimeBound,
    gathering_time,
    optimal_time,
    rennala_parameters,
    ringmaster_parameters,
)
from async_optax.theory.workers import (
    BestWorkers,
    best_num_workers,
    simulated_worker_rates,
    worker_rates,
)

__all__ = [
    "BestWorkers",
    "Clipping",
    "Curvature",
    "EventRun",
    "HittingTimes",
    "RennalaParameters",
    "RingmasterParameters",
    "StepSizes",
    "TimeBound",
    "TimeLaw",
    "best_num_workers",
    "best_step",
    "characteristic_roots",
    "clipped_rate",
    "clipping_for_moments",
    "clipping_for_sub_weibull",
    "companion_matrix",
    "constant_kernel",
    "continuum_inflation",
    "continuum_limit",
    "damping",
    "dominant_root",
    "drop_above",
    "empirical_times",
    "event_triggered",
    "fixed_times",
    "frequency",
    "gamma_times",
    "gathering_time",
    "geometric_kernel",
    "hessian_eigenvalues",
    "hitting_times",
    "kernel_best_step",
    "kernel_spectral_radius",
    "kernel_stability_limit",
    "lambert_w",
    "load_limit",
    "optimal_time",
    "oscillates",
    "poisson_kernel",
    "poisson_times",
    "rennala_parameters",
    "replayed_growth",
    "replayed_limit",
    "residual_radius",
    "reweigh",
    "ringmaster_parameters",
    "simulated_worker_rates",
    "spectral_radius",
    "stability_limit",
    "stability_map",
    "staleness_kernel",
    "stationary_variance",
    "step_sizes",
    "step_sizes_for",
    "tails",
    "variance_inflation",
    "worker_rates",
]
