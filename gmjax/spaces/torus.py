"""The flat torus T^n: n angles in radians, each in [-pi, pi)."""

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.spaces.euclidean import euclidean
from gmjax.types import Array, Distribution, Space


def torus(shape: int | tuple[int, ...]) -> Space:
    """Products of circles of radius one: R^S up to full turns of each angle.

    Args:
        shape: of one state, or n.
    """
    flat = euclidean(shape, wrap, lambda x: jnp.ravel(jnp.stack([jnp.cos(x), jnp.sin(x)])), _valid)

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, flat.shape, minval=-jnp.pi, maxval=jnp.pi)

    return flat._replace(
        exp=lambda x, v: wrap(x + v),
        log=lambda x, y: wrap(y - x),
        uniform=Distribution(draw, lambda x: jnp.full((), -flat.dim * np.log(2 * np.pi), x.dtype)),
    )


def wrap(x: Array) -> Array:
    """Angles [...] in radians, brought to [-pi, pi) by full turns; its derivative is one."""
    turns = jnp.round(x / (2 * np.pi))
    high, low = two_parts(2 * np.pi, x.dtype)
    near = (x - high * turns) - low * turns
    # Rounding goes to the even turn at half a turn, which may be the wrong end.
    near = jnp.where(near >= 0.5 * high, near - high, near)
    return jnp.where(near < -0.5 * high, near + high, near)


def two_parts(multiple_of_pi: float, dtype) -> tuple[np.ndarray, np.ndarray]:
    """A multiple of pi as a number of this precision and the rest of it."""
    high = np.asarray(multiple_of_pi, dtype)
    past_double = 1.2246467991473532e-16 / np.pi * multiple_of_pi  # pi - float64(pi)
    return high, np.asarray(multiple_of_pi - float(high) + past_double, dtype)


def _valid(x: np.ndarray) -> str:
    if np.abs(x).max(initial=0.0) > np.pi + 1e-5:
        return (
            f"angles reach {np.abs(x).max():.6g}; valid: radians wrapped to [-pi, pi),"
            " (x + pi) % (2 pi) - pi"
        )
    return ""
