"""The probability simplex with the flat metric of the affine space it spans.

    { x in R^D : x >= 0, sum_i x_i = 1 },    tangent vectors: those that sum to zero.

exp(x, v) = x + v, and the coordinate vectors less their mean, e_k - 1/D, are a frame, because
their outer products sum to the projection I - 1 1^T / D on the tangent space. Densities are with
respect to Lebesgue measure in D - 1 of the coordinates, whichever: the measure of the textbook
Dirichlet density, sqrt(D) times smaller than the (D - 1)-dimensional volume. A constant
factor changes no gradient, divergence or adjoint.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from gmjax.types import Array, Distribution, Key, Space

TOLERANCE = 1e-4  # of the sum of a state


def simplex(size: int) -> Space:
    """The vectors of `size` non-negative numbers that sum to one.

    `project` clips at zero and renormalises. The nearest point would need a sort and move
    mass onto coordinates that were exact; this one keeps zeros and ratios, is
    differentiable almost everywhere, and for a point outside by h moves it by O(h) too.
    """

    def check(x: np.ndarray) -> str:
        valid = "valid: non-negative numbers that sum to one, such as counts / counts.sum()"
        if x.shape[1:] != (size,):
            return f"states have shape {x.shape[1:]}; valid: {(size,)}"
        if not np.isfinite(x).all():
            return f"states hold values that are not finite; {valid}"
        if x.min(initial=0) < 0:
            return f"states hold the negative value {x.min():.4g}; {valid}"
        gap = x.sum(-1, dtype=np.float64) - 1
        if np.abs(gap).max(initial=0) > TOLERANCE:
            return f"a state sums to {1 + gap[np.abs(gap).argmax()]:.6g}; {valid}"
        return ""

    def embed(x):
        # The root tells small shares apart; the shift keeps its slope finite at zero.
        return jnp.concatenate([size * x - 1, jnp.sqrt(size * (x + 1e-4)) - 1])

    centred = lambda v: v - jnp.mean(v)
    return Space(
        shape=(size,),
        dim=size - 1,
        check=check,
        project=project,
        tangent=lambda x, v: centred(v),
        exp=lambda x, v: x + v,
        log=lambda x, y: y - x,
        inner=lambda x, u, v: jnp.sum(u * v),
        frame=lambda x: jnp.eye(size, dtype=x.dtype) - jnp.ones((), x.dtype) / size,
        noise=lambda key, x, draw=jax.random.normal: centred(draw(key, (size,), x.dtype)),
        uniform=dirichlet(np.ones(size)),
        embed=embed,
    )


def project(x: Array) -> Array:
    """The point of the simplex with the ratios of x's positive parts; its centre if none."""
    kept = jnp.maximum(x, 0)
    total = jnp.sum(kept)
    some = total > 0
    return jnp.where(some, kept / jnp.where(some, total, 1), 1 / x.size)


def dirichlet(alpha: Sequence[float] | np.ndarray) -> Distribution:
    """The law with density Gamma(|alpha|) prod_i x_i^(alpha_i - 1) / Gamma(alpha_i).

    Args:
        alpha: [D], positive.

    Returns:
        A `Distribution` whose log density stays finite on the boundary.
    """
    a = np.asarray(alpha, np.float64)

    def sample(key: Key) -> Array:
        return draw_dirichlet(key, jnp.asarray(a, jnp.zeros(()).dtype))

    def log_prob(x: Array) -> Array:
        b = jnp.asarray(a, x.dtype)
        constant = gammaln(jnp.sum(b)) - jnp.sum(gammaln(b))
        return constant + jnp.sum((b - 1) * jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny)))

    return Distribution(sample, log_prob)


def draw_dirichlet(key: Key, alpha: Array) -> Array:
    """A draw of Dirichlet(alpha), alpha [D] >= 0 and not all zero: [D].

    Logarithms of gamma variables, so that no small alpha underflows to 0 / 0.
    """
    return jax.nn.softmax(jax.random.loggamma(key, alpha))
