"""The torus against products of unit complex numbers, by numpy and by pymanopt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pymanopt.manifolds import Product, Sphere

from gmjax.spaces import calculus
from gmjax.spaces.torus import torus, wrap

N = 3
SPACE = torus(N)
RNG = np.random.default_rng(0)
X = RNG.uniform(-np.pi, np.pi, (200, N)).astype(np.float32)
V = (3 * RNG.normal(size=(200, N))).astype(np.float32)
Y = RNG.uniform(-np.pi, np.pi, (200, N)).astype(np.float32)


def unit(x):
    return np.exp(1j * np.asarray(x, np.float64))


def inside(x):
    return (x >= -np.float32(np.pi)).all() and (x < np.float32(np.pi)).all()


def test_exp_and_log_agree_with_complex_numbers():
    end = jax.vmap(SPACE.exp)(X, V)
    np.testing.assert_allclose(unit(end), unit(X) * unit(V), atol=1e-6)
    assert inside(end)
    np.testing.assert_allclose(jax.vmap(SPACE.log)(X, Y), np.angle(unit(Y) / unit(X)), atol=1e-6)


def test_geometry_agrees_with_a_product_of_circles():
    circles = Product([Sphere(2)] * N)
    point = lambda x: [np.array([np.cos(a), np.sin(a)]) for a in np.asarray(x, np.float64)]
    turn = lambda x: [np.array([-np.sin(a), np.cos(a)]) for a in np.asarray(x, np.float64)]
    for x, y, v in zip(X[:20], Y[:20], V[:20], strict=True):
        own = calculus.distance(SPACE, jnp.asarray(x), jnp.asarray(y))
        np.testing.assert_allclose(own, circles.dist(point(x), point(y)), atol=1e-6)
        log = circles.log(point(x), point(y))
        angles = [np.dot(a, b) for a, b in zip(log, turn(x), strict=True)]
        np.testing.assert_allclose(SPACE.log(x, y), angles, atol=1e-6)
        move = [a * b for a, b in zip(turn(x), np.asarray(v, np.float64), strict=True)]
        end = circles.exp(point(x), move)
        np.testing.assert_allclose(point(SPACE.exp(x, v)), end, atol=1e-6)


def test_round_trips_up_to_the_cut_locus():
    short = (V / np.abs(V).max() * (np.pi - 1e-3)).astype(np.float32)
    back = jax.vmap(SPACE.log)(X, jax.vmap(SPACE.exp)(X, short))
    np.testing.assert_allclose(back, short, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrapping(dtype):
    with jax.enable_x64():
        x = np.array([0, 1e-9, np.pi, -np.pi, 3.2, -3.2, 7, -7, 3 * np.pi, 50, -1e3], dtype)
        x = np.concatenate([x, np.nextafter(x[2:4], dtype(9)), np.nextafter(x[2:4], dtype(-9))])
        y = np.asarray(wrap(jnp.asarray(x)))
        assert y.dtype == dtype
        assert (y >= -dtype(np.pi)).all() and (y < dtype(np.pi)).all()
        # The full turns taken off are rounded as x itself is.
        error = np.abs(np.exp(1j * np.float64(y)) - np.exp(1j * np.float64(x)))
        eps = np.finfo(dtype).eps
        assert (error <= eps * np.maximum(2, np.abs(x))).all()
        np.testing.assert_allclose(y[6:8], [0.7168146928204135, -0.7168146928204135], rtol=eps)
        assert y[1] == x[1]  # no digit of a small angle is lost
        slopes = jax.vmap(jax.grad(wrap))(jnp.asarray(x))
        np.testing.assert_array_equal(slopes, 1)


def test_gradients_are_finite_everywhere():
    x = jnp.zeros(N)
    for y in (x, x + np.pi, x - np.pi, jnp.asarray([0, np.pi, 1.0])):
        for f in (
            lambda y: calculus.distance(SPACE, x, y),
            lambda y: jnp.sum(SPACE.log(x, y) ** 2),
            lambda y: jnp.sum(SPACE.exp(y, x) ** 2),
            lambda y: jnp.sum(SPACE.embed(y)),
        ):
            assert np.isfinite(jax.grad(f)(y)).all()


def test_features_do_not_jump():
    a, b = SPACE.embed(jnp.full(N, np.pi)), SPACE.embed(jnp.full(N, -np.pi))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert a.shape == (2 * N,)
    np.testing.assert_allclose(jnp.sum(a**2), N, rtol=1e-6)


def test_laplacian_of_a_wave():
    k = jnp.asarray([1.0, 2.0, -3.0])
    wave = lambda x: jnp.cos(x @ k)
    x = jnp.asarray([3.1, -3.1, 0.4])
    np.testing.assert_allclose(calculus.laplacian(SPACE, wave, x), -14 * wave(x), rtol=1e-5)


def test_uniform_law():
    draws = jax.vmap(SPACE.uniform.sample)(jax.random.split(jax.random.key(0), 20_000))
    assert inside(draws)
    # Means of cos and sin of k angles have standard error 0.005: 12 of them within 4.5.
    for k in (1, 2):
        mean = np.exp(1j * k * np.asarray(draws)).mean(0)
        assert max(np.abs(mean.real).max(), np.abs(mean.imag).max()) < 4.5 * 0.005
    np.testing.assert_allclose(SPACE.uniform.log_prob(draws[0]), -N * np.log(2 * np.pi), rtol=1e-6)


def test_bad_angles_are_described():
    assert SPACE.check(X) == "" and SPACE.check(np.full((1, N), -np.pi)) == ""
    message = SPACE.check(np.full((2, N), 90.0))
    assert "90" in message and "radians" in message and "[-pi, pi)" in message
    assert "(2,)" in SPACE.check(np.zeros((4, 2)))
    assert "finite" in SPACE.check(np.full((1, N), np.nan))
