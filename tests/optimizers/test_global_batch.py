"""Global batches: the arithmetic of M, both kinds of staleness, switching, and equivalences."""

import itertools

import jax
import numpy as np
import optax
import pytest

import async_optax as ao
from tests.engine.problems import softmax_problem
from tests.oracles.replay import SoftmaxRegression

SYNCHRONOUS = ao.protocols.synchronous()


def simulated(protocol, runtimes, num_workers, **end):
    timeline = ao.simulate_timeline(protocol, runtimes, num_workers, seed=3, **end)
    timeline.verify()
    return timeline


@pytest.mark.parametrize(
    ("workers", "batch", "other_batch", "other_workers"),
    [(4, 8, 8, 4), (4, 8, 2, 16), (4, 8, 16, 7), (3, 10, 5, 50)],
)
def test_every_commit_holds_the_synchronous_batch(workers, batch, other_batch, other_workers):
    per_commit = workers * batch // other_batch
    law = ao.runtimes.two_speed(5.0, law=ao.runtimes.gamma(cv=0.3))
    together = simulated(SYNCHRONOUS, law, workers, num_commits=20)
    protocol = ao.protocols.token_control(per_commit, tolerance=1)
    apart = simulated(protocol, law, other_workers, num_commits=20)
    for timeline, size, number in ((together, batch, workers), (apart, other_batch, per_commit)):
        rows = np.diff(np.flatnonzero(timeline.commit), prepend=-1)
        # What is handed in, too late or not, is one global batch; each sample weighs the same.
        np.testing.assert_array_equal(rows * size, workers * batch)
        assert set(np.unique(timeline.weight[timeline.accepted])) <= {0.0, 1 / number}
    assert 1 / per_commit / other_batch == pytest.approx(1 / (workers * batch))


def test_data_and_version_staleness_are_different_measures():
    law = ao.runtimes.two_speed(6.0)
    timeline = simulated(ao.protocols.token_control(4, tolerance=2), law, 8, num_commits=40)
    assert timeline.staleness.min() >= 0
    assert timeline.data_staleness.min() < 0  # who is fast is ahead of the ideal order
    late = timeline.data_staleness > 2
    assert late.any()
    assert not timeline.weight[late].any()
    assert (timeline.weight[~late] == 1 / 4).all()
    assert (timeline.data_staleness != timeline.staleness).any()
    # Both grow for a slow worker.
    slow = timeline.worker >= 4
    for measure in (timeline.staleness, timeline.data_staleness):
        assert measure[slow].mean() > measure[~slow].mean() + 1


def test_equal_speeds_are_in_the_ideal_order():
    law = ao.runtimes.deterministic(1.0)
    timeline = simulated(ao.protocols.token_control(5, tolerance=0), law, 5, num_commits=30)
    assert not timeline.data_staleness.any()
    assert timeline.accepted.all()
    # Of a round all but the last start before the commit, one version behind.
    assert set(timeline.staleness) == {0, 1}


def trained(timeline, optimizer, record=("loss",)):
    with jax.enable_x64(True):
        return ao.simulate(
            softmax_problem(SoftmaxRegression()),
            optimizer,
            timeline,
            key=jax.random.key(5),
            lanes=1,
            record=record,
            evaluate_every=1,
        )


@pytest.mark.parametrize(
    ("per_row", "message"),
    [
        (
            {"tables": True},
            "per_row must be a pytree of booleans like the parameters dense, tables",
        ),
        (lambda path: False, "per_row marks none of the parameters dense, tables"),
        (lambda path: 1, "per_row must say True or False of each parameter, got 1"),
    ],
)
def test_bad_tables_are_named_as_they_were_given(per_row, message):
    tx = ao.optimizers.gba(0.1, per_row=per_row)
    with pytest.raises((ValueError, TypeError), match=message) as refused:
        tx.init({"tables": np.zeros((3, 2)), "dense": np.zeros(2)})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("per_row", [None, True], ids=["plain", "per row"])
@pytest.mark.parametrize("server", [optax.sgd, optax.adam])
def test_without_staleness_it_is_synchronous_training(server, per_row):
    """One worker that hands in the M jobs of a round one after another is never stale."""
    alone = simulated(
        ao.protocols.token_control(4, tolerance=0), ao.runtimes.exponential(), 1, num_commits=25
    )
    law = ao.runtimes.deterministic(1.0)
    together = simulated(SYNCHRONOUS, law, 4, num_commits=25)
    assert not alone.staleness.any()
    assert not alone.data_staleness.any()
    ours = trained(alone, ao.optimizers.gba(0.1, 2, server, per_row))
    gathered = ao.transforms.accumulate_until_commit(server(0.1))
    if per_row:
        gathered = ao.transforms.average_touched_rows(server(0.1), True)
    theirs = trained(together, gathered)
    np.testing.assert_allclose(ours.params, theirs.params, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        ours.evaluations["norm"], theirs.evaluations["norm"], rtol=0, atol=1e-13
    )
    assert np.ptp(theirs.evaluations["norm"]) > 0.05


def test_one_run_goes_from_synchronous_to_tokens_and_back():
    """One call, one optimizer and one learning rate; each stage is what its protocol says."""
    num_workers = 4
    tokens = ao.protocols.token_control(num_workers, tolerance=2)
    protocol = ao.protocols.switching([(20.0, SYNCHRONOUS), (40.0, tokens), (None, SYNCHRONOUS)])
    law = ao.runtimes.two_speed(3.0, law=ao.runtimes.gamma(cv=0.2))
    timeline = simulated(protocol, law, num_workers, max_time=60.0)
    optimizer = ao.optimizers.gba(0.3, None)
    result = trained(timeline, optimizer)
    assert result.diverged is None
    assert result.arrivals["loss"][-20:].mean() < result.arrivals["loss"][:20].mean()

    commits = timeline.commit_times
    first, second = commits[commits >= 20.0][0], commits[commits >= 40.0][0]
    middle = (timeline.time > first) & (timeline.time <= second)
    assert not timeline.staleness[timeline.accepted & (timeline.time <= first)].any()
    assert timeline.staleness[timeline.accepted & middle].max() >= 1
    # What was in flight at the way back arrives late, and is not let in.
    assert not timeline.staleness[timeline.accepted & (timeline.time > second)].any()
    # Faster in between, on as many gradients per commit.
    stages = [commits[commits <= first], commits[(commits > first) & (commits <= second)]]
    assert len(stages[1]) > 1.5 * len(stages[0])
    # Up to the switch it is synchronous training, to the bit.
    alone = trained(simulated(SYNCHRONOUS, law, num_workers, max_time=60.0), optimizer)
    before = int(np.sum(result.evaluations["time"] <= first))
    np.testing.assert_array_equal(
        result.evaluations["norm"][:before], alone.evaluations["norm"][:before]
    )
    after = result.evaluations["norm"][before : before + 5]
    assert np.abs(after - alone.evaluations["norm"][before : before + 5]).max() > 1e-6


def test_a_tolerance_of_the_protocol_or_of_the_method():
    law = ao.runtimes.two_speed(3.0, law=ao.runtimes.gamma(cv=0.5))
    by_tokens = simulated(ao.protocols.token_control(4, tolerance=1), law, 4, num_commits=30)
    without = simulated(ao.protocols.buffered(4), law, 4, num_commits=30)
    assert by_tokens.weight.sum() < without.weight.sum()
    runs = {
        "protocol": trained(by_tokens, ao.optimizers.gba(0.3, None)),
        "method": trained(without, ao.optimizers.gba(0.3, 1)),
        "neither": trained(without, ao.optimizers.gba(0.3, None)),
    }
    ends = {name: np.asarray(run.params) for name, run in runs.items()}
    for one, other in itertools.combinations(ends, 2):
        assert np.abs(ends[one] - ends[other]).max() > 1e-3, (one, other)


def test_bad_input():
    with pytest.raises(ValueError, match="lazy=True is about tables"):
        ao.optimizers.gba(0.1, lazy=True)
    with pytest.raises(TypeError, match="server must be a function"):
        ao.optimizers.gba(0.1, server=optax.sgd(0.1))
    with pytest.raises(ValueError, match="max_staleness must be a finite number >= 0, got -1"):
        ao.optimizers.gba(0.1, max_staleness=-1)


def test_numbers_are_leaves():
    first, second = (ao.optimizers.gba(lr, 3, optax.adam, {"a": True}, True) for lr in (0.1, 0.2))
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert 0.1 in jax.tree.leaves(first)
