"""The likelihood of a decoder with a Gaussian prior and Gaussian noise, by importance sampling.

    p(x) = int N(z; m, C) N(x; g(z), s^2 I) dz

The proposal is the posterior of g made linear at a guess z_0, with J = g'(z_0):

    A = C^{-1} + J^T J / s^2,   mean z_0 + A^{-1} (J^T (x - g(z_0)) / s^2 - C^{-1} (z_0 - m)),

of covariance A^{-1}. The mean of weights p(x, z) / q(z) is unbiased for p(x), so its logarithm is
below log p(x) in the mean. For a linear g every weight is p(x) and the result is exact.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from gmjax.classical.covariances import cholesky
from gmjax.types import Array, Key


def log_likelihood(
    key: Key,
    x: Array,
    guess: Array,
    decode: Callable[[Array], Array],
    mean: Array,
    covariance: Array,
    noise: Array,
    draws: int,
) -> Array:
    """log of the mean of `draws` weights, for one x.

    Args:
        key: of the draws.
        x: [D].
        guess: [q], z_0.
        decode: g, [q] -> [D].
        mean: [q], m.
        covariance: [q, q], C.
        noise: [], s^2.
        draws: how many, at least 1.

    Returns:
        [] nats, below log p(x) in the mean.
    """
    (d,), (q,) = x.shape, mean.shape
    prior = cholesky(covariance)
    inverse = cho_solve((prior, True), jnp.eye(q, dtype=x.dtype))
    slope = jax.jacfwd(decode)(guess)
    lower = cholesky(inverse + slope.T @ slope / noise)
    pull = slope.T @ (x - decode(guess)) / noise - inverse @ (guess - mean)
    centre = guess + cho_solve((lower, True), pull)
    e = jax.random.normal(key, (draws, q), x.dtype)

    def log_weight(e: Array) -> Array:
        z = centre + solve_triangular(lower, e, lower=True, trans=1)
        code = solve_triangular(prior, z - mean, lower=True)
        rest = x - decode(z)
        log_prior = -0.5 * code @ code - jnp.log(jnp.diagonal(prior)).sum()
        log_data = -0.5 * rest @ rest / noise - 0.5 * d * (math.log(2 * math.pi) + jnp.log(noise))
        return log_prior + log_data + 0.5 * e @ e - jnp.log(jnp.diagonal(lower)).sum()

    return jax.nn.logsumexp(jax.vmap(log_weight)(e)) - math.log(draws)
