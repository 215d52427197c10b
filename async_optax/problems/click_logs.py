"""Click logs: a generator with a power law of IDs and users whose interests drift."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from async_optax.engine import Problem
from async_optax.problems.auc import MAX_SIZE, auc
from async_optax.problems.deep_fm import deep_fm_logits, init_deep_fm
from async_optax.problems.widths import require_widths
from async_optax.validation import require_count, require_number, require_seed

_INTERESTS = 4  # dimension of users' interests and items' topics
_HOURS = 24
_BASE_LOGIT = -2.0


class Clicks(NamedTuple):
    """Impressions and whether they were clicked.

    Attributes:
      ids: for each field int32 ``[batch_size]``.
      day: float ``[batch_size]``, when.
      clicked: float ``[batch_size]``, 0 or 1.
    """

    ids: Mapping[str, jax.Array]
    day: jax.Array
    clicked: jax.Array


class Truth(NamedTuple):
    """What decides who sees what, and who clicks.

    Attributes:
      interests: float ``[2, num_users, 4]``, of each user at day 0 and a quarter turn later.
      topics: float ``[num_items, 4]``.
      quality: float ``[num_items]``, of the items.
      hours: float ``[24]``, effect of the hour.
      user_shares: float ``[num_users]``, of impressions, summed up.
      item_shares: float ``[num_items]``, likewise.
      drift: radians per day.
      num_days: length of the log.
    """

    interests: jax.Array
    topics: jax.Array
    quality: jax.Array
    hours: jax.Array
    user_shares: jax.Array
    item_shares: jax.Array
    drift: ArrayLike
    num_days: ArrayLike


def click_logs(
    num_users: int = 10_000,
    num_items: int = 2_000,
    batch_size: int = 128,
    *,
    exponent: float = 1.0,
    drift: float = 0.2,
    num_days: int = 8,
    test_size: int = 20_000,
    dimension: int = 8,
    hidden: Sequence[int] = (32,),
    seed: int = 0,
) -> Problem:
    """Predicts clicks from IDs: embeddings and a perceptron on an endless log of impressions.

    An impression has a user, an item and an hour. User and item of rank r = 1, 2, ... come in
    proportion to ``r ** -exponent``, hours equally often. It is clicked with the probability
    ``sigmoid(-2 + q_i + h_hour + <p_u(t), z_i>)``, where q_i and h are the item's quality
    and the hour's effect, z_i the item's topics, and
    ``p_u(t) = cos(drift * t) * a_u + sin(drift * t) * b_u`` the user's interests on day t: they
    turn, so that what was learnt of users goes out of date while the law of clicks stays the same.
    Impressions are drawn when a job needs them, so none comes twice.

    ``batch(key, worker, day=None)`` returns :class:`Clicks` of the moment ``day``; without it, of
    moments at random in the whole log, which is training on a shuffled log. The model is
    :func:`async_optax.problems.deep_fm_logits`, its tables are ``params["tables"]``; the loss is
    the mean cross-entropy. ``evaluate`` returns ``auc_day_d`` and ``loss_day_d`` for d = 0 to
    ``num_days``, on impressions of day d (from d to d + 1) that are only there to test: whoever
    has trained up to the beginning of day d looks at ``auc_day_d``.

    Args:
      num_users: >= 1.
      num_items: >= 1.
      batch_size: impressions per gradient, >= 1.
      exponent: of the power law, >= 0; 0 is all equally often.
      drift: radians by which interests turn in a day, >= 0.
      num_days: length of the log, >= 1.
      test_size: impressions of each test day, from 1 to 2**20, so that the AUC is exact.
      dimension: of the embeddings, >= 1.
      hidden: widths of the perceptron's hidden layers.
      seed: of the truth and the test sets, an integer in [0, 2**31).

    Returns:
      A problem without noise. Batches are drawn alike for all workers.

    Raises:
      TypeError: if a count or the seed is not an integer, or ``hidden`` not a sequence.
      ValueError: if a number is out of range.

    Example:
      >>> import jax
      >>> problem = click_logs(num_users=100, num_items=20, batch_size=4, num_days=1, test_size=50)
      >>> clicks = problem.batch(jax.random.key(0), 0, day=0.5)
      >>> sorted(clicks.ids), clicks.clicked.shape
      (['hour', 'item', 'user'], (4,))
      >>> sorted(jax.eval_shape(problem.evaluate, problem.init(jax.random.key(0))))
      ['auc_day_0', 'auc_day_1', 'loss_day_0', 'loss_day_1']
    """
    counts = {"num_users": num_users, "num_items": num_items, "batch_size": batch_size}
    counts |= {"num_days": num_days, "test_size": test_size, "dimension": dimension}
    for name, count in counts.items():
        require_count(name, count)
    if test_size > MAX_SIZE:
        raise ValueError(f"test_size must be at most {MAX_SIZE}, got {test_size}")
    require_widths(hidden)
    require_seed(seed)
    require_number("exponent", exponent, at_least=0)
    require_number("drift", drift, at_least=0)
    rng = np.random.Generator(np.random.PCG64(seed))
    truth = Truth(
        interests=_array(rng.normal(size=(2, num_users, _INTERESTS))),
        topics=_array(rng.normal(size=(num_items, _INTERESTS)) / np.sqrt(_INTERESTS)),
        quality=_array(rng.normal(size=num_items) / 2),
        hours=_array(np.sin(2 * np.pi * np.arange(_HOURS) / _HOURS) / 2),
        user_shares=_summed_shares(num_users, exponent),
        item_shares=_summed_shares(num_items, exponent),
        drift=float(drift),
        num_days=float(num_days),
    )
    tests = _test_days(test_size, truth, num_days, jax.random.key(seed))
    sizes = {"user": num_users, "item": num_items, "hour": _HOURS}
    return Problem(
        init=Partial(_init, tuple(sizes.items()), dimension, tuple(hidden)),
        loss=click_loss,
        batch=Partial(_draw, batch_size, truth),
        evaluate=Partial(evaluate_days, tests),
    )


def ideal_auc(problem: Problem) -> np.ndarray:
    """Returns what the true probabilities reach on the test days of :func:`click_logs`.

    Args:
      problem: made by :func:`click_logs`.

    Returns:
      float ``[num_days + 1]``, the AUC: no model can do better, but for chance.

    Example:
      >>> problem = click_logs(num_users=100, num_items=20, num_days=1, test_size=2000)
      >>> print(ideal_auc(problem).round(1))
      [0.7 0.7]
    """
    # Partials that hold the truth and the test sets.
    draw: Any = problem.batch
    evaluate: Any = problem.evaluate
    truth: Truth = draw.args[1]
    tests: Clicks = evaluate.args[0]
    return np.asarray(_true_aucs(truth, tests))


@jax.jit
def _true_aucs(truth: Truth, tests: Clicks) -> jax.Array:
    def of_day(clicks: Clicks) -> jax.Array:
        return auc(_true_logits(truth, clicks.ids, clicks.day), clicks.clicked)

    return jax.lax.map(of_day, tests)


def _array(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def _summed_shares(number: int, exponent: float) -> jax.Array:
    shares = np.arange(1.0, number + 1) ** -exponent
    summed = np.cumsum(shares) / shares.sum()
    summed[-1] = 1.0
    return _array(summed)


def _true_logits(truth: Truth, ids: Mapping[str, jax.Array], day: jax.Array) -> jax.Array:
    angle = (truth.drift * day)[:, jnp.newaxis]
    now, turned = truth.interests[:, ids["user"]]
    interests = jnp.cos(angle) * now + jnp.sin(angle) * turned
    affinity = jnp.sum(interests * truth.topics[ids["item"]], axis=1)
    return _BASE_LOGIT + truth.quality[ids["item"]] + truth.hours[ids["hour"]] + affinity


def _draw_ids(size: int, truth: Truth, key: jax.Array) -> dict[str, jax.Array]:
    def by_share(key: jax.Array, summed: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (size,), summed.dtype)
        return jnp.searchsorted(summed, draws, side="right").astype(jnp.int32)

    user_key, item_key, hour_key = jax.random.split(key, 3)
    return {
        "user": by_share(user_key, truth.user_shares),
        "item": by_share(item_key, truth.item_shares),
        "hour": jax.random.randint(hour_key, (size,), 0, _HOURS, jnp.int32),
    }


def _draw_at(size: int, truth: Truth, key: jax.Array, days: jax.Array) -> Clicks:
    id_key, click_key = jax.random.split(key)
    ids = _draw_ids(size, truth, id_key)
    probability = jax.nn.sigmoid(_true_logits(truth, ids, days))
    draws = jax.random.uniform(click_key, (size,), probability.dtype)
    return Clicks(ids, days, (draws < probability).astype(probability.dtype))


def _draw(
    size: int, truth: Truth, key: jax.Array, worker: ArrayLike, day: ArrayLike | None = None
) -> Clicks:
    del worker  # all see the same users
    draw_key, day_key = jax.random.split(key)
    dtype = truth.topics.dtype
    if day is None:
        days = jax.random.uniform(day_key, (size,), dtype) * truth.num_days
    else:
        days = jnp.broadcast_to(jnp.asarray(day, dtype), (size,))
    return _draw_at(size, truth, draw_key, days)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _test_days(size: int, truth: Truth, num_days: int, key: jax.Array) -> Clicks:
    """Impressions of each day, ``[num_days + 1, size]``."""

    def of_day(day: jax.Array, key: jax.Array) -> Clicks:
        draw_key, day_key = jax.random.split(key)
        days = day + jax.random.uniform(day_key, (size,), truth.topics.dtype)
        return _draw_at(size, truth, draw_key, days)

    days = jnp.arange(num_days + 1, dtype=truth.topics.dtype)
    return jax.vmap(of_day)(days, jax.random.split(key, num_days + 1))


def _init(
    sizes: tuple[tuple[str, int], ...], dimension: int, hidden: tuple[int, ...], key: jax.Array
) -> dict[str, Any]:
    return init_deep_fm(key, dict(sizes), dimension, hidden)


def _cross_entropy(logits: jax.Array, clicked: jax.Array) -> jax.Array:
    return jnp.mean(jax.nn.softplus(logits) - clicked * logits)


def click_loss(params: Any, clicks: Clicks, key: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of a batch under a :func:`deep_fm_logits` model."""
    del key
    return _cross_entropy(deep_fm_logits(params, clicks.ids), clicks.clicked)


def evaluate_days(tests: Clicks, params: Any) -> dict[str, jax.Array]:
    """Returns ``auc_day_d`` and ``loss_day_d`` for each test day d of ``tests``.

    Args:
      tests: impressions of each day, ``[num_test_days, size]``.
      params: of a :func:`deep_fm_logits` model.
    """

    def of_day(clicks: Clicks) -> tuple[jax.Array, jax.Array]:
        logits = deep_fm_logits(params, clicks.ids)
        return auc(logits, clicks.clicked), _cross_entropy(logits, clicks.clicked)

    aucs, losses = jax.lax.map(of_day, tests)
    metrics = {f"auc_day_{d}": aucs[d] for d in range(aucs.shape[0])}
    return metrics | {f"loss_day_{d}": losses[d] for d in range(losses.shape[0])}
