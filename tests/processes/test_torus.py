"""Brownian motion on the torus against its kernel at 60 digits and its own generator."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest

from gmjax import generators
from gmjax.processes import torus
from gmjax.processes.schedules import constant, linear
from gmjax.spaces.torus import wrap

KEY = jax.random.key(2)
TAUS = [1e-3, 1e-2, 0.1, 0.5, 1.0, 3.0, 6.283, 6.284, 8.0, 20.0]
NEAR = [0.0, 1e-6, 1e-3, 1.5707, 1.5709]
ANGLES = np.concatenate(
    [np.linspace(-3.1, 3.1, 25), NEAR, np.pi - 0.1 ** np.arange(1, 7), 1e-4 - np.array([np.pi])]
)


def reference(d, tau):
    """log density and score of the wrapped normal by its images at 60 digits."""
    with mpmath.workdps(60):
        d, tau = mpmath.mpf(float(d)), mpmath.mpf(float(tau))
        far = 4 + int(mpmath.sqrt(2 * tau * 150) / 6)
        images = [d + 2 * mpmath.pi * k for k in range(-far, far + 1)]
        w = [mpmath.exp(-(v**2) / (2 * tau)) for v in images]
        log_p = mpmath.log(mpmath.fsum(w)) - mpmath.log(2 * mpmath.pi * tau) / 2
        score = -mpmath.fsum(v * a for v, a in zip(images, w, strict=True)) / mpmath.fsum(w) / tau
        return float(log_p), float(score)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-12)])
def test_kernel_and_score_at_sixty_digits(dtype, tolerance):
    # Relative to the score itself, also within 1e-6 of the cut locus where it is zero.
    with jax.enable_x64():
        d, taus = np.asarray(ANGLES, dtype), np.asarray(TAUS, dtype)
        run = jax.jit(jax.vmap(lambda tau: (
            torus.wrapped_log_prob(jnp.asarray(d), tau),
            torus.wrapped_score(jnp.asarray(d), tau),
        )))  # fmt: skip
        log_p, score = (np.asarray(v) for v in run(jnp.asarray(taus)))
        assert log_p.dtype == score.dtype == dtype
        exact = np.array([[reference(a, tau) for a in d] for tau in taus])
        np.testing.assert_allclose(score, exact[..., 1], rtol=tolerance, atol=0)
        # A density is as good as the last digit of its logarithm, which may be -5000.
        scale = np.maximum(1, np.abs(exact[..., 0]))
        assert (np.abs(log_p - exact[..., 0]) / scale).max() < tolerance
        seen = exact[..., 0] > -80
        assert np.abs(np.expm1(log_p - exact[..., 0])[seen]).max() < 10 * tolerance


def test_score_vanishes_at_both_ends():
    d = jnp.asarray([0.0, np.pi, -np.pi], jnp.float32)
    for tau in (1e-3, 0.1, 1.0, 8.0):
        score = torus.wrapped_score(d, jnp.asarray(tau))
        steep = np.pi**2 / tau**2 + 1  # the slope at the cut locus
        # pi in single precision is 9e-8 off.
        assert score[0] == 0 and jnp.abs(score[1:]).max() < 1e-7 * steep


def test_score_is_the_gradient():
    process = torus.torus(linear(0.1, 4.0), (2,))

    @jax.jit
    @jax.vmap
    def both(key, t):
        x0 = jnp.asarray([3.0, -1.0])
        x = process.sample(key, x0, t)
        return process.target(x0, x, t), jax.grad(process.log_prob)(x, x0, t)

    target, gradient = both(jax.random.split(KEY, 32), jnp.linspace(0.01, 1, 32))
    np.testing.assert_allclose(target, gradient, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_kernel_solves_the_forward_equation_and_composes():
    with jax.enable_x64():
        process = torus.torus(linear(0.3, 9.0), (1,))
        x0 = jnp.asarray([2.9])
        axis = jnp.linspace(-np.pi, np.pi, 257)[:-1, None]
        volume = 2 * np.pi / 256

        @jax.jit
        def sides(t):
            p = lambda x, t: jnp.exp(process.log_prob(x, x0, t))
            here = jax.vmap(lambda x: p(x, t))(axis)
            rise = jax.vmap(lambda x: jax.grad(p, 1)(x, t))(axis)
            flow = lambda x: generators.adjoint(process.generator, lambda y: p(y, t), x, t)
            return here, rise, jax.vmap(flow)(axis)

        for t in (0.2, 0.6, 1.0):
            p, rise, flow = sides(jnp.asarray(t))
            np.testing.assert_allclose(jnp.sum(p) * volume, 1, rtol=1e-12)
            np.testing.assert_allclose(flow, rise, atol=1e-9)
        # The trapezoidal rule is exact for these smooth periodic functions.
        walk = torus.torus(constant(1.0), (1,))
        kernel = jax.jit(
            lambda t: jnp.exp(
                jax.vmap(lambda y: jax.vmap(lambda x: walk.log_prob(x, y, t))(axis))(axis)
            )
        )
        a, b, c = (kernel(jnp.asarray(t)) for t in (0.3, 0.5, 0.8))
        np.testing.assert_allclose(a @ b * volume, c, atol=1e-12)
        # Across the change of formula at tau = 2 pi too.
        walk, times = torus.torus(constant(10.0), (1,)), np.array([0.6, 0.628318, 0.628319, 0.7])
        density = lambda t: jnp.exp(jax.vmap(lambda x: walk.log_prob(x, x0, t))(axis))
        waves = jnp.fft.rfft(jax.vmap(density)(jnp.asarray(times)))[:, 1]
        np.testing.assert_allclose(jnp.abs(waves) * volume, np.exp(-5 * times), rtol=1e-10)


def statistic(x):
    return jnp.cos(x[0] + 0.3) * jnp.sin(x[1]) + 0.5 * jnp.sin(2 * x[0])


X0 = jnp.asarray([3.0, -0.5])
ATOMS = jnp.asarray([[3.0, -0.5], [-1.0, 0.4], [0.5, 2.0]])
WEIGHTS = jnp.asarray([0.5, 0.2, 0.3])


def test_draws_have_the_density():
    # E exp(i k (x - x0)) = exp(-k^2 tau / 2): 12 z-scores in all, beyond 4.5 at 8e-5.
    process = torus.torus(constant(2.0), (2,))
    for t in (0.05, 0.6):
        x = oracles.draws(process, KEY, X0, jnp.asarray(t), 50_000)
        assert (x >= -np.float32(np.pi)).all() and (x < np.float32(np.pi)).all()
        for k in (1, 2):
            phase = k * (x - X0)
            gap = jnp.cos(phase) - np.exp(-(k**2) * t)
            for sample in (gap[:, 0], gap[:, 1], jnp.sin(phase).sum(1)):
                assert abs(oracles.z(sample)) < oracles.Z


@pytest.mark.slow
def test_steps_and_moments_follow_the_generator():
    process = torus.torus(linear(0.2, 4.0), (2,))
    x, t = jnp.asarray([3.1, -3.0]), jnp.asarray(0.3)
    weak = oracles.weak_step(process.generator, statistic, x, t, KEY, n=50_000)
    assert abs(weak) < oracles.Z
    assert abs(oracles.kolmogorov(process, statistic, X0, KEY, n=20_000)) < oracles.Z


def test_limit_is_uniform():
    process = torus.torus(constant(16.0), (2,))
    assert abs(oracles.limit(process, statistic, X0, KEY, n=20_000)) < oracles.Z
    x = jnp.asarray([0.3, -2.0])
    np.testing.assert_allclose(
        process.log_prob(x, X0, jnp.ones(())), process.base.log_prob(x), atol=2e-3
    )


@pytest.mark.slow
def test_the_reversal_lands_on_the_data():
    process = torus.torus(constant(8.0), (2,))
    times = jnp.linspace(1.0, 0.05, 121)
    value = oracles.reversal(process, statistic, ATOMS, WEIGHTS, KEY, times, n=10_000)
    assert abs(value) < oracles.Z


@pytest.mark.slow
def test_losses_share_their_gradients():
    process = torus.torus(constant(2.0), (2,))
    axis = jnp.linspace(-np.pi, np.pi, 33)[:-1]
    nodes = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    volume = jnp.full(len(nodes), (axis[1] - axis[0]) ** 2)

    def log_beta(p, x, t):
        return p[0] * jnp.cos(x[0] - x[1]) + p[1] * jnp.sin(x[0])

    got = oracles.gradients(
        process, log_beta, jnp.asarray([0.8, -0.5]), ATOMS, WEIGHTS, nodes, volume, jnp.asarray(0.3)
    )
    assert float(jnp.abs(got[0]).max()) > 1e-2
    np.testing.assert_allclose(got[1], got[0], atol=2e-4)
    np.testing.assert_allclose(got[2], got[0], atol=2e-4)


@pytest.mark.slow
def test_the_bound_is_tight_at_the_exact_score_and_loose_at_another():
    process = torus.torus(constant(14.0), (2,))
    tilt = lambda x, t: 0.5 * jnp.cos(x[0])
    exact, (z, gap) = oracles.bound(process, ATOMS, WEIGHTS, KEY, tilt, n=10_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


def test_nothing_is_lost_at_the_start_or_the_cut_locus():
    process = torus.torus(linear(0.1, 10.0), (2,))

    @jax.jit
    def values(x, t):
        slopes = jax.grad(process.log_prob, (0, 1, 2))(x, X0, t)
        target = process.target(X0, x, t)
        turns = jax.jacobian(process.target, 1)(X0, x, t)
        return slopes, target, turns, process.read(x, x, t), process.sample(KEY, x, t)

    for x in (X0, wrap(X0 + np.pi), wrap(X0 - np.pi), jnp.asarray([3.0, 2.6415927])):
        for t in (0.0, 1e-5, 0.1, 1.0):
            for value in jax.tree.leaves(values(x, jnp.asarray(t))):
                assert np.isfinite(value).all()
    np.testing.assert_allclose(process.sample(KEY, X0, jnp.zeros(())), X0, atol=1e-5)


def test_losses_are_of_order_one():
    process = torus.torus(constant(1.0), (2,))

    def loss(t):
        def one(key):
            x = process.sample(key, X0, t)
            return process.simple(x, t, process.target(X0, x, t), jnp.zeros(2))

        return jnp.mean(jax.vmap(one)(jax.random.split(KEY, 20_000)))

    losses = jax.jit(jax.vmap(loss))(jnp.asarray([1e-3, 0.1, 1.0]))
    assert (losses > 0.4).all() and (losses < 1.05).all()


def test_double_precision_and_shapes():
    with jax.enable_x64():
        process = torus.torus(constant(2.0), (2, 3))
        for kind in (jnp.float32, jnp.float64):
            x, t = jnp.ones((2, 3), kind), jnp.asarray(0.3, kind)
            values = lambda x, t: (
                process.sample(KEY, x, t),
                process.target(x, x, t),
                process.log_prob(x, x, t),
            )
            out = jax.eval_shape(values, x, t)
            assert [v.dtype for v in out] == [kind] * 3
            assert [v.shape for v in out] == [(2, 3), (2, 3), ()]
