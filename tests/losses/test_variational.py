"""Bounds and their gradients against a linear-Gaussian model in closed form and by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from gmjax.losses import variational
from gmjax.losses.variational import Gaussian, bound

ALPHAS = (0.0, 0.3, 0.5, 0.9)
V = 2 / 3  # variance of q
X = np.array([0.7, -1.2])
THETA = np.array([0.2, 0.5])
PHI = {"a": np.array([0.3, 0.8]), "b": np.array([0.4, -0.3])}
VALUE = jax.jit(bound)
PULLED = jax.jit(jax.value_and_grad(lambda log_w, alpha: bound(log_w, alpha).sum()))
SIZE = jax.jit(variational.effective_size)


def log_weights(theta, phi, x, noise, gradient="rep", alpha=0.0):
    """z ~ N(theta, I), x | z ~ N(z, I), q = N(a x + b, V I): [N, ..., d] noise -> [N, ...]."""
    mean = phi["a"] * x + phi["b"]
    q = Gaussian(mean, jnp.full_like(mean, 0.5 * np.log(V)))
    z, q, mark = variational.GRADIENTS[gradient](variational.draw(q, noise), q, alpha)
    log_p = variational.standard(z - theta) + variational.standard(x - z)
    return log_p - variational.log_prob(q, z) + mark


def elbo(theta, phi, x):
    """In closed form."""
    m, d = phi["a"] * x + phi["b"], len(x)
    rest = -d * V - d * jnp.log(2 * jnp.pi) + 0.5 * d * (jnp.log(2 * jnp.pi * V) + 1)
    return -0.5 * jnp.sum((m - theta) ** 2 + (x - m) ** 2) + rest


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1 - 1e-3, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e-2, 0.9, 1.1, 10.0, 1e4])
def test_the_bound_and_its_gradient_are_those_of_double_precision(alpha, scale):
    log_w = np.float32(scale * np.random.default_rng(0).uniform(-1, 1, (64, 3)) + 3)
    s = 1 - np.float64(np.float32(alpha))
    w = log_w.astype(np.float64)
    top = w.max(0)
    exact = top + np.log(np.mean(np.exp(s * (w - top)), 0)) / s if s else w.mean(0)
    if s * scale < 1e-3:  # where the formula above cancels, its expansion does not
        exact = w.mean(0) + s * w.var(0) / 2
    found, slope = VALUE(log_w, alpha), PULLED(log_w, alpha)[1]
    # Rounding of log w itself, eps times its size, and of the sums.
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=2e-6 * scale)
    v = np.exp(s * (w - top))
    np.testing.assert_allclose(slope, v / v.sum(0), rtol=2e-5 + 1e-6 * s * scale, atol=1e-6)


def test_nothing_overflows():
    signs = np.random.default_rng(1).choice([-1e4, 1e4], (2**16,))
    for alpha in (0.0, 0.5, 1 - 1e-5, 1.0):
        for w in (signs, -np.abs(signs), np.abs(signs), np.zeros_like(signs)):
            w = np.float32(w)
            value, grad = PULLED(w, alpha)
            assert np.isfinite(value) and w.min() <= value <= w.max()
            assert np.isfinite(grad).all() and abs(np.asarray(grad, np.float64).sum() - 1) < 1e-4
            assert 1 - 1e-5 <= SIZE(w, alpha) <= 2**16 * (1 + 1e-5)
    ends = np.logaddexp.reduce(signs) - np.log(2**16), signs.mean()
    found = [VALUE(np.float32(signs), alpha) for alpha in (0.0, 1.0)]
    # The mean of numbers of size 1e4 is known to their rounding, however they are summed.
    np.testing.assert_allclose(found, ends, rtol=1e-6, atol=1e4 * np.finfo(np.float32).eps)


def test_the_ends_and_the_order_between_them():
    log_w = np.float32(3 * np.random.default_rng(2).normal(size=(16, 5)))
    iwae = special.logsumexp(log_w, 0) - np.log(16)
    np.testing.assert_allclose(VALUE(log_w, 0.0), iwae, rtol=1e-6)
    np.testing.assert_allclose(VALUE(log_w, 1.0), log_w.mean(0), rtol=1e-6)
    close = log_w.mean(0) + 0.5e-5 * log_w.var(0)
    np.testing.assert_allclose(VALUE(log_w, 1 - 1e-5), close, rtol=1e-5, atol=1e-6)
    alphas = jnp.linspace(0, 1, 21)
    values = jax.vmap(VALUE, (None, 0))(log_w, alphas)
    assert (np.diff(values, axis=0) < 0).all()
    for alpha in ALPHAS:  # one particle: the bound is its log-weight
        np.testing.assert_array_equal(VALUE(log_w[:1], alpha), log_w[0])
    # d l / d alpha by a difference, through the limit at alpha = 1 too.
    slopes = jax.jit(jax.vmap(jax.grad(bound, 1), (None, 0)))
    alphas = np.array([0.3, 0.9999, 1.0])
    for alpha, slope in zip(alphas, slopes(log_w[:, 0], np.float32(alphas)), strict=True):
        s, w = 1 - alpha, np.asarray(log_w[:, 0], np.float64)
        v = np.exp(s * w) / np.exp(s * w).sum()
        exact = (np.log(np.mean(np.exp(s * w))) / s - v @ w) / -s if s > 1e-2 else w.var() / 2
        assert abs(float(slope) / -exact - 1) < 2e-3


def test_effective_sizes():
    log_w = jnp.asarray([[0.0, 0.0, 5.0], [0.0, -1e4, 5.0], [0.0, -1e4, 5.0 + np.log(2)]])
    np.testing.assert_allclose(variational.effective_size(log_w), [3, 1, 16 / 6], rtol=1e-6)
    v = np.asarray(variational.weights(log_w, 0.5))[:, 2]
    np.testing.assert_allclose(v, np.array([1, 1, 2**0.5]) / (2 + 2**0.5), rtol=1e-6)


@pytest.fixture(scope="module")
def gradients():
    """(gradient, alpha, N) -> replicates of d l / d (theta, phi), [R] each a coordinate."""

    def of(gradient, alpha, n, x=X, theta=THETA, phi=PHI, replicates=20_000):
        x, theta, phi = jax.tree.map(np.float32, (x, theta, phi))
        value = lambda theta, phi, noise: bound(
            log_weights(theta, phi, x, noise, gradient, alpha), alpha
        )
        noise = jax.random.normal(jax.random.key(3), (replicates, n, len(x)))
        one = jax.grad(value, (0, 1))
        return jax.jit(jax.vmap(one, (None, None, 0)))(theta, phi, noise)

    return of


@pytest.mark.parametrize("gradient", variational.GRADIENTS)
def test_one_particle_has_the_gradient_of_the_elbo(gradient, gradients):
    found = gradients(gradient, 0.4, 1)
    exact = jax.grad(elbo, (0, 1))(THETA, PHI, X)
    for draws, value in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        # Six coordinates, |z| < 4.5: fails once in 2 x 10^4 runs. A variance may be zero.
        error = np.std(draws, 0) / np.sqrt(len(draws))
        assert (np.abs(np.mean(draws, 0) - value) < 4.5 * error + 1e-5).all()


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS)
def test_both_gradients_have_the_mean_that_quadrature_gives(alpha, gradients):
    """One coordinate, two particles: the expectation is an integral in the plane."""
    x, theta, phi = X[:1], THETA[:1], {name: value[:1] for name, value in PHI.items()}
    nodes, mass = np.polynomial.hermite_e.hermegauss(80)
    mass = mass / mass.sum()
    with jax.enable_x64(True):
        noise = jnp.stack(jnp.meshgrid(nodes, nodes))[..., None]
        value = lambda theta, phi: jnp.sum(
            jnp.asarray(np.outer(mass, mass))
            * bound(log_weights(theta, phi, jnp.asarray(x), noise), alpha)
        )
        exact = jax.device_get(jax.jit(jax.grad(value, (0, 1)))(jnp.asarray(theta), phi))
    spread = {}
    for gradient in variational.GRADIENTS:
        found = gradients(gradient, alpha, 2, x, theta, phi, 40_000)
        spread[gradient] = np.std(found[1]["b"])
        for draws, value in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            # 24 comparisons in all, |z| < 4.5: fails once in 6 x 10^3 runs.
            z = (np.mean(draws) - value) / (np.std(draws) / np.sqrt(len(draws)))
            assert abs(z[0]) < 4.5
    assert spread["drep"] < spread["rep"]


def test_both_gradients_have_one_mean_for_scales_too():
    """Mean and log std of q as functions of phi, three particles, and theta; paired draws."""
    x, phi = np.float32(X), np.float32([0.3, -0.4, 0.2, -0.5])

    def value(phi, theta, noise, gradient, alpha):
        q = Gaussian(phi[:2] * x, phi[2:] - 0.1 * x**2)
        z, q, mark = variational.GRADIENTS[gradient](variational.draw(q, noise), q, alpha)
        log_p = variational.standard(z - theta) + variational.standard(x - z)
        return bound(log_p - variational.log_prob(q, z) + mark, alpha)

    noise = jax.random.normal(jax.random.key(7), (40_000, 3, 2))

    @jax.jit
    def both(alpha):
        one = lambda gradient: (
            lambda n: jnp.concatenate(
                jax.grad(value, (0, 1))(phi, jnp.float32(THETA), n, gradient, alpha)
            )
        )
        return [jax.vmap(one(gradient))(noise) for gradient in variational.GRADIENTS]

    for alpha in ALPHAS:
        rep, drep = (np.asarray(g, np.float64) for g in both(jnp.float32(alpha)))
        gap = (rep - drep)[:, :4]
        # 16 z-scores of phi, |z| < 4.5: fails once in 10^4 runs. Theta has the same draw by draw.
        assert (np.abs(gap.mean(0)) < 4.5 * gap.std(0) / 200).all()
        assert (gap.std(0) > 0.1).all()
        np.testing.assert_allclose(rep[:, 4:], drep[:, 4:], atol=1e-5)


def test_ten_thousand_coordinates_in_single_precision():
    d = 10_000
    rng = np.random.default_rng(4)
    x, theta, a, b = rng.normal(size=(4, d))
    noise = rng.normal(size=(4, d))

    def value(theta, phi, x, noise, gradient):
        log_w = log_weights(theta, phi, x, noise, gradient, 0.2)
        return bound(log_w, 0.2), log_w

    run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True), static_argnums=4)
    given = theta, {"a": a, "b": b}, x, noise
    with jax.enable_x64(True):
        (_, exact), _ = run(*jax.tree.map(jnp.asarray, given), "rep")
    for gradient in variational.GRADIENTS:
        (_, log_w), slopes = run(*jax.tree.map(np.float32, given), gradient)
        # Three log densities of some 3e4 nats, each rounded to eps = 6e-8 of that a few times.
        np.testing.assert_allclose(log_w, exact, atol=0.03)
        assert all(np.isfinite(s).all() for s in jax.tree.leaves(slopes))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_exact_posterior_has_no_drep_gradient(alpha):
    """q = p(z | x) = N((x + theta) / 2, I / 2): every weight is p(x)."""

    def value(phi, gradient):
        q = Gaussian(phi["mean"], phi["log_std"])
        z = variational.draw(q, jax.random.normal(jax.random.key(0), (7, 4, 2)))
        z, q, mark = variational.GRADIENTS[gradient](z, q, alpha)
        log_p = variational.standard(z - THETA) + variational.standard(X - z)
        return bound(log_p - variational.log_prob(q, z) + mark, alpha).mean()

    phi = {"mean": jnp.asarray((X + THETA) / 2), "log_std": jnp.full(2, -0.5 * np.log(2.0))}
    exact = stats.multivariate_normal(THETA, 2 * np.eye(2)).logpdf(X)
    for gradient, zero in (("drep", True), ("rep", False)):
        found, slope = jax.jit(jax.value_and_grad(value), static_argnums=1)(phi, gradient)
        np.testing.assert_allclose(found, exact, rtol=1e-5)
        largest = max(np.abs(g).max() for g in jax.tree.leaves(slope))
        assert (largest < 1e-5) == zero


def tilted(alpha, q, prior, x):
    """z -> q(z)^alpha p(x, z)^(1 - alpha) of one coordinate."""
    joint = lambda z: prior.logpdf(z) + stats.norm.logpdf(x, z)
    return lambda z: np.exp(alpha * q.logpdf(z) + (1 - alpha) * joint(z))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_many_particles_reach_the_renyi_bound(alpha):
    """log int q^alpha p^(1 - alpha) / (1 - alpha), which is log p(x) at alpha = 0."""
    s, limit = 1 - alpha, 0.0
    for x, theta, a, b in zip(X, THETA, PHI["a"], PHI["b"], strict=True):
        f = tilted(alpha, stats.norm(a * x + b, V**0.5), stats.norm(theta), x)
        limit += np.log(integrate.quad(f, -12, 12, epsabs=0, epsrel=1e-10)[0]) / s
    if alpha == 0:
        exact = stats.multivariate_normal(THETA, 2 * np.eye(2)).logpdf(X)
        np.testing.assert_allclose(limit, exact, rtol=1e-8)
    noise = jax.random.normal(jax.random.key(5), (2**16, 2))
    log_w = jax.jit(log_weights)(THETA, PHI, X, noise)
    v = 2**16 * np.asarray(variational.weights(log_w, alpha))
    # Four z-scores by the delta method, |z| < 4.5: fails once in 4 x 10^4 runs.
    error = v.std() / 2**8 / s
    assert abs(float(VALUE(log_w, alpha)) - limit) < 4.5 * error


def test_divergence_of_gaussians():
    mean, log_std = np.array([0.0, 0.5, -2.0, 0.0]), np.array([0.0, -1.0, 0.7, 1e-4])
    q = Gaussian(jnp.asarray(mean, jnp.float32), jnp.asarray(log_std, jnp.float32))
    found = np.asarray(variational.kl(q))
    for m, r, value in zip(mean[1:3], log_std[1:3], found[1:3], strict=True):
        law = stats.norm(m, np.exp(r))
        exact = law.expect(lambda z: -stats.norm.logpdf(z)) - law.entropy()
        np.testing.assert_allclose(value, exact, rtol=1e-5)
    assert found[0] == 0 and 0 <= found[3] < 1e-7
    z = variational.draw(q, jax.random.normal(jax.random.key(1), (50_000, 4)))
    draws = np.asarray(variational.log_prob(q, z) - variational.standard(z))
    # One z-score, |z| < 4.5.
    assert abs(draws.mean() - found.sum()) < 4.5 * draws.std() / np.sqrt(len(draws))
    law = stats.multivariate_normal(mean, np.diag(np.exp(2 * log_std)))
    np.testing.assert_allclose(variational.log_prob(q, z[:5]), law.logpdf(z[:5]), rtol=1e-4)


def test_free_bits_hold_a_coordinate_only_above_them():
    kl = jnp.asarray([[0.1, 2.0], [0.2, 0.5]])
    value, slope = jax.value_and_grad(lambda kl: variational.free_bits(kl, 0.25).mean())(kl)
    np.testing.assert_allclose(value, 0.25 + 1.25)
    np.testing.assert_allclose(slope, [[0, 0.5], [0, 0.5]])
