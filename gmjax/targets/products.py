"""Laws with independent coordinates: d copies of one-dimensional mixtures, among them two points.

Coordinate i is sum_j w_ij N(m_ij, s_ij^2), under noise sum_j w_ij N(alpha m_ij, v_ij) with
v = alpha^2 s^2 + sigma^2. Densities add in their logarithms, and posteriors have diagonal
covariances, so d = 10^4 is no more than d numbers.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax import draws
from gmjax.targets.laws import Target, diagonal, resolved
from gmjax.types import UserError


class Columns(NamedTuple):
    """A mixture of J normal laws for every coordinate."""

    weights: np.ndarray  # [d, J], rows of sum one
    means: np.ndarray  # [d, J]
    stds: np.ndarray  # [d, J], zero for points


def mixture_product(dim: int, weights: Any, means: Any, stds: Any) -> Target:
    """Independent coordinates, each a mixture of J normal laws.

    Args:
        dim: d.
        weights: [J] or [d, J], positive; made to sum to one.
        means, stds: [J] or [d, J]; a deviation of zero is a point.

    Raises:
        UserError: shapes that do not fit, weights that are not positive, negative deviations.
    """
    arrays = {"weights": weights, "means": means, "stds": stds}
    arrays = {name: np.asarray(a, np.float64) for name, a in arrays.items()}
    if dim < 1:
        raise UserError(f"config.target.dim={dim} must be at least 1")
    size = arrays["weights"].shape[-1:]
    for name, a in arrays.items():
        if a.shape not in (size, (dim, *size)) or not size:
            raise UserError(
                f"config.target.{name} has shape {a.shape}; valid: (J,) or ({dim}, J), one J"
            )
    if not (arrays["weights"] > 0).all():
        raise UserError("config.target.weights must be positive")
    if not (arrays["stds"] >= 0).all():
        raise UserError("config.target.stds must not be negative")
    w, m, s = (np.broadcast_to(a, (dim, *size)) for a in arrays.values())
    return of(Columns(w / w.sum(-1, keepdims=True), m, s))


def two_point(dim: int, low: float = -1.0, high: float = 1.0, share: float = 0.5) -> Target:
    """Independent coordinates, each `high` with probability `share` and otherwise `low`.

    Args:
        dim: d.
        low, high: the two values.
        share: in (0, 1).
    """
    if not 0 < share < 1:
        raise UserError(f"config.target.share={share} must lie in (0, 1)")
    return mixture_product(dim, [1 - share, share], [low, high], [0.0, 0.0])


def of(parts: Columns) -> Target:
    """The target of independent one-dimensional mixtures."""
    dim = len(parts.means)

    def terms(x, alpha, sigma):
        """Gaps, variances, log-likelihoods and posterior shares of the components: [d, J] each."""
        w, m, s = (jnp.asarray(a, x.dtype) for a in parts)
        v = (alpha * s) ** 2 + resolved(sigma) ** 2
        gap = x[:, None] - alpha * m
        logs = jnp.log(w) - 0.5 * (gap**2 / v + jnp.log(2 * math.pi * v))
        return gap, v, logs, jax.nn.softmax(logs)

    def log_prob(x, alpha, sigma):
        return jnp.sum(jax.nn.logsumexp(terms(x, alpha, sigma)[2], -1))

    def score(x, alpha, sigma):
        gap, v, _, share = terms(x, alpha, sigma)
        return -jnp.sum(share * gap / v, -1)

    def moments(x, alpha, sigma):
        gap, v, _, share = terms(x, alpha, sigma)
        square = jnp.asarray(parts.stds, x.dtype) ** 2
        centre = jnp.asarray(parts.means, x.dtype) + alpha * square / v * gap
        mean = jnp.sum(share * centre, -1)
        within = square * resolved(sigma) ** 2 / v
        return mean, jnp.sum(share * (within + (centre - mean[:, None]) ** 2), -1)

    def sample(key):
        key_which, key_noise = jax.random.split(key)
        w, m, s = (jnp.asarray(a, float) for a in parts)
        j = draws.categorical(jax.random.uniform(key_which, (dim,)), w)[:, None]
        m, s = (jnp.take_along_axis(a, j, -1)[:, 0] for a in (m, s))
        return m + s * jax.random.normal(key_noise, (dim,))

    mean = np.sum(parts.weights * parts.means, -1)
    spread = parts.stds**2 + (parts.means - mean[:, None]) ** 2
    return Target(
        dim,
        mean,
        diagonal(np.sum(parts.weights * spread, -1)),
        sample,
        log_prob,
        score,
        lambda x, alpha, sigma: moments(x, alpha, sigma)[0],
        lambda x, alpha, sigma: diagonal(moments(x, alpha, sigma)[1]),
        parts,
    )


PRODUCTS: dict[str, Callable[..., Target]] = {
    "two_point": two_point,
    "mixture_product": mixture_product,
}
