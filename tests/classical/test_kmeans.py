"""k-means against scikit-learn from the same centres, and its seeds against their law."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from gmjax.classical import kmeans
from gmjax.types import UserError


@pytest.mark.slow
def test_lloyds_iteration_is_scikit_learns(digits):
    x = digits[0]
    peer = KMeans(10, init=x[:10], n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(x)
    found = kmeans.fit(jax.random.key(0), jnp.asarray(x), 10, 300, 0.0, initial=jnp.asarray(x[:10]))
    np.testing.assert_allclose(found.centres, peer.cluster_centers_, atol=1e-9)
    np.testing.assert_allclose(found.inertia * len(x), peer.inertia_, rtol=1e-10)
    label, distance = kmeans.assign(found.centres, jnp.asarray(x))
    np.testing.assert_array_equal(label, peer.labels_)
    np.testing.assert_allclose(distance.sum(), peer.inertia_, rtol=1e-10)


def test_seeds_follow_the_squared_distance():
    x = jnp.asarray([[0.0], [1.0], [3.0]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    chosen = np.asarray(jax.vmap(lambda k: kmeans.seeds(k, x, 2))(keys))[..., 0]
    law = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        near = (np.asarray(x)[:, 0] - x[i, 0]) ** 2
        law[i, j] = near[j] / near.sum() / 3
    points = np.asarray(x)[:, 0]
    counts = np.asarray([[np.mean((chosen == (a, b)).all(1)) for b in points] for a in points])
    # Nine shares of 20000 draws, |z| < 4.5: fails once in 10^4 runs.
    error = np.sqrt(law * (1 - law) / len(keys))
    assert np.all(np.abs(counts - law) <= 4.5 * error)


def test_seeds_are_distinct_rows():
    x = jnp.asarray(np.repeat(np.eye(3), 40, 0))
    found = kmeans.seeds(jax.random.key(1), x, 3)
    assert sorted(map(tuple, np.asarray(found))) == sorted(map(tuple, np.eye(3)))


def test_an_empty_cluster_moves_to_the_farthest_point(digits):
    x = jnp.asarray(digits[0])
    initial = jnp.concatenate([x[:3], jnp.full((2, 64), 100.0)])
    moved, fall, _ = kmeans.lloyd(initial, x)
    assert np.isinf(fall)
    distance = kmeans.assign(initial, x)[1]
    far = np.argsort(-np.asarray(distance))[:2]
    np.testing.assert_array_equal(moved[3:], x[far])
    fit = kmeans.fit(jax.random.key(0), x, 5, initial=initial)
    counts = np.bincount(kmeans.assign(fit.centres, x)[0], minlength=5)
    assert counts.min() > 0


def test_the_fall_and_the_score_are_those_of_the_distances(digits):
    x = jnp.asarray(digits[0])
    moved, fall, score = kmeans.lloyd(x[:10], x)
    label, distance = kmeans.assign(x[:10], x)
    np.testing.assert_allclose(
        score + jnp.sum((x - x[:10].mean(0)) ** 2, 1).mean(), distance.mean()
    )
    after = jnp.sum((x - moved[label]) ** 2, 1)
    np.testing.assert_allclose(fall, distance.mean() - after.mean(), rtol=1e-9)


@pytest.mark.slow
def test_the_tolerance_is_a_share_of_the_inertia(digits):
    """The last of its iterations is the first whose move lowers the inertia by less."""
    x = jnp.asarray(digits[0])
    centres, tolerance, falls = x[:10], 1e-3, []
    fit = kmeans.fit(jax.random.key(0), x, 10, 300, tolerance, initial=centres)
    for _ in range(int(fit.iterations)):
        inertia = kmeans.assign(centres, x)[1].mean()
        centres, fall, _ = kmeans.lloyd(centres, x)
        falls.append(float(fall / inertia))
    assert falls[-1] <= tolerance < min(falls[:-1])
    np.testing.assert_allclose(fit.centres, centres, rtol=1e-12)


@pytest.mark.parametrize("far", [1.0, 1e4])
def test_narrow_clusters_far_from_zero_in_single_precision(far):
    rng = np.random.default_rng(0)
    places = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]) * 1e-2 + 1
    x = jnp.asarray(
        far * (np.repeat(places, 50, 0) + 1e-4 * rng.normal(size=(150, 2))), jnp.float32
    )
    fit = kmeans.fit(jax.random.key(2), x, 3)
    assert sorted(np.bincount(kmeans.assign(fit.centres, x)[0])) == [50, 50, 50]
    assert fit.iterations < 10


def test_bad_arguments_are_named(digits):
    with pytest.raises(UserError, match="components=0 must lie in 1 .. 5"):
        kmeans.fit(jax.random.key(0), jnp.asarray(digits[0][:5]), 0)
