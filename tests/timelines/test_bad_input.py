"""Bad protocols and models: each is refused, by name, before or when it is used."""

import numpy as np
import pytest

from async_optax import protocols, runtimes
from async_optax.timelines import simulate_timeline

INF, NAN = float("inf"), float("nan")
SYNC, ASYNC = protocols.synchronous(), protocols.asynchronous()
LAW = runtimes.gamma()


BAD_VALUES = {
    "synchronous(backup=-1)": "backup must be an integer >= 0, got -1",
    "synchronous(cohort=0)": "cohort must be an integer >= 1, got 0",
    "asynchronous('random')": "assignment must be one of immediate, uniform, shuffled",
    "asynchronous('uniform', 0)": "concurrency must be an integer >= 1, got 0",
    "asynchronous(concurrency=3)": "concurrency=3 needs assignment='uniform' or 'shuffled'",
    "buffered(0)": "size must be an integer >= 1, got 0",
    "softsync(0)": "splits must be an integer >= 1, got 0",
    "bounded_staleness(-1)": "bound must be an integer >= 0, got -1",
    "rennala(0)": "batch_size must be an integer >= 1, got 0",
    "ringmaster(-1)": "max_staleness must be an integer >= 0, got -1",
    "mindflayer(0.0)": "time_limit must be a finite number > 0, got 0.0",
    "mindflayer(INF)": "time_limit must be a finite number > 0, got inf",
    "mindflayer([1.0, NAN])": "time_limit must be a finite number > 0",
    "mindflayer([])": r"time_limit must be a number or one per worker, got shape \(0,\)",
    "mindflayer([[1.0]])": r"time_limit must be a number or one per worker, got shape \(1, 1\)",
    "mindflayer(1.0, batch_size=0)": "batch_size must be an integer >= 1, got 0",
    "mindflayer(1.0, success_probability=0.0)": "success_probability must be a finite number > 0",
    "mindflayer(1.0, success_probability=1.5)": "success_probability must be a finite number > 0",
    "token_control(0)": "global_batch must be an integer >= 1, got 0",
    "token_control(4, tolerance=-1)": "tolerance must be an integer >= 0, got -1",
    "switching([])": "stages is empty",
    "switching([(1.0, SYNC)])": "the last of stages, and no other, has until=None",
    "switching([(None, SYNC), (None, ASYNC)])": "the last of stages, and no other, has until=None",
    "switching([(0.0, SYNC), (None, ASYNC)])": "until must be a finite number > 0, got 0.0",
    "switching([(NAN, SYNC), (None, ASYNC)])": "until must be a finite number > 0, got nan",
    "switching([(2.0, SYNC), (2.0, ASYNC), (None, SYNC)])": r"until must be .* > 2.0, got 2.0",
    "switching([(2.0, SYNC), (1.0, ASYNC), (None, SYNC)])": r"until must be .* > 2.0, got 1.0",
}
BAD_TYPES = {
    "synchronous(1.0)": "backup must be an integer",
    "asynchronous('shuffled', 2.5)": "concurrency must be an integer",
    "buffered(2, wait=1)": "wait must be True or False, got 1",
    "softsync(None)": "splits must be an integer",
    "bounded_staleness(1.5)": "bound must be an integer",
    "rennala(2.0)": "batch_size must be an integer",
    "rennala(2, stop='yes')": "stop must be True or False, got 'yes'",
    "ringmaster(True)": "max_staleness must be an integer",
    "ringmaster(1, stop=None)": "stop must be True or False, got None",
    "mindflayer('soon')": "time_limit must be a finite number > 0",
    "mindflayer(1.0, batch_size=2.0)": "batch_size must be an integer",
    "mindflayer(1.0, success_probability='half')": "success_probability must be a finite number",
    "token_control(2.0)": "global_batch must be an integer",
    "token_control(2, 1.0)": "tolerance must be an integer",
    "switching(None)": r"stages must be \(until, protocol\) pairs, got None",
    "switching([SYNC, ASYNC])": r"stages must be \(until, protocol\) pairs, got Synchronous",
    "switching([(1.0, SYNC, 2), (None, ASYNC)])": r"stages must be \(until, protocol\) pairs",
    "switching([(None, protocols.synchronous)])": r"stages must be \(until, protocol\) pairs",
    "switching([('1', SYNC), (None, ASYNC)])": "until must be a finite number > 0, got '1'",
}


@pytest.mark.parametrize("call", BAD_VALUES)
def test_bad_values_of_protocols_raise(call):
    with pytest.raises(ValueError, match=BAD_VALUES[call]):
        eval("protocols." + call)


@pytest.mark.parametrize("call", BAD_TYPES)
def test_bad_types_of_protocols_raise(call):
    with pytest.raises(TypeError, match=BAD_TYPES[call]):
        eval("protocols." + call)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (protocols.synchronous(backup=3), r"waits for nobody of 3 workers: backup must be < 3"),
        (protocols.synchronous(backup=9), r"waits for nobody of 3 workers"),
        (protocols.synchronous(cohort=4), "draws more workers than the 3 there are"),
        (protocols.synchronous(backup=2, cohort=2), "waits for nobody of 2 workers"),
        (protocols.buffered(4, wait=True), "waits for more workers than the 3 there are"),
        (protocols.softsync(4), r"softsync\(4\) needs >= 4 workers, got 3"),
        (protocols.mindflayer([1.0, 2.0]), "time_limit has 2 entries for 3 workers"),
        (
            protocols.switching([(1.0, ASYNC), (None, protocols.synchronous(backup=3))]),
            "waits for nobody of 3 workers",
        ),
        (
            protocols.switching([(1.0, ASYNC), (None, protocols.mindflayer(2.0))]),
            r"mindflayer\(2\) sets time limits, and cannot be switched",
        ),
    ],
    ids=str,
)
def test_protocols_that_cannot_work_with_so_many_workers_raise(protocol, message):
    with pytest.raises(ValueError, match=message):
        protocol.policy(3)
    with pytest.raises(ValueError, match=message):
        simulate_timeline(protocol, LAW, 3, num_commits=5)
    with pytest.raises(ValueError, match="num_workers must be an integer >= 1, got 0"):
        protocol.policy(0)


BAD_MODELS = {
    "runtimes.uniform(0.0, 1.0)": "low must be a finite number > 0, got 0.0",
    "runtimes.uniform(2.0, 2.0)": "high must be a finite number > 2.0, got 2.0",
    "runtimes.lognormal(0.0)": "mean must be a finite number > 0, got 0.0",
    "runtimes.lognormal(sigma=0.0)": "sigma must be a finite number > 0, got 0.0",
    "runtimes.half_normal(minimum=0.0)": "minimum must be a finite number > 0, got 0.0",
    "runtimes.half_normal(sigma=-1.0)": "sigma must be a finite number > 0, got -1.0",
    "runtimes.pareto(1.5, minimum=0.0)": "minimum must be a finite number > 0, got 0.0",
    "runtimes.gamma(machine_cv=0.0001)": "machine_cv must be a finite number >= 0.001",
    "runtimes.two_speed(2.0, fast_time=0.0)": "fast_time must be a finite number > 0, got 0.0",
    "runtimes.power_law(-0.5)": "exponent must be a finite number >= 0, got -0.5",
    "runtimes.power_law(1.0, fast_time=INF)": "fast_time must be a finite number > 0, got inf",
    "LAW.with_machines(SLOW)": "law must be a plain law of times, without transfers",
    "LAW.with_transfers(download=SLOW)": "download must be a plain law of times",
    "LAW.with_transfers(upload=SLOW)": "upload must be a plain law of times",
    "LAW.with_server(SLOW)": "law must be a plain law of times",
    "LAW.with_failures(SLOW)": "up must be a plain law of times",
    "LAW.with_failures(LAW, SLOW)": "down must be a plain law of times",
    "runtimes.two_speed(2.0, law=SLOW)": "law must be a plain law of times",
    "runtimes.power_law(2.0, law=SLOW)": "law must be a plain law of times",
    "LAW.with_speeds([], [])": "times must start at 0 and increase",
    "LAW.with_speeds([1.0], [1.0])": "times must start at 0 and increase",
    "LAW.with_speeds([0.0, 2.0, 2.0], [1, 1, 1])": "times must start at 0 and increase",
    "LAW.with_speeds([0.0, -1.0], [1, 1])": "times must be a finite number >= 0",
    "LAW.with_speeds([[0.0]], [1.0])": "times must start at 0 and increase",
    "LAW.with_speeds([0.0], [0.0])": "speeds must be a finite number > 0",
    "LAW.with_speeds([0.0, 1.0], [1.0])": r"speeds must be 2 numbers, .* got shape \(1,\)",
    "LAW.with_speeds([0.0], [[[1.0]]])": r"speeds must be 1 numbers, .* got shape \(1, 1, 1\)",
    "LAW.with_speeds([0.0, 1.0], [1.0, 2.0], 1.0)": "period must be a finite number > 1.0, got 1.0",
    "LAW.with_speeds([0.0], [1.0], INF)": "period must be a finite number > 0.0, got inf",
    "LAW.with_availability({0: []})": r"intervals of worker 0 must be \(join, leave\) pairs",
    "LAW.with_availability({0: [1.0]})": r"intervals of worker 0 must be \(join, leave\) pairs",
    "LAW.with_availability({2: [(3.0, 1.0)]})": "intervals of worker 2 must be disjoint",
    "LAW.with_availability({2: [(1.0, 1.0)]})": "intervals of worker 2 must be disjoint",
    "LAW.with_availability({0: [(-1.0, 1.0)]})": "intervals of worker 0 must be disjoint",
    "LAW.with_availability({0: [(0.0, 2.0), (1.0, 3.0)]})": "worker 0 must be disjoint",
    "LAW.with_availability({0: [(0.0, INF), (INF, INF)]})": "worker 0 must be disjoint",
    "LAW.with_availability({0: [(NAN, 2.0)]})": "intervals of worker 0 must be disjoint",
}
SLOW = LAW.with_server(runtimes.exponential())


@pytest.mark.parametrize("call", BAD_MODELS)
def test_bad_models_raise(call):
    with pytest.raises(ValueError, match=BAD_MODELS[call]):
        eval(call)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("LAW.with_machines(2.0)", "law must be a runtime model such as exponential"),
        ("LAW.with_server(0.1)", "law must be a runtime model"),
        ("LAW.with_transfers(upload=0.1)", "upload must be a runtime model"),
        ("LAW.with_transfers(download=runtimes.gamma)", "download must be a runtime model"),
        ("LAW.with_failures(10.0)", "up must be a runtime model"),
        ("LAW.with_failures(LAW, 3)", "down must be a runtime model"),
        ("LAW.with_availability([(0.0, 1.0)])", "intervals must map workers to"),
        ("runtimes.power_law(1.0, law=2.0)", "law must be a runtime model"),
        ("runtimes.uniform('a', 2.0)", "low must be a finite number"),
    ],
)
def test_bad_types_of_models_raise(call, message):
    with pytest.raises(TypeError, match=message):
        eval(call)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LAW.with_speeds([0.0], [[1.0], [1.0]]), "speeds has 2 rows for 3 workers"),
        (LAW.with_availability({3: [(0.0, 1.0)]}), "intervals are given for worker 3 of 3"),
        (LAW.with_availability({-1: [(0.0, 1.0)]}), "intervals are given for worker -1 of 3"),
        (LAW.with_availability({"a": [(0.0, 1.0)]}), "intervals are given for worker a of 3"),
        (LAW.with_machines(runtimes.deterministic([1.0, 2.0])), "times has 2 entries for 3"),
        (LAW.with_transfers(upload=runtimes.deterministic([1.0])), "times has 1 entries for 3"),
        (LAW.with_server(runtimes.deterministic([1.0, 1.0])), "times has 2 entries for 1"),
        (LAW.with_failures(runtimes.deterministic([1.0, 1.0])), "times has 2 entries for 3"),
    ],
    ids=[
        "speeds",
        "worker 3",
        "worker -1",
        "worker a",
        "machines",
        "upload",
        "server",
        "failures",
    ],
)
def test_models_that_do_not_fit_the_workers_raise(model, message):
    for protocol in (ASYNC, SYNC):
        with pytest.raises(ValueError, match=message):
            simulate_timeline(protocol, model, 3, num_commits=5)


def test_numpy_numbers_are_numbers():
    protocol = protocols.mindflayer(np.float32(2.0), np.int64(3))
    model = LAW.with_speeds(np.array([0, 1]), np.array([1, 2])).with_availability(
        {np.int64(1): np.array([[0, 5]])}
    )
    timeline = simulate_timeline(protocol, model, np.int64(3), num_commits=np.int32(20))
    timeline.verify()
    assert timeline.absent_time()[1] > 0


@pytest.mark.parametrize(
    ("add", "what"),
    [
        (lambda model: model.with_transfers(upload=LAW), "transfers"),
        (lambda model: model.with_server(LAW), "a server"),
        (lambda model: model.with_speeds([0.0], [1.0]), "speeds"),
        (lambda model: model.with_failures(LAW), "failures or availability"),
        (lambda model: model.with_availability({0: [(0.0, 1.0)]}), "failures or availability"),
    ],
)
def test_nothing_is_added_twice(add, what):
    with pytest.raises(ValueError, match=f"has {what} already, and only one such part"):
        add(add(LAW))
    with pytest.raises(ValueError, match="failures or availability already"):
        LAW.with_failures(LAW).with_availability({0: [(0.0, 1.0)]})
