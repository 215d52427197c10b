"""What is asked of a method on parameters sharded over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from async_optax import transforms
from tests.conformance.cases import extra_args, make

NUM_DEVICES = 8
SHAPES = {"matrix": (NUM_DEVICES, 4), "bias": (4,)}
SPECS = {"matrix": PartitionSpec("devices", None), "bias": PartitionSpec()}
STALENESS = (0, 3, 1, 2)


def draw(seed, dtype):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), dtype) for name, s in SHAPES.items()}


def start(dtype):
    return draw(99, dtype)


def arrivals(dtype, place, gathered):
    """Gradients and extra arguments of a few arrivals, of which every second one commits."""
    for i, staleness in enumerate(STALENESS):
        moved = jax.tree.map(lambda x, d: x + d / 64, start(dtype), draw(10 + i, dtype))
        extra = extra_args(None, staleness, place(moved))
        if gathered:
            extra |= {"commit": jnp.bool_(i % 2), "weight": jnp.float32((0.25, 0.75)[i % 2])}
        yield place(draw(i, dtype)), extra


def changed_types(what, before, after):
    """Leaves that change shape, dtype or sharding; a weak type prints as ``~float32[]``."""
    assert jax.tree.structure(before) == jax.tree.structure(after), what
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    types = [(str(jax.typeof(old)), str(jax.typeof(new))) for old, new in pairs]
    return [f"{what}: {old} becomes {new}" for old, new in types if old != new]


def drift(tx, dtype, place, gathered):
    """What changes its type in an update, found by tracing and not by computing."""
    found = []

    def update(params, g, extra):
        state = tx.init(params)
        updates, after = tx.update(g, state, params, **extra)
        found.extend(changed_types("state", state, after))
        found.extend(changed_types("updates", g, updates))

    jax.eval_shape(update, place(start(dtype)), *next(arrivals(dtype, place, gathered)))
    return found


def scan(tx, place):
    """Parameters, state and updates of a scan, which itself insists on a state of one type."""

    def step(carry, arrival):
        (params, state), (g, extra) = carry, arrival
        updates, state = tx.update(g, state, params, **extra)
        return (optax.apply_updates(params, updates), state), updates

    params = place(start("float32"))
    rows = list(arrivals("float32", place, gathered=True))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    return jax.jit(lambda carry, rows: jax.lax.scan(step, carry, rows))(
        (params, tx.init(params)), stacked
    )


def largest_difference(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0)) for a, b in pairs)


def check(tx, place):
    """All that is asked of one transformation."""
    result = {"drift": []}
    for gathered in (False, True):
        for dtype in ("float32", "bfloat16"):
            result["drift"] += drift(tx, dtype, place, gathered)
    together, alone = scan(tx, place), scan(tx, lambda tree: tree)
    result["difference"] = largest_difference(together, alone)
    _, updates = alone
    result["moved"] = largest_difference(updates, jax.tree.map(jnp.zeros_like, updates))
    # Without jit the arrays that a branch closes over are concrete, another path in JAX.
    params = place(start("float32"))
    g, extra = next(arrivals("float32", place, gathered=True))
    state = tx.init(params)
    updates, after = tx.update(g, state, params, **extra)
    result["drift"] += changed_types("eager state", state, after)
    result["drift"] += changed_types("eager updates", g, updates)
    result["moved_while_waiting"] = largest_difference(updates, jax.tree.map(jnp.zeros_like, g))
    return result


def without_what_is_tracked(tx):
    """``tx``, fed like the methods: it fills in two of the extra arguments itself."""

    def update(updates, state, params, *, staleness, stale_params, **extra_args):
        del staleness, stale_params
        return tx.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def case(name):
    """A method, or what tracks the staleness for one."""
    if name != "track_staleness":
        return make(name)
    return without_what_is_tracked(transforms.track_staleness(make("dc_asgd"), num_workers=2))


def check_on_mesh(name):
    """All that is asked of one method."""
    mesh = jax.make_mesh((NUM_DEVICES,), ("devices",), axis_types=(AxisType.Explicit,))

    def place(tree):
        return {
            name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in tree.items()
        }

    with jax.set_mesh(mesh):
        return check(case(name), place)
