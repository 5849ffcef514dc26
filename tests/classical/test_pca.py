"""PCA and probabilistic PCA against scikit-learn, the published figures, and each other."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from gmjax.classical import moments, pca, ppca
from gmjax.types import UserError


def error(params, x):
    return np.mean((np.asarray(pca.decode(params, pca.encode(params, x))) - x) ** 2)


@pytest.mark.slow
def test_moments_are_those_of_numpy_and_join(digits):
    x = digits[0] + 100.0
    parts = [moments.moments(jnp.asarray(a)) for a in (x[:500], x[500:501], x[501:])]
    joined = moments.empty(64, jnp.float64)
    for part in parts:
        joined = moments.merge(joined, part)
    for found in (moments.moments(jnp.asarray(x)), joined):
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-13)
        np.testing.assert_allclose(moments.covariance(found, 1), np.cov(x.T), atol=1e-13)


def test_wide_grams_are_symmetric_products():
    x = np.random.default_rng(0).normal(size=(50, 300))
    np.testing.assert_allclose(moments.gram(jnp.asarray(x)), x.T @ x, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("solver, q", [("eigh", 2), ("eigh", 20), ("gram", 10), ("randomised", 5)])
def test_components_variances_and_noise_are_scikit_learns(digits, solver, q):
    x = digits[0][:600]  # the inner products of all of them take long to decompose
    peer = PCA(q, svd_solver="full").fit(x)
    found = pca.fit(jnp.asarray(x), q, solver, ddof=1)
    # Seven powers leave (lambda_16 / lambda_5)^8 of an angle.
    loose = 1e-3 if solver == "randomised" else 1e-7
    assert subspace_angles(found.components.T, peer.components_.T).max() < loose
    np.testing.assert_allclose(found.components @ found.components.T, np.eye(q), atol=1e-12)
    rtol = 1e-4 if solver == "randomised" else 1e-10
    np.testing.assert_allclose(found.variances, peer.explained_variance_, rtol=rtol)
    np.testing.assert_allclose(found.noise, peer.noise_variance_, rtol=rtol)


@pytest.mark.parametrize("q, figure", [(2, -0.58), (10, 16.31), (20, 25.46)])
def test_the_held_out_likelihood_is_scikit_learns_and_the_published_one(digits, q, figure):
    train, test = digits
    loglik = pca.log_likelihood(ppca.fit(jnp.asarray(train), q, ddof=1), jnp.asarray(test))
    np.testing.assert_allclose(loglik, PCA(q).fit(train).score_samples(test), rtol=1e-9)
    assert abs(loglik.mean() - figure) < 0.005


def test_the_likelihood_is_that_of_the_dense_gaussian_jitter_included(digits):
    train, test = digits
    params = ppca.fit(jnp.asarray(train), 7)
    w = np.asarray(ppca.loadings(params))
    c = w @ w.T + float(params.noise) * np.eye(64)
    exact = multivariate_normal(params.mean, c).logpdf(test)
    np.testing.assert_allclose(ppca.log_likelihood(params, jnp.asarray(test)), exact, rtol=1e-9)
    # E log N(x + u) = log N(x) - v tr(C^-1) / 2 for u of mean 0 and variance v an entry.
    expected = exact - 0.5 * 0.01 * np.trace(np.linalg.inv(c))
    found = ppca.log_likelihood(params, jnp.asarray(test), 0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_em_climbs_to_the_closed_form(digits):
    x = jnp.asarray(digits[0])
    exact = ppca.fit(x, 3)
    best = ppca.log_likelihood(exact, x).mean()
    values = [
        float(ppca.fit_em(jax.random.key(0), x, 3, n, 0.0).log_likelihood) for n in range(1, 12)
    ]
    assert np.all(np.diff(values) > 0) and values[-1] < best
    found = ppca.fit_em(jax.random.key(0), x, 3, 2000, 1e-13)
    assert found.converged and found.iterations < 2000
    np.testing.assert_allclose(found.log_likelihood, best, rtol=1e-9)
    np.testing.assert_allclose(found.params.noise, exact.noise, rtol=1e-6)
    np.testing.assert_allclose(found.params.variances, exact.variances, rtol=1e-5)
    assert subspace_angles(found.params.components.T, exact.components.T).max() < 1e-4
    np.testing.assert_allclose(
        ppca.log_likelihood(found.params, x).mean(), found.log_likelihood, rtol=1e-10
    )


@pytest.mark.parametrize("noise", [True, False])
def test_samples_have_the_models_moments(flat, noise):
    params = ppca.fit(jnp.asarray(flat[0]), 2)
    n = 20_000
    w = np.asarray(params.components.T * jnp.sqrt(params.variances))
    plane = np.asarray(params.components.T @ params.components)
    c = w @ w.T + noise * float(params.noise) * (np.eye(6) - plane)
    draws = [pca.sample(jax.random.key(1), params, n, noise)]
    draws += [ppca.sample(jax.random.key(2), params, n)] if noise else []
    for x in draws:
        # Means have variance C_ii / n and covariances (C_ii C_jj + C_ij^2) / n: 27 values a draw,
        # |z| < 5 over all of them fails once in 10^4 runs.
        np.testing.assert_array_less(np.abs(x.mean(0) - params.mean), 5 * np.sqrt(np.diag(c) / n))
        spread = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / n)
        np.testing.assert_array_less(np.abs(np.cov(x.T) - c), 5 * spread)


def test_single_precision_is_good_far_from_the_origin(digits):
    x = digits[0] + 100.0
    exact, rough = (pca.fit(jnp.asarray(x, t), 10) for t in (jnp.float64, jnp.float32))
    assert rough.mean.dtype == jnp.float32
    # Data near 100 carry errors of 4e-6 themselves, a millionth of the largest spread.
    np.testing.assert_allclose(rough.variances, exact.variances, rtol=1e-4)
    assert subspace_angles(exact.components.T, rough.components.T).max() < 1e-3


def test_a_fit_vmaps(digits):
    x = jnp.asarray(digits[0][:1400]).reshape(2, 700, 64)
    both = jax.vmap(lambda x: ppca.fit(x, 4))(x)
    np.testing.assert_allclose(both.noise[1], ppca.fit(x[1], 4).noise, rtol=1e-10)


def test_data_on_a_plane_give_finite_likelihoods_and_gradients():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(90, 2)) @ np.ones((2, 5)), jnp.float32)
    params = ppca.fit(x, 3)
    value, slope = jax.value_and_grad(lambda x: ppca.log_likelihood(params, x).sum())(x)
    assert np.isfinite(value) and np.isfinite(slope).all()
    full = pca.fit(x[:, :3] + jax.random.normal(jax.random.key(0), (90, 3)), 3)
    assert full.noise == 0 and np.isfinite(pca.log_likelihood(full, x[:, :3])).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: pca.fit(x, 0), "components=0 must lie in 1 .. 64"),
        (lambda x: pca.fit(x, 65), "components=65"),
        (lambda x: ppca.fit(x, 64), "1 .. 63"),
        (lambda x: ppca.fit_em(jax.random.key(0), x, 64), "1 .. 63"),
        (lambda x: pca.fit(x, 2, "lanczos"), "solver='lanczos' is unknown"),
    ],
)
def test_bad_arguments_are_named(digits, call, message):
    with pytest.raises(UserError, match=message):
        call(jnp.asarray(digits[0]))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GMJAX_DATA_DIR"), reason="GMJAX_DATA_DIR is not set")
def test_mnist_is_reconstructed_as_published():
    from gmjax import data

    sets = data.load({"name": "mnist"})
    take = lambda s: s.take(np.arange(s.size))["x"].reshape(s.size, -1) / np.float32(255)
    params = pca.fit(jnp.asarray(take(sets.train), jnp.float32), 50)
    test = take(sets.test)
    for q, figure in ((2, 0.05567), (10, 0.03407), (50, 0.01149)):
        few = params._replace(components=params.components[:q])
        np.testing.assert_allclose(error(few, test), figure, atol=5e-6)
