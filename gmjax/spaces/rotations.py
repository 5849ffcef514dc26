"""SO(3): rotation matrices, with the metric in which |w| is the speed of the angle.

A tangent vector at R is R hat(w), with hat(w) z = w x z, and <R hat(u), R hat(v)> = u . v is half
of Frobenius' inner product. The metric is invariant on both sides; geodesics are R exp(hat(s w)):

    exp(hat(w)) = I + (sin a / a) hat(w) + 2 (sin(a/2) / a)^2 hat(w)^2,         a = |w|.

The logarithm goes by the unit quaternion q = (cos(a/2), sin(a/2) w/a). For a rotation M

    4 q q^T = [[1 + tr M, m^T], [m, (1 - tr M) I + M + M^T]],        hat(m) = M - M^T,

linear in M; its largest row, normalised, is q without loss of digits at any angle. For a general
M the unit q with the largest q^T (.) q is the rotation nearest to M, so powers of the same matrix
project. Every function is written in squares of angles, smooth at zero to all orders.

SO(3) is half of a three-sphere of radius two: its volume is 8 pi^2. Sources: Rodrigues (1840);
Shepperd (1978); Davenport (1968).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.types import Array, Distribution, Space

VOLUME = 8 * math.pi**2
TOLERANCE = 1e-4  # of entries of R^T R in what users give


def rotations() -> Space:
    """The rotations of R^3 as matrices [3, 3]; a tangent vector at R is R hat(w)."""
    identity = np.eye(3)
    return Space(
        shape=(3, 3),
        dim=3,
        check=_check,
        project=lambda x: matrix(quaternion(x, squarings=4)),
        tangent=lambda x, v: compose(x, hat(vee(compose(x.T, v)))),
        exp=lambda x, v: compose(x, exp(vee(compose(x.T, v)))),
        log=lambda x, y: compose(x, hat(log(compose(x.T, y)))),
        inner=lambda x, u, v: 0.5 * jnp.sum(u * v),
        frame=lambda x: jax.vmap(lambda w: compose(x, hat(w)))(jnp.asarray(identity, x.dtype)),
        noise=lambda key, x, draw=jax.random.normal: compose(x, hat(draw(key, (3,), x.dtype))),
        uniform=Distribution(haar, lambda x: jnp.full((), -math.log(VOLUME), x.dtype)),
        embed=jnp.ravel,
    )


def compose(a: Array, b: Array) -> Array:
    """The product of two matrices [n, n] in full precision; on accelerators `@` may round."""
    return jnp.sum(a[:, :, None] * b, 1)


def hat(w: Array) -> Array:
    """The antisymmetric matrix [3, 3] with hat(w) z = w x z."""
    zero = jnp.zeros_like(w[0])
    rows = [[zero, -w[2], w[1]], [w[2], zero, -w[0]], [-w[1], w[0], zero]]
    return jnp.stack([jnp.stack(row) for row in rows])


def vee(m: Array) -> Array:
    """The w [3] of the antisymmetric part of m [3, 3]."""
    return 0.5 * jnp.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])


def exp(w: Array) -> Array:
    """The rotation [3, 3] by the angle |w| about w [3]."""
    square = jnp.sum(w * w)
    bend = 0.5 * sinc(0.25 * square) ** 2
    diagonal = (1 - bend * square) * jnp.eye(3, dtype=w.dtype)
    return diagonal + sinc(square) * hat(w) + bend * w[:, None] * w


def log(m: Array) -> Array:
    """The w [3], |w| <= pi, whose rotation is m [3, 3]; at the angle pi one of the two."""
    q = quaternion(m)
    q = jnp.where(q[0] < 0, -q, q)
    return 2 * _arc(q[0], jnp.sum(q[1:] ** 2)) * q[1:]


def quaternion(m: Array, squarings: int = 0) -> Array:
    """The unit quaternion [4], up to its sign, of the rotation nearest to m.

    Args:
        m: [3, 3], exactly a rotation where `squarings` is 0.
        squarings: of the matrix whose eigenvector is sought; at a distance d from SO(3)
            there remains an error d^(2^squarings).
    """
    trace, turn = jnp.trace(m), 2 * vee(m)
    lower = (1 - trace) * jnp.eye(3, dtype=m.dtype) + m + m.T
    top = jnp.concatenate([(1 + trace)[None], turn])
    power = jnp.concatenate([top[None], jnp.concatenate([turn[:, None], lower], 1)])
    for _ in range(squarings):
        power = power / jnp.sqrt(jnp.sum(power**2))
        power = compose(power, power)
    row = power[jnp.argmax(jnp.diagonal(power))]
    return row / jnp.sqrt(jnp.sum(row**2))


def matrix(q: Array) -> Array:
    """The rotation [3, 3] of a unit quaternion [4]."""
    v = q[1:]
    diagonal = (1 - 2 * jnp.sum(v**2)) * jnp.eye(3, dtype=q.dtype)
    return diagonal + 2 * q[0] * hat(v) + 2 * v[:, None] * v


def haar(key: Array) -> Array:
    """A uniform rotation [3, 3]: its quaternion is uniform on the three-sphere."""
    z = jax.random.normal(key, (4,))
    return matrix(z / jnp.sqrt(jnp.sum(z**2)))


def sinc(square: Array) -> Array:
    """sin(a) / a as a function of a^2, smooth at zero."""
    small = square < 0.1
    a = jnp.sqrt(jnp.where(small, 1, square))
    terms = [(-1) ** n / math.factorial(2 * n + 1) for n in range(7)]
    return jnp.where(small, series(terms, jnp.where(small, square, 0)), jnp.sin(a) / a)


def series(coefficients: list[float], x: Array) -> Array:
    """sum_n coefficients[n] x^n, by Horner's rule."""
    total = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        total = c + x * total
    return total


def _arc(c: Array, square: Array) -> Array:
    """atan2(s, c) / s as a function of c >= 0 and s^2 = 1 - c^2, smooth at s = 0."""
    small = square < 0.01 * c * c
    s = jnp.sqrt(jnp.where(small, 1, square))
    c_safe = jnp.where(small, c, 1)
    terms = [(-1) ** n / (2 * n + 1) for n in range(9)]
    near = series(terms, jnp.where(small, square, 0) / c_safe**2) / c_safe
    return jnp.where(small, near, jnp.arctan2(s, c) / s)


def _check(x: np.ndarray) -> str:
    valid = "valid: rotation matrices (3, 3) with R^T R = I and determinant +1"
    if x.shape[1:] != (3, 3):
        return f"states have shape {x.shape[1:]}; {valid}"
    if not np.isfinite(x).all():
        return f"states hold values that are not finite; {valid}"
    x = np.asarray(x, np.float64)
    off = np.abs(np.swapaxes(x, 1, 2) @ x - np.eye(3)).max((1, 2), initial=0)
    if (off > TOLERANCE).any():
        i = int(off.argmax())
        return f"row {i} is not orthogonal: R^T R differs from I by {off[i]:.2g}; {valid}"
    flipped = np.flatnonzero(np.linalg.det(x) < 0)
    if flipped.size:
        return f"row {flipped[0]} is a reflection, of determinant -1; {valid}"
    return ""
