"""What a protocol is: an immutable description, and the policy that decides by it."""

import abc
import typing
from collections.abc import Mapping, Sequence

from async_optax.validation import require_count


class Decision(typing.NamedTuple):
    """What the server does when something happens.

    Attributes:
      accept: whether the arrival's gradient is used; if not, ``weight`` is ignored.
      weight: its share in the commit it belongs to.
      commit: whether the server commits, which makes a new version.
      start: workers that are now given a job on the version current after the commit.
      abort: workers whose jobs, running and queued, are thrown away before ``start``.
      token: when the job was handed out, in versions of an ideal order; -1 without tokens.
      hold: put the arrival aside, undecided, until some decision releases it.
      release: workers whose arrivals, put aside, arrive now, one after another.
    """

    accept: bool = False
    weight: float = 0.0
    commit: bool = False
    start: Sequence[int] = ()
    abort: Sequence[int] = ()
    token: int = -1
    hold: bool = False
    release: Sequence[int] = ()


class Policy(abc.ABC):
    """Decides on what the server sees, in the order in which it sees it.

    It keeps whatever it needs to know of the past; nothing tells it the future, or the
    parameters. The same policy decides in the simulation and could for real workers.
    """

    queues = False
    """Whether a worker that is busy may be given further jobs, which it takes up in order."""
    holds = False
    """Whether decisions put arrivals aside."""
    issues_tokens = False
    """Whether decisions carry a token."""
    time_limits: Sequence[float] | None = None
    """Time after which each worker's job is thrown away, or ``None`` for no limit."""

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        """Takes over: at time 0, or after another protocol.

        Args:
          idle: workers that are there and wait.
          running: workers with a job in flight, and its staleness now.
          version: the server's.

        Returns:
          The workers to start; by default all that are idle.
        """
        del running, version
        return idle

    @abc.abstractmethod
    def on_arrival(self, worker: int, staleness: int, time: float) -> Decision:
        """Returns what to do when ``worker`` delivers a job of that staleness."""

    def on_timeout(self, worker: int, time: float) -> Decision:
        """Returns what to do when ``worker`` has thrown away a job beyond its time limit."""
        raise NotImplementedError(f"{type(self).__name__} sets time limits without handling them")

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        """Returns what to do when ``worker`` has left, and so many of its jobs are lost."""
        return Decision()

    def on_join(self, worker: int, time: float) -> Decision:
        """Returns what to do when ``worker`` has come, or come back; by default it starts."""
        return Decision(start=(worker,))


class Protocol(typing.Protocol):
    """An immutable description from which policies are made."""

    @property
    def name(self) -> str:
        """How the protocol was made, for tables and errors."""

    def policy(self, num_workers: int, seed: int = 0) -> Policy:
        """Returns a fresh policy.

        Args:
          num_workers: number of workers, >= 1.
          seed: of random decisions, for protocols that make any.

        Raises:
          ValueError: if the protocol cannot run with that many workers.
        """


class Crew:
    """The workers that are there, for policies that must know."""

    def __init__(self) -> None:
        self.present: dict[int, None] = {}  # an ordered set

    def begin(self, idle: Sequence[int], running: Mapping[int, int]) -> None:
        """Takes note of who is there at the start."""
        self.present = dict.fromkeys(sorted([*idle, *running]))

    def join(self, worker: int) -> None:
        """Takes note of a worker that came."""
        self.present[worker] = None

    def leave(self, worker: int) -> None:
        """Takes note of a worker that left."""
        self.present.pop(worker, None)

    def others(self, worker: int) -> list[int]:
        """Returns all that are there but ``worker``."""
        return [other for other in self.present if other != worker]


def require_workers(num_workers: int) -> None:
    """Raises unless ``num_workers`` is an integer >= 1."""
    require_count("num_workers", num_workers)
