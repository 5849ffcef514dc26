"""The heat kernels of S^1, S^2 and S^3 against their zonal series at 200 digits."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gmjax.spaces import sphere, sphere_heat
from gmjax.types import UserError

DIMS = pytest.mark.parametrize("dim", [1, 2, 3])
PI = np.pi
EDGE = 3.1415925  # the last number of single precision before pi
# The angles at each time: both poles, their neighbourhoods, and what a Brownian motion visits;
# rounded to single precision, so that one reference serves both types.
CASES = [(1e-3, a) for a in (0.0, 0.03, 1.0, PI - 1e-3, EDGE)]
CASES += [
    (tau, a)
    for tau in (0.02, 0.2, 0.7, 1.0, 1.001, 3.0)
    for a in (0.0, 1e-3, 0.3, 1.5, 1.6, 2.8, PI - 1e-2, PI - 1e-3, EDGE)
]
CASES = np.asarray(CASES, np.float32)


@functools.cache
def exact(dim, theta, tau):
    """log p and d log p / d cos theta to 200 digits: p may be as small as 1e-2143."""
    n, small = dim, theta**2 / (2 * tau) / math.log(10)
    with mp.workdps(int(200 + small)):
        theta, tau = mp.mpf(theta), mp.mpf(tau)
        c, last = mp.cos(theta), mp.mp.dps * mp.log(10)
        before, now = mp.mpf(1), c  # the polynomials R_l, and their derivatives
        slope_before, slope = mp.mpf(0), mp.mpf(1)
        value, rise, l = mp.mpf(1), mp.mpf(0), 1
        q, ratio, turn = mp.exp(-n * tau / 2), mp.exp(-(n + 2) * tau / 2), mp.exp(-tau)
        while l * (l + n - 1) * tau / 2 < last + 10:
            many = math.comb(l + n, n) - (math.comb(l + n - 2, n) if l > 1 else 0)
            value, rise = value + many * q * now, rise + many * q * slope
            q, ratio = q * ratio, ratio * turn
            a, b = mp.mpf(2 * l + n - 1) / (l + n - 1), mp.mpf(l) / (l + n - 1)
            slope_before, slope = slope, a * (now + c * slope) - b * slope_before
            before, now, l = now, a * c * now - b * before, l + 1
        area = 2 * mp.pi ** (mp.mpf(n + 1) / 2) / mp.gamma(mp.mpf(n + 1) / 2)
        return float(mp.log(value / area)), float(rise / value)


def compare(dim, cases):
    """log p and slope as computed and as they are, in the type of the cases [N, 2]."""
    heat = sphere_heat.heat(dim)
    both = jax.jit(jax.vmap(lambda tau, a: (heat.log_prob(a, tau), heat.slope(a, tau))))
    ours = [np.asarray(a, np.float64) for a in both(*cases.T)]
    true = [exact(dim, float(a), float(tau)) for tau, a in cases]
    return *ours, *np.asarray(true).T


@pytest.mark.slow
@DIMS
def test_density_and_slope_in_double_precision(dim):
    """Relative errors; the score is -sin(theta) slope. The last cases are at pi itself."""
    with jax.enable_x64(True):
        poles = [(tau, PI) for tau in (0.01, 0.3, 1.0)]
        log_p, slope, true_log_p, true_slope = compare(dim, np.append(np.float64(CASES), poles, 0))
    assert np.abs(log_p - true_log_p).max() < 1e-7
    assert np.abs(slope / true_slope - 1).max() < 1e-7


@pytest.mark.slow
@DIMS
def test_density_and_slope_in_single_precision(dim):
    """log p is right to a few units of rounding of theta^2 / 2 tau, the slope to 5e-6."""
    log_p, slope, true_log_p, true_slope = compare(dim, CASES)
    assert (np.abs(log_p - true_log_p) / np.maximum(1, np.abs(true_log_p))).max() < 2e-6
    assert np.abs(slope / true_slope - 1).max() < 5e-6


@pytest.mark.slow
@DIMS
def test_derivatives_are_consistent(dim):
    """d log p / d theta = -sin(theta) slope by differentiation, and the heat equation
    d log p / d tau = (s' + (n - 1) cot(theta) s + s^2) / 2 for the score s."""
    heat = sphere_heat.heat(dim)
    with jax.enable_x64(True):
        tau, theta = (
            a.ravel()
            for a in np.meshgrid([0.003, 0.1, 0.9, 1.1, 2.0], [0.02, 0.5, 1.5, 1.7, 3.0, 3.12])
        )
        score = lambda a, tau: -jnp.sin(a) * heat.slope(a, tau)

        @jax.jit
        @jax.vmap
        def all_of(a, tau):
            s, rise = jax.value_and_grad(score)(a, tau)
            return s, rise, *jax.grad(heat.log_prob, (0, 1))(a, tau)

        s, rise, by_theta, by_tau = all_of(theta, tau)
        np.testing.assert_allclose(by_theta, s, rtol=1e-6, atol=1e-8)
        heated = 0.5 * (rise + (dim - 1) / np.tan(theta) * s + s**2)
        np.testing.assert_allclose(by_tau, heated, rtol=1e-5, atol=1e-5 / tau.min())


@pytest.mark.slow
@DIMS
def test_nothing_is_nan(dim):
    heat = sphere_heat.heat(dim)
    theta, tau = np.meshgrid(np.float32([0, 1e-7, 1, PI]), np.float32([1e-10, 1e-4, 1, 50]))
    for f in (heat.log_prob, heat.slope):
        for value in jax.jit(jax.vmap(jax.value_and_grad(f)))(theta.ravel(), tau.ravel()):
            assert np.isfinite(value).all()


@DIMS
def test_draws_have_the_law_of_the_angle(dim):
    """The distribution function at drawn angles by 200 Gauss-Legendre nodes."""
    heat = sphere_heat.heat(dim)
    u = np.asarray([1e-6, 1e-3, 0.03, 0.2, 0.5, 0.8, 0.97, 0.999, 1 - 1e-6])
    tau = np.asarray([1e-6, 1e-3, 0.05, 0.2, 0.4, 0.8, 0.99, 1.01, 1.5, 4.0, 30.0])
    node, weight = np.polynomial.legendre.leggauss(200)
    with jax.enable_x64(True):
        theta = jax.jit(jax.vmap(jax.vmap(heat.draw, (0, None)), (None, 0)))(u, tau)
        at = np.asarray(theta)[..., None] * (node + 1) / 2
        every = jnp.broadcast_to(tau[:, None, None], at.shape)
        p = np.exp(jax.jit(jax.vmap(heat.log_prob))(at.ravel(), every.ravel())).reshape(at.shape)
    below = np.sum(p * np.sin(at) ** (dim - 1) * weight, -1) * np.asarray(theta) / 2
    below *= np.exp(sphere.log_area(dim - 1)) if dim > 1 else 2
    if dim == 1:  # two arcs: u and 1 - u give the same angle while nothing wraps
        few = below[tau < 0.3]
        np.testing.assert_allclose(few, np.abs(2 * u - 1) * np.ones_like(few), atol=1e-6)
    else:
        gap = np.abs(below - (1 - u if dim == 2 else u)).max()
        assert gap < (2e-6 if dim == 2 else 3e-5)


def test_other_dimensions_are_named():
    with pytest.raises(UserError, match="dim=4.*valid: 1, 2, 3"):
        sphere_heat.heat(4)
