"""Interpolants of two exact laws against each other, derivatives and regression."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmjax.paths.gaussian import PATHS
from gmjax.targets import TARGETS, laws
from gmjax.targets.interpolants import interpolant, velocity
from gmjax.types import UserError

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(3, 3))
NORMAL = TARGETS["gaussian"](np.zeros(3), 1.0)
FULL = TARGETS["gaussian"]([0.5, 0, -1], ROOT @ ROOT.T)
MIXTURE = TARGETS["mixture"]([0.3, 0.7], RNG.normal(size=(2, 3)), [0.2, 0.5])
POINTS = TARGETS["two_point"](3)
COLUMNS = TARGETS["mixture_product"](3, [0.3, 0.7], [-1, 0.5], [0.3, 0.2])
SPHERE = TARGETS["sphere"](3, 1.2)
SHIFTED = TARGETS["gaussian"]([1.0, 2.0, 3.0], 0.3)
PAIRS = {
    "mixtures": (MIXTURE, FULL),
    "diagonal": (MIXTURE, SHIFTED),
    "products": (POINTS, COLUMNS),
    "product_and_gaussian": (POINTS, TARGETS["gaussian"](np.ones(3), [0.1, 0.2, 0.3])),
    "sphere": (SPHERE, SHIFTED),
    "sphere_last": (SHIFTED, SPHERE),
}


@pytest.mark.parametrize("name", PAIRS)
def test_score_is_the_gradient_and_the_parts_add_up(name):
    """alpha E[X0 | x] + beta E[X1 | x] + gamma E[Z | x] = x, and E[Z | x] = -gamma score."""
    with jax.enable_x64(True):
        law = interpolant(*PAIRS[name])
        x, c = jnp.asarray([0.3, -0.4, 1.1]), jnp.asarray([0.6, 0.5, 0.4])
        every = jax.jit(
            lambda x, *c: (jax.grad(law.log_prob)(x, *c), law.score(x, *c), law.means(x, *c))
        )
        slope, score, means = every(x, *c)
        np.testing.assert_allclose(slope, score, atol=1e-10)
        np.testing.assert_allclose(sum(a * m for a, m in zip(c, means, strict=True)), x, atol=1e-10)
        np.testing.assert_allclose(means[2], -c[2] * score, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_covariance_is_the_curvature_and_draws_have_the_score(name):
    """Cov(W | x) = gamma^2 (I + gamma^2 Hessian log p); E[x . score + d] = 0 over the draws.

    The second is Stein's identity coordinate by coordinate: |z| < 4.5 over 18 comparisons.
    """
    law = interpolant(*PAIRS[name])
    with jax.enable_x64(True):
        x, (a, b, g) = jnp.asarray([0.3, -0.4, 1.1]), jnp.asarray([0.6, 0.5, 0.4])

        @jax.jit
        def both(x):
            return laws.dense(law.posterior(x, a, b, g)), jax.jacfwd(law.score)(x, a, b, g)

        got, hessian = both(x)
        np.testing.assert_allclose(got, g**2 * (np.eye(3) + g**2 * hessian), atol=1e-10)
    c = [jnp.asarray(q, jnp.float32) for q in (0.6, 0.5, 0.4)]
    draws = jax.vmap(lambda key: law.sample(key, *c))
    x = jax.jit(draws)(jax.random.split(jax.random.key(1), 20_000))
    stein = np.asarray(x * jax.jit(jax.vmap(lambda x: law.score(x, *c)))(x) + 1, np.float64)
    assert (np.abs(stein.mean(0)) < 4.5 * stein.std(0) / np.sqrt(len(stein))).all()


@pytest.mark.parametrize("name", PAIRS)
def test_means_are_conditional_expectations(name):
    """E[X0 . h(X)] = E[E[X0 | X] . h(X)] for some h, in draws: |z| < 4.5 over 36 comparisons."""
    start, end = PAIRS[name]
    law, n = interpolant(start, end), 20_000
    keys = jax.random.split(jax.random.key(0), 3)
    x0 = jax.vmap(start.sample)(jax.random.split(keys[0], n))
    x1 = jax.vmap(end.sample)(jax.random.split(keys[1], n))
    a, b, g = (jnp.asarray(c) for c in (0.6, 0.5, 0.4))
    z = jax.random.normal(keys[2], x0.shape)
    x = a * x0 + b * x1 + g * z
    means = jax.jit(jax.vmap(lambda x: law.means(x, a, b, g)))(x)
    for truth, mean in zip((x0, x1, z), means, strict=True):
        for h in (jnp.tanh(x), jnp.cos(2 * x)):
            draws = np.sum(np.asarray((truth - mean) * h, np.float64), -1)
            assert abs(draws.mean()) < 4.5 * draws.std() / np.sqrt(n)


@pytest.mark.slow
@pytest.mark.parametrize("target", [MIXTURE, POINTS, SPHERE, FULL])
def test_a_gaussian_end_is_the_path_of_a_diffusion(target):
    """(1 - t) X0 + t X1, X1 standard normal, whether X1 or Z carries the noise."""
    path = PATHS["linear"]()
    law = interpolant(target, NORMAL)
    x, t = jnp.asarray([0.3, -0.4, 1.1]), jnp.asarray(0.6)
    want = laws.velocity(target, path)(x, t)
    ends = lambda t: (1 - t, t, 0 * t)
    noise = lambda t: (1 - t, 0 * t, t)
    for coefficients in (ends, noise):
        got = jax.jit(velocity(law, coefficients))(x, t)
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)
    got = law.log_prob(x, 1 - t, t, jnp.zeros(()))
    np.testing.assert_allclose(got, target.log_prob(x, 1 - t, t), rtol=1e-5)


def test_the_velocity_carries_the_density():
    """The continuity equation: d log p / dt + v . score + div v = 0."""
    law = interpolant(MIXTURE, FULL)
    gamma = lambda t: 0.8 * jnp.sqrt(t * (1 - t) + 0.01)
    coefficients = lambda t: (1 - t, t, gamma(t))
    with jax.enable_x64(True):
        x, t = jnp.asarray([0.3, -0.4, 1.1]), jnp.asarray(0.35)
        v = velocity(law, coefficients)

        @jax.jit
        def balance(x, t):
            rate = jax.grad(lambda t: law.log_prob(x, *coefficients(t)))(t)
            carried = v(x, t) @ law.score(x, *coefficients(t))
            return rate + carried + jnp.trace(jax.jacfwd(v)(x, t))

        np.testing.assert_allclose(balance(x, t), 0, atol=1e-10)


def test_pairs_without_a_closed_form_say_so():
    with pytest.raises(UserError, match="no closed form"):
        interpolant(SPHERE, MIXTURE)
    with pytest.raises(UserError, match="must be equal"):
        interpolant(SPHERE, TARGETS["sphere"](2))
