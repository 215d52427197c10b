"""Every protocol, and timelines of five workers, some of them slow."""

import async_optax as ao

PROTOCOLS = {
    "asynchronous": ao.protocols.asynchronous(),
    "buffered_wait": ao.protocols.buffered(3, wait=True),
    "buffered_no_wait": ao.protocols.buffered(3, wait=False),
    "synchronous": ao.protocols.synchronous(),
    "backup": ao.protocols.synchronous(backup=2),
    "uniform": ao.protocols.asynchronous("uniform", concurrency=8),
    "bounded_staleness": ao.protocols.bounded_staleness(2),
    "rennala": ao.protocols.rennala(3),
    "rennala_no_stop": ao.protocols.rennala(3, stop=False),
    "ringmaster": ao.protocols.ringmaster(2),
    "ringmaster_stop": ao.protocols.ringmaster(3, stop=True),
    "mindflayer": ao.protocols.mindflayer(2.0, batch_size=4),
    "token_control": ao.protocols.token_control(3, tolerance=1),
    "round_robin": ao.protocols.round_robin(),
    "switching": ao.protocols.switching(
        [
            (3.0, ao.protocols.synchronous()),
            (6.0, ao.protocols.token_control(5, tolerance=1)),
            (None, ao.protocols.synchronous()),
        ]
    ),
}


def make_timeline(protocol, num_commits=30, num_workers=5, seed=1):
    runtimes = ao.runtimes.two_speed(4.0, law=ao.runtimes.gamma(cv=0.5))
    return ao.simulate_timeline(protocol, runtimes, num_workers, num_commits=num_commits, seed=seed)
