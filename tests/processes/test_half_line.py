"""Cox-Ingersoll-Ross and squared Bessel noising: kernels against mpmath and scipy, oracles."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import oracles
import pytest
import scipy.stats

from gmjax import generators
from gmjax.processes import half_line
from gmjax.processes.schedules import constant, linear
from gmjax.types import Distribution, UserError

PARAMETERS = {"speed": 1.0, "mean": 1.5, "sigma": 1.0}  # nu = 2
CIR = half_line.cox_ingersoll_ross(constant(1.5), (2,), **PARAMETERS)
LINE = half_line.cox_ingersoll_ross(constant(1.5), (1,), **PARAMETERS)
BESSEL = half_line.squared_bessel(constant(0.4), (2,), dimension=3.0)
BOTH = pytest.mark.parametrize("process", [CIR, BESSEL], ids=["cir", "bessel"])
HEAVY = pytest.mark.parametrize(
    "process",
    [pytest.param(CIR, id="cir"), pytest.param(BESSEL, id="bessel", marks=pytest.mark.slow)],
)
ATOMS = jnp.asarray([[0.3, 2.0], [1.5, 0.6], [3.0, 1.0]])
WEIGHTS = jnp.asarray([0.2, 0.5, 0.3])
KEYS = jax.random.split(jax.random.key(0), 8)


def mean(x):
    """A bounded test function without symmetry."""
    return jnp.tanh(x[0] - 0.4 * x[1]) + jnp.exp(-x[1])


@pytest.mark.parametrize("nu", [0.0, 0.5, 3.7, 12.0, 40.0])
def test_bessel_function(nu):
    """log 0F1 and its derivatives, either side of the switch, from zero to 1e9."""
    mp.mp.dps = 40
    ws = [0.0, 1e-6, 0.5, 20.0, 224.0, 226.0, 1e4, 1e9]
    f = lambda order, w: mp.hyp0f1(order + 1, mp.mpf(w))
    value = [float(mp.log(f(nu, w)) - 2 * mp.sqrt(mp.mpf(w))) for w in ws]
    r = [f(nu + 1, w) / f(nu, w) / (nu + 1) for w in ws]
    r_next = [f(nu + 2, w) / f(nu + 1, w) / (nu + 2) for w in ws]
    slope = [float(a * (b - a)) for a, b in zip(r, r_next, strict=True)]

    def errors(dtype):
        w = jnp.asarray(ws, dtype)
        got, grown = jax.jvp(half_line._ratio(nu), (w,), (jnp.ones_like(w),))
        return (
            np.abs(half_line._log_f(nu, w) - np.asarray(value)).max(),
            np.abs(got / np.asarray(r, float) - 1).max(),
            np.abs(grown / np.asarray(slope) - 1)[:-1].max(),
        )

    with jax.enable_x64(True):
        value_error, ratio_error, slope_error = errors(jnp.float64)
    assert value_error < 2e-11 and ratio_error < 1e-11
    # r_{nu+1} - r_nu loses the factor sqrt(w).
    assert slope_error < 1e-8
    value_error, ratio_error, _ = errors(jnp.float32)
    assert value_error < 3e-5 and ratio_error < 1e-5


@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0])
def test_kernel_and_score(t):
    """Against the non-central chi-square of scipy, and its slope by mpmath."""
    a, b, sigma = PARAMETERS.values()
    tau, nu = 1.5 * t, 2 * a * b / sigma**2 - 1
    c = 2 * a / sigma**2 / -np.expm1(-a * tau)
    mp.mp.dps = 40

    def density(x, x0):
        v, u = mp.mpf(c) * x, mp.mpf(c) * x0 * mp.exp(-mp.mpf(a) * tau)
        bulk = mp.exp(-u - v) * v**nu / mp.gamma(nu + 1)
        return mp.mpf(c) * bulk * mp.hyp0f1(nu + 1, u * v)

    width = sigma * np.sqrt(tau)
    cases = [
        (x0, max(0.05, x0 + k * width * np.sqrt(x0))) for x0 in (0.05, 1, 9) for k in (-3, 1, 4)
    ]
    both = jax.jit(jax.vmap(lambda x, x0: (LINE.log_prob(x, x0, t), LINE.target(x0, x, t)[0])))
    for dtype, tolerance in ((np.float64, 1e-8), (np.float32, 1e-4)):
        with jax.enable_x64(dtype == np.float64):
            x0, x = (jnp.asarray(v, dtype)[:, None] for v in zip(*cases, strict=True))
            log_p, score = both(x, x0)
        # The reference at the points as the process has them.
        start, end = (np.asarray(v, np.float64)[:, 0] for v in (x0, x))
        score = np.asarray(score)
        law = scipy.stats.ncx2(2 * (nu + 1), 2 * c * start * np.exp(-a * tau))
        np.testing.assert_allclose(log_p, law.logpdf(2 * c * end) + np.log(2 * c), atol=3e-4)
        exact = [density(*p) for p in zip(end, start, strict=True)]
        rise = lambda x, x0: float(mp.diff(lambda y: mp.log(density(y, x0)), x))
        slope = np.asarray([rise(*p) for p in zip(end, start, strict=True)])
        log_exact = np.asarray([float(mp.log(p)) for p in exact])
        # In the scale of the kernel: a float32 point itself moves log p by eps x |score|.
        scale = 1 if dtype == np.float64 else 1 + np.abs(slope) * end * 1e-2
        assert np.all(np.abs(log_p - log_exact) < tolerance * scale)
        unit = 1 / (width * np.sqrt(end))
        assert np.all(np.abs(score - slope) < tolerance * (np.abs(slope) + unit))


@HEAVY
@pytest.mark.slow
def test_forward_oracles(process):
    """|z| < 4.5: 7e-6 for a correct program."""
    x0, t = ATOMS[0], jnp.asarray(0.5)
    near_zero = jnp.asarray([0.01, 0.5])
    for x in (x0, near_zero):
        assert abs(oracles.weak_step(process.generator, mean, x, t, KEYS[0], n=50_000)) < oracles.Z
    assert abs(oracles.kolmogorov(process, mean, x0, KEYS[1], n=5_000)) < oracles.Z
    assert abs(oracles.composition(process, mean, x0, KEYS[2], n=5_000)) < oracles.Z
    # Both base laws are limits, as the clock runs or as the start goes to zero.
    start = ATOMS[0] if process is CIR else jnp.full(2, 1e-6)
    last = half_line.cox_ingersoll_ross(constant(10.0), (2,), **PARAMETERS)
    limit = last if process is CIR else process
    assert abs(oracles.limit(limit, mean, start, KEYS[3], n=5_000)) < oracles.Z


@pytest.mark.slow
def test_step_stays_positive_and_has_its_moments():
    """Mean x + b dt and variance sigma^2 x dt + sigma^4 dt^2 / 8, exactly, where nothing is cut."""
    x, t, dt, n = jnp.asarray([1e-4, 0.8]), jnp.asarray(0.3), 0.05, 100_000
    step = jax.jit(jax.vmap(lambda k: CIR.generator.step(k, x, t, dt)))
    y = np.asarray(step(jax.random.split(KEYS[4], n)), np.float64)
    assert y.min() > 0
    s2 = 1.5 * dt  # sigma = 1
    drift, variance = 1.5 * (1.5 - np.asarray(x)) * dt, s2 * np.asarray(x) + s2**2 / 8
    assert np.all(np.abs(y.mean(0) - x - drift) < 4.5 * np.sqrt(variance / n))
    spread = ((y - y.mean(0)) ** 2).std(0) / np.sqrt(n)
    assert np.all(np.abs(y.var(0) - variance) < 4.5 * spread)


@HEAVY
@pytest.mark.slow
def test_reversal(process):
    """100 steps: the bias of the rule is below the standard error of 3000 draws."""
    times = jnp.linspace(1, 0.1, 101)
    assert abs(oracles.reversal(process, mean, ATOMS, WEIGHTS, KEYS[5], times, n=3_000)) < oracles.Z


def quadrature():
    """Of (0, 25): nodes [N, 1] and weights."""
    r, w = np.polynomial.legendre.leggauss(100)
    root = (r + 1) * 2.5  # x = root^2 resolves zero
    return jnp.asarray(root[:, None] ** 2), jnp.asarray(w * 2.5 * 2 * root)


def test_adjointness():
    with jax.enable_x64(True):
        nodes, volume = quadrature()
        t = jnp.asarray(0.5)
        f = lambda x: jnp.exp(-x[0]) * jnp.cos(x[0])
        # Densities vanish at zero; without that the adjoint has a boundary term.
        g = lambda x: x[0] * jnp.exp(-1.5 * x[0])
        sides = jax.jit(lambda: oracles.adjointness(LINE.generator, f, g, nodes, volume, t))
        left, right = sides()
        assert float(left) == pytest.approx(float(right), rel=1e-9)


@pytest.mark.slow
def test_gradients_of_the_three_losses():
    with jax.enable_x64(True):
        nodes, volume = quadrature()
        t = jnp.asarray(0.5)
        log_beta = lambda p, x, t: p[0] * jnp.log(x[0]) - p[1] * x[0] * (1 + t)
        args = (jnp.asarray([1.0, 1.2]), ATOMS[:, :1], WEIGHTS, nodes, volume, t)
        implicit, explicit, denoising = oracles.gradients(LINE, log_beta, *args)
        np.testing.assert_allclose(implicit, explicit, rtol=1e-7)
        np.testing.assert_allclose(denoising, explicit, rtol=1e-7)


@pytest.mark.slow
def test_bound():
    """At the exact score the bound is the entropy; a tilt of the score costs."""
    log_q = oracles.log_marginal(CIR, ATOMS, WEIGHTS)
    end = Distribution(CIR.base.sample, lambda x: log_q(x, jnp.ones(())))
    args = (CIR._replace(base=end), ATOMS, WEIGHTS, KEYS[6])
    exact, (z, gap) = oracles.bound(*args, lambda x, t: jnp.sin(2 * x[0]), n=20_000)
    assert abs(exact[0]) < oracles.Z
    assert z > oracles.Z and gap > 0


@pytest.mark.slow
@HEAVY
def test_closed_forms_are_those_of_the_general_diffusion(process):
    """Reversal, velocity, phi and the score against what drift and noise alone give."""
    score = lambda y, s: process.target(ATOMS[1], y, s)
    log_q = lambda y, s: process.log_prob(y, ATOMS[1], s)
    other = lambda y: -y.sum()

    @jax.jit
    def pairs(x, t):
        q = lambda y: jnp.exp(log_q(y, t))
        dual = lambda f: generators.adjoint(process.generator, f, x, t)
        # K f = L* (q f) / q - f L* q / q, from the adjoint of the general diffusion.
        turned = (dual(lambda y: q(y) * mean(y)) - mean(x) * dual(q)) / q(x)
        rise = jax.grad(lambda s: jnp.exp(log_q(x, s)))(t)
        # d q / dt = -div(q v), the flow of the same marginals.
        flow = lambda y: q(y) * process.velocity(score)(y, t)
        gap = process.phi(x, t, score(x, t), jax.grad(other)(x))
        ratio = lambda y: log_q(y, t) - other(y)
        return {
            "score": (score(x, t), jax.grad(log_q)(x, t)),
            "reverse": (process.reverse(score).apply(mean, x, t), turned),
            "generator": (generators.reverse(process.generator, log_q).apply(mean, x, t), turned),
            "forward": (dual(q), rise),
            "velocity": (-jnp.trace(jax.jacfwd(flow)(x)), rise),
            "phi": (gap, generators.carre_du_champ(process.generator, ratio, ratio, x, t)),
        }

    with jax.enable_x64(True):
        for name, (left, right) in pairs(jnp.asarray([0.4, 2.2]), jnp.asarray(0.4)).items():
            np.testing.assert_allclose(left, right, rtol=1e-7, err_msg=name)


@pytest.mark.slow
@BOTH
def test_network_output_is_of_order_one(process):
    """x s over its size stays of order one from the start to the end of the clock."""

    @jax.jit
    def size(t):
        x = oracles.draws(process, KEYS[7], ATOMS[2], t, 1_000)
        each = lambda x: process.simple(x, t, process.target(ATOMS[2], x, t), 0 * x)
        return jnp.mean(jax.vmap(each)(x))

    for t in (1e-3, 0.1, 1.0):
        t = jnp.asarray(t)
        assert 0.05 < float(size(t)) < 4
    out, x = jnp.asarray([0.3, -1.0]), ATOMS[0]
    back = process.simple(x, t, process.read(out, x, t), jnp.zeros(2))
    assert float(back) == pytest.approx(float(jnp.mean(out**2)), rel=1e-5)


@pytest.mark.slow
@BOTH
def test_never_nan(process):
    for x, t in ((1e-12, 1e-4), (1e-12, 1.0), (1.5, 1e-4), (40.0, 1.0)):
        x, t = jnp.full(2, x), jnp.asarray(t)
        both = lambda y, t: (
            process.log_prob(y, ATOMS[1], t) + jnp.sum(process.target(ATOMS[1], y, t))
        )
        value, slope = jax.jit(jax.value_and_grad(both))(x, t)
        assert np.isfinite(value) and np.isfinite(slope).all()
    start = jnp.zeros(2)
    assert np.isfinite(process.log_prob(ATOMS[0], start, t))
    assert np.isfinite(process.target(start, ATOMS[0], t)).all()
    assert np.isfinite(process.space.embed(start)).all()


def test_bad_input():
    clock = linear()
    with pytest.raises(UserError, match="sigma=2.0 reaches zero; valid: at most 1.41"):
        half_line.cox_ingersoll_ross(clock, (1,), sigma=2.0)
    with pytest.raises(UserError, match="speed=0.0 is out of range"):
        half_line.cox_ingersoll_ross(clock, (1,), speed=0.0)
    with pytest.raises(UserError, match="dimension=1.0"):
        half_line.squared_bessel(clock, (1,), dimension=1.0)
    space = half_line.half_line((2,))
    assert space.check(np.ones((3, 2))) == ""
    assert "valid: > 0" in space.check(np.zeros((3, 2)))


@pytest.mark.parametrize("process", [LINE, half_line.squared_bessel(constant(), (1,))])
def test_base_is_normalised(process):
    with jax.enable_x64(True):
        x = (jnp.arange(20_000) + 0.5) * 0.002
        p = jnp.exp(jax.vmap(lambda x: process.base.log_prob(x[None]))(x))
        assert float(jnp.sum(p) * 0.002) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_many_ancestors_and_no_time():
    """States of 1e5 at t = 1e-2, where the Poisson numbers pass 2^31, and t = 0."""
    process = half_line.cox_ingersoll_ross(constant(1e-3), (1,), **PARAMETERS)
    x0, n = jnp.asarray([2e5]), 2000
    keys = jax.random.split(jax.random.key(1), n)
    draw = jax.jit(jax.vmap(process.sample, (0, None, None)))
    x = np.asarray(draw(keys, x0, jnp.asarray(1e-2)), np.float64)
    # tau = 1e-5: mean x0 (1 - tau) + 1.5 tau, variance x0 sigma^2 tau; normal at this size.
    assert abs(x.mean() - 2e5 * (1 - 1e-5)) < 4.5 * np.sqrt(2.0 / n) + 2e5 * 1e-6
    assert abs(x.var() / 2.0 - 1) < 4.5 * np.sqrt(2 / n) + 0.05
    x, t = draw(keys[:4], jnp.asarray([0.3]), jnp.zeros(())), jnp.zeros(())
    np.testing.assert_allclose(x, 0.3, atol=1e-2)
    assert np.isfinite(jax.vmap(lambda x: process.target(jnp.asarray([0.3]), x, t))(x)).all()
