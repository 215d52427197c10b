"""Timelines on which each worker goes on from what its own arrival made, and others."""

import dataclasses

import pytest

import async_optax as ao
from async_optax.timelines import require_own_versions

GAMMA = ao.runtimes.gamma(cv=0.5)
SERVER = ao.runtimes.deterministic(0.1)


def timeline(protocol, runtimes=GAMMA, num_workers=4, num_commits=60):
    return ao.simulate_timeline(protocol, runtimes, num_workers, num_commits=num_commits, seed=1)


OWN = {
    "asynchronous": (ao.protocols.asynchronous(), GAMMA),
    "equal speeds": (ao.protocols.asynchronous(), ao.runtimes.deterministic()),
    "transfers": (
        ao.protocols.asynchronous(),
        GAMMA.with_transfers(download=GAMMA, upload=GAMMA).with_server(
            ao.runtimes.deterministic(0.1)
        ),
    ),
    "round robin": (ao.protocols.round_robin(), GAMMA),
}


@pytest.mark.parametrize("case", OWN)
def test_workers_that_go_on_at_once(case):
    rows = timeline(*OWN[case])
    require_own_versions(rows)
    require_own_versions(rows, num_workers=4)
    assert rows.staleness.max() > 0  # others commit in between


def test_each_row_is_looked_at():
    rows = timeline(ao.protocols.asynchronous())
    for row in range(rows.num_arrivals):
        read_version = rows.read_version.copy()
        read_version[row] += 1
        with pytest.raises(ValueError, match=f"timeline row {row}: worker {rows.worker[row]} "):
            require_own_versions(dataclasses.replace(rows, read_version=read_version))


def test_a_later_first_job_is_refused():
    """Version 0 is the same for all; any other belongs to the worker that made it."""
    rows = ao.Timeline.from_trace([("a", 0.0, 1.0), ("b", 1.0, 2.0)])
    with pytest.raises(ValueError, match="row 1: worker 1 reads version 1, .* is version 0"):
        require_own_versions(rows)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (ao.protocols.asynchronous("uniform"), "row .*: worker .* its last arrival made"),
        (ao.protocols.buffered(2), "row 0 does not commit by itself"),
        (ao.protocols.synchronous(), "row 0 does not commit by itself"),
        (ao.protocols.ringmaster(1, stop=False), "does not commit by itself"),
    ],
)
def test_other_protocols_are_refused(protocol, message):
    with pytest.raises(ValueError, match=message) as refused:
        require_own_versions(timeline(protocol))
    assert "\n" not in str(refused.value)


def test_every_agent_needs_a_worker():
    with pytest.raises(ValueError, match="one worker per agent, 5, got 4"):
        require_own_versions(timeline(ao.protocols.asynchronous()), num_workers=5)
