"""The runs that must come out the same however they are executed."""

import jax
import optax

import async_optax as ao
from tests.engine.keeping_momentum import KeepingMomentum
from tests.engine.problems import softmax_problem
from tests.engine.protocols import PROTOCOLS, make_timeline
from tests.oracles.replay import SoftmaxRegression
from tests.oracles.table import CASES

# Workers whose inner optimizer goes on from job to job: its state is part of all that is below.
KEEPING_STATE = {
    "kept_momentum": lambda: KeepingMomentum(0.7),
    "kept_adam": lambda: ao.local_steps(2, optax.adam(0.05), 0.05, keep_state=True),
}

OPTIMIZERS = {
    name: lambda case=case: ao.optimizers.make(case[0], learning_rate=0.1, **case[1])
    for name, case in CASES.items()
} | {
    "exact": lambda: optax.chain(
        ao.transforms.clip_by_global_norm(0.5),
        ao.transforms.compensate_delay_exact(),
        ao.transforms.accumulate_until_commit(optax.sgd(0.1)),
    ),
    **{name: lambda: ao.optimizers.diloco(0.5, momentum=0.5) for name in KEEPING_STATE},
}

# The engine knows of a method what its state is like: none, moments, rows of the workers, other
# parameters served, what is gathered, a program of the workers; one method of each, of its variants
# the last one, with most of its options.
METHODS = (
    "sgd",
    "adadelay",
    "dc_asgd_adaptive",
    "dana",
    "dana_gap_aware",
    "smega2",
    "normalized_momentum_sgd",
    "nadam_delayed",
    "fedbuff",
    "fadas",
    "gba",
    "diloco",
    "async_heavy_tailed",
)
_LAST = {CASES[name][0] if name in CASES else name: name for name in OPTIMIZERS}
NAMES = [_LAST[name] for name in (*METHODS, *(name for name in OPTIMIZERS if name not in CASES))]

# Each of them under a protocol where every arrival commits or one that gathers; and every protocol.
# Methods that share a protocol share its timeline, protocols share a program.
RUNS = [(name, ("asynchronous", "buffered_no_wait")[i % 2]) for i, name in enumerate(NAMES)]
RUNS += [("clipped_sgd", protocol) for protocol in PROTOCOLS]
RUNS += [("kept_adam", protocol) for protocol in ("uniform", "buffered_no_wait")]
RUNS = sorted(set(RUNS))

# What two processes run: each way in which gradients are computed, gathered and kept. The rest
# differ in what is done with a gradient that is there, which each process does by itself.
OF_TWO_PROCESSES = [
    run
    for run in RUNS
    if run[0] in {*KEEPING_STATE, "exact"}
    or run[0].startswith(("async_heavy_tailed", "dana_gap_aware"))
    or (
        run[0] == "clipped_sgd"
        and run[1] in {"synchronous", "uniform", "ringmaster_stop", "switching"}
    )
]


def execute(optimizer, protocol, **options):
    """One run, in double precision."""
    with jax.enable_x64(True):
        return ao.simulate(
            softmax_problem(SoftmaxRegression(), ao.noise.alpha_stable(1.5, 0.05)),
            OPTIMIZERS[optimizer](),
            make_timeline(PROTOCOLS[protocol], num_commits=40),
            key=jax.random.key(3),
            worker=KEEPING_STATE.get(optimizer, ao.gradient)(),
            record=("gap", "gradient_norm", "update_norm"),
            evaluate_every=7,
            **options,
        )


def sweep_norms(strategy):
    """The metric of a small sweep, by whatever devices there are."""
    with jax.enable_x64(True):
        dataset = ao.sweep(
            softmax_problem(SoftmaxRegression(), ao.noise.gaussian(0.05)),
            "clipped_sgd",
            make_timeline(PROTOCOLS["asynchronous"], num_commits=40),
            seeds=range(2),
            grid={"learning_rate": [0.05, 0.1, 0.2]},
            evaluate_every=7,
            strategy=strategy,
        )
    assert (dataset["status"] == "done").all()
    return dataset["norm"].values
