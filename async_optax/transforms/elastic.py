"""Elastic averaging: workers with parameters of their own, and a centre that attracts them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from async_optax.transforms.precision import working_dtype
from async_optax.transforms.schedules import value_at
from async_optax.transforms.sweepable import sweepable
from async_optax.validation import require_choice, require_learning_rate, require_number

ORDERS = ("exchange_first", "step_first")


class ElasticCopy(NamedTuple):
    """What a worker computes on: its own parameters, and the numbers of its local steps.

    Attributes:
      params: x_i, like params.
      velocity: v_i, like params; ``None`` without momentum.
      pull: what the worker still has to take off x_i after its first step, like params; ``None``
        if the exchange is over when it starts.
      learning_rate: eta, float scalar.
      momentum: float scalar; ``None`` without.
    """

    params: optax.Params
    velocity: optax.Params | None
    pull: optax.Params | None
    learning_rate: jax.Array
    momentum: jax.Array | None


class ElasticAverageState(NamedTuple):
    """State of :func:`elastic_average`.

    Attributes:
      step: int32 scalar, exchanges so far.
      outgoing: what goes back to the worker that has just arrived; the copies of all others are
        with them.
    """

    step: jax.Array
    outgoing: ElasticCopy

    @property
    def serves_own_worker(self) -> bool:
        """Each job must read what its own worker's last arrival made."""
        return True

    @property
    def worker_program(self) -> str:
        """What computes on a copy."""
        return "ao.gossip.elastic_steps(num_steps)"

    @property
    def takes_copies(self) -> bool:
        """What arrives is a worker's parameters: nothing may treat it like a gradient before."""
        return True

    def served_params(self, params: optax.Params) -> ElasticCopy:
        """Returns the copy of the worker that arrived last; the centre is not needed."""
        del params
        return self.outgoing


@sweepable
def elastic_average(
    learning_rate: optax.ScalarOrSchedule,
    moving_rate: ArrayLike,
    momentum: ArrayLike | None = None,
    order: str = "exchange_first",
) -> optax.GradientTransformationExtraArgs:
    """Moves a worker and the centre towards each other whenever the worker arrives.

    The parameters are the centre c. Worker i arrives with its own x_i, after local steps from the
    x_i that it was served, and with a = ``moving_rate``

    ``e <- a * (x_i - c)``, ``c <- c + e``, ``x_i <- x_i - e``.

    Then x_i goes back to worker i, whose next job starts there, with its velocity v_i as it was.
    The local steps are those of :func:`async_optax.gossip.elastic_steps`; their numbers travel
    with the copy.

    Args:
      learning_rate: eta of the local steps: a number > 0, or a schedule of the exchanges so far,
        of all workers.
      moving_rate: a, in [0, 1); 0 leaves all alone. The paper writes ``a = eta * rho`` and
        recommends ``a = beta / p`` with beta = 0.9 and p workers.
      momentum: of the local steps, in [0, 1), kept by each worker from job to job; ``None``:
        without, and without its copy.
      order: ``"exchange_first"``: the exchange is over before the next local step.
        ``"step_first"``: the first local step after it is taken at x_i as it was, and e is taken
        off afterwards, as where messages overlap with computing; one copy more.

    Returns:
      A transformation for ``worker=gossip.elastic_steps(...)``: it takes an :class:`ElasticCopy`,
      serves one, and returns e. It stands first in a chain, as no gradient arrives that could be
      clipped before; ``elastic_steps`` transforms local gradients. A narrower ``slot_dtype`` of the
      run rounds the copy, but not eta and momentum. Run it under a protocol in which each
      worker goes on at once from its own arrival, ``protocols.asynchronous()``, or
      ``protocols.round_robin()``.

    Raises:
      ValueError: if a number is out of range; in ``update``, if ``params`` is ``None``, what
        arrives is no :class:`ElasticCopy`, or the protocol gathers arrivals.

    Example:
      >>> import jax.numpy as jnp
      >>> from async_optax.transforms import served_params
      >>> tx, centre = elastic_average(0.1, moving_rate=0.25), jnp.array([0.0])
      >>> state = tx.init(centre)
      >>> arrived = served_params(centre, state)._replace(params=jnp.array([4.0]))
      >>> updates, state = tx.update(arrived, state, centre)
      >>> print(updates, served_params(centre + updates, state).params)
      [1.] [3.]

    References:
      Zhang, Choromanska, LeCun, `Deep learning with Elastic Averaging SGD
      <https://arxiv.org/abs/1412.6651>`_, 2015. Certainty: author code for
      ``order="step_first"``: there a worker computes e every tau steps, sends it, takes a local
      step where it stands and subtracts e. A worker's count of steps includes step 0, so theirs
      also exchanges once at the start, where e = 0. ``"exchange_first"`` is the same with the
      last two exchanged: our default, since the simulator exchanges at arrivals.
    """
    require_learning_rate(learning_rate)
    require_number("moving_rate", moving_rate, at_least=0, below=1)
    if momentum is not None:
        require_number("momentum", momentum, at_least=0, below=1)
    require_choice("order", order, ORDERS)

    def rate_at(step: jax.Array) -> jax.Array:
        return jnp.asarray(value_at(learning_rate, step), float)

    def init_fn(params: optax.Params) -> ElasticAverageState:
        step, zeros = jnp.zeros([], jnp.int32), jax.tree.map(jnp.zeros_like, params)
        copy = ElasticCopy(
            params=params,
            velocity=None if momentum is None else zeros,
            pull=zeros if order == "step_first" else None,
            learning_rate=rate_at(step),
            momentum=None if momentum is None else jnp.asarray(momentum, float),
        )
        return ElasticAverageState(step, copy)

    def update_fn(
        updates: ElasticCopy,
        state: ElasticAverageState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ElasticAverageState]:
        if params is None:
            raise ValueError("elastic_average needs params, got None")
        if "commit" in extra_args or "weight" in extra_args:
            raise ValueError(
                "elastic_average moves the centre at every arrival: it needs a protocol in which "
                "every arrival commits, protocols.asynchronous()"
            )
        if not isinstance(updates, ElasticCopy):
            raise ValueError(
                "elastic_average takes a worker's parameters, not a gradient: use "
                f"worker=gossip.elastic_steps(...); got {type(updates).__name__}"
            )
        force = jax.tree.map(_force, updates.params, params)
        step = optax.safe_increment(state.step)
        outgoing = updates._replace(learning_rate=rate_at(step), momentum=state.outgoing.momentum)
        if order == "step_first":
            outgoing = outgoing._replace(pull=force)
        else:
            outgoing = outgoing._replace(params=jax.tree.map(jnp.subtract, updates.params, force))
        return force, ElasticAverageState(step, outgoing)

    def _force(x: jax.Array, c: jax.Array) -> jax.Array:
        dtype = working_dtype(x, c)
        pulled = jnp.asarray(moving_rate, dtype) * (x.astype(dtype) - c.astype(dtype))
        return pulled.astype(c.dtype)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
