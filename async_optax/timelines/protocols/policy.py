"""What a protocol is: an immutable description, and the policy that decides by it."""

import abc
import typing
from collections.abc import Mapping, Sequence


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


class CrewPolicy(Policy):
    """A policy that knows which workers are there, and starts them when they come."""

    def __init__(self) -> None:
        self._present: dict[int, None] = {}  # an ordered set

    def begin(self, idle: Sequence[int], running: Mapping[int, int], version: int) -> Sequence[int]:
        """Takes note of who is there; starts all that are idle."""
        del version
        self._present = dict.fromkeys(sorted([*idle, *running]))
        return idle

    def on_leave(self, worker: int, num_lost: int, time: float) -> Decision:
        """Takes note of a worker that left."""
        self._present.pop(worker, None)
        return Decision()

    def on_join(self, worker: int, time: float) -> Decision:
        """Takes note of a worker that came, and starts it."""
        self._present[worker] = None
        return Decision(start=(worker,))

    def _restart_all_but(self, *free: int) -> tuple[list[int], list[int]]:
        """Returns everyone, in order, to start; and those but ``free``, who must stop first."""
        return list(self._present), [worker for worker in self._present if worker not in free]
