"""What an exactly known law of data is, and what a network trained on it would predict.

With x = alpha x0 + sigma eps, eps ~ N(0, I), everything that diffusion and flow matching learn
is a posterior moment of x0, and a function of the two coefficients rather than of the time:

    score      grad log p(x) = (alpha D(x) - x) / sigma^2,  D(x) = E[x0 | x]     (Tweedie)
    noise      E[eps | x] = -sigma score
    Jacobian   dD/dx = (alpha / sigma^2) Cov(x0 | x)

so one record serves every path, and `predict` is the exact network of any path and any head.
Nothing of size d x d is built unless the law itself has it: covariances are diagonal plus a few
directions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gmjax.paths.gaussian import GaussianPath, slopes
from gmjax.paths.heads import HEADS
from gmjax.types import Array, Cond, Key, Predict, PyTree, lookup


class Covariance(NamedTuple):
    """diag(diagonal) + factor diag(weights) factor^T; weights may be negative."""

    diagonal: Array  # [d]
    factor: Array  # [d, k], k = 0 where it is diagonal
    weights: Array  # [k]


class Target(NamedTuple):
    """A law on R^d, known exactly under Gaussian noise of any size; for one state x [d].

    alpha and sigma are [] and not negative; at alpha = 0 the posterior is the law, and a sigma of
    zero counts as the resolution of the numbers.
    """

    dim: int
    mean: np.ndarray  # [d]
    covariance: Covariance  # of x0; numpy, as the mean
    sample: Callable[[Key], Array]  # key -> x0 [d]
    log_prob: Callable[[Array, Array, Array], Array]  # (x, alpha, sigma) -> [] nats
    score: Callable[[Array, Array, Array], Array]  # (x, alpha, sigma) -> [d]
    denoiser: Callable[[Array, Array, Array], Array]  # (x, alpha, sigma) -> E[x0 | x] [d]
    posterior: Callable[[Array, Array, Array], Covariance]  # (x, alpha, sigma) -> Cov(x0 | x)
    parts: PyTree = None  # what an interpolant needs to know of a mixture, None for other laws


def dense(c: Covariance) -> Array:
    """The matrix [d, d]."""
    return jnp.diag(c.diagonal) + (c.factor * c.weights) @ c.factor.T


def times(c: Covariance, v: Array) -> Array:
    """The product with v [d]: [d]."""
    return c.diagonal * v + c.factor @ (c.weights * (c.factor.T @ v))


def trace(c: Covariance) -> Array:
    """The trace: []."""
    return jnp.sum(c.diagonal) + jnp.sum(c.weights * jnp.sum(c.factor**2, 0))


def square_trace(c: Covariance) -> Array:
    """The trace of the square, |C|_F^2: []."""
    gram = c.factor.T @ c.factor
    crossed = c.weights * jnp.sum(c.diagonal[:, None] * c.factor**2, 0)
    both = c.weights[:, None] * c.weights * gram**2
    return jnp.sum(c.diagonal**2) + 2 * jnp.sum(crossed) + jnp.sum(both)


def diagonal(values: Any) -> Covariance:
    """The covariance with `values` [d] on its diagonal."""
    like: Any = jnp if isinstance(values, jax.Array) else np
    return Covariance(
        values, like.zeros((len(values), 0), values.dtype), like.zeros(0, values.dtype)
    )


def resolved(sigma: Array) -> Array:
    """sigma, or the resolution of its dtype where it is less."""
    return jnp.maximum(sigma, jnp.finfo(sigma.dtype).eps)


def velocity(target: Target, path: GaussianPath) -> Callable[[Array, Array], Array]:
    """The probability flow of a path: (x [d], t []) -> alpha' E[x0 | x] + sigma' E[eps | x] [d]."""

    def at(x: Array, t: Array) -> Array:
        a, s, da, ds = (c.astype(x.dtype) for c in slopes(path, t))
        return da * target.denoiser(x, a, s) - ds * s * target.score(x, a, s)

    return at


def noised(target: Target, path: GaussianPath) -> Callable[[Key, Array], Array]:
    """Draws of the marginals of a path: (key, t []) -> alpha x0 + sigma eps [d]."""

    def draw(key: Key, t: Array) -> Array:
        key_data, key_noise = jax.random.split(key)
        x0 = target.sample(key_data)
        eps = jax.random.normal(key_noise, x0.shape, x0.dtype)
        return path.alpha(t).astype(x0.dtype) * x0 + path.sigma(t).astype(x0.dtype) * eps

    return draw


def predict(target: Target, path: GaussianPath, head: str, data_std: float = 1.0) -> Predict:
    """The exact network: (x [B, d], t [B], cond) -> the posterior mean of a head's target [B, d].

    Args:
        target: the law of the data.
        path: of the marginals.
        head: in `paths.heads.HEADS`.
        data_std: of the head "edm".

    Raises:
        UserError: an unknown head.
    """
    form = lookup(HEADS, head, "config.loss.head")

    def one(x, t):
        a, s, da, ds = (c.astype(x.dtype) for c in slopes(path, t))
        s = resolved(s)  # the score's own head divides by it
        p, q = form(a, s, da, ds, data_std)
        return p * target.denoiser(x, a, s) - q * s * target.score(x, a, s)

    def network(x: Array, t: Array, cond: Cond = None) -> Array:
        return jax.vmap(one)(x, t)

    return network
