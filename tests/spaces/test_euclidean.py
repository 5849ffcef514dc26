"""R^d: its maps are sums, and the calculus on it is the ordinary one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.spaces import calculus
from gmjax.spaces.euclidean import euclidean

SPACE = euclidean((2, 2))
X, V = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 2)), jnp.float32)


def f(x):
    return jnp.sin(x[0, 0]) * x[1, 1] + x[0, 1] ** 3


def test_a_length_may_be_numpys():
    assert euclidean(np.int64(3)).shape == euclidean(3).shape == (3,)


def test_maps_are_sums():
    np.testing.assert_allclose(SPACE.exp(X, V), X + V)
    np.testing.assert_allclose(SPACE.log(X, SPACE.exp(X, V)), V, atol=1e-6)
    np.testing.assert_allclose(SPACE.inner(X, X, V), np.vdot(X, V), rtol=1e-6)
    np.testing.assert_allclose(calculus.distance(SPACE, X, X + V), np.linalg.norm(V), rtol=1e-6)
    assert not np.isnan(jax.grad(lambda x: calculus.distance(SPACE, X, x))(X)).any()
    assert SPACE.uniform is None and SPACE.dim == 4 and SPACE.shape == (2, 2)
    assert euclidean(3).shape == (3,)
    assert SPACE.embed(X).shape == (4,)


def test_calculus_is_the_ordinary_one():
    hessian = jax.hessian(f)(X).reshape(4, 4)
    np.testing.assert_allclose(calculus.gradient(SPACE, f, X), jax.grad(f)(X), atol=1e-6)
    np.testing.assert_allclose(calculus.laplacian(SPACE, f, X), jnp.trace(hessian), rtol=1e-5)
    field = lambda x: jnp.stack([x[0] * x[1], jnp.cos(x[1]) + x[0]])
    jacobian = jax.jacobian(field)(X).reshape(4, 4)
    np.testing.assert_allclose(calculus.divergence(SPACE, field, X), jnp.trace(jacobian), rtol=1e-5)


def test_noise_is_standard():
    z = jax.vmap(lambda k: SPACE.noise(k, X))(jax.random.split(jax.random.key(0), 20_000))
    flat = np.asarray(z).reshape(-1, 4)
    # Standard errors 0.007 and at most sqrt(2) times that, 14 numbers: 4.5 of them.
    np.testing.assert_allclose(flat.mean(0), 0, atol=0.032)
    np.testing.assert_allclose(flat.T @ flat / len(flat), np.eye(4), atol=0.045)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((3, 2)), r"shape \(2,\); valid: \(2, 2\)"),
        (np.full((3, 2, 2), np.nan), "not finite"),
        (np.full((3, 2, 2), np.inf), "not finite"),
    ],
)
def test_bad_data_is_described(x, message):
    assert re.search(message, SPACE.check(x))
    assert SPACE.check(np.zeros((3, 2, 2))) == ""


def test_a_boundary_adds_its_own_check():
    half = euclidean(1, jnp.abs, check=lambda x: "negative" if (x < 0).any() else "")
    assert half.check(np.array([[-1.0]])) == "negative"
    assert half.check(np.array([[1.0]])) == ""
    assert half.project(jnp.asarray([-2.0]))[0] == 2
