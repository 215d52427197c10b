"""Protocols: who starts when, what is waited for, and when the server commits.

A protocol is an immutable description; ``policy(num_workers)`` makes the object that decides,
arrival by arrival, what the server does. The same decisions drive the simulated timeline and
can drive real workers.
"""

from async_optax.timelines.protocols.asynchronous import asynchronous
from async_optax.timelines.protocols.bounded_staleness import bounded_staleness
from async_optax.timelines.protocols.buffered import buffered
from async_optax.timelines.protocols.mindflayer import mindflayer
from async_optax.timelines.protocols.policy import Decision, Policy, Protocol
from async_optax.timelines.protocols.rennala import rennala
from async_optax.timelines.protocols.ringmaster import ringmaster
from async_optax.timelines.protocols.round_robin import round_robin
from async_optax.timelines.protocols.switching import switching
from async_optax.timelines.protocols.synchronous import synchronous
from async_optax.timelines.protocols.uncoupled import softsync, token_control

__all__ = [
    "Decision",
    "Policy",
    "Protocol",
    "asynchronous",
    "bounded_staleness",
    "buffered",
    "mindflayer",
    "rennala",
    "ringmaster",
    "round_robin",
    "softsync",
    "switching",
    "synchronous",
    "token_control",
]
