"""Hyperbolic space H^n, the hyperboloid -x_0^2 + |y|^2 = -1, x_0 > 0, of Minkowski space.

A state is x = (x_0, y) in R^{n+1} with x_0 = sqrt(1 + |y|^2); the metric is the Minkowski
product restricted to tangent vectors. The boost that takes the origin (1, 0) to x takes the
coordinate vectors to an orthonormal frame at x, and everything is written in its coordinates c:

    lift         c -> v = (y.c, c + y (y.c) / (1 + x_0))
    coordinates  v -> c = w - y (y.w) / (x_0 (1 + x_0)),   v = (v_0, w) tangent at x
    exp          cosh|v| x + sinh|v| / |v| v
    log          arcsinh|c| / |c| lift(c),   c = coordinates of the point itself, |c| = sinh d

Far from the origin x_0 grows like e^d, and Minkowski products of such vectors cancel to their
last digit. So they are not formed: with s = z_y - y, the area W = |y ^ s|^2 and top = x_0 + z_0,

    |z - x|^2 = 2 (W + |s|^2) / (1 + x_0 z_0 + y.z_y) = 4 sinh(d / 2)^2,
    c = s - y (2 y.s + K) / ((1 + x_0) top),   K = (|s|^2 (top + 2 + |z - x|^2 / 2) + 2 W) / top,

whose terms are all positive where y.z_y is. The functions of |v| are written in |v|^2, where they
are smooth at zero. Squares and products of coordinates of size e^d would overflow at half the
distance that the coordinates themselves reach, so all are formed of ratios: points may be e^84 out
in single precision, exp stops there, and distances beyond 87 count as 87.

Rounding of y turns a point at distance r from the origin by eps, which moves it by eps e^r: beyond
r = 16 in single precision (36 in double) only its distance from the origin is known, and of a
tangent vector there only the part along y.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Space

_COSH = (1, 1 / 2, 1 / 24, 1 / 720, 1 / 40320)
_SINHC = (1, 1 / 6, 1 / 120, 1 / 5040, 1 / 362880)
_ARCSINHC = (1, -1 / 6, 3 / 40, -5 / 112, 35 / 1152)


def hyperbolic(dim: int) -> Space:
    """H^n with n = dim, of curvature -1; one state is [dim + 1].

    Its volume is infinite, so it has no uniform law.

    Args:
        dim: n >= 1.

    Source: Ratcliffe, Foundations of Hyperbolic Manifolds, chapter 3.
    """
    return Space(
        shape=(dim + 1,),
        dim=dim,
        check=lambda x: _check(np.asarray(x), dim),
        project=lambda x: _on(x[1:]),
        tangent=lambda x, v: lift(x, projected(x, v)),
        exp=exp,
        log=log,
        inner=lambda x, u, v: jnp.sum(coordinates(x, u) * coordinates(x, v)),
        frame=lambda x: jax.vmap(lambda c: lift(x, c))(jnp.eye(dim, dtype=x.dtype)),
        noise=lambda key, x, draw=jax.random.normal: lift(x, draw(key, (dim,), x.dtype)),
        uniform=None,
        embed=embed,
    )


def origin(dim: int) -> Array:
    """(1, 0, ..., 0)."""
    return jnp.zeros(dim + 1).at[0].set(1)


def lift(x: Array, c: Array) -> Array:
    """The tangent vector at x with coordinates c in the boosted frame: [n] -> [n + 1]."""
    first = jnp.sum(x[1:] * c)
    return jnp.concatenate([first[None], c + x[1:] / (1 + x[0]) * first])


def coordinates(x: Array, v: Array) -> Array:
    """The coordinates of a tangent vector in the boosted frame: [n + 1] -> [n]."""
    y = x[1:]
    return v[1:] - y / (1 + x[0]) * jnp.sum(y / x[0] * v[1:])


def projected(x: Array, v: Array) -> Array:
    """The coordinates of the tangential part of any v of R^{n+1}: [n + 1] -> [n]."""
    y = x[1:]
    return v[1:] + y * (jnp.sum(y / (1 + x[0]) * v[1:]) - v[0])


def exp(x: Array, v: Array) -> Array:
    """cosh|v| x + sinh|v| / |v| v, back on the hyperboloid, and no further out than it reaches."""
    square = jnp.sum(coordinates(x, v) ** 2)
    far = square > 1
    near = jnp.where(far, 0, square)
    d = jnp.sqrt(jnp.where(far, square, 1))
    back = jnp.exp(-2 * d)
    ahead = 0.5 * ((1 + back) * x[1:] + (1 - back) / d * v[1:])  # over e^d
    reach = _log_largest(x) - jnp.log(jnp.max(jnp.abs(ahead)) + jnp.finfo(x.dtype).tiny)
    far_out = jnp.exp(jnp.minimum(d, jax.lax.stop_gradient(reach))) * ahead
    return _on(jnp.where(far, far_out, _cosh(near) * x[1:] + sinhc(near) * v[1:]))


def log(x: Array, z: Array) -> Array:
    """The tangent vector at x with exp(x, v) = z: [n + 1]."""
    y, step = x[1:], z[1:] - x[1:]
    top = x[0] + z[0]
    size = _length(step)
    share, turn = size / top, _area(_shorter(x, z) / top, step)
    k = share * (size + share * (2 + 0.5 * chord(x, z))) + 2 * turn
    c = step - y / (1 + x[0]) * (2 * jnp.sum(y / top * step) + k)
    return lift(x, c * _arcsinh_over(c))


def chord(x: Array, z: Array) -> Array:
    """|z - x|^2 = 4 sinh(d / 2)^2 of two points, in Minkowski's product, or e^87 where more: []."""
    step = z[1:] - x[1:]
    a, b = jnp.sqrt(x[0]), jnp.sqrt(z[0])
    inner = jnp.sum((x[1:] / x[0]) * (z[1:] / z[0]))  # the cosine of the angle, nearly
    near = inner >= 0
    below = 1 / x[0] / z[0] + 1 + jnp.where(near, inner, 0)
    apart = 2 * (_area(_shorter(x, z) / a, step / b) + jnp.sum((step / a / b) ** 2)) / below
    largest = math.exp(_log_largest(x) + 2)
    mean = jnp.minimum(a * b, largest**0.5)
    across = 2 * (mean * (1 - inner) * mean - 1)
    return jnp.minimum(jnp.where(near, apart, across), largest)


def square_distance(x: Array, z: Array) -> Array:
    """d(x, z)^2, smooth at zero: []."""
    q = chord(x, z)
    return q * _arcsinhc(q / 4) ** 2


def _shorter(x: Array, z: Array) -> Array:
    """Either end of z_y - y spans the same area with it."""
    return jnp.where(x[0] < z[0], x[1:], z[1:])


def _area(y: Array, s: Array) -> Array:
    """|y ^ s|^2 = |y|^2 |s|^2 - (y.s)^2 without cancellation, as far as it does not overflow."""
    outer = y[:, None] * s
    turn = jnp.sqrt(0.5) * (outer - outer.T)
    large = jnp.max(jnp.abs(turn)) > 1e6
    far = jnp.minimum(_length(jnp.where(large, turn, 1)), math.exp(0.5 * _log_largest(y)))
    return jnp.where(large, far**2, jnp.sum(jnp.where(large, 0, turn) ** 2))


def embed(x: Array) -> Array:
    """Coordinates in the Poincare ball, and normal coordinates at the origin: [2 n]."""
    y = x[1:]
    return jnp.concatenate([y / (1 + x[0]), y * _arcsinh_over(y)])


def sinhc(square: Array) -> Array:
    """sinh(r) / r of r^2 >= 0, smooth at zero."""
    return _smooth(_SINHC, lambda r: jnp.sinh(r) / r, square)


def _cosh(square: Array) -> Array:
    return _smooth(_COSH, jnp.cosh, square)


def _arcsinhc(square: Array) -> Array:
    # Five terms leave 2e-17 at 1e-3.
    return _smooth(_ARCSINHC, lambda r: jnp.arcsinh(r) / r, square)


def _arcsinh_over(c: Array) -> Array:
    """arcsinh|c| / |c| of c [n], smooth at zero."""
    small = jnp.max(jnp.abs(c)) < 0.01
    near = _arcsinhc(jnp.sum(jnp.where(small, c, 0) ** 2))
    r = _length(jnp.where(small, 1, c))
    return jnp.where(small, near, jnp.arcsinh(r) / r)


def _length(v: Array) -> Array:
    """|v| without squares that overflow, with zero gradient at zero."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v)))
    scale = jnp.where(largest > 0, largest, 1)
    square = jnp.sum((v / scale) ** 2)
    return scale * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _log_largest(x: Array) -> float:
    """log of the largest coordinate that a point may have."""
    return math.log(float(jnp.finfo(x.dtype).max)) - 4


def _smooth(series: tuple, of_root: Callable[[Array], Array], square: Array) -> Array:
    """of_root(sqrt(square)), by its series in the square where that is below 1e-3."""
    small = square < 1e-3
    near = jnp.polyval(jnp.asarray(series[::-1], square.dtype), jnp.where(small, square, 0))
    return jnp.where(small, near, of_root(jnp.sqrt(jnp.where(small, 1, square))))


def _on(y: Array) -> Array:
    return jnp.concatenate([_length(jnp.append(y, 1))[None], y])


def _check(x: np.ndarray, dim: int) -> str:
    if x.shape[1:] != (dim + 1,):
        return f"states have shape {x.shape[1:]}; valid: ({dim + 1},)"
    if not np.isfinite(x).all():
        return "states hold values that are not finite"
    off = np.abs(x[:, 0] - np.sqrt(1 + np.sum(x[:, 1:] ** 2, 1))) / np.maximum(1, np.abs(x[:, 0]))
    if off.max(initial=0) > 1e-4:
        return f"states are off the hyperboloid by {off.max():.2g}; valid: x_0 = sqrt(1 + |y|^2)"
    return ""
