"""Gaussians, Gaussians on a subspace, and their mixtures.

Under x = alpha x0 + sigma eps the component N(m, C) has the marginal N(alpha m, V) with
V = alpha^2 C + sigma^2 I and, with the gap g = x - alpha m, the posterior

    mean m + alpha C V^{-1} g,      covariance sigma^2 C V^{-1},      score -V^{-1} g.

C is kept as its eigenvectors and eigenvalues, in which V^{-1} and C V^{-1} are one division, so
nothing is solved at run time and none of these is lost where sigma is small. A mixture weights
its components by their responsibilities r_j; the covariance of their means adds to its own.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax import draws
from gmjax.targets.laws import Covariance, Target, resolved
from gmjax.types import Array, UserError

_EXACT = jax.lax.Precision.HIGHEST


class Components(NamedTuple):
    """J Gaussians N(m_j, U_j diag(values_j) U_j^T), and their weights."""

    weights: np.ndarray  # [J], of sum one
    means: np.ndarray  # [J, d]
    values: np.ndarray  # [J, k] >= 0
    vectors: np.ndarray | None  # [J, d, k] orthonormal columns; None: the coordinates, k = d


def gaussian(mean: Any, covariance: Any = 1.0) -> Target:
    """N(mean, covariance).

    Args:
        mean: [d].
        covariance: [] times the identity, [d] a diagonal, or [d, d]; semi-definite.
    """
    mean = np.asarray(mean, np.float64)
    covariance = np.asarray(covariance, np.float64)
    return mixture(np.ones(1), mean[None], covariance[None])


def subspace(factor: Any, mean: Any = 0.0) -> Target:
    """N(mean, factor factor^T), which lives on k of d dimensions.

    Args:
        factor: [d, k], k <= d.
        mean: broadcastable to [d].
    """
    factor = np.asarray(factor, np.float64)
    if factor.ndim != 2 or factor.shape[1] > factor.shape[0]:
        raise UserError(f"config.target.factor has shape {factor.shape}; valid: (d, k), k <= d")
    vectors, values, _ = np.linalg.svd(factor, full_matrices=False)
    means = np.broadcast_to(np.asarray(mean, np.float64), factor.shape[:1])
    return of(Components(np.ones(1), means[None], values[None] ** 2, vectors[None]))


def mixture(weights: Any, means: Any, covariances: Any) -> Target:
    """sum_j weights_j N(means_j, covariances_j).

    Args:
        weights: [J], positive; made to sum to one.
        means: [J, d].
        covariances: [] or [J] times the identity, [J, d] diagonals, or [J, d, d]; semi-definite.

    Raises:
        UserError: shapes that do not fit, weights that are not positive, covariances that are not
            symmetric and semi-definite.
    """
    weights, means, covariances = (np.asarray(a, np.float64) for a in (weights, means, covariances))
    if means.ndim != 2 or weights.shape != means.shape[:1]:
        raise UserError(
            f"config.target.means has shape {means.shape} and config.target.weights"
            f" {weights.shape}; valid: (J, d) and (J,)"
        )
    if not (weights > 0).all():
        raise UserError(f"config.target.weights={weights.tolist()} must be positive")
    j, d = means.shape
    if covariances.ndim == 3 and covariances.shape == (j, d, d):
        if not np.allclose(covariances, np.swapaxes(covariances, 1, 2)):
            raise UserError("config.target.covariances must be symmetric")
        values, vectors = np.linalg.eigh(covariances)
        values = np.where(np.abs(values) < 1e-14 * values.max(), 0.0, values)
    elif covariances.shape in ((), (j,), (j, 1), (j, d)):
        columns = covariances[:, None] if covariances.ndim == 1 else covariances
        values, vectors = np.array(np.broadcast_to(columns, (j, d))), None
    else:
        raise UserError(
            f"config.target.covariances has shape {covariances.shape}; valid:"
            f" (), {(j,)}, {(j, d)} or {(j, d, d)}"
        )
    if not (values >= 0).all():
        raise UserError("config.target.covariances must be positive semi-definite")
    return of(Components(weights / weights.sum(), means, values, vectors))


def of(parts: Components) -> Target:
    """The target of a mixture of Gaussians."""
    count, dim = parts.means.shape
    free = dim - parts.values.shape[1]  # dimensions of variance zero

    def shift(x, alpha):
        return x - alpha * jnp.asarray(parts.means, x.dtype)

    def variances(alpha, sigma):
        """Eigenvalues of V_j: [J, k], and the one off the span, []."""
        off = resolved(sigma) ** 2
        return alpha**2 * jnp.asarray(parts.values, sigma.dtype) + off, off

    def likely(x, alpha, sigma):
        """log(weight N(x; alpha m_j, V_j)): [J]."""
        gap = shift(x, alpha)
        v, off = variances(alpha, sigma)
        quad = jnp.sum(gap * _through(parts, 1 / v, 1 / off, gap), -1)
        logs = jnp.sum(jnp.log(v), -1) + free * jnp.log(off) + dim * math.log(2 * math.pi)
        return jnp.log(jnp.asarray(parts.weights, x.dtype)) - 0.5 * (quad + logs)

    def share(x, alpha, sigma):
        return jax.nn.softmax(likely(x, alpha, sigma))

    def score(x, alpha, sigma):
        v, off = variances(alpha, sigma)
        return -share(x, alpha, sigma) @ _through(parts, 1 / v, 1 / off, shift(x, alpha))

    def centres(x, alpha, sigma):
        """The components' posterior means: [J, d]."""
        v, _ = variances(alpha, sigma)
        gain = alpha * jnp.asarray(parts.values, x.dtype) / v
        moved = _through(parts, gain, jnp.zeros_like(alpha), shift(x, alpha))
        return jnp.asarray(parts.means, x.dtype) + moved

    def posterior(x, alpha, sigma):
        v, off = variances(alpha, sigma)
        within = off * jnp.asarray(parts.values, x.dtype) / v
        return _total(parts, share(x, alpha, sigma), centres(x, alpha, sigma), within, jnp)

    def sample(key):
        key_which, key_noise = jax.random.split(key)
        j = draws.categorical(jax.random.uniform(key_which), jnp.asarray(parts.weights, float))
        values, means = (jnp.asarray(a, float)[j] for a in (parts.values, parts.means))
        noise = jnp.sqrt(values) * jax.random.normal(key_noise, values.shape)
        if parts.vectors is not None:
            noise = jnp.dot(jnp.asarray(parts.vectors, float)[j], noise, precision=_EXACT)
        return means + noise

    return Target(
        dim,
        parts.weights @ parts.means,
        _total(parts, parts.weights, parts.means, parts.values, np),
        sample,
        lambda x, alpha, sigma: jax.nn.logsumexp(likely(x, alpha, sigma)),
        score,
        lambda x, alpha, sigma: share(x, alpha, sigma) @ centres(x, alpha, sigma),
        posterior,
        parts,
    )


def _through(parts: Components, on: Array, off: Array, v: Array) -> Array:
    """f(C_j) v_j for v [J, d], f being `on` [J, k] at the eigenvalues and `off` elsewhere."""
    if parts.vectors is None:
        return on * v
    u = jnp.asarray(parts.vectors, v.dtype)
    inside = jnp.einsum("jdk,jd->jk", u, v, precision=_EXACT)
    out = jnp.einsum("jdk,jk->jd", u, on * inside, precision=_EXACT)
    if u.shape[1] == u.shape[2]:
        return out  # what is left of v off the span would be rounding, times a large number
    return out + off * (v - jnp.einsum("jdk,jk->jd", u, inside, precision=_EXACT))


def _total(parts: Components, weights, centres, values, like: Any) -> Covariance:
    """The covariance of a mixture with these weights [J], means [J, d] and variances [J, k]."""
    count, dim = parts.means.shape
    mean = weights @ centres
    between = (centres - mean)[: count if count > 1 else 0]
    factors, scales = [between.T], [weights[: len(between)]]
    own = weights @ values if parts.vectors is None else like.zeros(dim, mean.dtype)
    if parts.vectors is not None:
        wide = np.moveaxis(parts.vectors, 0, 1).reshape(dim, -1)
        factors.append(like.asarray(wide, mean.dtype))
        scales.append((weights[:, None] * values).reshape(-1))
    return Covariance(own, like.concatenate(factors, 1), like.concatenate(scales))


GAUSSIAN: dict[str, Callable[..., Target]] = {
    "gaussian": gaussian,
    "subspace": subspace,
    "mixture": mixture,
}
