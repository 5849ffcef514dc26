"""Closed forms of importance weights against quadrature and the library; replicates' moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from experiments import linear_gaussian as lg
from experiments import replicates
from gmjax.types import UserError

PAIRS = {"linear": lg.LINEAR, "shifted": lg.SHIFTED}


def expectation(f, delta, pair):
    """E f(log w / p(x)) in one coordinate, z ~ N(delta, V) and posterior N(0, P), by quadrature."""
    q, p = stats.norm(delta, pair.proposal**0.5), stats.norm(0, pair.posterior**0.5)
    value = lambda z: q.pdf(z) * f(p.logpdf(z) - q.logpdf(z))
    return integrate.quad(value, delta - 12, delta + 12, epsabs=0, epsrel=1e-11, limit=200)[0]


@pytest.mark.parametrize("name", PAIRS)
def test_moments_of_the_weights(name):
    pair, deltas = PAIRS[name], np.array([0.7, -0.4, 1.1])
    h2 = np.sum(deltas**2)
    for k in (0.3, 1.0, 2.0):
        exact = sum(np.log(expectation(lambda w, k=k: np.exp(k * w), d, pair)) for d in deltas)
        np.testing.assert_allclose(lg.log_moment(k, 3, h2, pair), exact, rtol=1e-7, atol=1e-9)
    mean = [expectation(lambda w: w, d, pair) for d in deltas]
    square = [expectation(lambda w: w**2, d, pair) for d in deltas]
    np.testing.assert_allclose(lg.elbo_gap(3, h2, pair), np.sum(mean), rtol=1e-7)
    var = np.sum(square) - np.sum(np.square(mean))
    np.testing.assert_allclose(lg.spread(3, h2, pair), var, rtol=1e-7)
    for alpha in (0.0, 0.5, 0.9):
        k = 1 - alpha
        first, second = (lg.log_moment(j * k, 3, h2, pair) for j in (1, 2))
        np.testing.assert_allclose(lg.limit_gap(alpha, 3, h2, pair), first / k, atol=1e-12)
        gamma2 = (np.exp(second - 2 * first) - 1) / k
        np.testing.assert_allclose(np.exp(lg.log_gamma2(alpha, 3, h2, pair)), gamma2, rtol=1e-10)


def test_the_shifted_gaussian_is_log_normal():
    """B^2 = |delta|^2, gap -alpha B^2 / 2, gamma^2 = (e^(k^2 B^2) - 1) / k."""
    for alpha in (0.0, 0.2, 0.5):
        k, about = 1 - alpha, (50, 3.0, lg.SHIFTED)
        np.testing.assert_allclose(lg.limit_gap(alpha, *about), -alpha * 1.5, atol=1e-12)
        exact = np.expm1(k**2 * 3.0) / k
        np.testing.assert_allclose(np.exp(lg.log_gamma2(alpha, *about)), exact)
    assert lg.log_gamma2(0.0, 10**5, 1e5, lg.SHIFTED) == pytest.approx(1e5)


def test_published_limits():
    """At the perturbed parameters: VR limits, and a draw of which |delta|^2 = 803.7 was found."""
    typical = lambda d: 3.25 * 0.01**2 * d
    found = [lg.limit_gap(a, d, typical(d)) for a, d in ((0.5, 20), (0.5, 100), (0.9, 1000))]
    np.testing.assert_allclose(found, [-0.209, -1.046, -20.39], rtol=2e-3)
    far = lg.elbo_gap(1000, 803.7), lg.limit_gap(0.5, 1000, 803.7)
    np.testing.assert_allclose(far, [-826.5, -354.7], rtol=5e-4)


def test_the_largest_of_normals():
    exact = [0, np.pi**-0.5, 1.5 * np.pi**-0.5]
    np.testing.assert_allclose([lg.expected_maximum(n) for n in (1, 2, 3)], exact, atol=1e-6)


@pytest.mark.slow
def test_the_library_has_these_weights():
    """log w - log p(x) from the formula in (delta, e), and from two numbers a particle."""
    with jax.enable_x64(True):
        x, w = lg.problem(jax.random.key(0), 4, 3, 0.4)
        x, w = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (x, w))
        e = jax.random.normal(jax.random.key(1), (5, 3, 4), jnp.float64)
        found = lg.log_weights(w, x, e, "rep", 0.0) - lg.log_evidence(w, x)
        delta, v = lg.offset(w, x), 2 / 3
        h2 = jnp.sum(delta**2, -1)
        exact = -h2 + 2 * np.log(2 * v) - 2 * v**0.5 * jnp.sum(delta * e, -1)
        exact -= lg.LINEAR.bend * jnp.sum(e**2, -1)
        np.testing.assert_allclose(found, exact, rtol=1e-9)
        exact = stats.multivariate_normal(np.asarray(w.theta), 2 * np.eye(4)).logpdf(np.asarray(x))
        np.testing.assert_allclose(lg.log_evidence(w, x), exact, rtol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_draws_in_two_numbers(name):
    """Mean and variance of log w in one and seven dimensions; 8 z-scores, |z| < 4.5."""
    pair, n = PAIRS[name], 100_000
    draw = jax.jit(lambda d: lg.radial(jax.random.key(2), n, d, jnp.asarray([0.3, 2.0]), pair)[0])
    for dims in (1, 7):
        log_w = np.asarray(draw(jnp.asarray(float(dims))), np.float64)
        mean, var = log_w.mean(0), log_w.var(0)
        fourth = np.mean((log_w - mean) ** 4, 0)
        h2 = np.array([0.09, 4.0])
        z = (mean - lg.elbo_gap(dims, h2, pair)) / np.sqrt(var / n)
        assert (np.abs(z) < 4.5).all()
        z = (var - lg.spread(dims, h2, pair)) / np.sqrt((fourth - var**2) / n)
        assert (np.abs(z) < 4.5).all()


@pytest.mark.slow
def test_moments_do_not_depend_on_the_chunks():
    draw = lambda key: {"x": 1e4 + jax.random.normal(key, (3,))}
    key, count = jax.random.key(3), 101
    x = replicates.collect(draw, key, count, 7)["x"]
    assert x.shape == (count, 3) and len(np.unique(x)) > 290
    np.testing.assert_array_equal(x, replicates.collect(draw, key, count, 101)["x"])
    for chunk in (10, 500):
        found = replicates.moments(draw, key, count, chunk)
        np.testing.assert_allclose(found.mean["x"], x.mean(0, np.float64), rtol=1e-6)
        # 1e4 + a normal is rounded to 1e-3 in float32.
        np.testing.assert_allclose(found.variance["x"], x.var(0, np.float64, ddof=1), rtol=1e-2)
    error = np.sqrt(found.variance["x"] / count)
    np.testing.assert_allclose(found.error()["x"], error)
    with pytest.raises(UserError, match="0 replicates"):
        replicates.collect(draw, key, 0, 1)
