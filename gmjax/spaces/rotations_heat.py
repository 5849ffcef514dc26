"""The heat kernel of SO(3), of the generator Laplacian / 2: its density and its score.

It depends on the heat time tau and the angle w of x0^T x alone. Relative to Haar's probability,

    f(w) = sum_{l >= 0} (2l + 1) exp(-l(l+1) tau/2) sin((l + 1/2) w) / sin(w/2)       (characters)

which is summed by the recurrence of the cosines and needs few terms unless tau is small. Each
term is -d/dw of cos((l + 1/2) w), so Poisson's summation gives, exactly,

    f(w) = e^(tau/8) sqrt(2 pi) tau^(-3/2) / sin(w/2)
           sum_k (-1)^k (w - 2 pi k) exp(-(w - 2 pi k)^2 / (2 tau)),                  (images)

one term for each geodesic from x0 to x. Up to tau = 1 the geodesics k = -1, 0, 1 are enough,
from there on the spins l <= 8; what is left out is below 1e-14 of f. Both are written as
functions of w^2, smooth at w = 0 to all orders, and the pair k = 1, -1 relative to k = 0 as

    A = -2 e^(-z) (cosh y - 2 z sinh y / y),        y = 2 pi w / tau,  z = 2 pi^2 / tau,

with no exponent above zero, so that the cut locus w = pi is as good as any other angle.
The score of the process at x is (d/dw log f)(w) along the unit tangent vector away from x0.

A draw is the exponential of a normal vector with its length corrected: a normal z in R^3 goes to
sqrt(a) k(|z|, a) z, a = tau / (1 + tau), where k makes the angle's distribution function

    G(w) = (w - sin w + sum_l (2l + 1) exp(-l(l+1) tau/2) (sin lw / l - sin (l+1)w / (l+1))) / pi

at the new length equal to that of |z| at the old. k is smooth, 1 at a = 0, and is read by cubic
interpolation from a table; the error of the distribution function is below 1e-6.
Source: Nikolayev and Savyolova (1997) for the characters' sum.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import interpolate, special

from gmjax.spaces.rotations import series, sinc
from gmjax.types import Array, Key

SWITCH = 1.0  # heat time below which images are summed
SPINS = 8

REACH = 7.0  # of |z| in the table; P(|z| > 7) = 1e-10
ROWS, COLUMNS = 96, 160


def log_density(square: Array, tau: Array) -> Array:
    """log f, the log density relative to Haar's probability measure: [] nats.

    Args:
        square: [] w^2, the squared angle in [0, pi^2].
        tau: [] heat time, positive.
    """
    early, first, last = _split(tau)
    return jnp.where(early, _images(square, first)[0], jnp.log(characters(square, last)))


def slope(square: Array, tau: Array) -> Array:
    """(d/dw log f) / w, finite at w = 0 where it is about -1 / tau: [].

    Args:
        square: [] w^2, the squared angle in [0, pi^2].
        tau: [] heat time, positive.
    """
    early, first, last = _split(tau)
    f, rise = jax.jvp(lambda s: characters(s, last), (square,), (jnp.ones_like(square),))
    return jnp.where(early, _images(square, first)[1], 2 * rise / f)


def characters(square: Array, tau: Array) -> Array:
    """f by the sum over spins."""
    u = 1 - 0.5 * square * sinc(0.25 * square) ** 2  # cos w
    total = character = before = jnp.ones_like(u)
    cosine = u
    for l in range(1, SPINS + 1):
        character = character + 2 * cosine
        total = total + (2 * l + 1) * jnp.exp(-l * (l + 1) * tau / 2) * character
        before, cosine = cosine, 2 * u * cosine - before
    return total


def draw(key: Key, tau: Array) -> Array:
    """w [3] such that x0 exp(hat(w)) follows the heat kernel from x0.

    Args:
        key: random key.
        tau: [] heat time, zero or more.
    """
    return stretch(jax.random.normal(key, (3,), jnp.result_type(tau)), tau)


def stretch(z: Array, tau: Array) -> Array:
    """The map of a standard normal z [3] to the tangent vector w [3] that `draw` returns."""
    a = tau / (1 + tau)
    square = jnp.sum(z * z)
    positive = square > 0
    length = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
    i, across = _stencil(a, ROWS)
    j, along = _stencil(jnp.minimum(length / REACH, 1), COLUMNS)
    block = jax.lax.dynamic_slice(jnp.asarray(_table(), z.dtype), (i, j), (4, 4))
    return jnp.sqrt(a) * jnp.sum(across[:, None] * along * block) * z


def _stencil(v: Array, n: int) -> tuple[Array, Array]:
    """The first of four nodes of n on [0, 1] round v, and Lagrange's weights of the four."""
    p = v * (n - 1)
    i = jnp.clip(jnp.floor(p).astype(jnp.int32), 1, n - 3)
    x = p - i
    weights = [
        x * (1 - x) * (x - 2) / 6,
        (x + 1) * (x - 1) * (x - 2) / 2,
        (x + 1) * x * (2 - x) / 2,
        (x + 1) * x * (x - 1) / 6,
    ]
    return i - 1, jnp.stack(weights)


@functools.cache
def _table() -> np.ndarray:
    """k at a = 0 .. 1 and |z| = 0 .. REACH: [ROWS, COLUMNS]."""
    lengths = np.linspace(0, REACH, COLUMNS)
    l = np.arange(1, 121)[:, None]  # enough spins for the first a above zero

    def row(a):
        tau = a / max(1 - a, 1e-300)
        # Nodes of w that crowd at the far end, where the tail of |z| is.
        w = min(math.pi, (REACH + 1) * math.sqrt(tau)) * (1 - np.linspace(1, 0, 600)[1:] ** 4)
        waves = np.sin(l * w) / l - np.sin((l + 1) * w) / (l + 1)
        spread = np.sum((2 * l + 1) * np.exp(-0.5 * l * (l + 1) * tau) * waves, 0)
        below = (w - np.sin(w) + spread) / math.pi
        w, below = w[1 - below > 1e-11], below[1 - below > 1e-11]
        lower = special.gammaincinv(1.5, below)
        upper = special.gammainccinv(1.5, 1 - below)
        length = np.sqrt(2 * np.where(below < 0.5, lower, upper))
        return interpolate.CubicSpline(length, w / length)(lengths) / math.sqrt(a)

    return np.stack([np.ones(COLUMNS)] + [row(a) for a in np.linspace(0, 1, ROWS)[1:]])


def _images(square: Array, tau: Array) -> tuple[Array, Array]:
    """log f and (d/dw log f) / w by the sum over geodesics."""
    z = 2 * math.pi**2 / tau
    c, s, d = _hyperbolic(square, tau)
    others = -2 * (c - 2 * z * s)
    rise = -2 * (2 * math.pi / tau) ** 2 * (s - 2 * z * d)
    nearest = tau / 8 + 0.5 * math.log(8 * math.pi) - 1.5 * jnp.log(tau) - square / (2 * tau)
    log_f = nearest - jnp.log(sinc(0.25 * square)) + jnp.log1p(others)
    return log_f, _spread(square) - 1 / tau + rise / (1 + others)


def _hyperbolic(square: Array, tau: Array) -> tuple[Array, Array, Array]:
    """e^(-z) times cosh y, sinh y / y and (cosh y - sinh y / y) / y^2."""
    q = (2 * math.pi / tau) ** 2 * square
    small = q < 0.3
    near = jnp.where(small, q, 0)
    sinh = series([1 / math.factorial(2 * n + 1) for n in range(8)], near)
    third = series([(2 * n + 2) / math.factorial(2 * n + 3) for n in range(7)], near)
    decay = jnp.exp(-2 * math.pi**2 / tau)

    w = jnp.sqrt(jnp.where(small, 1, square))
    y = 2 * math.pi * w / tau
    up = jnp.exp(-2 * math.pi * (math.pi - w) / tau)
    down = jnp.exp(-2 * math.pi * (math.pi + w) / tau)
    c, s = (up + down) / 2, (up - down) / (2 * y)
    pick = lambda a, b: jnp.where(small, decay * a, b)
    return pick(sinh + near * third, c), pick(sinh, s), pick(third, (c - s) / y**2)


def _spread(square: Array) -> Array:
    """(1 - (w/2) cot(w/2)) / w^2, of the volume's part w / sin(w/2)."""
    small = square < 0.25
    w = jnp.sqrt(jnp.where(small, 1, square))
    terms = [1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000]
    far = (1 - 0.5 * w * jnp.cos(w / 2) / jnp.sin(w / 2)) / w**2
    return jnp.where(small, series(terms, jnp.where(small, square, 0)), far)


def _split(tau: Array) -> tuple[Array, Array, Array]:
    """Is it early?, and the time for each form, kept where that form is finite."""
    early = tau < SWITCH
    return early, jnp.where(early, tau, SWITCH), jnp.where(early, SWITCH, tau)
