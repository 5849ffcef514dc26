"""The heat kernel of S^n, n = 1, 2, 3: the law of the angle of a Brownian motion.

The density p(theta, tau) at the angle theta from the start solves d/dtau p = Delta p / 2. Two
exact forms are used, each where it is cheap and loses no digits.

Long times, tau > 1, the expansion in zonal polynomials R_l, R_l(1) = 1, of eigenvalue
l (l + n - 1) and multiplicity N_l:

    |S^n| p = sum_l N_l exp(-l (l + n - 1) tau / 2) R_l(cos theta).

Short times, tau <= 1, images. On the circle p = sum_k gauss(theta + 2 pi k), and one dimension
follows from another by

    p^{n+2} = exp(n tau / 2) / (2 pi)  d p^n / d cos theta,

which gives S^3 from S^1. S^2 is the quotient of S^3 by its circles (Hopf): a Brownian motion on
S^3 run for tau / 4 covers one on S^2 run for tau, and the kernel is the mean over a fibre,

    p^2(theta, tau) = 1/4 int_0^{2 pi} p^3(phi / 2, tau / 4) d delta,
    cos(phi / 2) = cos(theta / 2) cos(delta).

With the factor exp(-theta^2 / 2 tau) taken out, what is left is a smooth function of delta of
known width, and Gauss-Legendre nodes on that width do the rest at every tau. Images that nearly
cancel at the antipode are summed in pairs, in closed form.

Instead of the score d log p / d theta the functions here give the slope
d log p / d cos theta = -score / sin(theta), positive and smooth at both poles. In x it is the
gradient: grad log p = slope (x0 - <x0, x> x).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.spaces import sphere
from gmjax.types import Array, UserError

TURN = 1.0  # images up to this tau, zonal polynomials after it
TERMS = 10  # polynomials: the next one is exp(-60) at tau = 1
DEPTH = 16.0  # the fibre is cut where its integrand has fallen by exp(-16)
NODES, WEIGHTS = (a / 2 for a in np.polynomial.legendre.leggauss(12))
NODES = NODES + 0.5
NEWTON = 2  # steps to invert the law of the angle on S^2
CELLS = 64  # of the table that inverts the law of the angle on S^3


class Heat(NamedTuple):
    """The kernel of S^n as a function of the angle theta in [0, pi] and of the time tau > 0."""

    log_prob: Callable[[Array, Array], Array]  # (theta, tau) -> [] nats per unit area
    slope: Callable[[Array, Array], Array]  # (theta, tau) -> [], d log p / d cos theta
    draw: Callable[[Array, Array], Array]  # (u, tau) -> the angle at tau, for u uniform on (0, 1)


def heat(dim: int) -> Heat:
    """The heat kernel of Delta / 2 on S^n, for one angle and one time.

    Args:
        dim: n in 1, 2, 3.

    Returns:
        A `Heat`. For tau >= 1e-3 and every angle the relative error of density and slope is
        below 1e-7 in float64. In float32 that of the slope is below 5e-6; log p, down to -4900,
        is right to a relative 1e-6, which is less than 1e-3 of the density. Draws have the right
        law to 2e-6 in u on S^2, to 3e-5 on S^3, exactly on S^1.

    Raises:
        UserError: another n.
    """
    if dim not in _PARTS:
        raise UserError(f"heat kernel of the sphere: dim={dim} is not built in; valid: 1, 2, 3")
    short, draw = _PARTS[dim]

    def both(theta, tau):
        early = short(theta, jnp.minimum(tau, TURN))
        value, rise, _ = _zonal(dim, theta, jnp.maximum(tau, TURN))
        late = jnp.log(value) - sphere.log_area(dim), rise / value
        return [jnp.where(tau > TURN, b, a) for a, b in zip(early, late, strict=True)]

    return Heat(
        lambda theta, tau: both(theta, tau)[0], lambda theta, tau: both(theta, tau)[1], draw
    )


def _zonal(dim: int, theta: Array, tau: Array) -> tuple[Array, Array, Array]:
    """The long-time series: |S^n| p, its derivative in c = cos theta, and sum_l>0 of
    N_l exp(...) R_l'(c) / (l (l + n - 1)), of which the law of the angle is made."""
    rows, eigenvalues = _polynomials(dim)
    weight = jnp.exp(-0.5 * tau * jnp.asarray(eigenvalues, theta.dtype))
    c = jnp.cos(theta)
    series = [jnp.sum(jnp.asarray(row, theta.dtype) * weight, -1) for row in rows]
    value, rise, tail = [jnp.polyval(a, c) for a in series]
    return value, rise, tail


@functools.cache
def _polynomials(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [3, power, l], highest power first, of N_l R_l, of its derivative and of
    that over the eigenvalue; the eigenvalues l (l + n - 1)."""
    n, x = dim, np.polynomial.Polynomial([0, 1])
    zonal = [x**0, x]
    for l in range(1, TERMS - 1):
        zonal.append(((2 * l + n - 1) * x * zonal[l] - l * zonal[l - 1]) / (l + n - 1))
    many = [math.comb(l + n, n) - (math.comb(l + n - 2, n) if l > 1 else 0) for l in range(TERMS)]
    eigenvalues = np.asarray([l * (l + n - 1) for l in range(TERMS)])
    rows = np.zeros((3, TERMS, TERMS))
    for l, (r, count) in enumerate(zip(zonal, many, strict=True)):
        for k, p in enumerate((r, r.deriv(), r.deriv() / max(eigenvalues[l], 1))):
            rows[k, : len(p.coef), l] = count * p.coef
    return rows[:, ::-1], eigenvalues


def _circle(theta: Array, tau: Array) -> tuple[Array, Array]:
    """log p and slope on S^1 for tau <= 1."""
    near, far = _images(theta, tau)
    mass = 1 + near + far
    log_p = -0.5 * (theta**2 / tau + jnp.log(2 * jnp.pi * tau)) + jnp.log(mass)
    return log_p, _wave(theta, tau)[0] / (tau * mass)


def _three(theta: Array, tau: Array) -> tuple[Array, Array]:
    """log p and slope on S^3 for tau <= 1."""
    wave, slope = _wave(theta, tau)
    log_p = 0.5 * (tau - theta**2 / tau - 3 * jnp.log(2 * jnp.pi * tau)) + jnp.log(wave)
    return log_p, slope


def _images(theta: Array, tau: Array) -> tuple[Array, Array]:
    """exp(-(theta + 2 pi k)^2 / 2 tau) over its value at k = 0, for k = -1 and 1."""
    turn = 2 * jnp.pi / tau
    return jnp.exp(-turn * _supplement(theta)), jnp.exp(-turn * (jnp.pi + theta))


def _wave(theta: Array, tau: Array) -> tuple[Array, Array]:
    """w = exp(theta^2 / 2 tau) / sin(theta) sum_k theta_k exp(-theta_k^2 / 2 tau), with
    theta_k = theta + 2 pi k, and d log(exp(-theta^2 / 2 tau) w) / d cos theta."""
    turn, x = 2 * jnp.pi / tau, jnp.minimum(theta, 0.5 * jnp.pi)
    near, far = _images(x, tau)
    # Away from the antipode: w = (x / sin x) b, and b is one but for small even terms.
    over_sine = 1 / jnp.sinc(x / jnp.pi)
    two = 2 * turn * jnp.maximum(x, 1e-3)
    fall = _fall(two)
    b = 1 + near + far - 4 * jnp.pi * turn * near * fall
    turning = two * fall - 4 * jnp.pi * turn * (fall + 2 * (jnp.exp(-two) - fall) / two)
    b_slope = turn * near * turning / jnp.maximum(x, 1e-3)
    low = over_sine * b, over_sine * (1 / tau - _cot_gap(x) - b_slope / b)

    # Around it, in e = pi - theta: w = 2 (e / sin e) h, the images k = 0, -1 and no other.
    e = _supplement(jnp.maximum(theta, 0.5 * jnp.pi))
    over_sine = 1 / jnp.sinc(e / jnp.pi)
    y = jnp.pi * e / tau
    fall = _fall(2 * y)
    h = jnp.pi**2 / tau * fall - 0.5 * (1 + jnp.exp(-2 * y))
    h_slope = (jnp.pi / tau) ** 2 * (jnp.pi**2 / tau * _fall_gap(y) - fall)
    high = 2 * over_sine * h, over_sine * (_cot_gap(e) - 1 / tau + h_slope / h)
    after = theta > 0.5 * jnp.pi
    return jnp.where(after, high[0], low[0]), jnp.where(after, high[1], low[1])


def _fibre(theta: Array, tau: Array) -> tuple[Array, Array, Array]:
    """Integrals over the fibre above S^2 for tau <= 1, each over exp(-theta^2 / 2 tau) / 2 k,
    k = exp(tau / 8) (2 pi tau)^{-3/2}: of p, of d p / d cos theta, of the chance to be beyond
    theta over 8 pi cos^2(theta / 2)."""
    # A rounded pi may lie beyond pi.
    s0, c0 = jnp.sin(0.5 * theta), jnp.maximum(jnp.cos(0.5 * theta), 0)
    # The width: where (phi^2 - theta^2) / 2 tau = DEPTH, or all of the fibre.
    past = DEPTH * tau / (theta + jnp.sqrt(theta**2 + 2 * DEPTH * tau))
    square = jnp.sin(theta + past) * jnp.sin(past)
    inside = (0.5 * theta + past < 0.5 * jnp.pi) & (square < c0**2)
    part = jnp.where(inside, square, 1) / jnp.where(inside, c0**2, 1)
    width = jax.lax.stop_gradient(jnp.arcsin(jnp.sqrt(part)))
    delta = width * jnp.asarray(NODES, theta.dtype)
    sd, cd = jnp.sin(delta), jnp.cos(delta)

    # phi = theta + 2 d and e = pi - phi, without differences of near numbers.
    c, s = c0 * cd, jnp.sqrt(s0**2 + (c0 * sd) ** 2)
    d = jnp.atan2(c0 * sd**2 / (s + s0 * cd), c * c0 + s * s0)
    phi, e = 2 * jnp.atan2(s, c), 2 * jnp.atan2(c, s)
    weight = width * jnp.asarray(WEIGHTS, theta.dtype) * jnp.exp(-2 * d * (theta + d) / tau)

    turn = 2 * jnp.pi / tau
    near, far = jnp.exp(-turn * e), jnp.exp(-turn * (jnp.pi + phi))
    arc = 2 / jnp.sinc(phi / (2 * jnp.pi))  # phi / sin(phi / 2)
    g = arc + ((2 * jnp.pi - phi) * near - (2 * jnp.pi + phi) * far) / s
    # e / cos(phi / 2), and with it (1 - near) / cos(phi / 2).
    gap = 2 / jnp.sinc(e / (2 * jnp.pi))
    rise = turn * _fall(turn * e) * gap * arc**2 * (1 / tau - 0.25 * _cot_gap(0.5 * phi))
    rise += near * jnp.pi * (1 / s - 4 / tau * gap) / s**2
    plus = phi + 2 * jnp.pi
    rise += far * ((1 - plus**2 / tau) / jnp.maximum(c, 1e-6) - 0.5 * plus / s) / s**2
    total = lambda a: jnp.sum(weight * a)
    return total(g), total(rise * cd**2), total(g * sd**2)


def _two(theta: Array, tau: Array) -> tuple[Array, Array]:
    """log p and slope on S^2 for tau <= 1."""
    mass, rise, _ = _fibre(theta, tau)
    log_p = math.log(2) + tau / 8 - 1.5 * jnp.log(2 * jnp.pi * tau) - 0.5 * theta**2 / tau
    return log_p + jnp.log(mass), 0.5 * rise / mass


def _draw_circle(u: Array, tau: Array) -> Array:
    """The angle of a wrapped normal number, exactly."""
    turned = jnp.sqrt(tau) * jax.scipy.special.ndtri(u)
    return jnp.abs(turned - 2 * jnp.pi * jnp.round(turned / (2 * jnp.pi)))


def _draw_two(u: Array, tau: Array) -> Array:
    """The angle beyond which lies u, by Newton's steps on log P(Theta > theta).

    The unknown is z, the logarithm of that chance under the von Mises-Fisher law of the same
    mean, in which log P is nearly z itself.
    """
    log_u = jnp.log(u)
    mean = jnp.exp(-jnp.minimum(tau, 30))
    spread = -jnp.expm1(-jnp.minimum(2 * tau, 60)) / (mean * (3 - mean**2))

    def place(z):
        y = -spread * jnp.log1p(-jnp.expm1(-2 / spread) * jnp.expm1(z))  # 1 - cos theta
        y = jnp.clip(y, 0, 2)
        return y, 2 * jnp.atan2(jnp.sqrt(y), jnp.sqrt(2 - y))

    def step(_, z):
        y, theta = place(z)
        short, long = jnp.minimum(tau, TURN), jnp.maximum(tau, TURN)
        mass, _, beyond = _fibre(theta, short)
        log_k = short / 8 - 1.5 * jnp.log(2 * jnp.pi * short) - 0.5 * theta**2 / short
        early = math.log(16 * math.pi) + log_k + jnp.log(beyond), 2 * beyond / mass
        value, _, tail = _zonal(2, theta, long)
        share = 1 - y * tail
        late = jnp.log(share), share / value
        # P = (1 - y / 2) exp(log_share), and ratio is exp(log_share) / 4 pi p.
        log_share, ratio = [jnp.where(tau > TURN, b, a) for a, b in zip(early, late, strict=True)]
        half = jnp.maximum(1 - 0.5 * y, 1e-12)
        miss = jnp.log(half) + log_share - log_u
        return jnp.minimum(z - miss * ratio / _fall(2 * half / spread), 0)

    return place(jax.lax.fori_loop(0, NEWTON, step, log_u))[1]


def _draw_three(u: Array, tau: Array) -> Array:
    """The angle before which lies u, from a table of the law of the angle at this tau."""
    last = jnp.minimum(jnp.pi, 6.5 * jnp.sqrt(tau))
    theta = last * jnp.linspace(0, 1, 2 * CELLS + 1, dtype=u.dtype)
    log_p = heat(3).log_prob(theta, tau)
    f = jnp.sin(theta) ** 2 * jnp.exp(log_p - log_p[0])
    mass = f[:-2:2] + 4 * f[1::2] + f[2::2]  # Simpson's rule
    upto = jnp.cumsum(mass)
    target = u * upto[-1]
    cell = jnp.minimum(jnp.sum(upto <= target), CELLS - 1)
    part = jnp.clip((target - upto[cell]) / mass[cell] + 1, 0, 1)
    # Within the cell the density is taken as linear, a + (b - a) x with a + b = 2.
    ends = f[2 * cell], f[2 * cell + 2]
    a = 2 * ends[0] / jnp.maximum(ends[0] + ends[1], 1e-30)
    x = 2 * part / jnp.maximum(a + jnp.sqrt(a**2 + 4 * (1 - a) * part), 1e-30)
    return last * (cell + x) / CELLS


def _supplement(theta: Array) -> Array:
    """pi - theta, which keeps its digits at the antipode: sine and cosine know all of pi."""
    return jnp.maximum(jnp.atan2(jnp.sin(theta), -jnp.cos(theta)), 0)


def _fall(x: Array) -> Array:
    """(1 - exp(-x)) / x, smooth at zero."""
    small = x < 1e-3
    s = jnp.where(small, x, 0)
    series = 1 - s / 2 * (1 - s / 3 * (1 - s / 4 * (1 - s / 5)))
    return jnp.where(small, series, -jnp.expm1(-x) / jnp.where(small, 1, x))


def _fall_gap(x: Array) -> Array:
    """exp(-x) (x cosh x - sinh x) / x^3, smooth at zero."""
    small = x < 0.5
    s = jnp.where(small, x, 0) ** 2
    series = 1 + s / 10 * (1 + s / 28 * (1 + s / 54 * (1 + s / 88)))
    large = jnp.where(small, 1, x)
    exact = (0.5 * (1 + jnp.exp(-2 * large)) - _fall(2 * large)) / large**2
    return jnp.where(small, jnp.exp(-x) * series / 3, exact)


def _cot_gap(x: Array) -> Array:
    """(1 - x cot x) / x^2 for |x| <= pi / 2, smooth at zero."""
    small = jnp.abs(x) < 0.3
    s = jnp.where(small, x, 0) ** 2
    terms = (1 / 3, 1 / 45, 2 / 945, 1 / 4725, 2 / 93555, 1382 / 638512875)
    series = jnp.polyval(jnp.asarray(terms[::-1], x.dtype), s)
    large = jnp.where(small, 1, x)
    return jnp.where(small, series, (1 - large / jnp.tan(large)) / large**2)


_PARTS = {1: (_circle, _draw_circle), 2: (_two, _draw_two), 3: (_three, _draw_three)}
