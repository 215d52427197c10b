"""Every method inside Optax's wrappers: what works, what raises, and what nobody can refuse.

``WRAPPERS`` is the table that ``async_optax/transforms/README.md`` shows.
"""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from async_optax import transforms
from tests.conformance.cases import METHODS, extra_args, make
from tests.conformance.test_optax_suite import STATIC


class Outcome(NamedTuple):
    """What becomes of a method in a wrapper; without ``commit`` all of them work.

    Attributes:
      gathers: whether it also works with ``commit`` and ``weight``.
      option: what some methods need.
      needed_by: the methods that raise without the option, by what they take.
      error: what they raise.
      message: a pattern of what the error says.
    """

    gathers: str
    option: str = "-"
    needed_by: str = "-"
    error: type[Exception] | None = None
    message: str = ""


MASKING = Outcome(
    gathers="yes",
    option="mask_compatible_extra_args=True",
    needed_by="stale_params",
    error=ValueError,
    message="pytree structure error",
)
WRAPPERS = {
    "named_chain": Outcome(gathers="yes"),
    "inject_hyperparams": Outcome(
        gathers="yes",
        option="static_args",
        needed_by="counts and functions",
        error=TypeError,
        message="must be an integer|must be a function|must map",
    ),
    "masked": MASKING,
    "partition": MASKING,
    "apply_if_finite": Outcome(gathers="while all arrivals are finite"),
    "MultiSteps": Outcome(gathers="no"),
}
# Hyperparameters in a state are float32: ``1 - 0.999`` has lost digits there.
RTOL = dict.fromkeys(WRAPPERS, 1e-6) | {"inject_hyperparams": 2e-5}
ALL_METHODS = ao.optimizers.names()


PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.array([0.5, 0.0])}
STALE = jax.tree.map(lambda x: 0.9 * x + 0.01, PARAMS)
# (staleness, worker, commit, weight): a commit of two arrivals, then one of a single arrival.
ARRIVALS = ((3, 0, False, 0.25), (0, 1, True, 0.75), (2, 0, True, 1.0))


@pytest.fixture(autouse=True)
def uncompiled():
    """Branches run as Python: to compile every ``lax.cond`` would be most of the time here."""
    with jax.disable_jit():
        yield


def gradient(seed, params=PARAMS):
    rng = np.random.default_rng(seed)
    drawn = {name: jnp.asarray(rng.normal(size=x.shape), x.dtype) for name, x in PARAMS.items()}
    return {name: drawn[name] for name in params}


def extras(i, params=PARAMS, gathered=False):
    """What the i-th arrival passes to ``update`` beside gradient and state."""
    staleness, worker, commit, weight = ARRIVALS[i]
    extra = extra_args(params, staleness, {name: STALE[name] for name in params})
    extra["worker"] = jnp.int32(worker)
    return extra | ({"commit": jnp.bool_(commit), "weight": weight} if gathered else {})


def run(tx, gathered, leaves=("w", "b"), change=lambda g: g):
    """Updates of all arrivals, and what workers are served after each."""
    params, seen = {name: PARAMS[name] for name in leaves}, []
    state = tx.init(params)
    for i in range(len(ARRIVALS)):
        g = change(gradient(i, params))
        updates, state = tx.update(g, state, params, **extras(i, params, gathered))
        params = optax.apply_updates(params, updates)
        seen.append((updates, transforms.served_params(params, state)))
    return seen


@functools.cache
def run_alone(name, gathered, *leaves):
    """The reference: the bare method on a part of the parameters, nothing wrapped."""
    return run(make(name), gathered, leaves or ("w", "b"))


def assert_close(ours, theirs, rtol=1e-6):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol=1e-7), ours, theirs)


def all_zero(tree):
    return all((leaf == 0).all() for leaf in jax.tree.leaves(tree))


def static_arguments(name):
    """Arguments that are no hyperparameters: counts that decide shapes, weights, schedules."""
    signature = inspect.signature(ao.optimizers.get(name))
    bound = signature.bind(0.1, **METHODS[name][0])
    bound.apply_defaults()
    counts = STATIC.get(name, {})
    return tuple(k for k, value in bound.arguments.items() if k in counts or callable(value))


@functools.cache
def required(name):
    """The extra arguments without which the bare method raises."""
    found = []
    for missing in ("staleness", "stale_params", "worker"):
        given = {k: v for k, v in extras(0).items() if k != missing}
        try:
            make(name).update(gradient(0), make(name).init(PARAMS), PARAMS, **given)
        except TypeError as error:
            found += [missing] if missing in str(error) else []
    return found


def wrap(wrapper, name, option=True):
    """A method in a wrapper, with or without what ``Outcome.option`` says."""
    tx = make(name)
    match wrapper:
        case "named_chain":
            return optax.named_chain(("clip", optax.clip(0.5)), ("method", tx))
        case "inject_hyperparams":
            static = static_arguments(name) if option else ()
            factory = optax.inject_hyperparams(ao.optimizers.get(name), static_args=static)
            return factory(learning_rate=0.1, **METHODS[name][0])
        case "masked":
            return optax.masked(tx, {"w": True, "b": False}, mask_compatible_extra_args=option)
        case "partition":
            groups = {"ours": tx, "other": ao.optimizers.sgd(0.3)}
            labels = {"w": "ours", "b": "other"}
            return optax.partition(groups, labels, mask_compatible_extra_args=option)
        case "apply_if_finite":
            return optax.apply_if_finite(tx, max_consecutive_errors=3)
        case "MultiSteps":
            return optax.MultiSteps(tx, every_k_schedule=2)


def expected(wrapper, name, gathered):
    """The same without the wrapper."""
    if wrapper == "named_chain":
        return run(make(name), gathered, change=lambda g: jax.tree.map(_clip_to_half, g))
    if wrapper not in ("masked", "partition"):
        return run_alone(name, gathered)
    # Where the mask is False, gradients pass as they are.
    other = ao.optimizers.sgd(0.3) if wrapper == "partition" else optax.identity()
    pairs = zip(
        run_alone(name, gathered, "w"),
        run(optax.with_extra_args_support(other), gathered, ("b",)),
        strict=True,
    )
    return [(updates | u, served | s) for (updates, served), (u, s) in pairs]


def _clip_to_half(g):
    return jnp.minimum(jnp.maximum(g, -0.5), 0.5)


@pytest.mark.parametrize("name", ALL_METHODS)
@pytest.mark.parametrize("wrapper", sorted(set(WRAPPERS) - {"MultiSteps"}))
def test_wrapped_equals_bare(wrapper, name):
    for gathered in (False, True):
        ours = run(wrap(wrapper, name), gathered)
        assert_close(ours, expected(wrapper, name, gathered), RTOL[wrapper])


@pytest.mark.parametrize("name", ALL_METHODS)
def test_multi_steps_is_the_method_on_the_mean_gradient(name):
    tx, bare = wrap("MultiSteps", name), make(name)
    state, inner_state = tx.init(PARAMS), bare.init(PARAMS)
    for i in (0, 1):
        updates, state = tx.update(gradient(i), state, PARAMS, **extras(i))
        assert all_zero(updates) == (i == 0)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, gradient(0), gradient(1))
    # Of the extra arguments only those of the last call count.
    theirs, inner_state = bare.update(mean, inner_state, PARAMS, **extras(1))
    assert_close((updates, state.inner_opt_state), (theirs, inner_state))


def needs_option(wrapper, name):
    if wrapper == "inject_hyperparams":
        return bool(static_arguments(name))
    return "stale_params" in required(name)


@pytest.mark.parametrize("name", ALL_METHODS)
@pytest.mark.parametrize("wrapper", [w for w, outcome in WRAPPERS.items() if outcome.error])
def test_without_the_option_it_works_or_raises(wrapper, name):
    outcome = WRAPPERS[wrapper]
    if needs_option(wrapper, name):
        with pytest.raises(outcome.error, match=outcome.message):
            run(wrap(wrapper, name, option=False), gathered=False)
    else:
        ours = run(wrap(wrapper, name, option=False), gathered=False)
        assert_close(ours, expected(wrapper, name, False), RTOL[wrapper])


@pytest.mark.parametrize("name", ALL_METHODS)
def test_no_wrapper_swallows_a_required_argument(name):
    for wrapper in WRAPPERS:
        tx = wrap(wrapper, name)
        state = tx.init(PARAMS)
        for missing in required(name):
            given = {k: v for k, v in extras(0).items() if k != missing}
            with pytest.raises(TypeError, match=missing):
                tx.update(gradient(0), state, PARAMS, **given)


@pytest.mark.parametrize("name", ALL_METHODS)
def test_injected_learning_rates_are_changed_through_the_state(name):
    tx, bare = wrap("inject_hyperparams", name), make(name)
    _, state = tx.update(gradient(0), tx.init(PARAMS), PARAMS, **extras(0))
    _, bare_state = bare.update(gradient(0), bare.init(PARAMS), PARAMS, **extras(0))
    numbers = {k for k, v in METHODS[name][0].items() if isinstance(v, int | float)}
    numbers -= set(static_arguments(name))
    assert set(state.hyperparams) >= {"learning_rate"} | numbers

    state.hyperparams["learning_rate"] = jnp.float32(0.3)
    updates, _ = tx.update(gradient(1), state, PARAMS, **extras(1))
    theirs, _ = make(name, 0.3).update(gradient(1), bare_state, PARAMS, **extras(1))
    assert_close(updates, theirs, RTOL["inject_hyperparams"])


@pytest.mark.parametrize("name", ALL_METHODS)
def test_gradients_that_are_not_finite_are_skipped(name):
    tx, bare = wrap("apply_if_finite", name), make(name)
    _, inner_state = bare.update(gradient(0), bare.init(PARAMS), PARAMS, **extras(0))
    state = tx.init(PARAMS)._replace(inner_state=inner_state)
    broken = gradient(1) | {"b": jnp.array([0.1, jnp.nan])}
    with jax.disable_jit(False):  # compiled once: both branches have to return the same types
        updates, after = tx.update(broken, state, PARAMS, **extras(1))
    assert all_zero(updates)
    assert int(after.total_notfinite) == 1
    jax.tree.map(np.testing.assert_array_equal, after.inner_state, inner_state)


# What follows is wrong and cannot be refused from within: the method never learns of it. The
# page says so, and these tests notice when Optax changes.


def test_a_skipped_commit_leaves_its_arrivals_to_the_next_one():
    tx = wrap("apply_if_finite", "sgd")
    state, g, broken = tx.init(PARAMS), gradient(0), {"w": PARAMS["w"] * jnp.nan, "b": PARAMS["b"]}
    _, state = tx.update(g, state, PARAMS, commit=False, weight=0.5)
    _, state = tx.update(broken, state, PARAMS, commit=True, weight=0.5)
    updates, _ = tx.update(g, state, PARAMS, commit=True, weight=1.0)
    assert_close(updates, jax.tree.map(lambda x: -0.1 * 1.5 * x, g))

    # Around the server's step, the broken commit is skipped as a whole.
    tx = transforms.accumulate_until_commit(optax.apply_if_finite(optax.sgd(0.1), 3))
    state = tx.init(PARAMS)
    _, state = tx.update(g, state, PARAMS, commit=False, weight=0.5)
    skipped, state = tx.update(broken, state, PARAMS, commit=True, weight=0.5)
    updates, _ = tx.update(g, state, PARAMS, commit=True, weight=1.0)
    assert all_zero(skipped)
    assert_close(updates, jax.tree.map(lambda x: -0.1 * x, g))


def test_multi_steps_and_commits_do_not_mix():
    tx, g = wrap("MultiSteps", "sgd"), gradient(0)
    state = tx.init(PARAMS)
    _, state = tx.update(g, state, PARAMS, commit=False, weight=0.5)
    updates, _ = tx.update(g, state, PARAMS, commit=True, weight=0.5)
    # The first arrival of the commit is lost: its accumulation was undone.
    assert_close(updates, jax.tree.map(lambda x: -0.1 * 0.5 * x, g))


@pytest.mark.parametrize("name", ALL_METHODS)
def test_multi_steps_as_a_transformation_drops_every_extra_argument(name):
    tx = optax.chain(wrap("MultiSteps", name).gradient_transformation())
    state = tx.init(PARAMS)
    if required(name):
        with pytest.raises(TypeError, match="missing"):
            tx.update(gradient(0), state, PARAMS, **extras(0))
        return
    for _ in range(2):
        updates, state = tx.update(
            gradient(0), state, PARAMS, **extras(0) | {"commit": False, "weight": 0.5}
        )
    assert not all_zero(updates)


def test_groups_that_do_not_accumulate_move_at_every_arrival():
    groups = {"ours": make("sgd"), "other": optax.sgd(0.3)}
    tx = optax.partition(groups, {"w": "ours", "b": "other"})
    g = gradient(0)
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS, commit=False, weight=0.5)
    assert all_zero(updates["w"])
    assert_close(updates["b"], -0.3 * g["b"])


def test_injected_schedules_count_arrivals():
    halving = {"learning_rate": lambda step: 0.5**step}
    rates = []
    for tx in (
        ao.optimizers.sgd(**halving),
        optax.inject_hyperparams(ao.optimizers.sgd)(**halving),
    ):
        state, g = tx.init(PARAMS), gradient(0)
        for commit in (False, True):
            updates, state = tx.update(g, state, PARAMS, commit=commit, weight=0.5)
        rates.append(float((-updates["w"] / g["w"]).mean()))
    assert rates == pytest.approx([1.0, 0.5])


def test_what_is_tracked_is_a_transformation():
    with pytest.raises(TypeError, match="inner must be a gradient transformation, got <optax"):
        transforms.track_staleness(wrap("MultiSteps", "sgd"), num_workers=2)
