"""The simplex: its geometry, its checks and the Dirichlet laws on it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gmjax.spaces import calculus
from gmjax.spaces.simplex import dirichlet, draw_dirichlet, project, simplex

SPACE = simplex(4)
X = jnp.asarray([0.1, 0.2, 0.3, 0.4])


def test_geometry_is_flat():
    v = SPACE.tangent(X, jnp.asarray([1.0, 2.0, -1.0, 5.0]))
    assert abs(float(jnp.sum(v))) < 1e-6 and SPACE.dim == 3
    np.testing.assert_allclose(SPACE.log(X, SPACE.exp(X, 0.01 * v)), 0.01 * v, atol=1e-7)
    frame = np.asarray(SPACE.frame(X))
    np.testing.assert_allclose(frame.T @ frame, np.eye(4) - 0.25, atol=1e-6)
    noise = jax.jit(jax.vmap(lambda k: SPACE.noise(k, X)))(
        jax.random.split(jax.random.key(0), 40_000)
    )
    # The entries of the covariance have standard errors of at most .0053; 16 of them, z < 4.5.
    np.testing.assert_allclose(np.cov(np.asarray(noise).T), np.eye(4) - 0.25, atol=4.5 * 0.0053)


@pytest.mark.slow
def test_calculus_is_that_of_the_first_coordinates():
    """f(x_1, .., x_{D-1}, 1 - sum) has a gradient and a Laplacian in closed form."""
    f = lambda x: x[0] ** 2 * x[1] + jnp.sin(x[3])
    plain = jax.grad(f)(X)
    np.testing.assert_allclose(
        jax.jit(lambda x: calculus.gradient(SPACE, f, x))(X), plain - plain.mean(), atol=1e-6
    )
    hessian = jax.hessian(f)(X)
    expected = jnp.trace(hessian) - jnp.sum(hessian) / 4
    np.testing.assert_allclose(
        jax.jit(lambda x: calculus.laplacian(SPACE, f, x))(X), expected, rtol=1e-5
    )
    # The divergence of V in D - 1 coordinates: sum_{i < D} dV_i / dx_i with x_D = 1 - sum.
    field = lambda x: SPACE.tangent(x, x**2 * x[::-1])
    inner = lambda y: field(jnp.append(y, 1 - jnp.sum(y)))[:-1]
    expected = jnp.trace(jax.jacobian(inner)(X[:-1]))
    np.testing.assert_allclose(
        jax.jit(lambda x: calculus.divergence(SPACE, field, x))(X), expected, rtol=1e-5
    )


def test_projection_stays_inside():
    for x in ([0.5, 0.6, -0.1, 0.0], [-1.0, -2.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]):
        y = np.asarray(project(jnp.asarray(x)))
        assert y.min() >= 0 and abs(y.sum() - 1) < 1e-6 and not SPACE.check(y[None])
        slope = jax.jacobian(project)(jnp.asarray(x))
        assert np.isfinite(slope).all()
    np.testing.assert_allclose(project(X), X, atol=1e-7)


@pytest.mark.parametrize(
    "x, message",
    [
        ([[0.5, 0.5, 0.5, -0.5]], "negative value -0.5; valid: non-negative"),
        ([[0.5, 0.5, 0.5, 0.5]], "sums to 2; valid: non-negative numbers that sum to one"),
        ([[0.5, 0.5, np.nan, 0.0]], "not finite"),
        ([[0.5, 0.5]], r"shape \(2,\); valid: \(4,\)"),
    ],
)
def test_what_is_off_the_simplex_is_said(x, message):
    assert re.search(message, SPACE.check(np.asarray(x, np.float32)))


def test_rounding_passes():
    assert SPACE.check(np.full((3, 4), 0.25 + 1e-5, np.float32)) == ""
    assert SPACE.check(np.eye(4, dtype=np.float32)) == ""
    assert SPACE.check(np.zeros((0, 4), np.float32)) == ""


@pytest.mark.parametrize("alpha", [[1.0, 1.0, 1.0, 1.0], [0.01, 0.5, 2.0, 30.0]])
def test_dirichlet_laws(alpha):
    """scipy's density; 40 000 draws: 8 moments at |z| < 4.5."""
    law, exact = dirichlet(alpha), stats.dirichlet(alpha)
    x = np.random.default_rng(0).dirichlet([2.0] * 4, 20).astype(np.float32)
    got = jax.jit(jax.vmap(law.log_prob))(jnp.asarray(x))
    expected = [exact.logpdf(row / row.sum()) for row in x.astype(np.float64)]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    keys = jax.random.split(jax.random.key(1), 40_000)
    draws = np.asarray(jax.jit(jax.vmap(law.sample))(keys), np.float64)
    assert np.isfinite(draws).all() and draws.min() >= 0
    np.testing.assert_allclose(draws.sum(1), 1, atol=1e-6)
    mean, var = exact.mean(), exact.var()
    error = draws.std(0) / 200 + 1e-7
    assert (np.abs(draws.mean(0) - mean) / error).max() < 4.5
    square = (draws - mean) ** 2
    assert (np.abs(square.mean(0) - var) / (square.std(0) / 200 + 1e-9)).max() < 4.5
    edge = jnp.asarray([0.0, 0.0, 0.5, 0.5])
    assert np.isfinite(law.log_prob(edge)) and np.isfinite(jax.grad(law.log_prob)(edge)).all()


def test_the_uniform_law_is_textbook():
    """Density (D - 1)! in D - 1 of the coordinates."""
    np.testing.assert_allclose(SPACE.uniform.log_prob(X), np.log(6), rtol=1e-6)


def test_draws_with_a_zero_concentration_have_a_zero():
    x = jax.jit(draw_dirichlet)(jax.random.key(0), jnp.asarray([0.0, 1e-7, 1e7]))
    assert float(x[0]) == 0 and np.isfinite(x).all() and abs(float(x.sum()) - 1) < 1e-6
