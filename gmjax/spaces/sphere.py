"""The unit sphere S^n in R^{n+1}, with the metric it inherits.

A geodesic from x along v is the great circle cos|v| x + sin|v| v / |v|, and the angle between x
and y is

    theta = 2 atan2(|y - x|, |y + x|),

which keeps its digits near 0 and near pi, where an arc cosine loses half of them. Everything that
is a smooth function of a squared length is computed as one, so that second derivatives are
right at zero too.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Distribution, Space, UserError

TOLERANCE = 1e-3  # of the norm of a data point


def sphere(dim: int) -> Space:
    """S^n, unit vectors of R^{n+1}.

    Args:
        dim: n >= 1.

    Raises:
        UserError: n < 1.
    """
    if dim < 1:
        raise UserError(f"sphere: dim={dim} is no dimension; valid: 1, 2, 3, ...")
    shape = (dim + 1,)

    def check(x: np.ndarray) -> str:
        if x.shape[1:] != shape:
            return f"states have shape {x.shape[1:]}; valid: {shape}"
        if not np.isfinite(x).all():
            return "states hold values that are not finite; valid: unit vectors"
        worst = np.abs(np.linalg.norm(x, axis=-1) - 1).max(initial=0)
        if worst > TOLERANCE:
            return (
                f"norms differ from 1 by up to {worst:.3g}; valid: unit vectors, so divide x by |x|"
            )
        return ""

    def frame(x: Array) -> Array:
        return jnp.eye(dim + 1, dtype=x.dtype) - jnp.outer(x, x)

    return Space(
        shape=shape,
        dim=dim,
        check=check,
        project=project,
        tangent=tangent,
        exp=exp,
        log=log,
        inner=lambda x, u, v: jnp.sum(u * v),
        frame=frame,
        noise=lambda key, x, draw=jax.random.normal: tangent(x, draw(key, shape, x.dtype)),
        uniform=Distribution(
            lambda key: project(jax.random.normal(key, shape)),
            lambda x: jnp.full((), -log_area(dim), x.dtype),
        ),
        embed=lambda x: math.sqrt(dim + 1) * x,
    )


def log_area(dim: int) -> float:
    """log |S^n| = log( 2 pi^{(n+1)/2} / Gamma((n+1)/2) )."""
    half = (dim + 1) / 2
    return math.log(2) + half * math.log(math.pi) - math.lgamma(half)


def project(x: Array) -> Array:
    """x / |x|, and the first pole where x = 0."""
    square = jnp.sum(x * x)
    away = square > 0
    pole = jnp.zeros_like(x).at[0].set(1)
    return jnp.where(away, x, pole) / jnp.sqrt(jnp.where(away, square, 1))


def tangent(x: Array, v: Array) -> Array:
    """v - <x, v> x."""
    return v - jnp.sum(x * v) * x


def part(x: Array, y: Array) -> Array:
    """y - <x, y> x, from whichever of y - x and y + x is short: of length sin(theta)."""
    return tangent(x, jnp.where(jnp.sum(x * y) >= 0, y - x, y + x))


def angle(x: Array, y: Array) -> Array:
    """The angle between unit vectors, in [0, pi]; its gradient at 0 and at pi is zero."""
    return 2 * jnp.atan2(_length(jnp.sum((y - x) ** 2)), _length(jnp.sum((y + x) ** 2)))


def exp(x: Array, v: Array) -> Array:
    """cos|v| x + sin|v| v / |v|."""
    cos, sinc = _cos_sinc(jnp.sum(v * v))
    return cos * x + sinc * v


def log(x: Array, y: Array) -> Array:
    """The tangent vector at x of length theta that points to y; one of many if y = -x."""
    near = jnp.sum(x * y) >= 0
    along = part(x, y)
    sine = _length(jnp.sum(along * along))
    ahead = sine > 0
    far = jnp.where(ahead, angle(x, y) / jnp.where(ahead, sine, 1), 0) * along
    close = _angle_over_sine(0.25 * jnp.sum((y - x) ** 2)) * along
    # At the antipode every direction will do: take that of the axis furthest from x.
    axis = jnp.zeros_like(x).at[jnp.argmin(jnp.abs(x))].set(1)
    any_way = jnp.pi * project(tangent(x, axis))
    return jnp.where(near, close, jnp.where(ahead, far, jax.lax.stop_gradient(any_way)))


def _length(square: Array) -> Array:
    """The square root, with zero gradient at zero."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def _cos_sinc(q: Array) -> tuple[Array, Array]:
    """cos(sqrt q) and sin(sqrt q) / sqrt q, smooth at q = 0."""
    small = q < 1e-2
    r = jnp.sqrt(jnp.where(small, 1, q))
    s = jnp.where(small, q, 0)
    cos = 1 - s / 2 * (1 - s / 12 * (1 - s / 30 * (1 - s / 56)))
    sinc = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72)))
    return jnp.where(small, cos, jnp.cos(r)), jnp.where(small, sinc, jnp.sin(r) / r)


def _angle_over_sine(q: Array) -> Array:
    """theta / sin theta from q = sin^2(theta / 2), smooth at q = 0."""
    small = q < 1e-3
    s = jnp.where(small, q, 0)
    series = 1 + 2 * s / 3 * (1 + 4 * s / 5 * (1 + 6 * s / 7 * (1 + 8 * s / 9)))
    r = jnp.clip(jnp.where(small, 0.5, q), 0, 0.9)  # the caller is far from the antipode
    return jnp.where(small, series, jnp.arcsin(jnp.sqrt(r)) / jnp.sqrt(r * (1 - r)))
