"""Brownian motion on H^2 and H^3: kernels against mpmath, then the oracles."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import oracles
import pytest

from gmjax import generators
from gmjax.processes import hyperbolic
from gmjax.processes.schedules import constant
from gmjax.spaces import calculus
from gmjax.spaces.hyperbolic import coordinates, lift, origin
from gmjax.types import Distribution, UserError

TAU = 0.8
PLANE, SPACE = (hyperbolic.brownian(constant(TAU), (n,)) for n in (3, 4))
BOTH = pytest.mark.parametrize("process", [PLANE, SPACE], ids=["plane", "space"])
HEAVY = pytest.mark.parametrize(
    "process",
    [pytest.param(PLANE, id="plane"), pytest.param(SPACE, id="space", marks=pytest.mark.slow)],
)
# Three atoms that differ in every direction of the plane and of space.
ATOMS = np.asarray([[0.0, 0, 0], [1.2, 0.3, -0.5], [-0.4, -1.0, 0.8]])
WEIGHTS = jnp.asarray([0.2, 0.5, 0.3])


def atoms(process):
    y = ATOMS[:, : process.space.dim]
    return jax.vmap(process.space.project)(np.concatenate([np.zeros((3, 1)), y], 1))


def mean(x):
    """A bounded test function without symmetry."""
    return jnp.tanh(x[1] + 0.5 * x[2]) + 0.3 / x[0]


def exact(dim, r, tau):
    """p(r, tau) with 40 digits, McKean's integral by adaptive quadrature."""
    r, tau = mp.mpf(r), mp.mpf(tau)
    if dim == 3:
        ratio = r / mp.sinh(r) if r else mp.mpf(1)
        return (2 * mp.pi * tau) ** -1.5 * ratio * mp.exp(-tau / 2 - r**2 / (2 * tau))

    def integrand(u):  # s^2 = r^2 + u^2
        s = mp.sqrt(r**2 + u**2)
        gap = 2 * mp.sinh((s + r) / 2) * mp.sinh(u**2 / (s + r) / 2)
        return mp.exp(-(u**2) / (2 * tau)) * u / mp.sqrt(gap)

    width = mp.sqrt(tau)
    area = mp.quad(integrand, [mp.mpf(10) ** -30 * width, 2 * width, 5 * width, 14 * width])
    scale = mp.sqrt(2) * mp.exp(-tau / 8 - r**2 / (2 * tau)) * (2 * mp.pi * tau) ** -1.5
    return scale * area


@pytest.mark.parametrize("dim", [2, 3])
def test_kernel_and_score(dim):
    """Relative error of density and score below 1e-6 in float64, 1e-4 in float32."""
    mp.mp.dps = 40
    radial = hyperbolic._log_plane if dim == 2 else hyperbolic._log_space
    taus = [1e-3, 0.05, 1.0, 5.0]
    cases = [(tau, k * tau**0.5) for tau in taus for k in (1e-3, 0.5, 1, 3, 6)]
    true = [exact(dim, r, tau) for tau, r in cases]
    log_true = np.asarray([float(mp.log(p)) for p in true])
    h = mp.mpf(10) ** -12
    up = [exact(dim, r + h, tau) for tau, r in cases]
    slope = np.asarray([float((b - a) / h / a) for a, b in zip(true, up, strict=True)])
    both = jax.jit(jax.vmap(lambda r, tau: jax.value_and_grad(lambda r: radial(r**2, tau))(r)))

    def errors(dtype):
        tau, r = np.asarray(cases, dtype).T
        log_p, score = both(r, tau)
        return np.abs(log_p - log_true).max(), np.abs(score / slope - 1).max()

    with jax.enable_x64(True):
        assert max(errors(np.float64)) < 1e-6
    density, score = errors(np.float32)
    assert density < 1e-4 and score < 1e-4


@pytest.mark.slow
@BOTH
def test_kernel_is_a_density_that_solves_the_heat_equation(process):
    dim, space = process.space.dim, process.space
    with jax.enable_x64(True):
        x0, t = origin(dim).astype(jnp.float64), jnp.asarray(0.7)
        r = (jnp.arange(4000) + 0.5) * 0.003
        ray = lambda r: space.exp(x0, r * space.frame(x0)[0])
        p = jnp.exp(jax.jit(jax.vmap(lambda r: process.log_prob(ray(r), x0, t)))(r))
        area = {2: 2 * jnp.pi, 3: 4 * jnp.pi}[dim] * jnp.sinh(r) ** (dim - 1)
        assert float(jnp.sum(0.003 * area * p)) == pytest.approx(1, abs=1e-5)
        x, a = space.project(jnp.asarray([0, 0.9, -0.4, 0.3][: dim + 1])), x0
        f = lambda y, t: jnp.exp(process.log_prob(y, a, t))

        @jax.jit
        def sides(y):
            ahead = process.generator.apply(lambda z: f(z, t), y, t)
            slope = calculus.gradient(space, lambda z: process.log_prob(z, a, t), y)
            return (ahead, process.target(a, y, t)), (jax.grad(f, 1)(y, t), slope)

        # r^2 at x = x0 too, where the distance has no derivative.
        for y in (x, a):
            for left, right in zip(*sides(y), strict=True):
                np.testing.assert_allclose(left, right, rtol=1e-7, atol=1e-12)


@BOTH
@pytest.mark.parametrize("tau", [0.05, 2.0])
def test_radius_is_exact(process, tau):
    """Kolmogorov-Smirnov with 40000 draws: sqrt(n) D > 2.5 has probability 8e-6."""
    n, dim = 40_000, process.space.dim
    draw = hyperbolic._radius_plane if dim == 2 else hyperbolic._radius_space
    radial = hyperbolic._log_plane if dim == 2 else hyperbolic._log_space
    r = jax.jit(jax.vmap(lambda k: draw(k, jnp.asarray(tau))))(
        jax.random.split(jax.random.key(0), n)
    )
    grid = np.linspace(0, 14, 20_001)
    middle = (grid[1:] + grid[:-1]) / 2
    area = {2: 2 * np.pi, 3: 4 * np.pi}[dim] * np.sinh(middle) ** (dim - 1)
    p = area * np.exp(jax.vmap(lambda r: radial(r**2, jnp.asarray(tau)))(jnp.asarray(middle)))
    cdf = np.concatenate([[0], np.cumsum(p * np.diff(grid))])
    u = np.interp(np.sort(r), grid, cdf)
    gap = np.abs(u - (np.arange(n) + 0.5) / n).max()
    assert np.sqrt(n) * gap < 2.5


@HEAVY
@pytest.mark.slow
def test_forward_oracles(process):
    """|z| < 4.5: 7e-6 for a correct program."""
    keys, x0, t = jax.random.split(jax.random.key(1), 4), atoms(process)[1], jnp.asarray(0.5)
    assert abs(oracles.weak_step(process.generator, mean, x0, t, keys[0], n=10_000)) < oracles.Z
    assert abs(oracles.kolmogorov(process, mean, x0, keys[1], n=10_000)) < oracles.Z
    assert abs(oracles.composition(process, mean, x0, keys[2], n=10_000)) < oracles.Z
    start = origin(process.space.dim)
    assert abs(oracles.limit(process, mean, start, keys[3], n=10_000)) < oracles.Z


@HEAVY
@pytest.mark.slow
def test_reversal(process):
    """100 steps: the bias of the walk is below the standard error of 4000 draws."""
    times = jnp.linspace(1, 0.05, 101)
    args = (atoms(process), WEIGHTS, jax.random.key(2), times)
    assert abs(oracles.reversal(process, mean, *args, n=4_000)) < oracles.Z


def polar(radius=8.0, rings=40, spokes=20):
    """A quadrature of the area of H^2: nodes [N, 3] and weights."""
    r, w = np.polynomial.legendre.leggauss(rings)
    r, w = (r + 1) * radius / 2, w * radius / 2
    a = 2 * np.pi * np.arange(spokes) / spokes
    r, a = (v.ravel() for v in np.meshgrid(r, a, indexing="ij"))
    y = np.stack([np.cosh(r), np.sinh(r) * np.cos(a), np.sinh(r) * np.sin(a)], 1)
    return jnp.asarray(y), jnp.asarray(np.repeat(w, spokes) * np.sinh(r) * 2 * np.pi / spokes)


def test_adjointness():
    with jax.enable_x64(True):
        nodes, weights = polar()
        t = jnp.asarray(0.6)
        f = lambda x: jnp.exp(-x[0]) * (1 + jnp.sin(x[1]))
        g = lambda x: jnp.exp(-1.3 * x[0] + 0.3 * x[2])
        sides = jax.jit(lambda: oracles.adjointness(PLANE.generator, f, g, nodes, weights, t))
        left, right = sides()
        assert float(left) == pytest.approx(float(right), rel=1e-8)


@pytest.mark.slow
def test_gradients_of_the_three_losses():
    with jax.enable_x64(True):
        nodes, weights = polar()
        t = jnp.asarray(0.6)
        log_beta = lambda p, x, t: -p[0] * x[0] + p[1] * x[1] * t
        args = (jnp.asarray([1.0, 0.4]), atoms(PLANE), WEIGHTS, nodes, weights, t)
        implicit, explicit, denoising = oracles.gradients(PLANE, log_beta, *args)
        np.testing.assert_allclose(implicit, explicit, rtol=1e-6)
        np.testing.assert_allclose(denoising, explicit, rtol=1e-6)


@pytest.mark.slow
def test_bound():
    """At the exact score the bound is the entropy; a tilt of the score costs."""
    log_q = oracles.log_marginal(SPACE, atoms(SPACE), WEIGHTS)
    # The base of the bound is the law at t = 1.
    end = Distribution(SPACE.base.sample, lambda x: log_q(x, jnp.ones(())))
    args = (SPACE._replace(base=end), atoms(SPACE), WEIGHTS, jax.random.key(3))
    exact, (z, gap) = oracles.bound(*args, lambda x, t: jnp.tanh(x[1]), n=20_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


@pytest.mark.slow
@BOTH
def test_never_nan(process):
    x = atoms(process)[1]
    for t in (1e-4, 1.0):
        t = jnp.asarray(t)
        both = lambda y, t: process.log_prob(y, x, t) + jnp.sum(process.target(x, y, t))
        value, slope = jax.jit(jax.value_and_grad(both))(x, t)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_reversal_of_the_generator_is_that_of_the_process():
    x, a, t = atoms(SPACE)[1], atoms(SPACE)[2], jnp.asarray(0.5)
    log_beta = lambda y, s: SPACE.log_prob(y, a, s)
    score = lambda y, s: SPACE.target(a, y, s)
    one = generators.reverse(SPACE.generator, log_beta)
    two = SPACE.reverse(score)
    left, right = jax.jit(lambda x: (one.apply(mean, x, t), two.apply(mean, x, t)))(x)
    assert float(left) == pytest.approx(float(right), rel=1e-4)
    tangent = lift(x, jnp.ones(3))
    std = np.sqrt(TAU * 0.5 / (1 + TAU * 0.5))
    out = jnp.concatenate([jnp.zeros(1), coordinates(x, tangent)])
    np.testing.assert_allclose(SPACE.read(out, x, t), tangent / std, rtol=1e-5)


def test_shapes():
    with pytest.raises(UserError, match="valid: .3,., .4,."):
        hyperbolic.brownian(constant(), (5,))
