"""Principal components, and the Gaussian that has them.

The q leading eigenvectors u_i of the covariance span the plane of least squared error, and with
their eigenvalues lambda_i and the mean sigma^2 of the others give the Gaussian

    C = sum_i lambda_i u_i u_i^T + sigma^2 (I - sum_i u_i u_i^T),

the likeliest with a covariance of this form (Tipping and Bishop, J. R. Stat. Soc. B 61, 1999).
Its log-density needs no matrix [D, D]: with z = U (x - m) and the residual r = x - m - U^T z,

    -2 log p(x) = D log 2 pi + sum_i (log lambda_i + z_i^2 / lambda_i)
                  + (D - q) log sigma^2 + |r|^2 / sigma^2.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gmjax.classical.moments import Moments, covariance, moments, rank, sweep
from gmjax.types import Array, Key, lookup

OVERSAMPLE = 10  # directions of the randomised solver beyond q


class Params(NamedTuple):
    """A plane through the mean, and the variances along and off it."""

    mean: Array  # [D]
    components: Array  # [q, D], orthonormal rows
    variances: Array  # [q], descending
    noise: Array  # [], sigma^2, the mean variance of the other directions; 0 where q = D


def _eigh(key: Key, x: Array, q: int, ddof: int) -> Params:
    return from_moments(moments(x), q, ddof)


def _gram(key: Key, x: Array, q: int, ddof: int) -> Params:
    """By the eigenvectors v of the N x N matrix of inner products; x^T v are those of x^T x."""
    mean = x.mean(0)
    centred = x - mean
    values, vectors = jnp.linalg.eigh(centred @ centred.T)
    values, vectors = _leading(values, vectors, q)
    # One QR makes the directions orthonormal to the last digit, null ones included.
    directions = jnp.linalg.qr(centred.T @ vectors)[0].T
    total = jnp.sum(centred * centred)
    return _params(mean, directions, values, total, len(x) - ddof)


def _randomised(key: Key, x: Array, q: int, ddof: int, powers: int = 7) -> Params:
    """Subspace iteration from random directions (Halko, Martinsson and Tropp 2011, alg. 4.4).

    The centred matrix is only applied, as x Q - m Q, and never formed.
    """
    (n, d), mean = x.shape, x.mean(0)
    width = min(q + OVERSAMPLE, n, d)
    basis = jax.random.normal(key, (d, width), x.dtype)

    def times_covariance(basis):
        """(X^T X) basis, and the sum of squares of X, in one pass over the data."""

        def block(rows, fresh):
            centred = (rows - mean) * fresh[:, None]
            return (centred.T @ (centred @ basis), jnp.sum(centred * centred)), None

        return sweep(block, x)[0]

    def power(_, basis):
        return jnp.linalg.qr(times_covariance(basis)[0])[0]

    basis = lax.fori_loop(0, powers, power, jnp.linalg.qr(basis)[0])
    image, total = times_covariance(basis)
    small = basis.T @ image
    values, vectors = jnp.linalg.eigh(0.5 * (small + small.T))
    values, vectors = _leading(values, basis @ vectors, q)
    return _params(mean, vectors.T, values, total, n - ddof)


SOLVERS: dict[str, Callable[..., Params]] = {
    "eigh": _eigh,  # of the D x D covariance
    "gram": _gram,  # of the N x N inner products, for few examples of many numbers
    "randomised": _randomised,  # few products with the data, for small q
}


@partial(jax.jit, static_argnames=("components", "solver", "ddof"))
def fit(
    x: Array, components: int, solver: str = "eigh", key: Key | None = None, ddof: int = 0
) -> Params:
    """The principal components of x.

    Args:
        x: [N, D] floats, in whose dtype all is computed.
        components: q, in 1 .. min(N, D).
        solver: a row of `SOLVERS`.
        key: of the randomised solver.
        ddof: variances are sums over N - ddof; 0 is the maximum of the likelihood.

    Raises:
        UserError: q or the solver is not valid.
    """
    make = lookup(SOLVERS, solver, "solver")
    rank(components, min(x.shape), "components")
    return make(jax.random.key(0) if key is None else key, x, components, ddof)


def from_moments(m: Moments, components: int, ddof: int = 0) -> Params:
    """The principal components of data of these moments."""
    values, vectors = jnp.linalg.eigh(covariance(m, ddof))
    rest = jnp.maximum(values[: len(values) - components], 0.0)
    noise = rest.sum() / max(rest.size, 1)
    values, vectors = _leading(values, vectors, components)
    return Params(m.mean, _signed(vectors.T), jnp.maximum(values, 0.0), noise)


def _params(mean, directions, values, total, n) -> Params:
    values, d = jnp.maximum(values, 0.0) / n, len(mean)
    rest = jnp.maximum(total / n - values.sum(), 0.0)
    return Params(mean, _signed(directions), values, rest / max(d - len(values), 1))


def _leading(values: Array, vectors: Array, q: int) -> tuple[Array, Array]:
    """The q largest of ascending eigenvalues, descending."""
    return values[::-1][:q], vectors[:, ::-1][:, :q]


def _signed(components: Array) -> Array:
    """Each row with its entry of largest size positive: a convention that makes a fit unique."""
    at = jnp.argmax(jnp.abs(components), 1)[:, None]
    return components * jnp.where(jnp.take_along_axis(components, at, 1) < 0, -1.0, 1.0)


def encode(params: Params, x: Array) -> Array:
    """Coordinates z = U (x - m) along the components: [..., D] -> [..., q]."""
    return (x - params.mean) @ params.components.T


def decode(params: Params, z: Array) -> Array:
    """The point m + U^T z of the plane: [..., q] -> [..., D]."""
    return params.mean + z @ params.components


@jax.jit
def log_likelihood(params: Params, x: Array, jitter: Array | float = 0.0) -> Array:
    """log p(x) of the Gaussian with covariance C (see the module).

    Args:
        params: with positive variances; smaller ones than rounding are raised to it.
        x: [N, D].
        jitter: x is given up to independent noise of this variance; the result is the mean over it.

    Returns:
        [N] nats.
    """
    d, q = len(params.mean), len(params.variances)
    tiny = jnp.finfo(x.dtype).eps * jnp.maximum(params.variances[0], jnp.finfo(x.dtype).tiny * 1e9)
    along, off = jnp.maximum(params.variances, tiny), jnp.maximum(params.noise, tiny)
    constant = d * jnp.log(2 * jnp.pi) + jnp.log(along).sum() + (d - q) * jnp.log(off)
    constant += jitter * (jnp.sum(1 / along) + (d - q) / off)

    def block(rows, fresh):
        centred = rows - params.mean
        z = centred @ params.components.T
        rest = centred - z @ params.components
        # Where q = D the residual is rounding, and its density a factor one.
        off_plane = jnp.sum(rest * rest, 1) / off if q < d else 0.0
        return None, -0.5 * (constant + jnp.sum(z * z / along, 1) + off_plane)

    return sweep(block, x)[1]


@partial(jax.jit, static_argnames=("n", "noise"))
def sample(key: Key, params: Params, n: int, noise: bool = True) -> Array:
    """n draws from N(m, C), [n, D]; without `noise` from its projection on the plane."""
    key_code, key_noise = jax.random.split(key)
    dtype = params.mean.dtype
    z = jnp.sqrt(params.variances) * jax.random.normal(key_code, (n, len(params.variances)), dtype)
    x = decode(params, z)
    if not noise:
        return x
    e = jnp.sqrt(params.noise) * jax.random.normal(key_noise, x.shape, dtype)
    return x + e - (e @ params.components.T) @ params.components
