"""The hyperboloid against the Poincare ball of pymanopt, mpmath and closed forms."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from pymanopt.manifolds import PoincareBall

from gmjax.spaces import calculus
from gmjax.spaces.hyperbolic import hyperbolic, lift, origin, projected, square_distance


def points(seed, dim, n, spread=1.0, dtype=np.float64):
    y = spread * np.random.default_rng(seed).normal(size=(n, dim))
    return np.concatenate([np.sqrt(1 + np.sum(y**2, 1, keepdims=True)), y], 1).astype(dtype)


def to_ball(x):
    return x[..., 1:] / (1 + x[..., :1])


@pytest.mark.parametrize("dim", [2, 3])
def test_agrees_with_the_poincare_ball(dim):
    ball, rng = PoincareBall(dim), np.random.default_rng(0)
    xs, zs = points(1, dim, 8), points(2, dim, 8)
    with jax.enable_x64(True):
        space = hyperbolic(dim)
        push = lambda x, v: np.asarray(jax.jvp(to_ball, (x,), (v,))[1])
        for x, z in zip(jnp.asarray(xs), jnp.asarray(zs), strict=True):
            v = lift(x, jnp.asarray(rng.normal(size=dim)))
            u = lift(x, jnp.asarray(rng.normal(size=dim)))
            a, b = np.asarray(to_ball(x)), np.asarray(to_ball(z))
            assert calculus.distance(space, x, z) == pytest.approx(ball.dist(a, b), rel=1e-6)
            assert space.inner(x, u, v) == pytest.approx(
                ball.inner_product(a, push(x, u), push(x, v)), rel=1e-6, abs=1e-9
            )
            np.testing.assert_allclose(to_ball(space.exp(x, v)), ball.exp(a, push(x, v)), atol=1e-9)
            np.testing.assert_allclose(push(x, space.log(x, z)), ball.log(a, b), atol=1e-9)


def test_frame_is_orthonormal_and_tangent():
    with jax.enable_x64(True):
        space, x = hyperbolic(3), jnp.asarray(points(3, 3, 1)[0])
        e = space.frame(x)
        minkowski = jnp.diag(jnp.asarray([-1.0, 1, 1, 1]))
        np.testing.assert_allclose(e @ minkowski @ e.T, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(e @ minkowski @ x, 0, atol=1e-12)
        v = jnp.asarray([0.3, -1.0, 2.0, 0.5])
        np.testing.assert_allclose(lift(x, projected(x, v)), space.tangent(x, v), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
def test_laplacian_gradient_and_divergence(dim):
    """Laplacian cosh d = n cosh d, of f(d) = f'' + (n - 1) coth(d) f', div grad = Laplacian."""
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    with jax.enable_x64(True):
        space = hyperbolic(dim)
        x, z = jnp.asarray(points(4, dim, 2))
        d = calculus.distance(space, x, z)
        cosh = lambda y: jnp.cosh(calculus.distance(space, y, z))
        square = lambda y: calculus.distance(space, y, z) ** 2
        close(calculus.laplacian(space, cosh, x), dim * jnp.cosh(d))
        close(calculus.laplacian(space, square, x), 2 + 2 * (dim - 1) * d / jnp.tanh(d))
        close(calculus.gradient(space, square, x), -2 * space.log(x, z))
        away = calculus.divergence(space, lambda y: -space.log(y, z), x)
        close(away, 1 + (dim - 1) * d / jnp.tanh(d))
        # At the point itself, where the functions of |v| are at zero.
        inner = lambda y: space.inner(z, space.log(z, y), space.log(z, y))
        close(calculus.laplacian(space, inner, z), 2 * dim)


def test_float32_keeps_its_digits():
    """exp and log near and far, from points at distance up to 5, against 50 digits."""
    mpmath.mp.dps = 50
    rng, space = np.random.default_rng(5), hyperbolic(2)
    for radius, length in [(0.1, 1e-5), (1, 1e-3), (3, 1e-4), (5, 1e-2), (5, 1), (2, 6)]:
        angle, turn = rng.uniform(0, 2 * np.pi, 2)
        y = np.sinh(radius) * np.asarray([np.cos(angle), np.sin(angle)])
        x = space.project(jnp.asarray([0, *y], jnp.float32))
        c = length * jnp.asarray([np.cos(turn), np.sin(turn)], jnp.float32)
        z = space.exp(x, lift(x, c))
        # The exact distance of the two rounded points.
        a, b = ([mpmath.mpf(float(q)) for q in p[1:]] for p in (x, z))
        a0, b0 = (mpmath.sqrt(1 + sum(q * q for q in p)) for p in (a, b))
        exact = float(mpmath.acosh(a0 * b0 - a[0] * b[0] - a[1] * b[1]))
        # Rounding of a coordinate of size sinh r moves a point by at most eps sinh r cosh r ...
        eps = np.finfo(np.float32).eps
        assert calculus.distance(space, x, z) == pytest.approx(exact, rel=40 * eps * np.exp(radius))
        # ... which exp cannot avoid.
        assert exact == pytest.approx(length, rel=1e-5, abs=eps * np.exp(radius + length))


@pytest.mark.slow
def test_never_nan():
    space, x = hyperbolic(2), origin(2)
    for point in (x, jnp.asarray(points(6, 2, 1, dtype=np.float32)[0])):
        zero = jnp.zeros(3)
        for f in (
            lambda v, x=point: jnp.sum(space.exp(x, v)),
            lambda v, x=point: jnp.sum(space.log(x, x + v)),
            lambda v, x=point: calculus.distance(space, x, x + v),
            lambda v, x=point: jnp.sum(space.embed(x + v)),
        ):
            assert np.isfinite(f(zero)) and np.isfinite(jax.grad(f)(zero)).all()
            assert np.isfinite(jax.hessian(f)(zero)).all()


def test_projection_embedding_and_noise():
    space = hyperbolic(3)
    xs = points(7, 3, 5, dtype=np.float32)
    assert space.check(xs) == ""
    assert "shape" in space.check(xs[:, 1:])
    assert "off the hyperboloid" in space.check(xs + 0.1)
    assert "not finite" in space.check(np.where(xs > 1, np.nan, xs))
    assert "off the hyperboloid" in space.check(xs * [-1, 1, 1, 1])
    assert jax.vmap(space.embed)(xs).shape == (5, 6)
    assert space.check(np.asarray(jax.vmap(space.project)(xs + 0.1))) == ""
    noise = space.noise(jax.random.key(0), jnp.asarray(xs[0]))
    np.testing.assert_allclose(
        space.tangent(jnp.asarray(xs[0]), noise), noise, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_float32_keeps_its_digits_far_out():
    """At x_0 up to 1e4 Minkowski products have no digit left; these have three or more."""
    with jax.enable_x64(True):
        plane = hyperbolic(2)
        rng = np.random.default_rng(5)
        x = points(1, 2, 200, 3000.0)
        v = jax.vmap(lift)(
            x, jnp.asarray(rng.normal(size=(200, 2)) * rng.uniform(0.01, 4, (200, 1)))
        )
        z = jax.vmap(plane.exp)(x, v).astype(np.float32).astype(np.float64)
        x = x.astype(np.float32).astype(np.float64)
        x, z = (
            jnp.concatenate([jnp.sqrt(1 + (a[:, 1:] ** 2).sum(-1, keepdims=True)), a[:, 1:]], -1)
            for a in (x, z)
        )
        distance = np.arccosh(np.asarray(x[:, 0] * z[:, 0] - (x[:, 1:] * z[:, 1:]).sum(-1)))
    low = [jnp.asarray(a, jnp.float32) for a in (x, z)]
    np.testing.assert_allclose(
        jax.vmap(square_distance)(*low) ** 0.5, distance, rtol=2e-3, atol=2e-3
    )
    there = jax.vmap(hyperbolic(2).log)(*low)
    size = jax.vmap(hyperbolic(2).inner)(low[0], there, there) ** 0.5
    np.testing.assert_allclose(size, distance, rtol=5e-3, atol=5e-3)
    # On opposite sides of the origin too.
    a, b = (jnp.asarray([np.sqrt(1 + y**2), y, 0.0], jnp.float32) for y in (100.0, -100.0))
    np.testing.assert_allclose(square_distance(a, b) ** 0.5, 2 * np.arcsinh(100.0), rtol=1e-6)


def test_distances_up_to_eighty_in_single_precision():
    """exp and log from points up to 3 out, against double precision; finite at any distance."""
    space = hyperbolic(2)
    d = jnp.asarray([*10.0 ** np.arange(-6, 1), 5, 20, 40, 60, 80], jnp.float32)
    out = lambda r, a: space.exp(
        origin(2), lift(origin(2), r * jnp.asarray([np.cos(a), np.sin(a)]))
    )
    there = jax.vmap(lambda d: d * jnp.asarray([0.28, 0.96]))

    @jax.jit
    def measured(x, c):
        z = jax.vmap(lambda c: space.exp(x, lift(x, c)))(c)
        v = jax.vmap(lambda z: space.log(x, z))(z)
        back = jax.vmap(lambda v: space.exp(x, v))(v)
        return (
            z,
            v,
            jnp.max(jnp.abs(back - z), 1) / z[:, 0],
            jax.vmap(lambda z: square_distance(x, z))(z),
        )

    for radius in (0.0, 1.0, 3.0):
        x = out(radius, 0.4)
        z, v, miss, square = measured(x, there(d))
        assert (miss < 1e-5 * np.exp(radius)).all()
        with jax.enable_x64(True):
            wide = lambda a: jnp.asarray(np.asarray(a), float)
            at = space.project(wide(x))
            exact = jax.vmap(square_distance, (None, 0))(at, jax.vmap(space.project)(wide(z)))
            size = jax.vmap(space.inner, (None, 0, 0))(at, wide(v), wide(v))
        np.testing.assert_allclose(size, exact, rtol=3e-5)
        np.testing.assert_allclose(square, exact, rtol=3e-5)


@pytest.mark.slow
def test_nothing_is_nan_however_far():
    """Points up to 80 out, on all sides of each other; to 12 out with their derivatives."""
    space = hyperbolic(2)
    place = lambda r, a: jnp.asarray([np.cosh(r), *(np.sinh(r) * np.cos(a - b) for b in (0, 1.5))])
    x = jnp.stack([place(r, a) for r in (0.0, 1.0, 5.0, 12.0, 50.0, 80.0) for a in (0.3, 1.8, 3.5)])

    def values(x, z):
        x, z = space.project(x), space.project(z)
        v = space.log(x, z)
        return v, space.exp(x, v), space.embed(z), square_distance(x, z)

    def slopes(x, z):
        go = jax.jacfwd(space.exp, 1)(x, space.log(x, z))
        return go, jax.jacrev(lambda x, z: values(x, z), (0, 1))(x, z)

    for f, far in ((values, x), (slopes, x[:12])):
        i, j = np.indices((len(far), len(far))).reshape(2, -1)
        for leaf in jax.tree.leaves(jax.jit(jax.vmap(f))(far[i], far[j])):
            assert not np.isnan(leaf).any()
