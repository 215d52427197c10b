"""Every protocol against a slow and obvious simulator, row for row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline
from tests.oracles import cluster

MODELS = {
    "equal": lambda n: runtimes.deterministic(),
    "multiples": lambda n: runtimes.deterministic([1.0 + worker % 3 for worker in range(n)]),
    "decimals": lambda n: runtimes.deterministic([0.1 * (1 + worker % 4) for worker in range(n)]),
    "two_speed": lambda n: runtimes.two_speed(3.0),
    "gamma": lambda n: runtimes.gamma(cv=0.5, machine_cv=0.6),
    "exponential": lambda n: runtimes.exponential(),
    "pareto": lambda n: runtimes.pareto(1.2),
}

# Of each protocol: how its options are drawn, given the number of workers.
SIZES = st.integers(1, 9)
OPTIONS = {
    "synchronous": lambda n: {"backup": st.integers(0, n - 1)},
    "cohorts": lambda n: {
        "cohort": st.integers(n // 2 + 1, n),
        "backup": st.integers(0, n // 2),
    },
    "asynchronous": lambda n: {},
    "assigned": lambda n: {
        "assignment": st.sampled_from(["uniform", "shuffled"]),
        "concurrency": st.none() | st.integers(1, 2 * n),
    },
    "buffered": lambda n: {"size": SIZES},
    "waiting": lambda n: {"size": st.integers(1, n), "wait": st.just(True)},
    "softsync": lambda n: {"splits": st.integers(1, n)},
    "bounded_staleness": lambda n: {"bound": st.integers(0, 4)},
    "rennala": lambda n: {"batch_size": SIZES, "stop": st.booleans()},
    "ringmaster": lambda n: {"max_staleness": st.integers(0, 2 * n), "stop": st.booleans()},
    "mindflayer": lambda n: {
        "time_limit": st.sampled_from([1.5, 2.0, 3.0])
        | st.lists(st.sampled_from([1.5, 2.0, 4.0]), min_size=n, max_size=n),
        "batch_size": st.none() | SIZES,
        "success_probability": st.sampled_from([0.5, 1.0]),
    },
    "token_control": lambda n: {"global_batch": SIZES, "tolerance": st.integers(0, 3)},
    "round_robin": lambda n: {},
}
NAMES = {
    "assigned": ("assigned", "asynchronous"),
    "cohorts": ("cohorts", "synchronous"),
    "waiting": ("buffered", "buffered"),
}


def assert_same_run(timeline, oracle):
    columns, lost, end_time = oracle
    for name, column in columns.items():
        if name == "token" and timeline.token is None:
            continue
        ours = getattr(timeline, f"{name}_time" if name in ("begin", "sent") else name)
        if name == "weight":  # of what is not accepted it has no meaning
            ours, column = ours * timeline.accepted, column * columns["accepted"]
        np.testing.assert_array_equal(ours, column, err_msg=name)
    assert timeline.num_arrivals == len(columns["worker"])
    assert (
        sorted(zip(*(getattr(timeline.lost, name) for name in cluster.LOST), strict=True)) == lost
    )
    assert timeline.end_time == end_time


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=150)
@given(data=st.data())
def test_every_protocol_is_the_obvious_loop(name, data):
    num_workers = data.draw(st.integers(1, 7), "num_workers")
    drawn = OPTIONS[name](num_workers)
    options = {option: data.draw(values, option) for option, values in drawn.items()}
    model = MODELS[data.draw(st.sampled_from(sorted(MODELS)), "model")](num_workers)
    seed = data.draw(st.integers(0, 9), "seed")
    loop, protocol = NAMES.get(name, (name, name))
    ends = st.builds(dict, num_commits=st.integers(1, 40))
    ends |= st.builds(dict, max_time=st.sampled_from([5.0, 12.0, 12.25]))
    end = data.draw(ends, "end")
    oracle = cluster.run(getattr(cluster, loop), model, num_workers, seed, **end, **options)
    protocol = getattr(protocols, protocol)(**options)
    if not oracle[0]:
        with pytest.raises(ValueError, match="nothing arrives before max_time"):
            simulate_timeline(protocol, model, num_workers, **end, seed=seed)
        return
    timeline = simulate_timeline(protocol, model, num_workers, **end, seed=seed)
    timeline.verify()
    assert_same_run(timeline, oracle)
