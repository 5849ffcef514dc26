"""Wright-Fisher noising against 200-digit series, its spectral expansion, moments and oracles."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import oracles
import pytest
from lineages import series
from scipy.linalg import expm

from gmjax import generators
from gmjax.losses import generalised
from gmjax.losses.simplex import implicit_wright_fisher
from gmjax.processes import coalescent
from gmjax.processes.schedules import constant, linear
from gmjax.processes.wright_fisher import wright_fisher
from gmjax.types import UserError

KEY = jax.random.key(5)
ALPHA = {2: (1.5, 2.0), 3: (2.0, 0.7, 1.3)}


@cache
def process(size, schedule=constant, rate=1.0):
    return wright_fisher(schedule(rate), (size,), ALPHA[size])


# -- the density and the score ------------------------------------------------------------------


def spectral(u, v, alpha, tau):
    """log p(u | v) and its derivative in u by Jacobi polynomials at 120 digits, D = 2."""
    with mpmath.workdps(120):
        a, b = (mpmath.mpf(c) for c in alpha)
        u, v, tau, theta = mpmath.mpf(u), mpmath.mpf(v), mpmath.mpf(tau), a + b
        # P_n^(p, q)(z), z = 2 u - 1: P at u, its derivative in u, P at v.
        p, q = b - 1, a - 1
        x, y = 2 * u - 1, 2 * v - 1
        first = lambda z: (p + 1) + (p + q + 2) * (z - 1) / 2
        before, now = [mpmath.mpf(1), mpmath.mpf(0), mpmath.mpf(1)], [first(x), p + q + 2, first(y)]
        total, slope, n = 1 / mpmath.beta(a, b), mpmath.mpf(0), 1
        while True:
            norm = mpmath.gamma(n + a) * mpmath.gamma(n + b) / mpmath.gamma(n + theta - 1)
            norm /= (2 * n + theta - 1) * mpmath.factorial(n)
            decay = mpmath.exp(-n * (n + theta - 1) * tau / 2)
            total += decay * now[0] * now[2] / norm
            slope += decay * now[1] * now[2] / norm
            if decay * n**8 < mpmath.mpf(10) ** -100:
                break
            s = 2 * n + p + q
            c0 = 2 * (n + 1) * (n + p + q + 1) * s
            c1, c2 = (s + 1) * (s + 2) * s, (s + 1) * (p**2 - q**2)
            c3 = 2 * (n + p) * (n + q) * (s + 2)
            step = lambda z, i: ((c1 * z + c2) * now[i] - c3 * before[i]) / c0  # noqa: B023
            after = [step(x, 0), step(x, 1) + 2 * c1 * now[0] / c0, step(y, 2)]
            before, now, n = now, after, n + 1
        log_p = (a - 1) * mpmath.log(u) + (b - 1) * mpmath.log(1 - u) + mpmath.log(total)
        return float(log_p), float((a - 1) / u - (b - 1) / (1 - u) + slope / total)


@pytest.mark.slow
def test_density_and_score_against_the_spectral_expansion():
    """Relative error below 1e-4 of the density and, in the metric A, of the score, D = 2.

    The points are as far apart as the kernel reaches, four standard deviations, and touch the
    boundary. The spectral series knows nothing of lineages or of Bessel functions.
    """
    tau = np.repeat([1e-3, 1e-2, 0.0299, 0.0301, 0.1, 0.5, 2.0], 6)
    v = np.tile([0.5, 0.5, 0.1, 0.999, 0.03, 0.7], 7)
    reach = np.sqrt(tau * v * (1 - v)) * np.tile([0, 4, -2, -3, 1, 0.5], 7)
    u = np.clip(v + reach, tau / 20, 1 - tau / 20)
    exact = np.array([spectral(a, b, ALPHA[2], c) for a, b, c in zip(u, v, tau, strict=True)])
    pair = lambda a: jnp.asarray(np.stack([a, 1 - a], 1))
    with jax.enable_x64():
        p = wright_fisher(constant(2.0), (2,), ALPHA[2])
        both = lambda x, y, t: (p.log_prob(x, y, t), p.target(y, x, t))
        out = jax.jit(jax.vmap(both))(pair(u), pair(v), jnp.asarray(tau / 2))
        log_p, score = (np.asarray(a) for a in out)
    assert np.abs(np.expm1(log_p - exact[:, 0])).max() < 1e-4
    scale = np.maximum(np.abs(exact[:, 1]), 0.1 / np.sqrt(u * (1 - u)))
    assert (np.abs(2 * score[:, 0] - exact[:, 1]) / scale).max() < 1e-4
    np.testing.assert_allclose(score.sum(1), 0, atol=1e-6)


def brute_force(x, y, alpha, tau, terms):
    """log p(x | y) as the sum over all ancestors at 60 digits, D = 3."""
    with mpmath.workdps(60):
        x, y, a = ([mpmath.mpf(float(c)) for c in v] for v in (x, y, alpha))
        theta, total = mpmath.fsum(a), mpmath.mpf(0)
        part = [
            [(b * c) ** k / mpmath.factorial(k) / mpmath.gamma(d + k) for k in range(terms)]
            for b, c, d in zip(x, y, a, strict=True)
        ]
        for m in range(terms):
            ways = mpmath.fsum(
                part[0][i] * part[1][j] * part[2][m - i - j]
                for i in range(m + 1)
                for j in range(m + 1 - i)
            )
            weight = series(float(theta), tau, m) * mpmath.factorial(m) * mpmath.gamma(theta + m)
            total += weight * ways
        powers = mpmath.fprod(b ** (d - 1) for b, d in zip(x, a, strict=True))
        return float(mpmath.log(total * powers))


def test_density_against_the_sum_over_ancestors():
    """D = 3, within 1e-5 also in single precision, opposite corners included."""
    p = process(3)
    x = np.array([[0.2, 0.3, 0.5], [0.98, 0.01, 0.01], [1e-3, 0.5, 0.499]], np.float32)
    y = np.array([[0.3, 0.3, 0.4], [0.01, 0.01, 0.98], [0.0, 0.6, 0.4]], np.float32)
    run = jax.jit(jax.vmap(p.log_prob, (0, 0, None)))
    for tau, terms in ((0.25, 40), (1.0, 16)):
        exact = [brute_force(a, b, ALPHA[3], tau, terms) for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(run(x, y, jnp.asarray(tau)), exact, atol=1e-5)


@pytest.mark.slow
def test_the_small_time_density_is_the_sum_of_more_lineages(monkeypatch):
    """D = 3: 1e-4 of the density and score, in single precision, of the sum in double."""
    tau = 0.004
    p, t = process(3), jnp.asarray(tau)
    y = jnp.asarray([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0], [0.01, 0.01, 0.98]])
    # Two standard deviations away, and on the boundary's scale where y is on it.
    x = jnp.asarray([[0.25, 0.27, 0.48], [0.88, 0.119, 0.001], [0.02, 0.003, 0.977]])
    both = lambda p: jax.jit(
        jax.vmap(lambda x, y, t: (p.log_prob(x, y, t), p.target(y, x, t)), (0, 0, None))
    )
    log_p, score = both(p)(x, y, t)
    monkeypatch.setattr(coalescent, "SWITCH", 0.9 * tau)
    with jax.enable_x64():
        longer = wright_fisher(constant(2 * tau), (3,), ALPHA[3])
        wide = [jnp.asarray(np.asarray(a), jnp.float64) for a in (x, y)]
        exact, exact_score = both(longer)(*wide, jnp.asarray(0.5))
    assert np.abs(np.expm1(log_p - exact)).max() < 1e-4
    norm = lambda g: np.sqrt(np.sum(np.asarray(x) * g**2, 1) - np.sum(np.asarray(x) * g, 1) ** 2)
    assert (norm(score - exact_score) / norm(exact_score)).max() < 1e-4


def test_chapman_kolmogorov():
    """int p(x | y, s) p(y | z, t) dy = p(x | z, s + t), across the switch, D = 2."""
    with jax.enable_x64():
        p = wright_fisher(constant(1.0), (2,), ALPHA[2])
        nodes, weights = np.polynomial.legendre.leggauss(120)
        angle = (nodes + 1) * np.pi / 4  # y = sin^2 resolves both ends
        y, volume = np.sin(angle) ** 2, weights * np.pi / 4 * np.sin(2 * angle)
        y = jnp.asarray(np.stack([y, 1 - y], 1))
        x, z = jnp.asarray([0.3, 0.7]), jnp.asarray([0.05, 0.95])
        run = jax.jit(jax.vmap(p.log_prob, (0, 0, None)))
        copies = lambda v: jnp.broadcast_to(v, y.shape)
        for s, t in ((0.02, 0.025), (0.3, 0.02), (0.3, 0.4)):
            total = volume @ np.exp(run(copies(x), y, s) + run(y, copies(z), t))
            exact = np.exp(run(copies(x), copies(z), s + t)[0])
            np.testing.assert_allclose(total, exact, rtol=1e-4)


# -- sampling -----------------------------------------------------------------------------------


def moments(u, alpha, tau):
    """E u_t and E u_t^2 from u, D = 2: d/dt (1, u, u^2) is linear."""
    a, theta = alpha[0], sum(alpha)
    rates = np.array([[0, 0, 0], [a / 2, -theta / 2, 0], [0, 1 + a, -1 - theta]])
    return (expm(rates * tau) @ [1, u, u * u])[1:]


@pytest.mark.simulates
@pytest.mark.slow
def test_moments_of_the_kernel():
    """100 000 draws at D = 3, each component as the first of D = 2: 16 z-scores below 4.5."""
    p, x0 = process(3), jnp.asarray([0.15, 0.85, 0.0])
    draw = jax.jit(lambda k, t: oracles.draws(p, k, x0, t, 100_000))
    for t in (1e-3, 0.02, 0.05, 0.6):
        x = np.asarray(draw(KEY, t), np.float64)
        assert x.min() >= 0 and np.abs(x.sum(1) - 1).max() < 1e-5
        for i in (0, 2):
            alpha = (ALPHA[3][i], sum(ALPHA[3]) - ALPHA[3][i])
            powers = x[:, i], x[:, i] ** 2
            for got, exact in zip(powers, moments(float(x0[i]), alpha, t), strict=True):
                z = (got.mean() - exact) / (got.std() / len(x) ** 0.5)
                assert abs(z) < 4.5, (t, i, z)


@pytest.mark.simulates
@pytest.mark.slow
def test_euler_converges_at_order_one_and_stays_inside():
    """From the boundary; 100 000 runs of 4 and of 8 steps: the extrapolation is exact enough."""
    p, x0 = process(2, linear, 0.5), jnp.asarray([0.02, 0.98])
    end = 0.5

    @partial(jax.jit, static_argnums=1)
    def run(key, steps):
        times = jnp.linspace(0, end, steps + 1)
        walk = lambda k: generators.simulate(p.generator, k, x0, times)
        return jax.vmap(walk)(jax.random.split(key, 100_000))

    coarse, fine = (np.asarray(run(jax.random.key(s), s), np.float64) for s in (4, 8))
    assert min(coarse.min(), fine.min()) >= 0 and np.abs(fine.sum(1) - 1).max() < 1e-5
    exact = moments(0.02, ALPHA[2], float(linear(0.5).clock(end)))
    for i in (0, 1):
        a, b = coarse[:, 0] ** (i + 1), fine[:, 0] ** (i + 1)
        error = np.sqrt((a.var() + 4 * b.var()) / len(a))
        # The third order of the extrapolation is below a tenth of the coarse error.
        left = 0.1 * abs(a.mean() - exact[i])
        assert abs(2 * b.mean() - a.mean() - exact[i]) < 4.5 * error + left
        assert abs(a.mean() - exact[i]) > 9 * error, "the coarse error is seen"


F = lambda x: x[0] ** 2 * x[1] + jnp.sin(3 * x[1])


EDGE = jnp.asarray([0.001, 0.0, 0.999])


@pytest.mark.slow
def test_steps_and_kernel_at_the_boundary():
    p = process(3)
    assert abs(oracles.weak_step(p.generator, F, EDGE, 0.3, KEY, n=100_000)) < oracles.Z
    assert abs(oracles.composition(p, F, EDGE, KEY, n=50_000)) < oracles.Z


@pytest.mark.simulates
@pytest.mark.slow
def test_steps_and_kernel_inside():
    p, x0 = process(3), jnp.asarray([0.2, 0.3, 0.5])
    assert abs(oracles.weak_step(p.generator, F, x0, 0.3, KEY)) < oracles.Z
    assert abs(oracles.kolmogorov(p, F, x0, KEY)) < oracles.Z
    assert abs(oracles.limit(process(3, constant, 12.0), F, EDGE, KEY)) < oracles.Z


def triangle(n):
    """Nodes [n^2, 3] and weights of Lebesgue measure in two coordinates, fine at the edges."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    angle = (nodes + 1) * np.pi / 4
    line, volume = np.sin(angle) ** 2, weights * np.pi / 4 * np.sin(2 * angle)
    u, v = np.meshgrid(line, line, indexing="ij")
    x = np.stack([u, (1 - u) * v, (1 - u) * (1 - v)], -1).reshape(-1, 3)
    return jnp.asarray(x), jnp.asarray((np.outer(volume, volume) * (1 - u)).ravel())


def test_adjoint():
    """<L f, g> = <f, L* g> for g of zero flux through the boundary: times a Dirichlet density."""
    with jax.enable_x64():
        p = wright_fisher(constant(1.0), (3,), (2.0, 1.5, 1.0))  # smooth in the angles
        x, volume = triangle(24)
        g = lambda x: jnp.exp(p.base.log_prob(x) + x[1] ** 2 - x[0] * x[2])
        sides = jax.jit(partial(oracles.adjointness, p.generator, F, g))
        left, right = sides(x, volume, 0.3)
        np.testing.assert_allclose(left, right, rtol=1e-5)
        stationary = lambda x: jnp.exp(p.base.log_prob(x))
        zero = jax.jit(lambda x: generators.adjoint(p.generator, stationary, x, 0.3))(x[100])
        assert abs(zero) < 1e-9


def log_beta(params, x, t):
    return params["a"] * x[0] * x[1] + params["b"] * jnp.cos(3 * x[0] + t)


PARAMS = {"a": jnp.asarray(0.7), "b": jnp.asarray(-0.4)}


@pytest.mark.slow
def test_three_losses_have_one_gradient():
    with jax.enable_x64():
        p = process(2)
        nodes, weights = np.polynomial.legendre.leggauss(80)
        angle = (nodes + 1) * np.pi / 4
        y, volume = np.sin(angle) ** 2, weights * np.pi / 4 * np.sin(2 * angle)
        nodes = jnp.asarray(np.stack([y, 1 - y], 1))
        atoms = jnp.asarray([[0.2, 0.8], [0.9, 0.1]])
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), PARAMS)
        grads = oracles.gradients(
            p, log_beta, params, atoms, jnp.asarray([0.3, 0.7]), nodes, jnp.asarray(volume), 0.2
        )
        for name in params:
            np.testing.assert_allclose(grads[1][name], grads[0][name], rtol=1e-4)
            np.testing.assert_allclose(grads[2][name], grads[0][name], rtol=1e-4)


@pytest.mark.slow
def test_the_implicit_loss_is_the_general_one():
    """Value and gradient at the same draws."""
    p, schedule = process(3, linear, 0.5), linear(0.5)
    score = lambda q: jax.vmap(lambda x, t: p.space.tangent(x, jax.grad(log_beta, 1)(q, x, t)))
    own = p._replace(read=lambda out, x, t: out)
    times = lambda key, n: (jnp.linspace(0.05, 1, n), jnp.full(n, 0.95))
    x0 = jnp.asarray([[0.2, 0.3, 0.5], [0.0, 0.1, 0.9], [0.6, 0.1, 0.3]])
    key_x = jax.random.split(KEY, 3)[1]

    def special(q):
        loss = implicit_wright_fisher(own, schedule, ALPHA[3], times)
        return jnp.sum(loss(lambda x, t, cond: score(q)(x, t), KEY, x0, None)[0])

    def general(q):
        t, weight = times(None, 3)
        x = jax.vmap(p.sample)(jax.random.split(key_x, 3), x0, t)
        beta = lambda x, t: log_beta(q, x, t)
        one = lambda x, t: generalised.implicit(p.generator, beta, x, t)
        return jnp.sum(weight * jax.vmap(one)(x, t))

    (a, grad_a), (b, grad_b) = (jax.jit(jax.value_and_grad(f))(PARAMS) for f in (special, general))
    np.testing.assert_allclose(a, b, rtol=1e-4)
    for name in PARAMS:
        np.testing.assert_allclose(grad_a[name], grad_b[name], rtol=1e-4)


def test_probes_are_right_on_average():
    """4000 draws of one probe each at a fixed x, |z| < 4.5."""
    p, schedule = process(3, linear, 0.5), linear(0.5)
    fixed = p._replace(read=lambda out, x, t: out, sample=lambda key, x, t: x)
    times = lambda key, n: (jnp.full(n, 0.4), jnp.ones(n))
    score = jax.vmap(lambda x, t: p.space.tangent(x, jax.grad(log_beta, 1)(PARAMS, x, t)))
    x0 = jnp.broadcast_to(jnp.asarray([0.2, 0.3, 0.5]), (4000, 3))

    def values(probes):
        loss = implicit_wright_fisher(fixed, schedule, ALPHA[3], times, probes)
        return loss(lambda x, t, cond: score(x, t), KEY, x0, None)[0]

    one, exact = jax.jit(lambda: (values(1), values(0)[:1]))()
    assert abs(oracles.z(one, exact)) < oracles.Z


@pytest.mark.simulates
@pytest.mark.slow
def test_the_reverse_process_lands_on_the_data():
    """From the exact marginal with the exact score, atoms on an edge and a corner; z < 4.5.

    The bias of 60 steps is of the order of a tenth of the standard error of 2000 runs.
    """
    p = process(2, linear, 0.1)
    atoms, weights = jnp.asarray([[0.1, 0.9], [1.0, 0.0]]), jnp.asarray([0.6, 0.4])
    times = jnp.geomspace(1.0, 0.05, 61)
    f = lambda x: jnp.cos(4 * x[0])
    assert abs(oracles.reversal(p, f, atoms, weights, KEY, times, n=2000)) < oracles.Z


@pytest.mark.simulates
@pytest.mark.slow
def test_bound():
    p = process(2, linear, 0.1)
    atoms, weights = jnp.asarray([[0.1, 0.9], [0.8, 0.2]]), jnp.asarray([0.6, 0.4])
    exact, (z, gap) = oracles.bound(p, atoms, weights, KEY, lambda x, t: 2 * x[0], n=20_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


# -- the edges ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_nan_at_the_boundary():
    p = wright_fisher(linear(), (3,), (0.3, 1.0, 5.0))
    corners, inside = jnp.eye(3), [[0.2, 0.3, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [1e-30, 1, 0]]
    states = jnp.concatenate([corners, jnp.asarray(inside)])
    x, x0 = (v.reshape(-1, 3) for v in jnp.broadcast_arrays(states[:, None], states))

    @jax.jit
    @jax.vmap
    def everything(x, x0, t, key):
        score = p.target(x0, x, t)
        back = p.reverse(lambda x, t: p.target(x0, x, t))
        zero = jnp.zeros(3)
        return (
            jax.value_and_grad(p.log_prob)(x, x0, t),
            jax.grad(p.log_prob, 1)(x, x0, t),
            score,
            jax.jacfwd(lambda x: p.target(x0, x, t))(x),
            p.phi(x, t, score, zero),
            p.simple(x, t, score, p.read(zero, x, t)),
            p.velocity(lambda x, t: score)(x, t),
            p.generator.apply(F, x, t),
            [p.sample(key, x0, t), p.generator.step(key, x, t, 0.1), back.step(key, x, t, 0.1)],
        )

    for t in (0.0, 1e-4, 0.01, 0.3, 1.0):
        out = everything(x, x0, jnp.full(len(x), t), jax.random.split(KEY, len(x)))
        for leaf in jax.tree.leaves(out):
            assert np.isfinite(leaf).all()
        for moved in out[-1]:
            assert moved.min() >= 0 and np.abs(moved.sum(1) - 1).max() < 1e-5


def test_one_alpha_is_every_parts():
    """As the flag --config.process.alpha="(2.0,)" gives it."""
    x = jnp.asarray([0.2, 0.3, 0.5])
    one, all_of = (wright_fisher(constant(), (3,), a) for a in ((2.0,), (2.0, 2.0, 2.0)))
    assert one.base.log_prob(x) == all_of.base.log_prob(x)


@pytest.mark.parametrize(
    "shape, alpha, message",
    [
        ((3,), (1.0, 2.0), "config.process.alpha=.* must be one number or 3"),
        ((3,), 0.0, r"config.process.alpha=0.0 must lie in \(0, 16\]"),
        ((3,), float("nan"), "must lie in"),
        ((60,), 2.0, "with a sum of at most 100"),
        ((1,), 1.0, r"states of shape \(1,\); valid: \(D,\), D >= 2"),
        ((2, 3), 1.0, "valid"),
    ],
)
def test_bad_input_is_said(shape, alpha, message):
    with pytest.raises(UserError, match=message):
        wright_fisher(constant(), shape, alpha)


@pytest.mark.slow
def test_a_limit_with_mass_at_the_boundary_has_a_bound():
    """E log q_1 / base is a KL, at alpha = .1, where parts of draws are below any precision."""
    process = wright_fisher(linear(0.2, 8.0), (3,), 0.1)
    x0, one = jnp.asarray([0.2, 0.3, 0.5]), jnp.ones(())
    keys = jax.random.split(KEY, 4000)
    x = jax.vmap(lambda k: process.sample(k, x0, one))(keys)
    ratio = jax.vmap(lambda x: process.log_prob(x, x0, one) - process.base.log_prob(x))(x)
    ratio = np.asarray(ratio, np.float64)
    assert ratio.mean() > -4.5 * ratio.std() / np.sqrt(len(ratio)) and ratio.mean() < 0.1
