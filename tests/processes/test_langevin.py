"""Critically damped Langevin: its covariance at 50 digits, and what a degenerate noise sees."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gmjax.processes import langevin
from gmjax.processes.schedules import constant, linear
from gmjax.types import UserError

KEY = jax.random.key(1)
CLOCKS = [1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.99, 1.01, 2.0, 5.0, 20.0]


def covariance(s, gamma):
    """I - E E^T + gamma E e2 e2^T E^T with E the matrix exponential: three mpmath numbers."""
    with mpmath.workdps(60):
        e = mpmath.expm(mpmath.matrix([[0, 1], [-1, -2]]) * mpmath.mpf(float(s)))
        c = mpmath.eye(2) - e * e.T + mpmath.mpf(gamma) * e[:, 1] * e[:, 1].T
        xx = mpmath.sqrt(c[0, 0])
        ux = c[1, 0] / xx
        return xx, ux, mpmath.sqrt(c[1, 1] - ux**2)


@pytest.mark.parametrize("gamma", [0.0, 0.04])
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 5e-7), (np.float64, 1e-14)])
def test_covariance_keeps_its_digits(gamma, dtype, tolerance):
    with jax.enable_x64():
        own = jax.jit(jax.vmap(lambda s: langevin.cholesky(s, gamma)))
        got = np.stack(own(jnp.asarray(CLOCKS, dtype)))
        assert got.dtype == dtype
        for s, column in zip(np.asarray(CLOCKS, dtype), got.T, strict=True):
            for a, b in zip(column, covariance(s, gamma), strict=True):
                assert abs(float(a) / b - 1) < tolerance


@pytest.mark.slow
def test_position_alone_is_the_mean_over_velocities():
    # N(v0; 0, gamma M) pushed through the kernel of the Markov process, by quadrature.
    with jax.enable_x64():
        mass, gamma, t = 0.4, 0.3, jnp.asarray(0.2)
        schedule = linear(0.5, 3.0)
        exact = langevin.langevin(schedule, (2, 1), mass=mass)
        given = langevin.langevin(schedule, (2, 1), mass=mass, gamma=gamma)
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        x0 = jnp.asarray([0.8])
        starts = jnp.stack([jnp.array([[0.8], [v]]) for v in np.sqrt(gamma * mass) * nodes])
        x = jnp.asarray([[0.9], [-0.3]])
        each = jax.vmap(lambda a: exact.log_prob(x, a, t))(starts)
        expected = jax.scipy.special.logsumexp(each, b=weights / np.sqrt(2 * np.pi))
        start = langevin.start(x0)
        assert start.shape == (2, 1)
        np.testing.assert_allclose(given.log_prob(x, start, t), expected, rtol=1e-9)
        target = jax.nn.softmax(each + np.log(weights)) @ jax.vmap(
            lambda a: exact.target(a, x, t)[:, 0]
        )(starts)
        np.testing.assert_allclose(given.target(start, x, t)[:, 0], target, rtol=1e-7)


def test_draws_from_a_position_have_the_density():
    process = langevin.langevin(constant(2.0), (2, 1), mass=0.4, gamma=0.3)
    x0, t, n = langevin.start(jnp.asarray([0.8])), jnp.asarray(0.15), 100_000

    @jax.jit
    def score_moments(key):
        x = jax.vmap(lambda k: process.sample(k, x0, t))(jax.random.split(key, n))
        s = jax.vmap(lambda x: process.target(x0, x, t))(x)[..., 0]
        # E (x - m) s^T = -I for any density that vanishes at infinity.
        products = (x[..., 0] - jnp.mean(x[..., 0], 0))[:, :, None] * s[:, None, :]
        flat = jnp.concatenate([s, (products + jnp.eye(2)).reshape(n, 4)], 1)
        return jnp.mean(flat, 0) / jnp.std(flat, 0) * n**0.5

    # Six z-scores: one beyond 4.5 has probability 4e-5.
    assert jnp.abs(score_moments(KEY)).max() < 4.5


def test_only_the_velocitys_score_counts():
    process = langevin.langevin(constant(2.0), (2, 3), mass=0.4)
    x0, x = jax.random.normal(KEY, (2, 2, 3))
    t, dt = jnp.asarray(0.4), jnp.asarray(0.1)
    target = process.target(x0, x, t)
    wrong = target.at[0].add(100.0)
    for gap in (process.phi, process.simple):
        assert gap(x, t, target, wrong) == 0
        assert gap(x, t, target, target.at[1].add(1.0)) > 0
    steps = [process.reverse(lambda x, t, s=s: s).step(KEY, x, t, dt) for s in (target, wrong)]
    np.testing.assert_array_equal(*steps)
    moves = [process.velocity(lambda x, t, s=s: s)(x, t) for s in (target, wrong)]
    np.testing.assert_array_equal(*moves)
    # Positions move backwards with the velocity and without noise.
    np.testing.assert_allclose(steps[0][0], x[0] - dt * 2.0 * x[1] / 0.4, rtol=1e-5)
    assert (process.read(x, x, t)[0] == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.04])
def test_short_times_are_finite(gamma):
    process = langevin.langevin(linear(0.1, 10.0), (2, 3), gamma=gamma)
    x0 = langevin.start(jnp.asarray([1.0, -0.4, 0.0]))

    def values(t):
        x = process.sample(KEY, x0, t)
        slopes = jax.grad(process.log_prob, (0, 1, 2))(x0, x0, t)
        return x, process.target(x0, x, t)[1], process.read(x, x, t), slopes

    run = jax.jit(values)
    for t in (0.0, 1e-7, 1e-5, 1e-3):
        for value in jax.tree.leaves(run(jnp.asarray(t))):
            assert np.isfinite(value).all()


@pytest.mark.parametrize(
    "shape, settings, message",
    [
        ((3,), {}, r"shape=\(3,\) must start with 2"),
        ((), {}, "must start with 2"),
        ((2, 3), {"mass": 0.0}, "mass=0.0"),
        ((2, 3), {"gamma": -1.0}, "gamma=-1.0"),
    ],
)
def test_bad_settings_are_named(shape, settings, message):
    with pytest.raises(UserError, match=message):
        langevin.langevin(constant(), shape, **settings)
