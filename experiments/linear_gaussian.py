r"""Two Gaussian laws between which everything about importance weights is known.

The posterior is N(mu, P I) and the proposal q = N(m, V I) in R^d. With z = m + sqrt(V) e,
delta = m - mu, h = |delta| and c = (V / P - 1) / 2, the relative log-weight is

    log w / p(x) = -h^2 / (2 P) + d/2 log(V / P) - sqrt(V) / P delta.e - c |e|^2,

so with s = e.delta / h, a standard normal, and r2 = |e|^2 - s^2, a chi-square with d - 1 degrees
of freedom, a weight in any dimension is a function of two numbers. Its moments are

    log E (w / p)^k = -k h^2 / (2 P) + k d/2 log(V / P) - d/2 log(1 + 2 k c)
                      + k^2 V h^2 / (2 P^2 (1 + 2 k c)),

from which follow, at k = 1 - alpha, the limit of the VR-IWAE bound as N grows, and gamma_alpha^2 =
Var(w^k) / (k E(w^k)^2). P = V is the shifted Gaussian, of which log w is exactly normal.

The linear-Gaussian model has z ~ N(theta, I), x | z ~ N(z, I) and q(z | x) = N(a x + b, 2/3 I)
with a, b in R^d, so P = 1/2 and delta = (a - 1/2) x + b - theta / 2.

Source: Rainforth et al. (2018), section 4; Daudel et al. (2023), examples 2 and 3.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from gmjax.losses import variational
from gmjax.types import Array, Key


class Pair(NamedTuple):
    """The variances of posterior and proposal."""

    posterior: float  # P
    proposal: float  # V

    @property
    def bend(self) -> float:
        """c, the factor of -|e|^2 in the log-weight."""
        return (self.proposal / self.posterior - 1) / 2


LINEAR, SHIFTED = Pair(1 / 2, 2 / 3), Pair(1.0, 1.0)

# -- closed forms, in double precision on the host ----------------------------------------------


def log_moment(k: float, dims: int, h2: np.ndarray | float, pair: Pair = LINEAR) -> np.ndarray:
    """log E (w / p(x))^k, k >= 0: nats, shaped as h2 = h^2."""
    p, v = pair
    h2, wide = np.asarray(h2, np.float64), 1 + 2 * k * pair.bend
    linear = k * (0.5 * dims * math.log(v / p) - h2 / (2 * p))
    return linear - 0.5 * dims * math.log(wide) + k**2 * v * h2 / (2 * p**2 * wide)


def elbo_gap(dims: int, h2: np.ndarray | float, pair: Pair = LINEAR) -> np.ndarray:
    """ELBO - log p(x) = E log(w / p(x)): nats."""
    p, v = pair
    return 0.5 * dims * math.log(v / p) - np.asarray(h2) / (2 * p) - pair.bend * dims


def spread(dims: int, h2: np.ndarray | float, pair: Pair = LINEAR) -> np.ndarray:
    """The variance of log w: nats^2."""
    p, v = pair
    return v * np.asarray(h2) / p**2 + 2 * dims * pair.bend**2


def limit_gap(alpha: float, dims: int, h2: np.ndarray | float, pair: Pair = LINEAR) -> np.ndarray:
    """VR bound - log p(x), to which the gap tends as N grows; alpha in [0, 1): nats."""
    return log_moment(1 - alpha, dims, h2, pair) / (1 - alpha)


def log_gamma2(alpha: float, dims: int, h2: np.ndarray | float, pair: Pair = LINEAR) -> np.ndarray:
    """log gamma_alpha^2 = log((E w^2k / (E w^k)^2 - 1) / k), k = 1 - alpha."""
    k = 1 - alpha
    x = log_moment(2 * k, dims, h2, pair) - 2 * log_moment(k, dims, h2, pair)
    return x + np.log(-np.expm1(-x)) - math.log(k)


def expected_maximum(n: int) -> float:
    """E of the largest of n standard normals, by quadrature of its distribution function."""
    x = np.arange(-12_000, 12_001) / 1000
    below = np.exp(n * special.log_ndtr(x))
    return float(np.trapezoid(np.heaviside(x, 0.5) - below, x))


# -- draws --------------------------------------------------------------------------------------


def radial(key: Key, n: int, dims: int | Array, h: Array, pair: Pair = LINEAR, share: int = 1):
    """n particles for each of several points.

    Args:
        dims: d, whole, traced or not.
        h: [T] distances of the means.
        share: groups of points that use the same r2, whose draws cost most: no mean changes.

    Returns:
        log(w / p(x)), s and r2: [n, T] each, float32.
    """
    p, v = pair
    key_s, key_r = jax.random.split(key)
    s = jax.random.normal(key_s, (n, len(h)))
    r2 = jnp.zeros_like(s)
    if pair.bend:
        shape = n, -(-len(h) // share)
        r2 = jax.random.chisquare(key_r, jnp.maximum(dims - 1.0, 1.0), shape)
        r2 = jnp.where(dims > 1, jnp.tile(r2, (1, share))[:, : len(h)], 0.0)
    constant = 0.5 * dims * math.log(v / p) - h**2 / (2 * p)
    return constant - math.sqrt(v) / p * h * s - pair.bend * (s**2 + r2), s, r2


# -- the linear-Gaussian model ------------------------------------------------------------------


class Parameters(NamedTuple):
    """theta of the model, a and b of the proposal: [d] each."""

    theta: Array
    a: Array
    b: Array


def problem(key: Key, dims: int, points: int, perturbation: float) -> tuple[Array, Parameters]:
    """Data from theta = 0, [T, d], and the best parameters with normal noise added.

    The best are theta = mean of x, a = 1/2, b = theta / 2.
    """
    key_x, *keys = jax.random.split(key, 4)
    x = math.sqrt(2) * jax.random.normal(key_x, (points, dims))
    mean = jnp.mean(x, 0)
    best = Parameters(mean, jnp.full(dims, 0.5), mean / 2)
    moved = [
        v + perturbation * jax.random.normal(k, (dims,)) for v, k in zip(best, keys, strict=True)
    ]
    return x, Parameters(*moved)


def offset(w: Parameters, x: Array) -> Array:
    """delta = m - mu: shaped as x."""
    return w.a * x + w.b - (x + w.theta) / 2


def log_evidence(w: Parameters, x: Array) -> Array:
    """log p(x), x [..., d]."""
    return jnp.sum(-0.25 * (x - w.theta) ** 2 - 0.5 * math.log(4 * math.pi), -1)


def log_weights(
    w: Parameters, x: Array, noise: Array, gradient: str, alpha: float | Array
) -> Array:
    """By the library: x [..., d], noise [N, ..., d] -> log w [N, ...], to be differentiated."""
    mean = w.a * x + w.b
    q = variational.Gaussian(mean, jnp.full_like(mean, 0.5 * math.log(LINEAR.proposal)))
    z, q, mark = variational.GRADIENTS[gradient](variational.draw(q, noise), q, alpha)
    log_p = variational.standard(z - w.theta) + variational.standard(x - z)
    return log_p - variational.log_prob(q, z) + mark
