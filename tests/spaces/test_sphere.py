"""The sphere's geometry, held against pymanopt, its own inverses and spherical harmonics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pymanopt.manifolds import Sphere

from gmjax.spaces import calculus, sphere
from gmjax.types import UserError


def points(dim, n, seed=0, dtype=np.float64):
    x = np.random.default_rng(seed).normal(size=(n, dim + 1))
    return jnp.asarray((x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(dtype))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_agrees_with_pymanopt(dim):
    theirs, ours = Sphere(dim + 1), sphere.sphere(dim)
    with jax.enable_x64(True):
        x, y, z = (points(dim, 20, seed) for seed in range(3))

        @jax.jit
        @jax.vmap
        def all_of(x, y, z):
            v = ours.tangent(x, 2 * z)
            gap = calculus.distance(ours, x, y)
            return v, ours.exp(x, v), ours.log(x, y), gap, ours.inner(x, v, z), sphere.angle(x, y)

        for i, (v, y1, w, gap, uv, theta) in enumerate(zip(*all_of(x, y, z), strict=True)):
            a, b, c = (np.asarray(p[i]) for p in (x, y, z))
            np.testing.assert_allclose(v, theirs.projection(a, 2 * c), atol=1e-12)
            np.testing.assert_allclose(y1, theirs.exp(a, np.asarray(v)), atol=1e-12)
            np.testing.assert_allclose(w, theirs.log(a, b), atol=1e-6)
            np.testing.assert_allclose([gap, theta], theirs.dist(a, b), atol=1e-6)
            np.testing.assert_allclose(uv, theirs.inner_product(a, np.asarray(v), c), atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("length", [0.0, 1e-4, 0.05, 1.0, 3.0, np.pi - 1e-3])
def test_round_trips_in_single_precision(dim, length):
    """A few units of rounding, 1.2e-7, of which the antipode magnifies none in y."""
    space = sphere.sphere(dim)
    x, z = points(dim, 50, dtype=np.float32), points(dim, 50, 1, np.float32)

    @jax.jit
    @jax.vmap
    def trip(x, z):
        v = length * sphere.project(space.tangent(x, z))
        y = space.exp(x, v)
        back = space.log(x, y)
        return v, back, y, space.exp(x, back), jnp.sum(x * back)

    v, back, y, again, normal = trip(x, z)
    np.testing.assert_allclose(again, y, atol=2e-6)
    np.testing.assert_allclose(normal, 0, atol=2e-6)
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), 1, atol=1e-6)
    # Close to the antipode a rounded y fixes the direction to 1e-7 / sin(length).
    near_cut = 500 if length > 3.1 else 1
    np.testing.assert_allclose(back, v, atol=4e-6 * near_cut)


def test_values_and_gradients_where_the_angle_is_singular():
    space = sphere.sphere(2)
    x = points(2, 1, dtype=np.float32)[0]
    all_of = lambda x, y: (space.log(x, y), sphere.angle(x, y), space.exp(x, y), sphere.project(y))
    both = jax.jit(lambda x, y: (all_of(x, y), jax.jacfwd(all_of, (0, 1))(x, y)))
    for y in (x, -x, 0 * x, points(2, 1, 3, np.float32)[0]):
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(both(x, y)))
    far = space.log(x, -x)
    assert float(jnp.linalg.norm(far)) == pytest.approx(np.pi, rel=1e-6)
    np.testing.assert_allclose(space.exp(x, far), -x, atol=1e-6)
    np.testing.assert_allclose(space.log(x, x), 0, atol=1e-7)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_calculus(dim):
    """Linear functions and z_1 z_2 are eigenfunctions, -l (l + n - 1), at the poles too."""
    space = sphere.sphere(dim)
    with jax.enable_x64(True):
        a = jnp.arange(1.0, dim + 2)
        first, second = lambda x: a @ x, lambda x: x[0] * x[1]

        @jax.jit
        @jax.vmap
        def all_of(x):
            return (
                calculus.laplacian(space, first, x),
                calculus.laplacian(space, second, x),
                calculus.gradient(space, first, x),
                calculus.divergence(space, lambda y: space.tangent(y, a), x),
                space.frame(x).T @ space.frame(x),
            )

        x = jnp.concatenate([jnp.eye(dim + 1)[:1], points(dim, 3, 2)])
        one, two, grad, div, metric = all_of(x)
        np.testing.assert_allclose(one, -dim * x @ a, atol=1e-12)
        np.testing.assert_allclose(two, -2 * (dim + 1) * x[:, 0] * x[:, 1], atol=1e-12)
        np.testing.assert_allclose(grad, a - (x @ a)[:, None] * x, atol=1e-12)
        np.testing.assert_allclose(div, -dim * x @ a, atol=1e-12)
        np.testing.assert_allclose(metric, np.eye(dim + 1) - x[:, :, None] * x[:, None], atol=1e-12)


def test_noise_and_uniform_law():
    """20000 draws: every z-score, 4 means and 9 + 9 products, is below 4.5 but for 2e-4."""
    space, n = sphere.sphere(2), 20_000
    assert space.uniform is not None
    keys = jax.random.split(jax.random.key(0), n)
    x0 = points(2, 1, dtype=np.float32)[0]
    v = np.asarray(jax.vmap(lambda k: space.noise(k, x0))(keys), np.float64)
    x = np.asarray(jax.vmap(space.uniform.sample)(keys), np.float64)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(v @ np.asarray(x0), 0, atol=1e-5)
    outer = lambda a: a[:, :, None] * a[:, None, :]
    cov = np.eye(3) - np.outer(x0, x0)
    for draws, mean in ((x, 0), (outer(x), np.eye(3) / 3), (v, 0), (outer(v), cov)):
        gap = np.abs(draws.mean(0) - mean) / (draws.std(0) / np.sqrt(n))
        assert gap.max() < 4.5
    assert float(space.uniform.log_prob(x0)) == pytest.approx(-np.log(4 * np.pi), rel=1e-6)
    assert sphere.log_area(1) == pytest.approx(np.log(2 * np.pi))
    assert sphere.log_area(3) == pytest.approx(np.log(2 * np.pi**2))


def test_bad_points_are_named():
    space = sphere.sphere(2)
    good = np.asarray(points(2, 4, dtype=np.float32))
    assert space.check(good) == "" and space.check(good * 1.0005) == ""
    assert "divide x by |x|" in space.check(good * 1.01)
    assert "valid: (3,)" in space.check(good[:, :2])
    assert "finite" in space.check(good * np.nan)
    assert space.embed(jnp.asarray(good[0])).shape == (3,)
    with pytest.raises(UserError, match="dim=0"):
        sphere.sphere(0)
