"""Geodesic paths on every manifold: ends, speed, target, and the wrapped normal's density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths import geodesic
from gmjax.spaces import calculus, hyperbolic
from gmjax.types import UserError

SHAPES = {
    "euclidean": (3,),
    "sphere": (3,),
    "torus": (2,),
    "rotations": (3, 3),
    "simplex": (4,),
    "hyperbolic": (3,),
}
KEY = jax.random.key(0)


def components(space, x, v):
    """What a network says for v: <e_k, v>, [n, K]."""
    one = lambda x, v: jax.vmap(lambda e: space.inner(x, e, v))(space.frame(x))
    return jax.vmap(one)(x, v)


def pairs(name, n=50):
    space, base = geodesic.SPACES[name](SHAPES[name], 1.0)
    x0, x1 = (jax.vmap(base.sample)(jax.random.split(k, n)) for k in jax.random.split(KEY))
    return space, geodesic.path(space, base), x0, x1


@pytest.mark.slow
@pytest.mark.parametrize("name", geodesic.SPACES)
def test_the_path_runs_between_its_ends_with_the_speed_it_says(name):
    """In float64: far out on the hyperboloid single precision leaves few digits of a quotient."""
    with jax.enable_x64(True):
        space, path, x0, x1 = pairs(name, 20)
        far = jax.vmap(lambda a, b: calculus.distance(space, a, b))
        h = 1e-4

        @jax.jit
        def measured(t):
            at = lambda t: jax.vmap(path.draw, (None, 0, 0, None))(KEY, x0, x1, t)
            x, target = at(t)
            ahead, behind = (jax.vmap(space.log)(x, at(s)[0]) for s in (t + h, t - h))
            speed = jax.vmap(lambda x, v: calculus.norm(space, x, v))(x, target)
            gap = lambda out: jax.vmap(path.gap)(out, x, jnp.full(len(x), t), target)
            quotient, out = (ahead - behind) / (2 * h), components(space, x, target)
            return x, target, quotient, speed, far(x0, x), far(x0, x1), gap(out), gap(0 * out)

        for t in (0.0, 0.3, 0.8, 1.0):
            x, target, quotient, speed, gone, length, right, wrong = measured(t)
            assert space.check(np.asarray(x)) == ""
            np.testing.assert_allclose(quotient, target, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(speed, length, rtol=1e-6)
            np.testing.assert_allclose(gone, t * length, rtol=1e-6, atol=1e-6)
            assert float(right.max()) < 1e-12
            np.testing.assert_allclose(wrong * space.dim, speed**2, rtol=1e-6)
        np.testing.assert_allclose(x, x1, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", geodesic.SPACES)
def test_steps_along_the_target_follow_the_path(name):
    """With the target held, one step from t to s lands on x_s."""
    space, path, x0, x1 = pairs(name)

    @jax.jit
    def missed(t, s):
        at = lambda t: jax.vmap(path.draw, (None, 0, 0, None))(KEY, x0, x1, t)
        x, target = at(t)
        out = components(space, x, target)
        there = jax.vmap(path.step, (None, 0, 0, None, None))(KEY, out, x, t, s)
        return jax.vmap(lambda a, b: calculus.distance(space, a, b))(there, at(s)[0])

    # A distance is the root of a rounding error, which far out on the hyperboloid grows.
    assert np.quantile(missed(0.9, 0.1), 0.9) < 3e-3


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("scale", [0.5, 1.3])
def test_the_wrapped_normal_has_its_density(dim, scale):
    """Its mass in the volume sinh(r)^(n-1) dr d(angle) is one; its radius is |scale z|."""
    with jax.enable_x64(True):
        law = geodesic.wrapped_normal(dim, scale)
        nodes, weights = np.polynomial.legendre.leggauss(200)
        r = 0.5 * 10 * scale * (nodes + 1)
        x = jnp.zeros((200, dim + 1)).at[:, 0].set(jnp.cosh(r)).at[:, 1].set(jnp.sinh(r))
        area = {2: 2 * np.pi, 3: 4 * np.pi}[dim]
        density = np.exp(jax.vmap(law.log_prob)(x)) * np.sinh(r) ** (dim - 1) * area
        np.testing.assert_allclose(np.sum(5 * scale * weights * density), 1, rtol=1e-9)
    x = jax.vmap(law.sample)(jax.random.split(KEY, 4000))
    square = np.arcsinh(np.linalg.norm(np.asarray(x)[:, 1:], axis=1)) ** 2 / scale**2
    assert abs(square.mean() - dim) < 4.5 * (2 * dim / 4000) ** 0.5
    assert hyperbolic.hyperbolic(dim).check(np.asarray(x)) == ""


def test_a_scale_must_be_positive():
    with pytest.raises(UserError, match="config.path.scale=0.0"):
        geodesic.wrapped_normal(2, 0.0)
