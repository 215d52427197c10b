"""What every registered method must do, whatever it is."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import async_optax as ao
from tests.conformance.cases import (
    METHODS,
    NEUTRAL,
    NOT_PROPORTIONAL,
    WITHOUT_NEUTRAL,
    extra_args,
    make,
    promotion,
)


@pytest.fixture(autouse=True)
def strict_where_possible(request):
    with jax.numpy_dtype_promotion("strict"):
        callspec = getattr(request.node, "callspec", None)
        with promotion(callspec.params.get("name") if callspec else None):
            yield


PARAMS = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.array([0.5, 0.0]), "none": None}
STALE = jax.tree.map(lambda x: 0.9 * x + 0.01, PARAMS)
all_methods = pytest.mark.parametrize("name", ao.optimizers.names())


def gradients(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), dtype), PARAMS)


def steps(tx, num_steps, staleness=None, params=PARAMS, stale=STALE, **update_args):
    """All updates of a few steps; ``staleness=None`` passes no extra arguments.

    With ``stale=None`` the stale parameters are the current ones.
    """
    state, seen = tx.init(params), []
    for i in range(num_steps):
        extra = {} if staleness is None else extra_args(params, staleness, stale)
        updates, state = tx.update(gradients(i), state, params, **extra, **update_args)
        params = optax.apply_updates(params, updates)
        seen.append(updates)
    return seen


def assert_equal(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_every_method_has_a_row():
    assert set(METHODS) == set(ao.optimizers.names())
    assert set(NEUTRAL) | set(WITHOUT_NEUTRAL) == set(METHODS)


@all_methods
def test_fresh_equals_synchronous_bit_for_bit(name):
    tx, reference = make(name), METHODS[name][1](0.1)
    state, params, theirs = tx.init(PARAMS), PARAMS, []
    ours = []
    for i in range(4):
        extra = extra_args(params)  # tau = 0: the stale parameters are the current ones
        updates, state = tx.update(gradients(i), state, params, **extra)
        params = optax.apply_updates(params, updates)
        ours.append(updates)
    theirs = steps(reference, 4)
    assert_equal(ours, theirs)


HUGE = {"float16": 300.0, "bfloat16": 1e25, "float32": 1e25}


@all_methods
@pytest.mark.parametrize("dtype", HUGE)
def test_fresh_outliers_do_not_become_nan(name, dtype):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    g = jax.tree.map(lambda x: jnp.full(x.shape, HUGE[dtype], dtype), PARAMS)
    tiny = {"threshold": 1e-3} if name == "async_heavy_tailed" else {}
    tx = make(name, **tiny)
    updates, _ = jax.jit(tx.update)(g, tx.init(params), params, **extra_args(params))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", sorted(set(NEUTRAL) - {"clipped_sgd"}))
def test_neutral_parameters_do_not_touch_outliers(name):
    tx = ao.optimizers.make(name, learning_rate=0.1, **NEUTRAL[name][0])
    g = jax.tree.map(lambda x: jnp.full_like(x, 1e25), PARAMS)
    updates, _ = tx.update(g, tx.init(PARAMS), PARAMS, **extra_args(PARAMS, 9, STALE))
    reference = NEUTRAL[name][1](0.1)
    expected, _ = reference.update(g, reference.init(PARAMS))
    assert_equal(updates, expected)


@all_methods
def test_array_learning_rates_keep_low_precision(name):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    with jax.numpy_dtype_promotion("standard"):  # as in a user's sweep
        tx = make(name, jnp.float32(0.1))
        updates, _ = tx.update(
            gradients(0, jnp.bfloat16), tx.init(params), params, **extra_args(params)
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def numeric_arguments(name):
    """The arguments of a method that are numbers, apart from what decides shapes."""
    signature = inspect.signature(ao.optimizers.get(name))
    given = {p.name: p.default for p in signature.parameters.values()} | METHODS[name][0]
    numbers = {
        k: v for k, v in given.items() if isinstance(v, int | float) and not isinstance(v, bool)
    }
    return {k: v for k, v in numbers.items() if k != "num_workers" or name == "delay_adaptive_sgd"}


@all_methods
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_array_hyperparameters_keep_low_precision(name, dtype):
    """As in a sweep over any of them: every number an array of single precision."""
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    arrays = {k: jnp.float32(v) for k, v in numeric_arguments(name).items()}
    with jax.numpy_dtype_promotion("standard"):
        tx = make(name, jnp.float32(0.1), **arrays)
        state = tx.init(params)
        before = jax.tree.map(lambda x: (x.shape, x.dtype), state)
        for gathered in ({}, {"commit": True, "weight": 0.5}):
            updates, state = tx.update(
                gradients(0, dtype), state, params, **extra_args(params, 2), **gathered
            )
            assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
            assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == before


@all_methods
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_zero_gradients_do_not_become_nan(name, dtype):
    """Parameters without a gradient, such as unused embeddings, are the ordinary case."""
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    stale = jax.tree.map(lambda x: x.astype(dtype), STALE)
    tx = make(name)
    state = tx.init(params)
    for _ in range(2):
        g = gradients(0, dtype) | {"b": jnp.zeros(2, dtype)}
        updates, state = tx.update(g, state, params, **extra_args(params, 2, stale))
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_equal_optax_bit_for_bit(name):
    arguments, reference = NEUTRAL[name]
    tx = ao.optimizers.make(name, learning_rate=0.1, **arguments)
    assert_equal(steps(tx, 4, staleness=9), steps(reference(0.1), 4))


IGNORES_STALENESS = {
    "sgd",
    "clipped_sgd",
    "normalized_momentum_sgd",
    "momentum_sgd",
    "linear_weight_prediction",
    "smega2",
    "multi_momentum",
    "dana",
    "diloco",
    "nesterov_delayed",
    "nadam_delayed",
}


@all_methods
def test_staleness_matters_where_it_should(name):
    tx = make(name)
    fresh, stale = (
        steps(tx, 1, staleness=0, params=STALE),
        steps(tx, 1, staleness=50),
    )
    differs = any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), fresh, stale)))
    assert differs == (name not in IGNORES_STALENESS)


@all_methods
def test_jit_scan_and_loop_agree(name):
    tx = make(name)
    grads = [gradients(i) for i in range(4)]

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params, **extra_args(params, 3, STALE))
        return (optax.apply_updates(params, updates), state), updates

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    start = (PARAMS, tx.init(PARAMS))
    (scanned, state), _ = jax.lax.scan(step, start, stacked)
    carry = jitted = start
    for g in grads:
        carry, _ = step(carry, g)
        jitted, _ = jax.jit(step)(jitted, g)
    for params, _ in (carry, jitted):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, scanned)
    # A fixed point: structures, shapes and dtypes of the state do not drift.
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, tx.init(PARAMS))
    assert jax.eval_shape(tx.init, PARAMS) == jax.eval_shape(lambda: state)


@all_methods
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), dtype), PARAMS)
        tx, state = make(name), None
        state = tx.init(params)
        before = jax.tree.map(lambda x: x.dtype, state)
        for gathered in ({}, {"commit": True, "weight": 0.5}, {"commit": False, "weight": 0.5}):
            updates, state = tx.update(
                gradients(0, dtype), state, params, **extra_args(params, 2), **gathered
            )
            assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
            assert jax.tree.map(lambda x: x.dtype, state) == before


@all_methods
def test_vmap_over_workers_equals_a_loop(name):
    tx = make(name)
    copies = [gradients(i) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)
    state = tx.init(PARAMS)

    def update(g):
        return tx.update(g, state, PARAMS, **extra_args(PARAMS, 3, STALE))[0]

    together = jax.vmap(update)(stacked)
    for i, g in enumerate(copies):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, update(g)
        )


# The second arrival of a commit meets the momentum of the first.
SHARED_MOMENTUM_PER_ARRIVAL = {"gap_aware"}


@all_methods
def test_weighted_arrivals_are_gathered(name):
    tx = make(name)
    state, g = tx.init(PARAMS), gradients(0)
    extra = extra_args(PARAMS, 2)
    other_worker = extra | {"worker": jnp.int32(0)}
    waiting, state = tx.update(g, state, PARAMS, **other_worker, commit=False, weight=0.5)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(waiting))
    if name in SHARED_MOMENTUM_PER_ARRIVAL:
        return
    gathered, _ = tx.update(g, state, PARAMS, **extra, commit=True, weight=0.5)
    at_once, _ = tx.update(g, tx.init(PARAMS), PARAMS, **extra)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), gathered, at_once)


@all_methods
def test_unknown_extra_arguments_are_ignored(name):
    tx = make(name)
    known = steps(tx, 2, staleness=2)
    assert_equal(steps(tx, 2, staleness=2, something_else=jnp.ones(3)), known)


REQUIRED = {
    "dana_dc": ["stale_params", "worker"],
    "gap_aware": ["stale_params"],
    "dana_gap_aware": ["stale_params", "worker"],
    "parameter_averaging": ["stale_params"],
    "fedasync": ["staleness", "stale_params"],
    "fedbuff": ["staleness"],
    "fadas": ["staleness"],
    "gba": ["staleness"],
    "adadelay": ["staleness"],
    "ringmaster_sgd": ["staleness"],
    "dc_asgd_adaptive": ["stale_params", "worker"],
    "multi_momentum": ["worker"],
    "dana": ["worker"],
    "staleness_aware_sgd": ["staleness"],
    "delay_adaptive_sgd": ["staleness"],
    "dc_asgd": ["stale_params"],
    "async_heavy_tailed": ["staleness", "stale_params"],
}


@pytest.mark.parametrize(
    ("name", "missing"), [(n, m) for n, missing in REQUIRED.items() for m in missing]
)
def test_required_extra_arguments_raise_when_missing(name, missing):
    tx, extra = make(name), extra_args(PARAMS, 2)
    extra.pop(missing)
    with pytest.raises(TypeError, match=missing):
        tx.update(gradients(0), tx.init(PARAMS), PARAMS, **extra)
    # Misspelt is missing, not ignored.
    with pytest.raises(TypeError, match=missing):
        tx.update(gradients(0), tx.init(PARAMS), PARAMS, **extra, **{missing[:-1]: 2})


@all_methods
def test_numbers_are_leaves_and_nothing_recompiles(name):
    traces = []

    @jax.jit
    def step(tx, g, state, staleness):
        traces.append(name)
        return tx.update(g, state, PARAMS, **extra_args(PARAMS, staleness, STALE))

    first, second = make(name, 0.1), make(name, 0.3)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    state = first.init(PARAMS)
    updates, state = step(first, gradients(0), state, 1)
    doubled, _ = step(second, gradients(0), second.init(PARAMS), 1)
    step(first, gradients(1), state, 7)
    assert traces == [name]
    if name not in NOT_PROPORTIONAL:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(b, 3 * a, rtol=1e-5), updates, doubled)


@all_methods
@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_learning_rates_raise(name, bad):
    with pytest.raises(ValueError, match=f"learning_rate must be a finite number > 0, got {bad}"):
        make(name, bad)


@all_methods
def test_schedules_count_commits(name):
    tx = make(name, lambda step: jnp.where(step < 1, 0.1, 0.0))
    moved, stopped = steps(tx, 2, staleness=0, stale=None)
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(moved))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(stopped))


@all_methods
def test_the_docstring_is_a_specification(name):
    text = ao.optimizers.get(name).__doc__
    positions = [text.find(f"\n    {part}:") for part in ("Args", "Returns", "Raises", "Example")]
    positions.append(text.find("\n    References:"))
    assert -1 not in positions
    assert positions == sorted(positions)


def test_unknown_methods_name_their_neighbours():
    with pytest.raises(ValueError, match="unknown method 'dc_asg'; nearest: dc_asgd"):
        ao.optimizers.get("dc_asg")
    with pytest.raises(ValueError, match="method 'sgd': .*max_norm"):
        ao.optimizers.make("sgd", learning_rate=0.1, max_norm=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"clipping": "l2"},
            "clipping must be one of coordinate, global_norm, adaptive, none; got 'l2'",
        ),
        ({"order": "x"}, "order must be one of"),
        ({"clip_at": "x"}, "clip_at must be one of"),
        ({"threshold": 0.0}, "threshold must be a finite number >= 1e-15"),
        ({"compensation": -1.0}, "compensation must be a finite number >= 0"),
        ({"quantile": 1.0}, "quantile must be a finite number > 0 and < 1, got 1.0"),
        ({"max_ratio": -0.5}, "max_ratio must be a finite number >= 0, got -0.5"),
        ({"lower": 1.0}, "lower must be <= upper"),
        ({"clipping": "adaptive", "clip_at": "commit"}, "'adaptive' gives the compensation its"),
        ({"clipping": "adaptive", "order": "compensate_first"}, "it comes first"),
    ],
)
def test_bad_options_of_the_heavy_tailed_method(arguments, message):
    with pytest.raises(ValueError, match=message):
        ao.optimizers.async_heavy_tailed(0.1, **arguments)
