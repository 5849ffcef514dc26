"""Brownian motion on SO(3) against 200-digit sums, quadrature, and what every process satisfies."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import oracles
import pytest
from scipy import special
from scipy.spatial.transform import Rotation

from gmjax import generators
from gmjax.processes import schedules
from gmjax.processes.rotations import rotations
from gmjax.spaces import calculus
from gmjax.spaces import rotations as space_of
from gmjax.spaces import rotations_heat as heat
from gmjax.types import UserError

PROCESS = rotations(schedules.constant(1.5))
SPACE = PROCESS.space
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
TAUS = [1e-3, 1e-2, 0.1, 0.5, 0.99, 1.0, 2.0, 5.0]
ANGLES = np.asarray([1e-6, 1e-3, 0.1, 0.5, 1, 2, 3, *(np.pi - 10.0 ** -np.arange(1, 7))])
ATOMS = jnp.asarray(Rotation.random(3, random_state=1).as_matrix(), jnp.float32)
WEIGHTS = jnp.asarray([0.5, 0.3, 0.2])
ORIGIN, OTHER = ATOMS[0], ATOMS[1]


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def by_images(w, tau):
    """log f and its derivative by the sum over geodesics, 200 digits."""
    with mp.workdps(200):
        w, tau = mp.mpf(float(w)), mp.mpf(float(tau))
        u = [(k, w - 2 * mp.pi * k) for k in range(-12, 13)]
        terms = [((-1) ** k * mp.exp(-(v**2) / (2 * tau)), v) for k, v in u]
        n, rise = sum(e * v for e, v in terms), sum(e * (1 - v**2 / tau) for e, v in terms)
        f = mp.exp(tau / 8) * mp.sqrt(2 * mp.pi) * tau ** mp.mpf(-1.5) * n / mp.sin(w / 2)
        return float(mp.log(f)), float(rise / n - mp.cot(w / 2) / 2)


def by_spins(w, tau, digits):
    """The same from the definition, the sum over spins."""
    with mp.workdps(digits):
        w, tau = mp.mpf(float(w)), mp.mpf(float(tau))
        f = rise = mp.mpf(0)
        for l in range(int(mp.sqrt(5 * digits / tau)) + 3):
            weight, n = (2 * l + 1) * mp.exp(-l * (l + 1) * tau / 2), l + mp.mpf(1) / 2
            f += weight * mp.sin(n * w)
            rise += weight * n * mp.cos(n * w)
        return float(mp.log(f / mp.sin(w / 2))), float(rise / f - mp.cot(w / 2) / 2)


@functools.cache
def reference(dtype):
    """[taus, angles, 2] at the numbers that the type can hold."""
    exact = lambda w, t: by_images(dtype(w), dtype(t))
    return np.asarray([[exact(w, t) for w in ANGLES] for t in TAUS])


def evaluate(dtype):
    grid = jnp.meshgrid(jnp.asarray(TAUS, dtype), jnp.asarray(ANGLES, dtype), indexing="ij")
    both = lambda t, w: (heat.log_density(w * w, t), w * heat.slope(w * w, t))
    return [np.asarray(a, np.float64) for a in jax.jit(jax.vmap(jax.vmap(both)))(*grid)]


@pytest.mark.parametrize(("w", "tau", "digits"), [(np.pi, 0.02, 250), (0.1, 1e-3, 80), (3, 2, 60)])
def test_the_reference_is_the_sum_over_spins(w, tau, digits):
    np.testing.assert_allclose(by_images(w, tau), by_spins(w, tau, digits), rtol=1e-12)


def test_heat_kernel_and_score_against_200_digits(double):
    """The density to 1e-11 and the score to 1e-9, from 1e-6 off zero to 1e-6 off the cut locus."""
    log_f, score = evaluate(np.float64)
    exact = reference(np.float64)
    np.testing.assert_allclose(np.exp(log_f - exact[..., 0]), 1, rtol=1e-11)
    np.testing.assert_allclose(score, exact[..., 1], rtol=1e-9)


def test_heat_kernel_in_single_precision():
    """log f to 1e-6 of itself and the score to 2e-5, as far as 0.01 off the cut locus; there the
    rounding of w moves it by 1e-7 times its slope (pi/tau)^2."""
    log_f, score = evaluate(np.float32)
    exact, tau = reference(np.float32), np.asarray(TAUS)[:, None]
    size = 1 + np.abs(exact[..., 0])
    np.testing.assert_allclose(log_f / size, exact[..., 0] / size, atol=1e-6)
    assert np.abs(score / exact[..., 1] - 1)[:, np.pi - ANGLES > 0.005].max() < 2e-5
    assert (np.abs(score - exact[..., 1]) < 1e-6 * (1 + (np.pi / tau) ** 2)).all()


def test_the_score_vanishes_on_the_cut_locus(double):
    """The kernel is even about w = pi."""
    values = jax.jit(jax.vmap(lambda t: t * np.pi * heat.slope(jnp.asarray(np.pi**2), t)))
    np.testing.assert_allclose(values(jnp.asarray(TAUS)), 0, atol=1e-11)


def test_the_forms_agree_round_the_switch(double):
    square, tau = jnp.asarray(ANGLES**2), heat.SWITCH + jnp.asarray([-0.2, 0.0, 0.2])
    both = lambda s, t: (jnp.exp(heat._images(s, t)[0]), heat.characters(s, t))
    images, spins = jax.jit(jax.vmap(jax.vmap(both, (0, None)), (None, 0)))(square, tau)
    np.testing.assert_allclose(images, spins, rtol=1e-9)


def angle_density(w, tau):
    """The density of the angle: f times Haar's (1 - cos w) / pi."""
    return jnp.exp(heat.log_density(w * w, tau)) * (1 - jnp.cos(w)) / np.pi


@functools.cache
def gauss(n, low, high):
    x, weights = np.polynomial.legendre.leggauss(n)
    return low + (high - low) * (x + 1) / 2, (high - low) / 2 * weights


def test_mass_and_chapman_kolmogorov_by_quadrature(double):
    """The angle b of two turns by a and w whose axes are at cosine c has
    cos(b/2) = cos(a/2) cos(w/2) + sin(a/2) sin(w/2) c."""
    a, da = gauss(60, 0, np.pi)
    c, dc = gauss(60, -1, 1)
    w = np.asarray([0.3, 1.0, 2.5, np.pi])

    @jax.jit
    def convolve(s, t):
        one = da * angle_density(a, s)
        half = jnp.cos(a / 2)[:, None] * jnp.cos(w / 2)[:, None, None]
        half = half + (jnp.sin(a / 2)[:, None] * jnp.sin(w / 2)[:, None, None]) * c
        b = 2 * jnp.arccos(jnp.abs(half))
        f = jnp.exp(jax.vmap(jax.vmap(jax.vmap(lambda b: heat.log_density(b * b, t))))(b))
        return jnp.sum(one), jnp.einsum("wac,a,c->w", f, one, dc / 2)

    dense = jax.jit(jax.vmap(lambda w, t: heat.log_density(w * w, t), (0, None)))
    for s, t in ((0.3, 0.5), (0.6, 0.9), (1.2, 0.4)):
        mass, both = convolve(s, t)
        np.testing.assert_allclose(mass, 1, rtol=1e-11)
        np.testing.assert_allclose(both, jnp.exp(dense(w, s + t)), rtol=1e-6)


@pytest.mark.slow
def test_the_kernel_solves_the_heat_equation_and_its_gradient_is_the_target(double):
    """d/dt log q = L* q / q at angle zero, near it, far and near the cut locus, both forms."""
    x0 = jnp.asarray(Rotation.random(random_state=3).as_matrix())
    angles = np.asarray([0, 1e-4, 0.2, 1.0, 3.0, np.pi - 1e-6])
    x = x0 @ Rotation.from_rotvec(angles[:, None] * np.asarray([0.6, 0.0, -0.8])).as_matrix()

    def sides(x, t):
        log_q = lambda y, s: PROCESS.log_prob(y, x0, s)
        start = log_q(x, t)
        grows = generators.adjoint(PROCESS.generator, lambda y: jnp.exp(log_q(y, t) - start), x, t)
        slope = calculus.gradient(SPACE, lambda y: log_q(y, t), x)
        return jax.grad(log_q, 1)(x, t), grows, t * slope, t * PROCESS.target(x0, x, t)

    t = jnp.asarray([0.05, 0.4, 1.0])
    each = jax.jit(jax.vmap(jax.vmap(sides, (0, None)), (None, 0)))(x, t)
    np.testing.assert_allclose(each[0], each[1], rtol=1e-7)
    np.testing.assert_allclose(each[2], each[3], atol=1e-10)


def test_draws_invert_the_angles_distribution_to_1e_6(double):
    """sup over |z| of |P(angle <= stretched |z|) - P(|Z| <= |z|)|, whatever the time."""
    lengths = np.linspace(0.01, 6, 400)
    taus = np.concatenate([np.geomspace(1e-3, 100, 40), np.linspace(1, 2, 21)])
    x, dx = gauss(50, 0, 1)

    def cdf(length, tau):
        w = heat.stretch(jnp.asarray([0, 0, length]), tau)[2]
        return w, w * jnp.sum(dx * jax.vmap(lambda x: angle_density(w * x, tau))(x))

    w, p = jax.jit(jax.vmap(jax.vmap(cdf, (0, None)), (None, 0)))(lengths, taus)
    exact = special.gammainc(1.5, lengths**2 / 2)
    assert np.abs(p - exact).max() < 1e-6
    assert w.max() < np.pi + 1e-3


@pytest.mark.parametrize("t", [0.01, 0.3, 0.7])
def test_draws_follow_the_density(t):
    """Angles by Kolmogorov's test; 2.3 / sqrt(n) is exceeded with probability 5e-5. Axes by
    the first two moments, 9 means at |z| < 4.5."""
    n, tau = 50_000, 1.5 * t
    keys = jax.random.split(KEY, n)
    draw = lambda k: space_of.log(ORIGIN.T @ PROCESS.sample(k, ORIGIN, jnp.asarray(t)))
    w = np.asarray(jax.jit(jax.vmap(draw))(keys), np.float64)
    angle = np.linalg.norm(w, axis=1)
    grid = np.linspace(0, min(np.pi, 9 * tau**0.5), 4001)
    density = np.asarray(jax.vmap(lambda w: angle_density(w, jnp.float32(tau)))(grid))
    steps = np.diff(grid) * (density[1:] + density[:-1]) / 2
    pit = np.interp(np.sort(angle), grid, np.append(0, np.cumsum(steps)))
    assert np.abs(pit - np.arange(n) / n).max() < 2.3 / n**0.5
    axis = w / angle[:, None]
    pairs = (axis[:, :, None] * axis[:, None]).reshape(n, 9)[:, [0, 1, 2, 4, 5, 8]]
    for values, mean in ((axis, 0), (pairs, np.asarray([1, 0, 0, 1, 0, 1]) / 3)):
        score = (values.mean(0) - mean) / (values.std(0) / n**0.5)
        assert np.abs(score).max() < 4.5


def test_everything_commutes_with_rotations(double):
    """Kernel, score and draw under x -> A x and x -> x A, both arguments alike."""
    a, x0, x = jnp.asarray(Rotation.random(3, random_state=8).as_matrix())
    t = jnp.asarray(0.4)
    log_prob, target, draw = map(jax.jit, (PROCESS.log_prob, PROCESS.target, PROCESS.sample))
    for move in (lambda y: a @ y, lambda y: y @ a):
        log_q = log_prob(move(x), move(x0), t)
        np.testing.assert_allclose(log_q, log_prob(x, x0, t), rtol=1e-13)
        score = target(move(x0), move(x), t)
        np.testing.assert_allclose(score, move(target(x0, x, t)), atol=1e-13)
    np.testing.assert_allclose(draw(KEY, a @ x0, t), a @ draw(KEY, x0, t), atol=1e-14)
    # From the right a draw commutes when its normal vector turns, which leaves its law.
    z = jnp.asarray(RNG.normal(size=3))
    go = jax.jit(lambda y, z: y @ space_of.exp(heat.stretch(z, t)))
    np.testing.assert_allclose(go(x0 @ a, z), go(x0, a @ z) @ a, atol=1e-14)


def test_reverse_steps_commute_with_rotations(double):
    """With the exact score of atoms, an equivariant one: turned atoms, turned steps."""
    a = jnp.asarray(Rotation.random(random_state=9).as_matrix())
    atoms, x, t = ATOMS.astype(jnp.float64), jnp.asarray(OTHER, jnp.float64), jnp.asarray(0.4)

    @jax.jit
    @jax.vmap
    def step(turn):
        def moved(y):
            return turn @ SPACE.project(y)

        score = oracles.exact_score(PROCESS, jax.vmap(moved)(atoms), WEIGHTS)
        return PROCESS.reverse(score).step(KEY, moved(x), t, jnp.asarray(0.05))

    here, turned = step(jnp.stack([jnp.eye(3), a]))
    np.testing.assert_allclose(turned, a @ here, atol=1e-12)


@pytest.mark.slow
def test_no_nan_at_the_same_point_on_the_cut_locus_or_at_time_zero():
    eye = jnp.eye(3)
    half = jnp.diag(jnp.asarray([1.0, -1, -1]))
    weights = jnp.asarray(RNG.normal(size=(3, 3)), jnp.float32)

    def both(x, t):
        return PROCESS.log_prob(x, eye, t) + jnp.sum(weights * PROCESS.target(eye, x, t))

    x = jnp.stack([eye, half, OTHER] * 3)
    t = jnp.repeat(jnp.asarray([1e-4, 0.3, 1.0]), 3)
    for value in jax.tree.leaves(jax.jit(jax.vmap(jax.value_and_grad(both, (0, 1))))(x, t)):
        assert np.isfinite(value).all()
    np.testing.assert_allclose(PROCESS.sample(KEY, OTHER, jnp.zeros(())), OTHER, atol=1e-5)
    assert np.isfinite(PROCESS.target(eye, half, jnp.zeros(()))).all()


# What every process satisfies


def f(x):
    return (
        jnp.sum(jnp.asarray([[0.5, -1.0, 0.3], [0.2, 0.8, 0.0], [1.0, 0.1, -0.4]]) * x)
        + x[0, 1] ** 2
    )


def g(x):
    return jnp.exp(0.5 * x[0, 0] - 0.3 * x[1, 2]) * (1 + 0.2 * x[2, 1])


def euler_grid(n=9):
    """A quadrature of SO(3), exact up to spin n - 1: R_z(a) R_y(b) R_z(c)."""
    a = 2 * np.pi * np.arange(n) / n
    cosine, weights = gauss((n + 1) // 2, -1, 1)
    grid = np.stack(np.meshgrid(a, np.arccos(cosine), a, indexing="ij"), -1).reshape(-1, 3)
    nodes = Rotation.from_euler("ZYZ", grid).as_matrix()
    volume = np.broadcast_to(weights[None, :, None], (n, len(weights), n)).reshape(-1)
    return jnp.asarray(nodes, jnp.float32), jnp.asarray(volume * (2 * np.pi / n) ** 2, jnp.float32)


def test_adjointness():
    nodes, volume = euler_grid()
    np.testing.assert_allclose(jnp.sum(volume), space_of.VOLUME, rtol=1e-5)
    t = jnp.asarray(0.3)
    left, right = jax.jit(lambda: oracles.adjointness(PROCESS.generator, f, g, nodes, volume, t))()
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.slow
def test_weak_step():
    apply = jax.jit(PROCESS.generator.apply, static_argnums=0)
    generator = PROCESS.generator._replace(apply=apply)
    z = oracles.weak_step(generator, f, OTHER, jnp.asarray(0.3), KEY, n=50_000)
    assert abs(z) < oracles.Z


@pytest.mark.slow
def test_kolmogorov():
    assert abs(oracles.kolmogorov(PROCESS, f, ORIGIN, KEY, n=30_000)) < oracles.Z


@pytest.mark.slow
def test_composition():
    assert abs(oracles.composition(PROCESS, f, ORIGIN, KEY, n=50_000)) < oracles.Z


@pytest.mark.slow
def test_limit():
    """At B(1) = 12 what is left of the start is 3 exp(-12), a tenth of the standard error."""
    process = rotations(schedules.constant(12.0))
    assert abs(oracles.limit(process, f, ORIGIN, KEY, n=50_000)) < oracles.Z


@pytest.mark.slow
def test_reversal():
    """The closeness to an atom, which a score of the wrong size changes, from t = 1 to 0.1.

    With N steps Euler's bias is measured as 490 / N standard errors of 40 000 draws: 0.9 here.
    """
    times = jnp.geomspace(1.0, 0.1, 151)
    close = lambda x: jax.nn.logsumexp(2 * jnp.sum(ATOMS * x, (1, 2)))
    z = oracles.reversal(PROCESS, close, ATOMS, WEIGHTS, KEY, times, n=3_000)
    assert abs(z) < oracles.Z


@pytest.mark.slow
def test_the_bound_is_tight_at_the_exact_score_and_loose_elsewhere():
    process = rotations(schedules.constant(8.0))
    tilt = lambda x, t: 0.5 * x[0, 0]
    exact, (z, gap) = oracles.bound(process, ATOMS, WEIGHTS, KEY, tilt, n=20_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


@pytest.mark.slow
def test_the_losses_have_one_gradient():
    log_beta = lambda p, x, t: p[0] * x[0, 0] + p[1] * x[1, 2] * x[0, 1]
    params = jnp.asarray([0.4, -0.7])
    each = oracles.gradients(
        PROCESS, log_beta, params, ATOMS[:2], WEIGHTS[:2] / 0.8, *euler_grid(), jnp.asarray(0.9)
    )
    np.testing.assert_allclose(each[0], each[1], rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(each[2], each[1], rtol=2e-3, atol=1e-4)


def test_other_shapes_are_named():
    with pytest.raises(UserError, match=r"\(4,\).*\(3, 3\)"):
        rotations(schedules.constant(), (4,))
