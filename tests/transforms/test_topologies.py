"""Mixing matrices: their properties, their forms on the device, and bad ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from async_optax.transforms import graph_checks, topologies
from async_optax.transforms.mixing_matrix import CyclicMixing

SWAP = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
MIXINGS = {
    "ring": topologies.ring(7),
    "ring of two": topologies.ring(2),
    "alone": topologies.ring(1),
    "torus": topologies.grid(3, 4),
    "narrow torus": topologies.grid(2, 3),
    "grid": topologies.grid(3, 4, torus=False),
    "complete": topologies.complete(5),
    "exponential": topologies.exponential(11),
    "one peer": topologies.one_peer_exponential(12),
    "matrix": topologies.from_matrix([[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]),
    "star": topologies.from_graph(np.arange(6) * np.arange(6)[:, np.newaxis] == 0),
    "cycle": topologies.cycle([topologies.ring(9), topologies.exponential(9)]),
    "pairs": topologies.random_pairings(8, seed=3),
    "pairs of an odd number": topologies.random_pairings(7),
}
SYMMETRIC = set(MIXINGS) - {"exponential", "one peer", "matrix", "cycle"}
COMBINE = {name: jax.jit(mixing.combine) for name, mixing in MIXINGS.items()}
mixings = pytest.mark.parametrize("name", MIXINGS)


@mixings
def test_matrices_are_doubly_stochastic(name):
    matrices = MIXINGS[name].matrices_at(np.arange(20))
    assert matrices.min() >= 0
    np.testing.assert_allclose(matrices.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(matrices.sum(2), 1, rtol=1e-12)


@mixings
def test_symmetric_where_it_is_said_to_be(name):
    matrices = MIXINGS[name].matrices_at(np.arange(20))
    assert (name in SYMMETRIC) == np.allclose(matrices, matrices.transpose(0, 2, 1))
    if name in SYMMETRIC:
        topologies.require_symmetric(MIXINGS[name], "this")
    else:
        with pytest.raises(ValueError, match=r"this needs a symmetric mixing, but W\[\d+, \d+\]="):
            topologies.require_symmetric(MIXINGS[name], "this")


@pytest.mark.usefixtures("x64", "strict_dtypes")
@mixings
def test_combining_is_the_product_with_the_matrix(name):
    """Dense or gathered, one leaf or several, all steps of a period, masked or not."""
    whole = MIXINGS[name]
    n = whole.num_agents
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=(n, 2, 3)), "b": rng.normal(size=n), "c": rng.normal(size=(n, 0))}
    mask = rng.random((n, n)) < 0.6
    for mixing in (whole, whole.masked(mask), whole.masked(mask & False)):
        combine = jax.jit(mixing.combine)
        for step, matrix in enumerate(mixing.matrices_at(np.arange(9))):
            mixed = combine(jnp.int32(step), jax.tree.map(jnp.asarray, tree))
            for leaf, x in tree.items():
                expected = np.tensordot(matrix, x, axes=1)
                np.testing.assert_allclose(mixed[leaf], expected, rtol=0, atol=1e-14)
            np.testing.assert_allclose(
                mixing.row_sums(jnp.int32(step)), matrix.sum(1), rtol=0, atol=1e-14
            )


def test_masking_takes_entries_away():
    for mixing in MIXINGS.values():
        mask = np.random.default_rng(1).random((mixing.num_agents, mixing.num_agents)) < 0.5
        steps = np.arange(5)
        expected = mixing.matrices_at(steps) * mask
        np.testing.assert_array_equal(mixing.masked(mask).matrices_at(steps), expected)
        assert not (mixing.masked(mask).links() & ~mask).any()


@given(
    name=st.sampled_from(sorted(MIXINGS)),
    step=st.integers(0, 2**31 - 1),
    seed=st.integers(0, 1000),
)
def test_mixing_keeps_the_mean(name, step, seed):
    mixing = MIXINGS[name]
    x = np.random.default_rng(seed).normal(size=(mixing.num_agents, 3)).astype(np.float32)
    mixed = COMBINE[name](jnp.int32(step), jnp.asarray(x))
    np.testing.assert_allclose(mixed.mean(0), x.mean(0), rtol=0, atol=2e-6)
    assert np.ptp(mixed, axis=0).max() <= np.ptp(x, axis=0).max() + 1e-5  # nobody gets further out


@pytest.mark.parametrize("num_agents", [2, 8, 64])
def test_one_peer_reaches_the_mean_exactly(num_agents):
    mixing = topologies.one_peer_exponential(num_agents)
    product = np.linalg.multi_dot([*mixing.matrices, np.eye(num_agents)])
    assert len(mixing.matrices) == np.log2(num_agents)
    np.testing.assert_allclose(product, 1 / num_agents)


def test_known_weights():
    np.testing.assert_allclose(np.unique(topologies.grid(3, 3).matrices.round(9)), [0, 0.2])
    np.testing.assert_allclose(topologies.ring(2).matrices[0], 0.5)
    np.testing.assert_array_equal(topologies.ring(1).matrices[0], [[1.0]])
    np.testing.assert_array_equal(
        np.flatnonzero(topologies.exponential(8).matrices[0, 3]), [3, 4, 5, 7]
    )


def test_pairs_are_perfect_matchings_all_equally_likely():
    pairs = topologies.random_pairings(4, seed=1).matrices_at(np.arange(3000)) > 0
    np.testing.assert_array_equal(pairs.sum(2), 2)
    first = np.array([np.flatnonzero(p[0])[-1] if p[0, 0] else -1 for p in pairs])
    shares = np.bincount(first, minlength=4) / 3000
    np.testing.assert_allclose(shares[1:], 1 / 3, atol=0.04)
    odd = topologies.random_pairings(5).matrices_at(np.arange(300))
    assert (np.diagonal(odd, axis1=1, axis2=2) == 1).sum(1).tolist() == [1] * 300
    assert len(np.unique(odd, axis=0)) == 15  # every one of the 5 * 3 matchings


def test_seeds_give_other_pairs_and_one_compilation():
    traces = []

    @jax.jit
    def combine(mixing, step, x):
        traces.append(step)
        return mixing.combine(step, x)

    x = jnp.arange(8.0)
    results = [
        combine(topologies.random_pairings(8, seed), jnp.int32(0), x).tolist() for seed in range(6)
    ]
    assert len(traces) == 1
    assert len(set(map(tuple, results))) > 1


def test_delayed_links_are_drawn_from_the_links():
    ring = topologies.ring(20)
    links = ring.links()
    for fraction in (0, 0.3, 1):
        late = topologies.delayed_links(ring, fraction, seed=2)
        assert late.sum() == round(fraction * 40)
        assert not (late & ~links).any()
        both = topologies.delayed_links(ring, fraction, seed=2, symmetric=True)
        assert both.sum() == 2 * round(fraction * 20)
        np.testing.assert_array_equal(both, both.T)
    draws = [topologies.delayed_links(ring, 0.3, seed).tobytes() for seed in range(4)]
    assert len(set(draws)) == 4
    assert draws[1] == topologies.delayed_links(ring, 0.3, 1).tobytes()
    assert topologies.delayed_links(topologies.random_pairings(4), 1.0).sum() == 12


TWO_RINGS = np.kron(np.eye(2), topologies.ring(3).matrices[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: topologies.ring(0), "num_agents must be an integer >= 1, got 0"),
        (lambda: topologies.grid(3, 0), "num_columns must be an integer >= 1, got 0"),
        (lambda: topologies.from_matrix(np.ones((2, 3))), r"matrix must be square.*\(2, 3\)"),
        (lambda: topologies.from_matrix([[1, 0], [1]]), "square, .* but its rows differ in length"),
        (lambda: topologies.from_matrix([[1.5, -0.5], [-0.5, 1.5]]), r"got matrix\[0, 1\]=-0.5"),
        (lambda: topologies.from_matrix([[np.nan, 1], [1, 0]]), r"got matrix\[0, 0\]=nan"),
        (lambda: topologies.from_matrix([[0.5, 0.4], [0.5, 0.6]]), "its row 0 sums to 0.9"),
        (lambda: topologies.from_matrix([[0.5, 0.5], [0.4, 0.6]]), "its column 0 sums to 0.9"),
        (lambda: topologies.from_matrix(TWO_RINGS), "agents 3, 4, 5 cannot be reached from agent"),
        (lambda: topologies.from_graph([[0, 1], [0, 0]]), r"links\[0, 1\]=1 and links\[1, 0\]=0"),
        (lambda: topologies.from_graph([[0, 2], [2, 0]]), r"got links\[0, 1\]=2"),
        (lambda: topologies.from_graph(np.eye(2)), "agents 1 cannot be reached from agent 0"),
        (lambda: topologies.cycle([]), "matrices must not be empty"),
        (lambda: topologies.cycle([np.eye(2), np.eye(3)]), r"one size, got \(2, 2\) and \(3, 3\)"),
        (lambda: topologies.cycle([SWAP, np.eye(3)]), "agents 2 cannot be reached"),
        (lambda: topologies.cycle([SWAP, SWAP / 2]), r"matrices\[1\] must be doubly stochastic"),
        (lambda: topologies.random_pairings(4, -1), "seed must be an integer >= 0, got -1"),
        (lambda: topologies.delayed_links(topologies.ring(3), 1.5), "fraction must be .* 1.5"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_kinds():
    with pytest.raises(TypeError, match="matrix must hold real numbers"):
        topologies.from_matrix([["a"]])
    with pytest.raises(TypeError, match="mixing must be a mixing such as topologies.ring"):
        topologies.delayed_links(np.eye(2), 0.5)
    with pytest.raises(TypeError, match="num_agents must be an integer"):
        topologies.complete(2.5)


def test_distances_in_links_are_those_of_scipy():
    for seed, n in enumerate([1, 2, 9, 9, 30]):
        links = np.random.default_rng(seed).random((n, n)) < 1.5 / n
        # SciPy goes along links from row to column; news goes from column to row.
        expected = shortest_path(links.T.astype(float), unweighted=True, indices=0)
        expected = np.where(np.isinf(expected), -1, expected)
        np.testing.assert_array_equal(graph_checks.distances(links), expected)
    path = np.eye(3000, k=-1, dtype=bool)  # seconds, if each step looked at all that are reached
    np.testing.assert_array_equal(graph_checks.distances(path), np.arange(3000))


def test_few_terms_are_gathered():
    """What is compiled is chosen by the degree, so that neither form pays for the other."""
    assert topologies.complete(8).terms is None
    assert isinstance(topologies.ring(8), CyclicMixing)
    sources, weights = topologies.ring(8).terms
    assert sources.shape == weights.shape == (1, 8, 3)
