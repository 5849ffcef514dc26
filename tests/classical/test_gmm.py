"""Gaussian mixtures against scikit-learn from the same start, and against their own definition."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from gmjax.classical import gmm
from gmjax.classical.covariances import FAMILIES, cholesky
from gmjax.types import UserError

PEER = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}
K = 5
# Each family is another program; some quick tests compile one of them.
FEW = [
    pytest.param(name, marks=() if name == "diagonal" else pytest.mark.slow) for name in FAMILIES
]


def begin(x, name, k=K):
    """The same start for both: spread-out means, the covariance of all the data."""
    c = np.cov(x.T)
    each = {
        "full": np.tile(c, (k, 1, 1)),
        "tied": c,
        "diagonal": np.tile(np.diag(c), (k, 1)),
        "spherical": np.full(k, np.diag(c).mean()),
    }[name]
    return gmm.Params(*map(jnp.asarray, (np.full(k, 1 / k), x[:k], each)))


def run(x, params, name, iterations, tolerance=0.0):
    return gmm.fit(
        jax.random.key(0), jnp.asarray(x), len(params.weights), name,
        iterations=iterations, tolerance=tolerance, floor=1e-6, initial=params,
    )  # fmt: skip


def inverse(c):
    return np.linalg.inv(c) if c.ndim > 1 and c.shape[-1] == c.shape[-2] else 1 / c


def peer(x, params, name, iterations):
    model = GaussianMixture(
        len(params.weights),
        covariance_type=PEER[name],
        tol=0,
        max_iter=iterations,
        weights_init=np.asarray(params.weights),
        means_init=np.asarray(params.means),
        precisions_init=inverse(np.asarray(params.covariances)),
        init_params="random_from_data",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x)


def dense(params, name, d):
    """The covariances as matrices [K, D, D]."""
    c, k = np.asarray(params.covariances), len(params.weights)
    return {
        "full": lambda: c,
        "tied": lambda: np.tile(c, (k, 1, 1)),
        "diagonal": lambda: np.stack([np.diag(v) for v in c]),
        "spherical": lambda: np.stack([v * np.eye(d) for v in c]),
    }[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_em_is_scikit_learns(flat, name):
    train, test = flat
    params = begin(train, name)
    model = peer(train, params, name, 20)
    found = run(train, params, name, 20)
    assert found.iterations == 20 and not found.converged
    np.testing.assert_allclose(found.params.weights, model.weights_, rtol=1e-6)
    np.testing.assert_allclose(found.params.means, model.means_, rtol=1e-6)
    np.testing.assert_allclose(found.params.covariances, model.covariances_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.log_likelihood, model.score(train), rtol=1e-9)
    loglik = gmm.log_likelihood(found.params, jnp.asarray(test), name)
    np.testing.assert_allclose(loglik, model.score_samples(test), rtol=1e-6)
    if name == "full":
        shares = gmm.responsibilities(found.params, jnp.asarray(test), name)
        np.testing.assert_allclose(shares, model.predict_proba(test), atol=1e-7)
    n, d = train.shape
    found_bic = gmm.bic(found.log_likelihood, n, K, d, name)
    np.testing.assert_allclose(found_bic, model.bic(train), rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_likelihood_is_its_definition_jitter_included(flat, name):
    x = flat[1]
    params = begin(x, name)._replace(weights=jnp.asarray([0.1, 0.3, 0.2, 0.15, 0.25]))
    matrices = dense(params, name, 6)
    for jitter in (0.0, 0.02):
        terms = [
            w
            * multivariate_normal(m, c).pdf(x)
            * np.exp(-0.5 * jitter * np.trace(np.linalg.inv(c)))
            for w, m, c in zip(params.weights, np.asarray(params.means), matrices, strict=True)
        ]
        found = gmm.log_likelihood(params, jnp.asarray(x), name, jitter)
        np.testing.assert_allclose(found, np.log(np.sum(terms, 0)), rtol=1e-9)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_a_step_never_goes_down(flat, name, jitter):
    """Also on rounded data; the floor is zero, for with one the steps maximise something else."""
    x, params = jnp.asarray(flat[0]), begin(flat[0], name)
    values = []
    for _ in range(8):
        params, value = gmm.step(params, x, name, 0.0, jitter)
        values.append(float(value))
    assert np.all(np.diff(values) > -1e-12), values


def test_the_bound_is_below_the_probability_of_a_cell():
    """In one dimension the cell's probability is a difference of distribution functions."""
    from scipy.stats import norm

    width, x = 0.2, np.arange(-10, 11) * 0.2
    params = gmm.Params(*map(jnp.asarray, ([0.4, 0.6], [[-1.0], [1.0]], [[0.3], [0.8]])))
    edges = np.stack([x - width / 2, x + width / 2])
    masses = [
        np.diff(norm(float(m[0]), float(c[0]) ** 0.5).cdf(edges), axis=0)[0]
        for m, c in zip(params.means, params.covariances, strict=True)
    ]
    cell = np.asarray(params.weights) @ np.stack(masses)
    bound = gmm.log_likelihood(params, jnp.asarray(x)[:, None], "diagonal", width**2 / 12)
    gap = np.log(cell / width) - np.asarray(bound)
    # Without the cost of jitter it is above the probability wherever the density is concave.
    # What Jensen's inequality loses is slope^2 width^2 / 24, with a slope of 3.3 at the left end.
    assert np.all(gap > 0) and gap.max() < 0.02


@pytest.mark.parametrize("name", FEW)
def test_samples_have_the_mixtures_moments(flat, name):
    x = jnp.asarray(flat[0])
    params = begin(flat[0], name)._replace(weights=jnp.asarray([0.1, 0.3, 0.2, 0.15, 0.25]))
    n = 20_000
    draws = np.asarray(gmm.sample(jax.random.key(5), params, n, name))
    w, m = np.asarray(params.weights), np.asarray(params.means)
    mean = w @ m
    exact = np.einsum("k,kij->ij", w, dense(params, name, 6)) + (m - mean).T * w @ (m - mean)
    # Standard errors from the draws themselves: 27 values, |z| < 5 fails once in 10^4 runs.
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None]
    z = (products.mean(0) - exact) / (products.std(0) / np.sqrt(n))
    assert np.abs(z).max() < 5
    assert np.abs((draws.mean(0) - mean) / (draws.std(0) / np.sqrt(n))).max() < 5
    assert draws.shape == (n, x.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_steps_on_parts_mix_to_the_step_on_all(flat, name):
    """Statistics of two parts, mixed by their sizes, are those of the whole."""
    x = jnp.asarray(flat[0])
    params = begin(flat[0], name)
    whole, _ = gmm.step(params, x, name, 1e-3)
    first, _ = gmm.step(params, x[:437], name, 1e-3)
    second, _ = gmm.step(params, x[437:], name, 1e-3)
    mixed = gmm.mix(first, second, 1000 / 1437, name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), mixed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_an_empty_component_is_used_again(flat, name):
    x = jnp.asarray(flat[0])
    params = begin(flat[0], name)
    params = params._replace(means=params.means.at[1:3].set(1e4))
    worst = jnp.argsort(gmm.log_likelihood(params, x, name))[:2]
    after = run(x, params, name, 1).params
    np.testing.assert_array_equal(after.means[1:3], x[worst])
    np.testing.assert_allclose(after.weights.sum(), 1.0, rtol=1e-12)
    fit = run(x, params, name, 50)
    assert len(x) * fit.params.weights.min() > 0.4 and np.isfinite(fit.log_likelihood)


@pytest.mark.slow
def test_more_restarts_are_no_worse_and_are_separate_runs(flat):
    x, key = jnp.asarray(flat[0]), jax.random.key(7)
    options = {"iterations": 8, "tolerance": 0.0, "lloyd": 0}
    best = gmm.fit(key, x, K, "diagonal", restarts=3, **options)
    single = [gmm.fit(k, x, K, "diagonal", **options) for k in jax.random.split(key, 3)]
    values = [float(one.log_likelihood) for one in single]
    assert np.ptp(values) > 1e-4
    np.testing.assert_allclose(best.log_likelihood, max(values), rtol=1e-9)
    np.testing.assert_allclose(best.params.means, single[np.argmax(values)].params.means, rtol=1e-6)


def test_convergence_stops_the_loop(flat):
    found = run(flat[0], begin(flat[0], "full"), "full", 100, 1e-2)
    assert found.converged and 1 < found.iterations < 100


@pytest.mark.parametrize("name", FEW)
def test_single_precision_keeps_narrow_clusters_far_away(name):
    """Two clusters of width 0.01, 10 apart and 1000 from the origin."""
    rng = np.random.default_rng(0)
    x = 0.01 * rng.normal(size=(400, 3)) + np.tile([[1000.0], [1010.0]], (200, 1))
    x = np.round(x * 2**13) / 2**13  # as float32 holds them there
    cast = lambda params, t: jax.tree.map(lambda a: jnp.asarray(a, t), params)
    exact, rough = (
        run(jnp.asarray(x, t), cast(begin(x, name, 2), t), name, 20)
        for t in (jnp.float64, jnp.float32)
    )
    assert rough.log_likelihood.dtype == jnp.float32
    np.testing.assert_allclose(rough.params.means, exact.params.means, rtol=1e-6)
    # A mean is rounded to 6e-5 here, a 170th of the width, in each of three coordinates.
    np.testing.assert_allclose(rough.log_likelihood, exact.log_likelihood, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_constant_columns_and_points_beyond_all_numbers_give_no_nan(digits, name):
    x = jnp.asarray(digits[0], jnp.float32)  # some pixels are never inked
    assert float(x.std(0).min()) == 0
    params = gmm.fit(jax.random.key(0), x, 3, name, iterations=3).params
    far = jnp.full((1, 64), 1e25, jnp.float32)
    value, slope = jax.value_and_grad(lambda x: gmm.log_likelihood(params, x, name).sum())(far)
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_diagonal_squares_are_the_same_expanded_and_not(flat):
    x, params = jnp.asarray(flat[0][:70]), begin(flat[0], "diagonal")
    family = FAMILIES["diagonal"]
    factors = family.prepare(params.covariances, params.means)
    r = gmm.responsibilities(params, x, "diagonal")
    assert factors.plain
    # Where x is a mean the square is zero, and expanded the rounding of its terms, some 100.
    size = 100 * np.finfo(np.float64).eps
    wary = factors._replace(plain=jnp.asarray(False))
    for f in (family.square, lambda f, m, x: family.second(f, r, x, m)):
        np.testing.assert_allclose(
            f(factors, params.means, x), f(wary, params.means, x), rtol=1e-10, atol=size
        )
    narrow = family.prepare(params.covariances.astype(jnp.float32) * 1e-8, params.means)
    assert not narrow.plain


def test_a_matrix_without_a_factor_gets_one():
    c = jnp.ones((40, 40), jnp.float32)
    lower = cholesky(c)
    assert np.isfinite(lower).all()
    np.testing.assert_allclose(lower @ lower.T, c, atol=1e-4)
    exact = jnp.asarray(np.cov(np.random.default_rng(0).normal(size=(4, 99))))
    np.testing.assert_array_equal(cholesky(exact), jnp.linalg.cholesky(exact))


@pytest.mark.slow
@pytest.mark.parametrize("k, low, high", [(10, 51.9, 52.4), (25, 59.7, 59.9)])
def test_the_digits_are_fitted_as_published(digits, k, low, high):
    """The range of a few runs; scikit-learn's from its own starts is 51.9 to 52.5, 59.7 to 60.3."""
    x, test = (jnp.asarray(a) for a in digits)
    fit = jax.vmap(lambda key: gmm.fit(key, x, k, "diagonal", floor=1e-3).params)
    params = fit(jax.random.split(jax.random.key(0), 6))
    value = jax.vmap(lambda p: gmm.log_likelihood(p, test, "diagonal").mean())(params)
    assert value.min() < high and value.max() > low and np.ptp(value) < 1.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"components": 0}, "components=0 must lie in 1 .. 1437"),
        ({"components": 2000}, "components=2000"),
        ({"components": 2, "covariance": "banded"}, "covariance='banded' is unknown; valid: diag"),
        ({"components": 2, "restarts": 0}, "restarts=0"),
    ],
)
def test_bad_arguments_are_named(flat, options, message):
    with pytest.raises(UserError, match=message):
        gmm.fit(jax.random.key(0), jnp.asarray(flat[0]), **options)
